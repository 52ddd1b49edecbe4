//! Snapshots as files: what is written beside the log and sent to followers, byte for byte the same.
//!
//! A header says what the snapshot covers and who made it; the state follows in pieces of any size up to
//! a limit; an end says how much there was. Invariants: every piece stands under a CRC that is begun with the
//! cluster's id, the header's CRC and its place in the row, so that a piece of another snapshot, or one left out or
//! moved, is never taken; the end covers the whole, so that a snapshot that was cut is none.

use crate::{ClusterId, Identity, decode_base, encode_base};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{Base, GroupId, Incarnation, NodeId};

/// The version of the format this program writes, and the newest it reads.
pub const SNAPSHOT_VERSION: u16 = 1;
/// Length of the fixed part of a header, in bytes: it says how long the whole header is.
pub const SNAPSHOT_FIXED_BYTES: usize = 64;
/// The longest header, in bytes: base and meta have room in it, with all that sessions may remember.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 1 << 30;
/// Length of what stands before each piece of the state, in bytes.
pub const PIECE_HEAD_BYTES: usize = 8;
/// The longest piece of the state, in bytes.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// Length of the end, in bytes.
pub const SNAPSHOT_END_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"KTKN";
const SUMMED_FROM: usize = 8;
/// Where a piece has its length, the end has this.
const END: u32 = u32::MAX;

/// How a snapshot begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHeader {
    /// Who made it.
    pub maker: Identity,
    /// Whose state.
    pub group: GroupId,
    /// What it covers.
    pub base: Base,
    /// What belongs to the state beside the machine's own: sessions, hashes, the leader's time. Opaque here.
    pub meta: Bytes,
}

/// Why bytes are not a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// They are not, or were damaged.
    #[error("its header is not sound")]
    Header,
    /// A newer program wrote it.
    #[error("its format is version {found}, and this program knows none after {SNAPSHOT_VERSION}")]
    Version {
        /// The version.
        found: u16,
    },
    /// A piece of the state is not what was written.
    #[error("piece {number} of its state is not sound")]
    Piece {
        /// Which, from 0.
        number: u64,
    },
    /// It was cut, or something was left out.
    #[error("its end does not fit what is before it")]
    End,
}

impl SnapshotHeader {
    /// Its bytes; a multiple of 8.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let base = encode_base(self.maker.cluster, self.group, &self.base);
        let length = (SNAPSHOT_FIXED_BYTES + base.len() + self.meta.len()).next_multiple_of(8);
        let mut out = BytesMut::with_capacity(length);
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(length as u32);
        out.put_u16_le(SNAPSHOT_VERSION);
        out.put_u16_le(0);
        out.put_u128_le(self.maker.cluster.0);
        out.put_u64_le(self.maker.node.0);
        out.put_u64_le(self.maker.incarnation.0);
        out.put_u32_le(self.group.0);
        out.put_u32_le(base.len() as u32);
        out.put_u32_le(self.meta.len() as u32);
        out.put_u32_le(0);
        out.put_slice(&base);
        out.put_slice(&self.meta);
        out.resize(length, 0);
        let sum = crc32c::crc32c(&out[SUMMED_FROM..]);
        out[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// How long the header is that begins with these bytes, at least [`SNAPSHOT_FIXED_BYTES`] of them; `None` if they are
    /// not the beginning of one.
    #[must_use]
    pub fn len_of(start: &[u8]) -> Option<usize> {
        let mut rest = start.get(..SNAPSHOT_FIXED_BYTES)?.strip_prefix(&MAGIC)?;
        rest.advance(4);
        let length = rest.get_u32_le() as usize;
        (SNAPSHOT_FIXED_BYTES..=SNAPSHOT_HEADER_BYTES_MAX)
            .contains(&length)
            .then_some(length)
    }

    /// The header at the beginning of `bytes`, and its CRC, which tells it from every other.
    ///
    /// # Errors
    /// If there is none, or one of a newer version.
    pub fn read(bytes: &Bytes) -> Result<(Self, u32), SnapshotError> {
        let length = Self::len_of(bytes).ok_or(SnapshotError::Header)?;
        let header = bytes.get(..length).ok_or(SnapshotError::Header)?;
        let mut rest = header.get(4..).unwrap_or_default();
        let sum = rest.get_u32_le();
        if sum != crc32c::crc32c(header.get(SUMMED_FROM..).unwrap_or_default()) {
            return Err(SnapshotError::Header);
        }
        rest.advance(4);
        let found = rest.get_u16_le();
        if found > SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found });
        }
        rest.advance(2);
        let maker = Identity {
            cluster: ClusterId(rest.get_u128_le()),
            node: NodeId(rest.get_u64_le()),
            incarnation: Incarnation(rest.get_u64_le()),
        };
        let group = GroupId(rest.get_u32_le());
        let (base_len, meta_len) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let (base_at, meta_at) = (SNAPSHOT_FIXED_BYTES, SNAPSHOT_FIXED_BYTES + base_len);
        if meta_at + meta_len > length {
            return Err(SnapshotError::Header);
        }
        let base = header.get(base_at..meta_at).unwrap_or_default();
        let this = Self {
            maker,
            group,
            base: decode_base(maker.cluster, group, base).ok_or(SnapshotError::Header)?,
            meta: bytes.slice(meta_at..meta_at + meta_len),
        };
        Ok((this, sum))
    }
}

