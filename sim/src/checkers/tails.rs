//! Tails: who follows the log gets every entry once, in order, without gaps.

use crate::entries::EntryId;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::Position;

/// The name of the property.
pub const PROPERTY: &str = "a tail gets every entry once and in order";

/// How far a client has followed the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail {
    seen: Position,
}

impl Tail {
    /// The position it asks for next.
    #[must_use]
    pub fn next(self) -> Position {
        self.seen.next()
    }

    /// It was told that what it asked for is gone, and the log begins at `first`.
    ///
    /// # Errors
    /// If what it asked for is not before that, or that is beyond the end.
    pub fn compacted(&mut self, first: Position, last: Position) -> Verdict {
        let fits = self.seen.next() < first && first <= last.next();
        ensure(fits, PROPERTY, || {
            format!(
                "a tail at {:?} was told that the log begins at {first:?}",
                self.seen
            )
        })?;
        self.seen = first.prev();
        Ok(())
    }

    /// It was given these; what lies before its next position came with the record and is skipped.
    ///
    /// # Errors
    /// If there is a gap or they are out of order.
    pub fn given(&mut self, entries: &[(Position, EntryId)]) -> Verdict {
        for (position, _) in entries {
            if *position <= self.seen {
                continue;
            }
            ensure(*position == self.seen.next(), PROPERTY, || {
                format!("{position:?} came after {:?}", self.seen)
            })?;
            self.seen = *position;
        }
        let ordered = entries.windows(2).all(|w| w[0].0 < w[1].0);
        ensure(ordered, PROPERTY, || format!("entries out of order: {entries:?}"))
    }
}
