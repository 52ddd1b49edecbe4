//! Segment headers and indexes: how a file of the log begins, and how a full one ends.
//!
//! The header says whose file it is and how the log stood when it was begun. The index at the end of a full
//! file sums up what its frames did, so that a log of many files opens without reading them: which records
//! at its end stand in this file, and where; which terms and configurations begin among them; term and vote.
//! A salt binds frames and index to their segment (`salt`).
//! Invariants: both stand under a CRC; magic, CRC, header length and version stay where they are in every
//! version, so that an older program can tell a newer file from a damaged one.

use crate::frame::{GROUPS_MAX, SECTOR, some_node};
use crate::{ClusterId, Identity, Salt};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{
    GroupId, HardState, Incarnation, Index, LogId, NodeId, Position, SuspectMark, Term, TermStart,
};

/// The version of the log's format this program writes, and the newest it reads.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"KTKS";
const INDEX_MAGIC: [u8; 4] = *b"KTKI";
const SUMMED_FROM: usize = 8;
const FIXED_BYTES: usize = 96;
const GROUP_BYTES: usize = 56;
/// Length of the end of an index, which says how long the whole is.
pub const TRAILER_BYTES: usize = 56;
const INDEX_GROUP_BYTES: usize = 80;
const TERM_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;

/// How a segment begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: Identity,
    /// Its number: the place in the row of segments, from 1. A file that is used again gets another one.
    pub segment: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// The sequence of its first frame.
    pub first_sequence: u64,
    /// The number the file had before, if it is used again; zero if it was filled with zeros. Behind its last frame
    /// may stand anything then.
    pub was: u64,
    /// What its frames and its index must name, drawn by chance before it was begun.
    pub salt: Salt,
    /// The salt of the segment behind it: known there even if that one's header is lost.
    pub next_salt: Salt,
    /// How each group stood when it was begun.
    pub groups: Vec<GroupStart>,
}

/// How a group stood when a segment was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupStart {
    /// The group.
    pub group: GroupId,
    /// Its term, vote and mark.
    pub hard_state: HardState,
    /// Its last record.
    pub last: LogId,
    /// Its last user entry.
    pub last_position: Position,
}

/// Why bytes are not the header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    /// They are not, or were damaged.
    #[error("no sound segment header stands at its beginning")]
    Absent,
    /// A newer program wrote it.
    #[error("its format is version {found}, and this program knows none after {VERSION}")]
    Version {
        /// The version.
        found: u16,
    },
}

impl SegmentHeader {
    /// The sector a header stands in. Speaks of at most [`GROUPS_MAX`] groups.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let groups = self.groups.get(..GROUPS_MAX).unwrap_or(&self.groups);
        let length = FIXED_BYTES + groups.len() * GROUP_BYTES;
        let mut out = BytesMut::with_capacity(SECTOR);
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(length as u16);
        out.put_u16_le(VERSION);
        out.put_u16_le(groups.len() as u16);
        out.put_u16_le(GROUP_BYTES as u16);
        out.put_u128_le(self.identity.cluster.0);
        out.put_u64_le(self.identity.node.0);
        out.put_u64_le(self.identity.incarnation.0);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.first_sequence);
        out.put_u64_le(self.was);
        out.put_u64_le(self.salt.0);
        out.put_u64_le(self.next_salt.0);
        for group in groups {
            group.encode(&mut out);
        }
        let sum = crc32c::crc32c(&out[SUMMED_FROM..]);
        out[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.resize(SECTOR, 0);
        out.freeze()
    }

    /// The header that stands at the beginning of `bytes`. Its CRC is not begun with a cluster's id, for it names the cluster.
    ///
    /// # Errors
    /// If there is none, or one of a newer version.
    pub fn read(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut rest = bytes.get(..FIXED_BYTES).ok_or(SegmentError::Absent)?;
        let is_segment = rest.starts_with(&MAGIC);
        rest.advance(4);
        let (sum, length) = (rest.get_u32_le(), rest.get_u16_le());
        let header = bytes.get(..length as usize).filter(|h| h.len() >= FIXED_BYTES);
        let header = header.ok_or(SegmentError::Absent)?;
        if !is_segment || sum != crc32c::crc32c(&header[SUMMED_FROM..]) {
            return Err(SegmentError::Absent);
        }
        let found = rest.get_u16_le();
        if found > VERSION {
            return Err(SegmentError::Version { found });
        }
        let (count, group_len) = (rest.get_u16_le() as usize, rest.get_u16_le() as usize);
        let table = header.get(FIXED_BYTES..).unwrap_or_default();
        if group_len < GROUP_BYTES || table.len() < count * group_len {
            return Err(SegmentError::Absent);
        }
        Ok(Self {
            identity: Identity {
                cluster: ClusterId(rest.get_u128_le()),
                node: NodeId(rest.get_u64_le()),
                incarnation: Incarnation(rest.get_u64_le()),
            },
            segment: rest.get_u64_le(),
            bytes: rest.get_u64_le(),
            first_sequence: rest.get_u64_le(),
            was: rest.get_u64_le(),
            salt: Salt(rest.get_u64_le()),
            next_salt: Salt(rest.get_u64_le()),
            groups: table
                .chunks_exact(group_len)
                .take(count)
                .map(GroupStart::read)
                .collect(),
        })
    }
}

