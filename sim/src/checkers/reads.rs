//! Reads: what is read is what is committed, without gaps; a linearizable read sees everything that
//! was acknowledged or read before it was asked (dissertation §6.4).
//!
//! A log that only grows is linearizable if each operation sees at least what those before it saw:
//! the *floor*. It is raised by acknowledgements and by linearizable reads.

use crate::committed::Committed;
use crate::entries::EntryId;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Position, Time};
use kontiki_node::Consistency;

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

/// How far the committed log is known to reach by those whose operations have ended, and since when.
#[derive(Clone, Debug, Default)]
pub struct Floor(Vec<(Time, Position)>);

impl Floor {
    /// Where it is: what an operation that begins now must see.
    #[must_use]
    pub fn now(&self) -> Position {
        self.0.last().map_or(Position::ZERO, |(_, position)| *position)
    }

    /// Where it was just before `moment`.
    #[must_use]
    pub fn before(&self, moment: Time) -> Position {
        let later = self.0.partition_point(|(since, _)| *since < moment);
        let last = later.checked_sub(1).and_then(|n| self.0.get(n));
        last.map_or(Position::ZERO, |(_, position)| *position)
    }

    /// Someone knows at this moment, which is no earlier than the last, that the log reaches this far.
    pub fn raise(&mut self, now: Time, to: Position) {
        if to > self.now() {
            self.0.push((now, to));
        }
    }
}

/// What a read must see that is asked `now` of a node whose clock runs faster by so many millionths.
#[must_use]
pub fn must_see(consistency: Consistency, floor: &Floor, now: Time, drift_ppm: i64) -> Position {
    match consistency {
        Consistency::Linearizable | Consistency::Lease => floor.now(),
        Consistency::Stale { max_lag: Some(lag) } => {
            // By that clock so much passes in this much; and each look at it is cut to whole nanoseconds.
            let rate = u128::from((1_000_000 + drift_ppm).unsigned_abs().max(1));
            let real = (u128::from(lag.0) + 2) * 1_000_000 / rate + 2;
            let real = u64::try_from(real).unwrap_or(u64::MAX);
            floor.before(Time(now.0.saturating_sub(real)))
        }
        Consistency::AtLeast(position) => position,
        _ => Position::ZERO,
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

/// A read that had to see everything up to `must` says the log ends at `last`.
///
/// # Errors
/// If it does not reach that far.
pub fn fresh(consistency: Consistency, last: Position, must: Position) -> Verdict {
    ensure(last >= must, PROPERTY, || {
        format!("a read, {consistency:?}, saw up to {last:?}, and {must:?} was what it had to see")
    })
}
