//! Reads, tails and queries in masses, and what is left of them when nobody waits any more.

use crate::common::{PATIENCE, eventually, in_memory_with, shut_down};
use futures_core::Stream;
use kontiki::{At, Config, Consistency, Error, MachineHandle, RaftNode, Raw, StateMachine};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

#[test]
fn tails_and_reads_that_are_dropped_give_their_places_back() {
    let nodes = in_memory_with::<Raw>(|config| {
        // Room for 512 reads.
        config.entry_bytes_max = 64 << 10;
        config.batch_bytes_max = 64 << 10;
        config.in_flight_bytes_max = 128 << 10;
    });
    let mut context = Context::from_waker(Waker::noop());
    for node in &nodes {
        let patient = node.handle().with_timeout(Duration::from_secs(3_600));
        for _ in 0..2_000 {
            let mut tail = node.handle().tail(1_000);
            // Where too many are out for a moment it ends; what was dropped makes room soon.
            let _ = Pin::new(&mut tail).poll_next(&mut context);
            drop(patient.read(1..2, Consistency::AtLeast(1_000)));
        }
        let read = || node.read(1..2, Consistency::Linearizable);
        eventually("room for a read", || !matches!(read(), Err(Error::Overloaded)));
        // As many as there is room for, but for one that is asked meanwhile.
        eventually("room for all of them", || {
            let tails: Vec<_> = (0..500)
                .map(|_| {
                    let mut tail = node.handle().tail(1_000);
                    let pending = Pin::new(&mut tail).poll_next(&mut context).is_pending();
                    (tail, pending)
                })
                .collect();
            tails.iter().all(|(_, pending)| *pending)
        });
    }
    shut_down(&nodes);
}

/// Room for two answers, and hardly anything in memory.
fn tight(config: &mut Config) {
    config.entry_bytes_max = 16 << 10;
    config.batch_bytes_max = 64 << 10;
    config.in_flight_bytes_max = 128 << 10;
    config.read_bytes_max = 64 << 10;
    config.tail_bytes_max = 64 << 10;
}

#[test]
fn reads_from_disk_wait_for_room_until_earlier_answers_are_taken() {
    let nodes = in_memory_with::<Raw>(tight);
    for _ in 0..32 {
        nodes[0].append(Raw(vec![7; 16 << 10].into())).unwrap();
    }
    for node in &nodes {
        let wanted = || node.handle().read(1..=4, Consistency::AtLeast(32));
        let reads: Vec<_> = (0..100).map(|_| wanted()).collect();
        // One answer that is never taken, and others that are dropped in the middle.
        let (mut kept, mut read) = (Vec::new(), 0);
        for (n, future) in reads.into_iter().enumerate() {
            match n {
                0 => kept.push(future),
                _ if n % 10 == 3 => drop(future),
                _ => {
                    // On a busy machine it may come to its answer so late that others were given the room.
                    let mut answer = block_on(future);
                    while matches!(answer, Err(Error::Overloaded)) {
                        answer = block_on(wanted());
                    }
                    read += answer.unwrap().entries.len();
                }
            }
        }
        assert_eq!(
            read,
            89 * 3,
            "three of 16 KiB and their headers, and no fourth, each time"
        );
        drop(kept);
    }
    shut_down(&nodes);
}

#[test]
fn whoever_takes_no_answers_does_not_keep_others_from_theirs() {
    let nodes = in_memory_with::<Raw>(tight);
    for _ in 0..32 {
        nodes[0].append(Raw(vec![7; 16 << 10].into())).unwrap();
    }
    for node in &nodes[..2] {
        let read = || node.handle().read(1..=4, Consistency::AtLeast(32));
        let untaken: Vec<_> = (0..8).map(|_| read()).collect();
        // It has the time for all of these to be given, and then taken away again.
        assert_eq!(block_on(read()).unwrap().entries.len(), 3);
        let lost = untaken.into_iter().map(block_on);
        let lost = lost.filter(|read| matches!(read, Err(Error::Overloaded))).count();
        assert!(lost > 0, "none had to go");
    }
    shut_down(&nodes);
}

/// Answers a query when it is let.
struct Gate {
    lets: Arc<Mutex<()>>,
    asked: Arc<AtomicUsize>,
}

impl StateMachine for Gate {
    type Command = u8;
    type Output = usize;
    type Query = u8;
    type Answer = u8;

    /// How many queries were begun before.
    fn apply(&mut self, _: &At, _: u8) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn query(&self, query: u8) -> u8 {
        self.asked.fetch_add(1, Ordering::SeqCst);
        drop(self.lets.lock().unwrap());
        query
    }
}

fn gate() -> (MachineHandle<Gate>, Arc<Mutex<()>>, Arc<AtomicUsize>) {
    let mut config = Config::in_memory(1).unwrap().remove(0);
    config.request_timeout = PATIENCE;
    let (lets, asked) = (Arc::default(), Arc::default());
    let machine = Gate {
        lets: Arc::clone(&lets),
        asked: Arc::clone(&asked),
    };
    let node = RaftNode::with_machine(config, machine).unwrap().start().unwrap();
    node.blocking().wait_ready(PATIENCE).unwrap();
    (node, lets, asked)
}

#[test]
fn queries_that_nobody_waits_for_are_not_carried_out_and_hold_up_no_command() {
    let (node, lets, asked) = gate();
    let closed = lets.lock().unwrap();
    let first = node.query(1, Consistency::STALE);
    eventually("the first query", || asked.load(Ordering::SeqCst) == 1);
    let dropped: Vec<_> = (0..300).map(|_| node.query(2, Consistency::STALE)).collect();
    drop(dropped);
    let hasty = node.with_timeout(Duration::from_millis(20)).blocking();
    for _ in 0..10 {
        assert_eq!(hasty.query(3, Consistency::STALE).unwrap_err(), Error::Timeout);
    }
    drop(closed);
    assert_eq!(node.blocking().apply(9).unwrap().output, 1);
    assert_eq!(block_on(first).unwrap(), 1);
    assert_eq!(node.blocking().query(4, Consistency::Linearizable).unwrap(), 4);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "the first and the last");
    node.blocking().shutdown().unwrap();
}

#[test]
fn a_command_passes_queries_that_wait() {
    let (node, lets, asked) = gate();
    // The session of the node is open from here on.
    node.blocking().apply(1).unwrap();
    let closed = lets.lock().unwrap();
    let queries: Vec<_> = (0..300).map(|_| node.query(2, Consistency::STALE)).collect();
    eventually("the first query", || asked.load(Ordering::SeqCst) == 1);
    let before = node.status().raft_commit;
    let apply = node.apply(9);
    // From then on it waits for the machine.
    eventually("the command to be committed", || {
        node.status().raft_commit > before
    });
    drop(closed);
    let before = block_on(apply).unwrap().output;
    assert!(before < 10, "{before} queries were begun before the command");
    for query in queries {
        assert_eq!(block_on(query).unwrap(), 2);
    }
    node.blocking().shutdown().unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}
