//! Forwarding: a follower sends its clients' appends to the leader, and learns from its own log what
//! became of them.
//!
//! Each carries a number, which rises by one, and the term in which the leader was seen; it is never
//! sent in another. The leader answers first where it put the append, and from then on this node's own
//! committed log tells the rest, even if the leader dies. Once sent, only an explicit refusal, or another
//! term's record committed in its place, means *not applied*; everything else is *unknown*.
//! Invariants: numbers and terms rise along the queue; what waits here is bounded in bytes, payloads
//! being kept because they may have to be sent again.

use crate::{
    driver::Driver,
    ports::Ports,
    request::{Failure, Reply, Token},
    route::Append,
    waiters::Waiter,
};
use kontiki_consensus::{Duration, LogId, NodeId, Term, Time};
use kontiki_wire::{PeerMessage, Propose, ProposeAnswer, ProposeReply, Refusal};
use std::collections::VecDeque;

/// An append is sent again after patience, then after twice that, up to this many times as long.
const PATIENCE_GROWS_TO: u64 = 8;

/// Everything that was sent to a leader and not answered.
#[derive(Debug)]
pub(crate) struct Forwards {
    /// This life of the node.
    origin: u64,
    /// The next number.
    next: u64,
    queue: VecDeque<Forward>,
    bytes: usize,
    /// The latest term whose leader has said that it leads no more.
    refused_in: Term,
}

#[derive(Debug)]
struct Forward {
    number: u64,
    leader: NodeId,
    term: Term,
    append: Append,
    resend_at: Time,
    patience: Duration,
    /// When to give up because that term is over; not before the deadline as long as it is not.
    abandon_at: Time,
}

impl Forwards {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            origin: crate::drawn(seed, 1),
            next: 1,
            queue: VecDeque::new(),
            bytes: 0,
            refused_in: Term::ZERO,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the leader of `term` may be sent anything: not after it said that it leads no more.
    pub(crate) fn takes(&self, term: Term) -> bool {
        term > self.refused_in
    }

    /// The first number the leader of this term has still to answer.
    fn settled(&self, term: Term) -> u64 {
        let first = self.queue.partition_point(|f| f.term < term);
        self.queue
            .get(first)
            .filter(|f| f.term == term)
            .map_or(self.next, |f| f.number)
    }

    fn add(&mut self, forward: Forward) {
        self.bytes += forward.append.proposal.weight();
        self.next = forward.number.saturating_add(1);
        self.queue.push_back(forward);
    }

    fn packet(&self, forward: &Forward, settled: u64) -> PeerMessage {
        PeerMessage::Propose(Propose {
            origin: self.origin,
            number: forward.number,
            settled,
            term: forward.term,
            expect: forward.append.proposal.expect,
            session: forward.append.proposal.session,
            payload: forward.append.proposal.payload.clone(),
        })
    }

    /// Removes what this answer is for. `None` if nothing waits for it, or it cannot be true.
    fn answered(&mut self, from: NodeId, reply: &ProposeReply) -> Option<Forward> {
        if reply.origin != self.origin {
            return None;
        }
        let place = self
            .queue
            .binary_search_by_key(&reply.number, |f| f.number)
            .ok()?;
        let forward = self.queue.get(place).filter(|f| f.leader == from)?;
        // A retry of what a session has appended before is told where that is: in an earlier term perhaps.
        let before = forward.append.proposal.needs_sessions();
        let possible = |at: LogId| at.term == forward.term || (before && at.term < forward.term);
        if matches!(reply.answer, ProposeAnswer::Assigned { at, .. } if !possible(at)) {
            return None;
        }
        let forward = self.queue.remove(place)?;
        self.bytes -= forward.append.proposal.weight();
        Some(forward)
    }

    /// Something that was sent to this peer is lost: sends again what it has not answered, at the next look.
    pub(crate) fn resend_soon(&mut self, peer: NodeId, now: Time) {
        for forward in self.queue.iter_mut().filter(|f| f.leader == peer) {
            forward.resend_at = forward.resend_at.min(now);
        }
    }

