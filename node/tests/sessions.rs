//! Sessions: a retry takes effect once, wherever it is sent and whoever leads, and is answered like the first.

mod common;

use common::World;
use kontiki_consensus::{Call, Message, NodeId};
use kontiki_node::{Ask, Counts, Failure, Reply, Token, session::SessionClient};
use kontiki_wire::{
    Codec, Expect, InSession, Payload, PeerMessage, ProposeAnswer, Refusal, Session, SessionLimits,
};

fn entry(text: &str) -> Payload {
    Payload::one(text.as_bytes().to_vec().into(), Codec::Bytes)
}

/// An append of a session: its number, and the lowest without an answer.
fn in_session(session: u64, sequence: u64, settled: u64, text: &str) -> Ask {
    Ask::Append {
        payload: entry(text),
        expect: Expect::Any,
        session: Session::In(InSession {
            session,
            sequence,
            settled,
        }),
    }
}

fn open(world: &mut World, n: NodeId) -> u64 {
    let token = world.ask(n, Ask::OpenSession, 5_000);
    match world.answer(token) {
        Reply::SessionOpened { session, .. } => session,
        other => panic!("not opened: {other:?}"),
    }
}

fn ask(world: &mut World, n: NodeId, ask: Ask) -> Token {
    world.ask(n, ask, 5_000)
}

fn place(world: &mut World, token: Token) -> (u64, u64, u64) {
    match world.answer(token) {
        Reply::Appended {
            first,
            term,
            raft_index,
            ..
        } => (first.0, term.0, raft_index),
        other => panic!("not appended: {other:?}"),
    }
}

fn refusal(world: &mut World, token: Token) -> Refusal {
    match world.failure(token) {
        Failure::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn counts(world: &World) -> Counts {
    world.names().into_iter().fold(Counts::default(), |sum, n| {
        let counts = world.driver(n).counts();
        Counts {
            answered: sum.answered + counts.answered,
            joined: sum.joined + counts.joined,
            expired: sum.expired + counts.expired,
            ..sum
        }
    })
}

fn is_acknowledgement(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(m) if matches!(m.call, Call::AppendEntriesReply { .. }))
}

fn is_assignment(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::ProposeReply(r) if matches!(r.answer, ProposeAnswer::Assigned { .. }))
}

#[test]
fn a_retry_is_answered_like_the_first_at_every_node() {
    let (mut world, names) = World::led(3, 1);
    let session = open(&mut world, names[1]);
    let first = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    let first = place(&mut world, first);
    for n in names {
        let again = ask(&mut world, n, in_session(session, 1, 1, "a"));
        assert_eq!(place(&mut world, again), first);
    }
    assert_eq!(world.log(world.leader().unwrap()), ["a"]);
    assert_eq!(counts(&world).answered, 3);
}

#[test]
fn opening_takes_no_position_and_every_session_has_its_own_numbers() {
    let (mut world, names) = World::led(3, 2);
    let before = world.append(names[0], "x");
    assert_eq!(world.position(before), 1);
    let (one, two) = (open(&mut world, names[0]), open(&mut world, names[2]));
    assert_ne!(one, two);
    for (session, position) in [(one, 2), (two, 3)] {
        let token = ask(&mut world, names[1], in_session(session, 1, 1, "a"));
        assert_eq!(world.position(token), position);
    }
    assert_eq!(world.driver(names[0]).meta().sessions(), 2);
}

#[test]
fn a_retry_joins_the_append_that_is_in_flight() {
    let (mut world, names) = World::led(3, 3);
    let session = open(&mut world, names[0]);
    world.run(20);
    world.lose(|_, _, m| is_acknowledgement(m));
    let first = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    world.run(5);
    let retries = [names[0], names[1]].map(|n| ask(&mut world, n, in_session(session, 1, 1, "a")));
    world.run(20);
    assert!(world.replies.is_empty() || !world.replies.contains_key(&first));
    world.heal();
    let place_of_first = place(&mut world, first);
    for retry in retries {
        assert_eq!(place(&mut world, retry), place_of_first);
    }
    assert_eq!(world.log(names[0]), ["a"]);
    assert_eq!(counts(&world).joined, 2);
}

