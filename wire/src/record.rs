//! Records: the unit of the replicated log, with the same bytes on every disk and wire.
//!
//! A record is a fixed header and a payload. The payload and its CRC-32C are made once, on the
//! client's thread ([`Payload`]); the header is made when index and term are known
//! ([`RunBuilder`]); from there nothing is encoded again. Invariants: the header stands under a
//! CRC of its own, seeded with the cluster's id, so that a record that stands in the wrong place
//! is seen, and a rotten payload does not hide which record it was; no length is believed before
//! it is checked.

mod bit;
mod builder;
mod control;
mod decode;
mod header;
mod payload;
mod session;
mod trim;

pub(crate) use control::{configuration_payload, decode_configuration};

pub use bit::is_one_bit_off;
pub use builder::{Full, RunBuilder, encode_run, run_bytes};
pub use decode::{decode_prefix, decode_runs};
pub use header::{Kind, RecordHeader};
pub use payload::{Codec, Entries, Payload, entries_in};
pub use session::{InSession, Session, SessionLimits, Stamp};
pub use trim::TrimPoint;

use bytes::Bytes;
use kontiki_consensus::{Body, Index, Position, Run};

/// Why bytes are not the records they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They end in the middle of a record.
    #[error("a record that needs {needs} bytes is cut off after {has}")]
    Cut {
        /// How long the record says it is, as far as that can be read.
        needs: usize,
        /// How many bytes there are.
        has: usize,
    },
    /// The header is not what was written.
    #[error("a record header whose checksum is wrong: it was damaged, or it is from another cluster")]
    Header,
    /// The payload is not what was written; the header is sound.
    #[error("record {index} is damaged: the checksum of its payload is wrong")]
    Payload {
        /// Which record.
        index: Index,
    },
    /// A record of another group.
    #[error("record {index} belongs to group {group}, which was not asked for")]
    Group {
        /// Which record.
        index: Index,
        /// Its group.
        group: u32,
    },
    /// A sound record that does not follow the one before it.
    #[error("record {index} stands where another one belongs")]
    Place {
        /// Which record.
        index: Index,
    },
    /// Something that must be understood and is not.
    #[error(
        "record {index} has `{field}` {value}, which this version does not know: was it written by a newer one?"
    )]
    Unknown {
        /// Which record.
        index: Index,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The payload is sound, but not of the form its header says.
    #[error("the payload of record {index} is not of the form its header says")]
    Form {
        /// Which record.
        index: Index,
    },
}

/// The header and the payload of each record of users in a run; control records give none.
///
/// The run was checked where it came in: at the door of a peer, and when read from disk.
pub fn records(run: &Run) -> impl Iterator<Item = (RecordHeader, &[u8])> {
    let mut rest: &[u8] = match run.body() {
        Body::Records(records) => records.bytes(),
        _ => &[],
    };
    std::iter::from_fn(move || {
        let header = RecordHeader::peek(rest)?;
        let (record, others) = rest.split_at_checked(header.record_len())?;
        rest = others;
        Some((header, record.get(usize::from(header.header_len)..)?))
    })
}

/// A user entry as it stands in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserEntry {
    /// Its place among the user entries.
    pub position: Position,
    /// The application's schema, as told when it was appended.
    pub schema: u32,
    /// Its bytes.
    pub bytes: Bytes,
}

/// All user entries of a run; control records have none.
pub fn entries(run: &Run) -> impl Iterator<Item = UserEntry> + '_ {
    let records = match run.body() {
        Body::Records(records) => Some(records),
        _ => None,
    };
    let records = records
        .into_iter()
        .flat_map(|r| (0..r.len()).filter_map(|n| r.record(n)));
    records.flat_map(move |(bytes, before, count)| {
        let first = run.first_position().0 + before;
        // Checked where it came in: at the client, at the door of a peer, and when read from disk.
        let header = RecordHeader::peek(&bytes);
        let schema = header.map_or(0, |header| header.schema);
        let found = header
            .and_then(|header| bytes.len().checked_sub(header.payload_len as usize))
            .and_then(|at| entries_in(&bytes.slice(at..), count));
        let entries = found.into_iter().flatten().enumerate();
        entries.map(move |(n, bytes)| UserEntry {
            position: Position(first + n as u64),
            schema,
            bytes,
        })
    })
}

#[cfg(test)]
mod tests;
