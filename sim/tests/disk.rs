//! What the simulated disk keeps and what it loses.

use bytes::Bytes;
use kontiki_consensus::{Duration, Time};
use kontiki_log::disk::{Disk, Done, FileId, Op};
use kontiki_sim::disk::{DiskProfile, Severity, SimDisk};
use kontiki_sim::random::Random;
use std::io::ErrorKind;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new("a disk", Random::new(seed), DiskProfile::HEALTHY)
}

fn perform(disk: &mut SimDisk, op: Op) -> Result<Done, ErrorKind> {
    let id = disk.submit(op);
    let completion = disk.wait().expect("something is under way");
    assert_eq!(completion.id, id);
    completion.result.map_err(|e| e.kind)
}

fn file(disk: &mut SimDisk, op: Op) -> FileId {
    match perform(disk, op) {
        Ok(Done::Opened(file, _)) => file,
        other => panic!("no file: {other:?}"),
    }
}

fn create(disk: &mut SimDisk, name: &str, bytes: u64) -> FileId {
    file(
        disk,
        Op::Create {
            name: name.to_owned(),
            bytes,
            within: 0,
            resumes: false,
        },
    )
}

fn open(disk: &mut SimDisk, name: &str) -> FileId {
    file(
        disk,
        Op::Open {
            name: name.to_owned(),
        },
    )
}

fn sync_directory(disk: &mut SimDisk) {
    perform(disk, Op::SyncDirectory { name: String::new() }).expect("the directory is there");
}

fn write_op(file: FileId, offset: u64, byte: u8, length: usize, sync: bool) -> Op {
    Op::Write {
        file,
        offset,
        buffers: vec![Bytes::from(vec![byte; length])],
        sync,
    }
}

fn read(disk: &mut SimDisk, file: FileId) -> Vec<u8> {
    match perform(
        disk,
        Op::Read {
            file,
            offset: 0,
            bytes: u64::MAX,
        },
    ) {
        Ok(Done::Read(bytes)) => bytes.to_vec(),
        other => panic!("nothing read: {other:?}"),
    }
}

fn names(disk: &mut SimDisk) -> Vec<String> {
    match perform(disk, Op::List { name: String::new() }) {
        Ok(Done::Listed(names)) => names.into_iter().map(|(name, _)| name).collect(),
        other => panic!("no names: {other:?}"),
    }
}

fn with_file(seed: u64, bytes: u64) -> (SimDisk, FileId) {
    let mut disk = disk(seed);
    let file = create(&mut disk, "a", bytes);
    sync_directory(&mut disk);
    (disk, file)
}

#[test]
fn what_is_synced_survives_every_crash() {
    for (seed, severity) in [Severity::LoseAll, Severity::KeepAll, Severity::Torn]
        .into_iter()
        .enumerate()
    {
        let (mut disk, file) = with_file(seed as u64, 4096);
        perform(&mut disk, write_op(file, 100, 7, 2000, true)).expect("it fits");
        disk.crash(severity);
        let file = open(&mut disk, "a");
        assert_eq!(read(&mut disk, file)[100..2100], [7; 2000], "{severity:?}");
    }
}

#[test]
fn what_is_not_synced_is_seen_until_the_power_fails() {
    let (mut disk, file) = with_file(1, 4096);
    perform(&mut disk, write_op(file, 0, 7, 1000, false)).expect("it fits");
    assert_eq!(read(&mut disk, file)[..1000], [7; 1000]);
    disk.crash(Severity::LoseAll);
    let file = open(&mut disk, "a");
    assert_eq!(read(&mut disk, file), [0; 4096]);
}

#[test]
fn a_killed_process_leaves_the_page_cache_which_a_later_power_loss_may_take() {
    let (mut disk, file) = with_file(1, 4096);
    perform(&mut disk, write_op(file, 0, 7, 1000, false)).expect("it fits");
    disk.kill();
    let file = open(&mut disk, "a");
    assert_eq!(read(&mut disk, file)[..1000], [7; 1000]);
    let mut image = disk.image();
    let copy = open(&mut image, "a");
    assert_eq!(
        read(&mut image, copy),
        [0; 4096],
        "an image holds only what is certain"
    );
    disk.crash(Severity::LoseAll);
    let file = open(&mut disk, "a");
    assert_eq!(read(&mut disk, file), [0; 4096]);
}

#[test]
fn a_torn_write_keeps_any_of_its_sectors_whole() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (mut disk, file) = with_file(seed, 2048);
        perform(&mut disk, write_op(file, 0, 7, 1536, false)).expect("it fits");
        disk.crash(Severity::Torn);
        let file = open(&mut disk, "a");
        let content = read(&mut disk, file);
        let sectors: Vec<u8> = content.chunks(512).map(|s| s[0]).collect();
        assert!(
            content.chunks(512).all(|s| s.iter().all(|b| *b == s[0])),
            "a sector is torn"
        );
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 8, "each of three sectors is there or not");
}

#[test]
fn a_sector_written_twice_holds_one_of_its_states() {
    for seed in 0..100 {
        let (mut disk, file) = with_file(seed, 512);
        perform(&mut disk, write_op(file, 0, 1, 512, false)).expect("it fits");
        perform(&mut disk, write_op(file, 100, 2, 100, false)).expect("it fits");
        disk.crash(Severity::Torn);
        let file = open(&mut disk, "a");
        let content = read(&mut disk, file);
        assert!(matches!((content[0], content[150]), (0, 0) | (1, 1) | (1, 2)));
    }
}

