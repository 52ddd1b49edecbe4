//! What is appended or applied takes effect once, whoever dies meanwhile.

use crate::common::{PATIENCE, eventually, in_memory_with, leader, shut_down};
use kontiki::{
    At, BlockingHandle, BlockingMachine, Code, Config, Consistency, Expect, Outcome, RaftNode, Role,
    StateMachine,
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

fn values(node: &BlockingHandle<String>) -> Vec<String> {
    let mut values = Vec::new();
    loop {
        let read = node
            .read(values.len() as u64 + 1.., Consistency::Linearizable)
            .unwrap();
        values.extend(read.entries.into_iter().map(|entry| entry.value));
        if values.len() as u64 == read.last_index {
            return values;
        }
    }
}

/// Each of these once, and nothing else.
fn once(values: Vec<String>, threads: u64, each: u64) {
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    values
        .into_iter()
        .for_each(|value| *times.entry(value).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    for name in (0..threads).flat_map(|t| (0..each).map(move |n| format!("{t}/{n}"))) {
        assert!(times.remove(&name).is_some(), "{name} is missing");
    }
    assert!(times.is_empty(), "{times:?}");
}

#[test]
fn every_append_gets_through_once_though_its_leader_is_aborted() {
    const THREADS: u64 = 8;
    const EACH: u64 = 150;
    let nodes = in_memory_with::<String>(|_| {});
    let old = leader(&nodes);
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for t in 0..THREADS {
            let (node, done) = (nodes[(old + 1 + t as usize % 2) % 3].clone(), &done);
            scope.spawn(move || {
                for n in 0..EACH {
                    node.append(format!("{t}/{n}")).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("some of them", || {
            done.load(Ordering::Relaxed) > THREADS * EACH / 4
        });
        nodes[old].abort().unwrap();
    });
    once(values(&nodes[(old + 1) % 3]), THREADS, EACH);
    shut_down(&nodes);
}

#[test]
fn comparisons_get_through_once_though_the_leader_is_aborted() {
    let nodes = in_memory_with::<String>(|_| {});
    let old = leader(&nodes);
    let node = &nodes[(old + 1) % 3];
    for n in 0..100u64 {
        let expect = Expect::Last { index: n, term: None };
        let abort = (n == 50).then(|| {
            let leader = nodes[old].clone();
            thread::spawn(move || leader.abort().unwrap())
        });
        let appended = node.append_if(expect, &[format!("0/{n}")]).unwrap();
        assert_eq!(appended.first, n + 1);
        if let Some(abort) = abort {
            abort.join().unwrap();
        }
    }
    once(values(node), 1, 100);
    shut_down(&nodes);
}

#[test]
fn a_session_that_was_silent_for_too_long_is_followed_by_another() {
    let nodes = in_memory_with::<String>(|config| config.session_ttl = Duration::from_secs(1));
    let node = &nodes[(leader(&nodes) + 1) % 3];
    // On a machine that stands still meanwhile each append may need a session of its own.
    let mut count = 0;
    eventually("two appends in the same session", || {
        let before = node.status().raft_index;
        node.append(format!("0/{count}")).unwrap();
        count += 1;
        count > 1 && node.status().raft_index == before + 1
    });
    let raft_index = node.status().raft_index;
    // The clock of the cluster goes by whole seconds.
    thread::sleep(Duration::from_millis(3100));
    let clones: Vec<_> = (count..count + 18).map(|n| (n, node.clone())).collect();
    let append = |(n, node): (u64, BlockingHandle<String>)| {
        thread::spawn(move || node.append(format!("0/{n}")).unwrap())
    };
    let appending: Vec<_> = clones.into_iter().map(append).collect();
    for append in appending {
        append.join().unwrap();
    }
    assert!(
        node.status().raft_index > raft_index + 18,
        "{raft_index}, {:?}",
        node.status()
    );
    once(values(node), 1, count + 18);
    shut_down(&nodes);
}

#[test]
fn without_sessions_nothing_is_opened() {
    // A new leader puts a record of its own into the log: then it is tried anew.
    eventually("an append without a change of leader", || {
        let nodes = in_memory_with::<String>(|config| config.sessions = false);
        let node = &nodes[leader(&nodes)];
        let before = node.status();
        node.append("x".to_owned()).unwrap();
        let after = node.status();
        shut_down(&nodes);
        let same = after.term == before.term;
        assert!(!same || after.raft_index == before.raft_index + 1, "{after:?}");
        same
    });
}

#[test]
fn what_could_not_be_sent_certainly_did_not_take_effect() {
    let nodes = in_memory_with::<String>(|_| {});
    nodes[1..].iter().for_each(|node| node.abort().unwrap());
    eventually("a node that neither leads nor knows a leader", || {
        let status = nodes[0].status();
        status.role != Role::Leader && status.leader.is_none()
    });
    let hasty = nodes[0].with_timeout(Duration::from_millis(300));
    let error = hasty.append("x".to_owned()).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::NoLeader, Outcome::NotApplied)
    );
    let waiting = nodes[0].clone();
    let waiting = thread::spawn(move || waiting.append("y".to_owned()));
    thread::sleep(Duration::from_millis(20));
    nodes[0].handle().pause(true);
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Stopped, Outcome::NotApplied)
    );
    shut_down(&nodes);
}

/// Gives back how often it was asked to apply.
struct Count(u64);

impl StateMachine for Count {
    type Command = String;
    type Output = (u64, String);
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &At, command: String) -> (u64, String) {
        self.0 += 1;
        (self.0, command)
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

#[test]
fn every_command_is_applied_once_and_gives_its_output_though_the_leader_is_aborted() {
    const EACH: u64 = 100;
    let start = |mut config: Config| {
        config.request_timeout = PATIENCE;
        RaftNode::with_machine(config, Count(0))
            .unwrap()
            .start()
            .unwrap()
            .blocking()
    };
    let nodes: Vec<BlockingMachine<Count>> = Config::in_memory(3).unwrap().into_iter().map(start).collect();
    nodes
        .iter()
        .for_each(|node| drop(node.wait_ready(PATIENCE).unwrap()));
    let mut old = None;
    eventually("a leader", || {
        old = nodes.iter().position(|node| node.status().role == Role::Leader);
        old.is_some()
    });
    let old = old.unwrap();
    let mut outputs = Vec::new();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..4u64)
            .map(|t| {
                let node = nodes[(old + 1) % 3].clone();
                scope.spawn(move || {
                    let apply = |n| {
                        let command = format!("{t}/{n}");
                        let (count, echo) = node.apply(command.clone()).unwrap().output;
                        assert_eq!(echo, command);
                        count
                    };
                    (0..EACH).map(apply).collect::<Vec<_>>()
                })
            })
            .collect();
        eventually("some of them", || nodes[(old + 1) % 3].status().commit > EACH);
        nodes[old].abort().unwrap();
        asking
            .into_iter()
            .for_each(|asking| outputs.extend(asking.join().unwrap()));
    });
    outputs.sort_unstable();
    assert_eq!(outputs, (1..=4 * EACH).collect::<Vec<_>>());
    assert_eq!(
        nodes[(old + 1) % 3].query((), Consistency::Linearizable).unwrap(),
        4 * EACH
    );
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}
