//! Packets get to where they are sent, whole and in order.

use super::*;

#[test]
fn two_nodes_exchange_packets_both_ways() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        two.connected(1).await;
        one.send(2, urgent(11));
        assert_eq!(two.packet_in().await, one.packet(2, urgent(11)));
        two.send(1, bulk(12, 100_000));
        assert_eq!(one.packet_in().await, two.packet(1, bulk(12, 100_000)));
    });
}

#[test]
fn three_nodes_hear_each_other() {
    run(|| async {
        let sockets: Vec<_> = (0..3).map(|_| socket()).collect();
        let peers: Vec<_> = (1..).zip(sockets.iter().map(|(_, a)| *a)).collect();
        let start = |(n, (s, _)): (u64, (Socket, _))| Setup::new(n, &peers).start(s);
        let nodes: Vec<Node> = (1..).zip(sockets).map(start).collect();
        for node in &nodes {
            for _ in 0..2 {
                node.until(|e| matches!(e, TransportEvent::Connected(..)).then_some(()))
                    .await;
            }
        }
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            nodes[from].send(to as u64 + 1, urgent(from as u64));
            let packet = nodes[to].packet_in().await;
            assert_eq!(
                (packet.from, number_of(&packet.message)),
                (NodeId(from as u64 + 1), from as u64)
            );
        }
        assert_eq!(nodes[0].transport.status().len(), 2, "a node is not its own peer");
    });
}

#[test]
fn a_hundred_thousand_packets_arrive_in_order_on_each_lane() {
    const COUNT: u64 = 100_000;
    run(|| async {
        let (one, two) = pair(|setup| {
            setup.limits.queue_packets_max = COUNT as usize;
            setup.limits.queue_bytes_max = 64 << 20;
        });
        one.connected(2).await;
        for n in 0..COUNT {
            one.send(2, urgent(n));
            one.send(2, bulk(n, 20));
        }
        let mut next = [0, 0];
        while next != [COUNT, COUNT] {
            let message = two.packet_in().await.message;
            let lane = usize::from(message.is_urgent());
            assert_eq!(number_of(&message), next[lane]);
            next[lane] += 1;
        }
    });
}

#[test]
fn a_host_name_is_resolved_and_its_addresses_are_tried_in_turn() {
    run(|| async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let mut setup = Setup::new(1, &[]);
        setup
            .peers
            .insert(NodeId(2), format!("localhost:{}", address2.port()));
        let one = setup.start(socket1);
        let _two = Setup::new(2, &[(1, address1)]).start(socket2);
        one.connected(2).await;
        assert_eq!(one.transport.status()[0].remote, Some(address2));
    });
}

#[test]
fn a_name_that_does_not_resolve_is_reported_and_does_no_harm() {
    run(|| async {
        let ((socket1, _), (socket2, address2)) = (socket(), socket());
        let mut setup = Setup::new(1, &[(2, address2)]);
        setup.peers.insert(NodeId(3), "no-port-here".into());
        let one = setup.start(socket1);
        let _two = Setup::new(2, &[(1, one.transport.local_addr().unwrap())]).start(socket2);
        one.connected(2).await;
        assert!(one.error_to(3).await.contains("cannot be resolved"));
    });
}

#[test]
fn shutdown_tells_the_peers_and_ends() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        two.transport.shutdown().await;
        let reason = one
            .until(|e| match e {
                TransportEvent::Disconnected(_, reason) => Some(reason),
                _ => None,
            })
            .await;
        assert_eq!(reason, "the other side was stopped");
        two.transport.shutdown().await;
        two.send(1, urgent(1));
        assert!(!two.transport.status()[0].connected);
    });
}
