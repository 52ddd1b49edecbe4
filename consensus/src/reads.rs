//! Linearizable reads at the leader (dissertation §6.4): read-index.
//!
//! A read may be answered at the commit index of the moment it came, once a heartbeat round that
//! *began after it* has been answered by a quorum: then no other leader can have committed more
//! before it came. Invariants: rounds are never reused within a term; no read gets an index before
//! the leader has committed in its own term (§6.4, step 1).

use crate::{
    Call, Consensus, Index, NodeId, Output, ReadId, Round,
    role::{Follower, State},
};
use alloc::{collections::VecDeque, vec::Vec};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reader {
    /// The follower that asks; `None` for this node itself.
    pub(crate) node: Option<NodeId>,
    pub(crate) id: ReadId,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Waiting for the first commit of the term.
    early: Vec<Reader>,
    /// Waiting for a round: the reader, the index it may read at, the round.
    waiting: VecDeque<(Reader, Index, Round)>,
}

impl Reads {
    pub(crate) fn early(&mut self, reader: Reader) {
        self.early.push(reader);
    }

    pub(crate) fn wait(&mut self, reader: Reader, index: Index, round: Round) {
        self.waiting.push_back((reader, index, round));
    }

    pub(crate) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    pub(crate) fn take_early(&mut self) -> Vec<Reader> {
        ::core::mem::take(&mut self.early)
    }

    /// The next read that a quorum's answer to `round` confirms.
    pub(crate) fn confirmed(&mut self, round: Round) -> Option<(Reader, Index)> {
        let (reader, index, _) = *self.waiting.front().filter(|(_, _, began)| *began <= round)?;
        self.waiting.pop_front();
        Some((reader, index))
    }

    pub(crate) fn cancel(&mut self, id: ReadId) {
        let keep = |r: &Reader| r.node.is_some() || r.id != id;
        self.early.retain(keep);
        self.waiting.retain(|(r, _, _)| keep(r));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everyone who waits: leadership is lost.
    pub(crate) fn into_readers(self) -> impl Iterator<Item = Reader> {
        self.early
            .into_iter()
            .chain(self.waiting.into_iter().map(|(r, _, _)| r))
    }
}

impl Consensus {
    /// A read of this node's own clients.
    pub(crate) fn on_read(&mut self, id: ReadId) {
        match &mut self.state {
            State::Leader(_) => self.begin_read(Reader { node: None, id }),
            State::Follower(Follower {
                leader: Some(leader),
                reads,
                ..
            }) => {
                let leader = *leader;
                reads.push(id);
                self.send(leader, Call::ReadIndex { id });
            }
            _ => self.said.push(Output::ReadRefused(id)),
        }
    }

    /// A follower asks on behalf of its clients.
    pub(crate) fn on_read_index(&mut self, from: NodeId, id: ReadId) {
        if matches!(self.state, State::Leader(_)) {
            self.begin_read(Reader { node: Some(from), id });
        } else {
            self.send(from, Call::ReadIndexReply { id, index: None });
        }
    }

    /// Notes the commit index and waits for a round that begins now.
    pub(crate) fn begin_read(&mut self, reader: Reader) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if self.commit < leader.term_start {
            leader.reads.early(reader);
            return;
        }
        // The round that the next flush begins; a round that is under way may have been answered before this read came.
        leader.reads.wait(reader, self.commit, leader.round.next());
        leader.round_due = true;
    }

    /// Answers every read whose round a quorum has answered, and lets the lease run from it.
    #[inline]
    pub(crate) fn confirm_round(&mut self) {
        if let State::Leader(leader) = &self.state
            && !(leader.reads.is_empty() && leader.lease.is_idle())
        {
            self.confirm_answered();
        }
    }

    fn confirm_answered(&mut self) {
        let configuration = self.log.configuration();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let (own, current) = (self.config.node, leader.round);
        let round = configuration.quorum_value(|n| match leader.peers.iter().find(|p| p.id == n) {
            Some(peer) if peer.trust.counts() => peer.round,
            Some(_) => Round::ZERO,
            None if n == own => current,
            None => Round::ZERO,
        });
        leader.lease.confirm(round);
        while let State::Leader(leader) = &mut self.state
            && let Some((reader, index)) = leader.reads.confirmed(round)
        {
            match reader.node {
                None => self.said.push(Output::ReadReady { id: reader.id, index }),
                Some(node) => self.send(
                    node,
                    Call::ReadIndexReply {
                        id: reader.id,
                        index: Some(index),
                    },
                ),
            }
        }
    }

    /// The leader's answer to a follower's question.
    pub(crate) fn on_read_index_reply(&mut self, id: ReadId, index: Option<Index>) {
        let State::Follower(follower) = &mut self.state else {
            return;
        };
        let Some(place) = follower.reads.iter().position(|r| *r == id) else {
            return;
        };
        follower.reads.swap_remove(place);
        self.said.push(match index {
            Some(index) => Output::ReadReady { id, index },
            None => Output::ReadRefused(id),
        });
    }
}
