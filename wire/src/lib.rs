//! Every byte that leaves the process: records, frames, peer messages, versions, checksums.

pub mod handshake;
mod identity;
mod packet;
pub mod record;

pub use identity::{ClusterId, Identity};
pub use packet::{Expect, Packet, PeerMessage, Propose, ProposeAnswer, ProposeReply, Refusal};
pub use record::{Codec, Payload};
