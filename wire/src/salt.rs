//! What a client cannot know of a segment: a number drawn by chance when the segment begins.
//!
//! Bytes that a client chose stand in the files of the log, and a file that is used again holds them behind its new
//! frames, or where a frame did not arrive. They could be the bytes of a frame of ours: a client may know everything else
//! that such a frame says. Invariants: a salt is drawn before anything of its segment is written, and leaves the
//! data directory in no message, answer, text or log line; a frame or index without the salt of its segment is none; a frame
//! says which records and base blocks it was written with ([`BodySum`]), so that no sound one that stood there before is
//! taken for them.

use std::fmt;

/// The salt of a segment. Its `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Salt(pub u64);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// How many checksums are summed at once.
const HELD_MAX: usize = 64;
/// Where a record's header has its length and that of its payload.
const HEADER_LEN: usize = 4;
const PAYLOAD_LEN: usize = 8;

/// A sum over the checksums that all base blocks and records in the body of a frame begin with, in their order, begun with the
/// salt. It binds the body to the frame for four bytes a record, where the bytes have checksums of their own.
#[derive(Clone, Debug)]
pub struct BodySum {
    sum: u32,
    held: [u8; HELD_MAX * 4],
    length: usize,
}

impl BodySum {
    /// Of an empty body.
    #[must_use]
    pub fn new(salt: Salt) -> Self {
        Self {
            sum: crc32c::crc32c(&salt.0.to_le_bytes()),
            held: [0; HELD_MAX * 4],
            length: 0,
        }
    }

    /// Adds the block of a base.
    pub fn add_base(&mut self, block: &[u8]) {
        if let Some(sum) = block.first_chunk() {
            self.add(*sum);
        }
    }

    /// Adds records that stand one behind the other, as far as they are whole.
    pub fn add_records(&mut self, mut bytes: &[u8]) {
        while let Some((sum, length)) = first_record(bytes) {
            self.add(sum);
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> u32 {
        self.flush();
        self.sum
    }

    fn add(&mut self, sum: [u8; 4]) {
        if self.length == self.held.len() {
            self.flush();
        }
        if let Some(place) = self.held.get_mut(self.length..self.length + 4) {
            place.copy_from_slice(&sum);
            self.length += 4;
        }
    }

    fn flush(&mut self) {
        let held = self.held.get(..self.length).unwrap_or_default();
        self.sum = crc32c::crc32c_append(self.sum, held);
        self.length = 0;
    }
}

/// The checksum that a record begins with, and the record's length; `None` if it is not whole.
fn first_record(bytes: &[u8]) -> Option<([u8; 4], usize)> {
    let sum = *bytes.first_chunk()?;
    let header = u16::from_le_bytes(*bytes.get(HEADER_LEN..)?.first_chunk()?) as usize;
    let payload = u32::from_le_bytes(*bytes.get(PAYLOAD_LEN..)?.first_chunk()?) as usize;
    let length = header + payload;
    (header > PAYLOAD_LEN && length <= bytes.len()).then_some((sum, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordHeader, RunBuilder, encode_run};
    use crate::{ClusterId, Codec, Payload, Session, Stamp};
    use kontiki_consensus::{Admission, GroupId, Index, Position, Term};

    const CLUSTER: ClusterId = ClusterId(7);
    const GROUP: GroupId = GroupId(0);

    fn records(entries: &[&'static [u8]]) -> Vec<u8> {
        let at = Admission {
            index: Index(2),
            term: Term(1),
            position: Position(1),
        };
        let mut builder = RunBuilder::new(CLUSTER, GROUP, at);
        for entry in entries {
            let payload = Payload::one((*entry).into(), Codec::Bytes);
            builder
                .push(&payload, Stamp::default(), Session::None)
                .expect("room");
        }
        let mut out = Vec::new();
        encode_run(CLUSTER, GROUP, &builder.finish().expect("records"), &mut out);
        out.concat()
    }

    fn sum(salt: u64, parts: &[&[u8]]) -> u32 {
        let mut sum = BodySum::new(Salt(salt));
        parts.iter().for_each(|part| sum.add_records(part));
        sum.finish()
    }

    #[test]
    fn a_sum_knows_each_record_and_the_salt() {
        let entries: Vec<&'static [u8]> = vec![b"one entry"; HELD_MAX + 3];
        let all = records(&entries);
        let length = RecordHeader::BYTES + 9;
        assert_eq!(all.len(), entries.len() * length);
        let right = sum(1, &[&all]);
        assert_eq!(sum(1, &[&all[..length * 5], &all[length * 5..]]), right);
        assert_ne!(sum(2, &[&all]), right);
        for n in 0..entries.len() {
            let mut other = entries.clone();
            other[n] = b"one ENTRY";
            assert_ne!(sum(1, &[&records(&other)]), right, "record {n}");
        }
        assert_ne!(sum(1, &[&all[length..]]), right);
        assert_eq!(sum(1, &[&all[..length + 5]]), sum(1, &[&all[..length]]));
    }

    #[test]
    fn a_salt_is_not_shown() {
        assert_eq!(format!("{:?}", Salt(77)), "Salt(..)");
    }
}
