//! Appends, reads, tails and status.

use crate::common::{PATIENCE, eventually, in_memory, in_memory_with, leader, shut_down, start};
use bytes::Bytes;
use kontiki::{
    BlockingHandle, Code, Config, Consistency, Error, Expect, LogOnly, Outcome, RaftNode, Raw, Role,
};
use serde::{Deserialize, Serialize};
use std::{thread, time::Duration};

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
enum Order {
    Buy { what: String, pieces: u32 },
    Cancel(u64),
}

fn values(node: &BlockingHandle<String>, from: u64) -> Vec<String> {
    let read = node.read(from.., Consistency::Linearizable).unwrap();
    read.entries.into_iter().map(|entry| entry.value).collect()
}

#[test]
fn any_node_takes_an_append_and_any_node_reads_it() {
    let nodes = in_memory::<Order>();
    let orders = [
        Order::Buy {
            what: "balsa".into(),
            pieces: 9,
        },
        Order::Cancel(1),
        Order::Cancel(2),
    ];
    for (at, order) in orders.iter().enumerate() {
        let appended = nodes[at].append(order).unwrap();
        assert_eq!((appended.first, appended.last), (at as u64 + 1, at as u64 + 1));
    }
    for node in &nodes {
        let read = node.read(2..10, Consistency::Linearizable).unwrap();
        assert_eq!(read.last_index, 3);
        let entries: Vec<_> = read
            .entries
            .into_iter()
            .map(|entry| (entry.index, entry.value))
            .collect();
        assert_eq!(entries, [(2, orders[1].clone()), (3, orders[2].clone())]);
    }
    shut_down(&nodes);
}

#[test]
fn a_batch_stands_together_and_indexes_have_no_holes() {
    let nodes = in_memory::<String>();
    let follower = &nodes[(leader(&nodes) + 1) % 3];
    follower.append("one".to_owned()).unwrap();
    let batch: Vec<String> = (2..=100).map(|n| n.to_string()).collect();
    let appended = follower.append_all(&batch).unwrap();
    assert_eq!((appended.first, appended.last), (2, 100));
    assert_eq!(follower.append("last".to_owned()).unwrap().first, 101);
    let all = values(follower, 1);
    assert_eq!((all.len(), &all[1..100]), (101, &batch[..]));
    assert_eq!(values(follower, 100), ["100", "last"]);
    assert_eq!(values(follower, 102), [""; 0]);
    shut_down(&nodes);
}

#[test]
fn an_append_may_depend_on_where_the_log_ends() {
    let nodes = in_memory::<String>();
    for node in &nodes {
        let end = node.read(1.., Consistency::Linearizable).unwrap().last_index;
        let expect = if end == 0 {
            Expect::Empty
        } else {
            Expect::Last {
                index: end,
                term: None,
            }
        };
        let appended = node.append_if(expect, &["x".to_owned()]).unwrap();
        let Err(missed) = node.append_if(expect, &["y".to_owned()]) else {
            panic!("appended behind another end")
        };
        assert_eq!(
            missed,
            Error::Mismatch {
                index: appended.last,
                term: appended.term
            }
        );
        assert_eq!(
            (missed.code(), missed.outcome()),
            (Code::Mismatch, Outcome::NotApplied)
        );
        // Without entries only the end is compared.
        let checked = node
            .append_if(
                Expect::Last {
                    index: appended.last,
                    term: Some(appended.term),
                },
                &[],
            )
            .unwrap();
        assert_eq!((checked.first, checked.last), (appended.last + 1, appended.last));
        let other_term = Expect::Last {
            index: appended.last,
            term: Some(appended.term + 1),
        };
        assert_eq!(
            node.append_if(other_term, &[]).unwrap_err().code(),
            Code::Mismatch
        );
    }
    assert_eq!(values(&nodes[0], 1), ["x"; 3]);
    shut_down(&nodes);
}

#[test]
fn a_tail_gives_what_is_there_and_then_what_comes() {
    let nodes = in_memory::<u64>();
    let follower = &nodes[(leader(&nodes) + 1) % 3];
    for n in 1..=3 {
        follower.append(n).unwrap();
    }
    let mut tail = follower.tail(2);
    let mut next = || {
        let entry = tail.next().unwrap().unwrap();
        (entry.index, entry.value)
    };
    assert_eq!((next(), next()), ((2, 2), (3, 3)));
    let writer = follower.clone();
    let writer = thread::spawn(move || {
        for n in 4..=2000 {
            writer.append(n).unwrap();
        }
    });
    (4..=2000).for_each(|n| assert_eq!(next(), (n, n)));
    writer.join().unwrap();
    let waiting = follower.clone();
    let waiting = thread::spawn(move || {
        let mut tail = waiting.tail(2001);
        (tail.next(), tail.next())
    });
    thread::sleep(Duration::from_millis(20));
    shut_down(&nodes);
    let (last, after) = waiting.join().unwrap();
    assert!(matches!(last, Some(Err(Error::Stopped(_)))), "{last:?}");
    assert!(after.is_none());
}

