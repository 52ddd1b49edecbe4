//! What goes into consensus and what comes out of it: plain data, each one readable line.

use crate::{
    Cause, Configuration, Duration, HardState, Index, LogId, Message, NodeId, Position, ReadId, Role, Run,
    Runs, SuspectMark, Term, WriteId,
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed: call no later than [`deadline`](crate::Consensus::deadline).
    Timeout,
    /// The process did not run when it was due, for at least so long. To be told before anything that was received meanwhile.
    /// A server that does not lead waits a whole election timeout more before it stands, once until it hears a leader again.
    Late(Duration),
    /// A message arrived, from a sender the transport has authenticated.
    Message(Message),
    /// Append this run, sealed with what [`admission`](crate::Consensus::admission) said just before.
    Propose(Run),
    /// Somebody at another server waits for records that were appended up to now, as for an append that was forwarded: the
    /// followers are told as soon as they are committed, and not within
    /// [`commit_delay`](crate::Config::commit_delay).
    Awaited,
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
    /// The process of this peer seems to have ended. Only a hint, which may be false and is not trusted with more than an
    /// early pre-vote (dissertation §9.6): if it is the leader, whoever is told stands as soon as its rank allows, unless the
    /// leader is heard before. Ignored where leases are on.
    PeerGone(NodeId),
    /// A linearizable read asks how far it must wait (dissertation §6.4).
    ///
    /// A name is used once, over restarts too, so that a late answer finds nobody. A follower's question
    /// or its answer may be lost: who waits too long cancels it and asks again by another name.
    Read(ReadId),
    /// Forget a read: nobody waits for it any more.
    CancelRead(ReadId),
    /// The disk has no room for more: while this holds, a leader steps down and the node does not stand.
    DiskFull(bool),
    /// Whether this server may lead. While it may not, a leader steps down and it does not stand; it votes and takes
    /// records as ever. It may until something else is said.
    MayLead(bool),
    /// A snapshot of this server's own state is on disk, whole, synced and under its final name. From now on
    /// it is the one that followers are told of; an older one than is known already changes nothing.
    SnapshotTaken {
        /// The last record it covers; no further than [`Output::Commit`] has said.
        last: LogId,
        /// The last user entry it covers.
        position: Position,
    },
    /// Forget the log up to here (paper §7); no further than the newest snapshot reaches, or the node stops.
    /// What is forgotten already is not asked for again.
    Purge {
        /// The last record to be forgotten.
        through: Index,
        /// The last user entry up to it.
        position: Position,
    },
    /// A leader's snapshot up to `last` is no longer to be had here: followers that were told of it are told
    /// of the newest one instead. Until this is said they are told of the same one, however many are taken since.
    SnapshotGone(LogId),
    /// A snapshot from another server is on disk, whole, checked and synced. It may be a newer one than
    /// [`Output::FetchSnapshot`] named. Also after a restart, for one that was found and that the log does not
    /// know of yet.
    ///
    /// Either [`Output::InstallSnapshot`] or [`Output::DropSnapshot`] follows, for it or for a later one, unless
    /// it is the newest of this server already. Until then it must be kept, and after InstallSnapshot until the
    /// state in it is durable elsewhere: the log may rest on it already.
    SnapshotStaged(Base),
    /// The transfer of the snapshot up to here is broken off. It is begun again when the leader next tells of one.
    SnapshotFailed(LogId),
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
    /// Fetch the leader's snapshot from this server, beginning where an earlier transfer of it broke off; then
    /// report [`Event::SnapshotStaged`] or [`Event::SnapshotFailed`]. It takes the place of any other transfer.
    FetchSnapshot {
        /// The server that has it.
        from: NodeId,
        /// The last record it covers.
        last: LogId,
        /// The last user entry it covers.
        position: Position,
    },
    /// The log begins after this snapshot now, durably: replace the state by it. What was said to be
    /// applicable before and is not applied yet is in it, and may be nowhere else any more. A node that
    /// dies before it has done so does it when it starts, before anything is applied.
    InstallSnapshot {
        /// The last record it covers.
        last: LogId,
    },
    /// This snapshot from another server is needed no more: break off its transfer, or remove what came of it.
    DropSnapshot {
        /// The last record it covers.
        last: LogId,
    },
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

/// One write: everything in it becomes durable together, in the order vote, truncation or new base, runs, purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Its name; they rise by one.
    pub id: WriteId,
    /// A new term or vote.
    pub hard_state: Option<HardState>,
    /// Remove the record at this index and all after it.
    pub truncate: Option<Index>,
    /// Remove the whole log; it begins anew just after this base. Never together with a truncation.
    pub install: Option<Box<Base>>,
    /// Append these; the first begins where the log then ends.
    pub runs: Runs,
    /// The log begins after this base, which lies in it; what is before may be removed whenever it suits.
    pub purge: Option<Box<Base>>,
}

