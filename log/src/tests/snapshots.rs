//! Snapshots as files: written, received, resumed, served, removed; and a crash at any operation of it.

use super::crash::CRASHES;
use super::disk::{Crash, TestDisk};
use super::model::{CLUSTER, GROUP, identity, made, members, open};
use crate::{Log, LogEvent, SnapshotEvent, SnapshotFile};
use bytes::Bytes;
use kontiki_consensus::{Base, Index, LogId, Position, Term};
use kontiki_wire::snapshot::{PIECE_HEAD_BYTES, Pieces, SNAPSHOT_END_BYTES, SnapshotHeader, Taken};
use std::io::Read;
use std::sync::Arc;

pub(super) const LAST: LogId = LogId {
    term: Term(0),
    index: Index(1),
};

pub(super) fn header(meta: &'static [u8]) -> SnapshotHeader {
    SnapshotHeader {
        maker: identity(),
        group: GROUP,
        base: Base {
            last: LAST,
            position: Position(0),
            configuration: Arc::new(members()),
        },
        meta: Bytes::from_static(meta),
    }
}

pub(super) fn log(disk: &TestDisk) -> Log<TestDisk> {
    open(disk).expect("opened").0
}

pub(super) fn fresh(seed: u64) -> TestDisk {
    let disk = TestDisk::new(seed);
    made(&disk);
    disk
}

