//! Between the nodes of a cluster: packets, in lanes, by QUIC or by TLS over TCP ([`Carrier`]).
//!
//! Each node dials each other and sends on what it has dialed, in three lanes: urgent (votes, heartbeats, acknowledgements), bulk
//! (records, forwarded appends) and background (parts of snapshots). Both ends prove by certificate that they are the
//! node of the cluster they say they are; then each greets the other and checks versions;
//! whether the life of the other is to be believed its owner decides ([`Transport::refuse`]).
//!
//! Invariants: everything is on one thread, and nothing blocks it; what waits for a peer is bounded, and what
//! finds no room is dropped and reported; no length is believed before it is checked; what a stranger can hold or cost is
//! bounded, and keeps no peer out.

mod admission;
mod backoff;
mod carrier;
mod credentials;
mod dial;
mod events;
mod greet;
mod handshakes;
mod inbound;
mod lane;
mod options;
mod peer;
mod places;
mod quic;
mod reason;
mod resolve;
mod socket;
mod tcp;
mod tls;
mod transport;
mod warnings;

pub use carrier::{Carrier, UnknownCarrier};
pub use credentials::{CredentialsError, NodeCredentials};
pub use events::{Sink, TransportEvent};
pub use options::{Limits, Options};
pub use peer::Link;
pub use socket::{Socket, StartError, bind};
pub use transport::Transport;

#[cfg(test)]
mod tests;