#[test]
fn a_session_that_its_leader_could_not_open_is_opened_by_the_next() {
    let (mut world, names) = World::led(3, 15);
    let (leader, term) = (names[0], world.term(names[0]));
    let token = ask(&mut world, leader, Ask::OpenSession);
    // Taken in and, in the same turn, deposed.
    let later = Message {
        from: names[1],
        to: leader,
        term: term.next(),
        call: Call::RequestVoteReply {
            pre: false,
            granted: false,
            suspect: kontiki_consensus::SuspectMark::ZERO,
        },
    };
    world.hand(names[1], leader, PeerMessage::Raft(later));
    world.lose(move |from, _, m| {
        from == leader && matches!(m, PeerMessage::Raft(m) if matches!(m.call, Call::RequestVote { .. }))
    });
    assert!(matches!(world.answer(token), Reply::SessionOpened { .. }));
    let payloads = world.sent.iter().filter_map(|(_, _, m)| match m {
        PeerMessage::Propose(propose) if propose.session == Session::Open => Some(&propose.payload.bytes),
        _ => None,
    });
    assert!(payloads.clone().count() > 0, "it was sent to the next leader");
    assert!(
        payloads.into_iter().all(|bytes| bytes.is_empty()),
        "the leader puts in the limits"
    );
}

#[test]
fn a_session_is_known_to_a_leader_whose_own_disk_is_behind() {
    let (mut world, names) = World::led(3, 16);
    world.node(names[0]).stuck = true;
    let session = open(&mut world, names[1]);
    assert!(
        world.driver(names[0]).applied().0.0 < session,
        "it is in flight there"
    );
    let token = ask(&mut world, names[1], in_session(session, 1, 1, "a"));
    let other = ask(&mut world, names[1], in_session(session + 1, 1, 1, "b"));
    world.run(20);
    world.node(names[0]).stuck = false;
    assert_eq!(world.position(token), 1);
    assert_eq!(refusal(&mut world, other), Refusal::SessionExpired);
}

#[test]
fn two_of_one_turn_are_one() {
    let (mut world, names) = World::led(1, 4);
    let session = open(&mut world, names[0]);
    let tokens = [0; 3].map(|_| ask(&mut world, names[0], in_session(session, 1, 1, "a")));
    let places = tokens.map(|t| place(&mut world, t));
    assert_eq!(places, [places[0]; 3]);
    assert_eq!(world.log(names[0]), ["a"]);
}

#[test]
fn an_append_of_unknown_fate_is_safely_sent_to_the_next_leader() {
    let (mut world, names) = World::led(3, 5);
    let session = open(&mut world, names[0]);
    // It commits everywhere, and its leader dies before it can say so.
    let token = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    world.run_until("it is on another disk", |w| {
        w.driver(names[1]).consensus().last().index.0 > session
    });
    world.run(1);
    world.crash(names[0]);
    assert!(!world.replies.contains_key(&token));
    let leader = world.await_leader();
    assert_ne!(leader, names[0]);
    let again = ask(&mut world, names[1], in_session(session, 1, 1, "a"));
    let (position, term, _) = place(&mut world, again);
    assert_eq!(position, 1);
    assert!(term < world.term(leader).0, "it was the first that took effect");
    assert_eq!(world.log(leader), ["a"]);
}

#[test]
fn a_forwarder_learns_of_a_retry_where_the_first_stands() {
    let (mut world, names) = World::led(3, 6);
    let session = open(&mut world, names[1]);
    world.lose(|_, _, m| is_assignment(m));
    let lost = world.ask(names[1], in_session(session, 1, 1, "a"), 100);
    assert!(matches!(world.failure(lost), Failure::Unknown(_)));
    world.heal();
    let again = ask(&mut world, names[2], in_session(session, 1, 1, "a"));
    assert_eq!(world.position(again), 1);
    assert_eq!(world.log(names[0]), ["a"]);
}

#[test]
fn a_restarted_cluster_remembers() {
    let (mut world, names) = World::led(3, 7);
    world.tail_bytes_max = 300;
    let session = open(&mut world, names[0]);
    let first = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    let first = place(&mut world, first);
    for n in 0..40 {
        let token = world.append(names[0], &format!("filling {n}"));
        world.answer(token);
    }
    for n in &names {
        world.crash(*n);
    }
    names.iter().for_each(|n| world.start(*n));
    let leader = world.await_leader();
    let fetched = world.nodes[&leader].fetched;
    let again = ask(&mut world, leader, in_session(session, 1, 1, "a"));
    assert_eq!(place(&mut world, again), first);
    assert_eq!(world.log(leader).len(), 41);
    assert!(fetched > 0, "the old records are on disk only");
}

