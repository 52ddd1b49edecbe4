//! The disk over real directories.

use super::{LOCK, OsDisk, file::OpenFile, work::Thread};
use crate::LogError;
use crate::disk::{Completion, Disk, DiskError, Done, FileId, GROWING, Op};
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A directory of its own for each test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "kontiki-os-disk-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    fn disk(&self) -> OsDisk {
        OsDisk::open(&self.0, || {}).expect("a directory nobody uses")
    }

    fn mode(&self, name: &str) -> u32 {
        let found = fs::metadata(self.0.join(name)).expect("it was made");
        found.permissions().mode() & 0o777
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn perform(disk: &mut OsDisk, op: Op) -> Result<Done, DiskError> {
    let id = disk.submit(op);
    let completion = disk.wait().expect("something is under way");
    assert_eq!(completion.id, id);
    completion.result
}

fn done(disk: &mut OsDisk, op: Op) {
    match perform(disk, op) {
        Ok(Done::Unit) => {}
        other => panic!("not done: {other:?}"),
    }
}

fn refused(disk: &mut OsDisk, op: Op) -> DiskError {
    perform(disk, op).expect_err("it must be refused")
}

fn opened(disk: &mut OsDisk, op: Op) -> (FileId, u64) {
    match perform(disk, op) {
        Ok(Done::Opened(file, bytes)) => (file, bytes),
        other => panic!("no file: {other:?}"),
    }
}

fn create(name: &str, bytes: u64) -> Op {
    Op::Create {
        name: name.to_owned(),
        bytes,
        within: 0,
        resumes: false,
    }
}

fn open(name: &str) -> Op {
    Op::Open {
        name: name.to_owned(),
    }
}

fn remove(name: &str) -> Op {
    Op::Remove {
        name: name.to_owned(),
    }
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename {
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

fn sync_directory(name: &str) -> Op {
    Op::SyncDirectory {
        name: name.to_owned(),
    }
}

fn make_directory(name: &str) -> Op {
    Op::MakeDirectory {
        name: name.to_owned(),
    }
}

fn write(file: FileId, offset: u64, buffers: &[&'static [u8]], sync: bool) -> Op {
    Op::Write {
        file,
        offset,
        buffers: buffers.iter().map(|b| Bytes::from_static(b)).collect(),
        sync,
    }
}

fn read(disk: &mut OsDisk, file: FileId, offset: u64, bytes: u64) -> Vec<u8> {
    match perform(disk, Op::Read { file, offset, bytes }) {
        Ok(Done::Read(bytes)) => bytes.to_vec(),
        other => panic!("nothing read: {other:?}"),
    }
}

fn listed(disk: &mut OsDisk, name: &str) -> Vec<(String, u64)> {
    match perform(
        disk,
        Op::List {
            name: name.to_owned(),
        },
    ) {
        Ok(Done::Listed(names)) => names,
        other => panic!("no names: {other:?}"),
    }
}

fn words(result: Result<OsDisk, LogError>) -> String {
    match result {
        Err(LogError::Wrong(words)) => words,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_new_file_is_all_zeros_and_private() {
    let place = Place::new();
    let mut disk = place.disk();
    let bytes = (2 << 20) + 5;
    let (file, length) = opened(&mut disk, create("seg-1", bytes));
    assert_eq!(length, bytes);
    assert_eq!(read(&mut disk, file, 0, u64::MAX), vec![0; (2 << 20) + 5]);
    assert_eq!(place.mode("seg-1"), 0o600);
    let error = refused(&mut disk, create("seg-1", 10));
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert_eq!(
        fs::metadata(place.0.join("seg-1")).expect("still there").len(),
        bytes
    );
}

#[test]
fn several_buffers_lie_one_behind_the_other() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 12));
    done(&mut disk, write(file, 2, &[b"ab", b"", b"cde", b"f"], true));
    done(&mut disk, write(file, 10, &[b"xy"], false));
    done(&mut disk, write(file, 0, &[], true));
    assert_eq!(read(&mut disk, file, 0, 100), b"\0\0abcdef\0\0xy");
    assert_eq!(read(&mut disk, file, 3, 4), b"bcde");
}

#[test]
fn more_buffers_than_the_system_takes_at_once() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 9000));
    let buffers: Vec<Bytes> = (0..3000_u32).map(|n| Bytes::from(vec![n as u8; 3])).collect();
    done(
        &mut disk,
        Op::Write {
            file,
            offset: 0,
            buffers: buffers.clone(),
            sync: false,
        },
    );
    assert_eq!(read(&mut disk, file, 0, 9000), buffers.concat());
}

