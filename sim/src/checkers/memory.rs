//! Bounded memory: what a node holds stays below the figure that its settings promise (decision 28):
//! the tail, what is not yet on disk, and a window for each peer.

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "memory is bounded";
/// The name of the other property.
pub const KEPT: &str = "what is not on disk is in memory";

/// What a node's settings allow.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// `tail_bytes_max`.
    pub tail: usize,
    /// `window_bytes_max`.
    pub window: usize,
    /// `in_flight_bytes_max`.
    pub in_flight: usize,
    /// What one append may weigh, with its header.
    pub append: usize,
    /// How many other nodes there are.
    pub peers: usize,
}

impl Allowance {
    /// The figure: all of it at once, and one record more for each, since one record may exceed any window.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tail + self.peers * (self.window + self.append) + 2 * self.in_flight + self.append
    }
}

/// A node holds so many bytes of records.
///
/// # Errors
/// If that is more than it may.
pub fn holds(node: NodeId, bytes: usize, allowance: &Allowance) -> Verdict {
    let most = allowance.bytes();
    ensure(bytes <= most, PROPERTY, || {
        format!("{node:?} holds {bytes} bytes of records, and may hold {most}: {allowance:?}")
    })
}

/// A node holds the records from `first` on in memory, and those up to `persisted` are on its disk.
///
/// # Errors
/// If there is one between them: nobody could be given it.
pub fn keeps(node: NodeId, first: Index, persisted: Index) -> Verdict {
    ensure(first <= persisted.next(), KEPT, || {
        format!("{node:?} holds records from {first:?} on, and its disk ends at {persisted:?}")
    })
}