    /// Terms before this one are over. Who led them may still answer, and is asked once more at once; but
    /// it is not waited for beyond `until`.
    pub(crate) fn abandon_before(&mut self, term: Term, now: Time, until: Time) {
        let over = self.queue.iter_mut().take_while(|f| f.term < term);
        for forward in over.filter(|f| f.abandon_at == Time::MAX) {
            forward.abandon_at = until;
            forward.resend_at = now;
        }
    }

    /// Takes out what has waited too long, and says why.
    pub(crate) fn expire(&mut self, now: Time, late: &mut Vec<(Token, Failure)>) {
        let bytes = &mut self.bytes;
        self.queue.retain(|forward| {
            let why = if forward.append.deadline <= now {
                "it was sent to the leader, which did not answer before the deadline"
            } else if forward.abandon_at <= now {
                "the leader it was sent to was replaced, and has not answered"
            } else {
                return true;
            };
            *bytes -= forward.append.proposal.weight();
            late.push((forward.append.token, Failure::Unknown(why.into())));
            false
        });
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.bytes = 0;
        std::mem::take(&mut self.queue)
            .into_iter()
            .map(|f| f.append.token)
    }
}

impl Driver {
    /// Sends a client's append to the leader.
    pub(crate) fn forward(&mut self, now: Time, leader: NodeId, append: Append, ports: &mut impl Ports) {
        let bytes = self.forwards.bytes + append.proposal.weight();
        if !self.forwards.is_empty() && bytes > self.config.in_flight_bytes_max {
            return self.refuse(append.token, Refusal::Overloaded, ports);
        }
        let (term, patience) = (self.consensus.term(), self.patience());
        let forward = Forward {
            number: self.forwards.next,
            leader,
            term,
            append,
            resend_at: now.after(patience),
            patience,
            abandon_at: Time::MAX,
        };
        let packet = self.forwards.packet(&forward, self.forwards.settled(term));
        self.forwards.add(forward);
        ports.send(self.config.group, leader, packet);
    }

    /// Sends again what has not been answered for too long, or is known to be lost.
    pub(crate) fn resend_forwards(&mut self, now: Time, ports: &mut impl Ports) {
        let longest = Duration(self.patience().0.saturating_mul(PATIENCE_GROWS_TO));
        for n in 0..self.forwards.queue.len() {
            let Some(forward) = self.forwards.queue.get_mut(n).filter(|f| f.resend_at <= now) else {
                continue;
            };
            forward.resend_at = now.after(forward.patience);
            forward.patience = Duration(forward.patience.0.saturating_mul(2)).min(longest);
            let (term, leader) = (forward.term, forward.leader);
            let settled = self.forwards.settled(term);
            let Some(forward) = self.forwards.queue.get(n) else {
                continue;
            };
            let packet = self.forwards.packet(forward, settled);
            ports.send(self.config.group, leader, packet);
        }
    }

    /// A leader answers: where it put the append, or that it did not take it.
    pub(crate) fn take_answer(&mut self, from: NodeId, reply: ProposeReply, ports: &mut impl Ports) {
        let Some(Forward { term, append, .. }) = self.forwards.answered(from, &reply) else {
            return;
        };
        match reply.answer {
            ProposeAnswer::Assigned { at, first } => {
                let Append {
                    token,
                    deadline,
                    proposal,
                    ..
                } = append;
                self.wait_for(
                    at,
                    Waiter {
                        token,
                        deadline,
                        first,
                        count: proposal.payload.count,
                        session: proposal.session,
                    },
                    ports,
                );
            }
            ProposeAnswer::Refused(Refusal::NotLeader { .. }) => {
                // Never taken: it goes to the next leader, before what its clients asked later.
                self.forwards.refused_in = self.forwards.refused_in.max(term);
                self.parked.put(append);
            }
            ProposeAnswer::Refused(refusal) => {
                ports.reply(append.token, Reply::Failed(Failure::Refused(refusal)));
            }
        }
    }
}
