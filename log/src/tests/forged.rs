//! Bytes that a client chose stand in the files of the log, as entries: frames and records that it made up from all that it can
//! know (the cluster, numbers of segments, sequences, offsets) are never taken for those of the log. It does not know salts.

use super::compaction::segments;
use super::disk::{Crash, TestDisk};
use super::model::{CLUSTER, GROUP, Node, made};
use kontiki_consensus::{Admission, HardState, Index, NodeId, Position, Run, Term};
use kontiki_wire::frame::{FrameHeader, FramePart};
use kontiki_wire::record::{RunBuilder, encode_run};
use kontiki_wire::{BodySum, Codec, Payload, Salt, Session, Stamp};

/// A frame with one part and the header of a record stand before the first byte of an entry that is alone in its frame.
const BEFORE_ENTRY: u64 = 120 + 88;
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

fn name(segment: u64) -> String {
    format!("log/{segment:016}.seg")
}

fn segment(node: &Node) -> u64 {
    node.log.as_ref().expect("up").segment()
}

fn entry(index: u64, term: u64, position: u64, bytes: Vec<u8>) -> Run {
    let at = Admission {
        index: Index(index),
        term: Term(term),
        position: Position(position),
    };
    let mut builder = RunBuilder::new(CLUSTER, GROUP, at);
    let payload = Payload::one(bytes.into(), Codec::Bytes);
    builder
        .push(&payload, Stamp::default(), Session::None)
        .expect("room");
    builder.finish().expect("a record")
}

/// What a frame would do that a client makes up.
#[derive(Clone)]
struct Forgery {
    segment: u64,
    sequence: u64,
    hard_state: Option<HardState>,
    /// Removes this record and all behind it, and puts one of position 1 of its own there.
    truncate: Option<u64>,
}

impl Forgery {
    fn at(&self, offset: u64) -> Vec<u8> {
        let salt = Salt(0x0bad_5a17);
        let run = self.truncate.map(|from| entry(from, 0, 1, b"forged".to_vec()));
        let mut body = Vec::new();
        if let Some(run) = &run {
            encode_run(CLUSTER, GROUP, run, &mut body);
        }
        let body = body.concat();
        let mut sum = BodySum::new(salt);
        sum.add_records(&body);
        let part = FramePart {
            group: GROUP,
            hard_state: self.hard_state,
            truncate: self.truncate.map(Index),
            base: None,
            records_term: Term(0),
            first: run.as_ref().map_or(Index::ZERO, Run::first),
            count: u32::from(run.is_some()),
            bytes: body.len() as u32,
        };
        let header = FrameHeader {
            header_len: FrameHeader::len_of(1) as u16,
            segment: self.segment,
            salt,
            offset,
            sequence: self.sequence,
            body_sum: sum.finish(),
            parts: vec![part],
        };
        [header.encode(CLUSTER).to_vec(), body].concat()
    }
}

/// An entry of this length with a forgery at each multiple of `every` in the file, if its frame begins at `frame`.
fn hostile(length: usize, frame: u64, every: u64, forgery: &Forgery) -> Vec<u8> {
    let start = frame + BEFORE_ENTRY;
    let mut bytes = vec![b'x'; length];
    let mut offset = start.next_multiple_of(every);
    loop {
        let forged = forgery.at(offset);
        let at = (offset - start) as usize;
        let Some(place) = bytes.get_mut(at..at + forged.len()) else {
            return bytes;
        };
        place.copy_from_slice(&forged);
        offset += every;
    }
}

/// The header of the frame at this place of a file, whatever its salt.
fn frame(content: &[u8], segment: u64, at: u64) -> Option<FrameHeader> {
    let sector = content.get(at as usize..(at + SECTOR) as usize)?;
    FrameHeader::read(CLUSTER, (segment, None), at, sector).ok()
}

