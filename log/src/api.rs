//! What the log is asked and what it answers.

use crate::disk::DiskError;
use kontiki_consensus::{GroupId, Incarnation, Index, Position, Restored, Run, WriteId};
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
    /// The largest record a log of such segments takes, in bytes with its header of 80 bytes: half a segment. The
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
    /// What consensus starts from.
    pub restored: Restored,
    /// Bytes of a torn, never acknowledged last write that were cut off; zero after a clean stop.
    pub torn_bytes: u64,
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
    /// Whether there is room for the next segment. While there is none, writes of term and vote still fit.
    DiskFull(bool),
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