#[test]
fn a_tail_takes_no_more_than_its_reader_and_misses_nothing() {
    let nodes = in_memory::<Raw>();
    let entry = |n: u64| Raw(Bytes::from(n.to_le_bytes().repeat(4096)));
    let mut tail = nodes[0].tail(1);
    // Far more than a tail reads ahead, in records larger and smaller than that.
    for n in (0..200).step_by(20) {
        let batch: Vec<Raw> = (n..n + 20).map(entry).collect();
        nodes[0].append_all(&batch).unwrap();
    }
    for n in 0..200 {
        let next = tail.next().unwrap().unwrap();
        assert_eq!((next.index, next.value), (n + 1, entry(n)));
    }
    shut_down(&nodes);
}

#[test]
fn status_tells_role_leader_and_ends() {
    let nodes = in_memory::<String>();
    nodes[0].append_all(&["a".to_owned(), "b".to_owned()]).unwrap();
    let leading = leader(&nodes);
    for (at, node) in nodes.iter().enumerate() {
        eventually("commit at every node", || node.status().commit == 2);
        let status = node.status();
        assert_eq!(
            (status.node, status.last, status.leader),
            (at as u64 + 1, 2, Some(leading as u64 + 1))
        );
        assert_eq!(status.role == Role::Leader, at == leading);
        assert_eq!((status.voters, status.stopped), (vec![1, 2, 3], None));
        assert!(status.raft_commit >= 3 && status.raft_index >= status.raft_commit);
        assert_eq!(status.peers.len(), 2);
        assert_eq!(
            status.peers.iter().all(|peer| peer.matched.is_some()),
            at == leading
        );
    }
    shut_down(&nodes);
}

#[test]
fn a_leader_that_is_frozen_is_replaced_and_learns_of_it() {
    let nodes = in_memory::<String>();
    nodes[0].append("before".to_owned()).unwrap();
    let old = leader(&nodes);
    nodes[old].handle().pause(true);
    let other = &nodes[(old + 1) % 3];
    // The others may still believe in it for a moment.
    eventually("another leader", || {
        other.status().leader.is_some_and(|id| id != old as u64 + 1)
    });
    other.append("meanwhile".to_owned()).unwrap();
    nodes[old].handle().pause(false);
    assert_eq!(values(&nodes[old], 1), ["before", "meanwhile"]);
    shut_down(&nodes);
}

#[test]
fn pausing_answers_those_who_wait() {
    let nodes = in_memory::<String>();
    let node = nodes[0].clone();
    let waiting = thread::spawn(move || node.tail(1).next());
    thread::sleep(Duration::from_millis(20));
    nodes[0].handle().pause(true);
    let last = waiting.join().unwrap();
    assert!(matches!(last, Some(Err(Error::Stopped(_)))), "{last:?}");
    shut_down(&nodes);
}

#[test]
fn shutting_down_answers_everyone_and_can_be_done_again() {
    let nodes = in_memory::<String>();
    let node = &nodes[leader(&nodes)];
    // Without a majority nothing can be committed.
    nodes
        .iter()
        .filter(|other| other.status().node != node.status().node)
        .for_each(|other| other.abort().unwrap());
    let (appending, tailing) = (node.clone(), node.clone());
    let append = thread::spawn(move || appending.append("x".to_owned()));
    let tail = thread::spawn(move || tailing.tail(1).next());
    thread::sleep(Duration::from_millis(50));
    node.shutdown().unwrap();
    let error = append.join().unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Unknown(_) | Error::Stopped(_) | Error::NoLeader),
        "{error:?}"
    );
    assert!(matches!(tail.join().unwrap(), Some(Err(Error::Stopped(_)))));
    node.shutdown().unwrap();
    assert_eq!(node.status().role, Role::Stopped);
    assert!(node.status().stopped.is_some_and(|why| node.stopped() == why));
    assert_eq!(node.append("y".to_owned()).unwrap_err().code(), Code::Stopped);
    shut_down(&nodes);
}

#[test]
fn dropping_the_last_handle_stops_the_node() {
    let mut nodes = in_memory::<String>();
    let mut tail = nodes[0].tail(1);
    let dropped = nodes.remove(1);
    let id = dropped.status().node;
    drop(dropped);
    eventually("the others to see it gone", || {
        nodes[0]
            .status()
            .peers
            .iter()
            .any(|peer| peer.id == id && !peer.connected)
    });
    // A tail is as good as a handle.
    nodes[1].append("still".to_owned()).unwrap();
    drop(nodes.remove(0));
    assert_eq!(tail.next().unwrap().unwrap().value, "still");
    shut_down(&nodes);
}

