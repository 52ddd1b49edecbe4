//! Lack of room, of whatever kind: nothing is acknowledged for it, and nothing ends.
//!
//! What a file system may need room for: a new segment (`room`), a name, its being durable, its removal, and where it never
//! writes over what is there, each frame. Descriptors count as room: files that are open only to be read are closed for them. Invariants: a frame that was refused is written again, all of it at the same
//! place with the same bytes, before any other: then every page that the system may have dropped is written, and the sync
//! behind it covers them all; segments are removed one after the other still; whoever waits is told that the
//! disk is full as long as something is to be tried again, and so asks for it.

use super::sweep::Sweep;
use super::{Log, Purpose};
use crate::api::LogEvent;
use crate::batch::Batch;
use crate::disk::{Disk, DiskError, Op};
use crate::layout::segment_name;
use crate::room::is_full;
use std::collections::BTreeSet;

/// What there was no room for.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The next segment.
    pub(super) spare: bool,
    /// A frame.
    pub(super) frame: Option<Batch>,
    /// That frame is being written again.
    pub(super) retries: bool,
    /// What is known of lives.
    pub(super) lives: bool,
    /// A step of removing the first segment.
    pub(super) sweep: Option<Sweep>,
    /// Descriptors, to read these segments with.
    pub(super) opens: BTreeSet<u64>,
}

impl Refused {
    fn is_any(&self) -> bool {
        let waits = self.spare || self.frame.is_some() || self.retries || self.sweep.is_some();
        waits || self.lives || !self.opens.is_empty()
    }
}

impl<D: Disk> Log<D> {
    /// Says whether there is room, if that has changed.
    pub(super) fn tell_full(&mut self) {
        let full = self.refused.is_any();
        if self.full != full {
            self.full = full;
            self.events.push_back(LogEvent::DiskFull(full));
        }
    }

    /// Tries again what is not a segment.
    pub(super) fn retry_refused(&mut self) {
        if let Some(batch) = self.refused.frame.take() {
            self.refused.retries = true;
            self.write_frame(batch);
        }
        if self.refused.lives
            && let Some(op) = self.lives.again()
        {
            self.submit(op, Purpose::Lives);
        }
        self.retry_sweep();
        for segment in std::mem::take(&mut self.refused.opens) {
            let name = segment_name(segment);
            self.submit(Op::Open { name }, Purpose::Open(segment));
        }
    }

    /// A segment cannot be opened now to be read.
    pub(super) fn open_refused(&mut self, segment: u64, error: &DiskError) {
        self.warn_of(error);
        self.refused.opens.insert(segment);
        self.close_idle();
        self.tell_full();
    }

    /// What is open only to be read gives its descriptors up.
    pub(super) fn close_idle(&mut self) {
        for op in self.files.close_idle() {
            self.submit(op, Purpose::Close);
        }
    }

    /// Tries a step of removing the first segment again, if one was refused.
    pub(super) fn retry_sweep(&mut self) {
        match self.refused.sweep.take() {
            Some(Sweep::Unname(spare)) => self.unname(Sweep::Unname(spare)),
            Some(step) => self.sync_names(step),
            None => {}
        }
    }

    pub(super) fn frame_failed(&mut self, error: DiskError) {
        if !is_full(&error) {
            return self.fail(error.into());
        }
        self.warn_of(&error);
        self.refused.retries = false;
        self.refused.frame = self.under_way.take().map(|(batch, _)| batch);
        self.tell_full();
    }

    /// No life that it tells of is told as kept meanwhile.
    pub(super) fn lives_failed(&mut self, error: DiskError) {
        if !is_full(&error) {
            return self.fail(error.into());
        }
        self.warn_of(&error);
        self.refused.lives = true;
        self.lives.refused();
        self.tell_full();
    }

    /// Without its index all of a segment is read.
    pub(super) fn index_failed(&mut self, error: DiskError) {
        if !is_full(&error) {
            return self.fail(error.into());
        }
        self.warn_of(&error);
        self.sealing = self.sealing.saturating_sub(1);
        self.sweep();
    }

    pub(super) fn sweep_refused(&mut self, step: Sweep, error: &DiskError) {
        self.warn_of(error);
        self.close_idle();
        match step {
            Sweep::Rename(spare) => self.keep_no_spare(spare.file),
            Sweep::Open(_) => {
                self.room.recycled(None);
                self.remove_first();
                self.make_room();
            }
            // A name that was given before a sync that failed may not be covered by the next: so it is given anew, or not.
            Sweep::SyncSpare(spare) => self.unname(Sweep::Unname(spare)),
            // It stays until something more is forgotten.
            Sweep::Remove | Sweep::Close => self.removing = false,
            Sweep::Unname(_) | Sweep::Sync => self.refused.sweep = Some(step),
        }
        self.tell_full();
    }

    fn unname(&mut self, step: Sweep) {
        let Sweep::Unname(spare) = step else { return };
        let (from, to) = (segment_name(spare.number), segment_name(spare.was));
        self.submit(Op::Rename { from, to }, Purpose::Sweep(step));
    }

    fn warn_of(&self, error: &DiskError) {
        if !self.full {
            tracing::warn!("node {} has no room: {error}", self.identity.node);
        }
    }
}