#[test]
fn a_write_under_way_at_a_crash_may_be_there_in_part() {
    let mut kept = 0;
    for seed in 0..100 {
        let (mut disk, file) = with_file(seed, 2048);
        disk.submit(write_op(file, 0, 7, 2048, true));
        let damage = disk.crash(Severity::Torn);
        assert_eq!(damage.in_flight, 1);
        let file = open(&mut disk, "a");
        kept += usize::from(read(&mut disk, file).contains(&7));
    }
    assert!((20..100).contains(&kept), "{kept} of 100 left something");
}

#[test]
fn a_write_that_waits_for_another_leaves_nothing() {
    let (mut disk, file) = with_file(5, 2048);
    disk.submit(write_op(file, 0, 7, 512, true));
    disk.submit(write_op(file, 1024, 8, 512, true));
    disk.crash(Severity::KeepAll);
    let file = open(&mut disk, "a");
    assert!(!read(&mut disk, file).contains(&8));
}

#[test]
fn names_are_durable_once_their_directory_is_synced() {
    let mut disk = disk(1);
    create(&mut disk, "kept", 10);
    sync_directory(&mut disk);
    create(&mut disk, "lost", 10);
    perform(
        &mut disk,
        Op::Rename {
            from: "kept".to_owned(),
            to: "renamed".to_owned(),
        },
    )
    .expect("it is there");
    assert_eq!(names(&mut disk), ["lost", "renamed"]);
    disk.crash(Severity::LoseAll);
    assert_eq!(names(&mut disk), ["kept"]);
}

#[test]
fn a_removed_file_may_come_back_with_its_content() {
    let (mut disk, file) = with_file(1, 10);
    perform(&mut disk, write_op(file, 0, 7, 10, true)).expect("it fits");
    perform(&mut disk, Op::Remove { name: "a".to_owned() }).expect("it is there");
    disk.crash(Severity::LoseAll);
    let file = open(&mut disk, "a");
    assert_eq!(read(&mut disk, file), [7; 10]);
}

#[test]
fn names_are_not_given_twice_and_what_is_missing_is_said() {
    let mut disk = disk(1);
    create(&mut disk, "a", 1);
    assert_eq!(
        perform(
            &mut disk,
            Op::Create {
                name: "a".to_owned(),
                bytes: 1,
                within: 0,
                resumes: false,
            }
        )
        .err(),
        Some(ErrorKind::AlreadyExists)
    );
    assert_eq!(
        perform(&mut disk, Op::Open { name: "b".to_owned() }).err(),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        perform(
            &mut disk,
            Op::Create {
                name: "d/b".to_owned(),
                bytes: 1,
                within: 0,
                resumes: false,
            }
        )
        .err(),
        Some(ErrorKind::NotFound)
    );
}

#[test]
fn power_that_fails_between_two_operations_completes_nothing_more() {
    let (mut disk, file) = with_file(1, 4096);
    disk.fail_power_after(2);
    perform(&mut disk, write_op(file, 0, 1, 512, true)).expect("submitted and completed: two operations");
    assert_eq!(
        perform(&mut disk, write_op(file, 512, 2, 512, true)).err(),
        Some(ErrorKind::Interrupted)
    );
    assert!(disk.power_is_lost());
    assert!(disk.wait().is_none());
    disk.crash(Severity::KeepAll);
    let file = open(&mut disk, "a");
    let content = read(&mut disk, file);
    assert_eq!((content[0], content[512]), (1, 0));
}

#[test]
fn a_stalled_disk_completes_nothing_until_it_goes_on() {
    let (mut disk, file) = with_file(1, 512);
    let until = disk.now().after(Duration::from_millis(1000));
    disk.stall(until);
    disk.submit(write_op(file, 0, 1, 1, true));
    disk.advance(Time(until.0 - 1));
    assert!(disk.poll().is_none());
    assert_eq!(disk.next_due(), Some(until));
    disk.advance(until);
    assert!(disk.poll().is_some());
}

#[test]
fn a_full_disk_makes_no_files_but_takes_writes() {
    let (mut disk, file) = with_file(1, 512);
    disk.set_full(true);
    assert_eq!(
        perform(
            &mut disk,
            Op::Create {
                name: "b".to_owned(),
                bytes: 1,
                within: 0,
                resumes: false,
            }
        )
        .err(),
        Some(ErrorKind::StorageFull)
    );
    perform(&mut disk, write_op(file, 0, 1, 1, true)).expect("the file is there already");
}

#[test]
fn a_sync_that_fails_is_not_made_good_by_the_next_one() {
    let (mut disk, file) = with_file(1, 1024);
    disk.break_writes();
    assert_eq!(
        perform(&mut disk, write_op(file, 0, 1, 512, true)).err(),
        Some(ErrorKind::Other)
    );
    assert!(disk.has_failed());
    disk.heal();
    perform(&mut disk, write_op(file, 512, 2, 512, true)).expect("the disk works again");
    assert_eq!(read(&mut disk, file)[0], 1, "the page cache still shows it");
    disk.crash(Severity::KeepAll);
    let file = open(&mut disk, "a");
    let content = read(&mut disk, file);
    assert_eq!((content[0], content[512]), (0, 2));
}
