//! Reads and queries in masses: how much is under way at a time, what is held, and that those who leave are forgotten.

mod common;

use common::World;
use kontiki_consensus::{Duration, NodeId, Position};
use kontiki_node::{
    Ask,
    Consistency::{self, Linearizable},
    Failure, QUERIES_MAX, READ_FETCHES_MAX, READS_WAITING_MAX, Reply, StateMachine, Token,
    encoding::encode,
    machine::{Applier, At, Typed},
};
use kontiki_wire::{Codec, Expect, Payload, Refusal, Session};

const STALE: Consistency = Consistency::STALE;

/// Counts its commands.
#[derive(Default)]
struct Count(u64);

impl StateMachine for Count {
    type Command = u64;
    type Output = u64;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, _: &At, _: u64) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, _: u64) -> u64 {
        self.0
    }
}

fn with_machine(seed: u64) -> (World, Vec<NodeId>) {
    let make = |_| Some(Applier::new(Typed(Count::default())).expect("a machine"));
    World::with_machines(3, seed, make).once_led()
}

fn query(world: &mut World, n: NodeId, consistency: Consistency, patience_ms: u64) -> Token {
    let query = encode(&0_u64).expect("a number");
    world.ask(n, Ask::Query { query, consistency }, patience_ms)
}

fn command(world: &mut World, n: NodeId) -> Token {
    let ask = Ask::Append {
        payload: Payload::one(encode(&1_u64).expect("a number"), Codec::Postcard),
        expect: Expect::Any,
        session: Session::None,
    };
    world.ask(n, ask, 5_000)
}

fn read(world: &mut World, n: NodeId, bytes_max: usize, patience_ms: u64) -> Token {
    let ask = Ask::Read {
        from: Position(1),
        to: Position(100),
        bytes_max,
        consistency: STALE,
        wait: false,
    };
    world.ask(n, ask, patience_ms)
}

/// A cluster that has ten entries of a thousand bytes on its disks and none in memory.
fn on_disk(seed: u64) -> (World, Vec<NodeId>) {
    let (mut world, names) = World::led(3, seed);
    for _ in 0..10 {
        let token = world.append(names[0], &"x".repeat(1000));
        world.position(token);
    }
    world.tail_bytes_max = 0;
    world.start_anew();
    world.once_led()
}

fn is_overloaded(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(Failure::Refused(Refusal::Overloaded)))
}

#[test]
fn masses_of_reads_from_disk_are_carried_out_a_few_at_a_time_in_their_order() {
    let (mut world, names) = on_disk(1);
    let (leader, term) = (names[0], world.term(names[0]));
    world.node(leader).slow_reads = 3;
    let tokens: Vec<Token> = (0..300)
        .map(|_| read(&mut world, leader, 4 << 10, 5_000))
        .collect();
    world.run(10);
    let answered = tokens
        .iter()
        .take_while(|t| world.replies.contains_key(t))
        .count();
    assert!(answered > 0 && world.replies.keys().all(|t| *t <= tokens[answered - 1]));
    for token in tokens {
        assert_eq!(world.texts(token).0.len(), 3);
    }
    assert!((1..=READ_FETCHES_MAX).contains(&world.nodes[&leader].reading.1));
    assert_eq!((world.term(leader), world.leader()), (term, Some(leader)));
}

#[test]
fn answers_that_are_not_taken_hold_back_those_that_would_take_more_memory() {
    let (mut world, names) = on_disk(2);
    world.in_flight_bytes_max = 40_000;
    world.start_anew();
    let (mut world, _) = world.once_led();
    let n = names[0];
    world.node(n).keeps_answers = true;
    let tokens: Vec<Token> = (0..30).map(|_| read(&mut world, n, 12_000, 2_000)).collect();
    world.run(500);
    let answered = |world: &World| tokens.iter().filter(|t| world.replies.contains_key(t)).count();
    assert_eq!(
        answered(&world),
        3,
        "of 10,880 bytes each, while one more may be read"
    );
    world.take_answers(n);
    world.run(100);
    assert_eq!(answered(&world), 6);
    world.run(2_000);
    assert_eq!(answered(&world), 30);
    let late = tokens
        .iter()
        .filter(|t| matches!(world.replies[t], Reply::Failed(Failure::Timeout)));
    assert_eq!(late.count(), 24);
    assert!(world.nodes[&n].held.1 <= 40_000, "{:?}", world.nodes[&n].held);
    world.check_in_time();
}

#[test]
fn what_memory_holds_waits_for_room_as_well_and_one_answer_always_goes_ahead() {
    let (mut world, names) = World::led(1, 3);
    for _ in 0..10 {
        let token = world.append(names[0], &"x".repeat(1000));
        world.position(token);
    }
    world.in_flight_bytes_max = 1000;
    world.start_anew();
    let (mut world, names) = world.once_led();
    world.node(names[0]).keeps_answers = true;
    let tokens: Vec<Token> = (0..3)
        .map(|_| read(&mut world, names[0], 4 << 10, 5_000))
        .collect();
    for (n, token) in tokens.iter().enumerate() {
        world.run(100);
        assert_eq!(
            tokens.iter().filter(|t| world.replies.contains_key(t)).count(),
            n + 1
        );
        assert_eq!(world.texts(*token).0.len(), 3);
        world.take_answers(names[0]);
    }
}

