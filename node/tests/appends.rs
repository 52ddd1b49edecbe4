//! Appends: where they go, what becomes of them when leaders change, and what their clients are told.

mod common;

use common::World;
use kontiki_consensus::{Call, Duration, Message, NodeId, Position, Role, Term};
use kontiki_log::{LogError, LogEvent};
use kontiki_node::{Ask, Failure, Input, Reply};
use kontiki_wire::{Codec, Expect, Payload, PeerMessage, Propose, ProposeAnswer, Refusal, Session};
use std::sync::Arc;

fn is_propose(m: &PeerMessage) -> bool {
    matches!(m, PeerMessage::Propose(_))
}

fn is_propose_reply(m: &PeerMessage) -> bool {
    matches!(m, PeerMessage::ProposeReply(_))
}

fn is_records(m: &PeerMessage) -> bool {
    matches!(m, PeerMessage::Raft(Message { call: Call::AppendEntries { runs, .. }, .. }) if !runs.is_empty())
}

fn is_acknowledgement(m: &PeerMessage) -> bool {
    matches!(
        m,
        PeerMessage::Raft(Message {
            call: Call::AppendEntriesReply { .. },
            ..
        })
    )
}

fn entry(text: &str) -> Payload {
    Payload::several(&[text], Codec::Bytes).unwrap()
}

fn proposed(world: &World, from: NodeId) -> Vec<Propose> {
    let of = |(f, _, m): &(NodeId, NodeId, PeerMessage)| match m {
        PeerMessage::Propose(p) if *f == from => Some(p.clone()),
        _ => None,
    };
    world.sent.iter().filter_map(of).collect()
}

fn expect_last(position: u64, term: Option<Term>) -> Expect {
    Expect::Last {
        position: Position(position),
        term,
    }
}

#[test]
fn every_node_takes_appends() {
    let (mut world, names) = World::led(3, 1);
    let tokens: Vec<_> = names.iter().map(|n| world.append(*n, &n.to_string())).collect();
    let mut positions: Vec<u64> = tokens.into_iter().map(|t| world.position(t)).collect();
    positions.sort_unstable();
    assert_eq!(positions, [1, 2, 3]);
    world.run(100);
    for n in &names {
        assert_eq!(world.log(*n).len(), 3);
    }
}

#[test]
fn a_node_alone_takes_appends() {
    let (mut world, names) = World::led(1, 1);
    let token = world.append(names[0], "a");
    assert_eq!(world.position(token), 1);
}

