//! The stream of frames, read back: what stood in each, how far it is sound, and what the log is after it.
//!
//! Invariant: what is applied is sound to the last byte and follows what was there before. Of a frame that
//! is not, the sound beginning is told: everything before its first bad record. Where an earlier segment stood in the file
//! there is no such beginning: a sound record there may be one that the frame was not written with, even one that a client
//! made up. So of a torn frame over old bytes only the term and vote of its header count.

use crate::group::{self, Group, Groups, apply_frame};
use bytes::Bytes;
use kontiki_consensus::{Base, Body, GroupId, Index, LogId, Restored, Run, Term};
use kontiki_wire::frame::{FrameHeader, FramePart};
use kontiki_wire::record::{RecordError, decode_prefix, run_bytes};
use kontiki_wire::segment::SegmentHeader;
use kontiki_wire::{BodySum, ClusterId, decode_base};
use std::collections::VecDeque;

/// What the log is after the frames so far.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) cluster: ClusterId,
    pub(crate) groups: Groups,
    /// The sequence of the next frame.
    pub(crate) sequence: u64,
    tail: Tail,
}

/// What a part of a frame has in the body.
#[derive(Debug, Default)]
pub(crate) struct Content {
    base: Option<Base>,
    runs: Vec<Run>,
}

impl Content {
    fn as_part(&self) -> group::Content<'_> {
        (self.base.as_ref(), &self.runs)
    }
}

/// What a frame holds.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is sound.
    Sound(Vec<Content>),
    /// It is not, from a record on.
    Torn(Torn),
    /// Something in it is of a newer version.
    Newer(RecordError),
}

/// A frame that is not sound.
#[derive(Debug)]
pub(crate) struct Torn {
    /// The header of the frame if it ended before the first bad record; without parts if nothing is left.
    pub(crate) kept: FrameHeader,
    pub(crate) contents: Vec<Content>,
    /// The first bad record: which it should be, where it should stand, what is wrong.
    pub(crate) index: Index,
    pub(crate) at: u64,
    /// How many bytes of the frame are lost.
    pub(crate) lost: u64,
    pub(crate) what: String,
}

impl Replay {
    pub(crate) fn new(cluster: ClusterId, tail_bytes_max: usize) -> Self {
        let tail = Tail {
            runs: VecDeque::new(),
            bytes: 0,
            bytes_max: tail_bytes_max,
        };
        Self {
            cluster,
            groups: Groups::new(),
            sequence: 1,
            tail,
        }
    }

    /// Goes on where the first segment begins; those before it, if it is not number 1, are gone.
    pub(crate) fn begin(&mut self, header: &SegmentHeader) {
        self.sequence = header.first_sequence;
        if header.segment > 1 {
            let groups = header
                .groups
                .iter()
                .map(|start| (start.group, Group::begun(start)));
            self.groups = groups.collect();
        }
    }

    /// What stands in a frame; `body` is shorter than the header says if the file ends before. `is_over_old` says that
    /// another segment stood there before.
    pub(crate) fn examine(&self, header: &FrameHeader, body: &Bytes, is_over_old: bool) -> Found {
        let found = self.examine_parts(header, body);
        match found {
            Found::Sound(_) if header.body_sum != sum_of(header, body) => {
                Found::Torn(self.nothing_of(header, "its records are not those that it was written with"))
            }
            Found::Torn(torn) if is_over_old => Found::Torn(Torn {
                index: torn.index,
                at: torn.at,
                ..self.nothing_of(header, &torn.what)
            }),
            found => found,
        }
    }

    /// A frame of whose body nothing counts.
    fn nothing_of(&self, header: &FrameHeader, what: &str) -> Torn {
        let mut kept = header.clone();
        kept.parts.truncate(1);
        if let Some(part) = kept.parts.first_mut() {
            *part = FramePart {
                truncate: None,
                base: None,
                records_term: Term::ZERO,
                first: Index::ZERO,
                count: 0,
                bytes: 0,
                ..*part
            };
        }
        kept.parts.retain(|part| part.hard_state.is_some());
        kept.body_sum = BodySum::new(header.salt).finish();
        let contents = kept.parts.iter().map(|_| Content::default()).collect();
        let lost = header.end() - kept.end();
        Torn {
            kept,
            contents,
            index: self.next_index(),
            at: header.offset + u64::from(header.header_len),
            lost,
            what: what.to_owned(),
        }
    }

