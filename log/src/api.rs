//! What the log is asked and what it answers.

use crate::disk::DiskError;
use bytes::Bytes;
use kontiki_consensus::{GroupId, Incarnation, Index, LogId, Position, Restored, Run, WriteId};
use kontiki_wire::{lives::Lives, snapshot::SnapshotHeader};
use std::sync::Arc;

/// Sizes; every one is checked by [`Log::open`](crate::Log::open).
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a segment file, in bytes: 1 MiB to 1 GiB (the simulator goes down to 64 KiB).
    pub segment_bytes: u64,
    /// How many bytes of the newest records recovery hands back, at most.
    pub tail_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail_bytes_max: 16 << 20,
        }
    }
}

impl LogOptions {
    /// The largest record a log of such segments takes, in bytes with its header of 88 bytes: half a segment. The
    /// largest batch a node takes in must stay below it.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX)
    }
}

/// What opening a log found.
#[derive(Debug)]
pub struct Recovered {
    /// The directory's incarnation.
    pub incarnation: Incarnation,
    /// The life that begins, if the node is started, and those that are known of its peers.
    pub lives: Lives,
    /// What consensus starts from.
    pub restored: Restored,
    /// All snapshots on disk that are sound, the oldest first. The newest that the log rests on or holds is named
    /// in `restored`; those that are newer still were received and not installed.
    pub snapshots: Vec<SnapshotFile>,
    /// The newest note that is sound ([`Log::keep_note`](crate::Log::keep_note)), if there is one.
    pub note: Option<SnapshotHeader>,
    /// How the group stood when each segment was begun, in order.
    pub segments: Vec<SegmentStart>,
    /// Bytes of a damaged last write that were cut off; zero after a clean stop. It was torn and never acknowledged, unless
    /// `suspect` says otherwise.
    pub torn_bytes: u64,
    /// What was found if the last write had been synced and was damaged since: then the node has got a mark, which
    /// is on disk and in `restored`.
    pub suspect: Option<String>,
}

/// How a group stood when a segment was begun: where a log may be cut so that a whole file goes. The records before
/// may have been removed since: they are there if the log holds `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStart {
    /// The last record before it.
    pub last: LogId,
    /// The last user entry before it.
    pub position: Position,
    /// Length of the segment, in bytes.
    pub bytes: u64,
}

/// What is to be done with snapshots; each is explained at [`Log`](crate::Log)'s function of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotCommand {
    /// `begin_snapshot`
    Begin(SnapshotHeader),
    /// `snapshot_piece`
    Piece(Bytes),
    /// `end_snapshot`
    End,
    /// `abandon_snapshot`
    Abandon,
    /// `receive_snapshot`
    Receive(LogId),
    /// `snapshot_received`
    Received {
        /// The last record it covers.
        last: LogId,
        /// Where in its file the bytes begin.
        offset: u64,
        /// What has come.
        bytes: Bytes,
    },
    /// `stop_receiving`
    StopReceiving,
    /// `read_snapshot`
    Read {
        /// The asker's name for it.
        token: u64,
        /// The last record it covers.
        last: LogId,
        /// Where to begin.
        offset: u64,
        /// How many bytes at most.
        bytes: u64,
    },
    /// `remove_snapshot`
    Remove(LogId),
    /// `keep_note`
    Note(SnapshotHeader),
}

/// A snapshot on this disk: whole, checked, synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// What it covers, who made it, and what belongs to it beside the state.
    pub header: Arc<SnapshotHeader>,
    /// The CRC of the header, which tells it from others of the same name.
    pub sum: u32,
    /// Length of the file, in bytes.
    pub bytes: u64,
}

/// What there is to tell about snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotEvent {
    /// More of the state may be given, or the end be told, of the snapshot being written.
    Ready {
        /// The last record it covers.
        last: LogId,
    },
    /// One's own is on disk, under its name.
    Written(SnapshotFile),
    /// What there is of the one being received; more is wanted from here on.
    Receiving {
        /// The last record it covers.
        last: LogId,
        /// How much of the file has come and is on disk, in bytes.
        at: u64,
        /// The CRC of its header, which tells it from others; zero as long as that has not come.
        header: u32,
    },
    /// Another node's is on disk, whole, under its name; or was before it was asked for.
    Staged(SnapshotFile),
    /// There is none: no room for it, or what came was damaged, and why.
    Refused {
        /// The last record it covers.
        last: LogId,
        /// In words.
        why: String,
    },
    /// The answer to [`Log::read_snapshot`](crate::Log::read_snapshot): the snapshot and what was read; `None` if it is
    /// not there.
    Read {
        /// The asker's name for it.
        token: u64,
        /// What was found.
        found: Option<(SnapshotFile, Bytes)>,
    },
    /// It is no longer on disk.
    Removed {
        /// The last record it covered.
        last: LogId,
    },
}

/// A request for records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The asker's name for it.
    pub token: u64,
    /// Where to begin.
    pub from: From,
    /// The last Raft index to read; records beyond it are not returned.
    pub to: Index,
    /// Stop when this many bytes are read; at least one record.
    pub bytes_max: usize,
}

/// Where a read begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At this record.
    Index(Index),
    /// At the record that holds this user entry.
    Position(Position),
}

/// Of how many damaged places a log tells while it is open.
pub const DAMAGES_MAX: usize = 16;

/// What the log has to say.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// This write and all before it are on disk.
    Persisted {
        /// Whose.
        group: GroupId,
        /// Which.
        id: WriteId,
    },
    /// The answer to a [`Fetch`]: consecutive runs; empty if nothing lies there.
    Fetched {
        /// Whose.
        group: GroupId,
        /// The asker's name for it.
        token: u64,
        /// What was read, its checksums verified.
        runs: Result<Vec<Run>, Arc<LogError>>,
    },
    /// A segment was begun.
    SegmentBegun {
        /// Whose records before it are told of.
        group: GroupId,
        /// How the group stood.
        start: SegmentStart,
    },
    /// The lives of this version, and all before it, are on disk.
    LivesKept(u64),
    /// Something about snapshots.
    Snapshot(SnapshotEvent),
    /// Whether there is room for the next segment. While there is none, writes of term and vote still fit, if no more
    /// records are written; [`Log::retry_room`](crate::Log::retry_room) looks again.
    DiskFull(bool),
    /// A read has met something that is damaged or cannot be read: where, what, and what to do. Said once for each place,
    /// and of at most [`DAMAGES_MAX`] places; who reads there is told so each time.
    Damaged(Arc<str>),
    /// A write or sync failed, or the log on disk is not what was written: the node must stop. Said once.
    Failed(Arc<LogError>),
}

/// What is wrong with the log; each text names file and offset and says what to do next.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk refused an operation.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// Something that was acknowledged is damaged.
    #[error("{0}")]
    Damaged(String),
    /// What was to be read is before the beginning of the log: a snapshot covers it.
    #[error("the log begins at entry {first}: what was before has been compacted")]
    Compacted {
        /// The first entry that the log holds, or will.
        first: Position,
    },
    /// The directory is not what was asked for: missing, empty, locked, of another node, cluster or version.
    #[error("{0}")]
    Wrong(String),
}
