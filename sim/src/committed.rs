//! The one log that all nodes must agree on, as far as it is committed.
//!
//! The first node to say that a record is committed decides what stands there; every later one must
//! say the same. Invariant: it only grows, and never changes.

use crate::entries::EntryId;
use crate::ledger::Record;
use kontiki_consensus::{Index, LogId, Position, Term};

/// A committed record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedRecord {
    /// The record.
    pub record: Record,
    /// The term of the leader that committed it.
    pub in_term: Term,
}

/// A committed user entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedEntry {
    /// Which entry of which append.
    pub id: EntryId,
    /// The record that holds it.
    pub at: LogId,
}

/// The committed log.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    records: Vec<CommittedRecord>,
    entries: Vec<CommittedEntry>,
}

impl Committed {
    /// Adds a record and the entries in it.
    pub fn push(&mut self, record: CommittedRecord, entries: &[EntryId]) {
        self.records.push(record);
        let at = LogId::new(record.record.term, self.last());
        self.entries
            .extend(entries.iter().map(|id| CommittedEntry { id: *id, at }));
    }

    /// The last committed index.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.records.len() as u64)
    }

    /// The last committed user entry.
    #[must_use]
    pub fn last_position(&self) -> Position {
        Position(self.entries.len() as u64)
    }

    /// All records.
    #[must_use]
    pub fn records(&self) -> &[CommittedRecord] {
        &self.records
    }

    /// The record at this index.
    #[must_use]
    pub fn record(&self, index: Index) -> Option<&CommittedRecord> {
        self.records.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// The user entry at this position.
    #[must_use]
    pub fn entry(&self, position: Position) -> Option<&CommittedEntry> {
        self.entries
            .get(usize::try_from(position.0.checked_sub(1)?).ok()?)
    }

    /// The term of the user entry at this position; zero where there is none.
    #[must_use]
    pub fn term_of(&self, position: Position) -> Term {
        self.entry(position).map_or(Term::ZERO, |e| e.at.term)
    }
}
