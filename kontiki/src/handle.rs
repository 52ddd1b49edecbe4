//! The handle: how a program uses a node. Every node takes every call and forwards to the leader what is for it.

use crate::{
    Append, Consistency, Error, Expect, IntoEntry, LogEntry, Read, SessionKey, Tail,
    owner::{Node, common_calls},
    request::Wanted,
    shared::Limits,
};
use bytes::Bytes;
use kontiki_node::Ask;
use kontiki_wire::{Codec, Payload, Session};
use std::{marker::PhantomData, ops::RangeBounds};

/// A node, for a program to use: cheap to clone, usable from any thread, on any executor and on none.
///
/// When the last handle is dropped the node stops, without anybody waiting for that; [`shutdown`](Self::shutdown) waits.
pub struct Handle<T> {
    pub(crate) node: Node,
    _of: PhantomData<fn(T) -> T>,
}

common_calls!(Handle<T>, BlockingHandle);

impl<T: LogEntry> Handle<T> {
    /// Appends an entry. The future resolves once a majority has it on disk; the append goes on if it is dropped. If its
    /// answer is lost the node asks again, until the time is over, and it takes effect once
    /// ([`Config::sessions`](crate::Config::sessions)); then it may stand behind an append that was asked later.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entry may have been appended.
    pub fn append(&self, entry: impl IntoEntry<T>) -> Append {
        let limits = &self.node.shared().limits;
        let payload = entry.with_entry(T::encode).and_then(|bytes| {
            check_entry(limits, bytes.len())?;
            Ok(Payload::one(bytes, T::CODEC))
        });
        self.submit(Expect::Any, payload, Session::None)
    }

    /// Appends entries next to each other, all or none.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entries may have been appended.
    pub fn append_all(&self, entries: &[T]) -> Append {
        self.append_if(Expect::Any, entries)
    }

    /// Appends entries next to each other, all or none, if the log ends as expected; without entries it only finds out
    /// whether it does.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the log does not end as expected, and where it does end. [`Error::outcome`] says whether
    /// the entries may have been appended.
    pub fn append_if(&self, expect: Expect, entries: &[T]) -> Append {
        let payload = payload(&self.node.shared().limits, entries);
        self.submit(expect, payload, Session::None)
    }

    /// Appends entries next to each other, all or none, if the log ends as expected, as the append of this key: if it has taken
    /// effect before, it does not again, and is answered like the first time, whatever it expects now. The node asks once; to
    /// ask again is for the caller.
    ///
    /// # Errors
    /// [`Error::SessionExpired`] and [`Error::SessionStale`] if what became of earlier attempts is no longer remembered: this one
    /// was not appended, but one before may have been. Otherwise as [`append_if`](Self::append_if).
    pub fn append_in(&self, key: SessionKey, expect: Expect, entries: &[T]) -> Append {
        let payload = payload(&self.node.shared().limits, entries);
        self.submit(expect, payload, key.into())
    }

    fn submit(&self, expect: Expect, payload: Result<Payload, Error>, session: Session) -> Append {
        let submit = |payload| {
            self.node.submit(Ask::Append {
                payload,
                expect: expect.into(),
                session,
            })
        };
        Append::new(payload.and_then(submit))
    }

    /// Reads the entries of a range of indexes, as many as one read may give (`read_bytes_max`). A range without a first index
    /// begins where the log does.
    ///
    /// # Errors
    /// [`Error::NoLeader`] or [`Error::Timeout`] if the read could not be confirmed by a majority in time;
    /// [`Error::Decode`] if the first entry is not a `T`; what stands before a later one is read. [`Error::Compacted`] if
    /// the first entry is gone (`retention_bytes`, `retention_age`).
    pub fn read(&self, range: impl RangeBounds<u64>, consistency: Consistency) -> Read<T> {
        let wanted = Wanted::of(range, self.node.shared().limits.read_bytes_max);
        self.node.read(wanted, consistency, false)
    }

    /// All entries from index `from` on (0: from wherever the log begins), those to come as they are committed. No more is
    /// read than is taken.
    #[must_use]
    pub fn tail(&self, from: u64) -> Tail<T> {
        Tail::new(self.clone(), from)
    }
}

pub(crate) fn check_entry(limits: &Limits, bytes: usize) -> Result<(), Error> {
    check("an entry", bytes, limits.entry_bytes_max, "entry_bytes_max")
}

fn check(what: &'static str, bytes: usize, bytes_max: usize, limit: &'static str) -> Result<(), Error> {
    let too_large = || Error::TooLarge {
        what,
        bytes: bytes as u64,
        bytes_max: bytes_max as u64,
        limit,
    };
    (bytes <= bytes_max).then_some(()).ok_or_else(too_large)
}

/// The entries of one append, as one record.
fn payload<T: LogEntry>(limits: &Limits, entries: &[T]) -> Result<Payload, Error> {
    record(limits, T::CODEC, entries.iter().map(T::encode))
}

/// Encoded entries as one record, if each and all are within the limits.
pub(crate) fn record(
    limits: &Limits,
    codec: Codec,
    entries: impl ExactSizeIterator<Item = Result<Bytes, Error>>,
) -> Result<Payload, Error> {
    let mut encoded: Vec<Bytes> = Vec::with_capacity(entries.len());
    let mut bytes = 0usize;
    for entry in entries {
        let entry = entry?;
        check_entry(limits, entry.len())?;
        // What each takes beside itself; see the field of the configuration.
        bytes = bytes.saturating_add(entry.len()).saturating_add(size_of::<u32>());
        encoded.push(entry);
    }
    if let [entry] = &mut encoded[..] {
        return Ok(Payload::one(std::mem::take(entry), codec));
    }
    check("a batch", bytes, limits.batch_bytes_max, "batch_bytes_max")?;
    let too_large = || Error::TooLarge {
        what: "a batch",
        bytes: bytes as u64,
        bytes_max: limits.batch_bytes_max as u64,
        limit: "batch_bytes_max",
    };
    Payload::several(&encoded, codec).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raw;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits {
            entry_bytes_max: 10,
            batch_bytes_max: 28,
            in_flight_bytes_max: 1000,
            read_bytes_max: 1000,
            request_timeout: Duration::from_secs(1),
            sessions: true,
            schema: 0,
        }
    }

    fn entry(bytes: usize) -> Raw {
        Raw(vec![0; bytes].into())
    }

    #[test]
    fn what_is_too_large_names_its_limit() {
        let text = |entries: &[Raw]| {
            payload(&limits(), entries)
                .map(|p| p.count)
                .map_err(|error| error.to_string())
        };
        assert_eq!(text(&[entry(10)]), Ok(1));
        assert_eq!(text(&[entry(10), entry(10)]), Ok(2));
        assert_eq!(text(&[]), Ok(0));
        assert_eq!(
            text(&[entry(11)]).unwrap_err(),
            "an entry of 11 bytes is above the limit of 10 bytes (`entry_bytes_max`)"
        );
        assert_eq!(
            text(&[entry(10), entry(10), entry(0)]).unwrap_err(),
            "a batch of 32 bytes is above the limit of 28 bytes (`batch_bytes_max`)"
        );
    }

    #[test]
    fn handles_go_everywhere() {
        fn anywhere<H: Clone + Send + Sync + 'static>() {}
        anywhere::<Handle<Raw>>();
        // The entries themselves need not be shared between threads.
        anywhere::<Handle<std::cell::Cell<u8>>>();
        fn sent<F: Send + 'static>() {}
        sent::<Append>();
        sent::<Read<Raw>>();
        sent::<Tail<Raw>>();
    }
}
