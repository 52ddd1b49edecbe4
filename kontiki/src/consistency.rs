//! How fresh a read must be.

use kontiki_consensus::{Duration as Nanos, Position};
use std::time::Duration;

/// How fresh a read of entries, or a query, must be. Whichever is chosen, it sees a prefix of the log, and nothing that is not
/// committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// It sees everything that was acknowledged before it was asked, on any node: a majority confirms that (dissertation §6.4).
    #[default]
    Linearizable,
    /// The same, as long as no clock runs faster than another by more than `lease_drift_ppm`
    /// ([`Config`](crate::Config)): then a leader need not ask the others before it answers (dissertation §6.4.1). On the
    /// other nodes, and where that is not set, it is as `Linearizable`.
    Lease,
    /// It may be behind.
    Stale {
        /// By how much: it sees everything that was acknowledged so long before it was asked. Nobody is asked if this node knows
        /// that already from what was asked within that time; no two machines' clocks are compared. The time counts for which
        /// this machine was suspended, on Linux; elsewhere it may not. `None`: what this node has at hand, however old, which
        /// works without a majority.
        max_lag: Option<Duration>,
    },
    /// It sees the entry at this index: this node waits until it has applied that, as long as the read may take, and asks
    /// nobody. With [`Appended::last`](crate::Appended), [`Applied::index`](crate::Applied) or `seen` of a handle, a program sees
    /// its own writes on whichever node it turns to.
    AtLeast(u64),
    /// It sees everything that was answered through any handle of this node: appends are seen by whoever was told of them, and
    /// no read goes behind an earlier one. `AtLeast` what `seen` says.
    Session,
}

impl Consistency {
    /// What this node has at hand, however old.
    pub const STALE: Self = Self::Stale { max_lag: None };

    /// What the node is asked for by a program that was told of entries up to `seen`.
    pub(crate) fn ask(self, seen: u64) -> kontiki_node::Consistency {
        let nanos = |lag: Duration| Nanos(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX));
        match self {
            Self::Linearizable => kontiki_node::Consistency::Linearizable,
            Self::Lease => kontiki_node::Consistency::Lease,
            Self::Stale { max_lag } => kontiki_node::Consistency::Stale {
                max_lag: max_lag.map(nanos),
            },
            Self::AtLeast(index) => kontiki_node::Consistency::AtLeast(Position(index)),
            Self::Session => kontiki_node::Consistency::AtLeast(Position(seen)),
        }
    }
}
