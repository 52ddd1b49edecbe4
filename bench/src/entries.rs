//! Entries whose loss, doubling or reordering shows: each names its client and its number among that client's.
//!
//! A client appends one after the other, so that in every log a client's entries stand in the order of their
//! numbers, without a gap, from the first entry that the log still has.

use crate::Failed;
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher},
};

/// Smallest entry that can be told apart.
pub(crate) const ENTRY_BYTES_MIN: usize = 8;

/// The entry of a client.
pub(crate) fn entry(client: u32, number: u32, bytes: usize) -> Bytes {
    let mut entry = BytesMut::with_capacity(bytes);
    entry.put_u32_le(client);
    entry.put_u32_le(number);
    entry.put_bytes(b'.', bytes.saturating_sub(ENTRY_BYTES_MIN));
    entry.freeze()
}

/// What a log holds, entry by entry.
#[derive(Default)]
pub(crate) struct Proof {
    next: HashMap<u32, u32>,
    hasher: DefaultHasher,
    entries: u64,
    /// Whether the log has forgotten its beginning.
    trimmed: bool,
}

impl Proof {
    /// Of a log whose first entry is this one.
    pub(crate) fn of_log_from(first: u64) -> Self {
        Self {
            trimmed: first > 1,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, entry: &[u8]) -> Result<(), Failed> {
        let Some((client, rest)) = entry.split_first_chunk::<4>() else {
            return Err("an entry that nobody appended".into());
        };
        let Some((number, _)) = rest.split_first_chunk::<4>() else {
            return Err("an entry that nobody appended".into());
        };
        let (client, number) = (u32::from_le_bytes(*client), u32::from_le_bytes(*number));
        let first = if self.trimmed { number } else { 0 };
        let next = self.next.entry(client).or_insert(first);
        if *next != number {
            return Err(format!("client {client}'s entry {number} stands where {next} should").into());
        }
        *next += 1;
        self.hasher.write_usize(entry.len());
        self.hasher.write(entry);
        self.entries += 1;
        Ok(())
    }

    /// How many entries, and a hash over all of them in their order.
    pub(crate) fn finish(&self) -> (u64, u64) {
        (self.entries, self.hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(entries: &[(u32, u32)], trimmed: bool) -> Result<(u64, u64), String> {
        let mut proof = Proof {
            trimmed,
            ..Proof::default()
        };
        for (client, number) in entries {
            proof
                .add(&entry(*client, *number, 16))
                .map_err(|e| e.to_string())?;
        }
        Ok(proof.finish())
    }

    #[test]
    fn what_is_lost_doubled_or_swapped_is_found() {
        assert!(proof(&[(1, 0), (2, 0), (1, 1)], false).is_ok());
        assert!(proof(&[(1, 0), (2, 0), (1, 2)], false).is_err());
        assert!(proof(&[(1, 0), (1, 0)], false).is_err());
        assert!(proof(&[(1, 1), (1, 0)], false).is_err());
        assert!(proof(&[(1, 1)], false).is_err());
        assert!(proof(&[(1, 1)], true).is_ok());
        assert!(proof(&[(1, 1), (1, 3)], true).is_err());
    }

    #[test]
    fn logs_with_the_same_entries_in_another_order_differ() {
        assert_ne!(proof(&[(1, 0), (2, 0)], false), proof(&[(2, 0), (1, 0)], false));
        assert!(Proof::default().add(b"short").is_err());
    }
}
