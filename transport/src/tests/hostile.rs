//! Peers that break the protocol, and strangers, by QUIC.

use super::*;
use crate::{
    credentials::server_name,
    peer::Peer,
    quic::{answer, config::Configs, greet},
};
use quinn::{Connection, ConnectionError, Endpoint, TokioRuntime};
use std::{net::UdpSocket, sync::Arc};

/// A node that does as the test says once it has been greeted.
pub(super) struct Raw {
    pub(super) identity: Identity,
    pub(super) address: SocketAddr,
    pub(super) endpoint: Endpoint,
}

impl Raw {
    pub(super) fn new(node: u64) -> Self {
        let identity = identity(node);
        let credentials = NodeCredentials::derive(CLUSTER, identity.node, &SEED).unwrap();
        let configs = Configs::new(credentials, &Limits::default()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint = Endpoint::new(configs.endpoint, Some(configs.server), socket, runtime).unwrap();
        endpoint.set_default_client_config(configs.client);
        Self {
            identity,
            address,
            endpoint,
        }
    }

    /// Takes the connection of node 1.
    pub(super) async fn accept(&self, from: SocketAddr) -> Connection {
        let connection = self.endpoint.accept().await.unwrap().await.unwrap();
        let peers = BTreeMap::from([(NodeId(1), peer_at(from))]);
        let hello = Hello::of(self.identity, life(self.identity.node.0));
        answer(&connection, &hello, &peers).await.unwrap();
        connection
    }

    /// Connects to node 1.
    async fn dial(&self, to: SocketAddr) -> Connection {
        let name = server_name(CLUSTER, NodeId(1));
        let connection = self.endpoint.connect(to, &name).unwrap().await.unwrap();
        greet(
            &connection,
            &Hello::of(self.identity, life(self.identity.node.0)),
            &peer_at(to),
        )
        .await
        .unwrap();
        connection
    }
}

fn peer_at(address: SocketAddr) -> Peer {
    Peer::new(NodeId(1), address.to_string(), &Limits::default())
}

/// Sends these bytes to a node on a lane; returns why it ended the connection, as told and as warned of.
async fn punished(bytes: &[u8]) -> (String, String) {
    let ((socket1, address1), raw) = (socket(), Raw::new(2));
    let one = Setup::new(1, &[(2, raw.address)]).start(socket1);
    let connection = raw.dial(address1).await;
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(bytes).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("not closed by the node");
    };
    let warning = one.warning_with("connection from node 2").await;
    (String::from_utf8(close.reason.to_vec()).unwrap(), warning)
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_and_is_told_why() {
    run_by(Carrier::Quic, async {
        for (bytes, words) in offences() {
            let (told, warned) = punished(&bytes).await;
            assert!(told.contains(words), "{told}");
            assert!(warned.contains(words), "{warned}");
        }
    });
}

#[test]
fn garbage_in_datagrams_does_no_harm() {
    run_by(Carrier::Quic, async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = 1u64;
        for len in 0..1400 {
            let datagram: Vec<u8> = (0..len)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 56) as u8
                })
                .collect();
            stranger
                .send_to(&datagram, one.transport.local_addr().unwrap())
                .unwrap();
            stranger
                .send_to(&datagram, two.transport.local_addr().unwrap())
                .unwrap();
        }
        for n in 0..100 {
            one.send(2, urgent(n));
            assert_eq!(number_of(&two.packet_in().await.message), n);
        }
    });
}

#[test]
fn silent_strangers_do_not_keep_peers_out() {
    run_by(Carrier::Quic, async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let mut setup = Setup::new(1, &[(2, address2)]);
        // Longer than a handshake takes on a slow machine, in some attempt.
        setup.limits.connect_timeout = Duration::from_millis(500);
        let one = setup.start(socket1);
        // A node that dials but never greets.
        let raw = Raw::new(3);
        let name = server_name(CLUSTER, NodeId(1));
        let silent = raw.endpoint.connect(address1, &name).unwrap().await.unwrap();
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        two.connected(1).await;
        assert!(
            one.warning_with("no greeting in time")
                .await
                .contains(&raw.address.to_string())
        );
        silent.closed().await;
    });
}