impl GroupStart {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.group.0);
        out.put_u32_le(0);
        put_standing(out, self.hard_state, self.last, self.last_position);
    }

    fn read(mut bytes: &[u8]) -> Self {
        let group = GroupId(bytes.get_u32_le());
        bytes.advance(4);
        let (hard_state, last, last_position) = get_standing(&mut bytes);
        Self {
            group,
            hard_state,
            last,
            last_position,
        }
    }
}

/// Term, vote, mark, last index, its term, last position: 48 bytes.
fn put_standing(out: &mut BytesMut, hard_state: HardState, last: LogId, last_position: Position) {
    out.put_u64_le(hard_state.term.0);
    out.put_u64_le(hard_state.vote.unwrap_or_default().0);
    out.put_u64_le(hard_state.suspect.0);
    out.put_u64_le(last.index.0);
    out.put_u64_le(last.term.0);
    out.put_u64_le(last_position.0);
}

fn get_standing(bytes: &mut &[u8]) -> (HardState, LogId, Position) {
    let (term, vote) = (Term(bytes.get_u64_le()), NodeId(bytes.get_u64_le()));
    let suspect = SuspectMark(bytes.get_u64_le());
    let index = Index(bytes.get_u64_le());
    let last = LogId::new(Term(bytes.get_u64_le()), index);
    (
        HardState {
            term,
            vote: some_node(vote),
            suspect,
        },
        last,
        Position(bytes.get_u64_le()),
    )
}

/// What the frames of a full segment did, all together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentIndex {
    /// The segment.
    pub segment: u64,
    /// Its salt.
    pub salt: Salt,
    /// The sequence of the first frame after it.
    pub next_sequence: u64,
    /// Where its last frame ends, in bytes.
    pub end: u64,
    /// Each group.
    pub groups: Vec<GroupIndex>,
}

/// What the frames of a full segment did to one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupIndex {
    /// The group.
    pub group: GroupId,
    /// Term, vote and mark at its end.
    pub hard_state: HardState,
    /// The last record that stands in an earlier segment and is still valid at the end of this one.
    pub kept: Index,
    /// The last record at its end: what lies between `kept` and this stands in this segment.
    pub last: LogId,
    /// The last user entry at its end.
    pub last_position: Position,
    /// The block of the base the log begins after at its end; empty if it begins with record 1.
    pub base: Bytes,
    /// Terms that begin after `kept`.
    pub terms: Vec<TermStart>,
    /// Where records after `kept` stand: rising, not every record has one.
    pub entries: Vec<IndexEntry>,
    /// The records of the configurations after `kept`, one behind the other.
    pub configurations: Bytes,
}

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// Its Raft index.
    pub index: Index,
    /// The last user entry before it.
    pub before: Position,
    /// Where it begins in the file, in bytes.
    pub offset: u32,
    /// How many bytes of records follow from there on, in the same frame and group.
    pub left: u32,
}

impl SegmentIndex {
    /// How long an index of no group is.
    pub const EMPTY_BYTES: usize = TRAILER_BYTES;

