//! The log while it is open: takes writes and reads, drives the disk, tells what is done.
//!
//! One frame is under way at a time; everything that comes meanwhile becomes the next one (`batch`), so the
//! hot path is one write and sync a frame, of buffers that are not copied. Invariants: frame n+1 is written
//! only after frame n is synced; what is told as persisted is on disk, and so is everything before it;
//! after a failed write or sync nothing is written and nothing is told as persisted, ever; the work between two `None` of
//! [`Log::poll`] is bounded, however much is read.
//!
//! # When there is no room
//! A full segment is followed by the spare (`room`). While no spare is ready, records leave the last eighth
//! of the segment alone, and writes of term and vote alone may use it. A write that does not fit
//! waits, and all writes behind it wait with it, in their order: nothing is lost and nothing overtakes; the node
//! simply does not acknowledge. Consensus keeps it from coming to that: it takes no more records in, and leads
//! no longer, once it hears that the disk is full, which is after the spare was begun and almost a whole
//! segment before its end. Making a spare is tried again when [`Log::retry_room`] is called. Some file systems need
//! room for what is written over or removed, too: a frame that was refused for lack of room is written once more, all of
//! it at the same place, and nothing comes before it; a segment that cannot be removed stays (`no_room`).

mod end;
mod no_room;
mod read;
mod snapshots;
mod sweep;
mod write;

pub(crate) use write::{Place, index_of, segment_header};

use crate::api::{Fetch, LogError, LogEvent, LogOptions};
use crate::batch::Batch;
use crate::disk::{Completion, Disk, DiskError, Done, FileId, Op, OpId};
use crate::files::Files;
use crate::group::Groups;
use crate::lives::LivesFile;
use crate::reader::{CheckBudget, Piece, Reading};
use crate::room::{Room, Step};
use crate::salts::Salts;
use crate::snapshots::{Snapshots, Task};
use bytes::Bytes;
use end::End;
use kontiki_consensus::{GroupId, Write};
use kontiki_wire::frame::FrameHeader;
use kontiki_wire::lives::Lives;
use kontiki_wire::{Identity, Salt};
use no_room::Refused;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use sweep::Sweep;

/// The segment that is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
    /// Where the next frame begins; zero if the segment has no header yet.
    pub(crate) offset: u64,
    /// The number its file had before, or zero.
    pub(crate) was: u64,
    pub(crate) salt: Salt,
    /// That of the segment behind it.
    pub(crate) next_salt: Salt,
}

/// What recovery has found of the segments.
#[derive(Debug)]
pub(crate) struct Segments {
    /// The first that is there.
    pub(crate) first: u64,
    pub(crate) active: Active,
    /// The salt of each, from the first to the one in use.
    pub(crate) salts: BTreeMap<u64, Salt>,
    /// The sequence of the next frame.
    pub(crate) sequence: u64,
}

/// What an operation is for.
#[derive(Debug)]
enum Purpose {
    Frame,
    Index,
    Create,
    MakeRoom,
    Sweep(Sweep),
    Lives,
    Snapshot(Task),
    Open(u64),
    Read(u64, Piece),
    Close,
}

/// The durable log of a node. Made by [`Log::open`].
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    identity: Identity,
    options: LogOptions,
    groups: Groups,
    active: Active,
    /// The first segment that is there.
    first: u64,
    /// The salt of each segment, from the first to the one in use.
    salts: BTreeMap<u64, Salt>,
    /// Where further ones come from.
    chance: Salts,
    /// It is being removed, or becoming a spare.
    removing: bool,
    /// How many segments became spares.
    recycled: u64,
    /// How many indexes of full segments are being written.
    sealing: usize,
    /// The sequence of the next frame.
    sequence: u64,
    room: Room,
    /// The disk was said to be full.
    full: bool,
    /// Where the log ends once all that was handed over is written.
    ends: BTreeMap<GroupId, End>,
    queue: VecDeque<(GroupId, Write)>,
    /// A frame there is no room for.
    stuck: Option<Batch>,
    under_way: Option<(Batch, FrameHeader)>,
    refused: Refused,
    /// Places that were told to be damaged: segment, offset.
    damaged: BTreeSet<(u64, u64)>,
    failed: bool,
    snapshots: Snapshots,
    lives: LivesFile,
    files: Files,
    readings: BTreeMap<u64, Reading>,
    readings_begun: u64,
    /// Reads that wait for a file to be opened.
    opening: BTreeMap<u64, Vec<u64>>,
    /// Pieces that the disk has read and whose checksums are still to be verified, oldest first: one a reading at most.
    pieces: VecDeque<(u64, Piece, Result<Bytes, DiskError>)>,
    /// How much of them may be verified before [`Self::poll`] gives `None`.
    budget: CheckBudget,
    purposes: BTreeMap<OpId, Purpose>,
    events: VecDeque<LogEvent>,
}

