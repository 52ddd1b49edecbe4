//! Convergence: once the faults are healed the nodes that can talk to each other come to agree.

use crate::ledger::Ledger;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "healed nodes converge";

/// How one node stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The node.
    pub node: NodeId,
    /// How far it has committed.
    pub commit: Index,
    /// How far it has applied.
    pub applied: Index,
    /// Its log.
    pub ledger: &'a Ledger,
}

/// Whether these nodes all hold one log, committed, applied and on disk to its end.
#[must_use]
pub fn agree(nodes: &[Standing<'_>]) -> bool {
    let Some(first) = nodes.first() else { return true };
    nodes.iter().all(|n| {
        let last = n.ledger.last().index;
        last == n.commit
            && last == n.applied
            && n.ledger.durable() == first.ledger.written()
            && n.ledger.written() == n.ledger.durable()
    })
}

/// The time they had is over.
///
/// # Errors
/// If they do not agree.
pub fn must_agree(nodes: &[Standing<'_>], what: &str) -> Verdict {
    ensure(agree(nodes), PROPERTY, || {
        let each = nodes.iter().map(|n| {
            let on_disk = n.ledger.durable().len();
            format!(
                "{:?} last {:?} on disk {on_disk} commit {:?} applied {:?}",
                n.node,
                n.ledger.last(),
                n.commit,
                n.applied
            )
        });
        format!("{what}: {}", each.collect::<Vec<_>>().join("; "))
    })
}
