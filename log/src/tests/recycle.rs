//! Segments that are used again: old records lie behind the new ones, and none of them must ever be taken for one.

use super::compaction::segments;
use super::disk::{Crash, TestDisk};
use super::model::{CLUSTER, GROUP, NODE, Node, entries, made, options, salts};
use crate::{Fetch, From, Log, LogEvent, LogOptions};
use kontiki_consensus::{HardState, Index, NodeId, Term};

fn up(node: &Node) -> &Log<TestDisk> {
    node.log.as_ref().expect("up")
}

fn vote(node: &mut Node) {
    let term = Term(node.written.hard_state.term.0 + 1);
    let state = HardState {
        term,
        vote: Some(NodeId(1)),
        ..HardState::default()
    };
    node.write(Some(state), None, Vec::new());
    node.settle();
}

fn name(segment: u64) -> String {
    format!("log/{segment:016}.seg")
}

/// A node that forgets all but the newest records again and again.
fn recycling(turns: usize) -> Node {
    let disk = TestDisk::new(3);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..turns {
        for _ in 0..4 {
            node.append(&[9_000, 40]);
            node.settle();
        }
        node.purge(node.last() - 2, vec![]);
        node.settle();
    }
    node
}

#[test]
fn a_log_that_forgets_as_fast_as_it_grows_makes_no_more_files() {
    let mut node = recycling(40);
    let log = up(&node);
    assert!(log.segment() > 20);
    // All that were ever made: the first, the spare behind it, and what was begun before the first was forgotten.
    assert!(
        log.segment() - log.segments_recycled() < 5,
        "{} of {}",
        log.segments_recycled(),
        log.segment()
    );
    assert!(segments(&node).len() <= 5, "{:?}", segments(&node));
    node.check(4000);
    for crash in [Crash::LoseAll, Crash::Kill] {
        node.crash(crash);
        node.reopen();
        assert_eq!(node.torn_bytes, 0);
        node.check(4000);
    }
}

/// The node as it was before its last write, which was handed over; where that went, and that segment before and after.
fn interrupted(node: &mut Node) -> (Node, u64, Vec<u8>, Vec<u8>) {
    let mut down = node.twin(node.disk.copy());
    down.crash(Crash::LoseAll);
    node.settle();
    assert!(node.is_settled());
    let segment = up(node).segment();
    let content = |disk: &TestDisk| disk.content(&name(segment));
    let (before, after) = (content(&down.disk), content(&node.disk));
    assert!(before.iter().any(|b| *b != 0) && before != after);
    (down, segment, before, after)
}

/// What is left of a write if the sectors in `lost`, counted from the first it changed, did not reach the platter.
fn torn(before: &[u8], after: &[u8], lost: impl Fn(usize) -> bool) -> Vec<u8> {
    let changed = |n: &usize| before[n * 512..(n + 1) * 512] != after[n * 512..(n + 1) * 512];
    let first = (0..after.len() / 512).find(changed).expect("a change");
    let mut content = after.to_vec();
    for n in (first..after.len() / 512).filter(|n| lost(n - first)) {
        content[n * 512..(n + 1) * 512].copy_from_slice(&before[n * 512..(n + 1) * 512]);
    }
    content
}

#[test]
fn a_write_over_old_records_may_lack_any_of_its_sectors() {
    for first in [true, false] {
        let mut node = recycling(12);
        let (down, segment, before, after) = loop {
            let active = up(&node).segment();
            node.append(&[1000, 20, 900, 300, 9_000]);
            let found = interrupted(&mut node);
            if first == (found.1 > active) {
                break found;
            }
        };
        assert_ne!(after[1024..], before[1024..]);
        for lost in 0u32..1 << 7 {
            // The last one stands for all after it.
            let lose = |n: usize| lost & 1 << n.min(6) != 0;
            let mut node = down.twin(down.disk.copy());
            node.disk
                .set_content(&name(segment), &torn(&before, &after, lose));
            node.reopen();
            node.check(2000);
            node.append(&[300]);
            node.settle();
            node.crash(Crash::LoseAll);
            node.reopen();
            assert_eq!(node.torn_bytes, 0);
            node.check(2000);
        }
    }
}

