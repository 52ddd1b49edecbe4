//! The death of a peer's process is told at once, as a hint.

use super::{refusal::rebind, *};
use std::{
    net::{TcpListener, UdpSocket},
    thread,
};

/// The next hint; nothing else is waited for.
async fn gone(node: &Node) -> NodeId {
    node.until(|e| match e {
        TransportEvent::Gone(peer) => Some(peer),
        _ => None,
    })
    .await
}

/// How a node ends whose thread is told to.
fn live_until(carrier: Carrier, socket: Socket, peer: SocketAddr, end: std::sync::mpsc::Receiver<()>) {
    run_by(carrier, async move {
        let two = Setup::new(2, &[(1, peer)]).start(socket);
        two.packet_in().await;
        poll(|| end.try_recv().ok()).await;
    });
}

/// A UDP socket, and the listener with its number: another process may have that of the first ones.
fn both() -> (UdpSocket, SocketAddr, TcpListener) {
    let free = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        Some((socket, address, TcpListener::bind(address).ok()?))
    };
    std::iter::repeat_with(free)
        .take(100)
        .flatten()
        .next()
        .expect("a number that is free")
}

/// A socket whose number is free for TCP too, so that QUIC can be watched.
pub(super) fn free_socket() -> (Socket, SocketAddr) {
    if carrier() != Carrier::Quic {
        return socket();
    }
    let (socket, address, _) = both();
    (socket.into(), address)
}

#[test]
fn a_process_that_was_killed_is_told_of_at_once() {
    run(|| async {
        let ((socket1, address1), (socket2, address2)) = (socket(), free_socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let (end, ended) = std::sync::mpsc::channel();
        let life = thread::spawn({
            let by = carrier();
            move || live_until(by, socket2, address1, ended)
        });
        one.connected(2).await;
        if carrier() == Carrier::Quic {
            poll(|| one.transport.watches(NodeId(2)).then_some(())).await;
        }
        one.send(2, urgent(1));
        end.send(()).unwrap();
        assert_eq!(gone(&one).await, NodeId(2));
        let stands = one.transport.status()[0].connected;
        assert_eq!(stands, carrier() == Carrier::Quic, "QUIC still hopes");
        poll(|| life.is_finished().then_some(())).await;
    });
}

#[test]
fn a_farewell_is_a_hint_too() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        two.transport.shutdown().await;
        assert_eq!(gone(&one).await, NodeId(2));
        one.dropped(2).await;
    });
}

#[test]
fn a_taken_tcp_port_costs_the_hint_and_nothing_else() {
    run_by(Carrier::Quic, async {
        let (free, address1, _taken) = both();
        let (socket2, address2) = socket();
        let one = Setup::new(1, &[(2, address2)]).start(free);
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        one.connected(2).await;
        two.connected(1).await;
        one.send(2, urgent(5));
        assert_eq!(number_of(&two.packet_in().await.message), 5);
    });
}

#[test]
fn who_cuts_connections_and_takes_new_ones_is_not_gone() {
    run_by(Carrier::Quic, async {
        let (socket1, address1) = socket();
        // Stands in the place of node 2's listener, and cuts whatever comes.
        let (socket2, address2, cutter) = both();
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        one.connected(2).await;
        for _ in 0..4 {
            let cutter = cutter.try_clone().unwrap();
            let cut = thread::spawn(move || drop(cutter.accept()));
            poll(|| cut.is_finished().then_some(())).await;
        }
        one.send(2, urgent(5));
        two.packet_in().await;
        let told = one
            .inbox
            .events
            .borrow()
            .iter()
            .any(|e| matches!(e, TransportEvent::Gone(_)));
        assert!(!told);
    });
}

#[test]
fn a_node_that_comes_back_can_listen_on_its_port_again() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        let address1 = one.transport.local_addr().unwrap();
        let address2 = two.transport.local_addr().unwrap();
        two.transport.shutdown().await;
        drop(two);
        assert_eq!(gone(&one).await, NodeId(2));
        let two = Setup::new(2, &[(1, address1)]).start(rebind(address2).await);
        one.connected(2).await;
        two.transport.shutdown().await;
        assert_eq!(gone(&one).await, NodeId(2));
    });
}
