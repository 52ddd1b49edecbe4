//! What a file holds: what a reader sees, and what a loss of power leaves of it.
//!
//! The page cache is modelled by two copies: `seen` is what reads return, `durable` what is on the
//! platter. A write changes `seen` and is remembered until a sync carries it over. Invariant: the two
//! differ at most where a remembered write has been. A sync that fails forgets what it should have
//! carried over: the next one succeeds without it, as on Linux. A device writes whole sectors, each at once and
//! in any order: after a loss of power every sector holds what it held at some moment since the last
//! sync, one sector independently of the next. The length of a file that grows is one thing more of that kind:
//! a loss of power leaves any length it had, with zeros where the content is lost.

use super::Severity;
use crate::random::Random;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a device writes at once.
const SECTOR: u64 = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// A write may make it longer.
    grows: bool,
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(u64, Bytes)>,
    /// What a failed sync has given up.
    abandoned: Vec<(u64, Bytes)>,
}

impl Inode {
    /// A file of zeros, on the platter already.
    pub(super) fn zeros(bytes: u64, grows: bool) -> Self {
        let zeros = vec![0; bytes as usize];
        Self {
            grows,
            seen: zeros.clone(),
            durable: zeros,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    pub(super) fn has_unsynced(&self) -> bool {
        !(self.unsynced.is_empty() && self.abandoned.is_empty())
    }

    pub(super) fn read(&self, offset: u64, bytes: u64) -> Bytes {
        let start = offset.min(self.len());
        let end = offset.saturating_add(bytes).min(self.len());
        Bytes::copy_from_slice(&self.seen[start as usize..end as usize])
    }

    /// Writes buffers one behind the other. False, and nothing done, if they do not fit into the file and it does
    /// not grow, or there would be a gap.
    pub(super) fn write(&mut self, offset: u64, buffers: &[Bytes]) -> bool {
        let total: u64 = buffers.iter().map(|b| b.len() as u64).sum();
        let room = |end: &u64| *end <= self.len() || (self.grows && offset <= self.len());
        let Some(end) = offset.checked_add(total).filter(room) else {
            return false;
        };
        self.seen.resize(self.seen.len().max(end as usize), 0);
        let mut at = offset;
        for buffer in buffers.iter().filter(|b| !b.is_empty()) {
            put(&mut self.seen, at, buffer);
            self.unsynced.push((at, buffer.clone()));
            at += buffer.len() as u64;
        }
        true
    }

    /// Carries everything over to the platter.
    pub(super) fn sync(&mut self) {
        for (at, bytes) in self.unsynced.drain(..) {
            let end = at as usize + bytes.len();
            self.durable.resize(self.durable.len().max(end), 0);
            put(&mut self.durable, at, &bytes);
        }
    }

    /// A sync fails: what it should have carried over stays in the page cache and never gets further.
    pub(super) fn fail_sync(&mut self) {
        self.abandoned.append(&mut self.unsynced);
    }

    /// The power fails. Returns whether a write was torn: some of it is there and some is not.
    pub(super) fn lose_power(&mut self, severity: Severity, random: &mut Random) -> bool {
        let kept = match severity {
            Severity::LoseAll => 0,
            Severity::KeepAll => {
                self.sync();
                0
            }
            Severity::Torn => self.tear(random),
        };
        let torn = kept > 0 && self.seen != self.durable;
        self.seen.resize(self.durable.len(), 0);
        for (at, bytes) in self.unsynced.drain(..).chain(self.abandoned.drain(..)) {
            let end = (at as usize + bytes.len()).min(self.durable.len());
            let range = (at as usize).min(end)..end;
            self.seen[range.clone()].copy_from_slice(&self.durable[range]);
        }
        torn
    }

    /// Gives every sector the content it had after one of the writes that touched it, or before all of them.
    fn tear(&mut self, random: &mut Random) -> usize {
        let more = self.seen.len().saturating_sub(self.durable.len()) as u64;
        if more > 0 {
            let length = self.durable.len() + random.below(more + 1) as usize;
            self.durable.resize(length, 0);
        }
        let mut touched: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (n, (at, bytes)) in self.unsynced.iter().enumerate() {
            for sector in at / SECTOR..(at + bytes.len() as u64).div_ceil(SECTOR) {
                touched.entry(sector).or_default().push(n);
            }
        }
        let mut kept = 0;
        for (sector, writes) in touched {
            let survive = random.place(writes.len() + 1);
            kept += usize::from(survive > 0);
            for n in &writes[..survive] {
                let (at, bytes) = &self.unsynced[*n];
                put_sector(&mut self.durable, *at, bytes, sector);
            }
        }
        kept
    }

    /// Flips a bit of a byte that is not zero, if there is one; gives where.
    pub(super) fn rot(&mut self, random: &mut Random) -> Option<u64> {
        let used: Vec<usize> = (0..self.durable.len())
            .filter(|at| self.durable[*at] != 0)
            .collect();
        let at = *random.pick(&used)?;
        self.durable[at] ^= 1 << random.below(8);
        self.seen[at] = self.durable[at];
        Some(at as u64)
    }

    /// What a loss of power with everything unsynced lost would leave.
    pub(super) fn platter(&self) -> Self {
        Self {
            grows: self.grows,
            seen: self.durable.clone(),
            durable: self.durable.clone(),
            ..Self::default()
        }
    }
}

fn put(content: &mut [u8], at: u64, bytes: &[u8]) {
    content[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
}

/// The part of a write that falls into one sector.
fn put_sector(content: &mut [u8], at: u64, bytes: &[u8], sector: u64) {
    let start = at.max(sector * SECTOR);
    let end = (at + bytes.len() as u64)
        .min((sector + 1) * SECTOR)
        .min(content.len() as u64);
    if start >= end {
        return;
    }
    put(content, start, &bytes[(start - at) as usize..(end - at) as usize]);
}
