//! Linearizability: is there one order of all operations that explains every answer and in which no
//! operation comes before another that had returned before it was called?
//!
//! The algorithm is that of Wing and Gong with the memory of Lowe: a depth-first search over what can come
//! next, which never enters the same set of ordered operations with the same state twice. Keys are judged
//! apart, as Herlihy and Wing's locality theorem allows.
//!
//! Invariants: the verdict follows from the history and the budget alone; effort is counted in steps, never
//! in time; a history that is not judged within its budget is [`Verdict::Undecided`], which is no success.
//!
//! # A history as a file
//!
//! One JSON object a line, in the order of the calls:
//! `{"client","op","key","value","expect","call","return","ok","out"}`.
//!
//! | field | type | what it says |
//! |---|---|---|
//! | `client` | integer, 0 to 2^64 - 1 | who asked; for the reader alone, the times say what was concurrent |
//! | `op` | string | `put`, `get`, `cas`, `increment` or `delete` |
//! | `key` | string | the key; all keys are absent at first |
//! | `value` | integer, 64 bits signed, or null | `put`: what is written; `cas`: what is written if it swaps; `increment`: by how much; else null |
//! | `expect` | integer, 64 bits signed, or null | `cas`: what must be there, null for nothing; else null |
//! | `call` | integer | when it was asked, in nanoseconds since the run began |
//! | `return` | integer, at least `call` | when the answer came, in nanoseconds since the run began |
//! | `ok` | boolean | `cas`: whether it swapped; `delete`: whether there was anything; else true |
//! | `out` | integer or null | `get`: what was there, null for nothing; `increment`: the sum; else null |
//!
//! `return`, `ok` and `out` are missing where the outcome is unknown: such an operation may take effect at
//! any time after its call, or never. An operation that surely did nothing is not in the file. An increment
//! of an absent key counts from 0, and a sum wraps around. Where one operation's `return` is another's
//! `call`, the two are concurrent; histories recorded by [`History`] never have two events at one time.
//! A missing `value`, `expect` or `out` counts as null; a field of another name is an error.

mod explain;
mod history;
mod model;
mod progress;
mod search;
mod values;

pub use explain::Counterexample;
pub use history::{CallId, History, HistoryError, Operation, Returned};
pub use model::{Answer, Op, State};

use search::{Found, Search};
use std::collections::BTreeMap;
use std::fmt;

/// How many steps a key may take by default: some seconds and some hundred megabytes at worst.
pub const STEPS_PER_KEY: u64 = 1_000_000;

/// What becomes of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is linearizable.
    Linearizable,
    /// It is not, and here is why.
    Violated(Box<Counterexample>),
    /// The budget was used up on this key, and none of the others is violated. The caller must treat it as
    /// a failure.
    Undecided {
        /// The first key that was not judged.
        key: String,
        /// How many steps were taken on it.
        steps: u64,
    },
}

impl Verdict {
    /// Whether the history was judged and found linearizable.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        *self == Self::Linearizable
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Violated(why) => write!(f, "not linearizable: {why}"),
            Self::Undecided { key, steps } => {
                write!(f, "undecided: key {key:?} takes more than {steps} steps")
            }
        }
    }
}

/// Judges a history, with at most `steps_per_key` steps for each key; a step is one operation tried on one
/// state.
#[must_use]
pub fn check(history: &History, steps_per_key: u64) -> Verdict {
    let mut undecided = None;
    for (key, operations) in by_key(history) {
        match Search::new(&operations).run(steps_per_key) {
            Found::Order(_) => {}
            Found::None => {
                let why = explain::explain(key, &operations, steps_per_key);
                return Verdict::Violated(Box::new(why));
            }
            Found::Undecided { steps } => {
                let key = key.to_owned();
                undecided.get_or_insert(Verdict::Undecided { key, steps });
            }
        }
    }
    undecided.unwrap_or(Verdict::Linearizable)
}

fn by_key(history: &History) -> BTreeMap<&str, Vec<Operation>> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in history.operations() {
        keys.entry(&operation.key).or_default().push(operation.clone());
    }
    keys
}