#[test]
fn appends_without_a_session_do_not_wait_for_a_leader_to_learn_the_sessions() {
    let (mut world, names) = World::led(1, 8);
    world.tail_bytes_max = 300;
    let session = open(&mut world, names[0]);
    for n in 0..40 {
        let token = world.append(names[0], &format!("filling {n}"));
        world.answer(token);
    }
    world.crash(names[0]);
    world.node(names[0]).slow_reads = 400;
    world.start(names[0]);
    let waits = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    let plain = world.append(names[0], "b");
    assert_eq!(world.position(plain), 41);
    assert!(!world.replies.contains_key(&waits));
    assert_eq!(world.position(waits), 42);
}

#[test]
fn what_is_settled_or_unknown_is_refused_and_not_appended() {
    let (mut world, names) = World::led(3, 9);
    let session = open(&mut world, names[0]);
    for (sequence, settled) in [(1, 1), (2, 2)] {
        let token = ask(&mut world, names[0], in_session(session, sequence, settled, "a"));
        world.position(token);
    }
    for n in [names[0], names[1]] {
        let stale = ask(&mut world, n, in_session(session, 1, 1, "a"));
        assert_eq!(refusal(&mut world, stale), Refusal::SessionStale);
        let expired = ask(&mut world, n, in_session(session + 1, 1, 1, "a"));
        assert_eq!(refusal(&mut world, expired), Refusal::SessionExpired);
        for (sequence, settled) in [(0, 0), (1, 0), (2, 3), (u64::MAX, 1)] {
            let odd = ask(&mut world, n, in_session(session, sequence, settled, "a"));
            assert_eq!(refusal(&mut world, odd), Refusal::SessionStale);
        }
    }
    assert_eq!(world.log(names[0]), ["a", "a"]);
}

#[test]
fn a_leader_that_was_replaced_does_not_call_a_session_unknown() {
    let (mut world, names) = World::led(3, 10);
    world.isolate(names[0]);
    world.run_until("another leader", |w| w.leader().is_some_and(|l| l != names[0]));
    let leader = world.leader().unwrap();
    let session = open(&mut world, leader);
    // The old one does not know it, and cannot confirm that it leads.
    let token = ask(&mut world, names[0], in_session(session, 1, 1, "a"));
    world.run(50);
    world.heal();
    let answered = world.answer(token);
    assert!(
        !matches!(
            &answered,
            Reply::Failed(Failure::Refused(Refusal::SessionExpired))
        ),
        "{answered:?}"
    );
}

#[test]
fn a_silent_session_expires_by_the_clock_of_the_cluster_and_at_the_same_record_everywhere() {
    let (mut world, names) = World::led(3, 11);
    let limits = SessionLimits {
        ttl: 3,
        ..SessionLimits::default()
    };
    restart_with(&mut world, limits);
    let leader = world.await_leader();
    let (quiet, busy) = (open(&mut world, leader), open(&mut world, leader));
    for n in 1..=6 {
        let token = ask(&mut world, leader, in_session(busy, n, n, "b"));
        world.position(token);
        world.run(1_000);
    }
    let token = ask(&mut world, leader, in_session(quiet, 1, 1, "q"));
    assert_eq!(refusal(&mut world, token), Refusal::SessionExpired);
    let token = ask(&mut world, leader, in_session(busy, 7, 7, "b"));
    world.position(token);
    world.run(200);
    let metas = names.iter().map(|n| world.driver(*n).meta().clone());
    let metas: Vec<_> = metas.collect();
    assert!(metas.iter().all(|m| *m == metas[0] && m.sessions() == 1));
    assert_eq!(world.driver(leader).counts().expired, 1);
}

/// All nodes, begun again with these limits for new sessions.
fn restart_with(world: &mut World, limits: SessionLimits) {
    world.sessions = limits;
    for n in world.names() {
        world.crash(n);
        world.start(n);
    }
    world.await_leader();
}

#[test]
fn time_without_a_quorum_ends_no_session_though_the_processes_live() {
    let (mut world, names) = World::led(3, 12);
    restart_with(
        &mut world,
        SessionLimits {
            ttl: 3,
            ..SessionLimits::default()
        },
    );
    let session = open(&mut world, names[0]);
    world.run(200);
    names.iter().for_each(|n| world.isolate(*n));
    world.run(60_000);
    assert_eq!(world.leader(), None);
    world.heal();
    let leader = world.await_leader();
    let token = ask(&mut world, leader, in_session(session, 1, 1, "a"));
    assert_eq!(world.position(token), 1);
}

