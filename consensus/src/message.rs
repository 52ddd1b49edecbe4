//! The remote procedure calls of the paper, as plain data.

use crate::{Index, LogId, NodeId, Position, ReadId, Round, Runs, SuspectMark, Term};
use ::core::fmt;

/// A message from one server to another.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub from: NodeId,
    /// Who it is for.
    pub to: NodeId,
    /// The sender's current term. Of a pre-vote it is the term the sender would stand in, not yet its own.
    pub term: Term,
    /// The call or its answer.
    pub call: Call,
}

/// The calls and their answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// RequestVote (paper §5.2); a pre-vote where `pre` is set (dissertation §9.6).
    RequestVote {
        /// Ask whether the vote would be given, without giving it.
        pre: bool,
        /// The leader asked for this election (dissertation §3.10): heed it at once.
        transfer: bool,
        /// The end of the candidate's log.
        last: LogId,
    },
    /// The answer to RequestVote. A pre-vote that is granted echoes the proposed term.
    RequestVoteReply {
        /// Which of the two it answers.
        pre: bool,
        /// Whether the vote is given.
        granted: bool,
        /// The mark of the server that answers, if it is suspect: then it gives no vote.
        suspect: SuspectMark,
    },
    /// AppendEntries (paper §5.3). Without runs it is a heartbeat.
    AppendEntries {
        /// The record just before the runs.
        prev: LogId,
        /// How far the leader has committed.
        commit: Index,
        /// The latest heartbeat round; the answer echoes it (dissertation §6.4).
        round: Round,
        /// How the server that this is for stands with its leader.
        standing: Standing,
        /// Consecutive runs, the first beginning just after `prev`.
        runs: Runs,
    },
    /// The answer to AppendEntries.
    AppendEntriesReply {
        /// The largest round seen from this leader in this term.
        round: Round,
        /// How far the follower's log is known to equal the leader's *and is on disk*: what counts for commitment.
        persisted: Index,
        /// How far it is known to equal the leader's, on disk or not: what tells a slow disk from a lost message.
        received: Index,
        /// Set where `prev` was not found.
        conflict: Option<Conflict>,
        /// The mark of the follower, if it is suspect: then nothing of this counts for a majority.
        suspect: SuspectMark,
    },
    /// InstallSnapshot (paper §7): the records that the follower lacks are in the leader's log no more; a
    /// snapshot covers them. It announces and carries no data: the follower fetches those at its own pace
    /// on another road. It is answered by AppendEntriesReply, once what it covers is on disk.
    InstallSnapshot {
        /// The last record that the snapshot covers.
        last: LogId,
        /// The last user entry that it covers.
        position: Position,
    },
    /// A follower asks the leader how far it must have applied to answer a linearizable read (dissertation §6.4).
    ReadIndex {
        /// The follower's name for the request.
        id: ReadId,
    },
    /// The answer to ReadIndex.
    ReadIndexReply {
        /// The follower's name for the request.
        id: ReadId,
        /// The index to wait for; `None` if the one asked is not a leader that can say.
        index: Option<Index>,
    },
}

/// How a leader sees a follower, told to it with each AppendEntries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Highest index the follower has acknowledged in this term (Figure 2's `matchIndex`): a disk that holds less has lost something.
    pub matched: Index,
    /// The mark the leader has heard of it; zero if none.
    pub mark: SuspectMark,
    /// The leader's verdict on a follower with that mark.
    pub verdict: Verdict,
}

/// The verdict of a leader on a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verdict {
    /// Nothing.
    #[default]
    None,
    /// It has lost what it had acknowledged with that mark, or with none: it is to mark itself anew.
    Lost,
    /// It may drop the mark once this record of the leader's term is on its disk.
    Cleared(Index),
}

/// Why AppendEntries was refused, and where to look next (paper §5.3, end).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The index of the `prev` that was refused.
    pub prev: Index,
    /// The last record of the follower's log that could still agree: at or before `prev`, of a term no later than `prev`'s.
    pub hint: LogId,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}→{:?} {:?} {:?}", self.from, self.to, self.term, self.call)
    }
}