#[test]
fn a_file_in_the_folder_of_those_that_grow_grows() {
    let place = Place::new();
    let mut disk = place.disk();
    done(&mut disk, make_directory(GROWING));
    let (file, bytes) = opened(&mut disk, create("snapshots/a", 0));
    assert_eq!(bytes, 0);
    done(&mut disk, write(file, 0, &[b"one", b"two"], false));
    done(&mut disk, write(file, 6, &[b"three"], true));
    refused(&mut disk, write(file, 12, &[b"a gap before it"], false));
    assert_eq!(read(&mut disk, file, 3, 100), b"twothree");
    done(&mut disk, Op::Close { file });
    done(&mut disk, rename("snapshots/a", "snapshots/b"));
    done(&mut disk, sync_directory(GROWING));
    let (again, bytes) = opened(&mut disk, open("snapshots/b"));
    assert_eq!(bytes, 11);
    done(&mut disk, write(again, 11, &[b"!"], true));
    done(&mut disk, remove("snapshots/b"));
    assert_eq!(listed(&mut disk, GROWING), []);
}

#[test]
fn what_is_cold_is_as_it_was() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 8));
    done(&mut disk, write(file, 0, &[b"synced"], true));
    disk.cool(file);
    done(&mut disk, write(file, 6, &[b"!"], false));
    disk.cool(file);
    disk.cool(FileId(99));
    assert_eq!(read(&mut disk, file, 0, 8), b"synced!\0");
    assert!(disk.poll().is_none(), "nobody is answered for a hint");
}

#[test]
fn a_read_ends_with_the_file() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 4));
    done(&mut disk, write(file, 0, &[b"abcd"], false));
    assert_eq!(read(&mut disk, file, 2, 10), b"cd");
    assert_eq!(read(&mut disk, file, 4, 1), b"");
    assert_eq!(read(&mut disk, file, u64::MAX, u64::MAX), b"");
}

#[test]
fn writes_stay_in_order_and_close_comes_after_them() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 8));
    let mut asked = Vec::new();
    for round in 0..200_u64 {
        let buffers = vec![Bytes::from(round.to_le_bytes().to_vec())];
        asked.push(disk.submit(Op::Write {
            file,
            offset: 0,
            buffers,
            sync: round % 50 == 0,
        }));
    }
    asked.push(disk.submit(Op::Close { file }));
    asked.push(disk.submit(write(file, 0, &[b"too late"], false)));
    asked.push(disk.submit(open("seg-1")));
    let answers: Vec<Completion> = std::iter::from_fn(|| disk.wait()).collect();
    assert_eq!(answers.iter().map(|a| a.id).collect::<Vec<_>>(), asked);
    let failures: Vec<&DiskError> = answers.iter().filter_map(|a| a.result.as_ref().err()).collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].to_string().contains("it is not open"),
        "{}",
        failures[0]
    );
    let Some(Ok(Done::Opened(again, 8))) = answers.last().map(|a| a.result.clone()) else {
        panic!("not opened")
    };
    assert_ne!(again, file);
    assert_eq!(read(&mut disk, again, 0, 8), 199_u64.to_le_bytes());
}

#[test]
fn reads_are_served_while_a_file_is_made() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 4));
    let long = disk.submit(create("seg-2", 128 << 20));
    let first = disk.submit(Op::Read {
        file,
        offset: 0,
        bytes: 4,
    });
    let second = disk.submit(Op::Read {
        file,
        offset: 1,
        bytes: 1,
    });
    let write = disk.submit(write(file, 0, &[b"abcd"], true));
    let order: Vec<_> = std::iter::from_fn(|| disk.wait()).map(|c| c.id).collect();
    assert_eq!(order.len(), 4);
    assert_eq!(
        order.last(),
        Some(&long),
        "everything else is done before the long file"
    );
    let place_of = |id| order.iter().position(|o| *o == id);
    assert!(place_of(first) < place_of(second) && place_of(write).is_some());
}

#[test]
fn names_are_made_changed_listed_and_removed() {
    let place = Place::new();
    let mut disk = place.disk();
    done(&mut disk, make_directory("snapshots"));
    done(&mut disk, make_directory("snapshots"));
    assert_eq!(place.mode("snapshots"), 0o700);
    opened(&mut disk, create("seg-2", 7));
    opened(&mut disk, create("snapshots/a", 3));
    let all = listed(&mut disk, "");
    assert_eq!(
        all,
        [("seg-2".to_owned(), 7), ("snapshots".to_owned(), 0)],
        "in order, without the lock"
    );
    done(&mut disk, rename("snapshots/a", "seg-1"));
    done(&mut disk, sync_directory("snapshots"));
    done(&mut disk, sync_directory(""));
    assert_eq!(listed(&mut disk, "snapshots"), []);
    assert_eq!(
        refused(&mut disk, rename("seg-1", "seg-2")).kind,
        ErrorKind::AlreadyExists
    );
    assert_eq!(opened(&mut disk, open("seg-2")).1, 7, "not overwritten");
    done(&mut disk, remove("seg-2"));
    assert_eq!(listed(&mut disk, "").len(), 2);
}

