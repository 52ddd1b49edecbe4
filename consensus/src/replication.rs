//! Log replication at the leader: paper §5.3, with pipelining (dissertation §10.2.1) and a window in bytes.
//!
//! Invariants: a leader never removes or rewrites a record of its own (Leader Append-Only); what a
//! follower is sent begins just after a record it was told of; what a refusal says about records that
//! are known to be on its disk is an old story and is ignored, or else proves a loss (`suspect`).

use crate::{
    Call, Conflict, Consensus, Index, LogId, NodeId, Note, Output, Round, Run, Runs, Time,
    progress::{Mode, Progress},
    role::State,
};
use alloc::vec::Vec;

impl Consensus {
    /// The answer to AppendEntries, of the current term.
    pub(crate) fn on_append_entries_reply(
        &mut self,
        now: Time,
        from: NodeId,
        round: Round,
        persisted: Index,
        received: Index,
        conflict: Option<Conflict>,
    ) {
        let last = self.log.last().index;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let newest = leader.round;
        let Some(peer) = leader.peer(from) else { return };
        if persisted > last || received > last {
            self.fail("a follower acknowledged records that its leader does not have");
            return;
        }
        let old_round = peer.round;
        let moved = peer.acknowledged(round, persisted, received, now);
        if moved {
            peer.matched_in = newest;
        }
        let answered = round > old_round;
        match conflict {
            Some(conflict) => self.on_conflict(from, round, conflict),
            None => peer.follow_up(),
        }
        // What is committed already is committed by no further answer.
        if moved && persisted > self.commit {
            self.advance_commit();
        }
        if answered {
            self.confirm_round();
        }
    }

    /// Goes back to where the logs may agree, skipping whole terms (§5.3, end).
    fn on_conflict(&mut self, from: NodeId, round: Round, conflict: Conflict) {
        let next = self.next_after(conflict);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(peer) = leader.peer(from) else { return };
        if conflict.prev <= peer.matched {
            // The answer to an older round may have been overtaken by what it refuses.
            if round > peer.matched_in {
                self.loss_is_proven(from, next);
            }
            return;
        }
        if !peer.awaits_answer_at(conflict.prev) {
            return;
        }
        peer.probe(next);
        let next = peer.next;
        self.note(Note::Backtracked { peer: from, next });
    }

    /// Where to go on with a follower that refused: just after where the logs may agree.
    pub(crate) fn next_after(&self, conflict: Conflict) -> Index {
        // What lies before the base is no longer here to be compared: a snapshot goes out from there.
        let base = self.log.base().index;
        let agreement = self.log.furthest_agreement(conflict.hint);
        agreement.map_or(base, |a| a.index.next()).min(conflict.prev)
    }

