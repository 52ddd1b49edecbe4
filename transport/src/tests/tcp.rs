//! TCP: peers that break the protocol, strangers, and lanes that nobody reads.

use super::*;
use crate::{
    credentials::server_name,
    handshakes::Handshakes,
    places::Origin,
    reason::Close,
    tcp::{
        BACKGROUND, BULK, URGENT,
        secure::{Buffer, Secure},
        words::{self, Word, Words},
    },
    tls::tls,
};
use kontiki_consensus::{Index, LogId};
use kontiki_wire::SnapshotChunk;
use rustls::pki_types::ServerName;
use std::{collections::BTreeMap as Map, net::TcpListener, sync::Arc};
use tokio::net::TcpStream;

/// A node that does as the test says.
struct Raw {
    identity: Identity,
    address: SocketAddr,
    listener: tokio::net::TcpListener,
    credentials: fn(NodeId) -> NodeCredentials,
}

fn sound(node: NodeId) -> NodeCredentials {
    NodeCredentials::derive(CLUSTER, node, &SEED).unwrap()
}

impl Raw {
    fn new(node: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            identity: identity(node),
            address,
            listener: tokio::net::TcpListener::from_std(listener).unwrap(),
            credentials: sound,
        }
    }

    /// A connection to node 1, on which nothing has been said.
    async fn connect(&self, to: SocketAddr) -> Secure {
        let (_, client) = tls((self.credentials)(self.identity.node)).unwrap();
        let name = ServerName::try_from(server_name(CLUSTER, NodeId(1))).unwrap();
        let socket = TcpStream::connect(to).await.unwrap();
        Secure::dial(socket, Arc::new(client), name, Buffer::default())
            .await
            .unwrap()
    }

    /// Connects to node 1 and greets it; its answer.
    async fn greet(&self, to: SocketAddr, lane: u8) -> (Secure, Word) {
        let secure = self.connect(to).await;
        let hello = words::hello(
            lane,
            &Hello::of(self.identity, life(self.identity.node.0)).encode(),
        );
        secure.write(&hello).await.unwrap();
        let answer = Words::default().hear(&secure).await.unwrap();
        (secure, answer)
    }

    /// Takes the connections of node 1 for all lanes.
    async fn accept(&self) -> Map<u8, Secure> {
        let mut lanes = Map::new();
        while lanes.len() < 3 {
            let (socket, _) = self.listener.accept().await.unwrap();
            let (server, _) = tls((self.credentials)(self.identity.node)).unwrap();
            let any = Handshakes::new(&Limits::default(), 1);
            let handshake = any.begin(Origin::Peer, self.address.ip()).unwrap();
            let secure = Secure::accept(socket, Arc::new(server), Buffer::default(), &handshake)
                .await
                .unwrap();
            let Word::Hello(lane, _) = Words::default().hear(&secure).await.unwrap() else {
                panic!("it does not greet");
            };
            let hello = Hello::of(self.identity, life(self.identity.node.0)).encode();
            secure.write(&words::hello(lane, &hello)).await.unwrap();
            lanes.insert(lane, secure);
        }
        lanes
    }
}

/// Reads so many bytes of a lane.
async fn read(secure: &Secure, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let keep = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok::<(), crate::dial::Lost>(())
        };
        secure.read(keep).await.unwrap();
    }
    bytes
}

