//! Snapshots of the machine: taken now and then on each node, for itself, and taken over from others.
//!
//! The machine gives a source of its state between two tasks, so what Kontiki knows when that is told ([`Meta`]) belongs to
//! this very state. The source is read aside, one piece at a time, each once the one before is on disk.
//! A snapshot is taken over by the machine in the order of its tasks: what is applied after it was handed over behind it.
//! Invariants: nothing is taken of what is not known to be committed; a snapshot is written up to the record its state
//! is of; the file of a snapshot that is being taken over stays; what a source does wrong costs the snapshot, not the node.

use super::decode_meta;
use crate::{
    clock::is_older,
    driver::Driver,
    machine::{MachineError, Restore, Source, Task},
    ports::Ports,
};
use bytes::Bytes;
use kontiki_consensus::{Base, Duration, Index, LogId, Position, Time};
use kontiki_log::{SnapshotCommand, SnapshotFile};
use kontiki_wire::snapshot::SnapshotHeader;

/// How long after one that failed the next snapshot is taken.
const PAUSE: Duration = Duration::from_millis(5_000);

/// The snapshots of this node's machine.
#[derive(Debug, Default)]
pub(super) struct Own {
    taking: Option<Taking>,
    /// The machine has none.
    never: bool,
    /// None is taken before then.
    not_before: Time,
    /// How many bytes of records were applied behind the last one, about.
    bytes: u64,
    /// The last user entry in the last one, and the cluster's clock then.
    position: Position,
    second: u32,
    /// How many were begun.
    tokens: u64,
    /// Those that the machine is to take over and has not been given.
    waiting: Vec<Restore>,
    /// Those that it has not taken over yet.
    restoring: Vec<LogId>,
}

#[derive(Debug)]
enum Taking {
    /// The machine was asked for a source.
    Asked,
    /// It is being written.
    Writing {
        base: Base,
        token: u64,
        /// While the disk has the turn and not the source.
        source: Option<Source>,
        /// Of what was applied, so much is in it.
        bytes: u64,
        second: u32,
    },
}

impl Own {
    /// This much was applied, up to this second of the cluster's clock.
    pub(super) fn applied(&mut self, bytes: u64, second: u32) {
        self.bytes += bytes;
        if self.second == 0 {
            self.second = second;
        }
    }

    /// Whether there is more than the last one holds, if this is the last entry.
    pub(super) fn has_news(&self, last: Position) -> bool {
        last > self.position
    }

    fn is_writing(&self, last: LogId) -> bool {
        matches!(&self.taking, Some(Taking::Writing { base, .. }) if base.last == last)
    }

    /// Whether the file of this snapshot is still to be read.
    pub(super) fn needs(&self, last: LogId) -> bool {
        self.restoring.contains(&last)
    }
}

impl Driver {
    /// Whether a snapshot is being taken.
    #[must_use]
    pub fn takes_snapshot(&self) -> bool {
        self.snapshots.own.taking.is_some() || self.snapshots.taking.is_some()
    }

    /// Whether another node's snapshot is being fetched.
    #[must_use]
    pub fn fetches_snapshot(&self) -> bool {
        self.snapshots.fetching.is_some()
    }

    /// Whether the machine is to take over a snapshot that is on disk, and has not yet.
    #[must_use]
    pub fn restores_snapshot(&self) -> bool {
        !self.snapshots.own.restoring.is_empty()
    }

