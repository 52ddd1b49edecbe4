//! The stream of frames, read back: what stood in each, how far it is sound, and what the log is after it.
//!
//! Invariant: what is applied is sound to the last byte and follows what was there before. Of a frame that
//! is not, the sound beginning is told: everything before its first bad record.

use crate::group::{Group, Groups, apply_frame};
use bytes::Bytes;
use kontiki_consensus::{Body, GroupId, Index, Restored, Run};
use kontiki_wire::ClusterId;
use kontiki_wire::frame::{FrameHeader, FramePart};
use kontiki_wire::record::{RecordError, decode_prefix};
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

/// What a frame holds.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is sound.
    Sound(Vec<Vec<Run>>),
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
    pub(crate) runs: Vec<Vec<Run>>,
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

    /// What stands in a frame; `body` is shorter than the header says if the file ends before.
    pub(crate) fn examine(&self, header: &FrameHeader, body: &Bytes) -> Found {
        let mut runs: Vec<Vec<Run>> = Vec::new();
        let mut at = 0;
        for (n, part) in header.parts.iter().enumerate() {
            let end = (at + part.bytes as usize).min(body.len());
            let checked = self.examine_part(part, body.slice(at.min(end)..end));
            if let Some(newer @ RecordError::Unknown { .. }) = checked.error {
                return Found::Newer(newer);
            }
            if let Some(what) = checked.what(part) {
                let start = header.offset + u64::from(header.header_len) + at as u64;
                let (kept, at) = (checked.kept(header, n), start + checked.bytes as u64);
                let index = Index(checked.expected.0 + checked.count());
                runs.push(checked.runs);
                runs.truncate(kept.parts.len());
                let lost = header.end() - kept.end();
                return Found::Torn(Torn {
                    kept,
                    runs,
                    index,
                    at,
                    lost,
                    what,
                });
            }
            runs.push(checked.runs);
            at = end;
        }
        Found::Sound(runs)
    }

    fn examine_part(&self, part: &FramePart, bytes: Bytes) -> Checked {
        let none = Group::default();
        let group = self.groups.get(&part.group).unwrap_or(&none);
        let next = group.last.index.next();
        let expected = part.truncate.unwrap_or(next);
        let (runs, sound, error) = decode_prefix(self.cluster, part.group, bytes);
        let follows = |first: &Run| {
            let position = part.truncate.is_some() || first.first_position() == group.last_position.next();
            first.first() == expected && position && first.term() >= group.term_before(expected)
        };
        let place = expected >= Index(1) && expected <= next;
        if !place || runs.first().is_some_and(|first| !follows(first)) {
            return Checked {
                expected,
                runs: Vec::new(),
                bytes: 0,
                misplaced: true,
                error: None,
            };
        }
        Checked {
            expected,
            runs,
            bytes: sound,
            misplaced: false,
            error,
        }
    }

    /// Applies a frame, of which these are the records, part by part.
    pub(crate) fn apply(&mut self, header: &FrameHeader, stride: u64, runs: &[Vec<Run>]) {
        apply_frame(&mut self.groups, header, stride, runs.iter().map(Vec::as_slice));
        self.sequence = header.sequence + 1;
        for (part, runs) in header.parts.iter().zip(runs) {
            if part.group == GroupId::default() {
                self.tail.apply(part.truncate, runs);
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
        Restored {
            hard_state: group.hard_state,
            terms: group.terms.clone(),
            last: group.last,
            last_position: group.last_position,
            configurations: group.configurations.iter().filter_map(configuration).collect(),
            tail: std::mem::take(&mut self.tail.runs).into(),
        }
    }
}

/// What was found of one part of a frame.
struct Checked {
    /// The index its first record must have.
    expected: Index,
    /// Sound records.
    runs: Vec<Run>,
    /// How many bytes they are.
    bytes: usize,
    misplaced: bool,
    error: Option<RecordError>,
}

impl Checked {
    fn count(&self) -> u64 {
        self.runs.iter().map(|r| r.len() as u64).sum()
    }

    /// What is wrong with it, if anything is.
    fn what(&self, part: &FramePart) -> Option<String> {
        let whole = self.count() == u64::from(part.count) && self.bytes == part.bytes as usize;
        match &self.error {
            Some(error) => Some(error.to_string()),
            None if self.misplaced => Some("its records do not follow those before them".to_owned()),
            None => (!whole).then(|| "it does not have the records its header says".to_owned()),
        }
    }

    /// The header of a frame that ends with the sound records of its part `n`.
    fn kept(&self, header: &FrameHeader, n: usize) -> FrameHeader {
        let mut kept = header.clone();
        kept.parts.truncate(n + 1);
        if let Some(part) = kept.parts.last_mut() {
            part.first = self.runs.first().map_or(Index::ZERO, Run::first);
            (part.count, part.bytes) = (self.count() as u32, self.bytes as u32);
            // What is removed and what replaces it belong together.
            part.truncate = part.truncate.filter(|_| part.count > 0);
        }
        kept.parts.pop_if(|p| p.count == 0 && p.hard_state.is_none());
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
        if let Some(from) = truncate {
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
