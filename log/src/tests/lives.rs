//! Lives: each start is on disk before the log is open, and what is known of peers survives every crash once it is told as kept.

use super::disk::{Crash, TestDisk};
use super::model::{CLUSTER, NODE, made, open, options, salts};
use crate::{Log, LogError, LogEvent, Recovered, Start};
use kontiki_consensus::{Incarnation, NodeId};
use kontiki_wire::lives::{Lives, Place, Refused, SLOT_BYTES};
use kontiki_wire::{KnownLife, StartId};

fn start(disk: &TestDisk, start: Start) -> Result<(Log<TestDisk>, Recovered), LogError> {
    Log::start(disk.clone(), CLUSTER, NODE, options(), salts(disk), &start)
}

fn started(disk: &TestDisk, id: u64) -> (Log<TestDisk>, Lives) {
    let id = StartId(id);
    let (log, found) = start(
        disk,
        Start {
            id,
            ..Start::default()
        },
    )
    .expect("started");
    (log, found.lives)
}

fn directory() -> TestDisk {
    let disk = TestDisk::new(1);
    made(&disk);
    disk
}

/// What is known of node 3, in its life of this number.
fn knowing(mut lives: Lives, number: u64) -> Lives {
    let known = KnownLife {
        incarnation: Incarnation(5),
        number,
        start: StartId(number * 10),
    };
    lives.peers.insert(NodeId(3), known);
    lives.version += 1;
    lives
}

#[test]
fn each_start_begins_a_life_and_opening_alone_does_not() {
    let disk = directory();
    assert_eq!(open(&disk).expect("opened").1.lives.life.number, 0);
    for n in 1..=3 {
        let life = started(&disk, n * 10).1.life;
        assert_eq!((life.number, life.start), (n, StartId(n * 10)));
        disk.crash(Crash::LoseAll);
    }
    let life = open(&disk).expect("opened").1.lives.life;
    assert_eq!((life.number, life.start_of(2)), (3, Some(StartId(20))));
}

/// A start that ends at any operation leaves the life before or the next one, and never neither.
#[test]
fn a_crash_at_any_operation_of_a_start_leaves_a_life() {
    for operation in 0.. {
        let disk = directory();
        drop(started(&disk, 10));
        let before = disk.operations();
        disk.fail_power_at(before + operation);
        let finished = start(
            &disk,
            Start {
                id: StartId(20),
                ..Start::default()
            },
        )
        .is_ok()
            && !disk.is_off();
        disk.crash(Crash::Torn);
        let number = open(&disk).expect("opened").1.lives.life.number;
        assert!((1..=2).contains(&number), "operation {operation}: life {number}");
        if finished {
            assert_eq!(number, 2);
            return;
        }
    }
}

#[test]
fn what_is_told_as_kept_survives_a_crash_at_any_operation() {
    for operation in 0..12 {
        let disk = directory();
        let (mut log, mut lives) = started(&disk, 10);
        disk.fail_power_at(disk.operations() + operation);
        let (mut asked, mut kept) = (lives.version, lives.version);
        for number in 1..=3 {
            lives = knowing(lives, number);
            asked = lives.version;
            log.keep_lives(lives.clone());
        }
        while let Some(event) = log.poll() {
            if let LogEvent::LivesKept(version) = event {
                kept = version;
            }
        }
        drop(log);
        disk.crash(Crash::Torn);
        let found = open(&disk).expect("opened").1.lives;
        assert!(
            (kept..=asked).contains(&found.version),
            "operation {operation}: {found:?}"
        );
        let number = found.peers.get(&NodeId(3)).map_or(0, |known| known.number);
        assert_eq!(number + 1, found.version, "operation {operation}");
        if operation == 11 {
            assert_eq!(kept, asked, "all of it was kept");
        }
    }
}

#[test]
fn one_copy_may_be_damaged_and_both_may_not() {
    let disk = directory();
    drop(started(&disk, 10));
    let sound = disk.content("lives");
    for slot in 0..2 {
        let mut content = sound.clone();
        content[slot * SLOT_BYTES + 70] ^= 1;
        disk.set_content("lives", &content);
        assert_eq!(open(&disk).expect("opened").1.lives.life.number, 1);
    }
    let mut content = sound.clone();
    content[70] ^= 1;
    content[SLOT_BYTES + 70] ^= 1;
    disk.set_content("lives", &content);
    assert!(
        matches!(open(&disk), Err(LogError::Damaged(text)) if text.contains("neither of its two copies"))
    );
    disk.remove("lives");
    assert!(matches!(open(&disk), Err(LogError::Damaged(text)) if text.contains("lives is missing")));
}

#[test]
fn a_directory_elsewhere_or_refused_by_a_peer_does_not_start() {
    let wrong = |disk: &TestDisk, how: Start| match start(disk, how) {
        Err(LogError::Wrong(text)) => text,
        other => panic!("{other:?}"),
    };
    let disk = directory();
    let at = |inode| Start {
        id: StartId(inode),
        place: Some(Place {
            inode,
            ..Place::default()
        }),
        moved: false,
    };
    drop(start(&disk, at(1)).expect("the first start says where it is"));
    drop(start(&disk, at(1)).expect("the same place"));
    let before = disk.content("lives");
    let text = wrong(&disk, at(2));
    assert!(
        text.contains("a copy of that") && text.contains("--moved"),
        "{text}"
    );
    assert_eq!(disk.content("lives"), before, "nothing was changed");
    let moved = Start { moved: true, ..at(2) };
    drop(start(&disk, moved).expect("the operator says so"));
    let (mut log, found) = start(&disk, at(2)).expect("it is there from now on");
    let mut lives = found.lives;
    assert_eq!(lives.life.number, 4);
    lives.version += 1;
    lives.refused = Some(Refused {
        by: NodeId(3),
        why: "it was made anew".into(),
    });
    log.keep_lives(lives);
    while log.poll().is_some() {}
    drop(log);
    for how in [at(2), Start { moved: true, ..at(2) }] {
        let text = wrong(&disk, how);
        assert!(
            text.contains("node 3 refuses node 2 with it, saying: it was made anew"),
            "{text}"
        );
    }
}