#[test]
fn errors_say_what_was_tried_on_what() {
    let place = Place::new();
    let mut disk = place.disk();
    let path = |name: &str| place.0.join(name).display().to_string();
    let error = refused(&mut disk, open("none"));
    assert_eq!(error.what, format!("open {}", path("none")));
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().contains("No such file"), "{error}");
    assert_eq!(refused(&mut disk, remove("none")).kind, ErrorKind::NotFound);
    assert_eq!(
        refused(&mut disk, rename("none", "other")).kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        refused(&mut disk, create("none/file", 1)).kind,
        ErrorKind::NotFound
    );
    let (file, _) = opened(&mut disk, create("seg-1", 8));
    let error = refused(&mut disk, write(file, 6, &[b"ab", b"c"], true));
    assert_eq!(
        error.to_string(),
        format!("write 3 bytes at 6 of {}: the file has 8 bytes", path("seg-1"))
    );
    assert_eq!(
        refused(&mut disk, write(file, u64::MAX, &[b"a"], true)).kind,
        ErrorKind::InvalidInput
    );
    done(&mut disk, write(file, 0, &[b"sound"], true));
    assert_eq!(
        refused(&mut disk, sync_directory("seg-1")).kind,
        ErrorKind::NotADirectory
    );
    assert_eq!(
        refused(&mut disk, make_directory("seg-1")).kind,
        ErrorKind::AlreadyExists
    );
    done(&mut disk, make_directory("d"));
    assert_eq!(refused(&mut disk, open("d")).kind, ErrorKind::IsADirectory);
    fs::File::options()
        .write(true)
        .open(path("seg-1"))
        .and_then(|f| f.set_len(2))
        .expect("cut from outside");
    let error = refused(
        &mut disk,
        Op::Read {
            file,
            offset: 0,
            bytes: 8,
        },
    );
    assert_eq!(error.what, format!("read 8 bytes at 0 of {}", path("seg-1")));
    assert_eq!(error.kind, ErrorKind::UnexpectedEof);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let place = Place::new();
    let mut disk = place.disk();
    for name in [
        "..",
        ".",
        "",
        "/etc/hosts",
        "../x",
        "a/../b",
        "a/b/c",
        "a//b",
        "a/",
        "./a",
        "a\0b",
        LOCK,
    ] {
        for op in [
            create(name, 1),
            open(name),
            remove(name),
            rename(name, "x"),
            rename("x", name),
        ] {
            let error = refused(&mut disk, op);
            assert_eq!(error.kind, ErrorKind::InvalidInput, "{name:?}: {error}");
        }
        if !name.is_empty() {
            assert_eq!(
                refused(&mut disk, sync_directory(name)).kind,
                ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
    }
    assert_eq!(listed(&mut disk, ""), []);
}

#[test]
fn a_file_whose_write_failed_is_never_written_again() {
    let place = Place::new();
    let mut disk = place.disk();
    let (good, _) = opened(&mut disk, create("seg-1", 4));
    let (other, _) = opened(&mut disk, create("seg-2", 4));
    // A handle that may not write makes the system fail the write, as a broken device would.
    let path = place.0.join("seg-1");
    let found = fs::metadata(&path).expect("it is there");
    let read_only = OpenFile::new(File::open(&path).expect("readable"), path.clone(), &found, false);
    let broken = FileId(1000);
    disk.files.insert(broken, Arc::new(read_only));
    let first = refused(&mut disk, write(broken, 1, &[b"a", b"b"], true));
    assert_eq!(first.what, format!("write 2 bytes at 1 of {}", path.display()));
    for file in [broken, good] {
        let later = refused(&mut disk, write(file, 0, &[b"z"], true));
        assert!(later.message.contains("after an earlier failure") && later.message.contains(&first.message));
    }
    assert_eq!(fs::read(&path).expect("readable"), [0; 4]);
    done(&mut disk, write(other, 0, &[b"z"], true));
}

#[test]
fn one_directory_serves_one_disk() {
    let place = Place::new();
    let mut disk = place.disk();
    assert_eq!(place.mode(LOCK), 0o600);
    let refusal = words(OsDisk::open(&place.0, || {}));
    assert!(refusal.contains(&place.0.display().to_string()), "{refusal}");
    assert!(
        refusal.contains(&format!(
            "in use by a running node (process {})",
            std::process::id()
        )),
        "{refusal}"
    );
    assert_eq!(disk.name(), place.0.display().to_string());
    opened(&mut disk, create("seg-1", 1));
    drop(disk);
    drop(place.disk());
}

#[test]
fn a_missing_directory_is_explained_and_can_be_made() {
    let place = Place::new();
    let new = place.0.join("a").join("b");
    let refusal = words(OsDisk::open(&new, || {}));
    assert!(
        refusal.contains("there is no data directory") && refusal.contains("kontiki init"),
        "{refusal}"
    );
    assert!(!new.exists());
    drop(OsDisk::create(&new, || {}).expect("it can be made"));
    assert_eq!((place.mode("a"), place.mode("a/b")), (0o700, 0o700));
    drop(OsDisk::create(&new, || {}).expect("it may be there"));
    fs::write(place.0.join("file"), b"").expect("writable");
    let refusal = words(OsDisk::open(place.0.join("file"), || {}));
    assert!(refusal.contains("is not a directory"), "{refusal}");
    assert!(matches!(
        OsDisk::create(place.0.join("file").join("c"), || {}),
        Err(LogError::Disk(_))
    ));
}

#[test]
fn dropping_carries_out_what_was_submitted() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 1000));
    for n in 0..1000 {
        disk.submit(write(file, n, &[b"x"], n % 100 == 0));
    }
    disk.submit(rename("seg-1", "seg-3"));
    drop(disk);
    assert_eq!(
        fs::read(place.0.join("seg-3")).expect("renamed last"),
        vec![b'x'; 1000]
    );
}

