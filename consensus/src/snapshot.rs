//! Log compaction and snapshots: paper §7, dissertation §5.
//!
//! A server forgets the beginning of its log once a snapshot of its own covers it. A follower that lacks what
//! its leader has forgotten is told of the leader's snapshot and fetches it; once it is on the follower's
//! disk, the log begins anew after it. Invariants: the log never lacks what no durable snapshot covers; the
//! base, the commit index and the state only go forward, so that an older snapshot never takes the place of
//! newer state; what the log holds already is never replaced.
//!
//! The order at the follower, each step durable before the next: the snapshot is staged; the log begins
//! after it; then both the state may be replaced and the leader be told, since a restart between the two
//! finds in the log which snapshot the state must come from. A crash before the second leaves the old log
//! and a staged snapshot that nobody needs.
//!
//! Here it differs from the paper: a follower whose log holds the last record of a snapshot does not
//! replace its state and discard the prefix, for that tells it only that the prefix is committed.

use crate::{
    Base, Call, Cause, Consensus, Index, LogId, NodeId, Note, Output, Position, Time, progress::Mode,
    role::State,
};

impl Consensus {
    /// A snapshot of the own state is on disk.
    pub(crate) fn on_snapshot_taken(&mut self, last: LogId, position: Position) {
        if last.index <= self.snapshot.0.index {
            return;
        }
        let fits = self.log.holds(last) && self.may_end_at(last.index, position);
        if last.index > self.released || !fits {
            self.fail("a snapshot was taken of other records than were to be applied");
            return;
        }
        self.snapshot = (last, position);
    }

    /// What the log would begin after if it were forgotten up to `through`, with `position` the last user entry
    /// there; `None` if that is not in the log, or is forgotten.
    #[must_use]
    pub fn base_at(&self, through: Index, position: Position) -> Option<Base> {
        let fits = through > self.log.base().index && self.may_end_at(through, position);
        fits.then_some(())?;
        Some(Base {
            last: LogId::new(self.log.term_at(through)?, through),
            position,
            configuration: self.log.configuration_at(through)?.clone(),
        })
    }

    /// Forgets the log up to `through`.
    pub(crate) fn on_purge(&mut self, through: Index, position: Position) {
        if through <= self.log.base().index {
            return;
        }
        if through > self.snapshot.0.index {
            self.fail("the log was to be forgotten further than a snapshot covers it");
            return;
        }
        if !self.may_end_at(through, position) {
            self.fail("the log was to be forgotten up to another user entry than stands there");
            return;
        }
        if let Some(base) = self.log.purge(through, position) {
            self.writes.purge(base);
            self.note(Note::Purged { through });
        }
    }

    /// Whether `position` can be the last user entry up to `index`, as far as memory can tell.
    fn may_end_at(&self, index: Index, position: Position) -> bool {
        self.log.position_at(index).is_none_or(|known| known == position)
    }

    /// Those who were told of a snapshot that is no longer to be had are told of the newest.
    pub(crate) fn on_snapshot_gone(&mut self, last: LogId) {
        let snapshot = self.snapshot;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if last == snapshot.0 {
            return;
        }
        let told = leader.peers.iter_mut().filter(|p| p.offered() == Some(last));
        for peer in told {
            peer.offer(snapshot);
            let (peer, last) = (peer.id, snapshot.0);
            self.said.push(Output::Note(Note::SnapshotOffered { peer, last }));
        }
    }

    /// For a leader: the followers that are told of a snapshot, and the last record of the one each is told of.
    /// As long as a transfer of it makes progress, it should be kept, and the log after it too.
    pub fn snapshot_peers(&self) -> impl Iterator<Item = (NodeId, LogId)> + '_ {
        let peers = match &self.state {
            State::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        peers.iter().filter_map(|p| Some((p.id, p.offered()?)))
    }

