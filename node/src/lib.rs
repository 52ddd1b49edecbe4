//! One replica: the driver, its ports, proposals, reads and forwarding, sessions and the state machine.
//!
//! [`Driver::turn`] is called by whichever thread has something for the replica; everything it wants
//! done goes out through [`Ports`]. No thread, no clock and no chance of its own, so that production
//! and the simulator run the same code.

mod apply;
mod clock;
mod compare;
pub mod driver;
pub mod encoding;
mod expect;
mod forward;
mod lives;
pub mod machine;
mod meta;
pub mod once;
pub mod ports;
mod proposals;
mod reads;
pub mod request;
mod rising;
mod roles;
mod route;
pub mod session;
mod sessions;
mod snapshots;
mod taken;
mod waiters;
mod window;

pub use apply::PIECE_BYTES_MAX;
pub use compare::CompareConfig;
pub use driver::{Counts, Driver, DriverConfig};
pub use machine::{At, MachineError, StateMachine};
pub use meta::{Mark, Meta};
pub use ports::{Greeting, Input, Ports};
pub use reads::{QUERIES_MAX, READ_FETCHES_MAX, READS_WAITING_MAX};
pub use request::{Ask, Consistency, Failure, Reply, Request, Token};
pub use roles::RoleChange;
pub use snapshots::SnapshotConfig;

/// Numbers that differ from seed to seed, and from stream to stream of one seed (SplitMix64).
pub(crate) fn drawn(seed: u64, stream: u64) -> u64 {
    let mut z = seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
