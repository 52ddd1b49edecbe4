//! Appends: what is acknowledged is in the log once, whole, where and in which term it was said to
//! be; what is refused never gets there; and nothing is there that nobody sent (decisions 2 and 16).

use crate::committed::Committed;
use crate::entries::EntryId;
use crate::violation::{Verdict, Violation, ensure};
use kontiki_consensus::{LogId, Position};
use std::collections::BTreeMap;

/// The name of the property.
pub const PROPERTY: &str = "an append is in the log once if acknowledged, never if refused";

/// What its client knows of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Nothing,
    Acknowledged,
    NotApplied,
    Unknown,
}

#[derive(Debug)]
struct Append {
    count: u32,
    known: Known,
    first: Option<Position>,
}

/// All appends ever sent.
#[derive(Debug, Default)]
pub struct Appends {
    sent: BTreeMap<u64, Append>,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// Position of the first entry.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// Index and term of the record.
    pub at: LogId,
}

impl Appends {
    /// An append of so many entries is sent.
    pub fn sent(&mut self, operation: u64, count: u32) {
        self.sent.insert(
            operation,
            Append {
                count,
                known: Known::Nothing,
                first: None,
            },
        );
    }

    /// A record with these entries is committed, the first of them at `first`. True if its client was
    /// told that its fate is unknown.
    ///
    /// # Errors
    /// If it was refused, is there already, or is not what was sent.
    pub fn committed(&mut self, entries: &[EntryId], first: Position) -> Result<bool, Violation> {
        let Some(id) = entries.first() else {
            return Ok(false);
        };
        let never_sent = || Violation {
            property: PROPERTY,
            what: format!("{id:?} at {first:?} was never sent"),
        };
        let append = self.sent.get_mut(&id.operation).ok_or_else(never_sent)?;
        ensure(append.known != Known::NotApplied, PROPERTY, || {
            format!("{id:?} was reported as not applied, and is committed at {first:?}")
        })?;
        let again = append.first.replace(first);
        ensure(again.is_none(), PROPERTY, || {
            format!("{id:?} is committed at {again:?} and again at {first:?}")
        })?;
        let parts = entries.iter().map(|e| (e.operation, e.part));
        let whole = (0..append.count).map(|part| (id.operation, part));
        ensure(parts.eq(whole), PROPERTY, || {
            format!("{entries:?} was committed, {append:?} was sent")
        })?;
        Ok(append.known == Known::Unknown)
    }

    /// Its client was told where it stands.
    ///
    /// # Errors
    /// If it does not stand there in the committed log.
    pub fn acknowledged(&mut self, operation: u64, said: Acknowledgement, committed: &Committed) -> Verdict {
        let Some(append) = self.sent.get_mut(&operation) else {
            return ensure(false, PROPERTY, || {
                format!("{operation} was acknowledged but never sent")
            });
        };
        append.known = Known::Acknowledged;
        let last = Position(said.first.0 + u64::from(append.count) - 1);
        let stands_there = append.first == Some(said.first)
            && said.last == last
            && committed.entry(said.first).map(|e| e.at) == Some(said.at);
        ensure(stands_there, PROPERTY, || {
            let there = committed.entry(said.first);
            format!(
                "{operation} was acknowledged as {said:?}; known of it is {append:?}, and there stands {there:?}"
            )
        })
    }

    /// Its client was told that it is not applied.
    ///
    /// # Errors
    /// If it is in the committed log.
    pub fn not_applied(&mut self, operation: u64) -> Verdict {
        let Some(append) = self.sent.get_mut(&operation) else {
            return Ok(());
        };
        append.known = Known::NotApplied;
        ensure(append.first.is_none(), PROPERTY, || {
            format!(
                "{operation} was reported as not applied, and is committed at {:?}",
                append.first
            )
        })
    }

    /// Its client was told that its fate is unknown.
    pub fn unknown(&mut self, operation: u64) {
        if let Some(append) = self.sent.get_mut(&operation) {
            append.known = Known::Unknown;
        }
    }
}
