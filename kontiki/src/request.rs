//! What is asked of a node and what comes back, as futures that any executor can run, or none.
//!
//! Invariants: a request is on its way once it is made, whether its future is polled or not; dropping the future of a read
//! cancels it, dropping that of an append only gives up the answer.

use crate::{Error, LogEntry, shared::Answer};
use kontiki_consensus::Position;
use kontiki_node::{Failure, Reply};
use kontiki_wire::{
    Refusal,
    record::{self, UserEntry},
};
use std::{
    marker::PhantomData,
    ops::{Bound, RangeBounds},
    pin::Pin,
    task::{Context, Poll},
};

/// What an append asks of the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// That the log holds no entry.
    Empty,
    /// That the log ends with this entry.
    Last {
        /// Its index.
        index: u64,
        /// The term it was appended in, if that matters.
        term: Option<u64>,
    },
}

impl From<Expect> for kontiki_wire::Expect {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Any => Self::Any,
            Expect::Empty | Expect::Last { index: 0, .. } => Self::Empty,
            Expect::Last { index, term } => Self::Last {
                position: Position(index),
                term: term.map(kontiki_consensus::Term),
            },
        }
    }
}

/// Where the entries of an append stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// Index of the first.
    pub first: u64,
    /// Index of the last. An append without entries ends where the log does, and its `first` lies behind that.
    pub last: u64,
    /// The term they were appended in.
    pub term: u64,
}

/// An entry and its place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Entry<T> {
    /// Its place among the entries: dense, from 1.
    pub index: u64,
    /// The term it was appended in.
    pub term: u64,
    /// The schema of the program that appended it ([`Config::schema`](crate::Config::schema)).
    pub schema: u32,
    /// The entry itself.
    pub value: T,
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Entries<T> {
    /// Consecutive entries, as many as one read may give. Fewer than asked for, and not yet at `last_index`: ask again. They
    /// end before an entry that cannot be decoded: asking again gives the error.
    pub entries: Vec<Entry<T>>,
    /// Index of the last committed entry the read saw; 0 if there is none.
    pub last_index: u64,
}

/// An append under way. It goes on whether this is polled or dropped.
#[derive(Debug)]
#[must_use = "what became of the append is known only to its future"]
pub struct Append {
    state: State,
}

/// A read under way. Dropping it cancels it.
#[derive(Debug)]
#[must_use = "what was read is known only to its future"]
pub struct Read<T> {
    state: State,
    range: Wanted,
    _entry: PhantomData<fn() -> T>,
}

/// How far a request is.
#[derive(Debug)]
pub(crate) enum State {
    /// It was refused at once.
    Refused(Option<Error>),
    Waiting(Answer),
}

impl State {
    pub(crate) fn new(submitted: Result<Answer, Error>) -> Self {
        submitted.map_or_else(|error| Self::Refused(Some(error)), Self::Waiting)
    }

    /// The reply; `Ready(None)` if there will be none.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Reply>, Error>> {
        match self {
            Self::Refused(error) => Poll::Ready(error.take().map_or(Ok(None), Err)),
            Self::Waiting(answer) => answer.poll(context).map(Ok),
        }
    }
}

impl Append {
    pub(crate) fn new(submitted: Result<Answer, Error>) -> Self {
        Self {
            state: State::new(submitted),
        }
    }

    /// Whether it was refused at once, because too much is in flight.
    pub(crate) fn is_overloaded(&self) -> bool {
        matches!(self.state, State::Refused(Some(Error::Overloaded)))
    }
}

impl Future for Append {
    type Output = Result<Appended, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| appended(reply?))
    }
}

fn appended(reply: Option<Reply>) -> Result<Appended, Error> {
    match reply {
        Some(Reply::Appended {
            first, last, term, ..
        }) => Ok(Appended {
            first: first.0,
            last: last.0,
            term: term.0,
        }),
        Some(Reply::Failed(Failure::Refused(Refusal::Holds { last, term }))) => Ok(Appended {
            first: last.0.saturating_add(1),
            last: last.0,
            term: term.0,
        }),
        Some(Reply::Failed(failure)) => Err(failure.into()),
        Some(_) | None => Err(Error::Unknown("the node ended without an answer".to_owned())),
    }
}

impl<T> Read<T> {
    pub(crate) fn new(submitted: Result<Answer, Error>, range: Wanted) -> Self {
        Self {
            state: State::new(submitted),
            range,
            _entry: PhantomData,
        }
    }
}

impl<T: LogEntry> Future for Read<T> {
    type Output = Result<Entries<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let range = self.range;
        self.state.poll(context).map(|reply| range.entries(reply?))
    }
}

/// Which entries are wanted: from `from` on (0: from where the log begins) and before `to`, no more than `bytes_max` bytes, but at least one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) bytes_max: usize,
}

impl Wanted {
    pub(crate) fn of(range: impl RangeBounds<u64>, bytes_max: usize) -> Self {
        let from = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Self {
            from,
            to: to.max(from),
            bytes_max,
        }
    }