    /// What was sent is lost: look again for where the follower's log ends.
    pub(crate) fn on_send_dropped(&mut self, peer: NodeId) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(peer) = leader.peer(peer) else { return };
        peer.dropped();
    }

    /// Records came from disk for a follower that is behind what memory holds.
    pub(crate) fn on_fetched(&mut self, now: Time, id: NodeId, from: Index, runs: Vec<Run>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let asked = |p: &Progress| p.id == id && p.fetching == Some(from);
        let Some(n) = leader.peers.iter().position(asked) else {
            return;
        };
        let peer = &mut leader.peers[n];
        peer.fetching = None;
        let genuine = runs.first().is_some_and(|r| r.first() == from)
            && runs.iter().all(|r| self.log.holds(r.last_id()));
        if !genuine {
            // Asking again at once would only turn in circles.
            peer.pause(now);
        } else if from == peer.next {
            self.send_runs(now, n, runs.into());
        }
    }

    /// Sends every follower what it lacks, or at least that this server still leads.
    pub(crate) fn replicate(&mut self, now: Time) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if ::core::mem::take(&mut leader.round_due) {
            leader.round = leader.round.next();
            if self.config.lease_drift_ppm.is_some() {
                let apart = self.config.lease_rounds_apart();
                leader.lease.begin(leader.round, now, apart);
            }
        }
        let announced = leader.announce(now, self.commit, self.config.commit_delay);
        let (base, last, round) = (self.log.base().index, self.log.last().index, leader.round);
        let patience = self.config.election_timeout_min;
        let lacks = |peer: &Progress| !peer.is_served(last, round, announced) || peer.is_lost(now, patience);
        let mut n = 0;
        while let State::Leader(leader) = &self.state
            && let Some(ahead) = leader.peers.get(n..)
            && let Some(next) = ahead.iter().position(lacks)
        {
            n += next;
            if leader.peers[n].keeps_up(last, base) && !leader.peers[n].is_lost(now, patience) {
                self.keep_informed(n);
            } else {
                self.replicate_to(now, n);
            }
            n += 1;
        }
        // A leader that is a quorum by itself has nobody's answer to wait for.
        self.confirm_round();
    }

    #[inline(never)]
    fn replicate_to(&mut self, now: Time, n: usize) {
        let (last, base) = (self.log.last().index, self.log.base().index);
        let (window, patience) = (self.config.window_bytes_max, self.config.election_timeout_min);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let peer = &mut leader.peers[n];
        if peer.is_lost(now, patience) {
            peer.give_up();
        }
        if peer.may_need_snapshot(base) {
            self.tell_of_snapshot(now, n);
        }
        while let State::Leader(leader) = &self.state
            && let peer = &leader.peers[n]
            && let probing = matches!(peer.mode, Mode::Probe { .. })
            && peer.may_send(window)
            && (peer.next <= last || probing)
            && self.send_from_log(now, n)
            && !probing
        {}
        self.keep_informed(n);
    }

    /// Sends what memory holds from the next record on; asks the disk if it does not. False if nothing more can be sent.
    #[inline]
    fn send_from_log(&mut self, now: Time, n: usize) -> bool {
        let State::Leader(leader) = &mut self.state else {
            return false;
        };
        let peer = &mut leader.peers[n];
        let (next, last) = (peer.next, self.log.last().index);
        let bytes_max = peer
            .room(self.config.window_bytes_max)
            .min(self.config.message_bytes_max);
        let runs = match self.log.runs(next, last, bytes_max) {
            Some(runs) => runs,
            // The place where the logs agree is found without records: the disk is read once, from there.
            None if matches!(peer.mode, Mode::Probe { .. }) => Runs::new(),
            None => {
                peer.fetching = Some(next);
                let (peer, from, to) = (peer.id, next, last);
                self.said.push(Output::Fetch {
                    peer,
                    from,
                    to,
                    bytes_max,
                });
                return false;
            }
        };
        self.send_runs(now, n, runs);
        true
    }

    #[inline]
    fn send_runs(&mut self, now: Time, n: usize, runs: Runs) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let (commit, round, peer) = (self.commit, leader.round, &mut leader.peers[n]);
        let index = peer.next.prev();
        let Some(term) = self.log.term_at(index) else {
            return;
        };
        let (last, weight) = match &runs[..] {
            [run] => (run.last(), run.weight()),
            runs => (
                runs.last().map_or(index, Run::last),
                runs.iter().map(Run::weight).sum(),
            ),
        };
        peer.sent(last, weight, now);
        (peer.told_round, peer.told_commit) = (round, commit);
        let (id, prev) = (peer.id, LogId::new(term, index));
        let standing = peer.standing(commit);
        self.send(
            id,
            Call::AppendEntries {
                prev,
                commit,
                round,
                standing,
                runs,
            },
        );
    }

    /// A new round, or a commit index that is to be told, goes alone if no record carried it, just after what is known to agree.
    fn keep_informed(&mut self, n: usize) {
        let (commit, log) = (self.commit, &self.log);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let (round, peer) = (leader.round, &mut leader.peers[n]);
        if peer.told_round >= round && peer.told_commit >= leader.announced {
            return;
        }
        (peer.told_round, peer.told_commit) = (round, commit);
        let (id, index) = (peer.id, peer.matched);
        // Before the base nothing but the beginning is sure to agree.
        let prev = log
            .term_at(index)
            .map_or(LogId::ZERO, |term| LogId::new(term, index));
        let standing = peer.standing(commit);
        self.send(
            id,
            Call::AppendEntries {
                prev,
                commit,
                round,
                standing,
                runs: Runs::new(),
            },
        );
    }
}