#[test]
fn without_a_majority_nothing_is_confirmed_and_nothing_guessed() {
    let nodes = in_memory::<String>();
    nodes[0].append("one".to_owned()).unwrap();
    eventually("commit at node 1", || nodes[0].status().commit == 1);
    nodes[1..].iter().for_each(|node| node.abort().unwrap());
    let hasty = nodes[0].with_timeout(Duration::from_millis(700));
    let error = hasty.append("two".to_owned()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unknown(_) | Error::NoLeader | Error::NotLeader { .. }
        ),
        "{error:?}"
    );
    let error = hasty.read(1.., Consistency::Linearizable).unwrap_err();
    assert!(matches!(error, Error::Timeout | Error::NoLeader), "{error:?}");
    let read = nodes[0].read(1..2, Consistency::STALE).unwrap();
    assert_eq!(read.entries[0].value, "one");
    shut_down(&nodes);
}

#[test]
fn an_append_goes_on_when_its_future_is_dropped() {
    let nodes = in_memory::<String>();
    drop(nodes[0].handle().append("dropped".to_owned()));
    eventually("the entry", || values(&nodes[1], 1) == ["dropped"]);
    shut_down(&nodes);
}

#[test]
fn whoever_is_answered_sees_it_in_the_status() {
    let nodes = in_memory::<String>();
    for n in 0..200 {
        let node = &nodes[n % 3];
        let appended = node.append(n.to_string()).unwrap();
        let commit = node.status().commit;
        assert!(commit >= appended.last, "{commit}, {appended:?}");
    }
    shut_down(&nodes);
}

#[test]
fn a_single_node_is_a_cluster_too() {
    let node = start::<String>(Config::in_memory(1).unwrap().remove(0));
    assert_eq!(node.append("alone".to_owned()).unwrap().first, 1);
    assert_eq!(values(&node, 1), ["alone"]);
    node.shutdown().unwrap();
}

#[test]
fn futures_run_on_an_executor() {
    let nodes = in_memory_with::<u64>(|_| {});
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for n in 0..64 {
            let handle = nodes[n % 3].handle().clone();
            tasks.push(tokio::spawn(async move {
                for k in 0..20 {
                    handle.append(n as u64 * 100 + k).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let ready = nodes[0].handle().wait_ready(PATIENCE).await.unwrap();
        assert!(ready.commit >= 1);
        let mut all: Vec<u64> = Vec::new();
        while all.len() < 64 * 20 {
            let read = nodes[1]
                .handle()
                .read(all.len() as u64 + 1.., Consistency::Linearizable)
                .await
                .unwrap();
            all.extend(read.entries.into_iter().map(|entry| entry.value));
        }
        for n in 0..64 {
            let of_one: Vec<u64> = all.iter().copied().filter(|v| v / 100 == n).collect();
            assert_eq!(
                of_one,
                (0..20).map(|k| n * 100 + k).collect::<Vec<_>>(),
                "an order of a task's own"
            );
        }
        for node in &nodes {
            node.handle().shutdown().await.unwrap();
        }
    });
}

#[test]
fn an_entry_of_another_type_is_an_error_of_the_read_and_no_more() {
    let configs = Config::in_memory(1).unwrap();
    let node = RaftNode::<LogOnly<(u8, u8)>>::new(configs.into_iter().next().unwrap())
        .unwrap()
        .start()
        .unwrap();
    let node = node.blocking();
    node.append((1, 2)).unwrap();
    assert_eq!(
        node.read(.., Consistency::Linearizable).unwrap().entries[0].value,
        (1, 2)
    );
    node.shutdown().unwrap();
}

#[test]
fn whoever_was_told_of_an_append_sees_it_on_every_node() {
    let nodes = in_memory_with::<String>(|config| config.lease_drift_ppm = Some(1000));
    let max_lag = Some(Duration::from_nanos(1));
    for round in 1..=20 {
        let at = nodes[round % 3].append(format!("entry {round}")).unwrap();
        assert_eq!(nodes[round % 3].seen(), at.last);
        for node in &nodes {
            let held = |consistency| node.read(at.first.., consistency).unwrap().entries.len();
            assert_eq!(held(Consistency::AtLeast(at.last)), 1);
            assert!(node.seen() >= at.last);
            assert_eq!(held(Consistency::Session), 1);
            assert_eq!(held(Consistency::Lease), 1);
            assert_eq!(held(Consistency::Stale { max_lag }), 1);
        }
    }
    let hasty = nodes[0].with_timeout(Duration::from_millis(50));
    let error = hasty.read(.., Consistency::AtLeast(21)).unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    shut_down(&nodes);
}
