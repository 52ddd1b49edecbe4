//! Compaction on disk: segments that nobody needs any more are removed, the first one first.
//!
//! A segment is needed as long as a record after the base of its group stands in it, or no later one tells of
//! that base. Invariants: what says so is on disk before anything is removed; one segment is removed at a time,
//! durably, before the next, so that a crash leaves no gap; a file is closed before it loses its name, so that
//! its room is freed by the removal, which no write waits for.

use super::{Log, Purpose};
use crate::disk::{Disk, DiskError, Done, Op};
use crate::group::Group;
use crate::layout::{FOLDER, segment_name};

/// What is being done to the first segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sweep {
    Close,
    Remove,
    Sync,
}

impl<D: Disk> Log<D> {
    /// Removes the first segment, if it is not needed and none is being removed.
    pub(super) fn sweep(&mut self) {
        let needed = self.groups.values().filter_map(Group::needed).min();
        let needed = needed.map_or(self.active.number, |n| n.min(self.active.number));
        if self.failed || self.removing || self.first >= needed {
            return;
        }
        self.removing = true;
        match self.files.forget(self.first) {
            Some(close) => self.submit(close, Purpose::Sweep(Sweep::Close)),
            None => self.remove_first(),
        }
    }

    fn remove_first(&mut self) {
        let name = segment_name(self.first);
        self.submit(Op::Remove { name }, Purpose::Sweep(Sweep::Remove));
    }

    /// A step is done, or failed.
    pub(super) fn swept(&mut self, step: Sweep, result: Result<Done, DiskError>) {
        match (step, result) {
            (_, Err(error)) => self.fail(error.into()),
            (Sweep::Close, Ok(_)) => self.remove_first(),
            (Sweep::Remove, Ok(_)) => {
                let name = FOLDER.to_owned();
                self.submit(Op::SyncDirectory { name }, Purpose::Sweep(Sweep::Sync));
            }
            (Sweep::Sync, Ok(_)) => {
                self.first += 1;
                self.removing = false;
                self.sweep();
            }
        }
    }
}
