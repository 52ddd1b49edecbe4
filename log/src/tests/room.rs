//! Disks without room, disks that fail, and writes that wait.

use super::disk::{Crash, TestDisk};
use super::model::{GROUP, Node, entries, made};
use crate::{From, LogEvent};
use kontiki_consensus::{Index, Run, Write, WriteId};

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

/// Each life is over before the next segment is made: it is made all the same.
#[test]
fn a_node_that_never_lives_for_long_makes_its_next_segment() {
    let disk = TestDisk::new(5);
    made(&disk);
    let mut node = Node::new(disk.clone());
    for life in 0..40 {
        if node.log.as_ref().expect("up").segment() > 3 {
            break;
        }
        for _ in 0..3 {
            node.append(&[3_000]);
            // The segment after the one in use is never done: it is the first operation of the log.
            while !node.is_settled() && node.turn() {}
        }
        node.crash(if life % 2 == 0 {
            Crash::Kill
        } else {
            Crash::KeepAll
        });
        node.reopen();
    }
    let made = node.disk.names().iter().filter(|n| n.contains("log/")).count() as u64;
    assert!(
        disk.filled() <= (made + 1) * (64 << 10),
        "{} bytes for {made} files",
        disk.filled()
    );
    node.check(10_000);
}

#[test]
fn what_an_interrupted_process_has_left_of_a_segment_is_gone_on_with() {
    let disk = TestDisk::new(6);
    made(&disk);
    let before = disk.filled();
    let name = "log/0000000000000002.new";
    disk.set_content(name, &[0; 60 << 10]);
    disk.set_content("log/0000000000000003.new", &[0; 60 << 10]);
    let mut node = Node::new(disk.clone());
    node.settle();
    assert_eq!(disk.filled() - before, 4 << 10);
    assert_eq!(
        disk.names(),
        ["log/0000000000000001.seg", "log/0000000000000002.seg"]
    );
    node.crash(Crash::LoseAll);
    // One that is longer than a segment is now is made anew.
    disk.remove("log/0000000000000002.seg");
    disk.set_content(name, &[0; 128 << 10]);
    node.reopen();
    node.settle();
    assert_eq!(disk.content("log/0000000000000002.seg").len(), 64 << 10);
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
    node.retry_room();
    node.settle();
    assert!(!node.full);
}

/// Each attempt takes the last room from whoever else needs some.
#[test]
fn a_full_disk_is_tried_when_that_is_asked_for_and_at_no_other_time() {
    let mut node = node();
    node.disk.set_full(true);
    while !node.full {
        node.append(&[1000]);
        node.settle();
    }
    let before = node.disk.operations();
    for _ in 0..100 {
        node.settle();
    }
    assert_eq!(node.disk.operations(), before);
    for tried in 1..=5 {
        node.retry_room();
        node.settle();
        assert_eq!(node.disk.operations(), before + tried);
    }
    // Records that do not fit ask for it no more often.
    while node.is_settled() {
        node.append(&[5000]);
        node.settle();
    }
    let before = node.disk.operations();
    for _ in 0..10 {
        node.append(&[10]);
        node.settle();
    }
    assert_eq!(node.disk.operations(), before);
    node.disk.set_full(false);
    node.retry_room();
    node.retry_room();
    node.settle();
    assert!(node.is_settled() && !node.full);
    let before = node.disk.operations();
    node.retry_room();
    assert_eq!(node.disk.operations(), before, "there is room already");
}

/// A quota, or a file system that writes names elsewhere than where they stood.
#[test]
fn room_may_lack_for_the_name_of_a_segment_too() {
    for after in 0..4 {
        let mut node = node();
        node.disk.set_names_full(Some(after));
        while !node.full {
            node.append(&[9000]);
            node.settle();
        }
        for again in 0..6 {
            node.disk.set_names_full(Some(again % 3));
            node.retry_room();
            node.settle();
            assert_eq!(node.failed, None);
        }
        node.disk.set_names_full(None);
        node.retry_room();
        node.settle();
        assert!(node.is_settled() && !node.full, "{after}");
        while node.disk.names().len() < 6 {
            node.append(&[9000]);
            node.settle();
        }
        node.check(20_000);
        node.crash(Crash::LoseAll);
        node.reopen();
        node.check(20_000);
    }
}