    fn examine_parts(&self, header: &FrameHeader, body: &Bytes) -> Found {
        let mut contents: Vec<Content> = Vec::new();
        let mut at = 0;
        for (n, part) in header.parts.iter().enumerate() {
            let end = (at + part.body_len() as usize).min(body.len());
            let checked = self.examine_part(part, body.slice(at.min(end)..end));
            if let Some(newer @ RecordError::Unknown { .. }) = checked.error {
                return Found::Newer(newer);
            }
            if let Some(what) = checked.what(part) {
                let mut kept = checked.kept(header, n);
                kept.body_sum = sum_of(&kept, body);
                let start = header.offset + u64::from(header.header_len) + at as u64;
                let block = kept.parts.get(n).map_or(0, FramePart::base_len);
                let at = start + block + checked.bytes as u64;
                let index = Index(checked.expected.0 + checked.count());
                contents.push(checked.content);
                contents.truncate(kept.parts.len());
                let lost = header.end() - kept.end();
                return Found::Torn(Torn {
                    kept,
                    contents,
                    index,
                    at,
                    lost,
                    what,
                });
            }
            contents.push(checked.content);
            at = end;
        }
        Found::Sound(contents)
    }

    fn examine_part(&self, part: &FramePart, bytes: Bytes) -> Checked {
        let none = Group::default();
        let group = self.groups.get(&part.group).unwrap_or(&none);
        let block = bytes.slice(..bytes.len().min(part.base_len() as usize));
        let base = decode_base(self.cluster, part.group, &block).filter(|_| part.base.is_some());
        let install = base.as_ref().filter(|_| part.base.is_some_and(|b| b.install));
        let (last, position) = install.map_or((group.last, group.last_position), |b| (b.last, b.position));
        let expected = part.truncate.unwrap_or(last.index.next());
        let term_before = install.map_or_else(|| group.term_before(expected), |b| b.last.term);
        let (runs, sound, error) = decode_prefix(self.cluster, part.group, bytes.slice(block.len()..));
        let whole = runs.len();
        let (runs, sound) = of_term(runs, sound, part.records_term);
        // What comes after it is none of this frame's either.
        let error = error.filter(|_| runs.len() == whole);
        let follows = |first: &Run| {
            let position = part.truncate.is_some() || first.first_position() == position.next();
            first.first() == expected && position && first.term() >= term_before
        };
        let place = expected >= Index(1) && expected <= last.index.next();
        let end = runs.last().map_or(last.index, Run::last);
        let beyond = base.as_ref().is_some_and(|b| b.last.index > end);
        // A recycled file may hold the block of an earlier one.
        let is_old = |b: &Base| group.base_in > 0 && b.last.index < group.base.last.index;
        let beyond = beyond || base.as_ref().is_some_and(is_old);
        let mut checked = Checked {
            expected,
            bytes: sound,
            content: Content { base, runs },
            misplaced: None,
            error,
        };
        if part.base.is_some() && checked.content.base.is_none() {
            checked.misplace("the block of its base is damaged");
        } else if !place || beyond || checked.content.runs.first().is_some_and(|first| !follows(first)) {
            checked.misplace("its records do not follow those before them");
        }
        checked
    }

    /// Applies a frame, of which these are the contents, part by part.
    pub(crate) fn apply(&mut self, header: &FrameHeader, stride: u64, contents: &[Content]) {
        apply_frame(
            &mut self.groups,
            header,
            stride,
            contents.iter().map(Content::as_part),
        );
        self.sequence = header.sequence + 1;
        for (part, content) in header.parts.iter().zip(contents) {
            if part.group == GroupId::default() {
                if part.base.is_some_and(|b| b.install) {
                    self.tail.truncate(Index::ZERO);
                }
                self.tail.apply(part.truncate, &content.runs);
            }
        }
    }

    /// What was read so far is not followed at once by what comes next.
    pub(crate) fn skip(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.tail.runs.clear();
        self.tail.bytes = 0;
    }

    /// The Raft index of the next record of the only group, to name a place by.
    pub(crate) fn next_index(&self) -> Index {
        self.groups
            .get(&GroupId::default())
            .map_or(Index(1), |g| g.last.index.next())
    }

