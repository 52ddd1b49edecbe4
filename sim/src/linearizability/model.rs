//! What one key holds, and what each operation does to it: the sequential meaning that all answers are
//! measured by.

use std::fmt;

/// What a key holds: nothing, or a number.
pub type State = Option<i64>;

/// What a client asks of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// Writes a value.
    Put(i64),
    /// Reads the value.
    Get,
    /// Writes `value` if the key holds `expect`.
    CompareAndSet {
        /// What must be there; `None` for nothing.
        expect: State,
        /// What is written then.
        value: i64,
    },
    /// Adds to the value, which counts as 0 if absent; the sum wraps around.
    Increment(i64),
    /// Makes the key absent.
    Delete,
}

/// What an operation that has returned said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For a compare-and-set whether it swapped, for a delete whether there was anything, else true.
    pub ok: bool,
    /// For a get what was there, for an increment the sum, else `None`.
    pub out: State,
}

impl Answer {
    /// The answer of a put.
    pub const DONE: Self = Self { ok: true, out: None };

    /// The answer of a get.
    #[must_use]
    pub const fn found(out: State) -> Self {
        Self { ok: true, out }
    }

    /// The answer of an increment.
    #[must_use]
    pub const fn sum(out: i64) -> Self {
        Self {
            ok: true,
            out: Some(out),
        }
    }

    /// The answer of a compare-and-set or a delete: whether it did anything.
    #[must_use]
    pub const fn did(ok: bool) -> Self {
        Self { ok, out: None }
    }
}

impl Op {
    /// What this operation makes of a state, and what it answers.
    #[must_use]
    pub fn apply(self, state: State) -> (State, Answer) {
        match self {
            Self::Put(value) => (Some(value), Answer::DONE),
            Self::Get => (state, Answer::found(state)),
            Self::CompareAndSet { expect, value } if state == expect => (Some(value), Answer::did(true)),
            Self::CompareAndSet { .. } => (state, Answer::did(false)),
            Self::Increment(by) => {
                let sum = state.unwrap_or(0).wrapping_add(by);
                (Some(sum), Answer::sum(sum))
            }
            Self::Delete => (None, Answer::did(state.is_some())),
        }
    }

    /// Whether this operation can give such an answer in any state.
    #[must_use]
    pub fn can_answer(self, answer: Answer) -> bool {
        match self {
            Self::Put(_) => answer == Answer::DONE,
            Self::Get => answer.ok,
            Self::CompareAndSet { .. } | Self::Delete => answer.out.is_none(),
            Self::Increment(_) => answer.ok && answer.out.is_some(),
        }
    }

    /// Whether an operation with this answer leaves every state as it is in which it can have answered so.
    /// Such a one may be ordered as soon as it fits: it can only fit less well later.
    pub(super) fn only_observes(self, answer: Answer) -> bool {
        match self {
            Self::Get => true,
            Self::CompareAndSet { expect, value } => !answer.ok || expect == Some(value),
            Self::Delete => !answer.ok,
            Self::Put(_) | Self::Increment(_) => false,
        }
    }

    /// Whether this operation does the same in every state, and says nothing about the one it met.
    pub(super) fn is_blind(self) -> bool {
        matches!(self, Self::Put(_))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(value) => write!(f, "put {value}"),
            Self::Get => f.write_str("get"),
            Self::CompareAndSet { expect, value } => write!(f, "cas {} to {value}", shown(*expect)),
            Self::Increment(by) => write!(f, "increment {by}"),
            Self::Delete => f.write_str("delete"),
        }
    }
}

/// A state for the reader.
pub(super) fn shown(state: State) -> String {
    state.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}