#[test]
fn entries_appended_together_stand_together() {
    let (mut world, names) = World::led(3, 2);
    for n in [names[0], names[1]] {
        let token = world.append_if(n, &["a", "b", "c"], Expect::Any);
        let Reply::Appended { first, last, .. } = world.answer(token) else {
            panic!()
        };
        assert_eq!(last.0, first.0 + 2);
    }
    assert_eq!(world.log(names[0]), ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_forwarded_append_whose_answer_is_lost_is_not_applied_twice() {
    let (mut world, names) = World::led(3, 3);
    let mut losses = 3;
    world.lose(move |_, _, m| {
        let lost = losses > 0 && is_propose_reply(m);
        losses -= i32::from(lost);
        lost
    });
    let token = world.append(names[1], "a");
    assert_eq!(world.position(token), 1);
    assert_eq!(proposed(&world, names[1]).len(), 4, "asked until it was answered");
    let token = world.append(names[1], "b");
    assert_eq!(world.position(token), 2);
    assert_eq!(world.log(names[0]), ["a", "b"]);
}

#[test]
fn whoever_waits_at_a_follower_is_told_of_the_commit_at_once() {
    const DELAY: u64 = 40;
    let mut world = World::new(3, 3);
    world.commit_delay = Duration::from_millis(DELAY);
    world.start_anew();
    let (mut world, names) = world.once_led();
    let began = world.time();
    for n in 1..=20 {
        let token = world.append(names[1], "a");
        assert_eq!(world.position(token), n);
    }
    // Each would wait for a heartbeat or for the delay, whichever is earlier.
    let took = world.time().since(began);
    assert!(took < Duration::from_millis(20 * DELAY / 4), "{took:?}");
}

#[test]
fn numbers_are_taken_in_order() {
    let (mut world, names) = World::led(3, 4);
    let mut first = true;
    world.lose(move |_, _, m| is_propose(m) && std::mem::take(&mut first));
    let tokens: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|t| world.append(names[1], t))
        .collect();
    world.run(100);
    assert_eq!(world.replies.len(), 0, "what came early is held");
    for (n, token) in tokens.into_iter().enumerate() {
        assert_eq!(world.position(token), n as u64 + 1);
    }
    assert_eq!(world.log(names[0]), ["a", "b", "c"]);
}

#[test]
fn what_the_transport_dropped_is_sent_again_soon() {
    let (mut world, names) = World::led(3, 5);
    let mut first = true;
    world.lose(move |_, _, m| is_propose(m) && std::mem::take(&mut first));
    let token = world.append(names[1], "a");
    world.run(2);
    let leader = names[0];
    world.node(names[1]).inbox.push(Input::SendDropped(leader));
    world.run(80);
    assert!(world.replies.contains_key(&token), "long before patience ends");
}

#[test]
fn a_late_copy_of_a_settled_proposal_is_ignored() {
    let (mut world, names) = World::led(3, 6);
    let (leader, follower) = (names[0], names[1]);
    for text in ["a", "b"] {
        let token = world.append(follower, text);
        world.answer(token);
    }
    let copies = proposed(&world, follower);
    assert_eq!(
        (copies[0].number + 1, copies[1].settled),
        (copies[1].number, copies[1].number)
    );
    let answers = world.answers_sent(true);
    world.hand(follower, leader, PeerMessage::Propose(copies[0].clone()));
    world.run(100);
    assert_eq!(world.answers_sent(true), answers, "settled: nobody asks for it");
    world.hand(follower, leader, PeerMessage::Propose(copies[1].clone()));
    world.run(100);
    assert_eq!(
        world.answers_sent(true),
        answers + 1,
        "not known to be settled: answered as before"
    );
    assert_eq!(world.log(leader), ["a", "b"]);
}

#[test]
fn the_leader_dies_after_it_assigned_and_the_own_log_tells_that_it_was_applied() {
    let (mut world, names) = World::led(3, 7);
    let token = world.append(names[1], "a");
    world.run_until("the record at the third node", |w| {
        w.answers_sent(true) == 1 && w.driver(names[2]).consensus().last_position() == Position(1)
    });
    assert!(!world.replies.contains_key(&token));
    world.crash(names[0]);
    assert_eq!(world.position(token), 1);
}

#[test]
fn the_leader_dies_after_it_assigned_and_the_own_log_tells_that_it_was_not() {
    let (mut world, names) = World::led(3, 8);
    let leader = names[0];
    world.lose(move |from, _, m| from == leader && is_records(m));
    let token = world.append(names[1], "a");
    world.run_until("an answer", |w| w.answers_sent(true) == 1);
    world.run(5);
    world.crash(leader);
    assert!(matches!(world.failure(token), Failure::Superseded));
    world.heal();
    world.start(leader);
    world.await_leader();
    world.run(100);
    assert!(names.iter().all(|n| world.log(*n).is_empty()));
}

/// The record of the old term would stand beyond the new leader's log, in which only the no-op follows.
#[test]
fn a_later_term_committed_before_its_index_supersedes_an_append_too() {
    let (mut world, names) = World::led(3, 9);
    let leader = names[0];
    world.lose(move |from, _, m| from == leader && is_records(m));
    let tokens: Vec<_> = (0..5).map(|_| world.append(leader, "x")).collect();
    world.run(5);
    world.isolate(leader);
    world.run(1_500);
    world.heal();
    for token in tokens {
        assert!(matches!(world.failure(token), Failure::Superseded));
    }
    assert!(world.now < 4_000, "long before the deadline");
}

#[test]
fn a_leader_that_is_gone_without_an_answer_leaves_it_unknown() {
    let (mut world, names) = World::led(3, 10);
    world.isolate(names[0]);
    let token = world.append(names[1], "a");
    assert!(matches!(world.failure(token), Failure::Unknown(_)));
    assert!(world.now < 4_000, "as soon as another leads, not at the deadline");
}

#[test]
fn what_a_deposed_leader_never_took_goes_to_the_next_in_the_order_it_came() {
    let (mut world, names) = World::led(3, 11);
    let (old, follower) = (names[0], names[1]);
    world.lose(move |_, to, m| to == old && is_propose(m));
    let tokens: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|t| world.append(follower, t))
        .collect();
    world.run(5);
    world.isolate(old);
    world.run_until("another leader", |w| w.leader() != Some(old));
    world.heal();
    for (n, token) in tokens.into_iter().enumerate() {
        assert_eq!(world.position(token), n as u64 + 1);
    }
    assert!(world.answers_sent(false) >= 3, "the old leader refused each");
    let new = world.leader().unwrap();
    assert_eq!(world.log(new), ["a", "b", "c"]);
}

