//! Frames: what one write puts on disk, drawn in `docs/FORMAT.md`.
//!
//! A frame is a header and a body. The header says where the frame stands, which in the row of all writes
//! it is, and for each group what it does: term and vote, then a truncation or a new base, then records. The body
//! is, for each group, the block of its base (`base`), if it has one, and those records, exactly as on the
//! wire; all of them carry checksums of their own and are not summed twice.
//! Invariants: a frame begins at a sector and its header ends within that sector, which a device writes
//! whole or not at all; the header's CRC is begun with the cluster's id; segment, salt and offset stand in it,
//! so that a frame anywhere else, and one that a client made up, is no frame; it says which records and blocks
//! stand in its body, so that others are not taken for them.

use crate::{ClusterId, Salt};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{GroupId, HardState, Index, NodeId, SuspectMark, Term};

/// What a device writes whole or not at all, in bytes. Frames begin at multiples of it.
pub const SECTOR: usize = 512;
/// How many groups a frame or a segment's header can speak of: what fits into a sector.
pub const GROUPS_MAX: usize = 7;

const MAGIC: [u8; 4] = *b"KTKF";
const SUMMED_FROM: usize = 8;
const FIXED_BYTES: usize = 56;
const PART_BYTES: usize = 64;
/// Flags that a reader must understand; it may ignore the others. None is defined yet.
const REQUIRED_FLAGS: u16 = 0x00ff;
const HARD_STATE: u16 = 1;
const TRUNCATE: u16 = 2;
const INSTALL: u16 = 4;
const PURGE: u16 = 8;
const KNOWN_PART_FLAGS: u16 = HARD_STATE | TRUNCATE | INSTALL | PURGE;

/// The header of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Its length, in bytes; the body follows. At most a sector.
    pub header_len: u16,
    /// The number of the segment it was written into: frames of another are what a recycled file held before.
    pub segment: u64,
    /// The salt of that segment, which nobody knows who has not read its files.
    pub salt: Salt,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Which write it is: they rise by one over all segments.
    pub sequence: u64,
    /// [`BodySum`](crate::BodySum) of its body.
    pub body_sum: u32,
    /// What it does, group by group.
    pub parts: Vec<FramePart>,
}

/// What a frame does in one group, in this order: term and vote, truncation or installation, records, purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FramePart {
    /// The group.
    pub group: GroupId,
    /// Its new term, vote and mark.
    pub hard_state: Option<HardState>,
    /// The first record that is removed, with all after it.
    pub truncate: Option<Index>,
    /// The log begins after another base, whose block stands in the body before the records.
    pub base: Option<BasePart>,
    /// The term of all records in the body; zero if there is none. What a recycled file held before may be sound
    /// records: one of another term is none of this frame, and one of this term is the very record that was written,
    /// for each index and term have one record only.
    pub records_term: Term,
    /// Index of the first record in the body; zero if there is none.
    pub first: Index,
    /// How many records it has in the body.
    pub count: u32,
    /// How many bytes they are.
    pub bytes: u32,
}

/// What a frame does to the beginning of a group's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BasePart {
    /// Whether the whole log is removed and begins anew after the base; if not, the base lies in the log,
    /// and what is before it is forgotten.
    pub install: bool,
    /// Length of the block, in bytes.
    pub bytes: u16,
}

