//! Control records: no-op and configuration. Their bytes follow from place and content alone.

use super::{Codec, Kind, RecordHeader, header};
use crate::ClusterId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{Body, Configuration, GroupId, NodeId, Run};
use std::sync::Arc;

/// The bytes of a control record; `None` for records of users.
pub(super) fn encode(cluster: ClusterId, group: GroupId, run: &Run) -> Option<Bytes> {
    let (kind, payload) = match run.body() {
        Body::Noop => (Kind::Noop, Bytes::new()),
        Body::Configuration(configuration) => (Kind::Configuration, configuration_payload(configuration)),
        Body::Records(_) => return None,
    };
    let header = RecordHeader {
        header_len: RecordHeader::BYTES as u16,
        kind,
        codec: Codec::Bytes,
        payload_len: payload.len() as u32,
        payload_crc: crc32c::crc32c(&payload),
        index: run.first(),
        term: run.term(),
        first: run.first_position(),
        count: 0,
        group,
        session: 0,
        sequence: 0,
        behind: 0,
        clock: 0,
        leader_time: 0,
        schema: 0,
    };
    let mut bytes = BytesMut::with_capacity(header.record_len());
    header.write(header::seed(cluster), &mut bytes);
    bytes.put_slice(&payload);
    Some(bytes.freeze())
}

/// Three lists: how long each is, then all of them.
pub(crate) fn configuration_payload(configuration: &Configuration) -> Bytes {
    let lists = [
        &configuration.voters,
        &configuration.outgoing,
        &configuration.learners,
    ];
    let mut bytes = BytesMut::with_capacity(16 + lists.iter().map(|l| l.len() * 8).sum::<usize>());
    for list in lists {
        bytes.put_u32_le(list.len() as u32);
    }
    bytes.put_u32_le(0);
    for node in lists.into_iter().flatten() {
        bytes.put_u64_le(node.0);
    }
    bytes.freeze()
}

/// What a sound control record holds; `None` if its payload is not of the form its header says.
pub(super) fn decode(kind: Kind, payload: &[u8]) -> Option<Body> {
    match kind {
        Kind::Noop => payload.is_empty().then_some(Body::Noop),
        Kind::Configuration => {
            decode_configuration(payload).map(|configuration| Body::Configuration(Arc::new(configuration)))
        }
        Kind::Entries | Kind::Session | Kind::Trim | Kind::Compare | Kind::Clock => None,
    }
}

pub(crate) fn decode_configuration(mut payload: &[u8]) -> Option<Configuration> {
    let mut lengths = [0; 3];
    for length in &mut lengths {
        *length = payload.try_get_u32_le().ok()? as usize;
    }
    payload.try_get_u32_le().ok()?;
    let whole = lengths
        .iter()
        .try_fold(0_usize, |sum, n| sum.checked_add(n.checked_mul(8)?))?;
    if whole != payload.len() {
        return None;
    }
    let [voters, outgoing, learners] =
        lengths.map(|n| (0..n).map(|_| NodeId(payload.get_u64_le())).collect::<Vec<_>>());
    let sorted = |list: &[NodeId]| list.windows(2).all(|pair| pair[0] < pair[1]);
    let sound = sorted(&voters) && sorted(&outgoing) && sorted(&learners);
    sound.then_some(Configuration {
        voters,
        outgoing,
        learners,
    })
}