#[test]
fn a_leader_that_steps_down_refuses_what_it_holds() {
    let (mut world, names) = World::led(3, 12);
    let old = names[0];
    world.isolate(old);
    world.run_until("another leader", |w| w.leader() != Some(old));
    // Nobody acknowledges its no-op: it holds what is forwarded to it, and steps down.
    let new = world.leader().unwrap();
    let follower = names.iter().copied().find(|n| ![old, new].contains(n)).unwrap();
    world.lose(move |_, to, m| to == new && is_acknowledgement(m));
    world.run_until("the new leader known", |w| {
        w.driver(follower).consensus().leader() == Some(new)
    });
    let token = world.append(follower, "a");
    world.run_until("its stepping down", |w| {
        w.driver(new).consensus().role() != Role::Leader
    });
    assert_eq!(world.answers_sent(false), 1, "at once");
    assert_eq!(world.answers_sent(true), 0);
    world.heal();
    assert_eq!(world.position(token), 1);
}

/// Makes `n` the leader again, after another one.
fn lead_again(world: &mut World, n: NodeId) {
    world.isolate(n);
    world.run_until("another leader", |w| w.leader() != Some(n));
    world.heal();
    world.run(200);
    while world.await_leader() != n {
        let other = world.leader().unwrap();
        world.isolate(other);
        world.run_until("another leader", |w| w.leader() != Some(other));
        world.heal();
        world.run(200);
    }
}

#[test]
fn a_proposal_of_an_earlier_term_is_neither_taken_nor_answered_by_who_leads_again() {
    let (mut world, names) = World::led(3, 16);
    let (leader, follower) = (names[0], names[1]);
    world.lose(|_, _, m| is_propose_reply(m));
    let token = world.append(follower, "a");
    world.run(5);
    let copy = PeerMessage::Propose(proposed(&world, follower).remove(0));
    world.heal();
    world.position(token);
    lead_again(&mut world, leader);
    for text in ["b", "c"] {
        let answers = (world.answers_sent(true), world.answers_sent(false));
        world.hand(follower, leader, copy.clone());
        world.run(100);
        assert_eq!((world.answers_sent(true), world.answers_sent(false)), answers);
        let token = world.append(follower, text);
        world.position(token);
    }
    assert_eq!(world.log(leader), ["a", "b", "c"]);
}

#[test]
fn who_led_is_not_asked_again_in_the_same_term() {
    let (mut world, names) = World::led(3, 17);
    let follower = names[1];
    let term = world.term(names[0]);
    disk_full(&mut world, names[0], true);
    world.run(1);
    let tokens: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|t| world.append(follower, t))
        .collect();
    world.run(20);
    let later = world.append(follower, "d");
    for (n, token) in tokens.into_iter().chain([later]).enumerate() {
        assert_eq!(world.position(token), n as u64 + 1);
    }
    let in_old_term = proposed(&world, follower)
        .iter()
        .filter(|p| p.term == term)
        .count();
    assert!(in_old_term <= 3, "{in_old_term}");
}

