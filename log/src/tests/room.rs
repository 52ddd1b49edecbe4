//! Disks without room, disks that fail, and writes that wait.

use super::disk::{Crash, TestDisk};
use super::model::{GROUP, Node, entries, made};
use crate::LogEvent;
use kontiki_consensus::{Write, WriteId};

fn node() -> Node {
    let disk = TestDisk::new(2);
    made(&disk);
    let mut node = Node::new(disk);
    node.settle();
    node
}

#[test]
fn everything_that_waits_is_one_write() {
    let mut node = node();
    let before = node.disk.writes();
    for _ in 0..10 {
        node.append(&[100]);
    }
    node.settle();
    assert!(node.is_settled());
    assert_eq!(
        node.disk.writes() - before,
        2,
        "the first, and all that came meanwhile"
    );
}

#[test]
fn a_vote_behind_records_is_not_written_before_them() {
    let mut node = node();
    let before = node.disk.writes();
    node.append(&[100]);
    node.append(&[100]);
    node.vote(7, Some(1));
    node.append(&[100]);
    node.settle();
    assert_eq!(
        node.disk.writes() - before,
        3,
        "one; records; the vote and what came after it"
    );
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.written.hard_state.term.0, 7);
}

#[test]
fn a_full_disk_is_said_once_and_again_when_it_has_room() {
    let mut node = node();
    node.disk.set_full(true);
    while !node.full {
        node.append(&[1000]);
        node.settle();
    }
    assert!(node.is_settled(), "there still is room for more");
    for _ in 0..5 {
        node.settle();
    }
    node.disk.set_full(false);
    node.settle();
    node.settle();
    assert!(!node.full);
}

#[test]
fn terms_and_votes_fit_while_records_wait_and_nothing_overtakes() {
    let mut node = node();
    node.disk.set_full(true);
    while !node.full {
        node.append(&[5000]);
        node.settle();
    }
    // A follower goes on taking records until they fit no more.
    while node.is_settled() {
        node.append(&[5000]);
        node.settle();
    }
    let waiting = node.durable.clone();
    node.vote(50, Some(1));
    node.settle();
    assert_eq!(node.durable, waiting, "the vote is behind the records");
    node.disk.set_full(false);
    node.settle();
    node.settle();
    assert!(node.is_settled() && !node.full);
    node.check(3000);
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.written.hard_state.term.0, 50);
}

#[test]
fn a_leader_that_stops_at_once_can_still_vote_many_times() {
    let mut node = node();
    node.disk.set_full(true);
    while !node.full {
        node.append(&[2000]);
        node.settle();
    }
    for term in 1..40 {
        node.vote(term, Some(1));
        node.settle();
        assert!(node.is_settled(), "term {term}");
    }
    node.crash(Crash::LoseAll);
    node.reopen();
    node.settle();
    assert!(node.full, "it is said again in the next life");
    assert_eq!(node.written.hard_state.term.0, 39);
    node.vote(40, None);
    node.settle();
    assert!(node.is_settled());
}

#[test]
fn after_a_failed_write_nothing_is_told_any_more() {
    let mut node = node();
    node.append(&[100]);
    node.settle();
    node.disk.break_writes();
    node.append(&[100]);
    node.append(&[100]);
    node.settle();
    assert!(node.failed.is_some() && !node.is_settled());
    let writes = node.disk.writes();
    node.append(&[100]);
    node.settle();
    assert_eq!(node.disk.writes(), writes);
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.last(), 2);
}

#[test]
fn large_writes_are_cut_between_records() {
    let mut node = node();
    node.append(&[
        10_000, 10_000, 10_000, 10_000, 30_000, 100, 16_000, 16_000, 16_000,
    ]);
    node.settle();
    assert!(node.is_settled());
    node.check(20_000);
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(20_000);
}

#[test]
fn what_does_not_follow_or_does_not_fit_is_refused_and_stops_the_log() {
    let write = |truncate: Option<u64>, runs| Write {
        install: None,
        purge: None,
        id: WriteId(1),
        hard_state: None,
        truncate: truncate.map(kontiki_consensus::Index),
        runs,
    };
    let cases = [
        (write(None, vec![entries(3, 1, 1, &[1])]), "comes after"),
        (
            write(None, vec![entries(2, 1, 1, &[1]), entries(2, 1, 1, &[1])]),
            "comes after",
        ),
        (write(Some(3), vec![entries(3, 1, 1, &[1])]), "removes"),
        (write(Some(1), Vec::new()), "removes"),
        (write(None, vec![entries(2, 1, 1, &[5, 32_768])]), "segment_bytes"),
    ];
    for (write, expected) in cases {
        let mut node = node();
        let log = node.log.as_mut().expect("up");
        log.persist(GROUP, write);
        match log.poll() {
            Some(LogEvent::Failed(error)) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}
