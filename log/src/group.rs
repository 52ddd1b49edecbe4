//! What the log knows of one group: term and vote, the end, where terms begin, and where records stand.
//!
//! It follows the stream of frames, when they are written and again when they are read back: what a frame
//! does is applied once the frame is on disk. Invariants: everything here rises in index; records without
//! an entry of their own begin less than a stride behind the one before that has, in the same segment, with
//! no removed record in between; so a read that begins at an entry and ends before the next sees valid
//! records only. Where the log begins (`base`) a snapshot covers what is before: entries of records up to there
//! go, and the first one left says which segments are still needed. Memory: an entry is 32 bytes and two of them
//! are more than a stride apart, over the length of both: at 64 MiB a segment about half a MiB, and never more than
//! one, for each GiB of log. That holds where one group writes: of a frame with several, all but the last get an
//! entry each, for an entry does not say where its frame ends.

use bytes::Bytes;
use kontiki_consensus::{Base, Body, GroupId, HardState, Index, LogId, Position, Run, Term, TermStart};
use kontiki_wire::frame::{FrameHeader, FramePart};
use kontiki_wire::record::{encode_run, run_bytes};
use kontiki_wire::segment::{GroupIndex, GroupStart, IndexEntry, SegmentIndex};
use kontiki_wire::{ClusterId, base_bytes, decode_base, encode_base, record};
use std::collections::BTreeMap;

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) index: Index,
    /// The last user entry before it.
    pub(crate) before: Position,
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    /// How many bytes of records follow from there on, in the same frame.
    pub(crate) left: u32,
}

/// Where the records of a frame stand.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    offset: u64,
    stride: u64,
}

/// All groups.
pub(crate) type Groups = BTreeMap<GroupId, Group>;

/// What a part of a frame has in the body: where the log is to begin, and records.
pub(crate) type Content<'a> = (Option<&'a Base>, &'a [Run]);

/// What a frame does to all groups.
pub(crate) fn apply_frame<'a>(
    groups: &mut Groups,
    header: &FrameHeader,
    stride: u64,
    contents: impl Iterator<Item = Content<'a>>,
) {
    let mut offset = header.offset + u64::from(header.header_len);
    for (part, content) in header.parts.iter().zip(contents) {
        let group = groups.entry(part.group).or_default();
        offset += part.base_len();
        let place = Place {
            segment: header.segment,
            offset,
            stride,
        };
        group.apply(place, part, content);
        offset += u64::from(part.bytes);
        // A read cannot step from here into the next frame, for it sees only the records of one group.
        group.broken |= part.bytes > 0 && offset < header.end();
    }
}

/// One group, as it stands on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) hard_state: HardState,
    pub(crate) last: LogId,
    pub(crate) last_position: Position,
    /// What is before the log: zero if that begins with record 1. As long as no frame has told (`base_in` is
    /// zero), of a log whose first segments are gone, how it stood where the first one left begins.
    pub(crate) base: Base,
    /// The newest segment whose frames tell of the base.
    pub(crate) base_in: u64,
    /// The last record that stood in segments that are gone and was not removed by a later one.
    gone: Index,
    /// Where each term after that of the base begins.
    pub(crate) terms: Vec<TermStart>,
    /// The records of configurations.
    pub(crate) configurations: Vec<Run>,
    entries: Vec<Entry>,
    /// The next record gets an entry, wherever it stands.
    broken: bool,
    /// How often records were removed: a read that began before may have seen some of them.
    pub(crate) removals: u64,
}

impl Group {
    /// As it stood when the first segment that is left was begun.
    pub(crate) fn begun(start: &GroupStart) -> Self {
        Self {
            hard_state: start.hard_state,
            last: start.last,
            last_position: start.last_position,
            base: Base {
                last: start.last,
                position: start.last_position,
                ..Base::default()
            },
            gone: start.last.index,
            ..Self::default()
        }
    }

    /// What a frame does, in its order.
    fn apply(&mut self, place: Place, part: &FramePart, (base, runs): Content<'_>) {
        self.hard_state = part.hard_state.unwrap_or(self.hard_state);
        if let (Some(from), Some(first)) = (part.truncate, runs.first()) {
            self.truncate(from, first.first_position().prev());
        }
        let base = part.base.zip(base);
        if let Some((_, base)) = base.filter(|(how, _)| how.install) {
            self.install(base);
        }
        self.append(place, runs);
        if let Some((_, base)) = base {
            self.begin_after(base.clone(), place.segment);
        }
    }

    /// Removes everything; the log goes on after `base`.
    fn install(&mut self, base: &Base) {
        self.terms.clear();
        self.configurations.clear();
        self.entries.clear();
        (self.last, self.last_position) = (base.last, base.position);
        self.gone = self.gone.min(base.last.index);
        self.base = base.clone();
        self.broken = true;
        self.removals += 1;
    }