#[test]
fn a_restarted_node_says_nothing_about_what_an_earlier_life_may_have_taken() {
    let (mut world, names) = World::led(3, 13);
    let (leader, follower) = (names[0], names[1]);
    let token = world.append(follower, "a");
    world.answer(token);
    let copy = proposed(&world, follower).remove(0);
    let said = world.sent.len();
    world.crash(leader);
    world.start(leader);
    world.isolate(leader);
    let term = world.term(leader);
    assert_eq!(copy.term, term);
    world.hand(follower, leader, PeerMessage::Propose(copy.clone()));
    world.run(5);
    // Of a term it was never in, and is not in now, it knows nothing either.
    world.hand(
        follower,
        leader,
        PeerMessage::Propose(Propose {
            term: term.next(),
            ..copy.clone()
        }),
    );
    world.run(5);
    // That its term is over changes nothing: it may have led it in its earlier life, as it did.
    world.run_until("another leader", |w| w.leader().is_some_and(|l| l != leader));
    world.heal();
    world.run_until("its later term", |w| w.term(leader) > term);
    world.hand(follower, leader, PeerMessage::Propose(copy));
    world.run(5);
    assert!(world.sent[said..].iter().all(|(_, _, m)| !is_propose_reply(m)));
}

#[test]
fn an_answer_that_cannot_be_meant_is_ignored() {
    let (mut world, names) = World::led(3, 14);
    let (leader, follower) = (names[0], names[1]);
    world.lose(|_, _, m| is_propose(m));
    let token = world.append(follower, "a");
    world.run(5);
    let ours = proposed(&world, follower).remove(0);
    let refused = ProposeAnswer::Refused(Refusal::Overloaded);
    let at = kontiki_consensus::LogId::new(ours.term.next(), kontiki_consensus::Index(9));
    for (from, origin, number, answer) in [
        (names[2], ours.origin, ours.number, refused),
        (leader, ours.origin ^ 1, ours.number, refused),
        (leader, ours.origin, ours.number + 1, refused),
        (
            leader,
            ours.origin,
            ours.number,
            ProposeAnswer::Assigned {
                at,
                first: Position(1),
            },
        ),
    ] {
        let reply = kontiki_wire::ProposeReply {
            origin,
            number,
            answer,
        };
        world.hand(from, follower, PeerMessage::ProposeReply(reply));
    }
    world.run(5);
    assert!(world.replies.is_empty());
    world.heal();
    assert_eq!(world.position(token), 1);
}

#[test]
fn a_proposal_that_contradicts_itself_is_ignored() {
    let (mut world, names) = World::led(3, 15);
    let (leader, follower) = (names[0], names[1]);
    let term = world.term(leader);
    let propose = |number, settled| {
        let (expect, payload) = (Expect::Any, entry("x"));
        PeerMessage::Propose(Propose {
            origin: 5,
            number,
            settled,
            term,
            expect,
            session: Session::None,
            payload,
        })
    };
    world.hand(follower, leader, propose(4, 9));
    world.hand(follower, leader, propose(u64::MAX, 1));
    world.hand(follower, leader, propose(u64::MAX, u64::MAX));
    world.hand(follower, leader, propose(3, 3));
    world.run(50);
    assert!(world.log(leader).len() <= 1, "{:?}", world.log(leader));
}

// ---- compare-and-append

