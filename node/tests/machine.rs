//! A program's own state on top of the log: outputs, queries, replay, and what stops a node.

mod common;

use common::World;
use kontiki_consensus::{Call, NodeId, Position};
use kontiki_node::{
    Ask, Consistency, Failure, MachineError, Reply, StateMachine, Token,
    encoding::{decode, encode},
    machine::{Applier, At, Batch, MetaDelta, MetaRows, Typed},
};
use kontiki_wire::{
    Codec, Expect, InSession, Payload, PeerMessage, ProposeAnswer, Session, record::entries_in,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
};

/// What everybody adds to. The command 1313 makes the program of the first version panic.
#[derive(Default)]
struct Sum {
    total: u64,
    applied: u64,
    fixed: bool,
}

impl StateMachine for Sum {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type Answer = (u64, u64);

    fn apply(&mut self, _: &At, command: u64) -> u64 {
        assert!(command != 1313 || self.fixed, "unlucky");
        self.total += command;
        self.applied += 1;
        self.total
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.total, self.applied)
    }
}

/// The same on a disk that survives the node; `applied` counts what this life of it was given.
struct Kept {
    disk: Disk,
    applied: u64,
}

type Disk = Arc<Mutex<(u64, MetaRows)>>;

impl StateMachine for Kept {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type Answer = (u64, u64);

    fn apply(&mut self, _: &At, command: u64) -> u64 {
        command
    }

    fn apply_batch(
        &mut self,
        batch: Batch<'_, u64>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<u64>, MachineError> {
        let mut disk = self.disk.lock().expect("whole");
        self.applied += batch.len() as u64;
        let mut outputs = Vec::new();
        let mut total = disk.0;
        for (_, command) in batch {
            total += command;
            outputs.push(total);
        }
        let rows = meta.rows(&outputs)?;
        disk.0 = total;
        disk.1.merge(rows);
        Ok(outputs)
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.disk.lock().expect("whole").0, self.applied)
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        Ok(Some(self.disk.lock().expect("whole").1.clone()))
    }
}

fn sums(nodes: u64, seed: u64) -> (World, Vec<NodeId>) {
    let make = |_| Some(Applier::new(Typed(Sum::default())).expect("a machine"));
    World::with_machines(nodes, seed, make).once_led()
}

fn kept(nodes: u64, seed: u64) -> (World, Vec<NodeId>, BTreeMap<NodeId, Disk>) {
    let disks: BTreeMap<NodeId, Disk> = (1..=nodes).map(|n| (NodeId(n), Disk::default())).collect();
    let of = disks.clone();
    let make = move |n: NodeId| {
        let kept = Kept {
            disk: of[&n].clone(),
            applied: 0,
        };
        Some(Applier::new(Typed(kept)).expect("a machine"))
    };
    let (world, names) = World::with_machines(nodes, seed, make).once_led();
    (world, names, disks)
}

fn payload(numbers: &[u64]) -> Payload {
    let all: Vec<_> = numbers.iter().map(|n| encode(n).expect("a number")).collect();
    Payload::several(&all, Codec::Postcard).expect("small")
}

fn add(world: &mut World, n: NodeId, numbers: &[u64]) -> Token {
    add_in(world, n, numbers, Session::None)
}

fn add_in(world: &mut World, n: NodeId, numbers: &[u64], session: Session) -> Token {
    let ask = Ask::Append {
        payload: payload(numbers),
        expect: Expect::Any,
        session,
    };
    world.ask(n, ask, 5_000)
}

fn of(session: u64, sequence: u64, settled: u64) -> Session {
    Session::In(InSession {
        session,
        sequence,
        settled,
    })
}

/// What the machine answered to each entry.
fn outputs(world: &mut World, token: Token) -> Vec<u64> {
    match world.answer(token) {
        Reply::Appended {
            first,
            last,
            outputs: Some(bytes),
            ..
        } => {
            let all = entries_in(&bytes, (last.0 + 1 - first.0) as u32).expect("outputs");
            all.map(|o| decode(&o).expect("a number")).collect()
        }
        other => panic!("no outputs: {other:?}"),
    }
}

fn open(world: &mut World, n: NodeId) -> u64 {
    let token = world.ask(n, Ask::OpenSession, 5_000);
    match world.answer(token) {
        Reply::SessionOpened { session, .. } => session,
        other => panic!("not opened: {other:?}"),
    }
}

