//! Packets as bytes: the peer protocol, format 1 (`docs/FORMAT.md`, "Peer protocol").
//!
//! A packet is a header, a body and data: the header says how long each is, the body is a row of 64-bit
//! words, and the data are records or entries exactly as they stand on disk. Invariants: no length is
//! believed before it is checked, and nothing is allocated on a peer's word; a CRC over header and body,
//! seeded with the cluster's id, so that a packet of another cluster is never taken; longer headers and
//! bodies are read as far as they are known, flags that must be understood and are not are refused.

mod body;
mod words;

use crate::{ClusterId, Packet, PeerMessage, StartId, record::RecordError};
use body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{GroupId, Message, NodeId};

/// The first bytes of every packet.
const MAGIC: [u8; 4] = *b"KTKP";
/// Length of a header of format 1.
const HEADER_BYTES: usize = 48;
/// Where the checksummed part begins.
const SUMMED_FROM: usize = 8;
/// How many bytes tell the length of a packet.
const LENGTH_KNOWN_BYTES: usize = 12;
/// Flags that a reader must understand; it may ignore the others.
const REQUIRED_FLAGS: u16 = 0x00ff;

/// The largest packet a node takes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PacketBytesMax(pub u32);

impl Default for PacketBytesMax {
    /// Twice the largest batch of entries a client may append by default.
    fn default() -> Self {
        Self(8 << 20)
    }
}

/// Why bytes are not a packet for this node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends too early, or goes on after its end.
    #[error("a packet of {has} bytes says that it has {says}")]
    Length {
        /// What it says.
        says: usize,
        /// What there is.
        has: usize,
    },
    /// It does not begin like a packet.
    #[error("bytes that are not a packet: its magic is missing")]
    Magic,
    /// It is larger than this node takes.
    #[error(
        "a packet of {bytes} bytes is above the limit of {bytes_max}: \
         are the size limits equal in every node's configuration?"
    )]
    TooLarge {
        /// Its length.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// The parts do not fit into the whole.
    #[error(
        "a packet whose header ({header} bytes) and body ({body} bytes) do not fit into its {total} bytes"
    )]
    Parts {
        /// Length of its header.
        header: usize,
        /// Length of its body.
        body: usize,
        /// Length of the whole.
        total: usize,
    },
    /// The checksum is wrong.
    #[error("a packet whose checksum is wrong: it was damaged, or it is from another cluster")]
    Checksum,
    /// A kind of message this version does not know.
    #[error("a message of kind {0}, which this version does not know: is the sender newer?")]
    Kind(u16),
    /// A flag that must be understood and is not.
    #[error(
        "a message of kind {kind} with flags {flags:#06x}, which this version does not know: is the sender newer?"
    )]
    Flags {
        /// The kind of message.
        kind: u16,
        /// All its flags.
        flags: u16,
    },
    /// A word is missing, or has a value it cannot have.
    #[error("a message of kind {kind} whose field `{field}` is missing or impossible")]
    Field {
        /// The kind of message.
        kind: u16,
        /// The field.
        field: &'static str,
    },
    /// The records it carries are not sound.
    #[error("the records of an AppendEntries: {0}")]
    Records(#[from] RecordError),
}

/// Appends the bytes of a packet to `out`, without copying records or entries.
///
/// The envelope names sender and receiver; the same names within a Raft message are not sent.
/// A packet above 4 GiB is written with a length that every reader refuses.
pub fn encode(cluster: ClusterId, packet: &Packet, out: &mut Vec<Bytes>) {
    let body = Body::of(&packet.message);
    let head_at = out.len();
    out.push(Bytes::new());
    body::encode_data(cluster, packet, out);
    let data: usize = out[head_at..].iter().map(Bytes::len).sum();
    out[head_at] = encode_head(cluster, packet, &body, data);
}

