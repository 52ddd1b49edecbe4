//! Where a group's log ends once all that was handed over is written: what does not follow that is refused.
//!
//! Invariant: what passes here is found sound by recovery, which cuts or refuses what does not follow.

use crate::group::Group;
use kontiki_consensus::{Base, Index, LogId, Position, Run, Term};

/// The end of a group's log.
#[derive(Debug, Default)]
pub(super) struct End {
    last: LogId,
    /// The last user entry; `None` after a removal, until what replaces the records tells.
    position: Option<Position>,
    /// Where the log begins.
    base: LogId,
    /// Where each term after that begins.
    terms: Vec<(Index, Term)>,
}

impl End {
    pub(super) fn new(group: Option<&Group>) -> Self {
        let Some(group) = group else {
            return Self {
                position: Some(Position::ZERO),
                ..Self::default()
            };
        };
        Self {
            last: group.last,
            position: Some(group.last_position),
            base: group.base.last,
            terms: group.terms.iter().map(|t| (t.index, t.term)).collect(),
        }
    }

    /// Removes the record at `from` and all after it.
    pub(super) fn remove(&mut self, from: Index) -> Result<(), String> {
        if from <= self.base.index || from > self.last.index.next() {
            return Err(format!("it removes records from {from} of {}", self.last.index));
        }
        self.terms
            .truncate(self.terms.partition_point(|(index, _)| *index < from));
        let term = self.terms.last().map_or(self.base.term, |(_, term)| *term);
        self.last = LogId::new(term, from.prev());
        self.position = None;
        Ok(())
    }

    /// Removes everything; the log goes on after `base`.
    pub(super) fn install(&mut self, base: &Base) {
        *self = Self {
            last: base.last,
            position: Some(base.position),
            base: base.last,
            terms: Vec::new(),
        };
    }

    /// Forgets what is before `base`.
    pub(super) fn forget(&mut self, base: &Base) -> Result<(), String> {
        if base.last.index > self.last.index {
            let (index, last) = (base.last.index, self.last.index);
            return Err(format!("it forgets records up to {index} of {last}"));
        }
        self.base = base.last;
        self.terms
            .retain(|(index, term)| *index > base.last.index && *term != base.last.term);
        Ok(())
    }

    /// Adds records.
    pub(super) fn add(&mut self, run: &Run) -> Result<(), String> {
        let (first, term, position) = (run.first(), run.term(), run.first_position());
        if first != self.last.index.next() {
            return Err(format!("record {first} comes after {}", self.last.index));
        }
        if term < self.last.term {
            return Err(format!(
                "record {first} of {term} comes after one of {}",
                self.last.term
            ));
        }
        if let Some(last) = self.position.filter(|last| last.next() != position) {
            return Err(format!(
                "record {first} begins at entry {position}, and the last one is {last}"
            ));
        }
        if self.last == LogId::ZERO || self.last.term != term {
            self.terms.push((first, term));
        }
        (self.last, self.position) = (run.last_id(), Some(run.last_position()));
        Ok(())
    }
}
