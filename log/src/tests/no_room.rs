//! A disk that has no room for anything, from any operation on: nothing is acknowledged that is not there, nothing ends, and
//! once there is room all goes on.

use super::disk::{Crash, TestDisk};
use super::model::{Node, made};
use super::snapshots::{LAST, events, fresh, header, is_whole, log, transfer, write};
use crate::{Log, LogEvent, SnapshotEvent};
use bytes::Bytes;
use kontiki_consensus::{Base, Index, LogId, Term};
use kontiki_wire::snapshot::SnapshotHeader;

/// What the log is asked without room, of snapshots.
fn ask(log: &mut Log<TestDisk>, bytes: &Bytes) {
    log.keep_note(header(b"note"));
    log.begin_snapshot(other(5));
    log.snapshot_piece(Bytes::from_static(b"state"));
    log.end_snapshot();
    log.receive_snapshot(LAST);
    log.snapshot_received(LAST, 0, bytes);
    told(log);
    log.snapshot_received(LAST, 0, bytes);
    log.keep_note(other(6));
    log.begin_snapshot(other(7));
    told(log);
    log.snapshot_piece(Bytes::from_static(b"more"));
    told(log);
    log.abandon_snapshot();
    log.stop_receiving();
    log.remove_snapshot(LAST);
    log.remove_snapshot(id(5));
    told(log);
}

fn id(index: u64) -> LogId {
    LogId::new(Term(0), Index(index))
}

fn other(index: u64) -> SnapshotHeader {
    let base = header(b"").base;
    SnapshotHeader {
        base: Base {
            last: id(index),
            ..base
        },
        ..header(b"other")
    }
}

/// What the log says, which is never that it has failed.
fn told(log: &mut Log<TestDisk>) -> Vec<LogEvent> {
    let all: Vec<LogEvent> = std::iter::from_fn(|| log.poll()).collect();
    let failed = all.iter().find(|e| matches!(e, LogEvent::Failed(_)));
    assert!(failed.is_none(), "{failed:?}");
    all
}

#[test]
fn snapshots_and_notes_without_room_at_any_operation_end_nothing() {
    let ours = fresh(1);
    let mut from = log(&ours);
    write(&mut from, b"meta");
    let name = ours.names().into_iter().find(|n| n.ends_with(".snap"));
    let bytes = Bytes::from(ours.content(&name.expect("a snapshot")));
    for (after, lasting) in (0..60).flat_map(|after| [(after, true), (after, false)]) {
        let disk = fresh(2);
        let mut node = log(&disk);
        told(&mut node);
        disk.refuse_after(Some(after));
        ask(&mut node, &bytes);
        if !lasting {
            disk.refuse_after(None);
        }
        ask(&mut node, &bytes);
        disk.refuse_after(None);
        told(&mut node);
        // Then each of them is possible.
        let got = transfer(&mut node, &mut from, 999);
        assert!(
            matches!(got.last(), Some(SnapshotEvent::Staged(_))),
            "{after}: {got:?}"
        );
        is_whole(&mut node, b"meta");
        for index in [5, 7] {
            node.begin_snapshot(other(index));
            node.snapshot_piece(Bytes::from_static(b"state"));
            node.end_snapshot();
            let got = events(&mut node);
            assert!(
                matches!(got.last(), Some(SnapshotEvent::Written(_))),
                "{after}: {got:?}"
            );
        }
        node.keep_note(other(8));
        told(&mut node);
        drop(node);
        disk.crash(Crash::LoseAll);
        let (mut node, found) = super::model::open(&disk).expect("opened");
        assert_eq!(found.note, Some(other(8)), "{after}");
        assert_eq!(found.snapshots.len(), 3, "{after}");
        is_whole(&mut node, b"meta");
    }
}

#[test]
fn a_note_without_room_leaves_the_one_before() {
    // To make it, write it, name it, and make that durable.
    for after in 0..4 {
        let disk = fresh(1);
        let mut node = log(&disk);
        node.keep_note(other(5));
        told(&mut node);
        disk.refuse_after(Some(after));
        node.keep_note(other(6));
        told(&mut node);
        drop(node);
        disk.refuse_after(None);
        disk.crash(Crash::LoseAll);
        let (_, found) = super::model::open(&disk).expect("opened");
        assert_eq!(found.note, Some(other(5)), "{after}");
    }
}

/// A log that grows, forgets and uses its segments again.
fn live(node: &mut Node) {
    for _ in 0..3 {
        node.append(&[9_000, 40]);
        node.settle();
        node.vote(node.written.hard_state.term.0 + 1, Some(1));
        node.settle();
    }
    if node.is_settled() {
        node.purge(node.last() - 2, vec![]);
    }
    node.settle();
}

#[test]
fn a_log_without_room_at_any_operation_ends_nothing_and_goes_on() {
    let disk = TestDisk::new(3);
    made(&disk);
    let mut begun = Node::new(disk);
    (0..9).for_each(|_| live(&mut begun));
    assert!(begun.log.as_ref().expect("up").segments_recycled() > 0);
    for after in 0..70 {
        for crash in [None, Some(Crash::LoseAll), Some(Crash::Kill), Some(Crash::Torn)] {
            let mut node = begun.twin(begun.disk.copy());
            node.crash(Crash::KeepAll);
            node.disk.reseed(after);
            node.reopen();
            node.settle();
            node.disk.refuse_after(Some(after));
            for _ in 0..12 {
                if !node.full {
                    live(&mut node);
                }
                node.retry_room();
                node.settle();
                assert_eq!(node.failed, None, "{after}");
            }
            if let Some(crash) = crash {
                node.disk.refuse_after(None);
                node.crash(crash);
                node.reopen();
                node.check(40_000);
            }
            node.disk.refuse_after(None);
            node.retry_room();
            node.settle();
            assert!(!node.full && node.is_settled(), "{after}");
            (0..4).for_each(|_| live(&mut node));
            assert!(node.is_settled() && node.failed.is_none());
            node.check(40_000);
            node.crash(Crash::LoseAll);
            node.reopen();
            assert_eq!(node.torn_bytes, 0);
            node.check(40_000);
        }
    }
}
