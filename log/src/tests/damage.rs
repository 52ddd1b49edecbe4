//! Damage: the last write may be torn anywhere, nothing else may.

use super::disk::{Crash, TestDisk};
use super::model::{GROUP, Node, entries, made, open};
use crate::{Fetch, From, LogError, LogEvent};
use kontiki_consensus::{HardState, Index, NodeId, SuspectMark, Term};

const FIRST: &str = "log/0000000000000001.seg";

/// A log whose last write is of this kind, and where that write begins and ends.
fn with_last_write(kind: usize) -> (Node, usize, usize) {
    let disk = TestDisk::new(0);
    made(&disk);
    let mut node = Node::new(disk);
    node.vote(1, Some(2));
    node.append(&[40, 700, 3]);
    node.settle();
    let begin = end_of(&node);
    match kind {
        0 => node.append(&[20]),
        1 => node.append(&[300, 10, 900, 0, 60]),
        2 => node.vote(4, None),
        3 => node.replace(3, &[500, 500]),
        _ => {
            let state = HardState {
                term: Term(3),
                vote: Some(NodeId(3)),
                ..HardState::default()
            };
            node.write(Some(state), Some(4), vec![entries(4, 3, 3, &[100, 800])]);
        }
    }
    node.settle();
    assert!(node.is_settled());
    let end = end_of(&node);
    (node, begin, end)
}

/// Where the next frame begins.
fn end_of(node: &Node) -> usize {
    let content = node.disk.content(FIRST);
    (content.iter().rposition(|b| *b != 0).expect("something") + 1).next_multiple_of(512)
}

/// A twin whose last write was handed over and never acknowledged, with this file.
fn unacknowledged(kind: usize, content: &[u8]) -> Node {
    let disk = TestDisk::new(0);
    made(&disk);
    let mut node = Node::new(disk);
    node.vote(1, Some(2));
    node.append(&[40, 700, 3]);
    node.settle();
    match kind {
        0 => node.append(&[20]),
        1 => node.append(&[300, 10, 900, 0, 60]),
        2 => node.vote(4, None),
        3 => node.replace(3, &[500, 500]),
        _ => {
            let state = HardState {
                term: Term(3),
                vote: Some(NodeId(3)),
                ..HardState::default()
            };
            node.write(Some(state), Some(4), vec![entries(4, 3, 3, &[100, 800])]);
        }
    }
    node.crash(Crash::LoseAll);
    node.disk.set_content(FIRST, content);
    node
}

#[test]
fn the_last_write_may_end_or_be_damaged_at_any_byte() {
    for kind in 0..5 {
        let (node, begin, end) = with_last_write(kind);
        let content = node.disk.content(FIRST);
        let down = unacknowledged(kind, &content);
        for n in begin..end {
            let mut flipped = content.clone();
            flipped[n] ^= 0x40;
            let mut torn = content.clone();
            torn[n..end].fill(0);
            for (is_flipped, damaged) in [(true, flipped), (false, torn)] {
                let mut node = down.twin(down.disk.copy());
                node.disk.set_content(FIRST, &damaged);
                node.reopen();
                // Zeros that fill up the last sector are not looked at, and one that should not be might be a piece that is missing.
                if is_flipped && ![0, 0x40].contains(&content[n]) {
                    assert!(node.suspect, "kind {kind}, byte {n}");
                }
                if n % 8 == 0 {
                    node.check(1000);
                    node.append(&[5]);
                    node.settle();
                    node.crash(Crash::LoseAll);
                    node.reopen();
                    assert_eq!(node.torn_bytes, 0, "what was cut stays away");
                }
            }
        }
    }
}

#[test]
fn the_last_write_may_lack_any_of_its_sectors() {
    let (node, begin, end) = with_last_write(1);
    let content = node.disk.content(FIRST);
    let sectors = (end - begin) / 512;
    assert!(sectors >= 4);
    let down = unacknowledged(1, &content);
    for lost in 0..1 << sectors {
        let mut damaged = content.clone();
        for sector in (0..sectors).filter(|s| lost & (1 << s) != 0) {
            damaged[begin + sector * 512..begin + (sector + 1) * 512].fill(0);
        }
        let mut node = down.twin(down.disk.copy());
        node.disk.set_content(FIRST, &damaged);
        node.reopen();
        node.check(1000);
        assert_eq!(
            node.torn_bytes > 0,
            lost != 0 && lost != (1 << sectors) - 1,
            "{lost:b}"
        );
        assert!(!node.suspect, "{lost:b}: that is a torn write");
    }
}