/// Header and body of a packet with so many bytes of data.
fn encode_head(cluster: ClusterId, packet: &Packet, body: &Body, data: usize) -> Bytes {
    let words = body.words();
    let head = HEADER_BYTES + words.len() * 8;
    let mut buf = BytesMut::with_capacity(head);
    buf.put_slice(&MAGIC);
    buf.put_u32_le(0);
    buf.put_u32_le(u32::try_from(head + data).unwrap_or(u32::MAX));
    buf.put_u16_le(HEADER_BYTES as u16);
    buf.put_u16_le((words.len() * 8) as u16);
    buf.put_u16_le(body.kind);
    buf.put_u16_le(body.flags);
    buf.put_u32_le(packet.group.0);
    buf.put_u64_le(packet.from.0);
    buf.put_u64_le(packet.start.0);
    buf.put_u64_le(packet.to.0);
    for word in words {
        buf.put_u64_le(*word);
    }
    let sum = checksum(cluster, &buf[SUMMED_FROM..]);
    buf[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    buf.freeze()
}

/// How long the packet is that begins with `start`; `None` while too little of it is there to tell.
///
/// # Errors
/// If it is no packet or one above the limit. Nothing need be allocated to know.
pub fn packet_len(start: &[u8], bytes_max: PacketBytesMax) -> Result<Option<usize>, DecodeError> {
    let magic = start.len().min(MAGIC.len());
    if start[..magic] != MAGIC[..magic] {
        return Err(DecodeError::Magic);
    }
    if start.len() < LENGTH_KNOWN_BYTES {
        return Ok(None);
    }
    let bytes = (&start[8..]).get_u32_le();
    if bytes > bytes_max.0 {
        return Err(DecodeError::TooLarge {
            bytes,
            bytes_max: bytes_max.0,
        });
    }
    if (bytes as usize) < HEADER_BYTES {
        return Err(DecodeError::Length {
            says: bytes as usize,
            has: HEADER_BYTES,
        });
    }
    Ok(Some(bytes as usize))
}

/// A packet from exactly its bytes. Records and entries stay where they are: they share its memory.
///
/// # Errors
/// If it is not a sound packet of this cluster, or says something this version does not understand.
pub fn decode(cluster: ClusterId, bytes: Bytes) -> Result<Packet, DecodeError> {
    let header = Header::read(cluster, &bytes)?;
    let known = body::known_flags(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    if header.flags & REQUIRED_FLAGS & !known != 0 {
        return Err(DecodeError::Flags {
            kind: header.kind,
            flags: header.flags,
        });
    }
    let message = body::decode(cluster, &header, &bytes)?;
    Ok(Packet {
        group: header.group,
        from: header.from,
        start: header.start,
        to: header.to,
        message,
    })
}

/// What stands in the header of a packet.
struct Header {
    kind: u16,
    flags: u16,
    group: GroupId,
    from: NodeId,
    start: StartId,
    to: NodeId,
    /// Where the body begins and the data do.
    body_from: usize,
    data_from: usize,
}

impl Header {
    fn read(cluster: ClusterId, bytes: &Bytes) -> Result<Self, DecodeError> {
        let says = packet_len(bytes, PacketBytesMax(u32::MAX))?.unwrap_or(HEADER_BYTES);
        if says != bytes.len() {
            return Err(DecodeError::Length {
                says,
                has: bytes.len(),
            });
        }
        let mut fields = &bytes[LENGTH_KNOWN_BYTES..HEADER_BYTES];
        let (header, body) = (fields.get_u16_le().into(), fields.get_u16_le().into());
        if header < HEADER_BYTES || header + body > says {
            return Err(DecodeError::Parts {
                header,
                body,
                total: says,
            });
        }
        let sum = (&bytes[4..]).get_u32_le();
        if sum != checksum(cluster, &bytes[SUMMED_FROM..header + body]) {
            return Err(DecodeError::Checksum);
        }
        Ok(Self {
            kind: fields.get_u16_le(),
            flags: fields.get_u16_le(),
            group: GroupId(fields.get_u32_le()),
            from: NodeId(fields.get_u64_le()),
            start: StartId(fields.get_u64_le()),
            to: NodeId(fields.get_u64_le()),
            body_from: header,
            data_from: header + body,
        })
    }

    /// The Raft message of this envelope.
    fn raft(&self, term: kontiki_consensus::Term, call: kontiki_consensus::Call) -> PeerMessage {
        PeerMessage::Raft(Message {
            from: self.from,
            to: self.to,
            term,
            call,
        })
    }
}

/// CRC-32C of header and body, begun with the cluster's id.
fn checksum(cluster: ClusterId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&cluster.0.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests;