impl<D: Disk> Log<D> {
    /// A log as recovery has found it.
    pub(crate) fn new(
        disk: D,
        identity: Identity,
        options: LogOptions,
        groups: Groups,
        segments: Segments,
        (room, snapshots, lives): (Room, Snapshots, LivesFile),
        chance: Salts,
    ) -> Self {
        let Segments {
            first,
            active,
            salts,
            sequence,
        } = segments;
        let mut files = Files::default();
        files.begin(active.number, active.file);
        let mut log = Self {
            disk,
            identity,
            options,
            ends: groups.iter().map(|(g, s)| (*g, End::new(Some(s)))).collect(),
            groups,
            active,
            first,
            salts,
            chance,
            removing: false,
            recycled: 0,
            sealing: 0,
            sequence,
            room,
            full: false,
            queue: VecDeque::new(),
            stuck: None,
            under_way: None,
            refused: Refused::default(),
            damaged: BTreeSet::new(),
            failed: false,
            snapshots,
            lives,
            files,
            readings: BTreeMap::new(),
            readings_begun: 0,
            opening: BTreeMap::new(),
            pieces: VecDeque::new(),
            budget: CheckBudget::default(),
            purposes: BTreeMap::new(),
            events: VecDeque::new(),
        };
        log.make_room();
        log.sweep();
        log
    }

    /// Makes a write durable behind all earlier ones; then [`LogEvent::Persisted`], perhaps only for a later one.
    pub fn persist(&mut self, group: GroupId, write: Write) {
        if self.failed {
            return;
        }
        if let Err(error) = self.check(group, &write) {
            return self.fail(error);
        }
        self.queue.push_back((group, write));
        self.advance();
    }

    /// Reads records that are persisted; then [`LogEvent::Fetched`].
    pub fn fetch(&mut self, group: GroupId, fetch: Fetch) {
        self.readings_begun += 1;
        self.readings
            .insert(self.readings_begun, Reading::new(group, fetch));
        self.read_on(self.readings_begun);
    }

    /// Makes durable what is known of lives; then [`LogEvent::LivesKept`], perhaps only for a later version.
    pub fn keep_lives(&mut self, lives: Lives) {
        if self.failed {
            return;
        }
        if let Some(op) = self.lives.keep(lives) {
            self.submit(op, Purpose::Lives);
        }
    }

    fn lives_written(&mut self) {
        self.refused.lives = false;
        self.tell_full();
        let (kept, next) = self.lives.written();
        self.events.extend(kept.map(LogEvent::LivesKept));
        if let Some(op) = next {
            self.submit(op, Purpose::Lives);
        }
    }

    /// Looks whether there is room again. To be called now and then while [`LogEvent::DiskFull`] holds, once a second
    /// will do: it takes what room there is, if only for a moment. Otherwise it does nothing.
    pub fn retry_room(&mut self) {
        if self.failed {
            return;
        }
        if let Some(op) = self.room.retry(self.active.number + 1) {
            self.room_step(Step::Next(op));
        }
        self.retry_refused();
    }

