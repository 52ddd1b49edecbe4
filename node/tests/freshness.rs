//! How fresh a read is, and whom that costs a question.

mod common;

use common::World;
use kontiki_consensus::{Call, Duration, Message, NodeId, Position};
use kontiki_node::{
    Consistency::{self, AtLeast, Lease, Linearizable},
    Failure, Reply, Token,
};
use kontiki_wire::PeerMessage;

fn within(ms: u64) -> Consistency {
    let max_lag = Some(Duration::from_millis(ms));
    Consistency::Stale { max_lag }
}

fn questions(world: &World) -> usize {
    let asks = |m: &PeerMessage| {
        matches!(
            m,
            PeerMessage::Raft(Message {
                call: Call::ReadIndex { .. },
                ..
            })
        )
    };
    world.sent.iter().filter(|(_, _, m)| asks(m)).count()
}

/// A cluster of three that holds one entry, and its leader first.
fn filled(seed: u64, lease_drift_ppm: Option<u32>) -> (World, Vec<NodeId>) {
    let mut world = World::new(3, seed);
    world.lease_drift_ppm = lease_drift_ppm;
    world.start_anew();
    let (mut world, names) = world.once_led();
    append(&mut world, names[0], "1");
    world.run(100);
    (world, names)
}

fn append(world: &mut World, n: NodeId, text: &str) {
    let token = world.append(n, text);
    assert!(matches!(world.answer(token), Reply::Appended { .. }));
}

fn read(world: &mut World, n: NodeId, consistency: Consistency) -> Token {
    world.read(n, 1, 100, consistency)
}

/// Whether it is answered at once, and what it then saw.
fn at_once(world: &mut World, n: NodeId, consistency: Consistency) -> Option<usize> {
    let token = read(world, n, consistency);
    world.run(1);
    world
        .replies
        .contains_key(&token)
        .then(|| world.texts(token).0.len())
}

#[test]
fn under_its_lease_a_leader_answers_alone_and_no_longer() {
    let (mut world, names) = filled(1, Some(100_000));
    world.run(100);
    world.isolate(names[0]);
    assert_eq!(at_once(&mut world, names[0], Lease), Some(1));
    assert_eq!(at_once(&mut world, names[0], Linearizable), None);
    assert_eq!(world.driver(names[0]).counts().leased, 1);
    // From the latest round that was answered it runs for 300 ms, less a tenth for what clocks may differ.
    world.run(275);
    assert_eq!(at_once(&mut world, names[0], Lease), None);
}

#[test]
fn without_a_lease_it_is_asked_as_a_linearizable_read_is() {
    for ppm in [None, Some(100_000)] {
        let (mut world, names) = filled(2, ppm);
        let token = read(&mut world, names[1], Lease);
        assert_eq!(world.texts(token).0, ["1"]);
        assert_eq!(questions(&world), 1);
    }
    let (mut world, names) = filled(3, None);
    let token = read(&mut world, names[0], Lease);
    assert_eq!(world.texts(token).0, ["1"]);
    assert_eq!(world.driver(names[0]).counts().leased, 0);
    world.isolate(names[0]);
    assert_eq!(at_once(&mut world, names[0], Lease), None);
}

#[test]
fn a_bounded_read_asks_once_within_its_bound() {
    let (mut world, names) = filled(4, None);
    for _ in 0..5 {
        let token = read(&mut world, names[1], within(1_000));
        assert_eq!(world.texts(token).0, ["1"]);
        world.run(100);
    }
    assert_eq!(
        (questions(&world), world.driver(names[1]).counts().recent),
        (1, 4)
    );
    world.run(1_000);
    let token = read(&mut world, names[1], within(1_000));
    world.texts(token);
    assert_eq!(questions(&world), 2);
}

#[test]
fn bounded_reads_join_a_question_that_is_under_way() {
    let (mut world, names) = filled(5, None);
    world.delay = (30, 1);
    let first = read(&mut world, names[1], within(500));
    world.run(1);
    let second = read(&mut world, names[1], within(500));
    let third = read(&mut world, names[1], Linearizable);
    world.texts(first);
    world.texts(second);
    world.texts(third);
    assert_eq!(questions(&world), 2, "only the linearizable one asks anew");
}

#[test]
fn a_bounded_read_counts_from_the_asking_and_not_from_the_answer() {
    let (mut world, names) = filled(6, None);
    world.delay = (90, 1);
    let asked = world.now;
    let token = read(&mut world, names[1], within(500));
    world.run_until("the answer", |world| world.replies.contains_key(&token));
    assert!(world.now > asked + 20, "a slow answer: {} ms", world.now - asked);
    assert_eq!(questions(&world), 1);
    world.isolate(names[1]);
    world.run(asked + 195 - world.now);
    assert_eq!(at_once(&mut world, names[1], within(200)), Some(1));
    world.run(asked + 210 - world.now);
    assert_eq!(at_once(&mut world, names[1], within(200)), None);
}

#[test]
fn a_bounded_read_of_a_node_that_hears_nobody_is_not_answered_in_the_end() {
    let (mut world, names) = filled(7, None);
    world.isolate(names[1]);
    let token = world.tail(names[1], 1, within(50), 1_000);
    assert!(matches!(world.failure(token), Failure::Timeout));
    assert_eq!(at_once(&mut world, names[1], Consistency::STALE), Some(1));
}

#[test]
fn at_least_waits_for_the_entry_and_asks_nobody() {
    let (mut world, names) = filled(8, None);
    world.isolate(names[2]);
    append(&mut world, names[0], "2");
    assert_eq!(at_once(&mut world, names[2], AtLeast(Position(1))), Some(1));
    let token = read(&mut world, names[2], AtLeast(Position(2)));
    world.run(300);
    assert!(!world.replies.contains_key(&token));
    world.heal();
    assert_eq!(world.texts(token).0, ["1", "2"]);
    assert_eq!(
        (questions(&world), world.driver(names[2]).counts().awaited),
        (0, 1)
    );
}

#[test]
fn at_least_what_is_not_there_is_waited_for_until_the_deadline() {
    let (mut world, names) = filled(9, None);
    let token = world.ask(
        names[0],
        kontiki_node::Ask::Read {
            from: Position(1),
            to: Position(9),
            bytes_max: 100,
            consistency: AtLeast(Position(2)),
            wait: false,
        },
        200,
    );
    assert!(matches!(world.failure(token), Failure::Timeout));
    let token = read(&mut world, names[0], AtLeast(Position(2)));
    world.shut_down(names[0]);
    assert!(matches!(world.failure(token), Failure::Stopped(_)));
}
