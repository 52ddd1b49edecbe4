//! The format, byte for byte: `log/fixtures/two_segments.hex` changes only when the format does. It shows every part
//! that `docs/FORMAT.md` draws: headers of segments and frames, records, a removal, the index of a full segment.
//! With `KONTIKI_BLESS` set the test writes what it finds.

use super::disk::{Crash, TestDisk};
use super::model::{CLUSTER, GROUP, Node, made};
use kontiki_consensus::{Admission, HardState, Index, NodeId, Position, Run, Term};
use kontiki_wire::record::RunBuilder;
use kontiki_wire::{Codec, Payload, Session, Stamp};
use std::fmt::Write;

/// A record of `bytes` zeros.
fn zeros(index: u64, term: u64, position: u64, bytes: usize) -> Run {
    let at = Admission {
        index: Index(index),
        term: Term(term),
        position: Position(position),
    };
    let mut builder = RunBuilder::new(CLUSTER, GROUP, at);
    let payload = Payload::one(vec![0; bytes].into(), Codec::Bytes);
    let stamp = Stamp {
        leader_time: 1_700_000_000_000_000_000,
        clock: 60,
    };
    builder.push(&payload, stamp, Session::None).expect("room");
    builder.finish().expect("a record")
}

fn life(node: &mut Node) {
    let vote = HardState {
        term: Term(1),
        vote: Some(NodeId(3)),
        ..HardState::default()
    };
    node.write(Some(vote), None, vec![zeros(2, 1, 1, 20_000)]);
    node.settle();
    node.write(None, None, vec![zeros(3, 1, 2, 9)]);
    node.settle();
    let later = HardState {
        term: Term(2),
        vote: None,
        ..HardState::default()
    };
    node.write(Some(later), Some(3), vec![zeros(3, 2, 2, 25_000)]);
    node.settle();
    node.write(None, None, vec![zeros(4, 2, 3, 30_000)]);
    node.settle();
    assert!(node.is_settled());
}

/// Rows of 16 bytes; those of zeros are left out.
fn hex(content: &[u8]) -> String {
    let mut text = String::new();
    for (n, row) in content
        .chunks(16)
        .enumerate()
        .filter(|(_, row)| row.iter().any(|b| *b != 0))
    {
        write!(text, "{:06x}", n * 16).expect("text");
        for byte in row {
            write!(text, " {byte:02x}").expect("text");
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let mut content = vec![0; 64 << 10];
    for line in text.lines() {
        let (at, row) = line.split_once(' ').expect("a row");
        let at = usize::from_str_radix(at, 16).expect("an offset");
        for (n, byte) in row.split(' ').enumerate() {
            content[at + n] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    content
}

#[test]
fn the_bytes_on_disk_are_those_of_the_format() {
    let disk = TestDisk::new(0);
    made(&disk);
    let mut node = Node::new(disk);
    node.settle();
    life(&mut node);
    let names = &node.disk.names()[..2];
    let shown: Vec<String> = names
        .iter()
        .map(|n| format!("== {n}\n{}", hex(&node.disk.content(n))))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/two_segments.hex");
    if std::env::var_os("KONTIKI_BLESS").is_some() {
        std::fs::write(path, shown.concat()).expect("written");
    }
    let fixture = std::fs::read_to_string(path).expect("the fixture");
    assert!(
        shown.concat() == fixture,
        "the format has changed:\n{}",
        shown.concat()
    );
}

#[test]
fn the_bytes_of_the_format_can_be_read() {
    let text = include_str!("../../fixtures/two_segments.hex");
    let disk = TestDisk::new(0);
    made(&disk);
    let mut node = Node::new(disk);
    life(&mut node);
    let parts = text
        .split("== ")
        .skip(1)
        .map(|part| part.split_once('\n').expect("a name"));
    node.crash(Crash::LoseAll);
    for (name, rows) in parts {
        node.disk.set_content(name, &unhex(rows));
    }
    node.reopen();
    assert_eq!((node.last(), node.torn_bytes), (4, 0));
    node.check(1000);
}