    /// The newest snapshot that this node goes on from, if there is one.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotFile> {
        self.snapshots.files.get(&self.consensus.snapshot().index)
    }

    /// Asks the machine for a source of its state, if it is time for a snapshot.
    pub(super) fn take_of_machine(&mut self, now: Time, ports: &mut impl Ports) {
        if self.snapshot_is_due(now) {
            self.snapshots.own.taking = Some(Taking::Asked);
            ports.work(self.config.group, Task::Snapshot);
        }
    }

    fn snapshot_is_due(&self, now: Time) -> bool {
        let (own, config) = (&self.snapshots.own, &self.config.snapshots);
        if !self.applied.machine
            || !self.compare.is_sound()
            || own.never
            || own.taking.is_some()
            || now < own.not_before
        {
            return false;
        }
        let at = self.applied.at.index;
        // What a durable machine has kept may be known to be committed only later.
        if at <= self.consensus.snapshot().index || at > self.applied.target() {
            return false;
        }
        if self.fetches_snapshot() || self.restores_snapshot() {
            return false;
        }
        let size = self.snapshot().map_or(0, |file| file.bytes);
        let entries = self.applied.position.0.saturating_sub(own.position.0);
        let (began, second) = (own.second, self.second());
        self.is_waited_for()
            || config
                .snapshot_bytes
                .is_some_and(|bytes| own.bytes >= bytes.max(size))
            || config.snapshot_entries.is_some_and(|most| entries >= most.max(1))
            || config
                .snapshot_age
                .is_some_and(|most| entries > 0 && is_older(began, second, most))
    }

    /// The machine gives a source of its state as it is behind the last task that was told.
    pub(crate) fn begin_own(&mut self, now: Time, found: Result<Option<Source>, MachineError>) {
        let mut source = match found {
            Ok(Some(source)) => source,
            Ok(None) => {
                (self.snapshots.own.never, self.snapshots.own.taking) = (true, None);
                return;
            }
            Err(error) => return self.give_up_own(now, &error.to_string()),
        };
        // Another node's snapshot may have taken its place meanwhile, or the state may have been found wrong.
        let base = self
            .consensus
            .base_at(self.applied.at.index, self.applied.position);
        let sound = self.compare.is_sound();
        let Some(base) = base.filter(|base| sound && base.last == self.applied.at) else {
            self.snapshots.own.taking = None;
            return;
        };
        let meta = match super::encode_meta(&self.applied.meta, self.date) {
            Ok(meta) => meta,
            Err(what) => return self.give_up_own(now, &what),
        };
        let second = self.second();
        let own = &mut self.snapshots.own;
        own.tokens += 1;
        source.token = own.tokens;
        source.piece_bytes = self.config.snapshots.piece_bytes as usize;
        own.taking = Some(Taking::Writing {
            base: base.clone(),
            token: own.tokens,
            source: Some(source),
            bytes: own.bytes,
            second,
        });
        let header = SnapshotHeader {
            maker: self.config.identity,
            group: self.config.group,
            base,
            meta,
        };
        self.snapshots.todo.push(SnapshotCommand::Begin(header));
    }

    /// The disk takes the next piece.
    pub(super) fn read_own(&mut self, last: LogId, ports: &mut impl Ports) {
        if let Some(Taking::Writing { base, source, .. }) = &mut self.snapshots.own.taking
            && base.last == last
            && let Some(source) = source.take()
        {
            ports.read_state(self.config.group, source);
        }
    }

    /// The source gives the next piece, or its end.
    pub(crate) fn state_read(
        &mut self,
        now: Time,
        source: Source,
        piece: Result<Option<Bytes>, MachineError>,
    ) {
        let Some(Taking::Writing {
            token, source: place, ..
        }) = &mut self.snapshots.own.taking
        else {
            return;
        };
        if *token != source.token {
            return;
        }
        match piece {
            Ok(Some(bytes)) => {
                *place = Some(source);
                self.snapshots.todo.push(SnapshotCommand::Piece(bytes));
            }
            Ok(None) => self.snapshots.todo.push(SnapshotCommand::End),
            Err(error) => {
                self.snapshots.todo.push(SnapshotCommand::Abandon);
                self.give_up_own(now, &error.to_string());
            }
        }
    }

    fn give_up_own(&mut self, now: Time, why: &str) {
        tracing::warn!("no snapshot was taken, it is tried again in {PAUSE:?}: {why}");
        self.counts.abandoned += 1;
        let own = &mut self.snapshots.own;
        (own.taking, own.not_before) = (None, now.after(PAUSE));
    }

    /// There was no room for it, if this is the one that is being written.
    pub(super) fn own_refused(&mut self, now: Time, last: LogId, why: &str) -> bool {
        let own = self.snapshots.own.is_writing(last);
        if own {
            self.give_up_own(now, why);
        }
        own
    }

    /// It is on disk, if this is the one that was being written.
    pub(super) fn own_written(&mut self, last: LogId) {
        let own = &mut self.snapshots.own;
        if own.is_writing(last)
            && let Some(Taking::Writing {
                base, bytes, second, ..
            }) = own.taking.take()
        {
            own.bytes = own.bytes.saturating_sub(bytes);
            (own.position, own.second) = (base.position, second);
            self.counts.taken += 1;
        }
    }

    /// The state is to become that of this snapshot.
    pub(crate) fn await_restore(&mut self, file: SnapshotFile) -> Result<(), String> {
        let base = &file.header.base;
        let (meta, _) = decode_meta(&file.header.meta)?;
        if (meta.at, meta.position) != (base.last, base.position) {
            return Err(format!("it holds the state behind record {}", meta.at.index));
        }
        self.reads.forget_replay();
        self.applied.await_restore(base.last.index);
        let own = &mut self.snapshots.own;
        own.restoring.push(base.last);
        own.waiting.push(Restore {
            file,
            meta: Box::new(meta),
        });
        // What is being written is older.
        self.abandon_own();
        Ok(())
    }

    /// What is being written is of no use.
    pub(crate) fn abandon_own(&mut self) {
        if let Some(Taking::Writing { .. }) = self.snapshots.own.taking {
            self.snapshots.own.taking = None;
            self.snapshots.todo.push(SnapshotCommand::Abandon);
        }
    }

    /// Gives the machine the snapshots that it is to take over, before anything that comes behind them.
    pub(crate) fn give_restores(&mut self, ports: &mut impl Ports) {
        for restore in std::mem::take(&mut self.snapshots.own.waiting) {
            ports.restore(self.config.group, restore);
        }
    }

    /// The machine's state is that of a snapshot.
    pub(crate) fn restored(&mut self, now: Time, restore: Restore, ports: &mut impl Ports) {
        let (base, second) = (restore.file.header.base.clone(), self.second());
        self.snapshots.own.restoring.retain(|last| *last != base.last);
        self.begin_counting(base.position, 0, second);
        self.counts.restored += 1;
        // What it was at records before that is told and judged before another state takes its place.
        self.see_to_comparisons(now, ports);
        self.applied.restored(base.last, base.position, *restore.meta);
        self.resynced(now, &restore.file, ports);
        self.serve_waiting(ports);
        self.hand_over(ports);
        self.remove_older(now);
    }

    /// The last snapshot holds what is up to here, and so many bytes of records were applied behind it.
    pub(super) fn begin_counting(&mut self, position: Position, bytes: u64, second: u32) {
        let own = &mut self.snapshots.own;
        (own.position, own.bytes, own.second) = (position, bytes, second);
    }

    /// How many bytes of log there are between two records, about: those of the files that are full.
    pub(super) fn bytes_between(&self, from: Index, to: Index) -> u64 {
        let segments = self.snapshots.segments.iter();
        let ends = segments.clone().skip(1).map(|(start, _)| start.last.index);
        let full = segments.zip(ends);
        full.filter(|((start, _), end)| start.last.index >= from && *end <= to)
            .map(|((start, _), _)| start.bytes)
            .sum()
    }

    /// Up to where the log may be forgotten behind a snapshot: some is kept for followers that are a little behind.
    pub(super) fn forget_point(&self, last: LogId, position: Position) -> Option<(Index, Position)> {
        let keep = self.config.snapshots.keep_bytes;
        if !self.applied.machine || keep == 0 {
            return Some((last.index, position));
        }
        let mut kept = 0;
        let segments = self.snapshots.segments.iter().map(|(start, _)| start);
        let mut before = segments.rev().filter(|start| start.last.index <= last.index);
        // Of the one that holds the record nobody knows how much is before it.
        before.next()?;
        let found = before.find(|start| {
            kept += start.bytes;
            kept >= keep
        })?;
        let holds = self.consensus.term_at(found.last.index) == Some(found.last.term);
        holds.then_some((found.last.index, found.position))
    }
}
