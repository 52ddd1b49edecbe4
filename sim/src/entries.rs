//! The entries of the simulator's clients: each tells which append it belongs to and its place in it.

use crate::linearizability::Op;
use bytes::{Buf, BufMut, Bytes, BytesMut};
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

/// Operations on keys, as numbers.
const PUT: u8 = 1;
const COMPARE_AND_SET: u8 = 2;
const INCREMENT: u8 = 3;
const DELETE: u8 = 4;
const GET: u8 = 5;

/// The bytes of an entry of at least this length.
#[must_use]
pub fn encode(id: EntryId, length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length.max(12));
    bytes.put_u64_le(id.operation);
    bytes.put_u32_le(id.part);
    // No number of an operation on a key.
    bytes.resize(length.max(12), id.operation as u8 | 0x80);
    bytes.freeze()
}

/// The bytes of an entry that does something to a key.
#[must_use]
pub fn encode_op(id: EntryId, key: u8, op: Op) -> Bytes {
    let mut bytes = BytesMut::with_capacity(32);
    bytes.put_u64_le(id.operation);
    bytes.put_u32_le(id.part);
    let (kind, expect, value) = match op {
        Op::Put(value) => (PUT, None, value),
        Op::CompareAndSet { expect, value } => (COMPARE_AND_SET, expect, value),
        Op::Increment(by) => (INCREMENT, None, by),
        Op::Delete => (DELETE, None, 0),
        Op::Get => (GET, None, 0),
    };
    bytes.put_slice(&[kind, key, expect.is_some().into()]);
    bytes.put_i64_le(expect.unwrap_or_default());
    bytes.put_i64_le(value);
    bytes.freeze()
}

/// What an entry does to which key; `None` if nothing.
#[must_use]
pub fn op_of(mut entry: &[u8]) -> Option<(u8, Op)> {
    entry = entry.get(12..)?;
    let (kind, key) = (entry.try_get_u8().ok()?, entry.try_get_u8().ok()?);
    let some = entry.try_get_u8().ok()? != 0;
    let (expect, value) = (entry.try_get_i64_le().ok()?, entry.try_get_i64_le().ok()?);
    let op = match kind {
        PUT => Op::Put(value),
        COMPARE_AND_SET => Op::CompareAndSet {
            expect: some.then_some(expect),
            value,
        },
        INCREMENT => Op::Increment(value),
        DELETE => Op::Delete,
        GET => Op::Get,
        _ => return None,
    };
    Some((key, op))
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