/// Sends these bytes to a node on a lane; returns why it ended the connection, as told and as warned of.
async fn punished(bytes: &[u8]) -> (String, String) {
    let ((socket1, address1), raw) = (socket(), Raw::new(2));
    let one = Setup::new(1, &[(2, raw.address)]).start(socket1);
    let (secure, answer) = raw.greet(address1, BULK).await;
    assert!(matches!(answer, Word::Hello(BULK, _)), "{answer:?}");
    secure.write(bytes).await.unwrap();
    let Word::Close(code, told) = Words::default().hear(&secure).await.unwrap() else {
        panic!("not closed by the node");
    };
    assert_eq!(code, Close::BadPacket.code());
    let warning = one.warning_with("connection from node 2").await;
    (String::from_utf8(told).unwrap(), warning)
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_and_is_told_why() {
    run_by(Carrier::Tcp, async {
        for (bytes, words) in offences() {
            let (told, warned) = punished(&bytes).await;
            assert!(told.contains(words), "{told}");
            assert!(warned.contains(words), "{warned}");
        }
    });
}

#[test]
fn a_lane_that_is_not_known_is_refused_in_words() {
    run_by(Carrier::Tcp, async {
        let ((socket1, address1), raw) = (socket(), Raw::new(2));
        let one = Setup::new(1, &[(2, raw.address)]).start(socket1);
        let (_, answer) = raw.greet(address1, 3).await;
        let Word::Close(code, told) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(code, Close::Refused.code());
        assert!(String::from_utf8(told).unwrap().contains("lane 3"));
        one.warning_with("lane 3, which this node does not know").await;
    });
}

#[test]
fn who_has_no_certificate_of_the_cluster_gets_nothing() {
    run_by(Carrier::Tcp, async {
        let ((socket1, address1), mut raw) = (socket(), Raw::new(2));
        let _one = Setup::new(1, &[(2, raw.address)]).start(socket1);
        // It believes the cluster's authority, and shows a certificate of another one.
        raw.credentials = |node| {
            let stolen = NodeCredentials::derive(CLUSTER, node, &[9; 32]).unwrap();
            NodeCredentials {
                roots: sound(node).roots,
                ..stolen
            }
        };
        let secure = raw.connect(address1).await;
        let hello = words::hello(BULK, &Hello::of(raw.identity, life(raw.identity.node.0)).encode());
        // It may be refused before it has said so.
        let _ = secure.write(&hello).await;
        let lost = Words::default().hear(&secure).await.unwrap_err();
        assert!(
            lost.why.contains("they do not hold the same cluster.key"),
            "{lost:?}"
        );
    });
}

#[test]
fn garbage_and_silence_keep_nobody_out() {
    run_by(Carrier::Tcp, async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let mut setup = Setup::new(1, &[(2, address2)]);
        // Longer than a handshake takes on a slow machine, in some attempt.
        setup.limits.connect_timeout = Duration::from_millis(500);
        let one = setup.start(socket1);
        // One that says nothing, one that says what is not TLS, and one that never greets.
        let silent = TcpStream::connect(address1).await.unwrap();
        let loud = TcpStream::connect(address1).await.unwrap();
        loud.writable().await.unwrap();
        loud.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mute = Raw::new(3).connect(address1).await;
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        two.connected(1).await;
        for stream in [silent, loud] {
            // The end may be a reset, and an alert before it.
            let over = || matches!(stream.try_read(&mut [0; 64]), Ok(0)) || stream.take_error().is_err();
            poll(|| over().then_some(())).await;
        }
        assert!(Words::default().hear(&mute).await.is_err());
        two.send(1, urgent(5));
        assert_eq!(number_of(&one.packet_in().await.message), 5);
    });
}

/// The other side reads nothing of two lanes: memory stays bounded, what does not fit is told, and the third is open.
#[test]
fn a_lane_that_nobody_reads_holds_up_no_other() {
    const QUEUE: usize = 1 << 20;
    run_by(Carrier::Tcp, async {
        let ((socket1, _), raw) = (socket(), Raw::new(2));
        let mut setup = Setup::new(1, &[(2, raw.address)]);
        setup.limits.packet_bytes_max.0 = 1 << 20;
        setup.limits.queue_bytes_max = QUEUE;
        let one = setup.start(socket1);
        let lanes = raw.accept().await;
        one.connected(2).await;
        // The kernels take some megabytes on their way.
        for n in 0..1000 {
            one.send(2, bulk(n, 50_000));
            let chunk = SnapshotChunk {
                last: LogId::new(Term(1), Index(1)),
                offset: n,
                total: u64::MAX,
                bytes: bytes::Bytes::from(vec![7; 50_000]),
            };
            one.send(2, PeerMessage::SnapshotChunk(chunk));
            assert!(one.transport.queued(NodeId(2)) <= 2 * QUEUE);
            tokio::task::yield_now().await;
        }
        one.dropped(2).await;
        assert!(one.transport.queued(NodeId(2)) > QUEUE);
        one.send(2, urgent(5));
        let bytes = read(&lanes[&URGENT], 64).await;
        assert_eq!(bytes[56], 5, "the id of the read is the second word of the body");
        // And each of the others goes on when it is read.
        for lane in [BULK, BACKGROUND] {
            assert!(read(&lanes[&lane], 500_000).await.len() >= 500_000);
        }
    });
}

/// A connection that breaks off is a hint only if the host then refuses another.
#[test]
fn who_cuts_connections_and_takes_new_ones_is_not_gone() {
    run_by(Carrier::Tcp, async {
        let ((socket1, _), raw) = (socket(), Raw::new(2));
        let one = Setup::new(1, &[(2, raw.address)]).start(socket1);
        for _ in 0..3 {
            let lanes = raw.accept().await;
            one.connected(2).await;
            drop(lanes);
            one.dropped(2).await;
        }
        let lanes = raw.accept().await;
        one.connected(2).await;
        let is_gone = |event: &TransportEvent| matches!(event, TransportEvent::Gone(_));
        assert!(!one.inbox.events.borrow().iter().any(is_gone));
        drop((lanes, raw));
        let gone = one.until(|e| is_gone(&e).then_some(e)).await;
        assert_eq!(gone, TransportEvent::Gone(NodeId(2)));
    });
}

/// A peer that was admitted and hears nothing more, as one that is frozen.
#[test]
fn who_does_not_hear_the_goodbye_holds_up_nobody() {
    run_by(Carrier::Tcp, async {
        let ((socket1, address1), raw) = (socket(), Raw::new(2));
        let one = Setup::new(1, &[(2, raw.address)]).start(socket1);
        let (_deaf, answer) = raw.greet(address1, URGENT).await;
        assert!(matches!(answer, Word::Hello(..)), "{answer:?}");
        one.transport.shutdown().await;
        drop(one);
    });
}