#[test]
fn a_panic_of_the_one_who_is_woken_costs_no_answer() {
    let place = Place::new();
    let mut disk = OsDisk::open(&place.0, || panic!("as a test wants")).expect("a directory nobody uses");
    for n in 0..3 {
        done(&mut disk, make_directory(&format!("folder-{n}")));
        let (file, _) = opened(&mut disk, create(&format!("seg-{n}"), 1));
        assert_eq!(read(&mut disk, file, 0, 1), [0]);
    }
}

/// A long file takes thousands of syncs, and nobody is going to use it.
#[test]
fn dropping_does_not_wait_for_new_files() {
    let place = Place::new();
    let mut disk = place.disk();
    for name in ["seg-1", "seg-2"] {
        disk.submit(create(name, 1 << 40));
    }
    // The first is under way.
    while fs::read_dir(&place.0).expect("listed").count() < 2 {
        std::thread::yield_now();
    }
    drop(disk);
    let left: Vec<_> = fs::read_dir(&place.0)
        .expect("listed")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    // What there is of them is gone on with.
    assert!(
        left.iter()
            .all(|name| [LOCK, "seg-1", "seg-2"].iter().any(|n| name == n))
    );
    let begun = fs::metadata(place.0.join("seg-1")).expect("it was begun").len();
    assert!(begun < 1 << 40);
}

#[test]
fn a_file_that_was_begun_is_gone_on_with() {
    let place = Place::new();
    let (bytes, there) = (4 << 20, 3 << 20);
    fs::write(place.0.join("seg-1"), vec![0; there]).expect("written");
    let mut disk = place.disk();
    assert_eq!(
        refused(&mut disk, create("seg-1", bytes)).kind,
        ErrorKind::AlreadyExists
    );
    let resume = |bytes| Op::Create {
        name: "seg-1".to_owned(),
        bytes,
        within: 0,
        resumes: true,
    };
    let short = refused(&mut disk, resume(1 << 20));
    assert_eq!(short.kind, ErrorKind::AlreadyExists, "it is longer than that");
    let (file, length) = opened(&mut disk, resume(bytes));
    assert_eq!(length, bytes);
    assert!(read(&mut disk, file, 0, bytes).iter().all(|b| *b == 0));
    let path = place.0.join("seg-1");
    let first = std::cell::Cell::new(None);
    let new = super::file::New {
        bytes: 8 << 20,
        grows: false,
        resumes: true,
    };
    let mut told = |done| {
        first.set(first.get().or(Some(done)));
        true
    };
    super::file::create(path, new, &disk.directory.reserve, &mut told).expect("made");
    assert_eq!(first.get(), Some(3 << 20), "but for the last pieces, in doubt");
}

