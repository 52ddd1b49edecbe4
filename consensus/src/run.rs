//! Runs: consecutive records of one term, held as one piece of memory.
//!
//! Consensus never looks into a record. It knows of each where its bytes end and how many user
//! entries it holds, which is what it needs to cut a run at a window's edge or at a conflict.
//!
//! Invariants: a run is never empty and never changes; all its records have one term; control records (no-op,
//! configuration) stand alone in a run of their own and have no user entries.

use crate::{Configuration, Few, Index, LogId, Position, Term};
use ::core::fmt;
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;

/// Where a record ends, counted from the start of the run it was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Bytes from the start of the run to the end of this record.
    pub end: u32,
    /// User entries from the start of the run to the end of this record.
    pub entries: u32,
}

/// Consecutive records of one term. A clone costs a count: log, writes and messages hold the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct Run(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    first: Index,
    term: Term,
    first_position: Position,
    /// These follow from the body and are asked for again and again.
    last: Index,
    last_position: Position,
    weight: usize,
    body: Body,
}

/// Consecutive runs, as messages and writes carry them.
pub type Runs = Few<Run>;

/// What a run holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The leader's first record of a term (paper §8). One record; its bytes follow from its place.
    Noop,
    /// A configuration (dissertation §4). One record; its bytes follow from its place and content.
    Configuration(Arc<Configuration>),
    /// Records of users, encoded once.
    Records(Records),
}

/// Encoded records and where each of them ends. Cutting is cheap: bytes and marks are shared.
#[derive(Clone)]
pub struct Records {
    bytes: Bytes,
    marks: Marks,
    /// Which of the marks are its own. They are fewer than 2³²: each ends further on than the one before.
    from: u32,
    to: u32,
}

/// One record alone, as it comes when little is going on, needs no memory for its mark.
#[derive(Clone)]
enum Marks {
    One(Mark),
    Many(Arc<[Mark]>),
}

impl Marks {
    fn as_slice(&self) -> &[Mark] {
        match self {
            Self::One(mark) => ::core::slice::from_ref(mark),
            Self::Many(marks) => marks,
        }
    }
}

impl From<Vec<Mark>> for Marks {
    fn from(marks: Vec<Mark>) -> Self {
        match marks[..] {
            [mark] => Self::One(mark),
            _ => Self::Many(marks.into()),
        }
    }
}

/// Where the records of a run end, as they are gathered. One alone needs no memory of its own.
#[derive(Clone, Debug, Default)]
pub struct MarkList {
    /// The only one, while there are no more and none were expected.
    one: Option<Mark>,
    many: Vec<Mark>,
}

