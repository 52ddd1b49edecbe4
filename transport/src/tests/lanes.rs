//! Lanes are bounded, and none waits for a lesser one.

use super::{hostile::Raw, *};
use kontiki_consensus::{Index, LogId};
use kontiki_wire::SnapshotChunk;

#[test]
fn what_does_not_fit_is_dropped_and_reported_and_memory_stays_bounded() {
    const QUEUE: usize = 1 << 20;
    run_by(Carrier::Quic, async {
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
    run(|| async {
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
    run(|| async {
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
    run(|| async {
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
    run(|| async {
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

/// Bytes of a snapshot, from here on.
fn chunk(offset: u64, bytes: usize) -> PeerMessage {
    PeerMessage::SnapshotChunk(SnapshotChunk {
        last: LogId::new(Term(1), Index(1)),
        offset,
        total: u64::MAX,
        bytes: bytes::Bytes::from(vec![7; bytes]),
    })
}

#[test]
fn records_and_heartbeats_overtake_a_snapshot() {
    const CHUNKS: u64 = 30;
    const BULK: u64 = 300;
    run(|| async {
        let (one, two) = pair(|setup| {
            setup.limits.packet_bytes_max.0 = 64 << 20;
            setup.limits.queue_bytes_max = 64 << 20;
            // What the lanes share is the link, not their windows.
            setup.limits.window_bytes_max = 64 << 20;
        });
        one.connected(2).await;
        one.send(2, chunk(0, 900_000));
        assert!(
            matches!(two.packet_in().await.message, PeerMessage::SnapshotChunk(chunk) if chunk.offset == 0)
        );
        // All are given before any of them goes out, so that how fast the machine is makes no difference.
        for n in 1..CHUNKS {
            one.send(2, chunk(n, 900_000));
        }
        for n in 0..BULK {
            one.send(2, bulk(n, 50_000));
            one.send(2, urgent(n));
        }
        let (mut chunks, mut next) = (1, [0, 0]);
        while next != [BULK, BULK] {
            match two.packet_in().await.message {
                PeerMessage::SnapshotChunk(chunk) => {
                    assert_eq!(chunk.offset, chunks);
                    chunks += 1;
                }
                message => {
                    let lane = usize::from(message.is_urgent());
                    assert_eq!(number_of(&message), next[lane]);
                    next[lane] += 1;
                }
            }
        }
        assert!(
            chunks < CHUNKS / 2,
            "{chunks} of {CHUNKS} parts of the snapshot came before the last record"
        );
        while chunks < CHUNKS {
            two.packet_in().await;
            chunks += 1;
        }
    });
}

/// The other side reads nothing of the snapshot: neither its queue nor the windows of QUIC that it fills are those of
/// the others. That parts of it are dropped is not told, for whoever wants one asks again.
#[test]
fn a_snapshot_that_nobody_takes_holds_nothing_up() {
    const QUEUE: usize = 1 << 20;
    run_by(Carrier::Quic, async {
        let ((socket1, address1), raw) = (socket(), Raw::new(2));
        let mut setup = Setup::new(1, &[(2, raw.address)]);
        setup.limits.packet_bytes_max.0 = 1 << 20;
        setup.limits.queue_bytes_max = QUEUE;
        setup.limits.window_bytes_max = 1 << 18;
        let one = setup.start(socket1);
        let peer = raw.accept(address1).await;
        one.connected(2).await;
        for n in 0..200 {
            one.send(2, chunk(n, 50_000));
            assert!(one.transport.queued(NodeId(2)) <= 1 << 20);
            tokio::task::yield_now().await;
        }
        assert!(one.transport.queued(NodeId(2)) > 1 << 19);
        // As much as the window of a lane, of each of the others: they come in full.
        for n in 0..5 {
            one.send(2, bulk(n, 50_000));
        }
        one.send(2, urgent(5));
        let mut expected = [(1, 64), (2, 5 * 50_000)];
        while expected.iter().any(|(_, bytes)| *bytes > 0) {
            let mut lane = peer.accept_uni().await.unwrap();
            let mut first = [0; 18];
            lane.read_exact(&mut first).await.unwrap();
            let is_bulk = usize::from(u16::from_le_bytes([first[16], first[17]]) == 16);
            let (_, bytes) = &mut expected[is_bulk];
            let mut rest = vec![0; *bytes - 18];
            lane.read_exact(&mut rest).await.unwrap();
            *bytes = 0;
        }
        one.send(2, urgent(6));
        let told = one
            .inbox
            .events
            .borrow()
            .iter()
            .any(|e| matches!(e, TransportEvent::Dropped(_)));
        assert!(!told, "nothing but parts of a snapshot was dropped");
    });
}
