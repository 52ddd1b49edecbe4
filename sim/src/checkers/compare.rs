//! Compare-and-append: an append is made only where the log ends as its client expected, and a miss
//! says where the log did end (decision 15).

use crate::committed::Committed;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Position, Term};
use kontiki_wire::Expect;

/// The name of the property.
pub const PROPERTY: &str = "compare-and-append compares with the end of the log";

fn holds(expect: Expect, last: Position, term: Term) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Empty => last == Position::ZERO,
        Expect::Last {
            position,
            term: named,
        } => position == last && named.is_none_or(|t| t == term),
    }
}

/// An append that expected this was acknowledged, its first entry at `first`.
///
/// # Errors
/// If the log did not end as expected just before.
pub fn hit(expect: Expect, first: Position, committed: &Committed) -> Verdict {
    let last = first.prev();
    let term = committed.term_of(last);
    ensure(holds(expect, last, term), PROPERTY, || {
        format!("{expect:?} was appended at {first:?}, after {last:?} {term:?}")
    })
}

/// What an answer says about the end of the log: it ended at `last`, in `term`, when it was asked or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Position of the last user entry.
    pub last: Position,
    /// Its term.
    pub term: Term,
    /// Whether the answer says that the expectation holds there.
    pub holds: bool,
}

/// An append that expected this was answered with the end of the log; what was acknowledged before it
/// was sent reached to `floor`.
///
/// # Errors
/// If the answer contradicts itself, or the log cannot have ended there in the meantime.
pub fn answered(expect: Expect, end: End, floor: Position, committed: &Committed) -> Verdict {
    ensure(holds(expect, end.last, end.term) == end.holds, PROPERTY, || {
        format!("{expect:?} was answered with {end:?}")
    })?;
    let ended_there = end.last >= floor && end.last <= committed.last_position();
    ensure(
        ended_there && committed.term_of(end.last) == end.term,
        PROPERTY,
        || {
            format!(
                "{expect:?} was answered with {end:?}; {floor:?} was there before, {:?} is committed, and there stands {:?}",
                committed.last_position(),
                committed.entry(end.last)
            )
        },
    )
}
