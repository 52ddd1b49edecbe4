//! Replicas: nodes that have applied the same record know the same: the log, the sessions, what the machine
//! has answered, and its state (decision 18).

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId};
use std::collections::BTreeMap;

/// The name of the property.
pub const PROPERTY: &str = "nodes at the same record know the same";

/// The name of another: who has gone wrong, and nobody else, is quarantined, and gets a state that is right.
pub const QUARANTINE: &str = "who has gone wrong, and nobody else, is quarantined";

/// What the first node there knew at each record.
#[derive(Debug, Default)]
pub struct Replicas {
    known: BTreeMap<Index, (NodeId, u64)>,
    states: BTreeMap<Index, (NodeId, u64)>,
}

impl Replicas {
    /// A node is at this record, and what Kontiki knows there has this digest.
    ///
    /// # Errors
    /// If another knew something else there.
    pub fn knows(&mut self, node: NodeId, index: Index, digest: u64) -> Verdict {
        same(&mut self.known, node, index, digest, "Kontiki's own state")
    }

    /// The machine of a node is at this record, and its state has this digest.
    ///
    /// # Errors
    /// If that of another was in another state there.
    pub fn state(&mut self, node: NodeId, index: Index, digest: u64) -> Verdict {
        same(&mut self.states, node, index, digest, "the machine's state")
    }
}

fn same(
    known: &mut BTreeMap<Index, (NodeId, u64)>,
    node: NodeId,
    index: Index,
    digest: u64,
    what: &str,
) -> Verdict {
    let (first, there) = *known.entry(index).or_insert((node, digest));
    ensure(there == digest, PROPERTY, || {
        format!("at {index:?} {what} is {digest:016x} on {node:?}, and was {there:016x} on {first:?}")
    })
}
