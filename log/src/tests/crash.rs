//! Crashes: at every operation of making, writing and opening a log, with everything a disk may then do.

use super::disk::{Chance, Crash, TestDisk};
use super::model::{Node, made, open};
use crate::disk::Disk;
use crate::holds_log;

pub(super) const CRASHES: [Crash; 4] = [Crash::LoseAll, Crash::KeepAll, Crash::Torn, Crash::Kill];

/// Enough to fill more than two segments, with everything a stream can hold.
fn live(node: &mut Node, chance: &mut Chance, acts: u64) {
    for _ in 0..acts {
        if node.disk.is_off() {
            return;
        }
        node.act(chance);
        for _ in 0..chance.below(3) {
            node.turn();
        }
    }
}

#[test]
fn a_log_that_is_made_is_there_whenever_it_was_interrupted() {
    let whole = TestDisk::new(0);
    made(&whole);
    for operation in 0..whole.operations() * 2 {
        for (seed, crash) in (0..6).flat_map(|s| CRASHES.map(|c| (s, c))) {
            let disk = TestDisk::new(seed);
            disk.fail_power_at(operation);
            let made_it = crate::create(
                disk.clone(),
                super::model::identity(),
                &super::model::members(),
                super::model::options(),
                super::model::salts(&disk),
            );
            assert!(made_it.is_err() || operation >= whole.operations() * 2 - 2);
            disk.crash(crash);
            if !holds_log(&mut disk.clone()).expect("listed") {
                let refused = open(&disk).expect_err("no log").to_string();
                assert!(refused.contains("holds no log"), "{refused}");
                made(&disk);
            }
            Node::new(disk).check(100);
        }
    }
}

#[test]
fn a_crash_at_every_operation_loses_nothing_that_was_acknowledged() {
    let whole = {
        let disk = TestDisk::new(1);
        made(&disk);
        let before = disk.operations();
        let mut node = Node::new(disk);
        live(&mut node, &mut Chance::new(5), 90);
        node.settle();
        assert!(node.disk.names().len() >= 4, "{:?}", node.disk.names());
        node.disk.operations() - before
    };
    for operation in 0..whole * 2 {
        let crash = CRASHES[operation as usize % 4];
        let disk = TestDisk::new(1);
        made(&disk);
        let mut node = Node::new(disk.copy());
        // Opening costs operations, too: those are tested below.
        node.disk.fail_power_at(operation);
        live(&mut node, &mut Chance::new(5), 90);
        node.settle();
        node.disk.reseed(operation);
        node.crash(crash);
        node.reopen();
        if operation % 8 != 0 {
            continue;
        }
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

#[test]
fn a_crash_at_every_operation_of_recovery_can_be_recovered_from() {
    for seed in 0..60 {
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
            drop(open(&again.disk));
            again.disk.reseed(operation);
            again.crash(CRASHES[(operation + seed) as usize % 4]);
            again.reopen();
            if operation % 8 == 0 {
                again.check(10_000);
            }
        }
    }
}

#[test]
fn what_a_killed_process_left_in_memory_only_is_written_again() {
    for lengths in [vec![100], vec![3000, 10, 20]] {
        let disk = TestDisk::new(3);
        made(&disk);
        let mut node = Node::new(disk);
        node.append(&[50]);
        node.settle();
        node.disk.break_writes();
        node.append(&lengths);
        // The write fails, but the system still shows it; the process is gone before it can tell.
        node.disk
            .clone()
            .poll()
            .expect("completed")
            .result
            .expect_err("broken");
        node.crash(Crash::Kill);
        node.reopen();
        assert_eq!(node.last(), 2 + lengths.len() as u64, "it can be read");
        node.crash(Crash::LoseAll);
        node.reopen();
        assert_eq!(node.last(), 2 + lengths.len() as u64, "so it must stay");
    }
}

#[test]
fn what_is_left_of_a_segment_whose_beginning_was_torn_is_gone_for_good() {
    let disk = TestDisk::new(4);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..6 {
        node.append(&[9000]);
        node.settle();
    }
    let second = "log/0000000000000002.seg";
    assert!(node.disk.content(second).iter().all(|b| *b == 0));
    node.append(&[9000]);
    node.crash(Crash::KeepAll);
    let mut begun = node.disk.content(second);
    assert!(begun.starts_with(b"KTKS"));
    // Of header and first frame only records have reached the platter.
    begun[..1024].fill(0);
    node.disk.set_content(second, &begun);
    node.reopen();
    assert_eq!(node.last(), 7);
    assert!(node.torn_bytes > 8000);
    assert!(node.disk.content(second).iter().all(|b| *b == 0));
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.torn_bytes, 0);
}

#[test]
fn lives_of_many_crashes() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed + 1000);
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
            node.crash(CRASHES[chance.below(4) as usize]);
            node.reopen();
            node.check(chance.below(9000) as usize + 1);
        }
    }
}