    /// What there is to tell. Takes in what the disk has completed and gives it new work; call it whenever the disk wakes,
    /// until it gives `None`. Completed writes come first. Of what was read it verifies about [`CHECK_BYTES_MAX`] bytes
    /// before it gives `None`, however fast the disk is; if [`Self::has_more`] is true then, it is to be called again soon.
    ///
    /// [`CHECK_BYTES_MAX`]: crate::CHECK_BYTES_MAX
    pub fn poll(&mut self) -> Option<LogEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(completion) = self.disk.poll() {
                self.completed(completion);
            } else if !self.check_piece() {
                return None;
            }
        }
    }

    /// Whether what the disk has read is still to be verified: [`Self::poll`] has work to do although the disk may not wake.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The largest record that a log of these segments takes, in bytes with its header.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.options.record_bytes_max()
    }

    /// The number of the segment that is written to; they rise by one.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.active.number
    }

    /// The number of the first segment that is there.
    #[must_use]
    pub fn first_segment(&self) -> u64 {
        self.first
    }

    /// The disk, for what is special to its kind. Nothing is to be submitted to it.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// How many segments were used again since the log was opened, instead of being removed.
    #[must_use]
    pub fn segments_recycled(&self) -> u64 {
        self.recycled
    }

    /// How many bytes the files of the log take on disk, about: whole segments, without the spares (two at most).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let full = self.active.number.saturating_sub(self.first);
        full * self.options.segment_bytes + self.active.bytes
    }

    fn submit(&mut self, op: Op, purpose: Purpose) {
        let id = self.disk.submit(op);
        self.purposes.insert(id, purpose);
    }

    fn completed(&mut self, Completion { id, result }: Completion) {
        match (self.purposes.remove(&id), result) {
            (Some(Purpose::Frame), Ok(Done::Unit)) => self.frame_done(),
            (Some(Purpose::Index), Ok(Done::Unit)) => {
                self.sealing = self.sealing.saturating_sub(1);
                self.sweep();
            }
            (Some(Purpose::Lives), Ok(Done::Unit)) => self.lives_written(),
            (None | Some(Purpose::Close), _) => {}
            (Some(Purpose::Frame), Err(error)) => self.frame_failed(error),
            (Some(Purpose::Index), Err(error)) => self.index_failed(error),
            (Some(Purpose::Lives), Err(error)) => self.lives_failed(error),
            (Some(Purpose::Create), Ok(Done::Opened(file, _))) => {
                let step = self.room.filled(Ok(file));
                self.room_step(step);
            }
            (Some(Purpose::Create), Err(error)) => {
                let step = self.room.filled(Err(error));
                self.room_step(step);
            }
            (Some(Purpose::MakeRoom), Ok(Done::Unit)) => {
                let step = self.room.stepped(Ok(()));
                self.room_step(step);
            }
            (Some(Purpose::MakeRoom), Err(error)) => {
                let step = self.room.stepped(Err(error));
                self.room_step(step);
            }
            (Some(Purpose::Sweep(step)), result) => self.swept(step, result),
            (Some(Purpose::Snapshot(task)), result) => self.snapshot_step(|s| s.completed(task, result)),
            (Some(Purpose::Open(segment)), Ok(Done::Opened(file, _))) => self.opened(segment, Ok(file)),
            (Some(Purpose::Open(segment)), Err(error)) => self.opened(segment, Err(error)),
            (Some(Purpose::Read(reading, piece)), Ok(Done::Read(bytes))) => {
                self.pieces.push_back((reading, piece, Ok(bytes)));
            }
            (Some(Purpose::Read(reading, piece)), Err(error)) => {
                self.pieces.push_back((reading, piece, Err(error)));
            }
            (Some(purpose), Ok(done)) => {
                let what = format!("the disk answers {purpose:?} with something else: {done:?}");
                self.fail(LogError::Wrong(what));
            }
        }
    }

    /// Nothing more is written or told as persisted.
    fn fail(&mut self, error: LogError) {
        if !self.failed {
            self.failed = true;
            tracing::error!("the log of node {} has failed: {error}", self.identity.node);
            self.events.push_back(LogEvent::Failed(Arc::new(error)));
        }
    }
}

#[cfg(test)]
mod tests {
    //! What only tests ask.
    use super::*;

    impl<D: Disk> Log<D> {
        /// How many entries the index of a group has.
        pub(crate) fn entries(&self, group: GroupId) -> usize {
            self.groups[&group].entry_count()
        }
    }
}
