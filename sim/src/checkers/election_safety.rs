//! Election Safety: at most one leader can be elected in a given term (paper, Figure 3 and §5.2).

use crate::violation::{Violation, ensure};
use kontiki_consensus::{NodeId, Term};
use std::collections::BTreeMap;

/// The name of the property.
pub const PROPERTY: &str = "Election Safety";

/// Who led which term.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<Term, NodeId>,
}

impl ElectionSafety {
    /// `node` leads `term`. True if nobody was seen to lead it before.
    ///
    /// # Errors
    /// If another node leads it or has led it.
    pub fn leads(&mut self, term: Term, node: NodeId) -> Result<bool, Violation> {
        let known = self.leaders.insert(term, node);
        let alone = known.is_none_or(|other| other == node);
        let verdict = ensure(alone, PROPERTY, || {
            format!("{node:?} leads {term:?}, which {known:?} has led")
        });
        verdict.map(|()| known.is_none())
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