/// Why there is no frame to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// No sound header of a frame of this place stands there.
    #[error("no sound frame begins here")]
    Absent,
    /// A sound header with something in it that must be understood and is not.
    #[error(
        "a frame has `{field}` {value:#x}, which this version does not know: was it written by a newer one?"
    )]
    Unknown {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl FrameHeader {
    /// Length of a header that speaks of so many groups.
    #[must_use]
    pub const fn len_of(parts: usize) -> usize {
        FIXED_BYTES + parts * PART_BYTES
    }

    /// Whether these bytes begin as a frame does, but for one byte: what is not even that is no frame with one bad bit.
    #[must_use]
    pub fn is_nearly(bytes: &[u8]) -> bool {
        let same = bytes.iter().zip(MAGIC).filter(|(byte, magic)| *byte == magic);
        same.count() + 1 >= MAGIC.len()
    }

    /// Length of the body.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.parts.iter().map(FramePart::body_len).sum()
    }

    /// Where the frame ends, as an offset in its file. The next begins at the next sector.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.header_len) + self.body_len()
    }

    /// Its bytes, exactly `header_len`.
    #[must_use]
    pub fn encode(&self, cluster: ClusterId) -> Bytes {
        let mut out = BytesMut::with_capacity((self.header_len as usize).max(Self::len_of(self.parts.len())));
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(self.header_len);
        out.put_u16_le(self.parts.len() as u16);
        out.put_u16_le(0);
        out.put_u16_le(PART_BYTES as u16);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.sequence);
        out.put_u32_le(self.body_len() as u32);
        out.put_u32_le(self.body_sum);
        out.put_u64_le(self.salt.0);
        for part in &self.parts {
            part.encode(&mut out);
        }
        out.resize(self.header_len as usize, 0);
        let sum = checksum(cluster, &out[SUMMED_FROM..]);
        out[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// The header of the frame that begins at `offset` of a segment, from the sector there. Only where no byte of a
    /// client ever begins a sector may the salt be unknown: behind the header of a segment.
    ///
    /// # Errors
    /// If none stands there, or one this version does not understand.
    pub fn read(
        cluster: ClusterId,
        (segment, salt): (u64, Option<Salt>),
        offset: u64,
        bytes: &[u8],
    ) -> Result<Self, FrameError> {
        let mut rest = bytes.get(..FIXED_BYTES).ok_or(FrameError::Absent)?;
        let is_frame = rest.starts_with(&MAGIC);
        rest.advance(4);
        let (sum, header_len) = (rest.get_u32_le(), rest.get_u16_le());
        let header = bytes
            .get(..header_len as usize)
            .filter(|h| h.len() >= FIXED_BYTES);
        let header = header.ok_or(FrameError::Absent)?;
        if !is_frame || sum != checksum(cluster, &header[SUMMED_FROM..]) {
            return Err(FrameError::Absent);
        }
        let (count, flags, part_len) = (rest.get_u16_le(), rest.get_u16_le(), rest.get_u16_le() as usize);
        if (rest.get_u64_le(), rest.get_u64_le()) != (segment, offset) {
            return Err(FrameError::Absent);
        }
        let (sequence, body_len, body_sum) = (rest.get_u64_le(), rest.get_u32_le(), rest.get_u32_le());
        let found = Salt(rest.get_u64_le());
        if salt.is_some_and(|salt| salt != found) {
            return Err(FrameError::Absent);
        }
        known("flags", flags & REQUIRED_FLAGS, 0)?;
        let table = header.get(FIXED_BYTES..).unwrap_or_default();
        if part_len < PART_BYTES || table.len() < count as usize * part_len {
            return Err(FrameError::Absent);
        }
        let parts = table
            .chunks_exact(part_len)
            .take(count.into())
            .map(FramePart::read);
        let this = Self {
            header_len,
            segment,
            salt: found,
            offset,
            sequence,
            body_sum,
            parts: parts.collect::<Result<_, _>>()?,
        };
        // A part of a later version might have bytes that this one does not count.
        (this.body_len() == u64::from(body_len))
            .then_some(this)
            .ok_or(FrameError::Absent)
    }
}

impl FramePart {
    /// Length of the block of its base, in bytes.
    #[must_use]
    pub fn base_len(&self) -> u64 {
        self.base.map_or(0, |b| u64::from(b.bytes))
    }

    /// Length of all that it has in the body: the block of its base, and records.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.base_len() + u64::from(self.bytes)
    }

    fn flags(&self) -> u16 {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let base = match self.base {
            Some(base) if base.install => INSTALL,
            Some(_) => PURGE,
            None => 0,
        };
        flag(self.hard_state.is_some(), HARD_STATE) | flag(self.truncate.is_some(), TRUNCATE) | base
    }

    fn encode(&self, out: &mut BytesMut) {
        let state = self.hard_state.unwrap_or_default();
        out.put_u32_le(self.group.0);
        out.put_u16_le(self.flags());
        out.put_u16_le(self.base.map_or(0, |b| b.bytes));
        out.put_u64_le(state.term.0);
        out.put_u64_le(state.vote.unwrap_or_default().0);
        out.put_u64_le(state.suspect.0);
        out.put_u64_le(self.truncate.unwrap_or_default().0);
        out.put_u64_le(self.records_term.0);
        out.put_u64_le(self.first.0);
        out.put_u32_le(self.count);
        out.put_u32_le(self.bytes);
    }

    fn read(mut bytes: &[u8]) -> Result<Self, FrameError> {
        let group = GroupId(bytes.get_u32_le());
        let (flags, base_bytes) = (bytes.get_u16_le(), bytes.get_u16_le());
        known("part flags", flags & REQUIRED_FLAGS, KNOWN_PART_FLAGS)?;
        let (term, vote) = (Term(bytes.get_u64_le()), NodeId(bytes.get_u64_le()));
        let suspect = SuspectMark(bytes.get_u64_le());
        let truncate = Index(bytes.get_u64_le());
        Ok(Self {
            group,
            hard_state: Some(HardState {
                term,
                vote: some_node(vote),
                suspect,
            })
            .filter(|_| flags & HARD_STATE != 0),
            truncate: Some(truncate).filter(|_| flags & TRUNCATE != 0),
            base: Some(BasePart {
                install: flags & INSTALL != 0,
                bytes: base_bytes,
            })
            .filter(|_| flags & (INSTALL | PURGE) != 0),
            records_term: Term(bytes.get_u64_le()),
            first: Index(bytes.get_u64_le()),
            count: bytes.get_u32_le(),
            bytes: bytes.get_u32_le(),
        })
    }
}