    /// What consensus starts from.
    pub(crate) fn restored(&mut self) -> Restored {
        let none = Group::default();
        let group = self.groups.get(&GroupId::default()).unwrap_or(&none);
        let configuration = |run: &Run| match run.body() {
            Body::Configuration(configuration) => Some((run.first(), (**configuration).clone())),
            _ => None,
        };
        let base = &group.base;
        let at_base = (base.last != LogId::ZERO).then(|| (base.last.index, (*base.configuration).clone()));
        let after = group.configurations.iter().filter_map(configuration);
        Restored {
            hard_state: group.hard_state,
            base: base.last,
            base_position: base.position,
            snapshot: None,
            terms: group.terms.clone(),
            last: group.last,
            last_position: group.last_position,
            configurations: at_base.into_iter().chain(after).collect(),
            tail: std::mem::take(&mut self.tail.runs).into(),
        }
    }
}

/// The sum over what a header says stands in its body. A header that is cut back ends early, and begins with what it had.
fn sum_of(header: &FrameHeader, body: &Bytes) -> u32 {
    let mut sum = BodySum::new(header.salt);
    let mut rest = body.as_ref();
    for part in &header.parts {
        let (block, others) = rest.split_at(rest.len().min(part.base_len() as usize));
        let (records, others) = others.split_at(others.len().min(part.bytes as usize));
        if part.base.is_some() {
            sum.add_base(block);
        }
        sum.add_records(records);
        rest = others;
    }
    sum.finish()
}

/// The runs up to the first of another term, which is what a recycled file held before; with their length in bytes.
fn of_term(mut runs: Vec<Run>, sound: usize, term: Term) -> (Vec<Run>, usize) {
    let theirs = runs.iter().position(|r| r.term() != term).unwrap_or(runs.len());
    let foreign: usize = runs.drain(theirs..).map(|r| run_bytes(&r)).sum();
    (runs, sound - foreign.min(sound))
}

/// What was found of one part of a frame.
struct Checked {
    /// The index its first record must have.
    expected: Index,
    /// Its base, and sound records.
    content: Content,
    /// How many bytes those are.
    bytes: usize,
    /// Why nothing of it counts but term and vote.
    misplaced: Option<&'static str>,
    error: Option<RecordError>,
}

impl Checked {
    /// Nothing of it counts but term and vote.
    fn misplace(&mut self, why: &'static str) {
        self.content.base = None;
        self.content.runs.clear();
        (self.bytes, self.misplaced) = (0, Some(why));
    }

    fn count(&self) -> u64 {
        self.content.runs.iter().map(|r| r.len() as u64).sum()
    }

    /// What is wrong with it, if anything is.
    fn what(&self, part: &FramePart) -> Option<String> {
        let whole = self.count() == u64::from(part.count) && self.bytes == part.bytes as usize;
        match (&self.error, self.misplaced) {
            (_, Some(why)) => Some(why.to_owned()),
            (Some(error), None) => Some(error.to_string()),
            (None, None) => (!whole).then(|| "it does not have the records its header says".to_owned()),
        }
    }

    /// The header of a frame that ends with the sound records of its part `n`.
    fn kept(&self, header: &FrameHeader, n: usize) -> FrameHeader {
        let mut kept = header.clone();
        kept.parts.truncate(n + 1);
        if let Some(part) = kept.parts.last_mut() {
            part.base = part.base.filter(|_| self.content.base.is_some());
            part.first = self.content.runs.first().map_or(Index::ZERO, Run::first);
            (part.count, part.bytes) = (self.count() as u32, self.bytes as u32);
            // What is removed and what replaces it belong together.
            part.truncate = part.truncate.filter(|_| part.count > 0);
        }
        kept.parts
            .pop_if(|p| p.count == 0 && p.hard_state.is_none() && p.base.is_none());
        kept
    }
}

/// The newest records.
#[derive(Debug)]
struct Tail {
    runs: VecDeque<Run>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    fn apply(&mut self, truncate: Option<Index>, runs: &[Run]) {
        // What is removed and what replaces it belong together.
        if let Some(from) = truncate.filter(|_| !runs.is_empty()) {
            self.truncate(from);
        }
        for run in runs {
            self.bytes += run.weight();
            self.runs.push_back(run.clone());
        }
        while self.bytes > self.bytes_max
            && let Some(run) = self.runs.pop_front()
        {
            self.bytes -= run.weight();
        }
    }

    fn truncate(&mut self, from: Index) {
        while let Some(run) = self.runs.pop_back_if(|r| r.last() >= from) {
            self.bytes -= run.weight();
            if let Some(rest) = run.slice(run.first(), from.prev()) {
                self.bytes += rest.weight();
                self.runs.push_back(rest);
            }
        }
    }
}
