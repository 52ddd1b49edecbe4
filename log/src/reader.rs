//! Reading records from disk, beside the writes.
//!
//! A read begins at the nearest entry of the index, takes in a piece of the file, and walks from there to
//! the records that are wanted: over frames up to the next entry, then from that one on, for what
//! lies just before an entry may have been removed. It does so again until it has what was asked for. Every
//! checksum on the way is verified. Invariants: a round either gives a record or reads more than the one
//! before, so that it ends; if records were removed meanwhile it begins again, so that none of those is ever
//! given; what is given holds on to little more memory than its own length.

use crate::api::{Fetch, From, LogError, LogEvent};
use crate::group::{Entry, Group};
use crate::layout::{SECTOR, align};
use bytes::Bytes;
use kontiki_consensus::{Body, GroupId, Index, Mark, Position, Records, Run};
use kontiki_wire::frame::FrameHeader;
use kontiki_wire::record::{RecordError, decode_prefix};
use kontiki_wire::{ClusterId, Salt};

/// How many bytes one operation reads, unless a record is larger.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// Whose bytes they are: the cluster, and the salt of the segment that they are read from.
pub(crate) type Of = (ClusterId, Option<Salt>);

/// How many bytes that were read from disk [`Log::poll`](crate::Log::poll) verifies before it gives `None`, but for the end of
/// the last piece: a small part of an election timeout even without an instruction for checksums.
pub const CHECK_BYTES_MAX: usize = 1 << 20;

/// A piece counts for so many bytes at least: that bounds how many small ones are verified.
const CHECK_BYTES_MIN: usize = 16 << 10;

/// How many bytes have been verified since [`Log::poll`](crate::Log::poll) last gave `None`.
#[derive(Debug, Default)]
pub(crate) struct CheckBudget {
    spent: usize,
}

impl CheckBudget {
    pub(crate) fn has_room(&self) -> bool {
        self.spent < CHECK_BYTES_MAX
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.spent = self.spent.saturating_add(bytes.max(CHECK_BYTES_MIN));
    }
}

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
    /// Nothing more is wanted, or can be had.
    done: bool,
}

/// A piece to be read: so many bytes from an entry on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) entry: Entry,
    pub(crate) bytes: u64,
}

impl Piece {
    /// Whether something of what stands at an entry was read with it.
    fn reaches(&self, entry: &Entry, read: &Bytes) -> bool {
        let skipped = entry.offset.checked_sub(self.entry.offset);
        entry.segment == self.entry.segment
            && skipped.is_some_and(|skipped| skipped == 0 || (skipped as usize) < read.len())
    }
}

