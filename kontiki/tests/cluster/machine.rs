//! State machines on three nodes: what is applied, what is asked, and what happens when applying fails.

use crate::common::{PATIENCE, Scratch, eventually};
use kontiki::{
    At, BlockingMachine, Code, Config, Consistency, Error, MachineError, MetaRows, RaftNode, Role,
    SessionKey, StateMachine, restored, snapshot_of,
};
use serde::{Deserialize, Serialize};
use std::{io::Read, path::Path};

/// Counts, and fails as it is told.
#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: u64,
    last_second: u32,
    /// How many commands this very machine was given.
    #[serde(skip)]
    applied: u64,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
enum Step {
    Add(u64),
    Panic,
}

#[derive(Serialize, Deserialize)]
enum Question {
    Count,
    Applied,
    Panic,
}

/// A value that is lost in its encoding.
#[derive(Serialize, Deserialize)]
struct Forgetful {
    #[serde(skip_deserializing)]
    kept: u32,
}

struct Nothing;

impl StateMachine for Counter {
    type Command = Step;
    type Output = u64;
    type Query = Question;
    type Answer = u64;

    fn apply(&mut self, at: &At, step: Step) -> u64 {
        assert!(
            at.clock_seconds >= self.last_second,
            "the cluster's clock never goes back"
        );
        self.last_second = at.clock_seconds;
        self.applied += 1;
        match step {
            Step::Add(n) => self.count += n,
            Step::Panic => panic!("a test wants a panic"),
        }
        self.count
    }

    fn query(&self, question: Question) -> u64 {
        match question {
            Question::Count => self.count,
            Question::Applied => self.applied,
            Question::Panic => panic!("a test asks for a panic"),
        }
    }

    fn digest(&self) -> Option<u64> {
        Some(self.count ^ u64::from(self.last_second).rotate_left(32))
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        snapshot_of(self).map(Some)
    }

    fn restore(&mut self, from: &mut dyn Read, _: &MetaRows) -> Result<(), MachineError> {
        let applied = self.applied;
        *self = restored(from)?;
        self.applied = applied;
        Ok(())
    }
}

impl StateMachine for Nothing {
    type Command = Forgetful;
    type Output = ();
    type Query = ();
    type Answer = ();

    fn apply(&mut self, _: &At, _: Forgetful) {}

    fn query(&self, (): ()) {}
}

fn start<M: StateMachine>(mut config: Config, machine: M) -> BlockingMachine<M> {
    config.request_timeout = PATIENCE;
    let node = RaftNode::with_machine(config, machine).unwrap();
    node.start().unwrap().blocking()
}

fn counters(configs: Vec<Config>) -> Vec<BlockingMachine<Counter>> {
    let nodes: Vec<_> = configs
        .into_iter()
        .map(|config| start(config, Counter::default()))
        .collect();
    for node in &nodes {
        node.wait_ready(PATIENCE).unwrap();
    }
    nodes
}

fn count(node: &BlockingMachine<Counter>) -> u64 {
    node.query(Question::Count, Consistency::Linearizable).unwrap()
}

/// Which one cannot apply depends on who learns first that it is committed: without the others the last may never learn it.
fn first_stopped(nodes: &[BlockingMachine<Counter>]) -> &BlockingMachine<Counter> {
    let stopped = || nodes.iter().find(|node| node.status().stopped.is_some());
    eventually("a node to stop", || stopped().is_some());
    stopped().unwrap()
}

fn again(dir: &Path, first: &Config) -> Vec<Config> {
    let config = |id| {
        let (key, peers) = (first.cluster_key.clone(), first.peers.clone());
        Config::new(id, dir.join(format!("n{id}")), key, peers)
    };
    (1..=3).map(config).collect()
}

#[test]
fn what_is_applied_through_any_node_is_seen_through_any_other_also_after_a_restart() {
    let scratch = Scratch::new();
    let configs = Config::loopback(3, scratch.path()).unwrap();
    let restart = again(scratch.path(), &configs[0]);
    let nodes = counters(configs);
    let mut sum = 0;
    for n in 1..=30 {
        let at = n as usize % 3;
        sum += n;
        let done = nodes[at].apply(Step::Add(n)).unwrap();
        assert_eq!((done.output, done.index), (sum, n));
        assert_eq!(count(&nodes[(at + 1) % 3]), sum);
    }
    nodes.iter().for_each(|node| node.shutdown().unwrap());
    let nodes = counters(restart);
    for node in &nodes {
        assert_eq!(count(node), sum, "the log is applied again");
    }
    let done = nodes[1].apply(Step::Add(1)).unwrap();
    assert_eq!((done.output, done.index), (sum + 1, 31));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}

