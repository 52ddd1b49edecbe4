//! A record of which one bit was turned: that is no write that was torn, for of such a one whole pieces are missing.
//!
//! Where it was written over zeros, a missing piece is zeros: so the byte with the bit must not be zero, or it might be a piece that
//! had this bit alone.

use super::RecordHeader;
use crate::ClusterId;

/// What a byte does to a CRC-32C, by its value.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ 0x82f6_3b78
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// Whether a record that is not sound begins `bytes`, and is one but for a single bit of its header or its payload. Takes time
/// in proportion to its length.
#[must_use]
pub fn is_one_bit_off(cluster: ClusterId, bytes: &[u8]) -> bool {
    match RecordHeader::read(cluster, bytes) {
        Ok(header) => bytes
            .get(usize::from(header.header_len)..header.record_len())
            .is_some_and(|payload| is_payload_one_bit_off(payload, header.payload_crc)),
        Err(_) => bytes
            .get(..RecordHeader::BYTES)
            .is_some_and(|header| is_header_one_bit_off(cluster, header)),
    }
}

fn is_header_one_bit_off(cluster: ClusterId, header: &[u8]) -> bool {
    let mut turned = header.to_vec();
    (0..header.len() * 8).any(|bit| {
        let turn = |bytes: &mut Vec<u8>| {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        };
        if header.get(bit / 8) == Some(&0) {
            return false;
        }
        turn(&mut turned);
        let sound = RecordHeader::read(cluster, &turned).is_ok();
        turn(&mut turned);
        sound
    })
}

/// A turned bit changes the sum by as much, whatever the other bits are: it depends on how many bytes follow it alone.
fn is_payload_one_bit_off(payload: &[u8], wanted: u32) -> bool {
    let entry = |byte: u32| TABLE.get((byte & 0xff) as usize).copied().unwrap_or_default();
    let change = crc32c::crc32c(payload) ^ wanted;
    let mut changes: [u32; 8] = std::array::from_fn(|bit| entry(1 << bit));
    payload.iter().rev().any(|byte| {
        let found = *byte != 0 && changes.contains(&change);
        for sum in &mut changes {
            *sum = (*sum >> 8) ^ entry(*sum);
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RunBuilder, encode_run};
    use crate::{Codec, Payload, Session, Stamp};
    use kontiki_consensus::{Admission, GroupId, Index, Position, Term};

    const CLUSTER: ClusterId = ClusterId(7);

    fn record() -> Vec<u8> {
        let at = Admission {
            index: Index(2),
            term: Term(1),
            position: Position(1),
        };
        let mut builder = RunBuilder::new(CLUSTER, GroupId(0), at);
        let payload = Payload::one(vec![0x5a; 300].into(), Codec::Bytes);
        builder
            .push(&payload, Stamp::default(), Session::None)
            .expect("room");
        let mut out = Vec::new();
        encode_run(CLUSTER, GroupId(0), &builder.finish().expect("records"), &mut out);
        out.concat()
    }

    #[test]
    fn each_single_bit_is_found_and_no_more_than_one() {
        let sound = record();
        assert!(!is_one_bit_off(CLUSTER, &sound));
        for bit in 0..sound.len() * 8 {
            let mut one = sound.clone();
            one[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(is_one_bit_off(CLUSTER, &one), one[bit / 8] != 0, "bit {bit}");
            let mut more = one.clone();
            let other = (bit + 11) % (sound.len() * 8);
            more[other / 8] ^= 1 << (other % 8);
            let apart = (bit / 8 < RecordHeader::BYTES) != (other / 8 < RecordHeader::BYTES);
            assert!(apart || !is_one_bit_off(CLUSTER, &more), "bits {bit} and {other}");
        }
    }

    #[test]
    fn a_record_that_lacks_a_piece_is_not_one_bit_off() {
        let sound = record();
        for from in 0..sound.len() - 2 {
            let mut torn = sound.clone();
            torn[from..].fill(0);
            assert!(!is_one_bit_off(CLUSTER, &torn), "from {from}");
            assert!(!is_one_bit_off(CLUSTER, &sound[..from]), "{from} bytes");
        }
    }
}