/// What came of a piece.
pub(crate) enum Progress {
    /// More is to be read.
    GoOn,
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
            done: false,
        }
    }

    /// If what it wants is before the beginning of the log: the first entry there is. Begins again if anything
    /// was removed since the last piece.
    pub(crate) fn compacted(&mut self, group: &Group) -> Option<Position> {
        if self.removals != group.removals {
            (self.next, self.bytes, self.done) = (None, 0, false);
            self.removals = group.removals;
            self.runs.clear();
        }
        let base = &group.base;
        let is_before = match (self.next, self.fetch.from) {
            (Some(next), _) | (None, From::Index(next)) => next <= base.last.index,
            (None, From::Position(position)) => position <= base.position,
        };
        (is_before && group.has_base()).then(|| base.position.next())
    }

    /// The piece to read next; `None` if nothing more is wanted or there. `written` is the segment in use, and how
    /// far it is written. Asked after [`Self::compacted`].
    pub(crate) fn next_piece(&self, group: &Group, stride: u64, written: (u64, u64)) -> Option<Piece> {
        let (entry, _) = self.locate(group)?;
        let room = self.fetch.bytes_max.saturating_sub(self.bytes) as u64;
        // For less than this no piece is read.
        let slack = stride.min(self.fetch.bytes_max as u64 / 8);
        if self.done || (!self.runs.is_empty() && room <= slack) {
            return None;
        }
        let start = u64::from(entry.offset);
        // Between the records stand the headers of frames.
        let wanted = room.min(PIECE_BYTES_MAX);
        let mut end = start + stride + SECTOR + wanted + wanted / 8;
        if let Some(behind) = group.offset_behind(entry.segment, self.end(group)) {
            end = end.min(u64::from(behind) + SECTOR);
        }
        if entry.segment == written.0 {
            end = end.min(written.1);
        }
        let bytes = end.saturating_sub(start).max(self.least);
        Some(Piece { entry, bytes })
    }

    /// The last record to be read.
    fn end(&self, group: &Group) -> Index {
        self.fetch.to.min(group.last.index)
    }

    /// The entry from which the next record is found, and the last record to be read from there.
    fn locate(&self, group: &Group) -> Option<(Entry, Index)> {
        let end = self.end(group);
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
        Some((entry, valid.min(end)))
    }

    /// Takes in what was read, from a segment with this salt.
    pub(crate) fn take(&mut self, of: Of, group: &Group, piece: Piece, read: &Bytes) -> Progress {
        if self.removals != group.removals {
            return Progress::GoOn;
        }
        let (runs, bytes) = (self.runs.len(), self.bytes);
        let damage = self.walk(of, group, piece, read);
        let given = self.bytes - bytes;
        if read.len() > given + given / 4 {
            self.runs.iter_mut().skip(runs).for_each(detach);
        }
        match damage {
            Some(damage) if self.runs.is_empty() => Progress::Damaged(damage),
            found => {
                // Whoever asks for what is behind hears of the damage.
                self.done |= found.is_some();
                Progress::GoOn
            }
        }
    }

    /// Keeps what is wanted of a piece, going from entry to entry; gives what is damaged.
    fn walk(&mut self, of: Of, group: &Group, piece: Piece, read: &Bytes) -> Option<Damage> {
        while let Some((entry, end)) = self.locate(group).filter(|(entry, _)| piece.reaches(entry, read)) {
            let skipped = (entry.offset - piece.entry.offset) as usize;
            let mut walk = Walk::new(of, self.group, entry, read.slice(skipped..));
            let ended = walk.run(end);
            let kept = self.keep(&walk.runs, end);
            if kept {
                self.least = 0;
            }
            let what = match ended {
                _ if self.done => return None,
                Ended::Limit if kept => continue,
                // The record that holds the position lies beyond the last one asked for.
                Ended::Limit if self.wanted().is_none() => {
                    self.done = true;
                    return None;
                }
                Ended::Limit => "another record stands there".to_owned(),
                Ended::Short { record, .. }
                    if self.next == Some(walk.next_index()) && !self.has_room_for(record) =>
                {
                    self.done = true;
                    return None;
                }
                // The next round begins here; one that gives nothing needs a longer piece, of a file that is that long.
                Ended::Short { needs, .. }
                    if kept || skipped > 0 || needs > piece.bytes.max(read.len() as u64) =>
                {
                    self.least = if kept { 0 } else { needs };
                    return None;
                }
                Ended::Short { .. } => "its records end too early".to_owned(),
                Ended::Bad(what) => what,
            };
            return Some(Damage {
                segment: entry.segment,
                offset: walk.offset(),
                index: self.wanted(),
                what,
            });
        }
        None
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.runs.is_empty() || self.bytes + bytes <= self.fetch.bytes_max
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
            let head = part.fitting(self.fetch.bytes_max.saturating_sub(self.bytes));
            if !self.has_room_for(head.weight()) {
                self.done = true;
                break;
            }
            self.bytes += head.weight();
            self.next = Some(head.last().next());
            self.done = head.last() < part.last();
            self.runs.push(head);
            if self.done {
                break;
            }
        }
        self.runs.len() > before
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

/// Gives a run memory of its own, so that it does not hold on to the piece it was found in.
fn detach(run: &mut Run) {
    let Body::Records(records) = run.body() else {
        return;
    };
    let (mut end, mut entries) = (0, 0);
    let mark = |(bytes, _, count): (Bytes, u64, u32)| {
        end += bytes.len() as u32;
        entries += count;
        Mark { end, entries }
    };
    let marks = (0..records.len())
        .filter_map(|n| records.record(n))
        .map(mark)
        .collect();
    if let Some(own) = Records::new(Bytes::copy_from_slice(records.bytes()), marks) {
        *run = Run::new(run.first(), run.term(), run.first_position(), Body::Records(own));
    }
}

/// Why a walk ended.
enum Ended {
    /// At the last valid record.
    Limit,
    /// At the end of the piece: so many bytes of it are needed to go on, and the record there has at least so many.
    Short { needs: u64, record: usize },
    /// At something that is not sound.
    Bad(String),
}

/// A walk over the records of one group in a piece of a file.
struct Walk {
    cluster: ClusterId,
    salt: Option<Salt>,
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
    fn new((cluster, salt): Of, group: GroupId, entry: Entry, piece: Bytes) -> Self {
        Self {
            cluster,
            salt,
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

    /// The record that comes next.
    fn next_index(&self) -> Index {
        self.runs.last().map_or(self.entry.index, |run| run.last().next())
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
            None => Some(Ended::Short {
                needs: self.at + SECTOR,
                record: 0,
            }),
            Some(RecordError::Cut { needs, .. })
                if there - (sound as u64) < self.left && needs as u64 <= self.left =>
            {
                Some(Ended::Short {
                    needs: self.at + needs as u64,
                    record: needs,
                })
            }
            Some(error) => Some(Ended::Bad(error.to_string())),
        }
    }

    /// Steps into the next frame; `None` if it is there.
    fn frame(&mut self) -> Option<Ended> {
        self.at = align(self.offset()) - u64::from(self.entry.offset);
        let Some(sector) = self.piece.get(self.at as usize..(self.at + SECTOR) as usize) else {
            return Some(Ended::Short {
                needs: self.at + SECTOR,
                record: 0,
            });
        };
        let header = match FrameHeader::read(
            self.cluster,
            (self.entry.segment, self.salt),
            self.offset(),
            sector,
        ) {
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
