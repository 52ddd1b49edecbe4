//! What has come of a snapshot before a restart, and files that have the name of one and are none.

use super::disk::Crash;
use super::model::open;
use super::snapshots::{LAST, events, fresh, header, is_whole, log, read, transfer, write};
use crate::SnapshotEvent;
use bytes::Bytes;
use std::io::Read;

/// The system holds bytes whose sync has failed, and the device never gets them.
#[test]
fn a_part_whose_sync_failed_is_on_disk_once_it_is_gone_on_with() {
    let (ours, theirs) = (fresh(1), fresh(2));
    let (mut from, mut to) = (log(&ours), log(&theirs));
    write(&mut from, b"meta");
    let (_, whole) = read(&mut from, 0, 1 << 20).expect("there");
    to.receive_snapshot(LAST);
    events(&mut to);
    to.snapshot_received(LAST, 0, &whole.slice(..4000));
    events(&mut to);
    theirs.break_writes();
    to.snapshot_received(LAST, 4000, &whole.slice(4000..9000));
    while to.poll().is_some() {}
    drop(to);
    theirs.crash(Crash::Kill);
    let mut to = log(&theirs);
    let told = transfer(&mut to, &mut from, 2000);
    assert!(matches!(told.first(), Some(SnapshotEvent::Receiving { at, .. }) if *at > 5000));
    assert!(matches!(told.last(), Some(SnapshotEvent::Staged(_))));
    drop(to);
    theirs.crash(Crash::LoseAll);
    is_whole(&mut log(&theirs), b"meta");
}

static LONG: [u8; 5000] = [7; 5000];

#[test]
fn a_part_without_a_whole_header_is_begun_anew() {
    let (ours, other, theirs) = (fresh(1), fresh(2), fresh(3));
    let (mut one, mut short) = (log(&ours), log(&other));
    write(&mut one, &LONG);
    short.begin_snapshot(header(b"short"));
    short.end_snapshot();
    events(&mut short);
    for crash in [Crash::LoseAll, Crash::Kill] {
        let disk = theirs.copy();
        let mut to = log(&disk);
        to.receive_snapshot(LAST);
        events(&mut to);
        let (_, bytes) = read(&mut one, 0, 3000).expect("there");
        to.snapshot_received(LAST, 0, &bytes);
        events(&mut to);
        drop(to);
        disk.crash(crash);
        let mut to = log(&disk);
        let told = transfer(&mut to, &mut short, 1 << 20);
        let Some(SnapshotEvent::Staged(file)) = told.last() else {
            panic!("{told:?}");
        };
        let name = disk.names().into_iter().find(|n| n.ends_with(".snap"));
        assert_eq!(disk.content(&name.expect("a name")).len() as u64, file.bytes);
        let mut state = Vec::new();
        to.snapshot_state(file).read_to_end(&mut state).expect("sound");
        assert!(state.is_empty());
    }
}

/// A chunk that was on its way before the restart does not come between.
#[test]
fn what_comes_while_a_part_is_looked_at_is_left_out() {
    let (ours, theirs) = (fresh(1), fresh(2));
    let (mut from, mut to) = (log(&ours), log(&theirs));
    write(&mut from, b"meta");
    let (_, whole) = read(&mut from, 0, 1 << 20).expect("there");
    to.receive_snapshot(LAST);
    events(&mut to);
    to.snapshot_received(LAST, 0, &whole.slice(..4000));
    events(&mut to);
    to.stop_receiving();
    events(&mut to);
    to.receive_snapshot(LAST);
    to.snapshot_received(LAST, 0, &whole.slice(..4000));
    let told = events(&mut to);
    assert!(
        matches!(told[..], [SnapshotEvent::Receiving { at, .. }] if at > 2000),
        "{told:?}"
    );
    transfer(&mut to, &mut from, 2000);
    is_whole(&mut to, b"meta");
}

#[test]
fn a_damaged_snapshot_makes_way_for_the_next_of_its_name() {
    for received in [false, true] {
        let (ours, theirs) = (fresh(1), fresh(2));
        let (mut node, mut from) = (log(&ours), log(&theirs));
        write(&mut node, b"first");
        write(&mut from, b"second");
        drop(node);
        ours.crash(Crash::LoseAll);
        let name = ours.names().into_iter().find(|n| n.ends_with(".snap"));
        let name = name.expect("a name");
        for _ in 0..2 {
            let mut content = ours.content(&name);
            content[20] ^= 1;
            ours.set_content(&name, &content);
            let (mut node, found) = open(&ours).expect("opened");
            assert!(found.snapshots.is_empty());
            events(&mut node);
            let told = if received {
                transfer(&mut node, &mut from, 999)
            } else {
                write(&mut node, b"second")
            };
            let is_there =
                |event: &SnapshotEvent| matches!(event, SnapshotEvent::Written(_) | SnapshotEvent::Staged(_));
            assert!(told.last().is_some_and(is_there), "{told:?}");
            is_whole(&mut node, b"second");
            drop(node);
            ours.crash(Crash::LoseAll);
            assert!(
                ours.content(&name.replace(".snap", ".aside")) == content,
                "it is kept"
            );
            is_whole(&mut log(&ours), b"second");
        }
    }
}

#[test]
fn a_transfer_of_nothing_is_refused() {
    let disk = fresh(1);
    let mut to = log(&disk);
    to.receive_snapshot(LAST);
    events(&mut to);
    to.snapshot_received(LAST, 0, &Bytes::new());
    assert!(matches!(
        events(&mut to)[..],
        [SnapshotEvent::Receiving { at: 0, .. }]
    ));
}
