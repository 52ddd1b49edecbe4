//! Compaction on disk: segments that nobody needs any more are removed, the first one first.
//!
//! A segment is needed as long as a record after the base of its group stands in it, or no later one tells of
//! that base. Invariants: what says so is on disk before anything is removed; one segment is removed at a time,
//! durably, before the next, so that a crash leaves no gap; nothing here holds up a write.

use super::{Log, Purpose};
use crate::disk::{Disk, Op};
use crate::group::Group;
use crate::layout::{FOLDER, segment_name};

impl<D: Disk> Log<D> {
    /// Removes the first segment, if it is not needed and none is being removed.
    pub(super) fn sweep(&mut self) {
        let needed = self.groups.values().filter_map(Group::needed).min();
        let needed = needed.map_or(self.active.number, |n| n.min(self.active.number));
        if self.failed || self.removing || self.first >= needed {
            return;
        }
        self.removing = true;
        if let Some(close) = self.files.forget(self.first) {
            self.submit(close, Purpose::Close);
        }
        let name = segment_name(self.first);
        self.submit(Op::Remove { name }, Purpose::Remove);
    }

    /// The first segment has no name any more.
    pub(super) fn removed(&mut self) {
        let name = FOLDER.to_owned();
        self.submit(Op::SyncDirectory { name }, Purpose::Removed);
    }

    /// And never will again.
    pub(super) fn swept(&mut self) {
        self.first += 1;
        self.removing = false;
        self.sweep();
    }
}
