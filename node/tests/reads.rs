//! Reads: what they see, where from, and how long they wait.

mod common;

use common::World;
use kontiki_consensus::{Call, Message, NodeId};
use kontiki_log::{LogError, disk::DiskError};
use kontiki_node::{
    Consistency::{self, Linearizable},
    Failure, Reply,
};
use kontiki_wire::PeerMessage;
use std::{cell::Cell, rc::Rc};

const STALE: Consistency = Consistency::STALE;

fn is_read_answer(m: &PeerMessage) -> bool {
    matches!(
        m,
        PeerMessage::Raft(Message {
            call: Call::ReadIndexReply { .. },
            ..
        })
    )
}

fn questions(world: &World, from: NodeId) -> usize {
    let asks = |m: &PeerMessage| {
        matches!(
            m,
            PeerMessage::Raft(Message {
                call: Call::ReadIndex { .. },
                ..
            })
        )
    };
    world
        .sent
        .iter()
        .filter(|(f, _, m)| *f == from && asks(m))
        .count()
}

/// A cluster that holds the entries `1` to `count`.
fn filled(nodes: u64, seed: u64, count: u64) -> (World, Vec<NodeId>) {
    let (mut world, names) = World::led(nodes, seed);
    for n in 1..=count {
        let token = world.append(names[0], &n.to_string());
        world.answer(token);
    }
    (world, names)
}

#[test]
fn a_linearizable_read_sees_every_acknowledged_append_at_every_node() {
    let (mut world, names) = filled(3, 1, 5);
    for n in names {
        let token = world.read(n, 1, 100, Linearizable);
        let (texts, last) = world.texts(token);
        assert_eq!(
            (texts, last),
            (["1", "2", "3", "4", "5"].map(String::from).to_vec(), 5)
        );
    }
}

#[test]
fn a_range_is_what_is_asked_for_and_no_record_more() {
    let (mut world, names) = filled(3, 2, 9);
    for (from, to, found) in [
        (3, 6, 3),
        (9, 10, 1),
        (10, 12, 0),
        (4, 4, 0),
        (6, 2, 0),
        (0, 3, 2),
    ] {
        let token = world.read(names[0], from, to, STALE);
        let (texts, last) = world.texts(token);
        assert_eq!((texts.len(), last), (found, 9), "{from}..{to}");
        assert!(found == 0 || texts[0] == from.max(1).to_string());
    }
}

#[test]
fn reads_of_one_turn_ask_once() {
    let (mut world, names) = filled(3, 3, 2);
    let tokens: Vec<_> = (0..10)
        .map(|_| world.read(names[1], 1, 9, Linearizable))
        .collect();
    for token in tokens {
        assert_eq!(world.texts(token).1, 2);
    }
    assert_eq!(questions(&world, names[1]), 1);
}

