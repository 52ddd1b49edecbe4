//! Snapshots, as far as they need the disk of the log.

use super::{Log, Purpose};
use crate::api::{LogEvent, SnapshotCommand, SnapshotFile};
use crate::disk::Disk;
use crate::snapshots::Snapshots;
use bytes::Bytes;
use kontiki_consensus::LogId;
use kontiki_wire::Identity;
use kontiki_wire::snapshot::SnapshotHeader;
use std::io::Read;

impl<D: Disk> Log<D> {
    /// Who keeps this log: the maker of the snapshots that are written here.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Does what is to be done with snapshots.
    pub fn snapshot(&mut self, command: SnapshotCommand) {
        match command {
            SnapshotCommand::Begin(header) => self.begin_snapshot(header),
            SnapshotCommand::Piece(piece) => self.snapshot_piece(piece),
            SnapshotCommand::End => self.end_snapshot(),
            SnapshotCommand::Abandon => self.abandon_snapshot(),
            SnapshotCommand::Receive(last) => self.receive_snapshot(last),
            SnapshotCommand::Received { last, offset, bytes } => self.snapshot_received(last, offset, &bytes),
            SnapshotCommand::StopReceiving => self.stop_receiving(),
            SnapshotCommand::Read {
                token,
                last,
                offset,
                bytes,
            } => self.read_snapshot(token, last, offset, bytes),
            SnapshotCommand::Remove(last) => self.remove_snapshot(last),
            SnapshotCommand::Note(header) => self.keep_note(header),
        }
    }

    /// Begins to write a snapshot of this node's state, in place of any other that is being written; then
    /// [`SnapshotEvent::Ready`](crate::SnapshotEvent::Ready).
    pub fn begin_snapshot(&mut self, header: SnapshotHeader) {
        self.snapshot_step(|s| s.begin(header));
    }

    /// Adds a piece of the state, of at most `kontiki_wire::snapshot::PIECE_BYTES_MAX` bytes: once the one before is
    /// told to be done, so that few are in memory.
    pub fn snapshot_piece(&mut self, piece: Bytes) {
        self.snapshot_step(|s| s.piece(piece));
    }

    /// Ends it: it is synced and gets its name; then [`SnapshotEvent::Written`](crate::SnapshotEvent::Written).
    pub fn end_snapshot(&mut self) {
        self.snapshot_step(Snapshots::end);
    }

    /// Gives up what is being written. Nothing is told.
    pub fn abandon_snapshot(&mut self) {
        self.snapshot_step(Snapshots::abandon);
    }

    /// Prepares to receive the snapshot up to `last`, in place of any other; then
    /// [`SnapshotEvent::Receiving`](crate::SnapshotEvent::Receiving) says how much of it is there already.
    pub fn receive_snapshot(&mut self, last: LogId) {
        self.snapshot_step(|s| s.receive(last));
    }

    /// Takes in bytes of the snapshot that is being received, which begin at `offset` of its file; then
    /// [`SnapshotEvent::Receiving`](crate::SnapshotEvent::Receiving), [`SnapshotEvent::Staged`](crate::SnapshotEvent::Staged)
    /// or [`SnapshotEvent::Refused`](crate::SnapshotEvent::Refused). Bytes from zero on begin it anew.
    pub fn snapshot_received(&mut self, last: LogId, offset: u64, bytes: &Bytes) {
        self.snapshot_step(|s| s.received(last, offset, bytes));
    }

    /// Ends receiving; what has come stays on disk, to go on from.
    pub fn stop_receiving(&mut self) {
        self.snapshot_step(Snapshots::stop_receiving);
    }

    /// Reads up to `bytes` bytes of a whole snapshot; then [`SnapshotEvent::Read`](crate::SnapshotEvent::Read).
    pub fn read_snapshot(&mut self, token: u64, last: LogId, offset: u64, bytes: u64) {
        self.snapshot_step(|s| s.read(token, last, offset, bytes));
    }

    /// The state in a snapshot that is on disk and stays there meanwhile, to be read on a thread that may wait for the
    /// disk. Every piece is checked; the end is told only behind all of it, and damage by an error that names the
    /// file, at each further read again.
    #[must_use]
    pub fn snapshot_state(&self, file: &SnapshotFile) -> Box<dyn Read + Send> {
        self.snapshots.state(&self.disk, file)
    }

    /// Removes a snapshot, or what has come of one; then [`SnapshotEvent::Removed`](crate::SnapshotEvent::Removed) if it
    /// was whole.
    pub fn remove_snapshot(&mut self, last: LogId) {
        self.snapshot_step(|s| s.remove(last));
    }

    /// Keeps what belongs to the state behind a record, in place of an earlier note: the log stays, and nothing rests on the
    /// note; it saves going through all records when the log is opened. Nothing is told; while one is being written
    /// another is not.
    pub fn keep_note(&mut self, header: SnapshotHeader) {
        self.snapshot_step(|s| s.keep_note(&header));
    }

    pub(super) fn snapshot_step(&mut self, step: impl FnOnce(&mut Snapshots)) {
        if self.failed {
            return;
        }
        step(&mut self.snapshots);
        for (op, task) in std::mem::take(&mut self.snapshots.todo) {
            self.submit(op, Purpose::Snapshot(task));
        }
        let events = std::mem::take(&mut self.snapshots.events);
        self.events.extend(events.into_iter().map(LogEvent::Snapshot));
        if let Some(error) = self.snapshots.failed.take() {
            self.fail(error.into());
        }
    }
}
