//! Log replication at the leader: paper §5.3, with pipelining (dissertation §10.2.1) and a window in bytes.
//!
//! Invariants: a leader never removes or rewrites a record of its own (Leader Append-Only); what a
//! follower is sent begins just after a record it was told of; what a refusal says about records that
//! are known to be on its disk is an old story and is ignored.

use crate::{
    Call, Conflict, Consensus, Index, LogId, NodeId, Note, Output, Round, Run, Runs, Time, progress::Mode,
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
        let Some(peer) = leader.peer(from) else { return };
        if persisted > last || received > last {
            self.fail("a follower acknowledged records that its leader does not have");
            return;
        }
        let old_round = peer.round;
        let moved = peer.acknowledged(round, persisted, received, now);
        let answered = round > old_round;
        match conflict {
            Some(conflict) => self.on_conflict(from, conflict),
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
    fn on_conflict(&mut self, from: NodeId, conflict: Conflict) {
        // What lies before the base is no longer here to be compared: a snapshot goes out from there.
        let base = self.log.base().index;
        let agreement = self.log.furthest_agreement(conflict.hint);
        let next = agreement.map_or(base, |a| a.index.next());
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(peer) = leader.peer(from) else { return };
        if conflict.prev <= peer.matched || !peer.awaits_answer_at(conflict.prev) {
            return;
        }
        peer.probe(next.min(conflict.prev));
        let next = peer.next;
        self.note(Note::Backtracked { peer: from, next });
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
        let Some(peer) = leader.peer(id).filter(|p| p.fetching == Some(from)) else {
            return;
        };
        peer.fetching = None;
        let genuine = runs.first().is_some_and(|r| r.first() == from)
            && runs.iter().all(|r| self.log.holds(r.last_id()));
        if !genuine {
            // Asking again at once would only turn in circles.
            peer.pause(now);
        } else if from == peer.next {
            self.send_runs(now, id, runs.into());
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
        for n in 0..leader.peers.len() {
            self.replicate_to(now, n);
        }
        // A leader that is a quorum by itself has nobody's answer to wait for.
        self.confirm_round();
    }

    fn replicate_to(&mut self, now: Time, n: usize) {
        let last = self.log.last().index;
        let (window, patience) = (self.config.window_bytes_max, self.config.election_timeout_min);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let round = leader.round;
        let peer = &mut leader.peers[n];
        if peer.is_lost(now, patience) {
            peer.give_up();
        } else if peer.is_served(last, round, self.commit) {
            return;
        }
        self.tell_of_snapshot(now, n);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let peer = &mut leader.peers[n];
        let (id, probing) = (peer.id, matches!(peer.mode, Mode::Probe { .. }));
        while let State::Leader(leader) = &self.state
            && leader.peers[n].may_send(window)
            && (leader.peers[n].next <= last || probing)
            && self.send_from_log(now, id, leader.peers[n].next)
            && !probing
        {}
        self.keep_informed(n, round);
    }

    /// Sends what memory holds from `next` on; asks the disk if it does not. False if nothing more can be sent.
    fn send_from_log(&mut self, now: Time, id: NodeId, next: Index) -> bool {
        let (window, message) = (self.config.window_bytes_max, self.config.message_bytes_max);
        let State::Leader(leader) = &mut self.state else {
            return false;
        };
        let bytes_max = leader.peer(id).map_or(0, |p| p.room(window)).min(message);
        let last = self.log.last().index;
        if let Some(runs) = self.log.runs(next, last, bytes_max) {
            self.send_runs(now, id, runs);
            return true;
        }
        let State::Leader(leader) = &mut self.state else {
            return false;
        };
        let Some(peer) = leader.peer(id) else { return false };
        if matches!(peer.mode, Mode::Probe { .. }) {
            // The place where the logs agree is found without records: the disk is read once, from there.
            self.send_runs(now, id, Runs::new());
            return true;
        }
        peer.fetching = Some(next);
        self.said.push(Output::Fetch {
            peer: id,
            from: next,
            to: last,
            bytes_max,
        });
        false
    }

    fn send_runs(&mut self, now: Time, id: NodeId, runs: Runs) {
        let (commit, log) = (self.commit, &self.log);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let round = leader.round;
        let Some(peer) = leader.peer(id) else { return };
        let index = peer.next.prev();
        let Some(term) = log.term_at(index) else { return };
        peer.sent(
            runs.last().map_or(index, Run::last),
            runs.iter().map(Run::weight).sum(),
            now,
        );
        (peer.told_round, peer.told_commit) = (round, commit);
        let prev = LogId::new(term, index);
        self.send(
            id,
            Call::AppendEntries {
                prev,
                commit,
                round,
                runs,
            },
        );
    }

    /// A new round or commit index that no record carried goes alone, just after what is known to agree.
    fn keep_informed(&mut self, n: usize, round: Round) {
        let (commit, log) = (self.commit, &self.log);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let peer = &mut leader.peers[n];
        if peer.told_round >= round && peer.told_commit >= commit {
            return;
        }
        (peer.told_round, peer.told_commit) = (round, commit);
        let (id, index) = (peer.id, peer.matched);
        // Before the base nothing but the beginning is sure to agree.
        let prev = log
            .term_at(index)
            .map_or(LogId::ZERO, |term| LogId::new(term, index));
        self.send(
            id,
            Call::AppendEntries {
                prev,
                commit,
                round,
                runs: Runs::new(),
            },
        );
    }
}
