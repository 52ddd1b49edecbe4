//! Reading records from disk, beside the writes.
//!
//! A read begins at the nearest entry of the index, takes in a piece of the file, and walks over frames to
//! the records that are wanted; it does so again until it has what was asked for. Every checksum on the
//! way is verified. Invariants: a round either gives a record or reads more than the one before, so that
//! it ends; if records were removed meanwhile it begins again, so that none of those is ever given.

use crate::api::{Fetch, From, LogError, LogEvent};
use crate::group::{Entry, Group};
use crate::layout::{SECTOR, align};
use bytes::Bytes;
use kontiki_consensus::{GroupId, Index, Position, Run};
use kontiki_wire::ClusterId;
use kontiki_wire::frame::FrameHeader;
use kontiki_wire::record::{RecordError, decode_prefix};

/// How many bytes one operation reads, unless a record is larger.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// A fetch under way.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) group: GroupId,
    fetch: Fetch,
    /// The next record wanted; `None` until the one that holds the position is found.
    next: Option<Index>,
    runs: Vec<Run>,
    bytes: usize,
    /// [`Group::removals`] when it began.
    removals: u64,
    /// A piece was too short: read at least so much.
    least: u64,
}

/// A piece to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) entry: Entry,
    /// The last record that is valid where the piece stands.
    end: Index,
    pub(crate) bytes: u64,
}

/// What came of a piece.
pub(crate) enum Progress {
    /// More is to be read.
    GoOn,
    /// This is the answer.
    Done(Vec<Run>),
    /// What is wanted is damaged.
    Damaged(Damage),
}

/// Where something is not sound.
pub(crate) struct Damage {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) index: Option<Index>,
    pub(crate) what: String,
}

impl Reading {
    pub(crate) fn new(group: GroupId, fetch: Fetch) -> Self {
        Self {
            group,
            fetch,
            next: None,
            runs: Vec::new(),
            bytes: 0,
            removals: 0,
            least: 0,
        }
    }

    /// If what it wants is before the beginning of the log: the first entry there is. Begins again if anything
    /// was removed since the last piece.
    pub(crate) fn compacted(&mut self, group: &Group) -> Option<Position> {
        if self.removals != group.removals {
            (self.next, self.bytes, self.removals) = (None, 0, group.removals);
            self.runs.clear();
        }
        let base = &group.base;
        let is_before = match (self.next, self.fetch.from) {
            (Some(next), _) | (None, From::Index(next)) => next <= base.last.index,
            (None, From::Position(position)) => position <= base.position,
        };
        (is_before && group.has_base()).then(|| base.position.next())
    }

    /// The piece to read next; `None` if nothing more is wanted or there.
    pub(crate) fn next_piece(&mut self, group: &Group, stride: u64) -> Option<Piece> {
        let end = self.fetch.to.min(group.last.index);
        let found = match (self.next, self.fetch.from) {
            (Some(next), _) | (None, From::Index(next)) => {
                let wanted = next >= Index(1) && next <= end;
                wanted.then(|| group.locate(next))?
            }
            (None, From::Position(position)) => {
                let wanted = position > Position::ZERO && position <= group.last_position;
                wanted.then(|| group.locate_position(position))?
            }
        };
        let (entry, valid) = found?;
        let wanted = self.fetch.bytes_max.saturating_sub(self.bytes) as u64;
        let bytes = (stride + SECTOR + wanted.min(PIECE_BYTES_MAX)).max(self.least);
        let full = !self.runs.is_empty() && self.bytes >= self.fetch.bytes_max;
        (!full).then_some(Piece {
            entry,
            end: valid.min(end),
            bytes,
        })
    }

    /// Takes in what was read.
    pub(crate) fn take(&mut self, cluster: ClusterId, group: &Group, piece: Piece, read: &Bytes) -> Progress {
        if self.removals != group.removals {
            return Progress::GoOn;
        }
        let mut walk = Walk::new(cluster, self.group, piece.entry, read.clone());
        let ended = walk.run(piece.end);
        if self.keep(&walk.runs, piece.end) {
            self.least = 0;
            return Progress::GoOn;
        }
        if !self.runs.is_empty() {
            return Progress::Done(std::mem::take(&mut self.runs));
        }
        let what = match ended {
            // A round that gives nothing needs a longer piece, of a file that is that long.
            Ended::Short(needs) if needs > piece.bytes.max(read.len() as u64) => {
                self.least = needs;
                return Progress::GoOn;
            }
            Ended::Short(_) => "its records end too early".to_owned(),
            Ended::Bad(what) => what,
            // The record that holds the position lies beyond the last one asked for.
            Ended::Limit if self.wanted().is_none() => return Progress::Done(Vec::new()),
            Ended::Limit => "another record stands there".to_owned(),
        };
        Progress::Damaged(Damage {
            segment: piece.entry.segment,
            offset: walk.offset(),
            index: self.wanted(),
            what,
        })
    }

