//! What nodes say to each other: Raft's calls, and proposals on their way to the leader.

use crate::StartId;
use crate::record::{Payload, Session};
use bytes::Bytes;
use kontiki_consensus::{GroupId, Index, LogId, Message, NodeId, Position, Term};

/// A message with its envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The Raft group it belongs to.
    pub group: GroupId,
    /// Who sends it.
    pub from: NodeId,
    /// In which of its lives: the greeting has told incarnation and number of that.
    pub start: StartId,
    /// Who it is for.
    pub to: NodeId,
    /// What it says.
    pub message: PeerMessage,
}

/// What a node says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// One of Raft's calls or answers.
    Raft(Message),
    /// A client's append, forwarded to the leader.
    Propose(Propose),
    /// What became of it.
    ProposeReply(ProposeReply),
    /// A follower fetches a snapshot.
    SnapshotRequest(SnapshotRequest),
    /// A part of it.
    SnapshotChunk(SnapshotChunk),
    /// What a node has become behind a record.
    Compared(Compared),
    /// A node whose state is wrong looks for a snapshot of another's.
    Resync(Resync),
}

impl PeerMessage {
    /// Whether it must not wait behind bulk data: everything but records on their way.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        use kontiki_consensus::Call;
        match self {
            Self::Raft(message) => {
                !matches!(&message.call, Call::AppendEntries { runs, .. } if !runs.is_empty())
            }
            Self::SnapshotRequest(_) | Self::Compared(_) | Self::Resync(_) => true,
            Self::Propose(_) | Self::ProposeReply(_) | Self::SnapshotChunk(_) => false,
        }
    }

    /// Whether it must make way for everything else.
    #[must_use]
    pub fn is_background(&self) -> bool {
        matches!(self, Self::SnapshotChunk(_))
    }
}

/// A client's append on its way to the leader, which takes each (node, origin, number) at most once a
/// term, and in the order of the numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Propose {
    /// Drawn each time the forwarding node starts: its numbers begin anew.
    pub origin: u64,
    /// The forwarding node's number for it; rises by one.
    pub number: u64,
    /// Every number below this one is settled: the forwarder will not ask about it again.
    pub settled: u64,
    /// The term the forwarder saw its leader in: taken in that term or never.
    pub term: Term,
    /// The precondition.
    pub expect: Expect,
    /// The session it belongs to.
    pub session: Session,
    /// The entries, encoded by the client's thread.
    pub payload: Payload,
}

/// A follower asks for a part of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// The last record that the snapshot covers.
    pub last: LogId,
    /// From which byte of the file on.
    pub offset: u64,
    /// The CRC of the header of what has come so far, zero if that is not all of it: if the one asked has another
    /// snapshot of this name, it answers from the beginning.
    pub header: u32,
    /// How many bytes it may have at most.
    pub bytes_max: u32,
}

/// A part of a snapshot, as it stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// The last record that the snapshot covers.
    pub last: LogId,
    /// Where in the file it begins.
    pub offset: u64,
    /// Length of the file; zero if the one asked does not have it.
    pub total: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a node has become behind a record by which all compare themselves: equal on all of them, or one is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The record.
    pub index: Index,
    /// A hash over all records up to it.
    pub log_hash: u64,
    /// A hash over everything that its state machine has answered.
    pub output_hash: u64,
    /// What its state machine says of its state, if it says anything.
    pub digest: Option<u64>,
    /// Whether it answers another's: then it is not answered.
    pub is_answer: bool,
}

/// A node whose state is wrong looks for a snapshot that covers at least a record; or the answer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resync {
    /// The record.
    pub index: Index,
    /// The answer: the last record of a snapshot that can be fetched.
    pub offer: Option<LogId>,
}

/// What an append asks of the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// That the log holds no user entry.
    Empty,
    /// That the last user entry stands at this position; and in this term, if one is named.
    Last {
        /// Its position.
        position: Position,
        /// Its term.
        term: Option<Term>,
    },
}

/// The leader's answer to a forwarded append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProposeReply {
    /// The origin it came with.
    pub origin: u64,
    /// The forwarding node's number for it.
    pub number: u64,
    /// What became of it.
    pub answer: ProposeAnswer,
}

/// What became of a forwarded append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposeAnswer {
    /// It stands in the leader's log here; the forwarder's own log tells whether it is committed.
    Assigned {
        /// Index and term of its record.
        at: LogId,
        /// Position of its first entry.
        first: Position,
    },
    /// It was not appended, and never will be under this number.
    Refused(Refusal),
}

/// Why an append was refused. Each means: definitely not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The node asked does not lead (any more); it may know who does.
    NotLeader {
        /// The leader it knows of.
        leader: Option<NodeId>,
    },
    /// Too much is in flight already.
    Overloaded,
    /// The disk of this node is full.
    DiskFull {
        /// The node.
        node: NodeId,
    },
    /// The log does not end where the append expects it to.
    Mismatch {
        /// Position of the last user entry.
        last: Position,
        /// Its term.
        term: Term,
    },
    /// The precondition holds; there was nothing to append.
    Holds {
        /// Position of the last user entry.
        last: Position,
        /// Its term.
        term: Term,
    },
    /// The payload is larger than the leader takes.
    TooLarge {
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// The session is not known: it has expired, or was never opened. This attempt was not applied; whether an
    /// earlier one with the same number was can no longer be told.
    SessionExpired,
    /// The session no longer remembers this number: the client has said that it has its answer, or there were too
    /// many answers to keep. This attempt was not applied; an earlier one with the same number may have been.
    SessionStale,
}
