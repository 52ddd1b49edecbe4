//! Compaction: what is forgotten, what is removed, and what a crash at any operation in between leaves.

use super::crash::CRASHES;
use super::disk::{Chance, Crash, TestDisk};
use super::model::{GROUP, Node, entries, identity, made, members};
use crate::Log;
use bytes::Bytes;
use kontiki_consensus::{Base, HardState, Index, LogId, Position, Run, Term};
use kontiki_wire::snapshot::SnapshotHeader;
use std::sync::Arc;

impl Node {
    /// Puts a snapshot on disk; false if the node did not live to see it, or there was no room.
    pub(super) fn snapshot(&mut self, base: &Base) -> bool {
        let log = self.log.as_mut().expect("up");
        log.begin_snapshot(SnapshotHeader {
            maker: identity(),
            group: GROUP,
            base: base.clone(),
            meta: Bytes::from_static(b"meta"),
        });
        log.snapshot_piece(Bytes::from_static(b"state"));
        log.end_snapshot();
        self.settle();
        self.snapshots.contains(&base.last)
    }

    /// Removes all snapshots but this one, once the log on disk rests on it.
    fn drop_older(&mut self, last: LogId) {
        self.settle();
        if self.is_settled() {
            for older in self.snapshots.extract_if(.., |s| *s != last) {
                self.log.as_mut().expect("up").remove_snapshot(older);
            }
        }
    }

    /// Forgets everything up to here, and may append beside.
    pub(super) fn purge(&mut self, through: u64, runs: Vec<Run>) {
        let base = self.written.base_at(Index(through));
        if self.snapshot(&base) {
            self.write_all(None, None, runs, [None, Some(base.clone())]);
            self.drop_older(base.last);
        }
    }

    /// Lets the log begin anew after this.
    pub(super) fn install(&mut self, base: Base, runs: Vec<Run>) {
        if self.snapshot(&base) {
            self.write_all(None, None, runs, [Some(base.clone()), None]);
            self.drop_older(base.last);
        }
    }

    /// Does something that concerns snapshots.
    pub(super) fn compact(&mut self, chance: &mut Chance) {
        let base = self.written.base.last.index.0;
        if chance.below(4) == 0 {
            let index = base + 1 + chance.below(self.last() + 50 - base);
            let after = Base {
                last: LogId::new(Term(self.next * 1000), Index(index)),
                position: Position(self.written.base.position.0 + chance.below(index - base + 1)),
                configuration: Arc::new(members()),
            };
            let (term, position) = (after.last.term.0, after.position.0 + 1);
            let runs = chance
                .coin()
                .then(|| entries(index + 1, term, position, &[100, 9000]));
            return self.install(after, runs.into_iter().collect());
        }
        // Only what is committed, and therefore on disk, is forgotten.
        let is_durable = |index: &u64| {
            let (now, then) = (&self.written, &self.durable);
            let record = now.records.get(now.place(Index(*index)));
            now.start == then.start
                && record == then.records.get(now.place(Index(*index)))
                && record.is_some()
        };
        let far = (base + 1..=self.last()).take_while(is_durable).count() as u64;
        if far > 0 {
            let more = entries(self.last() + 1, self.term(), self.position() + 1, &[50]);
            let more = chance.coin().then_some(more);
            self.purge(base + 1 + chance.below(far), more.into_iter().collect());
        }
    }
}

fn live(node: &mut Node, chance: &mut Chance, acts: u64) {
    for _ in 0..acts {
        if node.disk.is_off() {
            return;
        }
        match chance.below(6) {
            0 => node.compact(chance),
            _ => node.act(chance),
        }
        for _ in 0..chance.below(4) {
            node.turn();
        }
    }
}

/// A node whose log has records 2 to 31, three to a segment.
fn filled() -> Node {
    let disk = TestDisk::new(0);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..30 {
        node.append(&[17_000]);
        node.settle();
    }
    node
}

pub(super) fn segments(node: &Node) -> Vec<String> {
    let names = node.disk.names();
    names.into_iter().filter(|n| n.ends_with(".seg")).collect()
}

fn base(term: u64, index: u64, position: u64) -> Base {
    Base {
        last: LogId::new(Term(term), Index(index)),
        position: Position(position),
        configuration: Arc::new(members()),
    }
}

#[test]
fn whole_segments_before_the_base_are_removed_and_nothing_else() {
    let mut node = filled();
    let before = segments(&node);
    node.purge(15, vec![]);
    node.settle();
    node.check(4000);
    let after = segments(&node);
    let (recycled, kept) = after.split_last().expect("segments");
    assert!(
        before.ends_with(kept) && kept.len() < before.len() - 3,
        "{before:?} {after:?}"
    );
    assert!(!before.contains(recycled));
    let log = node.log.as_ref().expect("up");
    assert_eq!(after[0], format!("log/{:016}.seg", log.first_segment()));
    assert_eq!(log.bytes(), (after.len() as u64 - 2) << 16, "without the spares");
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(4000);
    assert_eq!(segments(&node), after);
    // Everything goes but the segment in use.
    node.purge(31, vec![]);
    node.settle();
    assert_eq!(segments(&node).len(), 3, "and the spares");
    node.append(&[10]);
    node.settle();
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(100);
}

#[test]
fn a_snapshot_that_is_installed_takes_the_place_of_the_whole_log() {
    for index in [10, 31, 500] {
        let mut node = filled();
        node.install(base(7, index, 400), vec![entries(index + 1, 8, 401, &[20, 30])]);
        node.settle();
        node.check(4000);
        assert_eq!(segments(&node).len(), 3, "the one in use and two spares");
        node.crash(Crash::LoseAll);
        node.reopen();
        assert_eq!((node.last(), node.position()), (index + 2, 402));
        node.check(4000);
    }
}

