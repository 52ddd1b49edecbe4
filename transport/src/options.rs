//! What a transport is told when it starts, and every limit it keeps.

use crate::{NodeCredentials, peer::PURPOSES};
use kontiki_consensus::NodeId;
use kontiki_wire::{Identity, Life, codec::PacketBytesMax};
use std::{collections::BTreeMap, time::Duration};

/// How a transport is set up.
#[derive(Debug)]
pub struct Options {
    /// This node.
    pub identity: Identity,
    /// The life it lives; on disk before this.
    pub life: Life,
    /// What it proves that with, and whom it believes.
    pub credentials: NodeCredentials,
    /// The other nodes and where they are, `host:port`. A name is resolved anew each time it is dialed.
    pub peers: BTreeMap<NodeId, String>,
    /// Decides the jitter of reconnection.
    pub seed: u64,
    /// Sizes and times.
    pub limits: Limits,
}

/// Sizes and times. What one peer may cost in memory is twice `queue_bytes_max` (its urgent and its bulk lane),
/// `packet_bytes_max` (the lane of snapshots), one packet being put together on each lane, and what is on its way: by QUIC three
/// times `window_bytes_max` out and as much in, by TCP a fourth of a MiB encrypted on each lane, and what the system has for it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest packet that is sent or taken.
    pub packet_bytes_max: PacketBytesMax,
    /// How many bytes may wait in the urgent and in the bulk lane of a peer; in that of snapshots, `packet_bytes_max`.
    pub queue_bytes_max: usize,
    /// How many packets may wait in each lane of a peer.
    pub queue_packets_max: usize,
    /// How many bytes of a lane may be on their way without having been read, by QUIC; by TCP that is the system's to say.
    pub window_bytes_max: u32,
    /// After how long without a sign of life a connection is given up.
    pub idle_timeout: Duration,
    /// How often a connection without traffic shows a sign of life.
    pub keep_alive_interval: Duration,
    /// How long an attempt to connect may take.
    pub connect_timeout: Duration,
    /// The wait after the first failed attempt; it doubles with each.
    pub reconnect_min: Duration,
    /// The longest wait between two attempts.
    pub reconnect_max: Duration,
    /// For how long a peer may be out of reach before that is a warning: nodes are started and stopped one after the other. That
    /// one side does not accept the other is told at once.
    pub absence_max: Duration,
    /// How many connections from addresses at which no peer is known to be may be in the middle of their handshake. Those from
    /// the addresses of peers have places of their own, 32 for each peer.
    pub handshakes_max: usize,
    /// How many of these may come from one address, or from one /64 network by IPv6.
    pub handshakes_per_address_max: usize,
}

impl Default for Limits {
    /// For a local network, and for entries and batches of the default size.
    fn default() -> Self {
        Self {
            packet_bytes_max: PacketBytesMax::default(),
            queue_bytes_max: 16 << 20,
            queue_packets_max: 16 << 10,
            window_bytes_max: 4 << 20,
            idle_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(1),
            absence_max: Duration::from_secs(5),
            handshakes_max: 64,
            handshakes_per_address_max: 16,
        }
    }
}

impl Limits {
    /// Whether the limits hold together; if not, what is wrong.
    ///
    /// # Errors
    /// The first relation that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (
                self.queue_bytes_max >= self.packet_bytes_max.0 as usize,
                "queue_bytes_max must be at least packet_bytes_max",
            ),
            (self.queue_packets_max > 0, "queue_packets_max must be above zero"),
            (self.window_bytes_max > 0, "window_bytes_max must be above zero"),
            (
                self.idle_timeout > self.keep_alive_interval,
                "idle_timeout must be above keep_alive_interval",
            ),
            (
                self.reconnect_max >= self.reconnect_min,
                "reconnect_max must be at least reconnect_min",
            ),
            (
                !self.connect_timeout.is_zero(),
                "connect_timeout must be above zero",
            ),
            (
                self.handshakes_per_address_max >= PURPOSES,
                "handshakes_per_address_max must be at least 3: a peer makes a connection for each lane",
            ),
            (
                self.handshakes_max >= self.handshakes_per_address_max,
                "handshakes_max must be at least handshakes_per_address_max",
            ),
        ];
        rules
            .into_iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, what)| Err(what))
    }
}