/// Where the log ends on disk, and the sequence of its next frame: what a client may have worked out.
fn end(node: &Node) -> (u64, u64) {
    let (content, segment) = (node.disk.content(&name(segment(node))), segment(node));
    let first = frame(&content, segment, SECTOR).expect("the first frame");
    let (mut at, mut sequence) = (SECTOR, first.sequence);
    while let Some(header) = frame(&content, segment, at).filter(|h| h.salt == first.salt) {
        assert_eq!(header.sequence, sequence);
        (at, sequence) = (header.end().next_multiple_of(SECTOR), sequence + 1);
    }
    (at, sequence)
}

fn append(node: &mut Node, bytes: Vec<u8>) {
    let run = entry(node.last() + 1, node.term(), node.position() + 1, bytes);
    node.write(None, None, vec![run]);
    node.settle();
    assert!(node.is_settled() && node.failed.is_none());
}

fn fresh() -> Node {
    let disk = TestDisk::new(3);
    made(&disk);
    let mut node = Node::new(disk);
    node.settle();
    node
}

/// A hostile entry in segment 1, which is used again under the number that its frames name.
fn attacked(forgery: &Forgery, every: u64) -> Node {
    let mut node = fresh();
    let (at, _) = end(&node);
    append(&mut node, hostile(30_000, at, every, forgery));
    for _ in 0..4 {
        node.append(&[9_000]);
        node.settle();
    }
    node.purge(node.last() - 1, vec![]);
    node.settle();
    node
}

#[test]
fn an_entry_of_forged_later_frames_does_not_keep_a_node_from_starting() {
    // The file becomes segment 4: a spare behind another, the next one, and the one in use.
    for (forged, used) in (2..7).flat_map(|forged| [(forged, 2), (forged, 3), (forged, 4)]) {
        for crash in [Crash::LoseAll, Crash::Kill] {
            let forgery = Forgery {
                segment: forged,
                sequence: 1 << 40,
                hard_state: None,
                truncate: None,
            };
            let mut node = attacked(&forgery, SECTOR);
            assert!(segments(&node).contains(&name(4)), "it is used again");
            while segment(&node) < used {
                node.append(&[9_000]);
                node.settle();
            }
            node.crash(crash);
            node.reopen();
            assert_eq!(node.torn_bytes, 0);
            node.check(40_000);
        }
    }
}

/// The log's last frame ends in the last sector of a page, and the next page begins with a forged frame of the sequence that
/// comes next.
fn at_a_page_with_a_forgery(forgery: &Forgery) -> (Node, u64) {
    let mut node = attacked(forgery, PAGE);
    while segment(&node) < forgery.segment {
        node.append(&[9_000]);
        node.settle();
    }
    let (at, sequence) = end(&node);
    let wanted = (at + BEFORE_ENTRY + 300).next_multiple_of(PAGE) - 100;
    node.append(&[(wanted - at - BEFORE_ENTRY) as usize]);
    node.settle();
    (node, sequence + 1)
}

#[test]
fn an_entry_of_forged_frames_gives_no_vote_and_takes_no_record() {
    let vote = HardState {
        term: Term(1 << 50),
        vote: Some(NodeId(3)),
        ..HardState::default()
    };
    // That is what segment 1 becomes.
    let segment = 4;
    let mut forgery = Forgery {
        segment,
        sequence: 0,
        hard_state: Some(vote),
        truncate: None,
    };
    let (node, sequence) = at_a_page_with_a_forgery(&forgery);
    let first = node.written.base.last.index.0 + 1;
    forgery.sequence = sequence;
    let removal = Forgery {
        hard_state: None,
        truncate: Some(first),
        ..forgery.clone()
    };
    for forgery in [forgery, removal] {
        let (mut node, _) = at_a_page_with_a_forgery(&forgery);
        let (at, next) = end(&node);
        let content = node.disk.content(&name(segment));
        assert!(content[at as usize..].starts_with(b"KTKF"), "it is in its place");
        assert_eq!(next, forgery.sequence);
        node.crash(Crash::LoseAll);
        node.reopen();
        node.check(40_000);
    }
}