/// A snapshot after every ten commands, and nothing of the log before it kept.
fn often(mut config: Config) -> Config {
    config.snapshots.entries = Some(10);
    config.snapshots.keep_bytes = 0;
    config
}

/// How many commands the machine of a node was given in this life of it.
fn applied(node: &BlockingMachine<Counter>) -> u64 {
    node.query(Question::Applied, Consistency::STALE).unwrap()
}

fn covered(node: &BlockingMachine<Counter>) -> u64 {
    node.status().snapshot.map_or(0, |snapshot| snapshot.index)
}

#[test]
fn after_a_restart_only_what_is_behind_the_snapshot_is_applied_again() {
    let scratch = Scratch::new();
    let configs = Config::loopback(3, scratch.path()).unwrap();
    let restart = again(scratch.path(), &configs[0]);
    let nodes = counters(configs.into_iter().map(often).collect());
    for n in 1..=100 {
        nodes[n as usize % 3].apply(Step::Add(n)).unwrap();
    }
    eventually("a snapshot on every node", || {
        nodes.iter().all(|node| covered(node) >= 50)
    });
    nodes.iter().for_each(|node| node.shutdown().unwrap());
    let nodes = counters(restart.into_iter().map(often).collect());
    for node in &nodes {
        assert_eq!(count(node), 5050);
        assert!(applied(node) <= 50, "{} commands again", applied(node));
    }
    let done = nodes[1].apply(Step::Add(1)).unwrap();
    assert_eq!((done.output, done.index), (5051, 101));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}

#[test]
fn who_was_away_while_the_log_was_forgotten_takes_over_a_snapshot() {
    let scratch = Scratch::new();
    let configs = Config::loopback(3, scratch.path()).unwrap();
    let mut restart = again(scratch.path(), &configs[0]);
    let mut nodes = counters(configs.into_iter().map(often).collect());
    nodes[0].apply(Step::Add(1)).unwrap();
    let last = nodes.pop().unwrap();
    last.shutdown().unwrap();
    for _ in 0..100 {
        nodes[0].apply(Step::Add(1)).unwrap();
    }
    eventually("the others to have forgotten the beginning", || {
        nodes.iter().all(|node| covered(node) >= 50)
    });
    let last = start(often(restart.pop().unwrap()), Counter::default());
    last.wait_ready(PATIENCE).unwrap();
    assert_eq!(count(&last), 101);
    assert!(applied(&last) <= 51, "{} commands", applied(&last));
    assert!(covered(&last) >= 50);
    let done = last.apply(Step::Add(1)).unwrap();
    assert_eq!((done.output, done.index), (102, 102));
    nodes.push(last);
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}

