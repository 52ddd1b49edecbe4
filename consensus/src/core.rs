//! The state of one server, and the short dispatcher through which everything happens to it.
//!
//! `step` decides and emits nothing; `flush` emits, once for however many events came in: one write,
//! what each peer needs to hear, how far may be applied.

use crate::{
    Admission, Call, Cause, Config, Configuration, Event, HardState, Index, LogId, Message, NodeId, Note,
    Output, Position, ReadId, Restored, Role, Run, Runs, Term, Time,
    log::Log,
    outbox::Outbox,
    patience::Wait,
    random::Random,
    role::{Follower, State},
    writes::Writes,
};
use alloc::{string::String, sync::Arc, vec::Vec};

/// What a message of a later term says of that term.
#[derive(Clone, Copy)]
enum Claim {
    /// Nothing: somebody would stand in it.
    PreVote,
    /// Somebody stands in it, and no leader has asked for that.
    Vote,
    /// Somebody is in it.
    Other,
}

impl Claim {
    #[inline]
    fn of(call: &Call) -> Self {
        match call {
            Call::RequestVote { pre: true, .. }
            | Call::RequestVoteReply {
                pre: true,
                granted: true,
                ..
            } => Self::PreVote,
            Call::RequestVote { transfer: false, .. } => Self::Vote,
            _ => Self::Other,
        }
    }
}

/// One server of a Raft cluster (Figure 2), without clock, disk or network.
#[derive(Debug)]
pub struct Consensus {
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) hard_state: HardState,
    pub(crate) state: State,
    pub(crate) log: Log,
    pub(crate) writes: Writes,
    pub(crate) outbox: Outbox,
    pub(crate) commit: Index,
    /// How far was said to be applicable.
    pub(crate) released: Index,
    /// The newest snapshot of this server's state and the last user entry in it; nothing but the beginning
    /// while there is none.
    pub(crate) snapshot: (LogId, Position),
    /// The last record of another server's snapshot whose transfer is under way.
    pub(crate) incoming: Option<LogId>,
    /// A snapshot that this log will begin after once the disk says so.
    pub(crate) installing: Option<LogId>,
    /// When a follower or candidate gives up waiting.
    pub(crate) election_deadline: Time,
    /// From which range that is drawn, as it was last worked out.
    pub(crate) wait: Option<Wait>,
    /// When a leader was last heard from; votes are refused for a while after.
    pub(crate) heard_at: Option<Time>,
    /// How often it has stood since then.
    pub(crate) tries: u8,
    /// Since then its process was late once, and it has waited once more.
    pub(crate) waited_once_more: bool,
    /// The leader that was said to be gone, and when that was heeded.
    pub(crate) hinted: Option<(NodeId, Time)>,
    pub(crate) disk_full: bool,
    /// The program above does not want this server to lead.
    pub(crate) must_not_lead: bool,
    /// What the next flush will say besides writes and messages.
    pub(crate) said: Vec<Output>,
    /// The time of the last flush, if nothing has happened since: at that time nothing more follows.
    flushed_at: Option<Time>,
    pub(crate) fatal: Option<String>,
}

impl Consensus {
    /// A server that starts from what its disk holds. `seed` decides its election timeouts.
    #[must_use]
    pub fn new(config: Config, restored: Restored, seed: u64, now: Time) -> Self {
        let hard_state = restored.hard_state;
        let base = (restored.base, restored.base_position);
        let snapshot = restored.snapshot.unwrap_or(base);
        // A snapshot is committed state: what it covers has been applied.
        let covered = snapshot.0.index;
        let log = Log::new(restored, config.tail_bytes_max);
        let follower = Follower {
            received: covered,
            ..Follower::default()
        };
        let mut this = Self {
            random: Random::new(seed),
            hard_state,
            state: State::Follower(follower),
            writes: Writes::new(log.last().index),
            log,
            outbox: Outbox::default(),
            commit: covered,
            released: covered,
            snapshot,
            incoming: None,
            installing: None,
            election_deadline: now,
            wait: None,
            // Before it died it may have promised a leader not to vote for so long.
            heard_at: config.lease_drift_ppm.map(|_| now),
            tries: 0,
            waited_once_more: false,
            hinted: None,
            disk_full: false,
            must_not_lead: false,
            said: Vec::new(),
            flushed_at: None,
            fatal: None,
            config,
        };
        let alone =
            this.configuration().voters == [this.config.node] && this.configuration().outgoing.is_empty();
        if !alone {
            this.restart_election_timer(now);
        }
        if !this.log.holds(snapshot.0) {
            this.fail("the newest snapshot ends at a record that is not in the log");
        }
        this
    }

