//! Who takes part: the configuration that stands in the log (dissertation §4).
//!
//! Invariants: each list is sorted and without repeats; a decision needs a majority of `voters`
//! and, while a change is under way, one of `outgoing` too (joint consensus, §4.3).

use crate::NodeId;
use alloc::vec::Vec;

/// As many voters as a cluster is likely to have, in each list.
const VOTERS_USUAL: usize = 9;

/// The members of a cluster. A configuration is used from the moment it stands in the log (§4.1).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// Servers that vote and count for commitment.
    pub voters: Vec<NodeId>,
    /// The voters of the configuration that is being left; empty unless a change is under way.
    pub outgoing: Vec<NodeId>,
    /// Servers that receive the log but do not vote.
    pub learners: Vec<NodeId>,
}

impl Configuration {
    /// A configuration of these voters alone.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut voters: Vec<NodeId> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        Self {
            voters,
            outgoing: Vec::new(),
            learners: Vec::new(),
        }
    }

    /// Whether `node` has a vote.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether `node` is a member at all.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Every member once, in order.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = self
            .voters
            .iter()
            .chain(&self.outgoing)
            .chain(&self.learners)
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether those for whom `agrees` holds are a majority of every list that must agree.
    #[must_use]
    pub fn has_quorum(&self, mut agrees: impl FnMut(NodeId) -> bool) -> bool {
        let mut majority = |list: &[NodeId]| list.iter().filter(|n| agrees(**n)).count() > list.len() / 2;
        majority(&self.voters) && (self.outgoing.is_empty() || majority(&self.outgoing))
    }

    /// The largest value that a majority of every list has reached.
    #[must_use]
    #[inline]
    pub fn quorum_value<V: Ord + Copy + Default>(&self, mut value: impl FnMut(NodeId) -> V) -> V {
        // A cluster of three, as most are: the middle one, without sorting.
        if let ([a, b, c], []) = (&self.voters[..], &self.outgoing[..]) {
            let (a, b, c) = (value(*a), value(*b), value(*c));
            return a.min(b).max(a.max(b).min(c));
        }
        let mut reached = |list: &[NodeId]| {
            // Asked for every acknowledgement: a cluster of usual size needs no memory for it.
            let (mut few, mut many) = ([V::default(); VOTERS_USUAL], Vec::new());
            let values = if list.len() <= VOTERS_USUAL {
                &mut few[..list.len()]
            } else {
                many.resize(list.len(), V::default());
                &mut many[..]
            };
            for (place, node) in values.iter_mut().zip(list) {
                *place = value(*node);
            }
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(list.len() / 2).copied().unwrap_or_default()
        };
        let new = reached(&self.voters);
        if self.outgoing.is_empty() {
            new
        } else {
            new.min(reached(&self.outgoing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quorum_value_of_any_cluster_is_the_one_a_majority_has_reached() {
        for voters in 1..=5_u64 {
            let configuration = Configuration::of_voters((1..=voters).map(NodeId));
            for case in 0..4_u64.pow(voters as u32) {
                let value = |n: NodeId| case / 4_u64.pow(n.0 as u32 - 1) % 4;
                let reached = |v| configuration.has_quorum(|n| value(n) >= v);
                let expected = (0..4).rev().find(|v| reached(*v)).unwrap_or_default();
                assert_eq!(
                    configuration.quorum_value(value),
                    expected,
                    "{voters} voters, case {case}"
                );
            }
        }
    }
}
