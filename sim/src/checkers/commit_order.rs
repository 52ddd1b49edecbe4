//! What a node takes for committed, and what it has applied, only grows while it is up, and it never
//! applies what is not committed and on its own disk (paper §5.3; decision 11).

use crate::ledger::Ledger;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "commit and applied never go back";

/// How far each node was.
#[derive(Debug)]
pub struct CommitOrder {
    nodes: Vec<(Index, Index)>,
}

impl CommitOrder {
    /// For so many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes: vec![(Index::ZERO, Index::ZERO); nodes],
        }
    }

    /// A node shows these. Gives how far it had committed before.
    ///
    /// # Errors
    /// If one of them went back, or it has applied what it must not.
    pub fn shows(&mut self, node: NodeId, commit: Index, applied: Index, ledger: &Ledger) -> Verdict {
        let before = &mut self.nodes[node.0 as usize - 1];
        ensure(commit >= before.0 && applied >= before.1, PROPERTY, || {
            format!(
                "{node:?} went from commit {:?}, applied {:?} to {commit:?}, {applied:?}",
                before.0, before.1
            )
        })?;
        let on_disk = Index(ledger.durable().len() as u64);
        ensure(applied <= commit && applied <= on_disk, PROPERTY, || {
            format!(
                "{node:?} has applied {applied:?}, but committed {commit:?}, and its disk ends at {on_disk:?}"
            )
        })?;
        *before = (commit, applied);
        Ok(())
    }

    /// A node went down, and with it what it knew.
    pub fn down(&mut self, node: NodeId) {
        self.nodes[node.0 as usize - 1] = (Index::ZERO, Index::ZERO);
    }
}