    /// Its bytes, which stand at the very end of the file; always a whole number of 8.
    #[must_use]
    pub fn encode(&self, cluster: ClusterId) -> Bytes {
        let length: usize = self.groups.iter().map(GroupIndex::encoded_len).sum();
        let mut out = BytesMut::with_capacity(length + TRAILER_BYTES);
        for group in &self.groups {
            group.encode(&mut out);
        }
        let trailer = out.len();
        out.put_slice(&INDEX_MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(TRAILER_BYTES as u16);
        out.put_u16_le(VERSION);
        out.put_u32_le(self.groups.len() as u32);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.next_sequence);
        out.put_u64_le(self.end);
        out.put_u64_le(self.salt.0);
        out.put_u64_le(length as u64);
        let sum = index_checksum(cluster, &out[..trailer], &out[trailer + SUMMED_FROM..]);
        out[trailer + 4..trailer + SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// How long the index is that ends with these bytes; `None` if they are not the end of one.
    #[must_use]
    pub fn len_of(trailer: &[u8]) -> Option<u64> {
        let start = trailer.len().checked_sub(TRAILER_BYTES)?;
        let mut rest = trailer.get(start..).filter(|t| t.starts_with(&INDEX_MAGIC))?;
        rest.advance(TRAILER_BYTES - 8);
        rest.get_u64_le().checked_add(TRAILER_BYTES as u64)
    }

    /// The index that is exactly these bytes; `None` if it is not sound or of a version that is not known.
    /// Nothing is lost then, for it repeats what stands in the frames.
    #[must_use]
    pub fn read(cluster: ClusterId, bytes: &[u8]) -> Option<Self> {
        let (body, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
        let mut rest = trailer.strip_prefix(&INDEX_MAGIC)?;
        let sum = rest.get_u32_le();
        if sum != index_checksum(cluster, body, trailer.get(SUMMED_FROM..)?) {
            return None;
        }
        let (_, version) = (rest.get_u16_le(), rest.get_u16_le());
        let count = rest.get_u32_le();
        let (segment, next_sequence, end) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let salt = Salt(rest.get_u64_le());
        if version > VERSION || rest.get_u64_le() != body.len() as u64 {
            return None;
        }
        let mut body = body;
        let groups = (0..count)
            .map(|_| GroupIndex::read(&mut body))
            .collect::<Option<_>>()?;
        Some(Self {
            segment,
            salt,
            next_sequence,
            end,
            groups,
        })
    }
}

impl GroupIndex {
    /// How many bytes an index of a group has with so many terms and entries, and so many bytes of its base and of
    /// configurations.
    #[must_use]
    pub fn len_of(terms: usize, entries: usize, base_bytes: usize, configuration_bytes: usize) -> usize {
        INDEX_GROUP_BYTES
            + terms * TERM_BYTES
            + entries * ENTRY_BYTES
            + (base_bytes + configuration_bytes).next_multiple_of(8)
    }

    fn encoded_len(&self) -> usize {
        Self::len_of(
            self.terms.len(),
            self.entries.len(),
            self.base.len(),
            self.configurations.len(),
        )
    }

    fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32_le(self.group.0);
        out.put_u32_le(self.terms.len() as u32);
        out.put_u32_le(self.entries.len() as u32);
        out.put_u32_le(self.configurations.len() as u32);
        put_standing(out, self.hard_state, self.last, self.last_position);
        out.put_u64_le(self.kept.0);
        out.put_u32_le(self.base.len() as u32);
        out.put_u32_le(0);
        for term in &self.terms {
            out.put_u64_le(term.term.0);
            out.put_u64_le(term.index.0);
            out.put_u64_le(term.position_before.0);
        }
        for entry in &self.entries {
            out.put_u64_le(entry.index.0);
            out.put_u64_le(entry.before.0);
            out.put_u32_le(entry.offset);
            out.put_u32_le(entry.left);
        }
        out.put_slice(&self.base);
        out.put_slice(&self.configurations);
        out.resize(start + self.encoded_len(), 0);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut fixed = bytes.get(..INDEX_GROUP_BYTES)?;
        let group = GroupId(fixed.get_u32_le());
        let [terms, entries, configurations] = [(); 3].map(|()| fixed.get_u32_le() as usize);
        let (hard_state, last, last_position) = get_standing(&mut fixed);
        let kept = Index(fixed.get_u64_le());
        let base = fixed.get_u32_le() as usize;
        let whole = bytes.get(..Self::len_of(terms, entries, base, configurations))?;
        let (terms, rest) = whole
            .get(INDEX_GROUP_BYTES..)?
            .split_at_checked(terms * TERM_BYTES)?;
        let (entries, rest) = rest.split_at_checked(entries * ENTRY_BYTES)?;
        let (base, rest) = rest.split_at_checked(base)?;
        bytes.advance(whole.len());
        Some(Self {
            group,
            hard_state,
            kept,
            last,
            last_position,
            base: Bytes::copy_from_slice(base),
            terms: terms.chunks_exact(TERM_BYTES).map(read_term).collect(),
            entries: entries.chunks_exact(ENTRY_BYTES).map(read_entry).collect(),
            configurations: Bytes::copy_from_slice(rest.get(..configurations)?),
        })
    }
}

fn read_term(mut bytes: &[u8]) -> TermStart {
    TermStart {
        term: Term(bytes.get_u64_le()),
        index: Index(bytes.get_u64_le()),
        position_before: Position(bytes.get_u64_le()),
    }
}

fn read_entry(mut bytes: &[u8]) -> IndexEntry {
    IndexEntry {
        index: Index(bytes.get_u64_le()),
        before: Position(bytes.get_u64_le()),
        offset: bytes.get_u32_le(),
        left: bytes.get_u32_le(),
    }
}

fn index_checksum(cluster: ClusterId, body: &[u8], trailer: &[u8]) -> u32 {
    let seed = crc32c::crc32c(&cluster.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, body), trailer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn header() -> SegmentHeader {
        let start = |n: u64| GroupStart {
            group: GroupId(n as u32),
            hard_state: HardState {
                term: Term(n),
                vote: Some(NodeId(n + 1)),
                suspect: SuspectMark(n + 2),
            },
            last: LogId::new(Term(n), Index(n * 2)),
            last_position: Position(n),
        };
        SegmentHeader {
            identity: Identity {
                cluster: CLUSTER,
                node: NodeId(2),
                incarnation: Incarnation(33),
            },
            segment: 4,
            bytes: 1 << 20,
            first_sequence: 99,
            was: 3,
            salt: Salt(11),
            next_salt: Salt(12),
            groups: (0..GROUPS_MAX as u64).map(start).collect(),
        }
    }

    fn index() -> SegmentIndex {
        let group = GroupIndex {
            group: GroupId(0),
            hard_state: HardState {
                term: Term(5),
                vote: None,
                suspect: SuspectMark(6),
            },
            kept: Index(10),
            last: LogId::new(Term(4), Index(20)),
            last_position: Position(17),
            base: Bytes::from_static(b"eight by"),
            terms: vec![TermStart {
                term: Term(4),
                index: Index(11),
                position_before: Position(9),
            }],
            entries: vec![
                IndexEntry {
                    index: Index(11),
                    before: Position(9),
                    offset: 560,
                    left: 900
                };
                2
            ],
            configurations: Bytes::from_static(b"eleven byte"),
        };
        SegmentIndex {
            segment: 4,
            salt: Salt(11),
            next_sequence: 120,
            end: 9000,
            groups: vec![group],
        }
    }

    #[test]
    fn a_header_comes_back() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), SECTOR);
        assert_eq!(SegmentHeader::read(&bytes), Ok(header()));
    }

    #[test]
    fn a_damaged_header_is_none() {
        let mut one = header();
        one.groups.truncate(1);
        let bytes = one.encode();
        for n in 0..FIXED_BYTES + GROUP_BYTES {
            let mut flipped = bytes.to_vec();
            flipped[n] ^= 1;
            assert_eq!(
                SegmentHeader::read(&flipped),
                Err(SegmentError::Absent),
                "byte {n}"
            );
        }
        assert_eq!(SegmentHeader::read(&[0; SECTOR]), Err(SegmentError::Absent));
        assert_eq!(SegmentHeader::read(&bytes[..40]), Err(SegmentError::Absent));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode().to_vec();
        bytes[10] = 9;
        let sum = crc32c::crc32c(&bytes[SUMMED_FROM..FIXED_BYTES + GROUPS_MAX * GROUP_BYTES]);
        bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(
            SegmentHeader::read(&bytes),
            Err(SegmentError::Version { found: 9 })
        );
    }

    #[test]
    fn an_index_comes_back_and_a_damaged_one_does_not() {
        let bytes = index().encode(CLUSTER);
        assert_eq!(SegmentIndex::len_of(&bytes), Some(bytes.len() as u64));
        assert_eq!(SegmentIndex::read(CLUSTER, &bytes), Some(index()));
        assert_eq!(SegmentIndex::read(ClusterId(8), &bytes), None);
        for n in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[n] ^= 1;
            assert_eq!(SegmentIndex::read(CLUSTER, &flipped), None, "byte {n}");
            assert_eq!(SegmentIndex::read(CLUSTER, &bytes[n + 1..]), None);
        }
    }
}
