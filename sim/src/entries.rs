//! The entries of the simulator's clients: each tells which append it belongs to and its place in it.

use bytes::{BufMut, Bytes, BytesMut};
use kontiki_consensus::{Body, Run};
use kontiki_wire::{
    Codec, Payload,
    record::{RecordHeader, entries_in},
};

/// Which entry of which append.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EntryId {
    /// The append; zero for bytes that no client made.
    pub operation: u64,
    /// Its place among the append's entries, from 0.
    pub part: u32,
}

/// The bytes of an entry of at least this length.
#[must_use]
pub fn encode(id: EntryId, length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length.max(12));
    bytes.put_u64_le(id.operation);
    bytes.put_u32_le(id.part);
    bytes.resize(length.max(12), id.operation as u8);
    bytes.freeze()
}

/// Which entry these bytes are.
#[must_use]
pub fn decode(bytes: &[u8]) -> EntryId {
    let nothing = EntryId {
        operation: 0,
        part: 0,
    };
    let Some((operation, rest)) = bytes.split_first_chunk() else {
        return nothing;
    };
    let Some((part, _)) = rest.split_first_chunk() else {
        return nothing;
    };
    EntryId {
        operation: u64::from_le_bytes(*operation),
        part: u32::from_le_bytes(*part),
    }
}

/// The entries of one append, as a client hands them to its node.
#[must_use]
pub fn payload(entries: &[Bytes]) -> Payload {
    Payload::several(entries, Codec::Bytes).unwrap_or_else(|| Payload::empty(Codec::Bytes))
}

/// The entries in each record of a run; a control record has none.
#[must_use]
pub fn entries_of(run: &Run) -> Vec<Vec<EntryId>> {
    let Body::Records(records) = run.body() else {
        return vec![Vec::new()];
    };
    let all = (0..records.len()).filter_map(|n| records.record(n));
    all.map(|(record, _, count)| {
        let header = RecordHeader::peek(&record).map_or(0, |h| h.header_len.into());
        let entries = entries_in(&record.slice(header..), count);
        entries.into_iter().flatten().map(|e| decode(&e)).collect()
    })
    .collect()
}
