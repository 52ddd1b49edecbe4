//! Where a log begins, as bytes: what a snapshot covers, and the configuration in use there.
//!
//! The same block stands in frames of the log, in indexes of segments and in snapshots. Invariant: it stands
//! under a CRC that is begun with the cluster's id and covers the group, so that a block of another is never taken.

use crate::ClusterId;
use crate::record::{configuration_payload, decode_configuration};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{Base, GroupId, Index, LogId, Position, Term};
use std::sync::Arc;

const FIXED_BYTES: usize = 32;
const SUMMED_FROM: usize = 4;
/// The longest block, in bytes: its length is told in 16 bits.
pub const BASE_BYTES_MAX: usize = u16::MAX as usize;

/// The block of a base; a multiple of 8 bytes.
#[must_use]
pub fn encode_base(cluster: ClusterId, group: GroupId, base: &Base) -> Bytes {
    let configuration = configuration_payload(&base.configuration);
    let mut out = BytesMut::with_capacity(FIXED_BYTES + configuration.len());
    out.put_u32_le(0);
    out.put_u32_le(group.0);
    out.put_u64_le(base.last.term.0);
    out.put_u64_le(base.last.index.0);
    out.put_u64_le(base.position.0);
    out.put_slice(&configuration);
    let sum = checksum(cluster, &out[SUMMED_FROM..]);
    out[..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    out.freeze()
}

/// How many bytes [`encode_base`] gives.
#[must_use]
pub fn base_bytes(base: &Base) -> usize {
    let nodes = base.configuration.voters.len()
        + base.configuration.outgoing.len()
        + base.configuration.learners.len();
    FIXED_BYTES + 16 + nodes * 8
}

/// The base that is exactly these bytes; `None` if they are not what was written for this cluster and group.
#[must_use]
pub fn decode_base(cluster: ClusterId, group: GroupId, bytes: &[u8]) -> Option<Base> {
    let mut rest = bytes.get(..FIXED_BYTES)?;
    let (sum, theirs) = (rest.get_u32_le(), GroupId(rest.get_u32_le()));
    if sum != checksum(cluster, bytes.get(SUMMED_FROM..)?) || theirs != group {
        return None;
    }
    let (term, index) = (Term(rest.get_u64_le()), Index(rest.get_u64_le()));
    Some(Base {
        last: LogId::new(term, index),
        position: Position(rest.get_u64_le()),
        configuration: Arc::new(decode_configuration(bytes.get(FIXED_BYTES..)?)?),
    })
}

fn checksum(cluster: ClusterId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&cluster.0.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_consensus::{Configuration, NodeId};

    const CLUSTER: ClusterId = ClusterId(7);
    const GROUP: GroupId = GroupId(3);

    fn base() -> Base {
        Base {
            last: LogId::new(Term(5), Index(60)),
            position: Position(41),
            configuration: Arc::new(Configuration {
                voters: vec![NodeId(1), NodeId(2)],
                outgoing: vec![NodeId(2)],
                learners: vec![NodeId(9)],
            }),
        }
    }

    #[test]
    fn a_base_comes_back() {
        let bytes = encode_base(CLUSTER, GROUP, &base());
        assert_eq!(bytes.len(), base_bytes(&base()));
        assert_eq!(decode_base(CLUSTER, GROUP, &bytes), Some(base()));
    }

    #[test]
    fn a_damaged_or_foreign_one_does_not() {
        let bytes = encode_base(CLUSTER, GROUP, &base());
        assert_eq!(decode_base(ClusterId(8), GROUP, &bytes), None);
        assert_eq!(decode_base(CLUSTER, GroupId(4), &bytes), None);
        for n in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[n] ^= 1;
            assert_eq!(decode_base(CLUSTER, GROUP, &flipped), None, "byte {n}");
            assert_eq!(decode_base(CLUSTER, GROUP, &bytes[..n]), None, "{n} bytes");
        }
    }
}
