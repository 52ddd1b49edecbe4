//! Open segments: opened when a read needs one, and not too many at a time.
//!
//! Invariant: a file is closed only while no read of it is under way, and never while it is written to. One that is
//! removed is closed at once: the disk finishes the reads before, and nobody wants them any more.

use crate::disk::{FileId, Op};
use std::collections::BTreeMap;

/// How many files are kept open.
const OPEN_MAX: usize = 64;
/// How many full segments stay in the system's memory, for followers and readers that are a little behind.
const WARM: u64 = 2;

#[derive(Debug)]
struct Open {
    file: FileId,
    reads: u32,
    used: u64,
}

/// The open ones.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: BTreeMap<u64, Open>,
    /// The segment that is written to.
    written: u64,
    clock: u64,
}

impl Files {
    /// A segment begins to be written to; the one before it no longer is.
    pub(crate) fn begin(&mut self, segment: u64, file: FileId) -> Vec<Op> {
        self.written = segment;
        self.add(segment, file)
    }

    /// A file was opened; gives operations that close others which have not been used for long.
    pub(crate) fn add(&mut self, segment: u64, file: FileId) -> Vec<Op> {
        self.clock += 1;
        let before = self.open.insert(
            segment,
            Open {
                file,
                reads: 0,
                used: self.clock,
            },
        );
        let mut closes: Vec<Op> = before.map(|o| Op::Close { file: o.file }).into_iter().collect();
        while self.open.len() > OPEN_MAX {
            let idle = self
                .open
                .iter()
                .filter(|(n, o)| o.reads == 0 && **n != segment && **n != self.written);
            let Some(oldest) = idle.min_by_key(|(_, o)| o.used).map(|(n, _)| *n) else {
                break;
            };
            closes.extend(self.open.remove(&oldest).map(|o| Op::Close { file: o.file }));
        }
        closes
    }

    /// The file that has just become too old to be read again soon, if it is open: it is asked for once for each segment.
    pub(crate) fn cold(&self) -> Option<FileId> {
        let segment = self.written.checked_sub(WARM + 1)?;
        self.open.get(&segment).map(|open| open.file)
    }

    /// Gives operations that close all but the one that is written to and those that are being read: there are no descriptors.
    pub(crate) fn close_idle(&mut self) -> Vec<Op> {
        let written = self.written;
        let idle = |n: &u64, open: &mut Open| open.reads == 0 && *n != written;
        self.open
            .extract_if(.., idle)
            .map(|(_, open)| Op::Close { file: open.file })
            .collect()
    }

    /// A segment is removed; gives the operation that closes it, if it is open.
    pub(crate) fn forget(&mut self, segment: u64) -> Option<Op> {
        self.open.remove(&segment).map(|o| Op::Close { file: o.file })
    }

    /// A read of it begins, if it is open.
    pub(crate) fn begin_read(&mut self, segment: u64) -> Option<FileId> {
        self.clock += 1;
        let open = self.open.get_mut(&segment)?;
        open.reads += 1;
        open.used = self.clock;
        Some(open.file)
    }

    /// A read of it has ended.
    pub(crate) fn end_read(&mut self, segment: u64) {
        if let Some(open) = self.open.get_mut(&segment) {
            open.reads = open.reads.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_cold_when_others_are_full_behind_it() {
        let mut files = Files::default();
        let cold: Vec<Option<FileId>> = (1..=5)
            .map(|segment| {
                files.begin(segment, FileId(10 + segment as u32));
                files.cold()
            })
            .collect();
        assert_eq!(cold, [None, None, None, Some(FileId(11)), Some(FileId(12))]);
        files.forget(3);
        files.begin(6, FileId(16));
        assert_eq!(files.cold(), None, "it is gone");
    }
}