impl MarkList {
    /// None yet, with room for so many.
    #[must_use]
    pub fn with_capacity(expected: usize) -> Self {
        Self {
            one: None,
            many: if expected > 1 {
                Vec::with_capacity(expected)
            } else {
                Vec::new()
            },
        }
    }

    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, mark: Mark) {
        if self.many.capacity() > 0 {
            self.many.push(mark);
        } else {
            self.push_early(mark);
        }
    }

    #[inline(never)]
    fn push_early(&mut self, mark: Mark) {
        match self.one.take() {
            None => self.one = Some(mark),
            Some(first) => self.many = [first, mark].into(),
        }
    }

    /// The last one.
    #[must_use]
    #[inline]
    pub fn last(&self) -> Option<Mark> {
        self.many.last().copied().or(self.one)
    }

    /// How many.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.many.len() + usize::from(self.one.is_some())
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Records {
    /// Records from their bytes and marks. `None` if there is no mark, the marks do not rise or the last is not the end.
    #[must_use]
    pub fn new(bytes: Bytes, marks: Vec<Mark>) -> Option<Self> {
        let rising = marks
            .windows(2)
            .all(|w| w[0].end < w[1].end && w[0].entries <= w[1].entries);
        let last = marks.last()?;
        let whole = last.end as usize == bytes.len();
        let to = u32::try_from(marks.len()).ok()?;
        (rising && whole && marks[0].end > 0).then(|| Self {
            bytes,
            marks: marks.into(),
            from: 0,
            to,
        })
    }

    /// The same of marks that were gathered one by one.
    #[must_use]
    pub fn gathered(bytes: Bytes, marks: MarkList) -> Option<Self> {
        let Some(mark) = marks.one else {
            return Self::new(bytes, marks.many);
        };
        (mark.end > 0 && mark.end as usize == bytes.len()).then(|| Self {
            bytes,
            marks: Marks::One(mark),
            from: 0,
            to: 1,
        })
    }

    /// The bytes of all records, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many records.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// How many user entries in all records.
    #[must_use]
    pub fn entries(&self) -> u64 {
        u64::from(self.mark(self.len()).entries - self.mark(0).entries)
    }

    /// The bytes of record `n`, and the number of user entries before it in this run and in it.
    #[must_use]
    pub fn record(&self, n: usize) -> Option<(Bytes, u64, u32)> {
        (n < self.len()).then(|| {
            let (zero, start, end) = (self.mark(0), self.mark(n), self.mark(n + 1));
            let bytes = self
                .bytes
                .slice((start.end - zero.end) as usize..(end.end - zero.end) as usize);
            (
                bytes,
                u64::from(start.entries - zero.entries),
                end.entries - start.entries,
            )
        })
    }

    /// End of the first `n` records, in the coordinates of the marks.
    fn mark(&self, n: usize) -> Mark {
        match self.from as usize + n {
            0 => Mark { end: 0, entries: 0 },
            k => self.marks.as_slice()[k - 1],
        }
    }

    fn own_marks(&self) -> &[Mark] {
        &self.marks.as_slice()[self.from as usize..self.to as usize]
    }

    /// Which record holds user entry `n`, counted from zero.
    fn holding(&self, n: u64) -> usize {
        let before = u64::from(self.mark(0).entries);
        self.own_marks()
            .partition_point(|m| u64::from(m.entries) <= before + n)
    }

    fn cut(&self, from: usize, to: usize) -> Self {
        let (zero, start, end) = (self.mark(0).end, self.mark(from).end, self.mark(to).end);
        Self {
            bytes: self.bytes.slice((start - zero) as usize..(end - zero) as usize),
            marks: self.marks.clone(),
            from: self.from + from as u32,
            to: self.from + to as u32,
        }
    }

    /// How many records from the first on fit into `bytes_max`; at least one.
    fn fitting(&self, bytes_max: usize) -> usize {
        if self.bytes.len() <= bytes_max {
            return self.len();
        }
        let limit = self.mark(0).end as usize + bytes_max;
        self.own_marks()
            .partition_point(|m| m.end as usize <= limit)
            .max(1)
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.bytes == other.bytes
    }
}

impl Eq for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}B", self.len(), self.bytes.len())
    }
}

impl Run {
    /// What a control record is taken to weigh where windows and memory are counted, in bytes.
    pub const CONTROL_BYTES: usize = 128;

    /// A run whose first record has Raft index `first`, and whose first user entry has (or would have) `first_position`.
    #[must_use]
    pub fn new(first: Index, term: Term, first_position: Position, body: Body) -> Self {
        let (records, entries, weight) = match &body {
            Body::Records(records) => (records.len(), records.entries(), records.bytes.len()),
            _ => (1, 0, Self::CONTROL_BYTES),
        };
        Self(Arc::new(Inner {
            first,
            term,
            first_position,
            last: Index(first.0.saturating_add(records as u64 - 1)),
            last_position: Position(first_position.0.saturating_add(entries).saturating_sub(1)),
            weight,
            body,
        }))
    }

    /// Raft index of the first record.
    #[must_use]
    pub fn first(&self) -> Index {
        self.0.first
    }

    /// Raft index of the last record.
    #[must_use]
    pub fn last(&self) -> Index {
        self.0.last
    }

    /// Index and term of the last record.
    #[must_use]
    pub fn last_id(&self) -> LogId {
        LogId::new(self.0.term, self.0.last)
    }

    /// The term of all its records.
    #[must_use]
    pub fn term(&self) -> Term {
        self.0.term
    }