fn query(world: &mut World, n: NodeId, consistency: Consistency, patience_ms: u64) -> Token {
    let query = encode(&()).expect("nothing");
    world.ask(n, Ask::Query { query, consistency }, patience_ms)
}

fn answer(world: &mut World, token: Token) -> (u64, u64) {
    match world.answer(token) {
        Reply::Answered { answer, .. } => decode(&answer).expect("two numbers"),
        other => panic!("no answer: {other:?}"),
    }
}

fn asked(world: &mut World, n: NodeId) -> (u64, u64) {
    let token = query(world, n, Consistency::Linearizable, 5_000);
    answer(world, token)
}

fn is_acknowledgement(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(m) if matches!(m.call, Call::AppendEntriesReply { .. }))
}

#[test]
fn an_append_gets_what_its_commands_gave_wherever_it_was_asked() {
    let (mut world, names) = sums(3, 1);
    let mut total = 0;
    for n in &names {
        let token = add(&mut world, *n, &[1, 2, 3]);
        assert_eq!(outputs(&mut world, token), [total + 1, total + 3, total + 6]);
        total += 6;
    }
    world.run(100);
    let metas: Vec<_> = names.iter().map(|n| world.driver(*n).meta().clone()).collect();
    assert!(
        metas
            .iter()
            .all(|m| *m == metas[0] && m.position() == Position(9))
    );
    assert_ne!(metas[0].output_hash(), 0);
}

#[test]
fn a_linearizable_query_sees_every_acknowledged_append_at_every_node() {
    let (mut world, names) = sums(3, 2);
    world.task_delay = 40;
    for round in 1..=4 {
        for n in &names {
            let token = add(&mut world, names[0], &[1]);
            outputs(&mut world, token);
            let (total, _) = asked(&mut world, *n);
            assert!(total >= round, "{total}");
        }
    }
    assert_eq!(asked(&mut world, names[1]), (12, 12));
}

#[test]
fn a_stale_query_is_answered_without_a_leader_and_one_without_a_machine_fails() {
    let (mut world, names) = sums(3, 3);
    let token = add(&mut world, names[1], &[5]);
    outputs(&mut world, token);
    world.isolate(names[1]);
    let stale = query(&mut world, names[1], Consistency::STALE, 100);
    assert_eq!(answer(&mut world, stale), (5, 1));
    let fresh = query(&mut world, names[1], Consistency::Linearizable, 100);
    assert!(matches!(world.failure(fresh), Failure::Timeout));
    let (mut world, names) = World::led(1, 3);
    let none = query(&mut world, names[0], Consistency::STALE, 100);
    assert!(matches!(world.failure(none), Failure::Query(_)));
}

#[test]
fn a_query_waits_for_the_command_it_must_see_and_says_which_it_saw() {
    let (mut world, names) = sums(3, 4);
    let first = add(&mut world, names[0], &[5]);
    outputs(&mut world, first);
    world.run(100);
    world.isolate(names[1]);
    let second = add(&mut world, names[0], &[6]);
    outputs(&mut world, second);
    let waits = query(&mut world, names[1], Consistency::AtLeast(Position(2)), 5_000);
    let stale = query(&mut world, names[1], Consistency::AtLeast(Position(1)), 5_000);
    world.run(50);
    assert!(matches!(
        world.answer(stale),
        Reply::Answered { at: Position(1), .. }
    ));
    assert!(!world.replies.contains_key(&waits));
    world.heal();
    assert!(matches!(
        world.answer(waits),
        Reply::Answered { at: Position(2), .. }
    ));
    assert_eq!(answer(&mut world, waits).0, 11);
}

#[test]
fn a_query_that_is_none_fails_alone() {
    let make = |_| {
        struct Picky;
        impl StateMachine for Picky {
            type Command = ();
            type Output = ();
            type Query = u64;
            type Answer = u64;
            fn apply(&mut self, _: &At, (): ()) {}
            fn query(&self, query: u64) -> u64 {
                100 / query
            }
        }
        Some(Applier::new(Typed(Picky)).expect("a machine"))
    };
    let (mut world, names) = World::with_machines(1, 4, make).once_led();
    for query in [encode(&0_u64).expect("zero"), bytes::Bytes::new()] {
        let consistency = Consistency::STALE;
        let token = world.ask(names[0], Ask::Query { query, consistency }, 1_000);
        assert!(matches!(world.failure(token), Failure::Query(_)));
    }
    assert_eq!(world.driver(names[0]).stopped(), None);
}