    /// Takes in one event and decides. What follows from it comes out of [`flush`](Self::flush).
    pub fn step(&mut self, now: Time, event: Event) {
        if self.fatal.is_some() {
            return;
        }
        self.flushed_at = None;
        let before = (self.hard_state.term, self.commit, self.log.base().index);
        match event {
            Event::Timeout => self.on_timeout(now),
            Event::Late(late) => self.on_late(now, late),
            Event::Message(message) => self.on_message(now, message),
            Event::Propose(run) => self.on_propose(run),
            Event::Awaited => self.on_awaited(),
            Event::Persisted(id) => {
                if self.writes.complete(id) {
                    self.on_persisted(now);
                } else {
                    self.fail("a write was reported that was never given out");
                }
            }
            Event::Fetched { peer, from, runs } => self.on_fetched(now, peer, from, runs),
            Event::SendDropped(peer) => self.on_send_dropped(peer),
            Event::PeerGone(peer) => self.on_peer_gone(now, peer),
            Event::Read(id) => self.on_read(id),
            Event::CancelRead(id) => self.on_cancel_read(id),
            Event::DiskFull(full) => self.on_disk_full(now, full),
            Event::MayLead(may) => self.on_may_lead(now, may),
            Event::SnapshotTaken { last, position } => self.on_snapshot_taken(last, position),
            Event::Purge { through, position } => self.on_purge(through, position),
            Event::SnapshotGone(last) => self.on_snapshot_gone(last),
            Event::SnapshotStaged(base) => self.on_snapshot_staged(now, base),
            Event::SnapshotFailed(last) => self.on_snapshot_failed(last),
        }
        self.check_invariants(before);
    }

    /// Puts out everything that follows from the events since the last flush.
    pub fn flush(&mut self, now: Time, outputs: &mut Vec<Output>) {
        if self.fatal.is_some() {
            self.say_fatal(outputs);
        } else if self.flushed_at != Some(now) {
            self.flush_decisions(now, outputs);
        }
    }

    // Apart, so that a flush after which nothing happened costs nothing.
    #[inline(never)]
    fn flush_decisions(&mut self, now: Time, outputs: &mut Vec<Output>) {
        self.flushed_at = Some(now);
        // What is on disk can be read again, committed or not: before a new leader has committed in its
        // own term, a follower may have to take in any amount that nobody can apply yet.
        self.log.evict(self.writes.persisted());
        match &self.state {
            State::Leader(_) => self.replicate(now),
            State::Follower(_) => self.reply_to_leader(),
            _ => {}
        }
        self.writes.flush(outputs);
        self.outbox.flush(
            self.writes.hard_state_is_persisted(),
            self.hard_state.term,
            outputs,
        );
        if self.incoming.is_some() {
            self.drop_needless_snapshot();
        }
        self.release(outputs);
        if !self.said.is_empty() {
            outputs.append(&mut self.said);
        }
        if self.fatal.is_some() {
            self.say_fatal(outputs);
        }
    }

    #[cold]
    fn say_fatal(&self, outputs: &mut Vec<Output>) {
        outputs.extend(self.fatal.clone().map(Output::Fatal));
    }

    /// Says how far may be applied. While the log is being replaced by a snapshot nothing more may: what is
    /// committed is in the snapshot, and no longer here to be read.
    fn release(&mut self, outputs: &mut Vec<Output>) {
        if let Some(last) = self.installing {
            if !self.writes.install_is_persisted() {
                return;
            }
            self.installing = None;
            self.released = last.index;
            outputs.push(Output::InstallSnapshot { last });
            self.note(Note::SnapshotInstalled { last });
        }
        let applicable = self.commit.min(self.writes.persisted());
        if applicable > self.released {
            self.released = applicable;
            outputs.push(Output::Commit(applicable));
        }
    }