/// The first write into a segment is torn: what is left of it behind is no later frame, whatever it says.
#[test]
fn a_torn_write_of_forged_frames_is_torn() {
    for first in [true, false] {
        let mut node = fresh();
        while first && end(&node).0 < 45_000 {
            node.append(&[3_000]);
            node.settle();
        }
        let (at, into) = if first {
            (SECTOR, segment(&node) + 1)
        } else {
            (end(&node).0, segment(&node))
        };
        let forgery = Forgery {
            segment: into,
            sequence: 1 << 40,
            hard_state: None,
            truncate: None,
        };
        let bytes = hostile(20_000, at, SECTOR, &forgery);
        let mut down = node.twin(node.disk.copy());
        append(&mut node, bytes);
        assert_eq!(segment(&node), into);
        let (mut content, end) = (node.disk.content(&name(into)), at + 20_200);
        // The sectors of the headers did not arrive, all others did.
        let lost = if first {
            0..1024
        } else {
            at as usize..at as usize + 512
        };
        content[lost].fill(0);
        assert!(content[end as usize - 4096..].iter().any(|b| *b != 0));
        down.crash(Crash::LoseAll);
        down.disk.set_content(&name(into), &content);
        down.reopen();
        assert!(down.torn_bytes > 15_000);
        down.check(40_000);
    }
}

/// A frame over old bytes of a client lost the sector in which its record begins: the one that stood there is sound, and has
/// index, term, position and length of the one that was written.
#[test]
fn a_forged_record_under_a_torn_frame_is_not_taken_for_its_own() {
    const BODY: u64 = 512 - 120;
    let (index, position, length) = (12, 11, 700);
    let forged = {
        let mut body = Vec::new();
        encode_run(
            CLUSTER,
            GROUP,
            &entry(index, 0, position, vec![b'f'; length]),
            &mut body,
        );
        body.concat()
    };
    // It begins at sectors: a frame that begins so that its body does, too, with the record behind another one.
    let mut node = fresh();
    let (at, _) = end(&node);
    let start = at + BEFORE_ENTRY;
    let mut bytes = vec![b'x'; 30_000];
    for offset in (start.next_multiple_of(PAGE)..start + 28_000).step_by(PAGE as usize) {
        let place = (offset - start) as usize;
        bytes[place..place + forged.len()].copy_from_slice(&forged);
    }
    append(&mut node, bytes);
    while segment(&node) == 1 {
        node.append(&[9_000]);
        node.settle();
    }
    node.purge(node.last() - 1, vec![]);
    node.settle();
    let (is_used, old) = (4, node.disk.content(&name(4)));
    assert!(
        old[PAGE as usize..].starts_with(&forged),
        "the file is used again"
    );
    while segment(&node) < is_used {
        node.vote(node.written.hard_state.term.0 + 1, None);
        node.settle();
    }
    while node.last() < index - 2 {
        node.append(&[20]);
        node.settle();
    }
    while end(&node).0 % PAGE != PAGE - SECTOR {
        node.vote(node.written.hard_state.term.0 + 1, None);
        node.settle();
    }
    let (at, _) = end(&node);
    let first = entry(index - 1, 0, position - 1, vec![1; BODY as usize - 88]);
    let second = entry(index, 0, position, vec![2; length]);
    node.write(None, None, vec![first, second]);
    let mut down = node.twin(node.disk.copy());
    node.settle();
    down.crash(Crash::LoseAll);
    let (old, mut content) = (
        down.disk.content(&name(is_used)),
        node.disk.content(&name(is_used)),
    );
    let record = (at + SECTOR) as usize;
    assert!(old[record..].starts_with(&forged) && !content[record..].starts_with(&forged));
    content[record..].copy_from_slice(&old[record..]);
    down.disk.set_content(&name(is_used), &content);
    down.reopen();
    assert_eq!(down.last(), index - 2);
    assert!(down.torn_bytes > 0);
    down.check(40_000);
}
