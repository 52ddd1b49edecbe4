//! Directories that are not what was asked for: each is told from the others, and none is changed.

use super::disk::TestDisk;
use super::model::{CLUSTER, NODE, Node, identity, made, members, open, options, salts};
use crate::{Log, LogError, LogOptions, Salts, create};
use kontiki_consensus::{Configuration, Incarnation, NodeId};
use kontiki_wire::{ClusterId, Identity};

fn wrong(result: Result<(), LogError>) -> String {
    match result {
        Err(LogError::Wrong(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn disk() -> TestDisk {
    let disk = TestDisk::new(1);
    made(&disk);
    disk
}

#[test]
fn each_is_told_from_the_others() {
    let opened = |disk: &TestDisk, cluster, node| {
        wrong(Log::open(disk.clone(), cluster, node, options(), salts(disk)).map(drop))
    };
    assert!(opened(&TestDisk::new(0), CLUSTER, NODE).contains("holds no log"));
    assert!(opened(&disk(), CLUSTER, NodeId(3)).contains("belongs to node 2"));
    assert!(opened(&disk(), ClusterId(5), NODE).contains("of cluster"));
    let mixed = disk();
    let other = TestDisk::new(1);
    let identity = Identity {
        incarnation: Incarnation(78),
        ..identity()
    };
    create(other.clone(), identity, &members(), options(), Salts::new(2)).expect("made");
    let mut node = Node::new(mixed.clone());
    for _ in 0..8 {
        node.append(&[9000]);
        node.settle();
    }
    drop(node);
    mixed.set_content(
        "log/0000000000000001.seg",
        &other.content("log/0000000000000001.seg"),
    );
    assert!(opened(&mixed, CLUSTER, NODE).contains("another data directory"));
}

#[test]
fn a_newer_version_is_not_taken_for_damage() {
    let disk = disk();
    let name = "log/0000000000000001.seg";
    let mut content = disk.content(name);
    content[10] = 2;
    let sum = crc32c(&content[8..152]);
    content[4..8].copy_from_slice(&sum.to_le_bytes());
    disk.set_content(name, &content);
    let text = wrong(open(&disk).map(drop));
    assert!(
        text.contains("version 2") && text.contains("or a newer one"),
        "{text}"
    );
    assert_eq!(disk.content(name), content);
}

/// Bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

#[test]
fn a_log_is_not_made_twice_and_not_of_impossible_options() {
    let made_again = |disk: TestDisk, members: &Configuration, options| {
        create(disk, identity(), members, options, Salts::new(1))
    };
    assert!(wrong(made_again(disk(), &members(), options())).contains("holds a log already"));
    let none = Configuration::default();
    assert!(wrong(made_again(TestDisk::new(0), &none, options())).contains("voter"));
    let odd = LogOptions {
        segment_bytes: 1000,
        tail_bytes_max: 0,
    };
    assert!(wrong(made_again(TestDisk::new(0), &members(), odd.clone())).contains("segment_bytes is 1000"));
    assert!(
        wrong(Log::open(disk(), CLUSTER, NODE, odd, Salts::new(1)).map(drop))
            .contains("segment_bytes is 1000")
    );
}

#[test]
fn segments_of_another_length_go_on_to_be_used() {
    let disk = disk();
    let mut node = Node::new(disk.clone());
    for _ in 0..8 {
        node.append(&[9000]);
        node.settle();
    }
    let records = node.durable.records.clone();
    drop(node);
    let longer = LogOptions {
        segment_bytes: 256 << 10,
        tail_bytes_max: 100,
    };
    let (mut log, found) = Log::open(disk.clone(), CLUSTER, NODE, longer, salts(&disk)).expect("opened");
    assert_eq!(found.restored.last.index.0, records.len() as u64);
    while log.poll().is_some() {}
    let spare = disk.names().pop().expect("a spare");
    assert_eq!(disk.content(&spare).len(), 256 << 10);
}

#[test]
fn strange_files_are_left_alone() {
    let disk = disk();
    disk.set_content("log/notes.txt", b"mine");
    disk.set_content("lock", b"");
    let mut node = Node::new(disk.clone());
    node.append(&[1]);
    node.settle();
    assert_eq!(disk.content("log/notes.txt"), b"mine");
}
