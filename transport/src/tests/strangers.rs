//! Strangers without a key, as many as they like, keep no peer out.
//!
//! A connection that is not greeted is never given up for its age here: room is made for others, or there is none.

use super::{hostile::Raw, *};
use crate::{credentials::server_name, quic::presence::HELD_PER_ADDRESS_MAX, tls::tls};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{ClientConnection, pki_types::ServerName};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// More than there are places of either kind for one peer.
const CROWD: usize = 80;
/// Where the peers of these tests are.
const AT_A_PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where none of them is.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A connection from this address.
async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Waits until the other side has ended a connection.
async fn end(stream: &TcpStream) {
    loop {
        stream.readable().await.unwrap();
        match stream.try_read(&mut [0; 1024]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Connections that say this and nothing more, each made anew when it is ended. Goes on until it is dropped.
fn besiege(from: IpAddr, to: SocketAddr, said: &[u8]) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let said = said.to_vec();
        crowd.spawn_local(async move {
            loop {
                if let Ok(stream) = connect(from, to).await {
                    let _ = stream.try_write(&said);
                    end(&stream).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    crowd
}

/// The first words of TLS, as anybody can say them.
fn client_hello() -> Vec<u8> {
    let (_, client) = tls(NodeCredentials::derive(CLUSTER, NodeId(2), &[9; 32]).unwrap()).unwrap();
    let name = ServerName::try_from(server_name(CLUSTER, NodeId(1))).unwrap();
    let mut bytes = Vec::new();
    let mut tls = ClientConnection::new(Arc::new(client), name).unwrap();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// Node 2 comes to node 1 while the crowd from there says this.
async fn comes_through(from: IpAddr, said: &[u8]) {
    let ((socket1, address1), (socket2, address2)) = (socket(), socket());
    let one = Setup::new(1, &[(2, address2)]).start(socket1);
    let crowd = besiege(from, address1, said);
    // What there is for strangers is taken, at last.
    one.warning_with("until others needed its place").await;
    let two = Setup::new(2, &[(1, address1)]).start(socket2);
    two.connected(1).await;
    two.send(1, urgent(5));
    assert_eq!(number_of(&one.packet_in().await.message), 5);
    drop(crowd);
}

#[test]
fn silent_connections_keep_no_peer_out() {
    run_by(Carrier::Tcp, async {
        comes_through(ELSEWHERE, b"").await;
        comes_through(AT_A_PEER, b"").await;
    });
}

#[test]
fn connections_that_begin_a_handshake_keep_no_peer_out() {
    run_by(Carrier::Tcp, async {
        comes_through(ELSEWHERE, &client_hello()).await;
    });
}

#[test]
fn one_address_has_a_bounded_number_of_handshakes() {
    run_by(Carrier::Tcp, async {
        let ((socket1, address1), (_socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            crowd.spawn_local(async move { end(&connect(ELSEWHERE, address1).await.unwrap()).await });
        }
        let per_address_max = one.transport.limits().handshakes_per_address_max;
        for _ in per_address_max..CROWD {
            crowd.join_next().await.unwrap().unwrap();
            assert!(one.transport.handshakes() <= per_address_max);
        }
        assert_eq!(one.transport.handshakes(), per_address_max);
    });
}

/// It holds the key, says that it is there, and nothing else: its connections are not given up for their silence.
#[test]
fn connections_that_never_greet_keep_no_peer_out_by_quic() {
    run_by(Carrier::Quic, async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let (raw, name) = (Raw::new(3), server_name(CLUSTER, NodeId(1)));
        let mut silent = Vec::new();
        for _ in 0..CROWD {
            silent.push(raw.endpoint.connect(address1, &name).unwrap().await);
        }
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        two.connected(1).await;
        two.send(1, urgent(5));
        assert_eq!(number_of(&one.packet_in().await.message), 5);
    });
}

/// The first datagram of each of so many connections.
async fn first_datagrams(count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_, client) = tls(NodeCredentials::derive(CLUSTER, NodeId(2), &[9; 32]).unwrap()).unwrap();
    let client = QuicClientConfig::try_from(client).unwrap();
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(client)));
    let (name, to) = (server_name(CLUSTER, NodeId(1)), sink.local_addr().unwrap());
    // By the id that the dialer has chosen, which stands behind flags, version and its own length.
    let (mut datagrams, mut bytes) = (BTreeMap::new(), [0; 2048]);
    let connecting: Vec<_> = (0..count).map(|_| endpoint.connect(to, &name).unwrap()).collect();
    while datagrams.len() < count {
        let (length, _) = sink.recv_from(&mut bytes).await.unwrap();
        let id = bytes[6..][..usize::from(bytes[5])].to_vec();
        datagrams.entry(id).or_insert(bytes[..length].to_vec());
    }
    drop(connecting);
    datagrams.into_values().collect()
}

/// They may come from anywhere and in any number, under a peer's address, too.
#[test]
fn datagrams_with_a_forged_address_keep_no_peer_out() {
    run_by(Carrier::Quic, async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        // Who has that address says nothing to what comes back.
        let forged = tokio::net::UdpSocket::bind((AT_A_PEER, 0)).await.unwrap();
        let mut retries = 0;
        for datagram in first_datagrams(CROWD).await {
            forged.send_to(&datagram, address1).await.unwrap();
            let mut bytes = [0; 2048];
            forged.recv_from(&mut bytes).await.unwrap();
            // A Retry (RFC 9000, §17.2.5): the dialer has to come again from where it says it is.
            retries += usize::from(bytes[0] & 0xf0 == 0xf0);
        }
        let begun = one.transport.handshakes();
        assert!(begun <= CROWD / 8, "{begun} handshakes with nobody");
        assert!(
            retries > CROWD / 2,
            "{retries} of {CROWD} had to show where they are"
        );
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        two.connected(1).await;
        two.send(1, urgent(5));
        assert_eq!(number_of(&one.packet_in().await.message), 5);
    });
}

/// Connections by which nobody watches this process: each address has a few, and none of those for peers.
#[test]
fn idle_connections_of_strangers_keep_no_watcher_out() {
    run_by(Carrier::Quic, async {
        let ((socket1, address1), (socket2, address2)) = (super::presence::free_socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        two.connected(1).await;
        poll(|| two.transport.watches(NodeId(1)).then_some(())).await;
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            crowd.spawn_local(async move { end(&connect(ELSEWHERE, address1).await.unwrap()).await });
        }
        for _ in HELD_PER_ADDRESS_MAX..CROWD {
            crowd.join_next().await.unwrap().unwrap();
        }
        assert_eq!(crowd.len(), HELD_PER_ADDRESS_MAX);
        assert!(two.transport.watches(NodeId(1)), "it was never cut off");
        drop(one);
    });
}