#[test]
fn a_read_whose_answer_is_lost_is_asked_again_by_another_name() {
    let (mut world, names) = filled(3, 4, 2);
    let lost = Rc::new(Cell::new(0));
    let seen = lost.clone();
    world.lose(move |_, _, m| {
        let lose = is_read_answer(m) && seen.get() < 2;
        seen.set(seen.get() + u32::from(lose));
        lose
    });
    let token = world.read(names[1], 1, 9, Linearizable);
    assert_eq!(world.texts(token).1, 2);
    assert_eq!((lost.get(), questions(&world, names[1])), (2, 3));
    let ids: std::collections::BTreeSet<_> = world
        .sent
        .iter()
        .filter_map(|(_, _, m)| match m {
            PeerMessage::Raft(Message {
                call: Call::ReadIndex { id },
                ..
            }) => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_read_that_was_refused_is_asked_of_the_next_leader() {
    let (mut world, names) = filled(3, 5, 2);
    world.isolate(names[0]);
    let token = world.read(names[1], 1, 9, Linearizable);
    assert_eq!(world.texts(token).1, 2);
    assert_ne!(world.leader(), Some(names[0]));
    // At the leader that was cut off too, once it is back.
    let (mut world, names) = filled(3, 6, 2);
    world.isolate(names[0]);
    let token = world.read(names[0], 1, 9, Linearizable);
    world.run(2_000);
    assert!(!world.replies.contains_key(&token));
    world.heal();
    assert_eq!(world.texts(token).1, 2);
}

#[test]
fn a_leader_that_is_cut_off_confirms_nothing() {
    let (mut world, names) = filled(3, 7, 2);
    world.isolate(names[0]);
    let token = world.read(names[0], 1, 9, Linearizable);
    assert!(matches!(world.failure(token), Failure::Timeout));
    let token = world.read(names[0], 1, 9, STALE);
    assert_eq!(world.texts(token).1, 2);
}

#[test]
fn a_stale_read_sees_what_is_applied() {
    let (mut world, names) = filled(3, 8, 2);
    world.run(100);
    world.isolate(names[2]);
    let token = world.append(names[0], "3");
    world.answer(token);
    let token = world.read(names[2], 1, 9, STALE);
    assert_eq!(world.texts(token), (vec!["1".into(), "2".into()], 2));
}

#[test]
fn a_confirmed_read_waits_until_it_is_applied() {
    let (mut world, names) = filled(3, 9, 1);
    world.run(100);
    world.node(names[1]).stuck = true;
    let token = world.append(names[0], "2");
    world.answer(token);
    let token = world.read(names[1], 1, 9, Linearizable);
    world.run(100);
    assert!(!world.replies.contains_key(&token));
    world.node(names[1]).stuck = false;
    assert_eq!(world.texts(token).1, 2);
}

#[test]
fn a_tail_waits_for_what_comes() {
    let (mut world, names) = filled(3, 10, 2);
    for consistency in [STALE, Linearizable] {
        for n in names.clone() {
            let next = world.driver(names[0]).applied().1.0 + 1;
            let token = world.tail(n, next, consistency, 5_000);
            world.run(300);
            assert!(!world.replies.contains_key(&token));
            world.append(names[0], "more");
            assert_eq!(world.texts(token).0, ["more"]);
        }
    }
    let token = world.tail(names[1], 1, STALE, 5_000);
    world.run(2);
    assert_eq!(world.texts(token).0.len(), 8, "what is there is given at once");
}

#[test]
fn a_tail_that_waits_in_vain_gets_nothing() {
    let (mut world, names) = filled(3, 11, 2);
    let token = world.tail(names[1], 3, STALE, 200);
    assert_eq!(world.texts(token), (Vec::new(), 2));
}

#[test]
fn tail_from_the_last_index_there_is_waits_until_its_deadline() {
    let (mut world, names) = filled(3, 13, 2);
    for consistency in [STALE, Linearizable] {
        let token = world.tail(names[1], u64::MAX, consistency, 1_000);
        world.run(300);
        assert!(
            !world.replies.contains_key(&token),
            "answered at once, it would be asked again at once"
        );
        world.append(names[0], "more");
        world.run(100);
        assert!(!world.replies.contains_key(&token), "what comes is not for it");
        assert!(world.texts(token).0.is_empty());
    }
}

fn small_memory(seed: u64, count: u64) -> (World, Vec<NodeId>) {
    let (mut world, names) = filled(3, seed, count);
    world.tail_bytes_max = 0;
    for n in &names {
        world.crash(*n);
        world.start(*n);
    }
    world.await_leader();
    (world, names)
}

#[test]
fn what_memory_does_not_hold_is_read_from_disk() {
    let (mut world, names) = small_memory(12, 9);
    for (from, to, found) in [(1, 100, 9), (3, 6, 3), (9, 10, 1)] {
        let token = world.read(names[1], from, to, Linearizable);
        let (texts, last) = world.texts(token);
        assert_eq!((texts.len(), last), (found, 9), "{from}..{to}");
        assert_eq!(texts[0], from.to_string());
    }
    assert!(world.nodes[&names[1]].fetched >= 3);
}

#[test]
fn a_log_that_cannot_be_read_fails_the_read_and_not_the_node() {
    let (mut world, names) = small_memory(13, 9);
    world.node(names[1]).unreadable = Some(LogError::Damaged("worn out".into()));
    let token = world.read(names[1], 1, 100, Linearizable);
    assert!(matches!(world.failure(token), Failure::Log(_)));
    assert_eq!(world.driver(names[1]).stopped(), None);
    let token = world.append(names[1], "10");
    world.position(token);
}

/// Two nodes that can read what the third lacks from disk only, and the third, which is down.
fn far_behind(seed: u64) -> (World, Vec<NodeId>) {
    let (mut world, names) = filled(3, seed, 1);
    world.crash(names[2]);
    world.tail_bytes_max = 0;
    for n in 2..=9 {
        let token = world.append(names[0], &n.to_string());
        world.answer(token);
    }
    for n in &names[..2] {
        world.crash(*n);
        world.start(*n);
    }
    world.run_until("a leader", |world| world.leader().is_some());
    world.run(100);
    (world, names)
}

#[test]
fn a_node_that_cannot_send_a_follower_what_it_acknowledged_stops() {
    let (mut world, names) = far_behind(15);
    let leader = world.leader().expect("a leader");
    world.node(leader).unreadable = Some(LogError::Damaged("worn out".into()));
    world.start(names[2]);
    world.run_until("the stop", |world| world.driver(leader).stopped().is_some());
    assert_eq!(world.driver(leader).stopped(), Some("worn out"));
}

#[test]
fn a_disk_that_cannot_be_read_for_a_while_is_asked_again_for_a_follower() {
    let (mut world, names) = far_behind(16);
    let leader = world.leader().expect("a leader");
    world.node(leader).unreadable = Some(LogError::Disk(DiskError {
        what: "read".into(),
        kind: std::io::ErrorKind::Other,
        message: "not now".into(),
    }));
    world.start(names[2]);
    world.run(3_000);
    assert_eq!(world.driver(leader).stopped(), None);
    assert_eq!(world.log(names[2]).len(), 1);
    let asked = world.node(leader).fetched;
    assert!((1..100).contains(&asked), "{asked} times");
    world.node(leader).unreadable = None;
    world.run_until("what is missing", |world| world.log(names[2]).len() == 9);
}

#[test]
fn a_follower_far_behind_is_sent_what_only_the_disk_holds() {
    let (mut world, names) = filled(3, 14, 1);
    world.crash(names[2]);
    world.tail_bytes_max = 0;
    for n in 2..=9 {
        let token = world.append(names[0], &n.to_string());
        world.answer(token);
    }
    for n in &names[..2] {
        world.crash(*n);
        world.start(*n);
    }
    for n in 10..=12 {
        let token = world.append(names[0], &n.to_string());
        world.answer(token);
    }
    world.start(names[2]);
    let token = world.tail(names[2], 12, Linearizable, 5_000);
    assert_eq!(world.texts(token).0, ["12"]);
    assert_eq!(world.log(names[2]).len(), 12);
}

#[test]
fn what_is_committed_is_found_again_after_a_restart_without_memory() {
    let (mut world, names) = small_memory(15, 4);
    for n in names {
        assert_eq!(world.log(n), ["1", "2", "3", "4"]);
        assert_eq!(world.driver(n).applied().1.0, 4);
        let token = world.read(n, 1, 9, Linearizable);
        assert!(matches!(world.answer(token), Reply::Read { .. }));
    }
}

#[test]
fn a_read_is_answered_by_its_deadline() {
    let (mut world, names) = filled(3, 16, 1);
    for n in &names {
        world.isolate(*n);
    }
    world.run(2_000);
    for n in names {
        let token = world.tail(n, 1, Linearizable, 100);
        assert!(matches!(world.failure(token), Failure::Timeout));
    }
    world.check_in_time();
}