#[test]
fn reads_and_queries_beyond_what_may_wait_are_refused() {
    let (mut world, names) = on_disk(4);
    world.node(names[0]).slow_reads = 1_000;
    let extra = 10;
    let most = READ_FETCHES_MAX + READS_WAITING_MAX;
    let tokens: Vec<Token> = (0..most + extra)
        .map(|_| read(&mut world, names[0], 1, 500))
        .collect();
    world.run(5);
    let refused = tokens
        .iter()
        .filter(|t| world.replies.get(t).is_some_and(is_overloaded))
        .count();
    assert!((extra..=extra + READ_FETCHES_MAX).contains(&refused), "{refused}");
    let (mut world, names) = with_machine(5);
    world.node(names[0]).machine_stuck = true;
    let most = QUERIES_MAX + READS_WAITING_MAX;
    let tokens: Vec<Token> = (0..most + extra)
        .map(|_| query(&mut world, names[0], STALE, 500))
        .collect();
    world.run(5);
    let refused = tokens
        .iter()
        .filter(|t| world.replies.get(t).is_some_and(is_overloaded))
        .count();
    assert!((extra..=extra + QUERIES_MAX).contains(&refused), "{refused}");
}

#[test]
fn queries_whose_time_is_over_are_not_carried_out() {
    let (mut world, names) = with_machine(6);
    let n = names[0];
    world.node(n).machine_stuck = true;
    let tokens: Vec<Token> = (0..500).map(|_| query(&mut world, n, STALE, 100)).collect();
    let append = command(&mut world, n);
    world.run(200);
    for token in tokens {
        assert!(matches!(world.replies[&token], Reply::Failed(Failure::Timeout)));
    }
    assert_eq!(world.nodes[&n].queried, QUERIES_MAX);
    assert_eq!(world.queries_with_machine(n), 0, "they are withdrawn");
    world.node(n).machine_stuck = false;
    world.run(5);
    assert!(matches!(world.answer(append), Reply::Appended { .. }));
    let token = query(&mut world, n, Linearizable, 1_000);
    assert!(
        matches!(world.answer(token), Reply::Answered { .. }),
        "others are answered"
    );
}

#[test]
fn a_command_stands_behind_a_few_queries_however_many_wait() {
    let (mut world, names) = with_machine(7);
    let n = names[0];
    world.node(n).machine_stuck = true;
    let tokens: Vec<Token> = (0..500).map(|_| query(&mut world, n, STALE, 5_000)).collect();
    command(&mut world, n);
    world.run(50);
    let ahead = world.queries_ahead(n).expect("a command");
    assert!(
        ahead <= kontiki_node::machine::QUERIES_AHEAD_MAX,
        "{ahead} queries"
    );
    assert!(world.queries_with_machine(n) <= QUERIES_MAX);
    world.node(n).machine_stuck = false;
    for token in tokens {
        assert!(matches!(world.answer(token), Reply::Answered { .. }));
    }
}

/// A client gives up: nothing is kept for it, and it is not answered.
fn gives_up(mut world: World, n: NodeId, tokens: Vec<Token>) -> World {
    world.run(5);
    assert_eq!(world.driver(n).reads_waiting(), tokens.len());
    world.cancel(n, tokens);
    world.run(1);
    assert_eq!(world.driver(n).reads_waiting(), 0);
    world.run(300);
    world
}

#[test]
fn whoever_gives_up_is_forgotten_wherever_it_waits() {
    // For an entry to come, for another to be applied here, and for what only the disk holds.
    let (mut world, names) = on_disk(8);
    world.node(names[0]).slow_reads = 100;
    let mut tokens: Vec<Token> = (0..10).map(|_| read(&mut world, names[0], 1, 5_000)).collect();
    tokens.push(world.tail(names[0], 11, STALE, 5_000));
    tokens.push(world.read(names[0], 1, 2, Consistency::AtLeast(Position(50))));
    let mut world = gives_up(world, names[0], tokens);
    // What the log was reading has made room again.
    let token = read(&mut world, names[0], 1, 5_000);
    assert_eq!(world.texts(token).0.len(), 1);
    // For a leader's answer, or for a leader.
    world.isolate(names[1]);
    let token = world.read(names[1], 1, 2, Linearizable);
    let mut world = gives_up(world, names[1], vec![token]);
    world.run(2_000);
    assert_eq!(world.driver(names[1]).consensus().leader(), None);
    let token = world.read(names[1], 1, 2, Linearizable);
    gives_up(world, names[1], vec![token]);
    // For the machine.
    let (mut world, names) = with_machine(9);
    world.node(names[0]).machine_stuck = true;
    let tokens: Vec<Token> = (0..QUERIES_MAX + 9)
        .map(|_| query(&mut world, names[0], STALE, 5_000))
        .collect();
    let world = gives_up(world, names[0], tokens);
    assert_eq!(world.queries_with_machine(names[0]), 0);
}

#[test]
fn giving_an_append_up_does_not_undo_it() {
    let (mut world, names) = World::led(3, 10);
    let token = world.append(names[0], "kept");
    world.run(1);
    world
        .node(names[0])
        .inbox
        .push(kontiki_node::Input::Cancel(vec![token]));
    assert_eq!(world.position(token), 1);
}

#[test]
fn a_deadline_is_seen_in_time_however_rare_heartbeats_are() {
    let mut world = World::new(3, 11);
    world.heartbeat = Some(Duration::from_millis(5_000));
    world.start_anew();
    for n in world.names() {
        world.isolate(n);
        for patience in [10, 100, 200] {
            let token = world.tail(n, 1, Linearizable, patience);
            world.run(patience + 60);
            assert!(matches!(
                world.replies.get(&token),
                Some(Reply::Failed(Failure::Timeout))
            ));
            let append = command(&mut world, n);
            world.run(5_060);
            assert!(world.replies.contains_key(&append));
        }
    }
}
