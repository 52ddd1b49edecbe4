//! A trim: the log of every node is to begin behind the same record.
//!
//! It is a record of users without entries, for it takes effect when it is applied: at the same place in the row of
//! records on every node, so that all of them say the same first entry.

use super::{Codec, Payload};
use bytes::{Buf, BufMut, BytesMut};
use kontiki_consensus::{Index, Position};

/// Where a log is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TrimPoint {
    /// The last record that is forgotten.
    pub index: Index,
    /// The last entry up to it: the one after it is the first that the log holds.
    pub position: Position,
}

impl TrimPoint {
    /// The payload of a record that trims.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let mut bytes = BytesMut::with_capacity(16);
        bytes.put_u64_le(self.index.0);
        bytes.put_u64_le(self.position.0);
        Payload {
            count: 0,
            ..Payload::one(bytes.freeze(), Codec::Bytes)
        }
    }

    /// What the payload of such a record says; `None` if it is not of that form.
    #[must_use]
    pub fn of(mut payload: &[u8]) -> Option<Self> {
        Some(Self {
            index: Index(payload.try_get_u64_le().ok()?),
            position: Position(payload.try_get_u64_le().ok()?),
        })
    }
}