/// What the log has to say about snapshots.
pub(super) fn events(log: &mut Log<TestDisk>) -> Vec<SnapshotEvent> {
    let mut all = Vec::new();
    while let Some(event) = log.poll() {
        match event {
            LogEvent::Snapshot(event) => all.push(event),
            LogEvent::DiskFull(_) | LogEvent::SegmentBegun { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    all
}

fn state() -> Vec<Bytes> {
    (0..9_usize)
        .map(|n| Bytes::from(vec![n as u8; 400 * n + 1]))
        .collect()
}

pub(super) fn write(log: &mut Log<TestDisk>, meta: &'static [u8]) -> Vec<SnapshotEvent> {
    log.begin_snapshot(header(meta));
    let mut all = events(log);
    for piece in state() {
        log.snapshot_piece(piece);
        all.extend(events(log));
    }
    log.end_snapshot();
    all.extend(events(log));
    all
}

pub(super) fn read(log: &mut Log<TestDisk>, offset: u64, bytes: u64) -> Option<(SnapshotFile, Bytes)> {
    log.read_snapshot(7, LAST, offset, bytes);
    match events(log).pop() {
        Some(SnapshotEvent::Read { token: 7, found }) => found,
        other => panic!("{other:?}"),
    }
}

/// Everything in a snapshot that is on disk.
fn content(log: &mut Log<TestDisk>) -> (SnapshotHeader, Vec<u8>) {
    let (file, bytes) = read(log, 0, u64::MAX >> 1).expect("there");
    assert_eq!(file.bytes, bytes.len() as u64);
    let (header, sum) = SnapshotHeader::read(&bytes).expect("sound");
    let mut rest = bytes.slice(SnapshotHeader::len_of(&bytes).expect("sound")..);
    let (mut pieces, mut state) = (Pieces::new(CLUSTER, sum), Vec::new());
    while let Some(Taken::Piece(piece)) = pieces.take(&rest).expect("sound") {
        rest = rest.slice(PIECE_HEAD_BYTES + piece.len()..);
        state.extend_from_slice(&piece);
    }
    (header, state)
}

pub(super) fn is_whole(log: &mut Log<TestDisk>, meta: &'static [u8]) {
    assert_eq!(content(log), (header(meta), state().concat()));
}

/// Lets a node receive what another has, in portions; gives what it had to say.
pub(super) fn transfer(to: &mut Log<TestDisk>, from: &mut Log<TestDisk>, portion: u64) -> Vec<SnapshotEvent> {
    to.receive_snapshot(LAST);
    let mut all = events(to);
    while let Some(SnapshotEvent::Receiving { at, .. }) = all.last() {
        let (_, bytes) = read(from, *at, portion).expect("there");
        assert!(!bytes.is_empty());
        to.snapshot_received(LAST, *at, &bytes);
        let more = events(to);
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    all
}

#[test]
fn a_snapshot_is_written_and_found_again() {
    let disk = fresh(0);
    let mut node = log(&disk);
    let told = write(&mut node, b"meta");
    assert!(matches!(told.last(), Some(SnapshotEvent::Written(_))), "{told:?}");
    is_whole(&mut node, b"meta");
    drop(node);
    disk.crash(Crash::LoseAll);
    let (mut node, found) = open(&disk).expect("opened");
    assert_eq!(found.snapshots.len(), 1);
    assert_eq!(*found.snapshots[0].header, header(b"meta"));
    assert_eq!(found.restored.snapshot, Some((LAST, Position(0))));
    is_whole(&mut node, b"meta");
    let again = write(&mut node, b"other");
    assert!(
        matches!(again.first(), Some(SnapshotEvent::Refused { .. })),
        "{again:?}"
    );
    node.remove_snapshot(LAST);
    assert_eq!(events(&mut node), [SnapshotEvent::Removed { last: LAST }]);
    assert_eq!(read(&mut node, 0, 1), None);
    assert!(!disk.names().iter().any(|n| n.starts_with("snapshots/")));
}

/// The state in the snapshot on this disk, as a machine would read it; `bytes` at once.
fn read_state(disk: &TestDisk, file: &SnapshotFile, bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut from = log(disk).snapshot_state(file);
    let (mut all, mut portion) = (Vec::new(), vec![0; bytes]);
    loop {
        match from.read(&mut portion) {
            Ok(0) => return Ok(all),
            Ok(length) => all.extend_from_slice(&portion[..length]),
            Err(error) => {
                let again = from.read(&mut portion).expect_err("it stays so").to_string();
                assert_eq!(error.to_string(), again);
                return Err(error);
            }
        }
    }
}

#[test]
fn the_state_is_read_in_any_portions_and_its_end_is_told() {
    let disk = fresh(1);
    let mut log = log(&disk);
    let Some(SnapshotEvent::Written(file)) = write(&mut log, b"sessions").pop() else {
        panic!("not written")
    };
    drop(log);
    for bytes in [1, 7, 400, 1 << 20] {
        let read = read_state(&disk, &file, bytes).expect("sound");
        assert_eq!(read, state().concat());
    }
}

/// Writes a snapshot of two short pieces.
fn write_short(log: &mut Log<TestDisk>) -> SnapshotFile {
    log.begin_snapshot(header(b""));
    for piece in [&b"one"[..], b"two"] {
        events(log);
        log.snapshot_piece(Bytes::from_static(piece));
    }
    log.end_snapshot();
    match events(log).pop() {
        Some(SnapshotEvent::Written(file)) => file,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_anywhere_in_a_snapshot_is_told_before_any_of_it_is_given() {
    let disk = fresh(1);
    let file = write_short(&mut log(&disk));
    let names = disk.names();
    let name = names.iter().find(|n| n.ends_with(".snap")).expect("a name");
    let (sound, whole) = (disk.content(name), b"onetwo".to_vec());
    let log = log(&disk);
    for place in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[place] ^= 1;
        let cut = sound[..place].to_vec();
        for content in [damaged, cut] {
            disk.set_content(name, &content);
            let mut read = Vec::new();
            let error = log.snapshot_state(&file).read_to_end(&mut read);
            let error = error.expect_err("it is damaged").to_string();
            assert!(error.contains(name) && error.contains("is damaged"), "{error}");
            assert!(whole.starts_with(&read), "byte {place}");
        }
    }
    disk.set_content(name, &[&sound[..], &[0]].concat());
    assert!(log.snapshot_state(&file).read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn pieces_that_change_places_are_no_state() {
    let disk = fresh(1);
    let mut log = log(&disk);
    let file = write_short(&mut log);
    let names = disk.names();
    let name = names.iter().find(|n| n.ends_with(".snap")).expect("a name");
    let sound = disk.content(name);
    let (head, length) = (header(b"").encode().len(), PIECE_HEAD_BYTES + 3);
    let mut moved = sound.clone();
    moved[head..head + 2 * length].rotate_left(length);
    disk.set_content(name, &moved);
    let mut read = Vec::new();
    let error = log.snapshot_state(&file).read_to_end(&mut read);
    assert!(error.expect_err("moved").to_string().contains("piece 0") && read.is_empty());
}

#[test]
fn a_snapshot_is_received_byte_for_byte() {
    for portion in [1, 7, 64, 333, 4096, 1 << 20] {
        let (ours, theirs) = (fresh(1), fresh(2));
        let (mut from, mut to) = (log(&ours), log(&theirs));
        write(&mut from, b"meta");
        let told = transfer(&mut to, &mut from, portion);
        assert!(
            matches!(told.last(), Some(SnapshotEvent::Staged(_))),
            "{portion}: {told:?}"
        );
        is_whole(&mut to, b"meta");
        drop(to);
        theirs.crash(Crash::LoseAll);
        is_whole(&mut log(&theirs), b"meta");
    }
}

#[test]
fn damage_on_the_way_is_found_wherever_it_is() {
    let ours = fresh(1);
    let mut from = log(&ours);
    write(&mut from, b"meta");
    let (_, sound) = read(&mut from, 0, 1 << 20).expect("there");
    for n in (0..sound.len()).step_by(61) {
        let disk = fresh(2);
        let mut to = log(&disk);
        let mut damaged = sound.to_vec();
        damaged[n] ^= 1;
        to.receive_snapshot(LAST);
        events(&mut to);
        to.snapshot_received(LAST, 0, &damaged.into());
        let told = events(&mut to);
        assert!(
            !told.iter().any(|e| matches!(e, SnapshotEvent::Staged(_))),
            "byte {n}: {told:?}"
        );
        // It is received again, whatever was left.
        let told = transfer(&mut to, &mut from, 999);
        assert!(
            matches!(told.last(), Some(SnapshotEvent::Staged(_))),
            "byte {n}: {told:?}"
        );
        is_whole(&mut to, b"meta");
    }
}

#[test]
fn another_snapshot_of_the_same_name_begins_anew() {
    let (one, other, theirs) = (fresh(1), fresh(2), fresh(3));
    let (mut one, mut other, mut to) = (log(&one), log(&other), log(&theirs));
    write(&mut one, b"one");
    write(&mut other, b"other");
    to.receive_snapshot(LAST);
    events(&mut to);
    let (_, bytes) = read(&mut one, 0, 3000).expect("there");
    to.snapshot_received(LAST, 0, &bytes);
    let told = events(&mut to);
    assert!(matches!(told[..], [SnapshotEvent::Receiving { at: 3000, header, .. }] if header != 0));
    let (_, bytes) = read(&mut other, 0, 1 << 20).expect("there");
    to.snapshot_received(LAST, 0, &bytes);
    assert!(matches!(events(&mut to).last(), Some(SnapshotEvent::Staged(_))));
    is_whole(&mut to, b"other");
}

#[test]
fn what_comes_out_of_order_is_asked_for_again() {
    let (ours, theirs) = (fresh(1), fresh(2));
    let (mut from, mut to) = (log(&ours), log(&theirs));
    write(&mut from, b"meta");
    to.receive_snapshot(LAST);
    events(&mut to);
    let (_, bytes) = read(&mut from, 100, 50).expect("there");
    to.snapshot_received(LAST, 100, &bytes);
    assert!(matches!(
        events(&mut to)[..],
        [SnapshotEvent::Receiving { at: 0, header: 0, .. }]
    ));
}

#[test]
fn a_transfer_goes_on_where_it_was_broken_off() {
    let (ours, theirs) = (fresh(1), fresh(2));
    let mut from = log(&ours);
    write(&mut from, b"meta");
    let (_, bytes) = read(&mut from, 0, 9000).expect("there");
    for crash in CRASHES {
        let disk = theirs.copy();
        let mut to = log(&disk);
        to.receive_snapshot(LAST);
        events(&mut to);
        to.snapshot_received(LAST, 0, &bytes);
        events(&mut to);
        drop(to);
        disk.crash(crash);
        let mut to = log(&disk);
        let told = transfer(&mut to, &mut from, 2000);
        let Some(SnapshotEvent::Receiving { at, .. }) = told.first() else {
            panic!("{told:?}");
        };
        assert!(*at > 5000, "{at}: only the piece that was cut comes again");
        is_whole(&mut to, b"meta");
    }
}

#[test]
fn without_room_there_is_no_snapshot_and_nothing_is_left_of_it() {
    let disk = fresh(1);
    let mut node = log(&disk);
    events(&mut node);
    disk.set_full(true);
    let told = write(&mut node, b"meta");
    assert!(
        matches!(&told[..], [SnapshotEvent::Refused { why, .. }] if why.contains("no room")),
        "{told:?}"
    );
    // Nor if everything is asked for at once.
    node.begin_snapshot(header(b"meta"));
    node.end_snapshot();
    let told = events(&mut node);
    assert!(matches!(&told[..], [SnapshotEvent::Refused { .. }]), "{told:?}");
    disk.set_full(false);
    let told = write(&mut node, b"meta");
    assert!(matches!(told.last(), Some(SnapshotEvent::Written(_))), "{told:?}");
}

#[test]
fn what_is_given_up_leaves_nothing_behind() {
    let (ours, theirs) = (fresh(1), fresh(2));
    let (mut from, mut to) = (log(&ours), log(&theirs));
    from.begin_snapshot(header(b"meta"));
    from.snapshot_piece(Bytes::from_static(b"one"));
    from.abandon_snapshot();
    events(&mut from);
    assert!(
        !ours.names().iter().any(|n| n.starts_with("snapshots/")),
        "{:?}",
        ours.names()
    );
    write(&mut from, b"meta");
    let (_, bytes) = read(&mut from, 0, 5000).expect("there");
    to.receive_snapshot(LAST);
    events(&mut to);
    to.snapshot_received(LAST, 0, &bytes);
    to.remove_snapshot(LAST);
    events(&mut to);
    assert!(
        !theirs.names().iter().any(|n| n.starts_with("snapshots/")),
        "{:?}",
        theirs.names()
    );
    let told = transfer(&mut to, &mut from, 3000);
    assert!(matches!(told.last(), Some(SnapshotEvent::Staged(_))), "{told:?}");
}

/// `events` panics if the log fails.
#[test]
fn a_transfer_that_gives_way_before_its_file_is_made_has_left_nothing_to_remove() {
    let next = LogId::new(Term(0), Index(2));
    for then in [next, LAST] {
        let mut log = log(&fresh(1));
        log.receive_snapshot(LAST);
        log.receive_snapshot(next);
        log.receive_snapshot(then);
        let told = events(&mut log);
        let awaited =
            |e: &SnapshotEvent| matches!(e, SnapshotEvent::Receiving { last, at: 0, .. } if *last == then);
        assert!(told.last().is_some_and(awaited), "{told:?}");
    }
}

#[test]
fn a_crash_at_every_operation_leaves_a_whole_snapshot_or_none() {
    let ours = fresh(1);
    let mut from = log(&ours);
    write(&mut from, b"meta");
    let whole = {
        let disk = fresh(2);
        let before = disk.operations();
        let mut to = log(&disk);
        transfer(&mut to, &mut from, 1500);
        to.remove_snapshot(LAST);
        events(&mut to);
        write(&mut to, b"own");
        disk.operations() - before
    };
    for operation in 0..whole * 2 {
        for (n, crash) in CRASHES.into_iter().enumerate() {
            let disk = fresh(2);
            let mut to = log(&disk);
            disk.fail_power_at(operation);
            let mut told = transfer(&mut to, &mut from, 1500);
            let is_staged =
                |e: &SnapshotEvent| matches!(e, SnapshotEvent::Staged(_) | SnapshotEvent::Written(_));
            let staged = told.iter().any(is_staged);
            if staged {
                to.remove_snapshot(LAST);
                told.extend(events(&mut to));
                told.extend(write(&mut to, b"own"));
            }
            let removed = told.contains(&SnapshotEvent::Removed { last: LAST });
            let written = told.last().is_some_and(is_staged);
            drop(to);
            disk.reseed(operation * 4 + n as u64);
            disk.crash(crash);
            let mut to = log(&disk);
            match (written, removed) {
                (true, true) => is_whole(&mut to, b"own"),
                // What was staged may have been removed, and what is written then not be there yet.
                _ => {
                    let told = transfer(&mut to, &mut from, 1500);
                    assert!(
                        is_staged(told.last().expect("something")) || read(&mut to, 0, 1).is_some(),
                        "{told:?}"
                    );
                    let (header, state) = content(&mut to);
                    assert_eq!(state, self::state().concat());
                    assert!(header.meta == b"meta"[..] || header.meta == b"own"[..]);
                }
            }
        }
    }
}

fn note(index: u64, meta: &'static [u8]) -> SnapshotHeader {
    let mut note = header(meta);
    note.base.last.index = Index(index);
    note
}

/// Opens the log, and gives the note that is found.
fn noted(disk: &TestDisk) -> Option<SnapshotHeader> {
    open(disk).expect("opened").1.note
}

#[test]
fn the_newest_note_is_found_and_those_before_it_go() {
    let disk = fresh(1);
    assert_eq!(noted(&disk), None);
    let mut log = log(&disk);
    for (index, meta) in [(1, &b"one"[..]), (2, b"two"), (2, b"again"), (3, b"three")] {
        log.keep_note(note(index, meta));
        assert!(events(&mut log).is_empty(), "nothing is told");
    }
    drop(log);
    let notes = || disk.names().into_iter().filter(|name| name.contains("note"));
    assert_eq!(noted(&disk), Some(note(3, b"three")));
    assert_eq!(notes().count(), 1);
    // One that is damaged costs the note, and no more.
    let name = notes().next().expect("there");
    let mut content = disk.content(&name);
    *content.last_mut().expect("bytes") ^= 1;
    let at = content.len() - SNAPSHOT_END_BYTES - 1;
    content[at] ^= 1;
    disk.set_content(&name, &content);
    assert_eq!(noted(&disk), None);
    let mut log = open(&disk).expect("opened").0;
    log.keep_note(note(5, b"five"));
    events(&mut log);
    drop(log);
    assert_eq!((noted(&disk), notes().count()), (Some(note(5, b"five")), 1));
}

#[test]
fn a_crash_at_every_operation_leaves_a_note_or_the_one_before() {
    let keep = |disk: &TestDisk| {
        let Ok((mut log, _)) = open(disk) else { return };
        log.keep_note(note(9, b"new"));
        while log.poll().is_some() {}
    };
    let before = fresh(3);
    let mut log = log(&before);
    log.keep_note(note(4, b"old"));
    events(&mut log);
    drop(log);
    let whole = {
        let disk = before.copy();
        let begun = disk.operations();
        keep(&disk);
        disk.operations() - begun
    };
    let mut seen = [false; 2];
    for operation in 0..whole * 2 {
        for (n, crash) in CRASHES.into_iter().enumerate() {
            let disk = before.copy();
            disk.reseed(operation * 4 + n as u64);
            disk.fail_power_at(operation);
            keep(&disk);
            disk.crash(crash);
            let found = noted(&disk).expect("a note");
            let new = found == note(9, b"new");
            assert!(
                new || found == note(4, b"old"),
                "operation {operation}: {found:?}"
            );
            seen[usize::from(new)] = true;
        }
    }
    assert_eq!(seen, [true; 2]);
}