    /// Tells a follower of the snapshot that it needs, if it needs one and has not been told lately.
    pub(crate) fn tell_of_snapshot(&mut self, now: Time, n: usize) {
        let (base, snapshot) = (self.log.base().index, self.snapshot);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let peer = &mut leader.peers[n];
        let (id, newly) = (peer.id, peer.needs_snapshot(base, snapshot));
        let call = match &mut peer.mode {
            Mode::Snapshot {
                last,
                position,
                told_at: told_at @ None,
            } => {
                *told_at = Some(now);
                let (last, position) = (*last, *position);
                Call::InstallSnapshot { last, position }
            }
            _ => return,
        };
        if newly {
            let last = snapshot.0;
            self.note(Note::SnapshotOffered { peer: id, last });
        }
        self.send(id, call);
    }

    /// The leader of this term says that it has a snapshot of what it can send no more.
    pub(crate) fn on_install_snapshot(&mut self, now: Time, from: NodeId, last: LogId, position: Position) {
        if !self.follow(now, from) {
            return;
        }
        if self.log_covers(last) {
            if let State::Follower(follower) = &mut self.state {
                follower.owes_reply = true;
            }
            return;
        }
        // A transfer that makes progress is given up only for a newer snapshot, whoever leads.
        if self.incoming.is_none_or(|under_way| under_way.index < last.index) {
            self.incoming = Some(last);
            self.said.push(Output::FetchSnapshot { from, last, position });
            self.note(Note::SnapshotAwaited { from, last });
        }
    }

    /// Whether this log holds, or has forgotten, the last record of a snapshot. Then all that the snapshot
    /// covers is here, and is known to be committed, for only committed state is in a snapshot.
    fn log_covers(&mut self, last: LogId) -> bool {
        let known = self.log.term_at(last.index);
        if last.index <= self.commit && known.is_some_and(|term| term != last.term) {
            self.fail("a snapshot and a committed record contradict each other");
        }
        if last.index <= self.commit {
            return true;
        }
        // A leader commits by counting, and will soon.
        let holds = known == Some(last.term);
        if holds && !matches!(self.state, State::Leader(_)) {
            self.know_committed(last.index);
        }
        holds
    }

    /// Everything up to here is committed, and therefore in the log of every leader of this term and later.
    fn know_committed(&mut self, index: Index) {
        self.commit = index;
        if let State::Follower(follower) = &mut self.state {
            follower.received = follower.received.max(index);
        }
    }

    /// Another server's snapshot is on this server's disk.
    pub(crate) fn on_snapshot_staged(&mut self, now: Time, base: Base) {
        let last = base.last;
        self.incoming = self.incoming.filter(|under_way| *under_way != last);
        // Said twice. The log may rest on it, or will; nor may an older one be dropped on which it still rests.
        if last == self.snapshot.0 || self.installing.is_some_and(|newest| last.index <= newest.index) {
            return;
        }
        if last.term > self.hard_state.term {
            self.note_cause(Cause::SnapshotInstalled);
            self.become_follower(now, last.term, None);
        }
        // A leader that lacks what is committed was deposed, and will hear of it.
        if self.log_covers(last) || matches!(self.state, State::Leader(_)) {
            self.said.push(Output::DropSnapshot { last });
        } else {
            self.install(base);
        }
    }

    /// Lets the log begin anew after `base`, which it does not hold and which is committed.
    fn install(&mut self, base: Base) {
        let last = base.last;
        // What was committed here before is in the snapshot too; of the rest nobody knows.
        let keep = self.commit;
        self.log.install(&base);
        self.snapshot = (last, base.position);
        self.installing = Some(last);
        self.writes.install(base, keep);
        self.know_committed(last.index);
        if let State::Follower(follower) = &mut self.state {
            follower.refused = None;
        }
    }

    /// A transfer is broken off; when the leader next tells of a snapshot, it is fetched.
    pub(crate) fn on_snapshot_failed(&mut self, last: LogId) {
        if self.incoming.is_some_and(|under_way| under_way == last) {
            self.incoming = None;
            self.note(Note::SnapshotFailed { last });
        }
    }

    /// The log has overtaken the transfer: what it brings is here already, or will be in no other way.
    pub(crate) fn drop_needless_snapshot(&mut self) {
        let leads = matches!(self.state, State::Leader(_));
        if let Some(last) = self.incoming
            && (leads || last.index <= self.commit)
        {
            self.incoming = None;
            self.said.push(Output::DropSnapshot { last });
        }
    }
}
