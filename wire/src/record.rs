//! Records: the unit of the replicated log, with the same bytes on every disk and wire.
//!
//! A record is a fixed header and a payload. The payload and its CRC-32C are made once, on the
//! client's thread ([`Payload`]); the header is made when index and term are known
//! ([`RunBuilder`]); from there nothing is encoded again. Invariants: the header stands under a
//! CRC of its own, seeded with the cluster's id, so that a record that stands in the wrong place
//! is seen, and a rotten payload does not hide which record it was.

use bytes::Bytes;

/// The entries of one append, encoded and summed, before index and term are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// One entry: its bytes. Several: the end offset of each (u32, little-endian), then all of them.
    pub bytes: Bytes,
    /// How many entries; at least one, except for an append that only checks its precondition.
    pub count: u32,
    /// CRC-32C of `bytes`.
    pub crc: u32,
    /// How each entry is encoded.
    pub codec: Codec,
}

/// How entries are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Codec {
    /// As they came.
    #[default]
    Bytes = 1,
    /// With postcard.
    Postcard = 2,
}
