//! Lanes are bounded, and the urgent one does not wait for the other.

use super::{hostile::Raw, *};

#[test]
fn what_does_not_fit_is_dropped_and_reported_and_memory_stays_bounded() {
    const QUEUE: usize = 1 << 20;
    run(async {
        let ((socket1, address1), raw) = (socket(), Raw::new(2));
        let mut setup = Setup::new(1, &[(2, raw.address)]);
        setup.limits.packet_bytes_max.0 = 100_000;
        setup.limits.queue_bytes_max = QUEUE;
        setup.limits.window_bytes_max = 1 << 18;
        let one = setup.start(socket1);
        let peer = raw.accept(address1).await;
        one.connected(2).await;
        // The other side reads nothing: what fits fits, the rest is dropped.
        for n in 0..1000 {
            one.send(2, bulk(n, 50_000));
            assert!(one.transport.queued(NodeId(2)) <= QUEUE);
            tokio::task::yield_now().await;
        }
        one.dropped(2).await;
        assert!(one.transport.queued(NodeId(2)) > QUEUE / 2);
        // And yet the urgent lane is open.
        one.send(2, urgent(5));
        let mut lane = peer.accept_uni().await.unwrap();
        let mut bytes = [0; 64];
        lane.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[56], 5, "the id of the read is the second word of the body");
    });
}

#[test]
fn a_packet_above_the_limit_is_dropped_and_reported() {
    run(async {
        let (one, two) = pair(|setup| setup.limits.packet_bytes_max.0 = 10_000);
        one.connected(2).await;
        one.send(2, bulk(1, 10_000));
        one.dropped(2).await;
        one.send(2, bulk(2, 9_000));
        assert_eq!(number_of(&two.packet_in().await.message), 2);
    });
}

#[test]
fn the_number_of_packets_is_bounded_too() {
    run(async {
        let (one, two) = pair(|setup| setup.limits.queue_packets_max = 10);
        one.connected(2).await;
        // Nothing is written before this task pauses.
        for n in 0..11 {
            one.send(2, urgent(n));
        }
        one.dropped(2).await;
        for n in 0..10 {
            assert_eq!(number_of(&two.packet_in().await.message), n);
        }
        one.send(2, urgent(99));
        assert_eq!(number_of(&two.packet_in().await.message), 99);
    });
}

#[test]
fn without_a_connection_everything_is_dropped_and_reported() {
    run(async {
        let ((socket1, _), (_silent, silent)) = (socket(), socket());
        let one = Setup::new(1, &[(2, silent)]).start(socket1);
        one.send(2, urgent(1));
        one.send(9, urgent(1));
        one.dropped(2).await;
        one.dropped(9).await;
        assert_eq!(one.transport.queued(NodeId(2)), 0);
    });
}

#[test]
fn urgent_overtakes_bulk() {
    const COUNT: u64 = 100;
    run(async {
        let (one, two) = pair(|setup| {
            setup.limits.queue_bytes_max = 64 << 20;
            setup.limits.window_bytes_max = 256 << 10;
        });
        one.connected(2).await;
        for n in 0..COUNT {
            one.send(2, bulk(n, 200_000));
        }
        assert_eq!(number_of(&two.packet_in().await.message), 0);
        one.send(2, urgent(7));
        let mut before = 1;
        while !two.packet_in().await.message.is_urgent() {
            before += 1;
        }
        assert!(before < COUNT / 2, "{before} of {COUNT} bulk packets came first");
    });
}