/// A vote as it is written: zero is nobody.
pub(crate) fn some_node(node: NodeId) -> Option<NodeId> {
    Some(node).filter(|n| *n != NodeId::ZERO)
}

fn known(field: &'static str, flags: u16, known: u16) -> Result<(), FrameError> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(FrameError::Unknown {
            field,
            value: unknown.into(),
        }),
    }
}

fn checksum(cluster: ClusterId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&cluster.0.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);
    const SALT: Salt = Salt(0x5a17);

    fn read(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
        FrameHeader::read(CLUSTER, (4, Some(SALT)), 1024, bytes)
    }

    fn header() -> FrameHeader {
        let part = FramePart {
            group: GroupId(3),
            hard_state: Some(HardState {
                term: Term(5),
                vote: Some(NodeId(2)),
                suspect: SuspectMark(0x0123_4567_89ab_cdef),
            }),
            truncate: Some(Index(9)),
            base: None,
            records_term: Term(5),
            first: Index(9),
            count: 2,
            bytes: 300,
        };
        let bare = FramePart {
            group: GroupId(4),
            hard_state: None,
            truncate: None,
            base: Some(BasePart {
                install: true,
                bytes: 48,
            }),
            records_term: Term(0),
            first: Index(0),
            count: 0,
            bytes: 0,
        };
        FrameHeader {
            header_len: FrameHeader::len_of(2) as u16,
            segment: 4,
            salt: SALT,
            offset: 1024,
            sequence: 77,
            body_sum: 5,
            parts: vec![part, bare],
        }
    }

    #[test]
    fn a_header_comes_back() {
        let bytes = header().encode(CLUSTER);
        assert_eq!(bytes.len(), 56 + 2 * 64);
        assert_eq!(read(&bytes), Ok(header()));
        let unsalted = FrameHeader::read(CLUSTER, (4, None), 1024, &bytes);
        assert_eq!(unsalted, Ok(header()));
        assert_eq!(header().end(), 1024 + 184 + 300 + 48);
    }

    #[test]
    fn a_header_with_fewer_parts_keeps_its_length() {
        let mut cut = header();
        cut.parts.truncate(1);
        let bytes = cut.encode(CLUSTER);
        assert_eq!(bytes.len(), 184);
        assert_eq!(read(&bytes), Ok(cut));
    }

    #[test]
    fn elsewhere_or_damaged_it_is_no_frame() {
        let bytes = header().encode(CLUSTER);
        for (cluster, segment, salt, offset) in [
            (ClusterId(8), 4, SALT, 1024),
            (CLUSTER, 5, SALT, 1024),
            (CLUSTER, 4, Salt(SALT.0 ^ 1), 1024),
            (CLUSTER, 4, SALT, 512),
        ] {
            assert_eq!(
                FrameHeader::read(cluster, (segment, Some(salt)), offset, &bytes),
                Err(FrameError::Absent)
            );
        }
        for n in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[n] ^= 0x10;
            assert_eq!(read(&flipped), Err(FrameError::Absent), "byte {n}");
            assert_eq!(read(&bytes[..n]), Err(FrameError::Absent), "{n} bytes");
        }
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_refused() {
        for (at, field) in [(12, "flags"), (FIXED_BYTES + 4, "part flags")] {
            let mut bytes = header().encode(CLUSTER).to_vec();
            bytes[at] |= 0x80;
            bytes[at + 1] |= 0x80;
            let sum = checksum(CLUSTER, &bytes[SUMMED_FROM..]);
            bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
            let unknown = FrameError::Unknown { field, value: 0x80 };
            assert_eq!(read(&bytes), Err(unknown));
        }
    }

    /// A newer version may not be claimed by who does not know the salt.
    #[test]
    fn what_is_not_understood_is_no_frame_without_the_salt() {
        let mut bytes = header().encode(CLUSTER).to_vec();
        bytes[12] |= 0x80;
        let sum = checksum(CLUSTER, &bytes[SUMMED_FROM..]);
        bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        let found = FrameHeader::read(CLUSTER, (4, Some(Salt(1))), 1024, &bytes);
        assert_eq!(found, Err(FrameError::Absent));
    }

    #[test]
    fn as_many_groups_as_allowed_fit_into_a_sector() {
        assert!(FrameHeader::len_of(GROUPS_MAX) <= SECTOR && FrameHeader::len_of(GROUPS_MAX + 1) > SECTOR);
    }
}