#[test]
fn everyone_is_answered_in_time_while_the_machine_stands_still() {
    let (mut world, names) = sums(3, 5);
    let token = add(&mut world, names[0], &[1]);
    outputs(&mut world, token);
    for n in &names {
        world.node(*n).machine_stuck = true;
    }
    let added = world.ask(
        names[0],
        Ask::Append {
            payload: payload(&[2]),
            expect: Expect::Any,
            session: Session::None,
        },
        300,
    );
    let stale = query(&mut world, names[1], Consistency::STALE, 300);
    let fresh = query(&mut world, names[2], Consistency::Linearizable, 300);
    world.run(500);
    world.check_in_time();
    assert!(matches!(world.failure(added), Failure::Unknown(_)));
    assert!(matches!(world.failure(stale), Failure::Timeout));
    assert!(matches!(world.failure(fresh), Failure::Timeout));
    for n in &names {
        world.node(*n).machine_stuck = false;
    }
    assert_eq!(asked(&mut world, names[1]), (3, 2), "it went on where it was");
}

#[test]
fn a_retry_gets_the_first_output_at_any_node_and_from_the_next_leader() {
    let (mut world, names) = sums(3, 6);
    let session = open(&mut world, names[1]);
    let first = add_in(&mut world, names[0], &[4, 5], of(session, 1, 1));
    assert_eq!(outputs(&mut world, first), [4, 9]);
    let other = add(&mut world, names[0], &[100]);
    assert_eq!(outputs(&mut world, other), [109]);
    for n in &names {
        let again = add_in(&mut world, *n, &[4, 5], of(session, 1, 1));
        assert_eq!(outputs(&mut world, again), [4, 9]);
    }
    world.crash(names[0]);
    world.await_leader();
    let again = add_in(&mut world, names[1], &[4, 5], of(session, 1, 1));
    assert_eq!(outputs(&mut world, again), [4, 9]);
    assert_eq!(asked(&mut world, names[2]), (109, 3));
}

#[test]
fn a_machine_in_memory_is_given_the_whole_log_again() {
    let (mut world, names) = sums(3, 7);
    world.tail_bytes_max = 200;
    let session = open(&mut world, names[0]);
    for n in 1..=30 {
        let token = add_in(&mut world, names[0], &[n], of(session, n, 30.min(n)));
        outputs(&mut world, token);
    }
    for n in &names {
        world.crash(*n);
    }
    for n in &names {
        world.start(*n);
        assert_eq!(world.driver(*n).applied().1, Position(0));
    }
    let leader = world.await_leader();
    assert_eq!(asked(&mut world, leader), (465, 30));
    let again = add_in(&mut world, leader, &[30], of(session, 30, 30));
    assert_eq!(outputs(&mut world, again), [465]);
    assert!(
        names.iter().all(|n| world.nodes[n].fetched > 0),
        "the log was read back"
    );
}

#[test]
fn a_durable_machine_goes_on_where_it_was_and_remembers_sessions() {
    let (mut world, names, _) = kept(3, 8);
    let session = open(&mut world, names[0]);
    let first = add_in(&mut world, names[0], &[7], of(session, 1, 1));
    assert_eq!(outputs(&mut world, first), [7]);
    for _ in 0..10 {
        let token = add(&mut world, names[0], &[1]);
        outputs(&mut world, token);
    }
    world.run(100);
    for n in &names {
        world.crash(*n);
    }
    for n in &names {
        world.start(*n);
        assert_eq!(world.driver(*n).applied().1, Position(11));
    }
    let leader = world.await_leader();
    let again = add_in(&mut world, leader, &[7], of(session, 1, 1));
    assert_eq!(outputs(&mut world, again), [7]);
    let token = add(&mut world, leader, &[1]);
    assert_eq!(outputs(&mut world, token), [18]);
    assert_eq!(
        asked(&mut world, leader),
        (18, 1),
        "only what was new was applied"
    );
}