    fn wanted(&self) -> Option<Index> {
        match self.fetch.from {
            From::Index(index) => Some(self.next.unwrap_or(index)),
            From::Position(_) => self.next,
        }
    }

    /// Keeps what is wanted of these runs; false if that is nothing.
    fn keep(&mut self, runs: &[Run], end: Index) -> bool {
        let before = self.runs.len();
        for run in runs {
            let Some(next) = self.next.or_else(|| self.begins_in(run)) else {
                continue;
            };
            let Some(part) = run.slice(next, end).filter(|p| p.first() == next) else {
                continue;
            };
            let Some(head) = self.fitting(&part) else { break };
            let whole = head.last() == part.last();
            self.bytes += head.weight();
            self.next = Some(head.last().next());
            self.runs.push(head);
            if !whole {
                break;
            }
        }
        self.runs.len() > before
    }

    /// As much of a run as there is room for; at least a record if it is the first.
    fn fitting(&self, part: &Run) -> Option<Run> {
        let room = self.fetch.bytes_max.saturating_sub(self.bytes);
        let head = part.fitting(room);
        (self.runs.is_empty() || head.weight() <= room).then_some(head)
    }

    fn begins_in(&self, run: &Run) -> Option<Index> {
        match self.fetch.from {
            From::Index(index) => Some(index),
            From::Position(position) => run.index_of(position),
        }
    }

    /// The answer.
    pub(crate) fn answer(self, result: Result<Vec<Run>, LogError>) -> LogEvent {
        LogEvent::Fetched {
            group: self.group,
            token: self.fetch.token,
            runs: result.map_err(std::sync::Arc::new),
        }
    }

    /// The runs so far: all there is.
    pub(crate) fn into_answer(mut self) -> LogEvent {
        let runs = std::mem::take(&mut self.runs);
        self.answer(Ok(runs))
    }
}

/// Why a walk ended.
enum Ended {
    /// At the last valid record.
    Limit,
    /// At the end of the piece; so many bytes are needed to go on.
    Short(u64),
    /// At something that is not sound.
    Bad(String),
}

/// A walk over the records of one group in a piece of a file.
struct Walk {
    cluster: ClusterId,
    group: GroupId,
    entry: Entry,
    piece: Bytes,
    /// Where in the piece it stands.
    at: u64,
    /// How many bytes of records follow there, in this frame.
    left: u64,
    runs: Vec<Run>,
}

impl Walk {
    fn new(cluster: ClusterId, group: GroupId, entry: Entry, piece: Bytes) -> Self {
        Self {
            cluster,
            group,
            entry,
            piece,
            at: 0,
            left: entry.left.into(),
            runs: Vec::new(),
        }
    }

    /// Where in the file it stands.
    fn offset(&self) -> u64 {
        u64::from(self.entry.offset) + self.at
    }

    fn run(&mut self, end: Index) -> Ended {
        loop {
            if let Some(ended) = self.records() {
                return ended;
            }
            if self.runs.last().is_some_and(|r| r.last() >= end) {
                return Ended::Limit;
            }
            if let Some(ended) = self.frame() {
                return ended;
            }
        }
    }

    /// Takes the records of this frame; `None` if they all were there.
    fn records(&mut self) -> Option<Ended> {
        let length = self.piece.len() as u64;
        let there = length.saturating_sub(self.at).min(self.left);
        let (from, to) = (self.at.min(length), self.at.min(length) + there);
        let bytes = self.piece.slice(from as usize..to as usize);
        let (runs, sound, error) = decode_prefix(self.cluster, self.group, bytes);
        self.runs.extend(runs);
        self.at += sound as u64;
        self.left -= sound as u64;
        match error {
            None if self.left == 0 => None,
            None => Some(Ended::Short(self.at + SECTOR)),
            Some(RecordError::Cut { needs, .. })
                if there - (sound as u64) < self.left && needs as u64 <= self.left =>
            {
                Some(Ended::Short(self.at + needs as u64))
            }
            Some(error) => Some(Ended::Bad(error.to_string())),
        }
    }

    /// Steps into the next frame; `None` if it is there.
    fn frame(&mut self) -> Option<Ended> {
        self.at = align(self.offset()) - u64::from(self.entry.offset);
        let Some(sector) = self.piece.get(self.at as usize..(self.at + SECTOR) as usize) else {
            return Some(Ended::Short(self.at + SECTOR));
        };
        let header = match FrameHeader::read(self.cluster, self.entry.segment, self.offset(), sector) {
            Ok(header) => header,
            Err(error) => return Some(Ended::Bad(error.to_string())),
        };
        let start = self.at;
        // Nothing for this group: only where the frame ends matters.
        (self.at, self.left) = (start + (header.end() - header.offset), 0);
        let mut at = start + u64::from(header.header_len);
        for part in &header.parts {
            at += part.base_len();
            if part.group == self.group && part.bytes > 0 {
                (self.at, self.left) = (at, part.bytes.into());
            }
            at += u64::from(part.bytes);
        }
        None
    }
}
