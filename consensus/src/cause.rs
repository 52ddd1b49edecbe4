//! Why a server's role changes: each change is told with its cause, in figures where there are any.
//!
//! A server whose process did not run when it was due is told so ([`Event::Late`](crate::Event::Late)). What its leader sent
//! meanwhile may still wait to be heard, so it waits for a whole election timeout more before it stands. Invariant: it does so
//! once, until a leader is heard again: where every timer is late, a leader is elected all the same.

use crate::{Consensus, Duration, NodeId, Note, Time, role::State};
use core::fmt;

/// Why a role changes. [`Note::Role`] follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// No leader was heard: the one it followed, if it knew one, and for how long it was silent.
    Silence {
        /// The leader.
        leader: Option<NodeId>,
        /// For how long; `None` if no leader was ever heard, or the last one gave up leading.
        silent: Option<Duration>,
    },
    /// The process of this leader was said to be gone.
    LeaderGone(NodeId),
    /// An election without a winner in time.
    NobodyElected,
    /// A majority would give it their votes.
    PreVotesWon,
    /// A majority has given it their votes.
    Elected,
    /// This server is in a later term.
    LaterTerm(NodeId),
    /// This server leads.
    LeaderHeard(NodeId),
    /// This server got the vote.
    VoteGiven(NodeId),
    /// No quorum has answered the leader for so long.
    QuorumSilent(Duration),
    /// Its disk is full.
    DiskFull,
    /// Its state is not to be relied on.
    MayNotLead,
    /// Another's snapshot is of a later term.
    SnapshotInstalled,
}

impl Cause {
    /// In words, for a leader that steps down.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::DiskFull => "the disk is full",
            Self::MayNotLead => "its state is not to be relied on",
            _ => "no quorum has answered for an election timeout",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &Duration| time.0 / 1_000_000;
        match self {
            Self::Silence {
                leader: Some(leader),
                silent: Some(silent),
            } => write!(f, "no heartbeat of node {leader} for {} ms", ms(silent)),
            Self::Silence {
                silent: Some(silent), ..
            } => write!(f, "no leader was heard for {} ms", ms(silent)),
            Self::Silence { .. } => f.write_str("no leader is known"),
            Self::LeaderGone(leader) => write!(f, "the process of node {leader}, which led, is gone"),
            Self::NobodyElected => f.write_str("nobody was elected in time"),
            Self::PreVotesWon => f.write_str("a majority would give it their votes"),
            Self::Elected => f.write_str("a majority has given it their votes"),
            Self::LaterTerm(from) => write!(f, "node {from} is in a later term"),
            Self::LeaderHeard(from) => write!(f, "node {from} leads"),
            Self::VoteGiven(to) => write!(f, "it voted for node {to}"),
            Self::QuorumSilent(silent) => write!(f, "no quorum has answered for {} ms", ms(silent)),
            Self::DiskFull => f.write_str("its disk is full"),
            Self::MayNotLead => f.write_str("its state is not to be relied on"),
            Self::SnapshotInstalled => f.write_str("a snapshot of a later term takes the place of its log"),
        }
    }
}

impl Consensus {
    pub(crate) fn note_cause(&mut self, cause: Cause) {
        self.note(Note::Cause(cause));
    }

    /// Why this server stands now.
    pub(crate) fn cause_to_stand(&self, now: Time) -> Cause {
        let State::Follower(follower) = &self.state else {
            return Cause::NobodyElected;
        };
        match (follower.leader, self.hinted) {
            (Some(leader), Some((gone, _))) if gone == leader && self.heard_at.is_none() => {
                Cause::LeaderGone(leader)
            }
            (leader, _) => Cause::Silence {
                leader,
                silent: self.heard_at.map(|at| now.since(at)),
            },
        }
    }

    /// The process did not run for so long when it was due.
    pub(crate) fn on_late(&mut self, now: Time, late: Duration) {
        self.note(Note::Late(late));
        if !self.waited_once_more && !matches!(self.state, State::Leader(_)) {
            self.waited_once_more = true;
            self.restart_election_timer(now);
        }
    }
}
