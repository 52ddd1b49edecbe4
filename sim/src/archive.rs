//! Every record that any node ever handed to its log, by index and term.
//!
//! It decodes each record once, when the first node writes it, and remembers which entries it holds.

use crate::entries::{EntryId, entries_of};
use crate::hash::Hash;
use crate::ledger::Record;
use kontiki_consensus::{Index, LogId, Run, Term};

/// A record seen for the first time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Archived {
    /// Its term.
    pub term: Term,
    /// The hash over it and all before it.
    pub chain: Hash,
    /// The entries in it.
    pub entries: Vec<EntryId>,
}

/// All records, by index.
#[derive(Debug, Default)]
pub struct Archive {
    records: Vec<Vec<Archived>>,
}

impl Archive {
    /// The record of this index and term, if any node ever wrote one.
    #[must_use]
    pub fn get(&self, id: LogId) -> Option<&Archived> {
        let place = usize::try_from(id.index.0).ok()?;
        self.records.get(place)?.iter().find(|r| r.term == id.term)
    }

    /// Takes in what is new of a run, whose records are `records`.
    pub fn add(&mut self, run: &Run, records: &[Record]) {
        if self.get(run.last_id()).is_some() {
            return;
        }
        let entries = entries_of(run);
        for ((n, record), entries) in records.iter().enumerate().zip(entries) {
            self.insert(Index(run.first().0 + n as u64), record, entries);
        }
    }

    fn insert(&mut self, index: Index, record: &Record, entries: Vec<EntryId>) {
        if self.get(LogId::new(record.term, index)).is_some() {
            return;
        }
        let place = index.0 as usize;
        if self.records.len() <= place {
            self.records.resize_with(place + 1, Vec::new);
        }
        self.records[place].push(Archived {
            term: record.term,
            chain: record.chain,
            entries,
        });
    }
}