#[test]
fn an_append_that_expects_the_end_is_made_only_there() {
    let (mut world, names) = World::led(3, 20);
    let term = world.term(names[0]);
    for (round, n) in [names[0], names[1]].into_iter().enumerate() {
        let end = round as u64 * 3;
        if end == 0 {
            let token = world.append_if(n, &["a"], Expect::Empty);
            assert_eq!(world.position(token), 1);
        } else {
            let token = world.append_if(n, &["a"], expect_last(end, Some(term)));
            assert_eq!(world.position(token), end + 1);
        }
        let token = world.append_if(n, &["b"], expect_last(end + 1, None));
        assert_eq!(world.position(token), end + 2);
        for missing in [
            Expect::Empty,
            expect_last(end + 1, None),
            expect_last(end + 2, Some(term.next())),
        ] {
            let token = world.append_if(n, &["no"], missing);
            let Failure::Refused(Refusal::Mismatch { last, term: t }) = world.failure(token) else {
                panic!()
            };
            assert_eq!((last.0, t), (end + 2, term));
        }
        let token = world.append_if(n, &["c"], expect_last(end + 2, Some(term)));
        assert_eq!(world.position(token), end + 3);
    }
    assert_eq!(world.log(names[0]), ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn appends_of_one_turn_are_compared_with_each_other() {
    let (mut world, names) = World::led(3, 21);
    let leader = names[0];
    let first = world.append_if(leader, &["a"], Expect::Empty);
    let second = world.append_if(leader, &["b"], Expect::Empty);
    let third = world.append_if(leader, &["c"], expect_last(1, None));
    assert_eq!(world.position(first), 1);
    let Failure::Refused(Refusal::Mismatch { last, .. }) = world.failure(second) else {
        panic!()
    };
    assert_eq!(last, Position(1));
    assert_eq!(world.position(third), 2);
}

#[test]
fn an_append_of_nothing_checks_the_precondition_only() {
    let (mut world, names) = World::led(3, 22);
    let token = world.append(names[0], "a");
    world.answer(token);
    for n in names.clone() {
        let token = world.append_if(n, &[], expect_last(1, None));
        let Failure::Refused(Refusal::Holds { last, .. }) = world.failure(token) else {
            panic!()
        };
        assert_eq!(last, Position(1));
        let token = world.append_if(n, &[], Expect::Empty);
        assert!(matches!(
            world.failure(token),
            Failure::Refused(Refusal::Mismatch { .. })
        ));
    }
    assert_eq!(world.log(names[0]), ["a"]);
}

#[test]
fn a_miss_while_leadership_is_lost_says_nothing_about_the_log() {
    let (mut world, names) = World::led(3, 23);
    let leader = names[0];
    world.isolate(leader);
    let miss = world.append_if(leader, &["no"], expect_last(7, None));
    let check = world.append_if(leader, &[], Expect::Empty);
    for token in [miss, check] {
        assert!(matches!(
            world.failure(token),
            Failure::Refused(Refusal::NotLeader { .. })
        ));
    }
}

#[test]
fn a_miss_is_not_answered_by_a_commit_that_confirms_nothing() {
    let (mut world, names) = World::led(3, 25);
    let leader = names[0];
    let hit = world.append(leader, "a");
    world.run_until("acknowledgements on their way", |w| {
        w.sent
            .iter()
            .rev()
            .take_while(|(f, ..)| *f != leader)
            .any(|(.., m)| is_acknowledgement(m))
            && w.driver(names[1]).consensus().persisted() == w.driver(leader).consensus().last().index
    });
    world.cut(leader, names[1]);
    world.cut(leader, names[2]);
    let miss = world.append_if(leader, &["b"], Expect::Empty);
    assert_eq!(world.position(hit), 1);
    world.run(50);
    assert!(!world.replies.contains_key(&miss));
    assert!(matches!(
        world.failure(miss),
        Failure::Refused(Refusal::NotLeader { .. })
    ));
}

#[test]
fn a_miss_waits_until_the_end_it_names_is_committed() {
    let (mut world, names) = World::led(3, 24);
    let leader = names[0];
    for n in &names[1..] {
        world.node(*n).stuck = true;
    }
    let hit = world.append_if(leader, &["a"], Expect::Empty);
    let miss = world.append_if(leader, &["b"], Expect::Empty);
    world.run(200);
    assert_eq!(world.replies.len(), 0);
    for n in &names[1..] {
        world.node(*n).stuck = false;
    }
    assert_eq!(world.position(hit), 1);
    assert!(matches!(
        world.failure(miss),
        Failure::Refused(Refusal::Mismatch {
            last: Position(1),
            ..
        })
    ));
}

// ---- refusals and deadlines

#[test]
fn a_leader_refuses_more_than_it_may_have_in_flight() {
    let (mut world, names) = World::led(3, 30);
    let leader = names[0];
    world.lose(|_, _, m| is_acknowledgement(m));
    let tokens: Vec<_> = (0..30).map(|_| world.append(leader, &"x".repeat(4000))).collect();
    world.run(10);
    let refused = tokens.iter().filter(|t| {
        matches!(
            world.replies.get(t),
            Some(Reply::Failed(Failure::Refused(Refusal::Overloaded)))
        )
    });
    assert_eq!(refused.count(), 30 - (64 << 10) / 4080);
    world.heal();
    world.run(1_000);
    assert_eq!(world.log(leader).len(), (64 << 10) / 4080);
    let token = world.append(leader, &"x".repeat(4000));
    world.position(token);
}

#[test]
fn a_follower_and_a_node_without_a_leader_refuse_more_than_they_may_hold() {
    let (mut world, names) = World::led(3, 31);
    let most = (64 << 10) / 4080;
    let (leader, follower) = (names[0], names[1]);
    world.lose(|_, _, m| is_propose(m));
    let tokens: Vec<_> = (0..30)
        .map(|_| world.append(follower, &"x".repeat(4000)))
        .collect();
    world.run(10);
    assert_eq!(world.replies.len(), 30 - most);
    world.heal();
    world.run_until("the rest", |w| w.open() == 0);
    let overloaded = tokens.iter().filter(|t| {
        matches!(
            world.replies[t],
            Reply::Failed(Failure::Refused(Refusal::Overloaded))
        )
    });
    assert_eq!(overloaded.count(), 30 - most);
    world.replies.clear();
    for n in &names {
        world.isolate(*n);
    }
    world.run(2_000);
    for _ in 0..30 {
        world.append(leader, &"x".repeat(4000));
    }
    world.run(10);
    assert_eq!(world.replies.len(), 30 - most);
    world.heal();
    world.run_until("the rest", |w| w.open() == 0);
    let appended = world
        .replies
        .values()
        .filter(|r| matches!(r, Reply::Appended { .. }))
        .count();
    assert_eq!(appended, most);
}

#[test]
fn an_append_above_the_limit_is_refused_wherever_it_is_asked() {
    let (mut world, names) = World::led(3, 32);
    let sent = world.sent.len();
    for n in names {
        let token = world.append(n, &"x".repeat(5000));
        let Failure::Refused(Refusal::TooLarge { bytes_max }) = world.failure(token) else {
            panic!()
        };
        assert_eq!(bytes_max, 4096);
    }
    assert!(world.sent[sent..].iter().all(|(_, _, m)| !is_propose(m)));
}

fn disk_full(world: &mut World, n: NodeId, full: bool) {
    world.node(n).inbox.push(Input::Log(LogEvent::DiskFull(full)));
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_appends_go_on() {
    let (mut world, names) = World::led(3, 33);
    disk_full(&mut world, names[0], true);
    let token = world.append(names[0], "a");
    assert!(matches!(
        world.failure(token),
        Failure::Refused(Refusal::DiskFull { node }) if node == names[0]
    ));
    assert!(world.driver(names[0]).disk_is_full() && !world.driver(names[1]).disk_is_full());
    let token = world.append(names[1], "b");
    assert_eq!(world.position(token), 1);
    assert_ne!(world.leader(), Some(names[0]));
    assert!(world.log(names[0]).is_empty(), "it takes nothing in");
    disk_full(&mut world, names[0], false);
    world.run_until("what was missed", |world| world.log(names[0]) == ["b"]);
    let token = world.append(names[0], "c");
    assert_eq!(world.position(token), 2);
}

#[test]
fn an_append_that_waits_for_a_leader_is_refused_once_the_disk_is_full() {
    let (mut world, names) = World::led(3, 33);
    world.isolate(names[1]);
    world.run(2_000);
    let token = world.append(names[1], "a");
    world.run(1);
    assert_eq!(world.open(), 1);
    disk_full(&mut world, names[1], true);
    assert!(matches!(
        world.failure(token),
        Failure::Refused(Refusal::DiskFull { .. })
    ));
}

#[test]
fn where_all_disks_are_full_appends_are_refused_for_that() {
    let (mut world, names) = World::led(1, 34);
    disk_full(&mut world, names[0], true);
    let token = world.append(names[0], "a");
    assert!(matches!(
        world.failure(token),
        Failure::Refused(Refusal::DiskFull { .. })
    ));
    disk_full(&mut world, names[0], false);
    let token = world.append(names[0], "b");
    assert_eq!(world.position(token), 1);
}

#[test]
fn a_full_disk_is_asked_for_room_once_a_second() {
    let (mut world, names) = World::led(3, 36);
    for n in &names {
        disk_full(&mut world, *n, true);
    }
    world.run(10_500);
    for n in &names {
        let retries = world.node(*n).retries;
        assert_eq!(retries, 10);
        disk_full(&mut world, *n, false);
    }
    let token = world.append(names[0], "a");
    assert_eq!(world.position(token), 1);
    for n in &names {
        assert_eq!(world.node(*n).retries, 10);
    }
}

#[test]
fn by_its_deadline_an_append_is_answered() {
    let (mut world, names) = World::led(3, 35);
    let (leader, follower, lonely) = (names[0], names[1], names[2]);
    world.isolate(lonely);
    world.run(2_000);
    world.lose(move |_, to, m| is_acknowledgement(m) || to == leader && is_propose(m));
    let ask = |world: &mut World, n, text| {
        world.ask(
            n,
            Ask::Append {
                payload: entry(text),
                expect: Expect::Any,
                session: Session::None,
            },
            250,
        )
    };
    let proposed = ask(&mut world, leader, "a");
    let sent = ask(&mut world, follower, "b");
    let parked = ask(&mut world, lonely, "c");
    world.run(200);
    assert!(world.replies.is_empty());
    world.run(150);
    assert!(matches!(world.failure(proposed), Failure::Unknown(_)));
    assert!(matches!(world.failure(sent), Failure::Unknown(_)));
    assert!(matches!(world.failure(parked), Failure::NoLeader));
}

#[test]
fn a_check_is_answered_by_its_deadline() {
    let (mut world, names) = World::led(3, 36);
    world.isolate(names[0]);
    let ask = Ask::Append {
        payload: entry("a"),
        expect: expect_last(3, None),
        session: Session::None,
    };
    let token = world.ask(names[0], ask, 100);
    let led = world.driver(names[0]).consensus().leader().is_some();
    assert!(led, "it does not know yet that it is alone");
    assert!(matches!(world.failure(token), Failure::Timeout));
}

fn many_requests(world: &mut World, names: &[NodeId]) {
    use kontiki_node::Consistency::{self, Linearizable};
    world.lose(|_, _, m| is_acknowledgement(m) || is_propose(m));
    for n in names {
        world.append(*n, "a");
        world.append_if(*n, &["b"], expect_last(9, None));
        world.append_if(*n, &[], Expect::Any);
        world.read(*n, 1, 9, Linearizable);
        world.tail(*n, 1, Consistency::STALE, 5_000);
        world.tail(*n, 1, Linearizable, 5_000);
    }
}

#[test]
fn a_shutdown_answers_every_request_once() {
    for after in [0, 1, 20, 700] {
        let (mut world, names) = World::led(3, 37);
        many_requests(&mut world, &names);
        world.run(after);
        for n in &names {
            world.turn(*n);
            world.append(*n, "last");
            world.turn(*n);
            world.shut_down(*n);
            world.shut_down(*n);
            world.append(*n, "late");
            world.turn(*n);
        }
        assert_eq!(world.open(), 0);
    }
}

#[test]
fn a_disk_that_fails_stops_the_node_and_answers_every_request_once() {
    for after in [0, 1, 20, 700] {
        let (mut world, names) = World::led(3, 38);
        many_requests(&mut world, &names);
        world.run(after);
        for n in &names {
            let error = Arc::new(LogError::Damaged("worn out".into()));
            world.node(*n).inbox.push(Input::Log(LogEvent::Failed(error)));
            world.append(*n, "late");
            world.turn(*n);
            assert_eq!(world.driver(*n).stopped(), Some("worn out"));
        }
        assert_eq!(world.open(), 0);
        let sent = world.sent.len();
        world.run(2_000);
        assert_eq!(world.sent.len(), sent, "a stopped node is silent");
    }
}