#[test]
fn nothing_is_said_of_room_after_a_failure() {
    for full in [true, false] {
        let disk = TestDisk::new(2);
        made(&disk);
        disk.set_full(true);
        let mut node = Node::new(disk);
        if !full {
            node.settle();
            node.disk.set_full(false);
            node.retry_room();
        }
        let wrong = Write {
            install: None,
            purge: None,
            id: WriteId(1),
            hard_state: None,
            truncate: None,
            runs: entries(7, 1, 1, &[1]).into(),
        };
        node.log.as_mut().expect("up").persist(GROUP, wrong);
        node.settle();
        assert!(node.failed.is_some());
        assert_eq!(node.full, !full, "it was said before, or never");
        let before = node.disk.operations();
        node.retry_room();
        assert_eq!(node.disk.operations(), before);
    }
}

#[test]
fn what_has_no_room_waits_and_nothing_overtakes_it() {
    let mut node = node();
    node.disk.set_full(true);
    while !node.full {
        node.append(&[5000]);
        node.settle();
    }
    // Consensus takes no more records in now; the log keeps their order even if it is given some.
    while node.is_settled() {
        node.append(&[5000]);
        node.settle();
    }
    let waiting = node.durable.clone();
    node.vote(50, Some(1));
    node.settle();
    assert_eq!(node.durable, waiting, "the vote is behind the records");
    node.disk.set_full(false);
    node.retry_room();
    node.settle();
    assert!(node.is_settled() && !node.full);
    node.check(3000);
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.written.hard_state.term.0, 50);
}

#[test]
fn a_node_that_takes_no_more_records_can_still_vote_many_times() {
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

/// The segment that has just become full may be the file that was used longest ago.
#[test]
fn a_segment_is_still_open_when_it_is_sealed_however_many_others_are_read() {
    let mut node = node();
    while node.disk.names().len() < 70 {
        node.append(&[9000]);
        node.settle();
    }
    node.crash(Crash::LoseAll);
    node.reopen();
    // A record out of each old segment: a follower that catches up, a reader from the beginning.
    for index in 1..node.last() - 12 {
        node.fetch(From::Index(Index(index)), Index(index), 1)
            .expect("read");
    }
    for _ in 0..8 {
        node.append(&[9000]);
        node.settle();
        assert_eq!(node.failed, None);
    }
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

/// Recovery takes what a removal leaves for the end, durable or not.
#[test]
fn what_follows_a_removal_follows_what_it_leaves() {
    for settled in [true, false] {
        for (from, term) in [(4, 1), (4, 2), (4, 3), (3, 0), (3, 1), (2, 0)] {
            let mut node = node();
            for index in 2..=5 {
                let run = entries(index, index - 1, index - 1, &[10]);
                node.write(None, None, vec![run]);
            }
            if settled {
                node.settle();
            }
            let run = entries(from, term, from - 1, &[10]);
            node.write(None, Some(from), vec![run]);
            node.settle();
            // The record before has this term.
            let before = from - 2;
            assert_eq!(node.failed.is_none(), term >= before, "term {term} at {from}");
        }
    }
}

#[test]
fn what_does_not_follow_or_does_not_fit_is_refused_and_stops_the_log() {
    let write = |truncate: Option<u64>, runs: Vec<Run>| Write {
        install: None,
        purge: None,
        id: WriteId(1),
        hard_state: None,
        truncate: truncate.map(Index),
        runs: runs.into(),
    };
    let cases = [
        (write(None, vec![entries(3, 1, 1, &[1])]), "comes after"),
        (
            write(None, vec![entries(2, 1, 1, &[1]), entries(2, 1, 1, &[1])]),
            "comes after",
        ),
        (write(Some(3), vec![entries(3, 1, 1, &[1])]), "removes"),
        (write(Some(0), vec![entries(1, 1, 1, &[1])]), "removes"),
        (write(Some(1), Vec::new()), "removes"),
        (write(None, vec![entries(2, 1, 3, &[1])]), "entry"),
        (
            write(None, vec![entries(2, 1, 1, &[1, 1]), entries(4, 1, 2, &[1])]),
            "entry",
        ),
        (
            write(None, vec![entries(2, 5, 1, &[1]), entries(3, 4, 2, &[1])]),
            "comes after one of",
        ),
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
