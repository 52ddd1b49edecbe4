//! Reads: what is read is what is committed, without gaps; a linearizable read sees everything that
//! was acknowledged or read before it was asked (dissertation §6.4).
//!
//! A log that only grows is linearizable if each operation sees at least what those before it saw:
//! the *floor*. It is raised by acknowledgements and by linearizable reads.

use crate::committed::Committed;
use crate::entries::EntryId;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::Position;

/// The name of the property.
pub const PROPERTY: &str = "reads are fresh, dense and in order";

/// What a read gave: entries with their positions, and where it said the log ends.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The entries, as positions and names.
    pub entries: Vec<(Position, EntryId)>,
    /// The last committed position known there.
    pub last: Position,
}

/// How far the committed log is known to reach by those whose operations have ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor(Position);

impl Floor {
    /// Where it is: what an operation that begins now must see.
    #[must_use]
    pub fn now(self) -> Position {
        self.0
    }

    /// Someone knows that the log reaches this far.
    pub fn raise(&mut self, to: Position) {
        self.0 = self.0.max(to);
    }
}

/// A read from `from` to before `to` gave this answer.
///
/// # Errors
/// If an entry is missing, in the wrong place, or not the committed one.
pub fn answered(from: Position, to: Position, answer: &Answer, committed: &Committed) -> Verdict {
    ensure(answer.last <= committed.last_position(), PROPERTY, || {
        format!(
            "a read says the log ends at {:?}; {:?} is committed",
            answer.last,
            committed.last_position()
        )
    })?;
    let mut next = from;
    for (position, id) in answer.entries.iter().filter(|(p, _)| *p >= from && *p < to) {
        ensure(*position == next, PROPERTY, || {
            format!("a read from {from:?} gave {position:?} after {:?}", next.prev())
        })?;
        let must = committed.entry(*position).map(|e| e.id);
        ensure(must == Some(*id), PROPERTY, || {
            format!("a read gave {id:?} at {position:?}, where {must:?} is committed")
        })?;
        next = next.next();
    }
    let wanted = from <= answer.last && from < to;
    ensure(!wanted || next > from, PROPERTY, || {
        format!(
            "a read from {from:?} to {to:?} gave nothing, though the log reaches to {:?}",
            answer.last
        )
    })
}

/// A linearizable read that had to see everything up to `floor` says the log ends at `last`.
///
/// # Errors
/// If it does not reach that far.
pub fn fresh(last: Position, floor: Position) -> Verdict {
    ensure(last >= floor, PROPERTY, || {
        format!("a linearizable read saw up to {last:?}, {floor:?} was there before it was asked")
    })
}