#[test]
fn a_machine_that_knows_more_than_the_log_is_refused() {
    let (mut world, names, _) = kept(1, 9);
    let token = add(&mut world, names[0], &[7]);
    outputs(&mut world, token);
    world.crash(names[0]);
    world.node(names[0]).disk =
        common::image::Image::founded(&kontiki_consensus::Configuration::of_voters([names[0]]));
    world.start(names[0]);
    let why = world.driver(names[0]).stopped().expect("it stopped").to_owned();
    assert!(why.contains("belongs to another log"), "{why}");
    let token = add(&mut world, names[0], &[1]);
    assert!(matches!(world.failure(token), Failure::Stopped(_)));
}

#[test]
fn a_command_that_kills_the_program_stops_it_with_its_index_and_a_corrected_one_goes_on() {
    let fixed = Rc::new(Cell::new(false));
    let version = fixed.clone();
    let make = move |_| {
        let sum = Sum {
            fixed: version.get(),
            ..Sum::default()
        };
        Some(Applier::new(Typed(sum)).expect("a machine"))
    };
    let (mut world, names) = World::with_machines(3, 10, make).once_led();
    let token = add(&mut world, names[0], &[1]);
    outputs(&mut world, token);
    let term = world.term(names[0]);
    let killer = add(&mut world, names[0], &[2, 1313]);
    assert!(matches!(world.failure(killer), Failure::Unknown(_)));
    world.run(200);
    for n in &names {
        let why = world.driver(*n).stopped().expect("it stopped");
        assert!(why.contains("entry 3") && why.contains("unlucky"), "{why}");
    }
    fixed.set(true);
    for n in &names {
        world.crash(*n);
        world.start(*n);
        assert!(world.term(*n) >= term, "the vote is as it was");
    }
    let leader = world.await_leader();
    assert_eq!(asked(&mut world, leader), (1316, 3));
}

#[test]
fn a_late_answer_of_the_leader_still_brings_the_output() {
    let (mut world, names) = sums(3, 11);
    let mut held = false;
    let forwarder = names[1];
    world.lose(move |_, to, m| {
        let first = !held
            && to == forwarder
            && matches!(m, PeerMessage::ProposeReply(r) if matches!(r.answer, ProposeAnswer::Assigned { .. }));
        held |= first;
        first
    });
    let token = add(&mut world, forwarder, &[6]);
    world.run_until("it is applied", |w| {
        w.driver(forwarder).applied().1 == Position(1)
    });
    assert!(!world.replies.contains_key(&token));
    assert_eq!(outputs(&mut world, token), [6]);
}

#[test]
fn no_more_than_a_few_pieces_are_with_the_machine() {
    let (mut world, names) = sums(1, 12);
    world.crash(names[0]);
    (world.payload_bytes_max, world.in_flight_bytes_max) = (2 << 20, 64 << 20);
    world.start(names[0]);
    world.await_leader();
    world.node(names[0]).machine_stuck = true;
    let numbers = vec![u64::MAX >> 30; 30_000];
    let tokens: Vec<Token> = (0..30).map(|_| add(&mut world, names[0], &numbers)).collect();
    world.run(100);
    let under_way = world.task_bytes(names[0]);
    assert!((3 << 20..6 << 20).contains(&under_way), "{under_way}");
    world.node(names[0]).machine_stuck = false;
    for token in tokens {
        assert_eq!(outputs(&mut world, token).len(), 30_000);
    }
}

#[test]
fn a_leader_takes_nothing_before_its_machine_has_caught_up() {
    let (mut world, names) = sums(3, 13);
    let token = add(&mut world, names[0], &[1]);
    outputs(&mut world, token);
    for n in &names[1..] {
        world.node(*n).machine_stuck = true;
    }
    world.crash(names[0]);
    world.run_until("another leader", |w| w.leader().is_some());
    let leader = world.leader().expect("a leader");
    let last = world.driver(leader).consensus().last_position();
    let waits = add(&mut world, leader, &[2]);
    world.run(300);
    assert_eq!(world.driver(leader).consensus().last_position(), last);
    world.node(leader).machine_stuck = false;
    assert_eq!(outputs(&mut world, waits), [3]);
}

#[test]
fn what_is_not_committed_is_not_applied() {
    let (mut world, names) = sums(3, 14);
    world.lose(|_, _, m| is_acknowledgement(m));
    add(&mut world, names[0], &[1]);
    world.run(50);
    let stale = query(&mut world, names[0], Consistency::STALE, 100);
    assert_eq!(answer(&mut world, stale), (0, 0));
}