/// All other descriptors of the process are in use: nothing of the disk fails.
#[test]
fn the_disk_has_descriptors_of_its_own() {
    let place = Place::new();
    let mut disk = place.disk();
    done(&mut disk, make_directory("log"));
    let held = super::reserve::RESERVE_DESCRIPTORS;
    assert_eq!(disk.directory.reserve.held(), held);
    let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
    let error = super::failed("open a file".to_owned(), &error);
    assert!(crate::room::is_full(&error), "it is tried again");
}

/// No read stands behind a write into the folder of snapshots, or behind its sync.
#[test]
fn reads_go_to_a_thread_of_their_own() {
    let place = Place::new();
    let mut disk = place.disk();
    done(&mut disk, make_directory("snapshots"));
    let (piece, _) = opened(&mut disk, create("snapshots/a", 0));
    let read = Op::Read {
        file: piece,
        offset: 0,
        bytes: 1,
    };
    assert_eq!(disk.work(read).goes_to(), Some(Thread::Reads));
    let synced = write(piece, 0, &[b"piece"], true);
    assert_eq!(disk.work(synced).goes_to(), Some(Thread::Aside));
}

#[test]
fn nothing_under_way_is_nothing_to_wait_for() {
    let place = Place::new();
    let mut disk = place.disk();
    assert!(disk.wait().is_none() && disk.poll().is_none());
    done(&mut disk, sync_directory(""));
    assert!(disk.wait().is_none() && disk.poll().is_none());
}

#[test]
fn whoever_polls_until_none_after_each_wake_gets_everything() {
    let place = Place::new();
    let wakes = Arc::new(AtomicUsize::new(0));
    let (told, hear) = std::sync::mpsc::channel();
    let counted = Arc::clone(&wakes);
    let mut disk = OsDisk::open(&place.0, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        told.send(()).expect("the test hears until the disk is dropped");
    })
    .expect("a directory nobody uses");
    let (mut submitted, mut taken) = (0, 0);
    while taken < 3000 {
        if submitted < 3000 {
            disk.submit(open("none"));
            disk.submit(open("none"));
            disk.submit(create("none/file", 1));
            submitted += 3;
        }
        hear.recv_timeout(Duration::from_secs(60))
            .expect("a wake for what is under way");
        taken += std::iter::from_fn(|| disk.poll()).count();
    }
    assert!((1..=3000).contains(&wakes.load(Ordering::Relaxed)));
    assert!(disk.poll().is_none());
}

#[test]
fn a_small_write_that_is_alone_is_held_back_and_carried_out() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 64 << 10));
    disk.hold_writes();
    let held = disk.submit(write(file, 0, &[b"held"], true));
    assert!(disk.holds_write());
    assert!(disk.poll().is_none(), "nobody has written it");
    disk.carry_out();
    assert!(!disk.holds_write());
    let completion = disk.poll().expect("it is written");
    assert!(completion.id == held && matches!(completion.result, Ok(Done::Unit)));
    assert_eq!(read(&mut disk, file, 0, 4), b"held");
}

#[test]
fn what_is_not_small_or_alone_or_synced_is_not_held_back() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 64 << 10));
    disk.submit(write(file, 0, &[b"before"], true));
    disk.hold_writes();
    disk.submit(write(file, 0, &[b"second"], true));
    assert!(!disk.holds_write(), "another one is under way");
    disk.wait().expect("the first");
    disk.wait().expect("the second");
    done(&mut disk, write(file, 0, &[b"not synced"], false));
    disk.submit(write(file, 0, &[&[7; 20 << 10]], true));
    assert!(!disk.holds_write(), "it is large");
    disk.wait().expect("it is written");
}

#[test]
fn what_comes_later_hands_a_held_write_over_and_stays_behind_it() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 64));
    disk.hold_writes();
    let first = disk.submit(write(file, 0, &[b"first"], true));
    let second = disk.submit(write(file, 0, &[b"again"], true));
    assert!(!disk.holds_write());
    disk.carry_out();
    let order = [disk.wait(), disk.wait()].map(|completion| completion.expect("both are done").id);
    assert_eq!(order, [first, second]);
    assert_eq!(read(&mut disk, file, 0, 5), b"again");
}

#[test]
fn a_held_write_is_waited_for_and_survives_the_end_of_the_disk() {
    let place = Place::new();
    let mut disk = place.disk();
    let (file, _) = opened(&mut disk, create("seg-1", 64));
    disk.hold_writes();
    done(&mut disk, write(file, 0, &[b"waited"], true));
    disk.submit(write(file, 6, &[b"dropped"], true));
    assert!(disk.holds_write());
    drop(disk);
    let found = fs::read(place.0.join("seg-1")).expect("it is there");
    assert_eq!(found.get(..13), Some(&b"waiteddropped"[..]));
}