#[test]
fn idle_time_under_a_leader_counts_for_the_next_one() {
    let (mut world, names) = World::led(3, 12);
    let limits = SessionLimits {
        ttl: 12,
        ..SessionLimits::default()
    };
    restart_with(&mut world, limits);
    let session = open(&mut world, names[0]);
    // Nothing is appended, and a leader after the other falls: the next goes on from what the log shows.
    for _ in 0..3 {
        world.run(7_000);
        let leader = world.await_leader();
        world.crash(leader);
        world.await_leader();
        world.start(leader);
    }
    let leader = world.await_leader();
    let token = ask(&mut world, leader, in_session(session, 1, 1, "a"));
    assert_eq!(refusal(&mut world, token), Refusal::SessionExpired);
}

#[test]
fn time_without_any_leader_ends_no_session() {
    let (mut world, names) = World::led(3, 12);
    restart_with(
        &mut world,
        SessionLimits {
            ttl: 3,
            ..SessionLimits::default()
        },
    );
    let session = open(&mut world, names[0]);
    names.iter().for_each(|n| world.crash(*n));
    world.run(60_000);
    names.iter().for_each(|n| world.start(*n));
    let leader = world.await_leader();
    let token = ask(&mut world, leader, in_session(session, 1, 1, "a"));
    assert_eq!(world.position(token), 1);
}

#[test]
fn one_session_too_many_ends_the_one_that_was_silent_longest() {
    let (mut world, names) = World::led(3, 13);
    restart_with(
        &mut world,
        SessionLimits {
            sessions_max: 2,
            ..SessionLimits::default()
        },
    );
    let sessions = [0; 3].map(|_| open(&mut world, names[1]));
    let tokens = sessions.map(|s| ask(&mut world, names[2], in_session(s, 1, 1, "a")));
    assert_eq!(refusal(&mut world, tokens[0]), Refusal::SessionExpired);
    assert_eq!((world.position(tokens[1]), world.position(tokens[2])), (1, 2));
}

#[test]
fn a_retry_of_a_comparison_is_answered_like_the_one_that_hit() {
    let (mut world, names) = World::led(3, 14);
    let session = open(&mut world, names[0]);
    let compare = |sequence| Ask::Append {
        payload: entry("first"),
        expect: Expect::Empty,
        session: Session::In(InSession {
            session,
            sequence,
            settled: 1,
        }),
    };
    for _ in 0..2 {
        let token = ask(&mut world, names[1], compare(1));
        assert_eq!(world.position(token), 1);
    }
    let other = ask(&mut world, names[1], compare(2));
    assert!(matches!(refusal(&mut world, other), Refusal::Mismatch { .. }));
}

#[test]
fn the_client_gets_each_append_through_once_whatever_happens() {
    let mut retries = 0;
    for seed in 0..20 {
        let (mut world, names) = World::led(3, 100 + seed);
        world.twice = 4;
        let mut client = SessionClient::new(1024);
        client.opened(open(&mut world, names[0]));
        for n in 0..12_u64 {
            let text = n.to_string();
            let (sequence, mut what) = client.append(entry(&text), Expect::Any).unwrap();
            match n % 4 {
                1 => world.lose(|_, _, m| is_assignment(m)),
                2 => world.crash(world.leader().unwrap()),
                3 => world.lose(|_, _, m| is_acknowledgement(m)),
                _ => {}
            }
            let mut at = (seed + n) as usize;
            loop {
                at += 1;
                let node = names[at % names.len()];
                if world.nodes[&node].driver.is_none() {
                    continue;
                }
                let token = world.ask(node, what.clone(), 400);
                let reply = world.answer(token);
                let verdict = client.answered(sequence, reply).unwrap();
                if let kontiki_node::session::Verdict::Final(reply) = verdict {
                    assert!(matches!(reply, Reply::Appended { .. }), "{reply:?}");
                    break;
                }
                retries += 1;
                what = client.retry(sequence).unwrap();
                world.heal();
            }
            for n in &names {
                if world.nodes[n].driver.is_none() {
                    world.start(*n);
                }
            }
        }
        world.heal();
        let leader = world.await_leader();
        let expected: Vec<String> = (0..12).map(|n: u64| n.to_string()).collect();
        assert_eq!(world.log(leader), expected, "seed {seed}");
    }
    assert!(retries > 20, "only {retries} retries: nothing is shown");
}
