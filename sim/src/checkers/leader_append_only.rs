//! Leader Append-Only: a leader never overwrites or deletes entries in its log; it only appends new
//! entries (paper, Figure 3 and §5.3).

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId, Term};

/// The name of the property.
pub const PROPERTY: &str = "Leader Append-Only";

/// Which term each node leads.
#[derive(Debug)]
pub struct LeaderAppendOnly {
    leading: Vec<Option<Term>>,
}

impl LeaderAppendOnly {
    /// For so many nodes, none of which leads.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            leading: vec![None; nodes],
        }
    }

    /// A node has taken a turn: it now leads this term, if any, and cut its log from there, if at all.
    ///
    /// # Errors
    /// If it led the same term before the turn and after it, and cut its log in between.
    pub fn turned(&mut self, node: NodeId, leads: Option<Term>, truncated: Option<Index>) -> Verdict {
        let before = std::mem::replace(&mut self.leading[node.0 as usize - 1], leads);
        let led_throughout = leads.is_some() && before == leads;
        ensure(!led_throughout || truncated.is_none(), PROPERTY, || {
            format!("{node:?} cut its log at {truncated:?} while it led {leads:?}")
        })
    }

    /// A node went down.
    pub fn down(&mut self, node: NodeId) {
        self.leading[node.0 as usize - 1] = None;
    }
}
