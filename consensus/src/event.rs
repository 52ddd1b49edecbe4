//! What goes into consensus and what comes out of it: plain data, each one readable line.

use crate::{HardState, Index, LogId, Message, NodeId, Position, ReadId, Role, Run, Term, WriteId};
use alloc::{string::String, vec::Vec};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed: call no later than [`deadline`](crate::Consensus::deadline).
    Timeout,
    /// A message arrived, from a sender the transport has authenticated.
    Message(Message),
    /// Append this run, sealed with what [`admission`](crate::Consensus::admission) said just before.
    Propose(Run),
    /// This write and all before it are on disk.
    Persisted(WriteId),
    /// The answer to [`Output::Fetch`]: consecutive runs beginning at `from`. Empty if they could not be had.
    Fetched {
        /// The follower they are for.
        peer: NodeId,
        /// The index that was asked for.
        from: Index,
        /// What was found.
        runs: Vec<Run>,
    },
    /// A message to this peer was dropped, or its connection was lost.
    SendDropped(NodeId),
    /// A linearizable read asks how far it must wait (dissertation §6.4).
    ///
    /// A name is used once, over restarts too, so that a late answer finds nobody. A follower's question
    /// or its answer may be lost: who waits too long cancels it and asks again by another name.
    Read(ReadId),
    /// Forget a read: nobody waits for it any more.
    CancelRead(ReadId),
    /// The disk has no room for more: while this holds, a leader steps down and the node does not stand.
    DiskFull(bool),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make this durable, after all earlier writes; then report [`Event::Persisted`].
    Persist(Write),
    /// Send this. What it promises is already on disk.
    Send(Message),
    /// All records up to here are committed and on this disk: they may be applied.
    Commit(Index),
    /// Read runs from `from` (included) up to `to` (included), about `bytes_max` bytes, for a follower.
    Fetch {
        /// The follower they are for.
        peer: NodeId,
        /// First index.
        from: Index,
        /// Last index.
        to: Index,
        /// Stop once this many bytes are read; at least one record.
        bytes_max: usize,
    },
    /// The read may be answered once this index is applied.
    ReadReady {
        /// The read.
        id: ReadId,
        /// The index.
        index: Index,
    },
    /// The read could not be confirmed: leadership was lost or there is no leader. Ask again.
    ReadRefused(ReadId),
    /// Something worth telling.
    Note(Note),
    /// An invariant is broken: stop this node, say why, leave the host process alive.
    Fatal(String),
}

/// One write: everything in it becomes durable together, in the order vote, truncation, runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its name; they rise by one.
    pub id: WriteId,
    /// A new term or vote.
    pub hard_state: Option<HardState>,
    /// Remove the record at this index and all after it.
    pub truncate: Option<Index>,
    /// Append these; the first begins where the log then ends.
    pub runs: Vec<Run>,
}

/// Evidence, where it arises: feeds tracing, traces for checkers and the dashboard alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This server's role or term changed.
    Role {
        /// Its term now.
        term: Term,
        /// Its role now.
        role: Role,
        /// The leader it knows of.
        leader: Option<NodeId>,
    },
    /// A vote was given to another.
    Voted {
        /// In this term.
        term: Term,
        /// To this candidate.
        to: NodeId,
    },
    /// Records were cut off the end of the log, from this index on.
    Truncated {
        /// The first one removed.
        from: Index,
    },
    /// A leader stepped down, with the reason in words.
    SteppedDown(&'static str),
    /// A follower's log was found to differ; replication goes back to here.
    Backtracked {
        /// The follower.
        peer: NodeId,
        /// The next index to send.
        next: Index,
    },
}

/// What a restart finds on disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// For every term in the log, where it begins. Rising in index and term.
    pub terms: Vec<TermStart>,
    /// The last record.
    pub last: LogId,
    /// The last user entry.
    pub last_position: Position,
    /// Every configuration in the log, with its index; the first is the genesis.
    pub configurations: Vec<(Index, crate::Configuration)>,
    /// The newest records, consecutive up to `last`: a cache, may be empty.
    pub tail: Vec<Run>,
}

/// Where a term begins in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// Its first record.
    pub index: Index,
    /// The last user entry before it.
    pub position_before: Position,
}

/// What a leader grants to the next proposal: where it will stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admission {
    /// Raft index of its first record.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Position of its first user entry.
    pub position: Position,
}