/// Where the log begins: what is covered by a snapshot, and all that must be known of it to go on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The last record that is covered (paper §7, "last included index" and "term").
    pub last: LogId,
    /// The last user entry that is covered.
    pub position: Position,
    /// The configuration in use there.
    pub configuration: Arc<Configuration>,
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
    /// Why this server's role or term changes: the change follows.
    Cause(Cause),
    /// The process did not run when it was due, for at least so long.
    Late(Duration),
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
    /// The log was forgotten up to here: a snapshot covers it.
    Purged {
        /// The last record forgotten.
        through: Index,
    },
    /// A follower lacks what the log no longer holds: it is told of this snapshot.
    SnapshotOffered {
        /// The follower.
        peer: NodeId,
        /// The last record the snapshot covers.
        last: LogId,
    },
    /// A leader told of a snapshot, and it is to be fetched.
    SnapshotAwaited {
        /// The server that has it.
        from: NodeId,
        /// The last record it covers.
        last: LogId,
    },
    /// The transfer of a snapshot was broken off.
    SnapshotFailed {
        /// The last record it covers.
        last: LogId,
    },
    /// This server has lost something it had promised and marks itself: until it is cleared it counts for nothing.
    Marked {
        /// The mark.
        mark: SuspectMark,
        /// How the loss came to light.
        loss: Loss,
    },
    /// This server holds a record that was committed without it after its leader had heard of the mark: it is
    /// suspect no longer.
    Unmarked {
        /// The mark that was dropped.
        mark: SuspectMark,
        /// The record.
        record: Index,
    },
    /// For a leader: a follower refused what it had acknowledged to this leader, which proves a loss.
    LossProven {
        /// The follower.
        peer: NodeId,
        /// How far it had acknowledged.
        matched: Index,
    },
    /// For a leader: a follower is suspect.
    PeerMarked {
        /// The follower.
        peer: NodeId,
        /// Its mark.
        mark: SuspectMark,
        /// The record that must be committed without it.
        record: Index,
        /// Whether the voters that are not suspect are no majority: then nothing can be committed.
        waits: bool,
    },
    /// For a leader: a follower is suspect no longer.
    PeerUnmarked {
        /// The follower.
        peer: NodeId,
    },
    /// A snapshot from another server is durable, and so is that the log begins after it.
    SnapshotInstalled {
        /// The last record it covers.
        last: LogId,
    },
}

/// How a server learns that it has lost something it had promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Its leader names as acknowledged what its disk does not hold.
    Shorter {
        /// How far the leader says it had acknowledged.
        matched: Index,
        /// How far its disk goes.
        persisted: Index,
    },
    /// Its leader has proven it.
    Proven,
    /// Its leader knows of a mark of it and allows to drop it behind a record, and its disk holds neither.
    Mark {
        /// The record.
        record: Index,
        /// How far its disk goes.
        persisted: Index,
    },
}

/// What a restart finds on disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The last record that is no longer in the log, covered by a snapshot; zero if all are there.
    pub base: LogId,
    /// The last user entry up to the base.
    pub base_position: Position,
    /// The newest snapshot of this server's state, and the last user entry in it; the log holds its last
    /// record. Where none is named, the base counts as one.
    pub snapshot: Option<(LogId, Position)>,
    /// For every term in the log, where it begins. Rising in index and term.
    pub terms: Vec<TermStart>,
    /// The last record.
    pub last: LogId,
    /// The last user entry.
    pub last_position: Position,
    /// Every configuration in the log, with its index; the first is the one in use at the base, or the genesis.
    pub configurations: Vec<(Index, Configuration)>,
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
