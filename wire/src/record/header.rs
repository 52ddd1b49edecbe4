//! The header of a record: 88 bytes, drawn in `docs/FORMAT.md`.
//!
//! Invariant: its CRC covers everything else in it and is begun with the cluster's id.

use super::{Codec, InSession, RecordError};
use crate::ClusterId;
use bytes::{Buf, BufMut};
use kontiki_consensus::{GroupId, Index, Position, Term};

/// Flags that a reader must understand; it may ignore the others. None is defined yet.
const REQUIRED_FLAGS: u16 = 0x00ff;
/// Where the checksummed part begins.
const SUMMED_FROM: usize = 4;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The leader's first record of a term (paper §8).
    Noop = 1,
    /// A configuration (dissertation §4).
    Configuration = 2,
    /// Entries of users.
    Entries = 3,
    /// Opens a session (dissertation §6.3).
    Session = 4,
    /// Lets the log begin later.
    Trim = 5,
    /// Says nothing: behind it the replicas compare what they have become.
    Compare = 6,
    /// Says nothing but the cluster's clock.
    Clock = 7,
}

/// What stands before a record's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Length of the header as written, in bytes; a later version may have a longer one.
    pub header_len: u16,
    /// What the record is.
    pub kind: Kind,
    /// How its entries are encoded.
    pub codec: Codec,
    /// Length of the payload, in bytes.
    pub payload_len: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Raft index.
    pub index: Index,
    /// Term.
    pub term: Term,
    /// Position of its first user entry; of the next one, if it has none.
    pub first: Position,
    /// How many user entries it holds; zero in control records.
    pub count: u32,
    /// The Raft group.
    pub group: GroupId,
    /// The client session it was appended in; zero for none.
    pub session: u64,
    /// Its number within the session.
    pub sequence: u64,
    /// How far below `sequence` the client's lowest number without an answer is.
    pub behind: u32,
    /// The cluster's clock when it was appended, in seconds, never going back in the log; zero in no-ops and configurations.
    pub clock: u32,
    /// The leader's date when it was appended, ns since 1970, for people: it goes back where a clock was wrong. Zero in no-ops
    /// and configurations.
    pub leader_time: u64,
    /// The version of the application's entries; zero unless the application says.
    pub schema: u32,
}

impl RecordHeader {
    /// Length of a header of this version.
    pub const BYTES: usize = 88;

    /// How long header and payload are together.
    #[must_use]
    pub fn record_len(&self) -> usize {
        self.header_len as usize + self.payload_len as usize
    }

    /// Which append of which session it is, if it is one.
    #[must_use]
    pub fn in_session(&self) -> Option<InSession> {
        (self.session > 0).then(|| InSession {
            session: self.session,
            sequence: self.sequence,
            settled: self.sequence.saturating_sub(self.behind.into()),
        })
    }

    /// The checksum that stands before a header, which tells records apart, and their payloads too.
    #[must_use]
    pub fn sum_of(record: &[u8]) -> u32 {
        record.first_chunk().map_or(0, |sum| u32::from_le_bytes(*sum))
    }

    /// A header without looking at its checksum: of bytes that were checked before.
    #[must_use]
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        parse(bytes).ok()
    }

    /// A header from the beginning of `bytes`, checked.
    ///
    /// # Errors
    /// If there is too little of it, its checksum is wrong, or it says something this version must know and does not.
    pub fn read(cluster: ClusterId, bytes: &[u8]) -> Result<Self, RecordError> {
        let cut = RecordError::Cut {
            needs: Self::BYTES,
            has: bytes.len(),
        };
        let length = bytes
            .get(SUMMED_FROM..)
            .and_then(|mut b| b.try_get_u16_le().ok())
            .ok_or(cut)?;
        if (length as usize) < Self::BYTES {
            return Err(RecordError::Header);
        }
        let header = bytes.get(..length as usize).ok_or(RecordError::Cut {
            needs: length as usize,
            has: bytes.len(),
        })?;
        let sum = (&header[..]).get_u32_le();
        if sum != checksum(seed(cluster), header) {
            return Err(RecordError::Header);
        }
        parse(header)
    }

    /// Appends the header to `out`, summed.
    pub(super) fn write(&self, seed: u32, out: &mut impl BufMut) {
        let mut bytes = [0_u8; Self::BYTES];
        let mut rest = &mut bytes[SUMMED_FROM..];
        rest.put_u16_le(self.header_len);
        rest.put_u8(self.kind as u8);
        rest.put_u8(self.codec as u8);
        rest.put_u32_le(self.payload_len);
        rest.put_u32_le(self.payload_crc);
        rest.put_u64_le(self.index.0);
        rest.put_u64_le(self.term.0);
        rest.put_u64_le(self.first.0);
        rest.put_u32_le(self.count);
        rest.put_u32_le(self.group.0);
        rest.put_u64_le(self.session);
        rest.put_u64_le(self.sequence);
        rest.put_u32_le(self.behind);
        rest.put_u32_le(self.clock);
        rest.put_u64_le(self.leader_time);
        rest.put_u32_le(self.schema);
        let sum = checksum(seed, &bytes);
        bytes[..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.put_slice(&bytes);
    }
}

/// What every header's checksum begins with in a cluster.
pub(super) fn seed(cluster: ClusterId) -> u32 {
    crc32c::crc32c(&cluster.0.to_le_bytes())
}

fn checksum(seed: u32, header: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, &header[SUMMED_FROM..])
}

fn parse(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
    let Some(mut rest) = bytes.get(SUMMED_FROM..RecordHeader::BYTES) else {
        return Err(RecordError::Cut {
            needs: RecordHeader::BYTES,
            has: bytes.len(),
        });
    };
    let header_len = rest.get_u16_le();
    let (kind, codec) = (rest.get_u8(), rest.get_u8());
    let (payload_len, payload_crc) = (rest.get_u32_le(), rest.get_u32_le());
    let index = Index(rest.get_u64_le());
    let unknown = |field, value: u64| RecordError::Unknown { index, field, value };
    let header = RecordHeader {
        header_len,
        kind: match kind {
            1 => Kind::Noop,
            2 => Kind::Configuration,
            3 => Kind::Entries,
            4 => Kind::Session,
            5 => Kind::Trim,
            6 => Kind::Compare,
            7 => Kind::Clock,
            other => return Err(unknown("kind", other.into())),
        },
        codec: Codec::of(codec).ok_or(unknown("codec", codec.into()))?,
        payload_len,
        payload_crc,
        index,
        term: Term(rest.get_u64_le()),
        first: Position(rest.get_u64_le()),
        count: rest.get_u32_le(),
        group: GroupId(rest.get_u32_le()),
        session: rest.get_u64_le(),
        sequence: rest.get_u64_le(),
        behind: rest.get_u32_le(),
        clock: rest.get_u32_le(),
        leader_time: rest.get_u64_le(),
        schema: rest.get_u32_le(),
    };
    let flags = rest.get_u16_le();
    match flags & REQUIRED_FLAGS {
        0 => Ok(header),
        flags => Err(unknown("flags", flags.into())),
    }
}