/// A write that lost its end at any byte; no device does that, but nothing depends on it.
#[test]
fn a_write_over_old_records_may_end_at_any_byte() {
    let mut node = recycling(12);
    let active = up(&node).segment();
    while up(&node).segment() == active {
        vote(&mut node);
    }
    node.append(&[700, 20, 300]);
    let (down, segment, before, after) = interrupted(&mut node);
    let first = (0..after.len())
        .find(|n| before[*n] != after[*n])
        .expect("a change");
    let last = (0..after.len())
        .rfind(|n| before[*n] != after[*n])
        .expect("a change");
    for end in first..=last + 1 {
        let mut content = before.clone();
        content[..end].copy_from_slice(&after[..end]);
        let mut node = down.twin(down.disk.copy());
        node.disk.set_content(&name(segment), &content);
        node.reopen();
        node.check(2000);
    }
}

/// A record that was removed stands, sound, with the right index, where the one that was written did not arrive.
#[test]
fn an_old_record_in_the_very_place_of_a_new_one_is_not_taken_for_it() {
    let disk = TestDisk::new(1);
    made(&disk);
    let mut node = Node::new(disk);
    // Segment 1: record 1 at 512; a frame at 1024 and one at 4096, whose second record begins at a sector. A page that another
    // frame has begun holds nothing old.
    node.write(None, None, vec![entries(2, 8, 1, &[2748])]);
    node.settle();
    node.write(None, None, vec![entries(3, 8, 2, &[816, 3000])]);
    node.settle();
    while up(&node).segment() == 1 {
        vote(&mut node);
    }
    node.write(None, Some(2), vec![entries(2, 7, 1, &[10])]);
    node.settle();
    node.purge(1, vec![]);
    node.settle();
    assert_eq!(segments(&node), [name(2), name(3), name(4)]);
    while up(&node).segment() < 4 {
        vote(&mut node);
    }
    (0..6).for_each(|_| vote(&mut node));
    node.write(None, None, vec![entries(3, 7, 2, &[816, 3000])]);
    let (down, segment, before, after) = interrupted(&mut node);
    assert_eq!(segment, 4);
    assert!(after[4096..].starts_with(b"KTKF") && before[4096..].starts_with(b"KTKF"));
    // Which of the records are old cannot be told where one is missing.
    for (lost, last) in [(0, 4), (1 << 8, 2), (0x1fc, 2), (0x1fe, 2), (0x1ff, 2)] {
        let lose = |n: usize| lost & 1u32 << n.min(9) != 0;
        let mut node = down.twin(down.disk.copy());
        node.disk.set_content(&name(4), &torn(&before, &after, lose));
        node.reopen();
        assert_eq!((node.last(), node.term()), (last, 7), "{lost:x}");
        node.check(100);
    }
}

