//! Finding records: by index and by position, in one segment and over many, after removals.

use super::disk::{Chance, Crash, TestDisk};
use super::model::{Node, Record, made, records_of};
use crate::From;
use kontiki_consensus::{Index, Position};

fn long(seed: u64) -> Node {
    let disk = TestDisk::new(seed);
    made(&disk);
    let mut node = Node::new(disk);
    let mut chance = Chance::new(seed + 7);
    for _ in 0..160 {
        node.act(&mut chance);
        if chance.below(3) == 0 {
            node.settle();
        }
    }
    node.settle();
    assert!(node.is_settled() && node.disk.names().len() > 3);
    node
}

/// The index of the record that holds a position.
fn holder(records: &[Record], position: u64) -> u64 {
    records.partition_point(|r| r.1.0 < position) as u64 + 1
}

#[test]
fn every_record_is_found_by_index_and_by_position() {
    for seed in 0..6 {
        let mut node = long(seed);
        for reopened in [false, true] {
            if reopened {
                node.crash(Crash::LoseAll);
                node.reopen();
            }
            let records = node.durable.records.clone();
            let last = Index(records.len() as u64);
            for index in 1..=last.0 {
                let runs = node.fetch(From::Index(Index(index)), last, 1).expect("read");
                assert_eq!(
                    records_of(&runs),
                    [(Index(index), records[index as usize - 1].clone())]
                );
            }
            for position in 1..=node.position() {
                let runs = node
                    .fetch(From::Position(Position(position)), last, 1)
                    .expect("read");
                let index = holder(&records, position);
                assert_eq!(
                    records_of(&runs),
                    [(Index(index), records[index as usize - 1].clone())]
                );
            }
            for bytes_max in [1, 700, 5000, 100_000, usize::MAX] {
                node.check(bytes_max);
            }
        }
    }
}

#[test]
fn a_read_gives_what_fits_and_at_least_a_record() {
    let mut node = long(3);
    let last = Index(node.last());
    for bytes_max in [1, 500, 3000, 30_000] {
        for index in 1..=last.0 {
            let runs = node
                .fetch(From::Index(Index(index)), last, bytes_max)
                .expect("read");
            let bytes: usize = runs.iter().map(|r| r.weight()).sum();
            let records = records_of(&runs);
            assert_eq!(records[0].0, Index(index));
            assert!(bytes <= bytes_max || records.len() == 1, "{bytes} of {bytes_max}");
        }
    }
}

#[test]
fn a_read_ends_where_it_is_told_to_and_where_the_log_does() {
    let mut node = long(4);
    let last = node.last();
    let runs = node
        .fetch(From::Index(Index(2)), Index(5), usize::MAX)
        .expect("read");
    assert_eq!(runs.last().map(|r| r.last()), Some(Index(5)));
    let runs = node
        .fetch(From::Index(Index(last)), Index(u64::MAX), usize::MAX)
        .expect("read");
    assert_eq!(records_of(&runs).len(), 1);
    for nothing in [
        From::Index(Index(0)),
        From::Index(Index(last + 1)),
        From::Position(Position(0)),
        From::Position(Position(node.position() + 1)),
    ] {
        assert_eq!(
            node.fetch(nothing, Index(u64::MAX), 100),
            Ok(Vec::new()),
            "{nothing:?}"
        );
    }
    let beyond = From::Position(Position(node.position()));
    assert_eq!(node.fetch(beyond, Index(2), 100), Ok(Vec::new()));
    let other = crate::Fetch {
        token: 9,
        from: From::Index(Index(1)),
        to: Index(9),
        bytes_max: 9,
    };
    let log = node.log.as_mut().expect("up");
    log.fetch(kontiki_consensus::GroupId(5), other);
    assert!(matches!(log.poll(), Some(crate::LogEvent::Fetched { runs: Ok(runs), .. }) if runs.is_empty()));
}

#[test]
fn a_read_that_records_are_removed_under_gives_none_of_them() {
    let disk = TestDisk::new(5);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..14 {
        node.append(&[9000]);
        node.settle();
    }
    let fetch = crate::Fetch {
        token: 1,
        from: From::Index(Index(1)),
        to: Index(100),
        bytes_max: usize::MAX,
    };
    // The read has taken in one segment when the write removes most of what it took.
    node.log.as_mut().expect("up").fetch(super::model::GROUP, fetch);
    node.replace(4, &[10, 10]);
    let mut found = None;
    let log = node.log.as_mut().expect("up");
    while found.is_none() {
        match log.poll() {
            Some(crate::LogEvent::Fetched { runs, .. }) => found = Some(records_of(&runs.expect("read"))),
            Some(_) => {}
            None => assert!(log.has_more(), "never answered"),
        }
    }
    let found: Vec<Record> = found.expect("answered").into_iter().map(|(_, r)| r).collect();
    assert!(found == node.written.records, "{} records", found.len());
}

#[test]
fn an_index_holds_an_entry_for_a_stride_and_not_for_every_record() {
    let disk = TestDisk::new(1);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..200 {
        node.append(&[60; 8]);
        node.settle();
    }
    let last = Index(node.last());
    // A read of one record begins at most a stride before it.
    for index in [2, 900, last.0] {
        assert!(node.fetch(From::Index(Index(index)), last, 1).is_ok());
    }
    let records = node.last();
    let entries = node.log.as_ref().expect("up").entries(super::model::GROUP);
    assert!(entries < records as usize / 10, "{entries} of {records}");
}
