//! The entries that are appended, and the check that a log holds exactly these, in order.

use std::hash::{DefaultHasher, Hasher};

/// Gives entry after entry: its number, then a pattern. Making one costs eight bytes written.
pub(crate) struct Source {
    next: u64,
    entry: Vec<u8>,
}

impl Source {
    /// Entries of `len` bytes, at least eight.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            next: 0,
            entry: (0..len.max(8)).map(|n| n as u8).collect(),
        }
    }

    pub(crate) fn entry_len(&self) -> usize {
        self.entry.len()
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        self.entry[..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        &self.entry
    }
}

/// A hash over entries and their order.
#[derive(Default)]
pub(crate) struct Fingerprint {
    hasher: DefaultHasher,
    pub(crate) entries: u64,
}

impl Fingerprint {
    pub(crate) fn add(&mut self, entry: &[u8]) {
        self.hasher.write_usize(entry.len());
        self.hasher.write(entry);
        self.entries += 1;
    }

    pub(crate) fn value(&self) -> u64 {
        self.hasher.finish()
    }
}