#[test]
fn a_read_that_began_before_does_not_see_what_the_file_holds_next() {
    let mut node = recycling(12);
    let first = node.durable.base.last.index.next();
    let segment = up(&node).first_segment();
    node.disk.hold_reads(true);
    let fetch = Fetch {
        token: 9,
        from: From::Index(first),
        to: Index(u64::MAX),
        bytes_max: 1 << 20,
    };
    node.log.as_mut().expect("up").fetch(GROUP, fetch);
    assert!(node.log.as_mut().expect("up").poll().is_none());
    // The file gets another number, and is written over from its beginning to its end.
    while up(&node).first_segment() <= segment || up(&node).segment() < segment + 6 {
        node.append(&[9_000, 40]);
        node.settle();
        node.purge(node.last() - 2, vec![]);
        node.settle();
    }
    node.disk.hold_reads(false);
    match node.log.as_mut().expect("up").poll() {
        Some(LogEvent::Fetched { runs: Err(error), .. }) => {
            assert!(error.to_string().contains("compacted"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    node.check(4000);
}

#[test]
fn without_room_a_segment_is_removed_and_its_room_is_free() {
    let mut node = recycling(12);
    let base = node.written.base_at(Index(node.last()));
    assert!(node.snapshot(&base));
    node.disk.set_full(true);
    while !node.full {
        node.append(&[9_000]);
        node.settle();
    }
    let (before, recycled) = (segments(&node).len(), up(&node).segments_recycled());
    node.write_all(None, None, vec![], [None, Some(base)]);
    node.settle();
    assert_eq!(up(&node).segments_recycled(), recycled);
    assert!(segments(&node).len() < before);
    node.disk.set_full(false);
    node.retry_room();
    node.settle();
    assert!(!node.full);
    node.check(4000);
}

#[test]
fn a_segment_of_another_length_is_not_used_again() {
    let mut node = recycling(12);
    node.crash(Crash::LoseAll);
    let longer = LogOptions {
        segment_bytes: 128 << 10,
        ..options()
    };
    node.reopen();
    node.log = None;
    node.disk.crash(Crash::Kill);
    let (log, _) = Log::open(node.disk.clone(), CLUSTER, NODE, longer, salts(&node.disk)).expect("opened");
    node.log = Some(log);
    for _ in 0..6 {
        for _ in 0..6 {
            node.append(&[20_000]);
            node.settle();
        }
        node.purge(node.last() - 1, vec![]);
        node.settle();
        for spare in segments(&node)
            .into_iter()
            .filter(|n| *n > name(up(&node).segment()))
        {
            assert_eq!(node.disk.content(&spare).len(), 128 << 10, "{spare}");
        }
    }
    assert!(up(&node).segments_recycled() > 0);
    node.check(4000);
}

#[test]
fn a_segment_is_removed_if_there_is_no_room_for_its_new_name() {
    let mut node = recycling(12);
    node.disk.set_renames_full(true);
    let (recycled, first) = (up(&node).segments_recycled(), up(&node).first_segment());
    while up(&node).first_segment() < first + 2 {
        node.append(&[9_000, 40]);
        node.settle();
        node.purge(node.last() - 1, vec![]);
        node.settle();
        assert_eq!(node.failed, None);
    }
    assert_eq!(up(&node).segments_recycled(), recycled);
    node.disk.set_renames_full(false);
    node.retry_room();
    node.settle();
    assert!(!node.full);
    node.check(4000);
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(4000);
}

/// What is left of it must not be found where the log goes on in another segment.
#[test]
fn a_torn_frame_of_which_nothing_is_left_is_gone() {
    let mut node = recycling(12);
    let (mut node, segment) = loop {
        node.append(&[1000, 20]);
        let (down, segment, before, after) = interrupted(&mut node);
        let mut torn_node = down.twin(down.disk.copy());
        torn_node
            .disk
            .set_content(&name(segment), &torn(&before, &after, |n| n > 0));
        torn_node.reopen();
        torn_node.append(&[30_000]);
        torn_node.settle();
        if up(&torn_node).segment() > segment && before.starts_with(b"KTKS") {
            break (torn_node, segment);
        }
    };
    node.crash(Crash::LoseAll);
    // Without its index all of the segment is read.
    let mut content = node.disk.content(&name(segment));
    let end = content.len();
    content[end - 48..].fill(0);
    node.disk.set_content(&name(segment), &content);
    node.reopen();
    node.check(4000);
}

#[test]
fn a_segment_is_not_used_again_before_its_index_is_written() {
    let mut node = recycling(12);
    let first = up(&node).first_segment();
    node.disk.hold_indexes(true);
    for _ in 0..4 {
        for _ in 0..4 {
            node.append(&[9_000, 40]);
            node.settle();
        }
        node.purge(node.last() - 1, vec![]);
        node.settle();
    }
    assert_eq!(up(&node).first_segment(), first);
    node.disk.hold_indexes(false);
    node.settle();
    assert_eq!(up(&node).first_segment(), up(&node).segment());
    node.check(4000);
}
