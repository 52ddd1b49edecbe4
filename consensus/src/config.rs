//! What a server is told once: who it is, how long it waits, how much it holds.
//!
//! Invariant, checked by [`Config::check`]: heartbeat < election timeout, minimum < maximum, no size is zero.

use crate::{Duration, NodeId};

/// Settings of one server. The defaults are safe on a local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This server.
    pub node: NodeId,
    /// How often a leader says that it leads.
    pub heartbeat_interval: Duration,
    /// The shortest a follower waits for its leader before it asks for an election; also how long it
    /// refuses votes after it heard from one (dissertation §4.2.3).
    pub election_timeout_min: Duration,
    /// The longest a follower waits (paper §5.2). Followers of the same leader share out the time between the two by rank;
    /// without a leader each wait is drawn from all of it.
    pub election_timeout_max: Duration,
    /// How many bytes may be on their way to one follower, not yet on its disk.
    pub window_bytes_max: usize,
    /// How many bytes of records one message carries, about; one record may be larger.
    pub message_bytes_max: usize,
    /// How many bytes of the newest records are kept in memory once they are on disk.
    pub tail_bytes_max: usize,
    /// How long followers may not be told of records that are committed while nobody among them is known to wait for any
    /// ([`Event::Awaited`](crate::Event::Awaited)): they mostly are with the next records, without a message of its own.
    pub commit_delay: Duration,
    /// Turns lease reads on: by how many millionths one member's clock may run faster than another's. It
    /// must be the same for all members, and so must `election_timeout_min`. A clock that stops while its
    /// machine sleeps keeps no such bound.
    pub lease_drift_ppm: Option<u32>,
}

impl Config {
    /// The defaults for `node`.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            window_bytes_max: 8 << 20,
            message_bytes_max: 1 << 20,
            tail_bytes_max: 16 << 20,
            commit_delay: Duration::from_millis(5),
            lease_drift_ppm: None,
        }
    }

    /// How close together rounds must begin to count as one for the lease: so few are remembered at a time.
    pub(crate) const fn lease_rounds_apart(&self) -> Duration {
        Duration(self.election_timeout_min.0 / 64)
    }

    /// How long a lease runs, on the leader's clock, from when a round began that a quorum answered: no
    /// follower's clock can have counted the shortest election timeout by then. Zero without leases.
    pub(crate) fn lease_length(&self) -> Duration {
        let Some(ppm) = self.lease_drift_ppm else {
            return Duration(0);
        };
        let scaled = u128::from(self.election_timeout_min.0) * 1_000_000 / (1_000_000 + u128::from(ppm));
        Duration(scaled as u64)
    }

    /// Whether the settings hold together; if not, what is wrong.
    ///
    /// # Errors
    /// The first relation that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.node != NodeId::ZERO, "node must not be 0"),
            (
                self.heartbeat_interval.0 > 0,
                "heartbeat_interval must be above zero",
            ),
            (
                self.election_timeout_min.0 >= self.heartbeat_interval.0.saturating_mul(2),
                "election_timeout_min must be at least twice heartbeat_interval",
            ),
            (
                self.election_timeout_max > self.election_timeout_min,
                "election_timeout_max must be above election_timeout_min",
            ),
            (
                self.commit_delay < self.election_timeout_min,
                "commit_delay must be below election_timeout_min",
            ),
            (self.window_bytes_max > 0, "window_bytes_max must be above zero"),
            (self.message_bytes_max > 0, "message_bytes_max must be above zero"),
            (
                self.lease_drift_ppm.is_none_or(|ppm| ppm < 1_000_000),
                "lease_drift_ppm must be below a million",
            ),
        ];
        rules
            .into_iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, what)| Err(what))
    }
}
