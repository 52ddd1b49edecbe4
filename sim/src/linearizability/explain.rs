//! Why a history is not linearizable, in as few operations as tell it.
//!
//! A beginning of a linearizable history is linearizable, if what has not returned in it counts as unknown.
//! So there is a first return with which no order is left: the operation that the report names. What was
//! under way around it is the window; what came before is the longest order that fits.

use super::history::Operation;
use super::model::{State, shown};
use super::search::{Found, Search};
use std::fmt;

/// How many operations of an order are shown.
const SHOWN: usize = 8;

/// Why a history is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The key.
    pub key: String,
    /// The operation with whose return no order is left: the history up to that moment is the shortest beginning
    /// that is not linearizable.
    pub culprit: Operation,
    /// How many operations of the key had been called by then.
    pub begun: usize,
    /// How many operations of the key there are.
    pub operations: usize,
    /// An order of all that had returned before; operations that had not are in it where others met their
    /// effects.
    pub prefix: Vec<Operation>,
    /// What the key holds after `prefix`.
    pub state: State,
    /// All else that was under way between the culprit's call and its return, by call; of operations that
    /// never returned only those that were called in that time. Some of it may be in `prefix`.
    pub window: Vec<Operation>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "key {:?}: no order of its operations explains every answer",
            self.key
        )?;
        writeln!(
            f,
            "  the shortest beginning without one ends at {}: the first {} of its {} operations, by call",
            self.culprit.end(),
            self.begun,
            self.operations
        )?;
        let skipped = self.prefix.len().saturating_sub(SHOWN);
        writeln!(
            f,
            "  in this order the {} before fit, the last of them:",
            self.prefix.len()
        )?;
        for operation in &self.prefix[skipped..] {
            writeln!(f, "    {operation}")?;
        }
        writeln!(
            f,
            "  the key then holds {}, and no order is left with",
            shown(self.state)
        )?;
        writeln!(f, "    {}", self.culprit)?;
        write!(f, "  while these were under way:")?;
        for operation in &self.window {
            write!(f, "\n    {operation}")?;
        }
        Ok(())
    }
}

/// Explains why these operations of a key, which are not linearizable, are not. Each search for it may take
/// `budget` steps; if one takes more, the report may name a later return than the first.
pub(super) fn explain(key: &str, operations: &[Operation], budget: u64) -> Counterexample {
    let (culprit, order) = first_without_order(operations, budget);
    let is_around = |o: &&Operation| {
        let overlaps = o.call <= culprit.end() && o.end() >= culprit.call && *o != culprit;
        overlaps && (o.returned.is_some() || o.call >= culprit.call)
    };
    let mut window: Vec<Operation> = operations.iter().filter(is_around).cloned().collect();
    window.sort_by_key(|o| o.call);
    let prefix: Vec<Operation> = order.iter().map(|n| operations[*n].clone()).collect();
    Counterexample {
        key: key.to_owned(),
        culprit: culprit.clone(),
        begun: operations.iter().filter(|o| o.call <= culprit.end()).count(),
        operations: operations.len(),
        state: prefix.iter().fold(None, |state, o| o.op.apply(state).0),
        prefix,
        window,
    }
}

/// The first operation with whose return no order is left, and an order of what had returned before.
fn first_without_order(operations: &[Operation], budget: u64) -> (&Operation, Vec<usize>) {
    let mut returned: Vec<&Operation> = operations.iter().filter(|o| o.returned.is_some()).collect();
    returned.sort_by_key(|o| o.end());
    let mut order = Vec::new();
    let (mut low, mut high) = (0, returned.len() - 1);
    while low < high {
        let middle = low.midpoint(high);
        let (places, begun) = up_to(operations, returned[middle].end());
        match Search::new(&begun).run(budget) {
            Found::None => high = middle,
            Found::Order(found) => {
                order = found.iter().map(|n| places[*n]).collect();
                low = middle + 1;
            }
            Found::Undecided { .. } => low = middle + 1,
        }
    }
    (returned[high], order)
}

/// What had been called at a time, as it was known then, and the places of these operations.
fn up_to(operations: &[Operation], cut: u64) -> (Vec<usize>, Vec<Operation>) {
    let known_then = |o: &Operation| Operation {
        returned: o.returned.filter(|r| r.at <= cut),
        ..o.clone()
    };
    let begun = operations.iter().enumerate().filter(|(_, o)| o.call <= cut);
    begun.map(|(n, o)| (n, known_then(o))).unzip()
}
