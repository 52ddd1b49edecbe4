//! Elections: paper §5.2 and §5.4.1, with pre-vote and check-quorum from dissertation §9.6, §6.2 and §4.2.3.
//!
//! Invariants: one vote a term, on disk before anyone hears of it (the outbox sees to that); the own
//! vote counts only once it is on disk; nobody disturbs a leader that a quorum hears from.

use crate::{
    Body, Call, Cause, Consensus, HardState, LogId, NodeId, Note, Output, Run, Term, Time,
    lease::Lease,
    progress::Progress,
    reads::Reads,
    role::{Follower, Leader, State, Votes},
};
use alloc::vec::Vec;

impl Consensus {
    /// Whether this server may stand for election: it has a vote, a disk that can hold a log, and nothing above
    /// speaks against it.
    pub(crate) fn may_stand(&self) -> bool {
        !self.disk_full
            && !self.must_not_lead
            && !self.is_suspect()
            && self.configuration().is_voter(self.config.node)
    }

    /// Becomes a follower, in a later term or of a leader of this one.
    pub(crate) fn become_follower(&mut self, now: Time, term: Term, leader: Option<NodeId>) {
        self.leave_role();
        if term > self.hard_state.term {
            self.set_hard_state(HardState {
                term,
                vote: None,
                ..self.hard_state
            });
        }
        self.state = State::Follower(Follower {
            leader,
            received: self.commit,
            ..Follower::default()
        });
        self.restart_election_timer(now);
        self.note_role();
    }

    /// Asks for an election; first only whether it would be won (dissertation §9.6).
    pub(crate) fn stand(&mut self, now: Time) {
        self.note_cause(self.cause_to_stand(now));
        self.leave_role();
        self.heard_at = None;
        self.tries = self.tries.saturating_add(1);
        self.restart_election_timer(now);
        self.state = State::PreCandidate(Votes::default());
        self.note_role();
        let proposed = self.hard_state.term.next();
        self.request_votes(proposed, true);
        self.on_vote(now, self.config.node, proposed, true, true);
    }

    /// Stands: a new term, the own vote, and a request to everyone (§5.2).
    fn campaign(&mut self, now: Time) {
        let term = self.hard_state.term.next();
        self.set_hard_state(HardState {
            term,
            vote: Some(self.config.node),
            ..self.hard_state
        });
        self.state = State::Candidate(Votes::default());
        self.restart_election_timer(now);
        self.note_cause(Cause::PreVotesWon);
        self.note_role();
        self.request_votes(term, false);
    }

    fn request_votes(&mut self, term: Term, pre: bool) {
        let last = self.log.last();
        for peer in self.configuration().members() {
            if peer != self.config.node && self.configuration().is_voter(peer) {
                let call = Call::RequestVote {
                    pre,
                    transfer: false,
                    last,
                };
                self.send_in(term, peer, call);
            }
        }
    }

    /// RequestVote, "Receiver implementation".
    pub(crate) fn on_request_vote(
        &mut self,
        now: Time,
        from: NodeId,
        term: Term,
        pre: bool,
        transfer: bool,
        last: LogId,
    ) {
        let granted = if pre {
            let heeded = term > self.hard_state.term && !self.hears_a_leader(now) && !self.is_suspect();
            if heeded && last < self.log.last() {
                self.stand_instead(now);
            }
            heeded && last >= self.log.last()
        } else {
            term == self.hard_state.term && self.gives_vote(now, from, last, transfer)
        };
        let term = if pre && granted {
            term
        } else {
            self.hard_state.term
        };
        let suspect = self.hard_state.suspect;
        self.send_in(
            term,
            from,
            Call::RequestVoteReply {
                pre,
                granted,
                suspect,
            },
        );
    }

    /// Gives the vote of this term if it is free or already given to `from`, and its log is up to date.
    fn gives_vote(&mut self, now: Time, from: NodeId, last: LogId, transfer: bool) -> bool {
        // It may have voted for another and forgotten that.
        if self.is_suspect() {
            return false;
        }
        if self.hard_state.vote == Some(from) {
            return true;
        }
        let free = self.hard_state.vote.is_none() && self.leader().is_none();
        if !free || last < self.log.last() || (self.hears_a_leader(now) && !transfer) {
            return false;
        }
        if matches!(self.state, State::PreCandidate(_)) {
            self.note_cause(Cause::VoteGiven(from));
            self.become_follower(now, self.hard_state.term, None);
        }
        self.set_hard_state(HardState {
            vote: Some(from),
            ..self.hard_state
        });
        self.restart_election_timer(now);
        self.note(Note::Voted {
            term: self.hard_state.term,
            to: from,
        });
        true
    }