/// The last frame has rotted; the power fails at each operation of opening the log.
#[test]
fn either_the_damage_is_there_or_the_mark() {
    // In the header of the frame, in a record in its first sector, and in the one that leaves that sector.
    for (kind, byte) in [(1, 30), (1, 120 + 30), (1, 600), (2, 70), (3, 200)] {
        let (node, begin, _) = with_last_write(kind);
        let mut content = node.disk.content(FIRST);
        content[begin + byte] ^= 4;
        let down = unacknowledged(kind, &content);
        let mut whole = 0;
        for operation in 0..200 {
            let mut again = down.twin(down.disk.copy());
            again.disk.set_content(FIRST, &content);
            again.disk.fail_power_at(operation);
            whole += usize::from(open(&again.disk).is_ok());
            again.disk.reseed(operation);
            again.crash(if operation % 2 == 0 {
                Crash::Torn
            } else {
                Crash::LoseAll
            });
            again.may_be_marked = true;
            again.reopen();
            let mark = again.durable.hard_state.suspect;
            assert_ne!(
                mark,
                SuspectMark::ZERO,
                "kind {kind}, byte {byte}, operation {operation}"
            );
            // It stays, in later segments too, and whatever is written.
            again.crash(Crash::LoseAll);
            again.reopen();
            assert!(!again.suspect, "the damage is gone");
            assert_eq!(again.durable.hard_state.suspect, mark);
            again.check(1000);
        }
        assert!(whole > 10, "{whole}");
    }
}

#[test]
fn a_mark_outlives_its_segment() {
    let (node, begin, _) = with_last_write(1);
    let mut content = node.disk.content(FIRST);
    content[begin + 150] ^= 4;
    let mut node = unacknowledged(1, &content);
    node.reopen();
    let mark = node.durable.hard_state.suspect;
    assert!(node.suspect && mark != SuspectMark::ZERO);
    for _ in 0..12 {
        node.append(&[9000]);
        node.settle();
    }
    node.crash(Crash::LoseAll);
    node.reopen();
    assert_eq!(node.durable.hard_state.suspect, mark);
}

#[test]
fn a_record_of_the_torn_write_that_is_sound_is_kept() {
    let (node, begin, _) = with_last_write(1);
    let mut content = node.disk.content(FIRST);
    // The fourth record of five: header of the frame, then 388, 98, 988 and 88 bytes.
    content[begin + 120 + 388 + 98 + 988 + 4] ^= 1;
    let mut down = unacknowledged(1, &content);
    down.reopen();
    assert_eq!(down.last(), 4 + 3);
    down.crash(Crash::LoseAll);
    down.reopen();
    assert_eq!((down.last(), down.torn_bytes), (4 + 3, 0));
}

#[test]
fn damage_before_the_last_write_is_refused_or_harmless() {
    let (node, begin, end) = with_last_write(1);
    let content = node.disk.content(FIRST);
    let mut refused = 0;
    for n in 0..begin {
        let mut flipped = content.clone();
        flipped[n] ^= 0x04;
        let mut twin = node.twin(node.disk.copy());
        twin.disk.set_content(FIRST, &flipped);
        match twin.try_reopen() {
            // Between frames nothing stands: what is there is not read.
            Ok(()) => {
                assert_eq!(twin.durable, node.durable, "byte {n}");
                assert_eq!(content[n], 0, "byte {n}");
            }
            Err(LogError::Damaged(text)) => {
                refused += 1;
                assert!(text.contains(FIRST) && text.contains("Raft index"), "{text}");
                assert!(text.contains("give this node up"), "{text}");
                assert_eq!(twin.disk.content(FIRST), flipped, "nothing was changed");
            }
            Err(other) => panic!("byte {n}: {other}"),
        }
    }
    assert!(refused > 500 && end > begin);
}