    /// Position of its first user entry; of the next one, if it has none.
    #[must_use]
    pub fn first_position(&self) -> Position {
        self.0.first_position
    }

    /// Position of the last user entry in the log up to the end of this run.
    #[must_use]
    pub fn last_position(&self) -> Position {
        self.0.last_position
    }

    /// Position of the last user entry in the log up to `index`, which lies in this run.
    #[must_use]
    pub fn position_at(&self, index: Index) -> Position {
        match &self.0.body {
            Body::Records(records) => {
                let n = (index.0.saturating_sub(self.0.first.0) + 1).min(records.len() as u64) as usize;
                let entries = records.mark(n).entries - records.mark(0).entries;
                Position(
                    self.0
                        .first_position
                        .0
                        .saturating_add(u64::from(entries))
                        .saturating_sub(1),
                )
            }
            _ => self.0.first_position.prev(),
        }
    }

    /// Raft index of the record that holds the user entry at `position`, if it is in this run.
    #[must_use]
    pub fn index_of(&self, position: Position) -> Option<Index> {
        let Body::Records(records) = &self.0.body else {
            return None;
        };
        if position < self.0.first_position || position > self.last_position() {
            return None;
        }
        Some(Index(
            self.0.first.0 + records.holding(position.0 - self.0.first_position.0) as u64,
        ))
    }

    /// What it holds.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.0.body
    }

    /// How many records; never zero.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match &self.0.body {
            Body::Records(records) => records.len(),
            _ => 1,
        }
    }

    /// How many user entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        match &self.0.body {
            Body::Records(records) => records.entries(),
            _ => 0,
        }
    }

    /// What it weighs in windows and memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.0.weight
    }

    /// The part from `from` to `to`, both included. `None` where they do not overlap the run.
    #[must_use]
    pub fn slice(&self, from: Index, to: Index) -> Option<Self> {
        let (from, to) = (from.max(self.first()), to.min(self.last()));
        if from > to {
            return None;
        }
        if from == self.first() && to == self.last() {
            return Some(self.clone());
        }
        let body = match &self.0.body {
            Body::Records(records) => Body::Records(records.cut(
                (from.0 - self.0.first.0) as usize,
                (to.0 - self.0.first.0) as usize + 1,
            )),
            other => other.clone(),
        };
        let first_position = if from == self.0.first {
            self.0.first_position
        } else {
            self.position_at(from.prev()).next()
        };
        Some(Self::new(from, self.term(), first_position, body))
    }

    /// The longest beginning that fits into `bytes_max`; at least one record.
    #[must_use]
    pub fn fitting(&self, bytes_max: usize) -> Self {
        match &self.0.body {
            Body::Records(records) => {
                let last = Index(self.0.first.0 + records.fitting(bytes_max) as u64 - 1);
                self.slice(self.0.first, last).unwrap_or_else(|| self.clone())
            }
            _ => self.clone(),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{:?}..={:?} {:?} {:?} {:?}]",
            self.first(),
            self.last(),
            self.term(),
            self.first_position(),
            self.body()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn records_are_the_same_however_their_marks_were_gathered() {
        for (records, expected) in (0..6_u32).flat_map(|records| (0..4).map(move |e| (records, e))) {
            let marks = (1..=records).map(|n| Mark {
                end: 3 * n,
                entries: n,
            });
            let mut list = MarkList::with_capacity(expected);
            marks.clone().for_each(|mark| list.push(mark));
            assert_eq!(
                (list.len(), list.last()),
                (records as usize, marks.clone().next_back())
            );
            for len in [0, 3 * records as usize, 3 * records as usize + 1] {
                let bytes = Bytes::from(vec![0; len]);
                let gathered = Records::gathered(bytes.clone(), list.clone());
                let at_once = Records::new(bytes, marks.clone().collect());
                assert_eq!(
                    gathered, at_once,
                    "{records} records, {expected} expected, {len} bytes"
                );
                let own = gathered.map(|r| r.own_marks().to_vec());
                assert_eq!(own, at_once.map(|r| r.own_marks().to_vec()));
            }
        }
    }
}
