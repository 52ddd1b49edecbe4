//! Every byte that leaves the process: records, frames, peer messages, versions, checksums.
//!
//! Formats are fixed layouts, little-endian, drawn in `docs/FORMAT.md`. Invariants: no length is believed
//! before it is checked; the bytes of a record are the same on every disk and wire.

mod base;
pub mod codec;
pub mod frame;
pub mod handshake;
mod identity;
pub mod lives;
mod packet;
pub mod record;
mod salt;
pub mod segment;
pub mod snapshot;

pub use base::{BASE_BYTES_MAX, base_bytes, decode_base, encode_base};
pub use identity::{ClusterId, EARLIER_STARTS, Identity, KnownLife, Life, StartId};
pub use packet::{
    Compared, Expect, Packet, PeerMessage, Propose, ProposeAnswer, ProposeReply, Refusal, Resync,
    SnapshotChunk, SnapshotRequest,
};
pub use record::{Codec, InSession, Payload, Session, SessionLimits, Stamp};
pub use salt::{BodySum, Salt};