#[test]
fn the_text_names_the_place() {
    let (node, ..) = with_last_write(1);
    let mut content = node.disk.content(FIRST);
    // Frame 1 is the genesis at 512, frame 2 the vote at 1024, frame 3 begins at 1536.
    content[1536 + 120 + 10] ^= 1;
    let mut twin = node.twin(node.disk.copy());
    twin.disk.set_content(FIRST, &content);
    let text = twin.try_reopen().expect_err("damaged").to_string();
    assert!(
        text.contains(
            "the test directory: log/0000000000000001.seg is damaged at byte 1656, at Raft index 2"
        ),
        "{text}"
    );
}

/// It was synced before the log got its name, so it is never a torn write.
#[test]
fn a_damaged_genesis_is_refused() {
    let disk = TestDisk::new(1);
    made(&disk);
    let content = disk.content(FIRST);
    let end = content.iter().rposition(|b| *b != 0).expect("something") + 1;
    for n in 512..end {
        let mut flipped = content.clone();
        flipped[n] ^= 1;
        let disk = disk.copy();
        disk.set_content(FIRST, &flipped);
        match open(&disk) {
            Err(LogError::Damaged(text)) => assert!(text.contains("Raft index 1:"), "{text}"),
            other => panic!("byte {n}: {:?}", other.map(|(_, found)| found)),
        }
        assert!(disk.content(FIRST) == flipped, "something was changed");
    }
}

/// A log of several segments.
fn long() -> Node {
    let disk = TestDisk::new(9);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..24 {
        node.append(&[9_000]);
        node.settle();
    }
    assert!(node.disk.names().len() >= 5, "{:?}", node.disk.names());
    node.crash(Crash::LoseAll);
    node
}

#[test]
fn damage_in_a_full_segment_is_found_when_it_is_read() {
    let node = long();
    let content = node.disk.content(FIRST);
    for n in [650, 1500, 20_000, 40_000] {
        let mut twin = node.twin(node.disk.copy());
        let mut damaged = content.clone();
        damaged[n] ^= 1;
        twin.disk.set_content(FIRST, &damaged);
        twin.reopen();
        let text = twin.read_all(5000).map(|r| r.len()).expect_err("damaged");
        assert!(text.contains(FIRST) && text.contains("Raft index"), "{text}");
        // What lies behind can be read.
        let last = Index(twin.last());
        assert!(twin.fetch(From::Index(last), last, 1).is_ok());
    }
}