#[test]
fn many_at_once_are_each_applied_and_answered() {
    let nodes = counters(Config::in_memory(3).unwrap());
    let mut outputs: Vec<u64> = std::thread::scope(|scope| {
        let client = |node: &BlockingMachine<Counter>| {
            let node = node.clone();
            scope.spawn(move || -> Vec<u64> {
                (0..100)
                    .map(|_| node.apply(Step::Add(1)).unwrap().output)
                    .collect()
            })
        };
        let clients: Vec<_> = nodes.iter().cycle().take(6).map(client).collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    outputs.sort_unstable();
    assert_eq!(outputs, (1..=600).collect::<Vec<_>>());
    let stale = || {
        nodes[2]
            .query(Question::Count, Consistency::STALE)
            .is_ok_and(|n| n == 600)
    };
    eventually("a follower to apply everything", stale);
    let last = nodes[0].apply(Step::Add(1)).unwrap();
    for node in &nodes {
        let count = |consistency| node.query(Question::Count, consistency).unwrap();
        assert_eq!(count(Consistency::AtLeast(last.index)), 601);
        assert_eq!(count(Consistency::Session), 601);
        assert_eq!((count(Consistency::Lease), node.seen()), (601, last.index));
    }
}

#[test]
fn commands_given_together_are_applied_together() {
    let nodes = counters(Config::in_memory(3).unwrap());
    for (node, commands) in nodes.iter().zip([0, 1, 3]) {
        let done = node.apply_all(&vec![Step::Add(1); commands]).unwrap();
        assert_eq!(done.len(), commands);
    }
    let done = nodes[1].apply_all(&[Step::Add(10), Step::Add(20)]).unwrap();
    let done: Vec<_> = done.iter().map(|done| (done.index, done.output)).collect();
    assert_eq!(done, [(5, 14), (6, 34)]);
}

#[test]
fn a_command_that_panics_stops_the_nodes_by_name_and_not_the_program() {
    let nodes = counters(Config::in_memory(3).unwrap());
    nodes[0].apply(Step::Add(1)).unwrap();
    nodes[0].apply(Step::Add(1)).unwrap();
    let error = nodes[0].apply(Step::Panic).unwrap_err();
    assert_eq!(error.code(), Code::UnknownOutcome, "{error}");
    let node = first_stopped(&nodes);
    let why = node.stopped();
    assert!(
        why.contains("entry 3") && why.contains("a test wants a panic"),
        "{why}"
    );
    let status = node.status();
    assert_eq!((status.role, status.stopped.as_ref()), (Role::Fatal, Some(&why)));
    assert_eq!(node.apply(Step::Add(1)).unwrap_err(), Error::Stopped(why.clone()));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
    assert_eq!(node.stopped(), why, "the first reason stays");
}

#[test]
fn the_sender_of_a_command_that_panics_hears_the_panic() {
    let nodes = counters(Config::in_memory(1).unwrap());
    let error = nodes[0].apply(Step::Panic).unwrap_err();
    assert_eq!(error.code(), Code::UnknownOutcome);
    assert!(error.to_string().contains("a test wants a panic"), "{error}");
    let error = nodes[0].apply(Step::Add(1)).unwrap_err();
    assert!(error.to_string().contains("a test wants a panic"), "{error}");
    nodes[0].shutdown().unwrap();
}

#[test]
fn a_command_is_applied_once_under_a_key_whichever_node_is_asked() {
    let nodes = counters(Config::in_memory(3).unwrap());
    let session = nodes[0].open_session().unwrap();
    let key = SessionKey::new(session.id, 1);
    let first = nodes[0].apply_in(key, Step::Add(5)).unwrap();
    for node in &nodes {
        let again = node.apply_in(key, Step::Add(5)).unwrap();
        assert_eq!(again, first);
        assert_eq!(count(node), 5);
    }
    let several = [Step::Add(1), Step::Add(2)];
    let key = SessionKey::new(session.id, 2);
    let first = nodes[1].apply_all_in(key, &several).unwrap();
    assert_eq!(nodes[2].apply_all_in(key, &several).unwrap(), first);
    assert_eq!((first[1].output, count(&nodes[0])), (8, 8));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}

#[test]
fn a_corrected_program_goes_on_from_there() {
    struct Corrected(Counter);

    impl StateMachine for Corrected {
        type Command = Step;
        type Output = u64;
        type Query = Question;
        type Answer = u64;

        fn apply(&mut self, at: &At, step: Step) -> u64 {
            match step {
                Step::Add(_) => self.0.apply(at, step),
                Step::Panic => self.0.count,
            }
        }

        fn query(&self, question: Question) -> u64 {
            self.0.query(question)
        }
    }

    let scratch = Scratch::new();
    let configs = Config::loopback(3, scratch.path()).unwrap();
    let restart = again(scratch.path(), &configs[0]);
    let nodes = counters(configs);
    nodes[0].apply(Step::Add(5)).unwrap();
    nodes[0].apply(Step::Panic).unwrap_err();
    assert!(first_stopped(&nodes).stopped().contains("entry 2"));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
    let nodes: Vec<_> = restart
        .into_iter()
        .map(|config| start(config, Corrected(Counter::default())))
        .collect();
    let done = nodes[0].apply(Step::Add(2)).unwrap();
    assert_eq!((done.output, done.index), (7, 3));
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}

#[test]
fn a_query_that_panics_is_an_error_of_the_query_alone() {
    let nodes = counters(Config::in_memory(1).unwrap());
    nodes[0].apply(Step::Add(4)).unwrap();
    let error = nodes[0]
        .query(Question::Panic, Consistency::Linearizable)
        .unwrap_err();
    assert_eq!(error.code(), Code::Query);
    assert!(error.to_string().contains("a test asks for a panic"), "{error}");
    assert_eq!(count(&nodes[0]), 4);
}

#[test]
fn a_command_that_does_not_come_back_from_its_bytes_is_refused_where_it_is_asked() {
    let node = start(Config::in_memory(1).unwrap().remove(0), Nothing);
    let error = node.apply(Forgetful { kept: 9 }).unwrap_err();
    assert_eq!(error.code(), Code::NotRoundTrip);
    assert_eq!(node.status().last, 0);
}

#[test]
fn handles_go_everywhere() {
    fn anywhere<H: Clone + Send + Sync + 'static>() {}
    anywhere::<kontiki::MachineHandle<Counter>>();
    anywhere::<BlockingMachine<Counter>>();
    fn sent<F: Send + 'static>() {}
    sent::<kontiki::Apply<u64>>();
    sent::<kontiki::ApplyAll<u64>>();
    sent::<kontiki::Query<u64>>();
}
