//! The role of a server, as an enum that owns what belongs to it: a follower has no `next_index` to misuse.

use crate::{
    Duration, Index, LogId, NodeId, ReadId, Role, Round, Time, lease::Lease, progress::Progress, reads::Reads,
};
use alloc::{collections::BTreeSet, vec::Vec};

#[derive(Debug)]
pub(crate) enum State {
    Follower(Follower),
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Leader),
}

/// What a follower knows of its leader in this term.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    /// How far this log is known to equal the leader's.
    pub(crate) received: Index,
    /// What the last acknowledgement named.
    pub(crate) acknowledged: Index,
    /// The largest heartbeat round seen.
    pub(crate) round: Round,
    /// Whether the leader is owed an answer, and the `prev` that the answer refuses.
    pub(crate) owes_reply: bool,
    pub(crate) refused: Option<LogId>,
    /// Reads that the leader has been asked about.
    pub(crate) reads: Vec<ReadId>,
}

/// Votes received so far, one a server: a repeated answer counts once.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    pub(crate) granted: BTreeSet<NodeId>,
}

/// What a leader keeps of its followers (Figure 2, "volatile state on leaders").
#[derive(Debug)]
pub(crate) struct Leader {
    /// The no-op that began the term: nothing earlier is committed by counting (paper §5.4.2).
    pub(crate) term_start: Index,
    pub(crate) peers: Vec<Progress>,
    pub(crate) round: Round,
    pub(crate) next_heartbeat: Time,
    /// Whether the next flush begins a round: a heartbeat is due or a read waits for one.
    pub(crate) round_due: bool,
    pub(crate) reads: Reads,
    pub(crate) lease: Lease,
    /// How far followers are told that records are committed even if no others are on their way to them.
    pub(crate) announced: Index,
    /// When what is committed beyond that is to be told; never if that is nothing.
    pub(crate) announce_at: Time,
    /// How far somebody at a follower waits for records.
    pub(crate) awaited: Index,
}

impl Leader {
    /// How far followers are to be told of by now, if records are committed up to here.
    pub(crate) fn announce(&mut self, now: Time, commit: Index, delay: Duration) -> Index {
        if self.announced < commit {
            if self.peers.iter().all(|peer| peer.told_commit >= commit)
                || self.awaited > self.announced
                || now >= self.announce_at.min(now.after(delay))
            {
                self.announced = commit;
                self.announce_at = Time::MAX;
            } else {
                self.announce_at = self.announce_at.min(now.after(delay));
            }
        }
        self.announced
    }

    pub(crate) fn peer(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|p| p.id == id)
    }
}

impl State {
    pub(crate) fn role(&self, is_voter: bool) -> Role {
        match self {
            Self::Follower(_) if !is_voter => Role::Learner,
            Self::Follower(_) => Role::Follower,
            Self::PreCandidate(_) => Role::PreCandidate,
            Self::Candidate(_) => Role::Candidate,
            Self::Leader(_) => Role::Leader,
        }
    }
}