#[test]
fn a_damaged_index_is_made_again_and_then_damage_is_found_at_once() {
    let node = long();
    let content = node.disk.content(FIRST);
    for from_end in [1, 20, 47, 60, 100] {
        let mut twin = node.twin(node.disk.copy());
        let mut damaged = content.clone();
        let n = damaged.len() - from_end;
        damaged[n] ^= 1;
        twin.disk.set_content(FIRST, &damaged);
        twin.reopen();
        twin.check(5000);
        assert_eq!(twin.disk.content(FIRST), content, "it is as it was");
        damaged[2000] ^= 1;
        let mut twin = node.twin(node.disk.copy());
        twin.disk.set_content(FIRST, &damaged);
        assert!(matches!(twin.try_reopen(), Err(LogError::Damaged(_))));
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let node = long();
    let names = node.disk.names();
    for (n, name) in names.iter().enumerate() {
        let mut twin = node.twin(node.disk.copy());
        twin.disk.remove(name);
        match twin.try_reopen() {
            Ok(()) => assert_eq!(n, names.len() - 1, "only the spare may be missing"),
            Err(LogError::Damaged(text)) => assert!(text.contains("is missing"), "{text}"),
            Err(other) => panic!("{other}"),
        }
    }
    // The last that was written to and the spare, both gone: the one before says that it was full.
    let mut twin = node.twin(node.disk.copy());
    names[names.len() - 2..]
        .iter()
        .for_each(|name| twin.disk.remove(name));
    let text = twin.try_reopen().expect_err("refused").to_string();
    assert!(text.contains("is missing"), "{text}");
}

#[test]
fn a_damaged_header_is_refused_once_its_segment_was_used() {
    let node = long();
    let names = node.disk.names();
    // The last but one, the newest, can be told from what stands before it.
    let used = &names[..names.len() - 2];
    for name in used {
        let mut twin = node.twin(node.disk.copy());
        let mut content = twin.disk.content(name);
        content[20] ^= 1;
        twin.disk.set_content(name, &content);
        let text = twin.try_reopen().expect_err("refused").to_string();
        assert!(text.contains(name) && text.contains("header"), "{text}");
    }
}

/// A log whose newest segment has so many frames, and the name of that segment.
fn begun(frames: usize) -> (Node, String) {
    let disk = TestDisk::new(4);
    made(&disk);
    let mut node = Node::new(disk);
    while node.disk.names().len() < 4 {
        node.append(&[9000]);
        node.settle();
    }
    for n in 1..frames {
        if n % 2 == 0 {
            node.append(&[600; 3]);
        } else {
            node.vote(9 + n as u64, Some(1));
        }
        node.settle();
    }
    let names = node.disk.names();
    (node, names[names.len() - 2].clone())
}

/// The header of a segment names the salt of the next one, which is drawn by chance, and has a CRC.
fn is_but_for_chance(one: &[u8], other: &[u8]) -> bool {
    let same = |n: &usize| (4..8).contains(n) || (88..96).contains(n) || one[*n] == other[*n];
    one.len() == other.len() && (0..one.len()).all(|n| same(&n))
}

/// What the header says is known from what stands before it; the frames behind it were acknowledged.
#[test]
fn the_header_of_the_newest_segment_is_made_again() {
    for frames in [1, 2, 5] {
        let (mut node, newest) = begun(frames);
        assert!(node.is_settled());
        node.crash(Crash::LoseAll);
        let content = node.disk.content(&newest);
        assert!(content.starts_with(b"KTKS"));
        let mut rotten = content.clone();
        rotten[20] ^= 1;
        let mut zeroed = content.clone();
        zeroed[..512].fill(0);
        for damaged in [rotten, zeroed] {
            let mut twin = node.twin(node.disk.copy());
            twin.disk.set_content(&newest, &damaged);
            twin.reopen();
            assert_eq!(twin.durable, node.durable);
            assert!(
                is_but_for_chance(&twin.disk.content(&newest), &content),
                "it is not as it was"
            );
            twin.check(9000);
            twin.append(&[100]);
            twin.settle();
            twin.crash(Crash::LoseAll);
            twin.reopen();
            twin.check(9000);
        }
    }
}

/// Not acknowledged, and begun in a file that is used again: the header of then is still there.
#[test]
fn a_first_frame_without_its_header_is_kept_as_far_as_it_is_sound() {
    let (mut node, newest) = begun(1);
    let content = node.disk.content(&newest);
    let old = node.disk.content(FIRST);
    node.crash(Crash::LoseAll);
    let sectors = content[512..]
        .chunks(512)
        .take_while(|s| s.iter().any(|b| *b != 0))
        .count();
    assert!(sectors > 10);
    for (n, header) in [&old[..512], &[0; 512]].into_iter().enumerate() {
        for lost in 0..sectors {
            let mut damaged = content.clone();
            damaged[..512].copy_from_slice(header);
            damaged[512 + lost * 512..512 + (lost + 1) * 512].fill(0);
            let mut twin = node.twin(node.disk.copy());
            twin.forget_last();
            twin.disk.set_content(&newest, &damaged);
            twin.reopen();
            twin.append(&[100]);
            twin.settle();
            assert!(twin.is_settled(), "{n} {lost}");
            twin.crash(Crash::LoseAll);
            twin.reopen();
            assert_eq!(twin.torn_bytes, 0);
            twin.check(9000);
        }
    }
}

#[test]
fn damage_before_a_segment_without_a_header_is_a_loss() {
    let (mut node, newest) = begun(1);
    node.crash(Crash::LoseAll);
    let before = "log/0000000000000002.seg";
    let (mut content, mut rotten) = (node.disk.content(before), node.disk.content(&newest));
    let end = content.len();
    content[end - 1] ^= 1;
    content[30_000] ^= 1;
    rotten[20] ^= 1;
    node.disk.set_content(before, &content);
    node.disk.set_content(&newest, &rotten);
    assert!(matches!(node.try_reopen(), Err(LogError::Damaged(_))));
    assert!(node.disk.content(before) == content && node.disk.content(&newest) == rotten);
}

#[test]
fn a_file_cut_short_is_refused() {
    let node = long();
    for length in [0, 100, 4096, 65_535] {
        let mut twin = node.twin(node.disk.copy());
        let content = twin.disk.content(FIRST);
        twin.disk.set_content(FIRST, &content[..length]);
        assert!(matches!(twin.try_reopen(), Err(LogError::Damaged(_))));
    }
}

#[test]
fn what_a_recycled_file_held_before_is_empty_space() {
    let mut node = long();
    let names = node.disk.names();
    let (spare, old) = (names.last().expect("a spare").clone(), node.disk.content(FIRST));
    node.disk.set_content(&spare, &old);
    node.reopen();
    assert_eq!(node.torn_bytes, 0);
    node.check(9000);
    // And when the segment has begun already, over old frames.
    let written = names[names.len() - 2].clone();
    let mut content = node.disk.content(&written);
    let end = content.iter().rposition(|b| *b != 0).expect("frames") + 1;
    let end = end.next_multiple_of(512);
    content[end..].copy_from_slice(&old[end..]);
    node.crash(Crash::LoseAll);
    node.disk.set_content(&written, &content);
    node.reopen();
    node.check(9000);
    for _ in 0..20 {
        node.append(&[5000]);
        node.settle();
    }
    node.crash(Crash::LoseAll);
    node.reopen();
    node.check(9000);
}

/// A segment that is full is not read when the log is opened. What a read then meets is told to the operator, once a place.
#[test]
fn damage_that_a_read_meets_is_told_once_for_each_place() {
    let disk = TestDisk::new(1);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..12 {
        node.append(&[9000]);
        node.settle();
    }
    node.crash(Crash::LoseAll);
    let mut content = node.disk.content(FIRST);
    for place in [20_000, 40_000] {
        content[place] ^= 1;
    }
    node.disk.set_content(FIRST, &content);
    node.reopen();
    node.settle();
    assert!(node.damages.is_empty(), "it was not read");
    for _ in 0..3 {
        for index in 2..=node.last() {
            let read = node.fetch(From::Index(Index(index)), Index(index), 1 << 20);
            assert!(read.is_ok() || index < 8, "{index}");
        }
    }
    assert_eq!(node.damages.len(), 2, "{:?}", node.damages);
    for told in &node.damages {
        assert!(told.contains(FIRST) && told.contains("Raft index"), "{told}");
        assert!(told.contains("The other nodes hold it"), "{told}");
    }
    node.append(&[100]);
    node.settle();
    assert!(node.is_settled() && node.failed.is_none(), "the node goes on");
}

/// Reads without a descriptor wait for one, and do not say that something is wrong.
#[test]
fn a_read_without_a_descriptor_waits_for_one() {
    let disk = TestDisk::new(1);
    made(&disk);
    let mut node = Node::new(disk);
    for _ in 0..12 {
        node.append(&[9000]);
        node.settle();
    }
    node.crash(Crash::LoseAll);
    node.reopen();
    node.settle();
    node.disk.refuse_opens(true);
    let fetch = Fetch {
        token: 9,
        from: From::Index(Index(2)),
        to: Index(2),
        bytes_max: 1,
    };
    node.log.as_mut().expect("up").fetch(GROUP, fetch);
    node.settle();
    assert!(node.full, "it is told, and asked for again");
    node.retry_room();
    node.settle();
    assert!(node.full);
    node.disk.refuse_opens(false);
    node.retry_room();
    let log = node.log.as_mut().expect("up");
    let told: Vec<_> = std::iter::from_fn(|| log.poll()).collect();
    let is_read =
        |event: &LogEvent| matches!(event, LogEvent::Fetched { runs: Ok(runs), .. } if runs.len() == 1);
    assert!(told.iter().any(is_read), "{told:?}");
    assert!(told.iter().any(|e| matches!(e, LogEvent::DiskFull(false))));
}
