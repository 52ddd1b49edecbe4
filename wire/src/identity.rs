//! Who a node is: the three names that stand in every file and every handshake.

use kontiki_consensus::{Incarnation, NodeId};
use std::fmt;

/// A cluster's random name; survives a change of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A node of a cluster, in one life of its data directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node within it.
    pub node: NodeId,
    /// Drawn when the data directory was made.
    pub incarnation: Incarnation,
}