    /// Forgets what a base covers, which `segment` tells of.
    fn begin_after(&mut self, base: Base, segment: u64) {
        let (index, term) = (base.last.index, base.last.term);
        self.terms.retain(|t| t.index > index && t.term != term);
        self.configurations.retain(|r| r.first() > index);
        // The last entry up to the first record wanted is where that is found.
        let up_to_first = self.entries.partition_point(|e| e.index <= index.next());
        let needless = if index < self.last.index {
            up_to_first.saturating_sub(1)
        } else {
            self.entries.len()
        };
        self.entries.drain(..needless);
        self.removals += u64::from(needless > 0 || index > self.base.last.index);
        (self.base, self.base_in) = (base, segment);
    }

    /// Whether the log begins after record 0.
    pub(crate) fn has_base(&self) -> bool {
        self.base.last != LogId::ZERO
    }

    /// Whether the log holds this record, or rests on it.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        let inside = id.index > self.base.last.index && id.index <= self.last.index;
        id == self.base.last || (inside && self.term_before(id.index.next()) == id.term)
    }

    /// Whether nothing is missing between the base and the first record.
    pub(crate) fn is_whole(&self) -> bool {
        self.gone == Index::ZERO || (self.base_in > 0 && self.gone <= self.base.last.index)
    }

    /// The first segment that is needed: for its records, or because no later one tells of the base.
    pub(crate) fn needed(&self) -> Option<u64> {
        let records = self.entries.first().map(|e| e.segment);
        let base = Some(self.base_in).filter(|_| self.has_base());
        records.into_iter().chain(base).min()
    }

    /// Removes a record and all after it; the position of the last that stays is told by what replaces them.
    fn truncate(&mut self, from: Index, position: Position) {
        self.terms
            .truncate(self.terms.partition_point(|t| t.index < from));
        self.configurations
            .truncate(self.configurations.partition_point(|r| r.first() < from));
        self.entries
            .truncate(self.entries.partition_point(|e| e.index < from));
        self.last = LogId::new(self.last_term(), self.last.index.min(from.prev()));
        self.last_position = position;
        self.gone = self.gone.min(from.prev());
        self.broken = true;
        self.removals += 1;
    }

    fn last_term(&self) -> Term {
        self.terms.last().map_or(self.base.last.term, |t| t.term)
    }

    /// The term of the last record before `index`; zero if that is not known. What a segment tells in its header of the log
    /// before it says nothing of records before the last.
    pub(crate) fn term_before(&self, index: Index) -> Term {
        let before = self.terms.partition_point(|t| t.index < index);
        let known = before.checked_sub(1).and_then(|n| self.terms.get(n));
        match known {
            Some(start) => start.term,
            None if self.base_in == 0 && index <= self.base.last.index => Term::ZERO,
            None => self.base.last.term,
        }
    }

    fn append(&mut self, place: Place, runs: &[Run]) {
        let end = place.offset + runs.iter().map(|r| run_bytes(r) as u64).sum::<u64>();
        let mut offset = place.offset;
        for run in runs {
            if self.last == LogId::ZERO || run.term() != self.last.term {
                let position_before = run.first_position().prev();
                self.terms.push(TermStart {
                    term: run.term(),
                    index: run.first(),
                    position_before,
                });
            }
            if matches!(run.body(), Body::Configuration(_)) {
                self.configurations.push(run.clone());
            }
            self.note_places(Place { offset, ..place }, run, end);
            offset += run_bytes(run) as u64;
            (self.last, self.last_position) = (run.last_id(), run.last_position());
        }
    }

    /// Gives entries to the first record of a run and to one every stride, as far as none is near enough.
    fn note_places(&mut self, place: Place, run: &Run, end: u64) {
        let mut offset = place.offset;
        let mut rest = Some(run.clone());
        while let Some(run) = rest {
            let near = self
                .entries
                .last()
                .filter(|e| e.segment == place.segment && !self.broken);
            let mut room = near.map_or(0, |e| (u64::from(e.offset) + place.stride).saturating_sub(offset));
            if room == 0 {
                self.broken = false;
                self.entries.push(Entry {
                    index: run.first(),
                    before: run.first_position().prev(),
                    segment: place.segment,
                    offset: offset as u32,
                    left: (end - offset) as u32,
                });
                room = place.stride;
            }
            let head = run.fitting(room as usize);
            offset += run_bytes(&head) as u64;
            rest = run.slice(head.last().next(), run.last());
        }
    }

    /// The entry from which `index` is found, and the last record to be read from there.
    pub(crate) fn locate(&self, index: Index) -> Option<(Entry, Index)> {
        let after = self.entries.partition_point(|e| e.index <= index);
        self.entry(after.checked_sub(1)?)
    }

    /// The entry from which the record that holds `position` is found, and the last record to be read from there.
    pub(crate) fn locate_position(&self, position: Position) -> Option<(Entry, Index)> {
        let after = self.entries.partition_point(|e| e.before < position);
        self.entry(after.checked_sub(1)?)
    }

    fn entry(&self, n: usize) -> Option<(Entry, Index)> {
        let end = self
            .entries
            .get(n + 1)
            .map_or(self.last.index, |next| next.index.prev());
        self.entries.get(n).map(|entry| (*entry, end))
    }

    /// Where in a segment the first record behind `end` stands that has an entry, if it is in that segment.
    pub(crate) fn offset_behind(&self, segment: u64, end: Index) -> Option<u32> {
        let next = self
            .entries
            .get(self.entries.partition_point(|e| e.index <= end))?;
        (next.segment == segment).then_some(next.offset)
    }

    /// How many records have an entry.
    #[cfg(test)]
    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// How it stands, for the header of a new segment.
    pub(crate) fn start(&self, group: GroupId) -> GroupStart {
        let Self {
            hard_state,
            last,
            last_position,
            ..
        } = *self;
        GroupStart {
            group,
            hard_state,
            last,
            last_position,
        }
    }

    /// The entries of records in the newest segment, and the last record before them.
    fn standing_in(&self, segment: u64) -> (&[Entry], Index) {
        let before = self.entries.partition_point(|e| e.segment < segment);
        let entries = self.entries.get(before..).unwrap_or_default();
        (
            entries,
            entries.first().map_or(self.last.index, |e| e.index.prev()),
        )
    }

    /// What the newest segment did to it.
    pub(crate) fn summary(&self, cluster: ClusterId, group: GroupId, segment: u64) -> GroupIndex {
        let (entries, kept) = self.standing_in(segment);
        let mut configurations = Vec::new();
        for run in self.configurations.iter().filter(|r| r.first() > kept) {
            encode_run(cluster, group, run, &mut configurations);
        }
        let entry = |e: &Entry| IndexEntry {
            index: e.index,
            before: e.before,
            offset: e.offset,
            left: e.left,
        };
        GroupIndex {
            group,
            hard_state: self.hard_state,
            kept,
            last: self.last,
            last_position: self.last_position,
            base: self.base_block(cluster, group),
            terms: self.terms.iter().filter(|t| t.index > kept).copied().collect(),
            entries: entries.iter().map(entry).collect(),
            configurations: configurations.concat().into(),
        }
    }

    fn base_block(&self, cluster: ClusterId, group: GroupId) -> Bytes {
        if self.has_base() {
            encode_base(cluster, group, &self.base)
        } else {
            Bytes::new()
        }
    }

    /// How long that is, in bytes.
    pub(crate) fn summary_bytes(&self, segment: u64) -> usize {
        let (entries, kept) = self.standing_in(segment);
        let terms = self.terms.len() - self.terms.partition_point(|t| t.index <= kept);
        let newer = self.configurations.iter().rev().take_while(|r| r.first() > kept);
        let base = if self.has_base() {
            base_bytes(&self.base)
        } else {
            0
        };
        GroupIndex::len_of(terms, entries.len(), base, newer.map(run_bytes).sum())
    }

    fn is_followed_by(&self, cluster: ClusterId, index: &GroupIndex) -> bool {
        let base = decode_base(cluster, index.group, &index.base);
        // What lies between the one and the other, the base covers.
        let covered = base.as_ref().map_or(Index::ZERO, |b| b.last.index);
        (base.is_some() || index.base.is_empty())
            && index.kept <= self.last.index.max(covered)
            && index.kept <= index.last.index
    }

    /// Does what the frames of a segment did, from its index, which [`can_follow`] has let pass.
    pub(crate) fn restore(&mut self, cluster: ClusterId, segment: u64, index: &GroupIndex) {
        if index.kept < self.last.index {
            self.truncate(index.kept.next(), Position::ZERO);
        }
        let entry = |e: &IndexEntry| Entry {
            index: e.index,
            before: e.before,
            segment,
            offset: e.offset,
            left: e.left,
        };
        self.terms.extend(&index.terms);
        self.entries.extend(index.entries.iter().map(entry));
        self.configurations
            .extend(decode_each(cluster, index).unwrap_or_default());
        self.hard_state = index.hard_state;
        self.last = index.last;
        self.last_position = index.last_position;
        if let Some(base) = decode_base(cluster, index.group, &index.base) {
            self.begin_after(base, segment);
        }
    }
}

/// Whether the index of a segment can follow: that is so if nothing was damaged.
pub(crate) fn can_follow(groups: &Groups, cluster: ClusterId, index: &SegmentIndex) -> bool {
    let none = Group::default();
    let follows = |g: &GroupIndex| groups.get(&g.group).unwrap_or(&none).is_followed_by(cluster, g);
    index
        .groups
        .iter()
        .all(|g| follows(g) && decode_each(cluster, g).is_some())
}

/// Records that stand one behind the other without being consecutive.
fn decode_each(cluster: ClusterId, index: &GroupIndex) -> Option<Vec<Run>> {
    let mut rest = index.configurations.clone();
    let mut runs = Vec::new();
    while !rest.is_empty() {
        let length = record::RecordHeader::read(cluster, &rest).ok()?.record_len();
        let one = (length <= rest.len()).then(|| rest.split_to(length))?;
        runs.extend(record::decode_runs(cluster, index.group, one).ok()?);
    }
    Some(runs)
}
