//! Compaction on disk: segments that nobody needs any more become spares or are removed, the first one first.
//!
//! A segment is needed as long as a record after the base of its group stands in it, or no later one tells of
//! that base. Invariants: what says so is on disk before anything is done to it, and so is its index, which must not
//! get into what is written over it; one segment at a time loses its name, durably, before the next, so that a
//! crash leaves no gap; a file is closed before that, so that its room is freed by a removal, which no write waits for,
//! and no read that begins later sees what it holds next. One that began earlier may: it was for records
//! that were forgotten since, and begins again.

use super::{Log, Purpose};
use crate::api::LogError;
use crate::disk::{Disk, DiskError, Done, FileId, Op};
use crate::group::Group;
use crate::layout::{FOLDER, segment_name};
use crate::room::{Fate, Spare, Step, is_full};

/// What is being done to the first segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sweep {
    Close,
    /// To become the spare of this number.
    Open(u64),
    Rename(Spare),
    SyncSpare(Spare),
    /// It gets its old number back: there was no room to make the new one durable.
    Unname(Spare),
    Remove,
    Sync,
}

impl<D: Disk> Log<D> {
    /// Does away with the first segment, if it is not needed and none is being dealt with.
    pub(super) fn sweep(&mut self) {
        self.retry_sweep();
        let needed = self.groups.values().filter_map(Group::needed).min();
        let needed = needed.map_or(self.active.number, |n| n.min(self.active.number));
        let busy = self.removing || self.sealing > 0 || self.fate(None) == Fate::Open;
        if self.failed || busy || self.first >= needed {
            return;
        }
        self.removing = true;
        match self.files.forget(self.first) {
            Some(close) => self.submit(close, Purpose::Sweep(Sweep::Close)),
            None => self.closed_first(),
        }
    }

    /// What becomes of a segment of this length, or of the usual one.
    fn fate(&self, bytes: Option<u64>) -> Fate {
        let bytes = bytes.unwrap_or(self.options.segment_bytes);
        self.room.fate(self.active.number, bytes)
    }

    /// The first segment is open no longer, and is told what it becomes. The spare whose making has begun meanwhile
    /// comes before it.
    fn closed_first(&mut self) {
        match self.fate(None) {
            Fate::Spare(number) => {
                self.room.begin_recycling();
                let name = segment_name(self.first);
                self.submit(Op::Open { name }, Purpose::Sweep(Sweep::Open(number)));
            }
            Fate::Gone => self.remove_first(),
            Fate::Open => {
                self.removing = false;
            }
        }
    }

    pub(super) fn remove_first(&mut self) {
        let name = segment_name(self.first);
        self.submit(Op::Remove { name }, Purpose::Sweep(Sweep::Remove));
    }

    fn rename_first(&mut self, number: u64, (file, bytes): (FileId, u64)) {
        let was = self.first;
        // Of a segment of another length none is made.
        if bytes != self.options.segment_bytes {
            return self.keep_no_spare(file);
        }
        let spare = Spare {
            number,
            file,
            bytes,
            was,
        };
        let (from, to) = (segment_name(was), segment_name(number));
        self.submit(Op::Rename { from, to }, Purpose::Sweep(Sweep::Rename(spare)));
    }

    /// It is removed after all.
    pub(super) fn keep_no_spare(&mut self, file: FileId) {
        self.room.recycled(None);
        self.submit(Op::Close { file }, Purpose::Close);
        self.remove_first();
        self.make_room();
    }

    /// It has lost its number for good.
    fn forget_first(&mut self) {
        self.salts.remove(&self.first);
        self.first += 1;
    }

    pub(super) fn sync_names(&mut self, then: Sweep) {
        let name = FOLDER.to_owned();
        self.submit(Op::SyncDirectory { name }, Purpose::Sweep(then));
    }

    /// A step is done, or failed.
    pub(super) fn swept(&mut self, step: Sweep, result: Result<Done, DiskError>) {
        if self.failed {
            return;
        }
        match (step, result) {
            (step, Err(error)) if is_full(&error) => self.sweep_refused(step, &error),
            (_, Err(error)) => self.fail(error.into()),
            (Sweep::Close, Ok(_)) => self.closed_first(),
            (Sweep::Open(number), Ok(Done::Opened(file, bytes))) => self.rename_first(number, (file, bytes)),
            (Sweep::Rename(spare), Ok(_)) => self.sync_names(Sweep::SyncSpare(spare)),
            (Sweep::Unname(spare), Ok(_)) => self.keep_no_spare(spare.file),
            (Sweep::SyncSpare(spare), Ok(_)) => {
                self.recycled += 1;
                self.room.recycled(Some(spare));
                self.forget_first();
                self.removing = false;
                self.room_step(Step::Ready);
            }
            (Sweep::Remove, Ok(_)) => self.sync_names(Sweep::Sync),
            (Sweep::Open(_), Ok(done)) => {
                let what = format!("the disk answers the opening of a segment with something else: {done:?}");
                self.fail(LogError::Wrong(what));
            }
            (Sweep::Sync, Ok(_)) => {
                self.forget_first();
                self.removing = false;
                self.tell_full();
                self.sweep();
            }
        }
    }
}