    /// Picks them out of what the node found, and decodes them.
    fn entries<T: LogEntry>(self, reply: Option<Reply>) -> Result<Entries<T>, Error> {
        let (runs, last) = match reply {
            Some(Reply::Read { runs, last }) => (runs, last),
            Some(Reply::Failed(failure)) => return Err(failure.into()),
            Some(_) | None => {
                return Err(Error::Stopped("it ended without an answer".to_owned()));
            }
        };
        let last_index = last.0;
        let (mut entries, mut bytes) = (Vec::new(), 0usize);
        let (from, end) = (
            Position(self.from),
            Position(self.to.min(last.0.saturating_add(1))),
        );
        for run in &runs {
            // Nothing before the record that holds the first entry needs to be looked at.
            let cut = run.index_of(from).and_then(|index| run.slice(index, run.last()));
            for entry in record::entries(cut.as_ref().unwrap_or(run)) {
                let UserEntry {
                    position,
                    schema,
                    bytes: payload,
                } = entry;
                if position < from || position >= end {
                    continue;
                }
                bytes = bytes.saturating_add(payload.len());
                if bytes > self.bytes_max && !entries.is_empty() {
                    return Ok(Entries { entries, last_index });
                }
                let value = match T::decode((position.0, schema), payload) {
                    Ok(value) => value,
                    // What stands before it is given first; whoever asks again, from there on, is told.
                    Err(_) if !entries.is_empty() => return Ok(Entries { entries, last_index }),
                    Err(error) => return Err(error),
                };
                entries.push(Entry {
                    index: position.0,
                    term: run.term().0,
                    schema,
                    value,
                });
            }
        }
        Ok(Entries { entries, last_index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raw;
    use bytes::Bytes;
    use kontiki_consensus::{Admission, GroupId, Index, Run, Term};
    use kontiki_wire::{ClusterId, Codec, Payload, Session, Stamp, record::RunBuilder};

    /// Entries 11 to 16 of term 3, the first two and the next three in one record each.
    fn run() -> Run {
        let at = Admission {
            index: Index(20),
            term: Term(3),
            position: Position(11),
        };
        let mut builder = RunBuilder::new(ClusterId(1), GroupId(0), at);
        for entries in [&["aa", "bb"][..], &["cc", "dd", "ee"], &["ff"]] {
            builder
                .push(
                    &Payload::several(entries, Codec::Bytes).unwrap(),
                    Stamp::default(),
                    Session::None,
                )
                .unwrap();
        }
        builder.finish().unwrap()
    }

    fn read(range: impl RangeBounds<u64>, bytes_max: usize, last: u64) -> (Vec<(u64, Bytes)>, u64) {
        let reply = Reply::Read {
            runs: vec![run()],
            last: Position(last),
        };
        let read = Wanted::of(range, bytes_max).entries::<Raw>(Some(reply)).unwrap();
        assert!(read.entries.iter().all(|entry| entry.term == 3));
        (
            read.entries
                .into_iter()
                .map(|entry| (entry.index, entry.value.0))
                .collect(),
            read.last_index,
        )
    }

    #[test]
    fn a_read_gives_what_was_asked_for_and_no_more() {
        let indexes = |range: std::ops::Range<u64>, bytes_max, last| -> Vec<u64> {
            read(range, bytes_max, last)
                .0
                .into_iter()
                .map(|(index, _)| index)
                .collect()
        };
        assert_eq!(indexes(0..100, 1000, 16), [11, 12, 13, 14, 15, 16]);
        assert_eq!(indexes(12..15, 1000, 16), [12, 13, 14]);
        assert_eq!(indexes(12..15, 4, 16), [12, 13]);
        assert_eq!(indexes(12..15, 1, 16), [12], "at least one");
        assert_eq!(
            indexes(14..100, 1000, 15),
            [14, 15],
            "nothing that is not committed"
        );
        assert_eq!(indexes(17..20, 1000, 16), []);
        assert_eq!(read(15..=15, 1000, 16).0, [(15, Bytes::from_static(b"ee"))]);
    }

    #[test]
    fn an_entry_of_another_type_does_not_take_those_before_it_along() {
        let at = Admission {
            index: Index(1),
            term: Term(1),
            position: Position(1),
        };
        let mut builder = RunBuilder::new(ClusterId(1), GroupId(0), at);
        for entry in [&b"\x01a"[..], b"\x01b", b"\x05c", b"\x01d"] {
            let payload = Payload::one(Bytes::from_static(entry), Codec::Postcard);
            builder.push(&payload, Stamp::default(), Session::None).unwrap();
        }
        let run = builder.finish().unwrap();
        let read = |range| {
            let (runs, last) = (vec![run.clone()], Position(4));
            let read = Wanted::of(range, 1000).entries::<String>(Some(Reply::Read { runs, last }));
            read.map(|read| {
                read.entries
                    .into_iter()
                    .map(|entry| entry.value)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(read(1..5).unwrap(), ["a", "b"]);
        assert!(matches!(read(3..5), Err(Error::Decode { index: 3, .. })));
        assert_eq!(read(4..5).unwrap(), ["d"]);
    }

    #[test]
    fn odd_ranges_are_empty_or_clamped() {
        let wanted = |range: (Bound<u64>, Bound<u64>)| {
            let wanted = Wanted::of(range, 1);
            (wanted.from, wanted.to)
        };
        assert_eq!(wanted((Bound::Unbounded, Bound::Unbounded)), (0, u64::MAX));
        assert_eq!(wanted((Bound::Included(0), Bound::Excluded(3))), (0, 3));
        assert_eq!(wanted((Bound::Included(9), Bound::Excluded(3))), (9, 9));
        assert_eq!(
            wanted((Bound::Excluded(9), Bound::Included(u64::MAX))),
            (10, u64::MAX)
        );
    }
}