/// What is known of the pieces so far: writes them, and checks them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pieces {
    cluster: ClusterId,
    /// The CRC of the header.
    header: u32,
    number: u64,
    bytes: u64,
    whole: u32,
}

impl Pieces {
    /// Before the first piece of the snapshot whose header has this CRC.
    #[must_use]
    pub fn new(cluster: ClusterId, header: u32) -> Self {
        let whole = crc32c::crc32c(&cluster.0.to_le_bytes());
        Self {
            cluster,
            header,
            number: 0,
            bytes: 0,
            whole,
        }
    }

    /// What stands before the next piece, which is `piece`: at most [`PIECE_BYTES_MAX`], not empty.
    pub fn head(&mut self, piece: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(PIECE_HEAD_BYTES);
        out.put_u32_le(piece.len() as u32);
        out.put_u32_le(self.sum(piece));
        self.count(piece);
        out.freeze()
    }

    /// What stands behind the last piece.
    #[must_use]
    pub fn end(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(SNAPSHOT_END_BYTES);
        out.put_u32_le(END);
        out.put_u32_le(0);
        out.put_u64_le(self.number);
        out.put_u64_le(self.bytes);
        out.put_u32_le(self.header);
        out.put_u32_le(self.whole);
        let sum = self.sum(&out[SUMMED_FROM..]);
        out[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// Takes a piece, or the end, off the beginning of `bytes`; `None` if more bytes are needed to tell.
    ///
    /// # Errors
    /// If it is neither.
    pub fn take(&mut self, bytes: &Bytes) -> Result<Option<Taken>, SnapshotError> {
        let Some(mut head) = bytes.get(..PIECE_HEAD_BYTES) else {
            return Ok(None);
        };
        let (length, sum) = (head.get_u32_le(), head.get_u32_le());
        if length == END {
            return match bytes.get(..SNAPSHOT_END_BYTES) {
                None => Ok(None),
                Some(end) if *end == *self.end() => Ok(Some(Taken::End)),
                Some(_) => Err(SnapshotError::End),
            };
        }
        let damaged = self.damaged();
        let length = length as usize;
        if length == 0 || length > PIECE_BYTES_MAX {
            return Err(damaged);
        }
        let Some(piece) = bytes.get(PIECE_HEAD_BYTES..PIECE_HEAD_BYTES + length) else {
            return Ok(None);
        };
        if sum != self.sum(piece) {
            return Err(damaged);
        }
        self.count(piece);
        Ok(Some(Taken::Piece(
            bytes.slice(PIECE_HEAD_BYTES..PIECE_HEAD_BYTES + length),
        )))
    }

    /// That the next piece is not sound.
    #[must_use]
    pub fn damaged(&self) -> SnapshotError {
        SnapshotError::Piece { number: self.number }
    }

    fn count(&mut self, piece: &[u8]) {
        self.number += 1;
        self.bytes += piece.len() as u64;
        self.whole = crc32c::crc32c_append(self.whole, piece);
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        let seed = crc32c::crc32c(&self.cluster.0.to_le_bytes());
        let seed = crc32c::crc32c_append(seed, &self.header.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(seed, &self.number.to_le_bytes()), bytes)
    }
}

/// What [`Pieces::take`] has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// A piece of the state; it takes [`PIECE_HEAD_BYTES`] more in the file.
    Piece(Bytes),
    /// The end: the snapshot is whole.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_consensus::{Configuration, Index, LogId, Position, Term};
    use std::sync::Arc;

    fn header() -> SnapshotHeader {
        SnapshotHeader {
            maker: Identity {
                cluster: ClusterId(7),
                node: NodeId(2),
                incarnation: Incarnation(33),
            },
            group: GroupId(0),
            base: Base {
                last: LogId::new(Term(5), Index(60)),
                position: Position(41),
                configuration: Arc::new(Configuration::of_voters([1, 2, 3].map(NodeId))),
            },
            meta: Bytes::from_static(b"sessions"),
        }
    }

    fn whole(pieces: &[&[u8]]) -> Vec<u8> {
        let header = header().encode();
        let (_, sum) = SnapshotHeader::read(&header).expect("sound");
        let mut row = Pieces::new(ClusterId(7), sum);
        let mut out = header.to_vec();
        for piece in pieces {
            out.extend_from_slice(&row.head(piece));
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(&row.end());
        out
    }

    /// The state, if the snapshot is whole and nothing follows.
    fn read(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let (found, sum) = SnapshotHeader::read(&rest).ok()?;
        assert_eq!(found, header());
        rest.advance(SnapshotHeader::len_of(&rest)?);
        let mut row = Pieces::new(ClusterId(7), sum);
        let mut state = Vec::new();
        loop {
            match row.take(&rest).ok()?? {
                Taken::Piece(piece) => {
                    rest.advance(PIECE_HEAD_BYTES + piece.len());
                    state.extend_from_slice(&piece);
                }
                Taken::End => return (rest.len() == SNAPSHOT_END_BYTES).then_some(state),
            }
        }
    }

    #[test]
    fn a_snapshot_comes_back() {
        assert_eq!(read(&whole(&[])), Some(vec![]));
        assert_eq!(read(&whole(&[b"one", b"two"])), Some(b"onetwo".to_vec()));
    }

    #[test]
    fn a_damaged_or_cut_one_does_not() {
        let bytes = whole(&[b"one", b"two", b"three"]);
        for n in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[n] ^= 1;
            assert_eq!(read(&flipped), None, "byte {n}");
            assert_eq!(read(&bytes[..n]), None, "{n} bytes");
        }
    }

    #[test]
    fn pieces_of_another_or_at_another_place_are_not_taken() {
        let header = header().encode();
        let (_, sum) = SnapshotHeader::read(&header).expect("sound");
        let mut row = Pieces::new(ClusterId(7), sum);
        let first: Bytes = [row.head(b"one"), Bytes::from_static(b"one")].concat().into();
        for (cluster, sum) in [(ClusterId(8), sum), (ClusterId(7), sum ^ 1)] {
            assert!(Pieces::new(cluster, sum).take(&first).is_err());
        }
        assert!(
            row.take(&first).is_err(),
            "it was the first, and is not the second"
        );
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode().to_vec();
        bytes[12] = 9;
        let sum = crc32c::crc32c(&bytes[SUMMED_FROM..]);
        bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        let found = SnapshotHeader::read(&bytes.into());
        assert_eq!(found, Err(SnapshotError::Version { found: 9 }));
    }
}
