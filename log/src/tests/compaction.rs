//! Compaction: what is forgotten, what is removed, and what a crash at any operation in between leaves.

use super::crash::CRASHES;
use super::disk::{Chance, Crash, TestDisk};
use super::model::{Node, entries, made, members};
use kontiki_consensus::{Base, Index, LogId, Position, Term};
use std::sync::Arc;

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

fn segments(node: &Node) -> Vec<String> {
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
    assert!(
        before.ends_with(&after) && after.len() < before.len() - 3,
        "{before:?} {after:?}"
    );
    let log = node.log.as_ref().expect("up");
    assert_eq!(after[0], format!("log/{:016}.seg", log.first_segment()));
    assert_eq!(log.bytes(), (after.len() as u64 - 1) << 16, "without the spare");
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(4000);
    assert_eq!(segments(&node), after);
    // Everything goes but the segment in use.
    node.purge(31, vec![]);
    node.settle();
    assert_eq!(segments(&node).len(), 2);
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
        assert_eq!(segments(&node).len(), 2, "the one in use and a spare");
        node.crash(Crash::LoseAll);
        node.reopen();
        assert_eq!((node.last(), node.position()), (index + 2, 402));
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
    let mut swept = 0;
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
            node.crash(CRASHES[chance.below(4) as usize]);
            node.reopen();
            node.check(chance.below(9000) as usize + 1);
        }
    }
    assert!(swept > 500, "{swept} segments were removed");
}