    /// When [`Event::Timeout`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        match &self.state {
            State::Leader(leader) => leader.next_heartbeat.min(leader.announce_at),
            _ if self.may_stand() => self.election_deadline,
            _ => Time::MAX,
        }
    }

    fn on_timeout(&mut self, now: Time) {
        if now < self.deadline() {
            return;
        }
        match &self.state {
            State::Leader(leader) if now >= leader.next_heartbeat => self.on_heartbeat_due(now),
            // The next flush tells what is committed.
            State::Leader(_) => {}
            _ => self.stand(now),
        }
    }

    /// Terms first (Figure 2, "Rules for Servers", all servers), then the call itself.
    fn on_message(&mut self, now: Time, message: Message) {
        if message.to != self.config.node || message.from == self.config.node {
            return;
        }
        if message.term > self.hard_state.term && !self.adopt_term_of(now, &message) {
            return;
        }
        let (from, term) = (message.from, message.term);
        let current = term == self.hard_state.term;
        match message.call {
            Call::RequestVote { pre, transfer, last } => {
                self.on_request_vote(now, from, term, pre, transfer, last)
            }
            Call::RequestVoteReply { pre, granted, .. } => self.on_vote(now, from, term, pre, granted),
            Call::AppendEntries { .. } | Call::InstallSnapshot { .. } if !current => {
                self.refuse_old_leader(from);
            }
            Call::InstallSnapshot { last, position } => self.on_install_snapshot(now, from, last, position),
            Call::AppendEntries {
                prev,
                commit,
                round,
                standing,
                runs,
            } => {
                self.on_append_entries(now, from, (prev, commit, round), standing, runs);
            }
            Call::AppendEntriesReply {
                round,
                persisted,
                received,
                conflict,
                suspect,
            } if current => {
                if self.heed_mark(now, from, (round, persisted, received, conflict), suspect) {
                    self.on_append_entries_reply(now, from, round, persisted, received, conflict);
                }
            }
            Call::ReadIndex { id } => self.on_read_index(from, id),
            Call::ReadIndexReply { id, index } if current => self.on_read_index_reply(id, index),
            Call::AppendEntriesReply { .. } | Call::ReadIndexReply { .. } => {}
        }
    }

    /// Takes over a later term, unless the message does not speak for one. False if it is to be ignored.
    fn adopt_term_of(&mut self, now: Time, message: &Message) -> bool {
        match Claim::of(&message.call) {
            // Nobody is in that term yet (dissertation §9.6).
            Claim::PreVote => true,
            // A disturber that a live leader's followers do not heed (dissertation §4.2.3).
            Claim::Vote if self.hears_a_leader(now) => false,
            _ => {
                self.note_cause(Cause::LaterTerm(message.from));
                self.become_follower(now, message.term, None);
                true
            }
        }
    }

    /// A later term's own write or vote may have been what was waited for.
    fn on_persisted(&mut self, now: Time) {
        self.count_own_vote(now);
        self.advance_commit();
    }

    /// Sends a message in the current term, through the gate.
    #[inline]
    pub(crate) fn send(&mut self, to: NodeId, call: Call) {
        self.send_in(self.hard_state.term, to, call);
    }

    #[inline]
    pub(crate) fn send_in(&mut self, term: Term, to: NodeId, call: Call) {
        let message = Message {
            from: self.config.node,
            to,
            term,
            call,
        };
        if let Err(broken) = self.outbox.push(Output::Send(message), self.writes.persisted()) {
            self.fail(broken);
        }
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.said.push(Output::Note(note));
    }

    pub(crate) fn note_role(&mut self) {
        self.note(Note::Role {
            term: self.hard_state.term,
            role: self.role(),
            leader: self.leader(),
        });
    }

    /// An invariant is broken: nothing more is decided here.
    #[cold]
    pub(crate) fn fail(&mut self, what: &str) {
        if self.fatal.is_none() {
            self.fatal = Some(alloc::format!(
                "{what} (node {}, term {}, commit {}, last {:?})",
                self.config.node,
                self.hard_state.term,
                self.commit,
                self.log.last()
            ));
        }
    }

    fn check_invariants(&mut self, (term, commit, base): (Term, Index, Index)) {
        let (last, now_base) = (self.log.last(), self.log.base().index);
        let replacing = self.installing.is_some();
        let broken = if self.hard_state.term < term {
            "the term went back"
        } else if self.commit < commit {
            "the commit index went back"
        } else if now_base < base {
            "the log grew at its beginning"
        } else if now_base > self.commit {
            "the log begins after what is committed"
        } else if now_base > self.snapshot.0.index {
            "no snapshot covers what the log lacks"
        } else if !replacing && now_base > self.released {
            "the log begins after what may be applied"
        } else if !replacing && now_base > self.writes.persisted() {
            "the log begins after what is persisted"
        } else if self.released > self.commit {
            "more may be applied than is committed"
        } else if self.commit > last.index {
            "more is committed than the log holds"
        } else if self.writes.persisted() > last.index {
            "more is persisted than the log holds"
        } else if last.term > self.hard_state.term {
            "the log holds a record of a later term"
        } else if self.log.is_sound() {
            return;
        } else if !self.log.has_configuration_at_base() {
            "the configuration in use where the log begins is not known"
        } else {
            "the terms of the log do not rise to its end"
        };
        self.fail(broken);
    }

    /// What the next proposal will be: `None` unless this server leads and has given out the no-op of
    /// its term to be applied: then what is applied and what is in flight is the whole prefix.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        let State::Leader(leader) = &self.state else {
            return None;
        };
        (self.released >= leader.term_start && self.fatal.is_none()).then(|| Admission {
            index: self.log.last().index.next(),
            term: self.hard_state.term,
            position: self.log.last_position().next(),
        })
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who got this server's vote in the current term.
    #[must_use]
    pub fn vote(&self) -> Option<NodeId> {
        self.hard_state.vote
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.state.role(self.configuration().is_voter(self.config.node))
    }

    /// The leader this server knows of in the current term; itself, if it leads.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Leader(_) => Some(self.config.node),
            State::Follower(follower) => follower.leader,
            _ => None,
        }
    }

    /// How far is known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The last record, persisted or not.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// The last user entry, persisted or not.
    #[must_use]
    pub fn last_position(&self) -> Position {
        self.log.last_position()
    }

    /// The last record on this server's disk.
    #[must_use]
    pub fn persisted(&self) -> Index {
        self.writes.persisted()
    }

    /// The configuration in use.
    #[must_use]
    pub fn configuration(&self) -> &Arc<Configuration> {
        self.log.configuration()
    }

    /// The configuration in use at `index`, as a snapshot up to there must carry it; `None` before the base
    /// and beyond the end of the log.
    #[must_use]
    pub fn configuration_at(&self, index: Index) -> Option<&Arc<Configuration>> {
        self.log.configuration_at(index)
    }

    /// The last record that the log no longer holds, because a snapshot covers it; zero if it holds all.
    #[must_use]
    pub fn base(&self) -> LogId {
        self.log.base()
    }

    /// The last user entry that the log no longer holds: the first one it holds is the next.
    #[must_use]
    pub fn base_position(&self) -> Position {
        self.log.base_position()
    }

    /// The last record that the newest snapshot of this server covers; zero if there is none.
    #[must_use]
    pub fn snapshot(&self) -> LogId {
        self.snapshot.0
    }

    /// Whether the log is to begin after another server's snapshot, and does not yet on disk: it still rests on the one before.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The term of the record at `index`; `None` before the base and beyond the end of the log.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The term of the user entry at `position`; `None` up to the base, beyond the end of the log and at zero.
    #[must_use]
    pub fn term_of(&self, position: Position) -> Option<Term> {
        self.log.term_of(position)
    }

    /// The position of the last user entry up to `index`, if memory can tell.
    #[must_use]
    pub fn position_at(&self, index: Index) -> Option<Position> {
        self.log.position_at(index)
    }

    /// Runs from `from` to `to` out of memory, about `bytes_max` bytes; `None` if they are only on disk.
    #[must_use]
    pub fn runs(&self, from: Index, to: Index, bytes_max: usize) -> Option<Vec<Run>> {
        self.log.runs(from, to, bytes_max).map(Runs::into_vec)
    }

    /// Records holding the user entries from `from` on and before `to`, no further than record `limit`,
    /// about `bytes_max` bytes; `None` if they are only on disk.
    #[must_use]
    pub fn runs_between(
        &self,
        from: Position,
        to: Position,
        limit: Index,
        bytes_max: usize,
    ) -> Option<Vec<Run>> {
        self.log
            .runs_between(from, to, limit, bytes_max)
            .map(Runs::into_vec)
    }

    /// The first record that is still in memory.
    #[must_use]
    pub fn tail_first(&self) -> Index {
        self.log.tail_first()
    }

    /// How many bytes of records are held in memory.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.log.tail_bytes()
    }

    /// For a leader: each follower and how far its disk is known to equal this log.
    pub fn matched(&self) -> impl Iterator<Item = (NodeId, Index)> + '_ {
        let peers = match &self.state {
            State::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        peers.iter().map(|p| (p.id, p.matched))
    }

    fn on_propose(&mut self, run: Run) {
        let place = Admission {
            index: run.first(),
            term: run.term(),
            position: run.first_position(),
        };
        if self.admission() == Some(place) {
            self.writes.append(run.clone());
            self.log.append(run);
        } else {
            self.fail("a proposal was sealed for another place");
        }
    }

    fn on_cancel_read(&mut self, id: ReadId) {
        match &mut self.state {
            State::Leader(leader) => leader.reads.cancel(id),
            State::Follower(follower) => follower.reads.retain(|r| *r != id),
            _ => {}
        }
    }
}
