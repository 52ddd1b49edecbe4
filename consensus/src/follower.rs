//! AppendEntries at the follower: paper §5.3, Figure 2 "Receiver implementation".
//!
//! Invariants: a record is removed only if it conflicts with one the leader sent (never because a
//! message is short or old), and never one that is committed; an acknowledgement names only what is
//! known to equal the leader's log *in this term* and is on disk. While the disk is full nothing new is taken:
//! the log could not write it, and what waits behind it, terms and votes too, would wait with it.

use crate::{
    Call, Cause, Conflict, Consensus, Index, LogId, NodeId, Note, Round, Run, Runs, Standing, Time,
    role::State,
};

impl Consensus {
    /// AppendEntries of the current term.
    pub(crate) fn on_append_entries(
        &mut self,
        now: Time,
        from: NodeId,
        (prev, commit, round): (LogId, Index, Round),
        standing: Standing,
        runs: Runs,
    ) {
        if !self.follow(now, from) {
            return;
        }
        self.heed(round, standing);
        let empty = runs.is_empty();
        // What a snapshot covers is committed: this leader has it too (paper §7, Leader Completeness).
        let agrees = prev.index < self.log.base().index || self.log.holds(prev);
        let received = agrees.then(|| self.take_runs(prev, runs));
        let on_disk = self.writes.persisted();
        let State::Follower(follower) = &mut self.state else {
            return;
        };
        let new_round = round > follower.round;
        follower.round = follower.round.max(round);
        let Some(received) = received else {
            // The leader sent this behind what had no room: a refusal would bring that again at once, in circles.
            let behind_full = self.disk_full && prev.index > self.log.last().index;
            follower.owes_reply |= new_round || !behind_full;
            follower.refused = if behind_full { follower.refused } else { Some(prev) };
            return;
        };
        // What is not on disk yet is answered when it is; only what is there already would stay unanswered.
        follower.owes_reply |= new_round || (!empty && received <= on_disk);
        follower.received = follower.received.max(received);
        self.commit = self.commit.max(commit.min(follower.received));
    }

    /// Accepts `from` as the leader of this term. False if that breaks Election Safety.
    pub(crate) fn follow(&mut self, now: Time, from: NodeId) -> bool {
        match &mut self.state {
            State::Leader(_) => {
                self.fail("another server leads the same term");
                return false;
            }
            State::Follower(follower) if follower.leader == Some(from) => {}
            State::Follower(follower) if follower.leader.is_some() => {
                self.fail("two servers lead the same term");
                return false;
            }
            State::Follower(follower) => {
                follower.leader = Some(from);
                self.note_cause(Cause::LeaderHeard(from));
                self.note_role();
            }
            _ => {
                self.note_cause(Cause::LeaderHeard(from));
                self.become_follower(now, self.hard_state.term, Some(from));
            }
        }
        self.heard(now, from);
        true
    }

    /// Appends what is new, removing what conflicts, if there is room. Gives how far the log now equals the leader's.
    fn take_runs(&mut self, prev: LogId, runs: Runs) -> Index {
        if runs.is_empty() {
            return prev.index;
        }
        if prev.index == self.log.last().index && !self.disk_full {
            return self.take_new_runs(prev.index, runs);
        }
        let mut end = prev.index;
        for run in &runs {
            if run.first() != end.next() || self.fatal.is_some() {
                break;
            }
            // Log Matching: if the last record is there, all before it are (§5.3).
            if run.last() > self.log.base().index && !self.log.holds(run.last_id()) {
                if self.disk_full {
                    return end.max(self.agreement_in(run));
                }
                self.take_run(run);
            }
            end = run.last();
        }
        end
    }

    /// Nothing here to compare with: the log ends at `end`. The message's own list goes on into the write.
    fn take_new_runs(&mut self, mut end: Index, mut runs: Runs) -> Index {
        let mut consecutive = 0;
        for run in &runs {
            if run.first() != end.next() {
                break;
            }
            end = run.last();
            consecutive += 1;
            self.log.append(run.clone());
        }
        if consecutive < runs.len() {
            runs.truncate(consecutive);
        }
        self.writes.append_all(runs);
        self.log.last().index
    }

    /// The last record of a run that is here already, if any is. One term, so that the part that is here
    /// ends where this log's term ends.
    fn agreement_in(&self, run: &Run) -> Index {
        let base = self.log.base();
        let agreed = self.log.furthest_agreement(run.last_id()).unwrap_or(base);
        if agreed.term == run.term() {
            agreed.index
        } else {
            Index::ZERO
        }
    }

    fn take_run(&mut self, run: &Run) {
        let first_new = self.agreement_in(run).next().max(run.first());
        let Some(new) = run.slice(first_new, run.last()) else {
            return;
        };
        if first_new <= self.log.last().index {
            if first_new <= self.commit {
                self.fail("a leader's log conflicts with a committed record");
                return;
            }
            self.note(Note::Truncated { from: first_new });
            self.writes.truncate(first_new);
            self.log.truncate(first_new, &new);
        }
        self.writes.append(new.clone());
        self.log.append(new);
    }

    /// A leader of an earlier term learns that there is a later one (Figure 2, AppendEntries, 1).
    pub(crate) fn refuse_old_leader(&mut self, from: NodeId) {
        let zero = Index::ZERO;
        let call = Call::AppendEntriesReply {
            round: Round::ZERO,
            persisted: zero,
            received: zero,
            conflict: None,
            suspect: self.hard_state.suspect,
        };
        self.send(from, call);
    }

    /// One answer a flush: because the leader asked, or because more of its records are now on disk.
    pub(crate) fn reply_to_leader(&mut self) {
        let on_disk = self.writes.persisted();
        let State::Follower(follower) = &mut self.state else {
            return;
        };
        let Some(leader) = follower.leader else { return };
        let persisted = follower.received.min(on_disk);
        if !follower.owes_reply && persisted <= follower.acknowledged {
            return;
        }
        follower.owes_reply = false;
        follower.acknowledged = persisted;
        let base = self.log.base();
        let conflict = follower.refused.take().map(|prev| Conflict {
            prev: prev.index,
            hint: self.log.furthest_agreement(prev).unwrap_or(base),
        });
        let call = Call::AppendEntriesReply {
            round: follower.round,
            persisted,
            received: follower.received,
            conflict,
            suspect: self.hard_state.suspect,
        };
        self.send(leader, call);
    }
}