/// Its header tells of a record of a later term, which the first frame removes again: nothing else is known of what was before.
#[test]
fn a_segment_that_begins_with_an_older_term_can_be_the_first() {
    for before in 1..5 {
        let disk = TestDisk::new(0);
        made(&disk);
        let mut node = Node::new(disk);
        for _ in 0..before {
            node.append(&[17_000]);
            node.settle();
        }
        let (index, term, position) = (node.last() + 1, node.term(), node.position() + 1);
        let in_term = |term| {
            Some(HardState {
                term: Term(term),
                vote: None,
                ..HardState::default()
            })
        };
        node.write(
            in_term(term + 5),
            None,
            vec![entries(index, term + 5, position, &[17_000])],
        );
        node.settle();
        let older = entries(index, term, position, &[17_000]);
        node.write(in_term(term + 6), Some(index), vec![older]);
        node.settle();
        node.append(&[10]);
        node.settle();
        node.purge(index, vec![]);
        node.settle();
        node.crash(Crash::LoseAll);
        node.reopen();
        node.check(4000);
    }
}

#[test]
fn a_base_is_found_again_many_segments_later() {
    let mut node = filled();
    node.purge(31, vec![]);
    for _ in 0..40 {
        node.append(&[17_000]);
        node.settle();
    }
    node.crash(Crash::KeepAll);
    node.reopen();
    node.check(4000);
    node.purge(50, vec![]);
    node.settle();
    for name in segments(&node) {
        // Without the index of a segment its frames say the same.
        let mut content = node.disk.content(&name);
        let end = content.len();
        content[end - 48..].fill(0);
        node.disk.set_content(&name, &content);
    }
    node.crash(Crash::KeepAll);
    node.reopen();
    node.check(4000);
}

#[test]
fn segments_that_are_missing_without_a_snapshot_are_noticed() {
    let mut node = filled();
    node.purge(9, vec![]);
    node.settle();
    node.crash(Crash::LoseAll);
    let all = segments(&node);
    for missing in [1, 2, 4] {
        let twin = node.twin(node.disk.copy());
        for name in &all[..missing] {
            twin.disk.remove(name);
        }
        let refused = super::model::open(&twin.disk).expect_err("lost").to_string();
        assert!(
            refused.contains("is missing") && refused.contains(&all[missing]),
            "{refused}"
        );
    }
    node.reopen();
    node.check(4000);
}

#[test]
fn a_crash_at_every_operation_loses_nothing_that_is_needed() {
    for seed in 0..6 {
        let whole = {
            let disk = TestDisk::new(seed);
            made(&disk);
            let before = disk.operations();
            let mut node = Node::new(disk);
            live(&mut node, &mut Chance::new(seed + 70), 70);
            node.settle();
            node.disk.operations() - before
        };
        for operation in (seed % 3..whole * 2).step_by(3) {
            let disk = TestDisk::new(seed);
            made(&disk);
            let mut node = Node::new(disk.copy());
            node.disk.fail_power_at(operation);
            live(&mut node, &mut Chance::new(seed + 70), 70);
            node.settle();
            node.disk.reseed(operation);
            node.crash(CRASHES[operation as usize % 4]);
            node.reopen();
            node.check(4000);
            live(&mut node, &mut Chance::new(operation), 6);
            node.settle();
            assert!(node.is_settled());
            node.crash(Crash::LoseAll);
            node.reopen();
            assert_eq!(node.torn_bytes, 0);
            node.check(4000);
        }
    }
}

#[test]
fn a_crash_at_every_operation_of_opening_a_log_with_a_base_can_be_recovered_from() {
    for seed in 0..40 {
        let disk = TestDisk::new(seed);
        made(&disk);
        let mut node = Node::new(disk);
        live(&mut node, &mut Chance::new(seed), 40 + seed);
        node.crash(if seed % 3 == 0 { Crash::Kill } else { Crash::Torn });
        let before = node.twin(node.disk.copy());
        node.reopen();
        let whole = node.disk.operations() - before.disk.operations();
        for operation in 0..whole * 2 {
            let mut again = before.twin(before.disk.copy());
            again.disk.fail_power_at(operation);
            drop(super::model::open(&again.disk));
            again.disk.reseed(operation);
            again.crash(CRASHES[(operation + seed) as usize % 4]);
            again.reopen();
            again.check(10_000);
        }
    }
}

#[test]
fn lives_of_many_crashes_and_snapshots() {
    let (mut swept, mut recycled) = (0, 0);
    for seed in 0..80 {
        let mut chance = Chance::new(seed + 5000);
        let disk = TestDisk::new(seed);
        made(&disk);
        let mut node = Node::new(disk);
        for _ in 0..8 {
            let acts = chance.below(60);
            node.disk.set_full(chance.below(4) == 0);
            live(&mut node, &mut chance, acts);
            if chance.coin() {
                node.settle();
            }
            swept += node.log.as_ref().map_or(0, |log| log.first_segment() - 1);
            recycled += node.log.as_ref().map_or(0, Log::segments_recycled);
            node.crash(CRASHES[chance.below(4) as usize]);
            node.reopen();
            node.check(chance.below(9000) as usize + 1);
        }
    }
    assert!(swept > 500, "{swept} segments were swept");
    assert!(recycled > 200, "{recycled} of them were used again");
}