    /// A vote came in, or a refusal.
    pub(crate) fn on_vote(&mut self, now: Time, from: NodeId, term: Term, pre: bool, granted: bool) {
        let asked = if pre {
            self.hard_state.term.next()
        } else {
            self.hard_state.term
        };
        if pre && !granted && term == self.hard_state.term {
            self.ask_again(now);
        }
        if !granted || term != asked {
            return;
        }
        let configuration = self.log.configuration();
        let votes = match &mut self.state {
            State::PreCandidate(votes) if pre => votes,
            State::Candidate(votes) if !pre => votes,
            _ => return,
        };
        votes.granted.insert(from);
        if !configuration.has_quorum(|n| votes.granted.contains(&n)) {
            return;
        }
        if pre {
            self.campaign(now);
        } else {
            self.become_leader(now);
        }
    }

    /// The own vote counts once it is on disk.
    pub(crate) fn count_own_vote(&mut self, now: Time) {
        if matches!(self.state, State::Candidate(_)) && self.writes.hard_state_is_persisted() {
            self.on_vote(now, self.config.node, self.hard_state.term, false, true);
        }
    }

    /// Takes up leadership with a no-op of the new term (paper §8).
    fn become_leader(&mut self, now: Time) {
        let last = self.log.last().index;
        let members = self.configuration().members();
        let peers = members.into_iter().filter(|n| *n != self.config.node);
        self.state = State::Leader(Leader {
            term_start: last.next(),
            peers: peers.map(|id| Progress::new(id, last.next(), now)).collect(),
            round: crate::Round::ZERO,
            next_heartbeat: now.after(self.config.heartbeat_interval),
            round_due: true,
            reads: Reads::default(),
            lease: Lease::default(),
            announced: crate::Index::ZERO,
            announce_at: Time::MAX,
            awaited: crate::Index::ZERO,
        });
        self.append_noop();
        self.note_cause(Cause::Elected);
        self.note_role();
    }

    /// Appends a record of nothing in the own term; gives its place.
    pub(crate) fn append_noop(&mut self) -> crate::Index {
        let (index, position) = (self.log.last().index.next(), self.log.last_position().next());
        let noop = Run::new(index, self.hard_state.term, position, Body::Noop);
        self.writes.append(noop.clone());
        self.log.append(noop);
        index
    }

    /// A heartbeat is due: begin a round, unless no quorum has answered for too long (dissertation §6.2).
    pub(crate) fn on_heartbeat_due(&mut self, now: Time) {
        let configuration = self.log.configuration().clone();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let own = self.config.node;
        let heard_at = |n: NodeId| match leader.peers.iter().find(|p| p.id == n) {
            Some(peer) => peer.heard_at,
            None if n == own => now,
            None => Time::ZERO,
        };
        let quorum_heard_at = configuration.quorum_value(heard_at);
        leader.next_heartbeat = now.after(self.config.heartbeat_interval);
        leader.round_due = true;
        if now >= quorum_heard_at.after(self.config.election_timeout_max) {
            self.step_down(now, Cause::QuorumSilent(now.since(quorum_heard_at)));
        }
    }

    /// Gives up leadership within the term.
    pub(crate) fn step_down(&mut self, now: Time, why: Cause) {
        self.note(Note::SteppedDown(why.words()));
        self.note_cause(why);
        self.heard_at = None;
        self.become_follower(now, self.hard_state.term, None);
    }

    pub(crate) fn on_disk_full(&mut self, now: Time, full: bool) {
        let was_full = ::core::mem::replace(&mut self.disk_full, full);
        self.on_fitness(now, !full, was_full, Cause::DiskFull);
    }

    pub(crate) fn on_may_lead(&mut self, now: Time, may: bool) {
        let could_not = ::core::mem::replace(&mut self.must_not_lead, !may);
        self.on_fitness(now, may, could_not, Cause::MayNotLead);
    }

    /// This server may lead, or may not any more, and for which reason.
    fn on_fitness(&mut self, now: Time, may: bool, could_not: bool, why: Cause) {
        match &self.state {
            State::Leader(_) if !may => self.step_down(now, why),
            State::PreCandidate(_) | State::Candidate(_) if !may => {
                self.note_cause(why);
                self.become_follower(now, self.hard_state.term, None);
            }
            _ if could_not && may => self.restart_election_timer(now),
            _ => {}
        }
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
        self.writes.hard_state(state);
    }

    /// Answers everyone who waits for something that only this role could give.
    fn leave_role(&mut self) {
        let state = ::core::mem::replace(&mut self.state, State::Follower(Follower::default()));
        let (own, asking): (Vec<_>, Vec<_>) = match state {
            State::Leader(leader) => leader.reads.into_readers().partition(|r| r.node.is_none()),
            State::Follower(follower) => {
                self.said
                    .extend(follower.reads.into_iter().map(Output::ReadRefused));
                return;
            }
            _ => return,
        };
        self.said
            .extend(own.into_iter().map(|r| Output::ReadRefused(r.id)));
        for reader in asking {
            let Some(node) = reader.node else { continue };
            self.send(
                node,
                Call::ReadIndexReply {
                    id: reader.id,
                    index: None,
                },
            );
        }
    }
}
