//! The driver: takes what has happened, lets consensus decide, carries out what follows.
//!
//! It is the same code in production and in the simulator, owns no thread and no clock, and is
//! called by whichever thread has the event. `turn` drains the inbox, steps once for each input,
//! seals all appends that came in as one run, flushes, and dispatches each output. Invariants: every
//! request is answered exactly once; once stopped it answers and does nothing else; a turn ends: what
//! is refused within it waits for another turn.

use crate::{
    apply::Applied,
    clock::Clock,
    compare::{Compare, CompareConfig},
    expect::Checks,
    forward::Forwards,
    lives::Peers,
    machine::MachineError,
    meta::{Mark, Meta},
    ports::{Input, Ports},
    proposals::Gathered,
    reads::Reads,
    request::{Ask, Failure, Reply, Request, Token},
    roles::Roles,
    route::{Parked, Proposal},
    snapshots::{SnapshotConfig, Snapshots},
    taken::Taken,
    waiters::Waiters,
};
use kontiki_consensus::{
    Config, Consensus, Duration, Event, GroupId, Index, NodeId, Output, Position, Restored, Time,
};
use kontiki_log::LogEvent;
use kontiki_wire::{Identity, Packet, PeerMessage, Session, SessionLimits, lives::Lives};
use std::sync::Arc;

/// How often a full disk is asked for room: each time takes what room there is, if only for a moment.
const ROOM_INTERVAL: Duration = Duration::from_millis(1000);

/// How late a deadline is seen at most, if anybody waits; earlier where the heartbeat is shorter.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_millis(50);

/// Settings of a replica.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Its Raft group.
    pub group: GroupId,
    /// Who it is.
    pub identity: Identity,
    /// The life that it begins, and those that it knows of its peers, as they are on disk.
    pub lives: Lives,
    /// Its consensus; `consensus.node` is the same node as in `identity`.
    pub consensus: Config,
    /// How many bytes of records a leader takes in before they are committed; as many again may wait for
    /// a leader, be on their way to one unanswered, and be held for other nodes. More is refused as
    /// overloaded; a single append always has room.
    pub in_flight_bytes_max: usize,
    /// How large the payload of one append may be, in bytes.
    pub payload_bytes_max: usize,
    /// What is remembered of sessions that are opened while this node leads.
    pub sessions: SessionLimits,
    /// How much of the log is kept, and how snapshots are sent.
    pub snapshots: SnapshotConfig,
    /// How often replicas compare what they have become.
    pub compare: CompareConfig,
}

/// How often something rare happened in this life of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Retries that were answered from what is remembered.
    pub answered: u64,
    /// Retries that joined the append they repeat while it was in flight.
    pub joined: u64,
    /// Starts that went on behind a note of what is known of sessions, instead of going through the whole log.
    pub resumed: u64,
    /// Sessions that ended because they were silent for too long, or had to make room.
    pub expired: u64,
    /// Those among them that had to make room.
    pub evicted: u64,
    /// Nodes whose state machine was found to differ from this one's and a majority's.
    pub differing: u64,
    /// This node's state machine was found to differ from a majority's.
    pub quarantined: u64,
    /// Applying stopped because replicas differed and there was no majority.
    pub halted: u64,
    /// This node took over the state of one in the majority.
    pub resynced: u64,
    /// Reads that a leader answered under its lease, without a round.
    pub leased: u64,
    /// Reads with a bound on their age that an earlier round was good enough for.
    pub recent: u64,
    /// Reads that waited for an entry to be applied, and were then served.
    pub awaited: u64,
    /// Snapshots of the machine that were taken.
    pub taken: u64,
    /// Snapshots of the machine that were given up: the source failed, or there was no room.
    pub abandoned: u64,
    /// Snapshots that the machine has taken over.
    pub restored: u64,
}

/// One replica of one group.
#[derive(Debug)]
pub struct Driver {
    pub(crate) config: DriverConfig,
    pub(crate) consensus: Consensus,
    outputs: Vec<Output>,
    /// Appends that came in since the last run was sealed.
    pub(crate) gathered: Gathered,
    /// Appends that wait for a leader, in the order they came.
    pub(crate) parked: Parked,
    pub(crate) waiters: Waiters,
    pub(crate) checks: Checks,
    pub(crate) forwards: Forwards,
    pub(crate) taken: Taken,
    /// Whether another node was told of a place in the log since the last flush: it waits for that to be committed.
    pub(crate) awaited: bool,
    pub(crate) reads: Reads,
    pub(crate) applied: Applied,
    pub(crate) snapshots: Snapshots,
    /// The date in the last record that has one, ns since 1970: for people, nothing is decided by it.
    pub(crate) date: u64,
    pub(crate) clock: Clock,
    pub(crate) counts: Counts,
    pub(crate) compare: Compare,
    pub(crate) roles: Roles,
    pub(crate) peers: Peers,
    /// When to look again whether there is room on the disk, while it is full.
    retry_room: Option<Time>,
    /// What the log has said of damage that reads have met: at most `kontiki_log::DAMAGES_MAX` places.
    damages: Vec<Arc<str>>,
    pub(crate) stopped: Option<String>,
    /// The next look at what has waited too long.
    next_sweep: Time,
}

impl Driver {
    /// A replica that starts from what its disk holds. `seed` must differ at each start: it names this
    /// life of the node to its peers, and decides its election timeouts.
    #[must_use]
    pub fn new(config: DriverConfig, restored: Restored, seed: u64, now: Time) -> Self {
        let boot_term = restored.hard_state.term;
        let tail = restored.tail.clone();
        let mut this = Self {
            consensus: Consensus::new(config.consensus.clone(), restored, seed, now),
            outputs: Vec::new(),
            gathered: Gathered::default(),
            parked: Parked::default(),
            waiters: Waiters::default(),
            checks: Checks::default(),
            forwards: Forwards::new(seed),
            taken: Taken::new(boot_term),
            awaited: false,
            reads: Reads::new(seed),
            applied: Applied::default(),
            snapshots: Snapshots::default(),
            date: 0,
            clock: Clock::new(now, config.consensus.election_timeout_max),
            counts: Counts::default(),
            compare: Compare::new(config.compare, now),
            roles: Roles::default(),
            peers: Peers::new(config.lives.clone()),
            retry_room: None,
            damages: Vec::new(),
            stopped: None,
            next_sweep: now,
            config,
        };
        this.see_times(&tail);
        this
    }

    /// The same with a machine, which goes on behind `meta`. If the log does not hold what the machine has
    /// applied, this is not its log: the driver has stopped already, and says so.
    #[must_use]
    pub fn with_machine(
        config: DriverConfig,
        restored: Restored,
        mut meta: Meta,
        seed: u64,
        now: Time,
    ) -> Self {
        let mut this = Self::new(config, restored, seed, now);
        let (has, log) = (meta.at(), this.consensus.last());
        // What is before the beginning of the log is in a snapshot, which `restore` has it take over.
        let behind = has.index < this.consensus.base().index;
        if !behind && this.consensus.term_at(has.index) != Some(has.term) {
            let what = format!(
                "it has applied record {} of term {}, and the log ends at {} of term {}: it belongs to another log, or \
                 the log was put back to an earlier state",
                has.index, has.term, log.index, log.term
            );
            this.stopped = Some(MachineError::new(what).to_string());
        }
        // It is the machine's to keep; in a snapshot others would take it for theirs.
        let mark = std::mem::take(&mut meta.mark);
        this.clock.see(meta.sessions.clock());
        this.applied = Applied::with_machine(meta);
        match mark {
            Mark::Sound => {}
            Mark::Disputed { own, halted } => this.dispute_again(now, own, halted),
            Mark::Quarantined(index) => this.quarantine_again(now, index),
        }
        this
    }

    /// Handles everything in `inbox`, and whatever is due at `now`. Gives the time of the next call, at
    /// the latest. `wall` is the date in ns since 1970, for people only.
    pub fn turn(&mut self, now: Time, wall: u64, inbox: &mut Vec<Input>, ports: &mut impl Ports) -> Time {
        self.see_late(now);
        self.clock.pass(now);
        for input in inbox.drain(..) {
            self.take(now, input, ports);
        }
        if self.stopped.is_none() {
            if now >= self.consensus.deadline() {
                self.consensus.step(now, Event::Timeout);
            }
            self.sweep(now, ports);
            if self.retry_room.is_some_and(|at| now >= at) {
                self.retry_room = Some(now.after(ROOM_INTERVAL));
                ports.retry_room();
            }
            self.settle(now, wall, ports);
        }
        let due = if self.stopped.is_some() {
            Time::MAX
        } else {
            let room = self.retry_room.unwrap_or(Time::MAX);
            let chunk = self.chunk_due();
            self.consensus
                .deadline()
                .min(self.sweep_deadline())
                .min(room)
                .min(chunk)
        };
        self.next_due(due)
    }

    /// Admits, seals, flushes and dispatches until nothing more follows.
    fn settle(&mut self, now: Time, wall: u64, ports: &mut impl Ports) {
        while self.stopped.is_none() {
            self.admit(now, ports);
            self.seal(now, wall, ports);
            self.ask_reads(now);
            self.carry_on_reads(now, ports);
            self.see_to_comparisons(now, ports);
            self.see_to_snapshots(now, ports);
            if std::mem::take(&mut self.awaited) {
                self.consensus.step(now, Event::Awaited);
            }
            let mut outputs = std::mem::take(&mut self.outputs);
            self.consensus.flush(now, &mut outputs);
            let quiet = outputs.is_empty();
            for output in outputs.drain(..) {
                if self.stopped.is_none() {
                    self.dispatch(now, output, ports);
                }
            }
            self.outputs = outputs;
            if quiet {
                return;
            }
        }
    }

    fn take(&mut self, now: Time, input: Input, ports: &mut impl Ports) {
        if let Some(why) = &self.stopped {
            if let Input::Request(request) = input {
                let stopped = Failure::Stopped(why.clone().into());
                ports.reply(request.token, Reply::Failed(stopped));
            }
            return;
        }
        match input {
            Input::Packet(packet) if self.peers.believes(&packet) => self.take_packet(now, packet, ports),
            // Its life is not known, not on disk yet, or over.
            Input::Packet(_) => {}
            Input::Greeted(greeting) => self.greeted(&greeting, ports),
            Input::RefusedBy { peer, why } => self.refused_by(peer, why, ports),
            Input::Log(event) => self.take_log_event(now, event, ports),
            Input::Machine(done) => self.take_done(now, done, ports),
            Input::State { source, piece } => self.state_read(now, source, piece),
            Input::SendDropped(peer) => {
                self.consensus.step(now, Event::SendDropped(peer));
                self.forwards.resend_soon(peer, now);
            }
            Input::PeerGone(peer) => self.consensus.step(now, Event::PeerGone(peer)),
            Input::Request(Request { token, deadline, ask }) => {
                self.take_request(now, token, deadline, ask, ports)
            }
            Input::Cancel(tokens) => self.cancel(now, tokens, ports),
            // What waits for room is looked at in every turn.
            Input::AnswersTaken => {}
        }
    }

    fn take_request(&mut self, now: Time, token: Token, deadline: Time, ask: Ask, ports: &mut impl Ports) {
        if self.refuses(token, ports) {
            return;
        }
        match ask {
            Ask::Append {
                payload,
                expect,
                session,
            } => {
                let session = if session == Session::Open {
                    Session::None
                } else {
                    session
                };
                let proposal = Proposal {
                    payload,
                    expect,
                    session,
                };
                self.append(now, (token, deadline), proposal, ports);
            }
            Ask::OpenSession => self.append(now, (token, deadline), Proposal::opening(), ports),
            ask => self.read(now, (token, deadline), ask, ports),
        }
    }

    fn take_packet(&mut self, now: Time, packet: Packet, ports: &mut impl Ports) {
        match packet.message {
            PeerMessage::Raft(message) if message.from == packet.from => {
                self.consensus.step(now, Event::Message(message));
            }
            PeerMessage::Raft(_) => {}
            PeerMessage::Propose(propose) => self.take_forwarded(packet.from, propose, ports),
            PeerMessage::ProposeReply(reply) => self.take_answer(packet.from, reply, ports),
            PeerMessage::SnapshotRequest(request) => self.serve_snapshot(now, packet.from, request, ports),
            PeerMessage::SnapshotChunk(chunk) => self.take_chunk(now, packet.from, chunk),
            PeerMessage::Compared(compared) => self.take_compared(now, packet.from, compared, ports),
            PeerMessage::Resync(resync) => self.take_resync(now, packet.from, resync, ports),
        }
    }

    fn take_log_event(&mut self, now: Time, event: LogEvent, ports: &mut impl Ports) {
        match event {
            LogEvent::Persisted { id, .. } => {
                self.write_ends(now, id);
                self.consensus.step(now, Event::Persisted(id));
            }
            LogEvent::Fetched { token, runs, .. } => self.take_fetched(now, token, runs, ports),
            LogEvent::Snapshot(event) => self.take_snapshot_event(now, event, ports),
            LogEvent::LivesKept(version) => self.lives_kept(version, ports),
            LogEvent::SegmentBegun { start, .. } => self.segment_begun(start),
            LogEvent::DiskFull(full) => {
                if full && self.retry_room.is_none() {
                    tracing::error!(node = %self.node(), "the disk is full: no records are taken in until there is room");
                } else if !full && self.retry_room.is_some() {
                    tracing::info!(node = %self.node(), "the disk has room again");
                }
                self.retry_room = full.then(|| now.after(ROOM_INTERVAL));
                self.consensus.step(now, Event::DiskFull(full));
            }
            LogEvent::Damaged(what) => self.damages.push(what),
            LogEvent::Failed(error) => self.stop(error.to_string(), ports),
        }
    }

    fn dispatch(&mut self, now: Time, output: Output, ports: &mut impl Ports) {
        let group = self.config.group;
        match output {
            Output::Persist(write) => {
                self.see_times(&write.runs);
                self.write_begins(now, write.id);
                ports.persist(group, write);
            }
            Output::Send(message) => ports.send(group, message.to, PeerMessage::Raft(message)),
            Output::Commit(index) => self.commit(index, ports),
            Output::Fetch {
                peer,
                from,
                to,
                bytes_max,
            } => {
                let fetch = self.reads.fetch_for_peer(peer, from, to, bytes_max);
                ports.fetch(group, fetch);
            }
            Output::FetchSnapshot { from, last, .. } => {
                self.resync_gives_way();
                self.fetch_snapshot(now, from, last);
            }
            Output::InstallSnapshot { last } => self.install_snapshot(now, last, ports),
            Output::DropSnapshot { last } => self.drop_snapshot(last),
            Output::ReadReady { id, index } => self.read_ready(id, index, ports),
            Output::ReadRefused(id) => self.read_refused(now, id, ports),
            Output::Note(note) => {
                ports.note(group, &note);
                self.see_note(now, &note, ports);
            }
            Output::Fatal(reason) => self.stop(format!("an invariant is broken: {reason}"), ports),
        }
    }

    /// A new term, role or leader: what the old one still owes is given up soon, what waited for one may go on.
    pub(crate) fn role_changed(&mut self, now: Time, ports: &mut impl Ports) {
        let term = self.consensus.term();
        let leads = self.consensus.leader() == Some(self.node());
        self.clock.lead(leads);
        if leads {
            self.taken.begin(term);
        } else {
            self.waiters.forget_in_flight();
            self.refuse_held(ports);
        }
        let until = now.after(self.patience());
        self.forwards.abandon_before(term, now, until);
        self.reads.ask_again();
    }

    /// Looks, now and then, for what has waited too long.
    fn sweep(&mut self, now: Time, ports: &mut impl Ports) {
        if now < self.next_sweep {
            return;
        }
        let heartbeat = self.config.consensus.heartbeat_interval;
        self.next_sweep = now.after(heartbeat.min(SWEEP_INTERVAL_MAX));
        self.expire(now, ports);
        self.resend_forwards(now, ports);
        self.ask_overdue(now);
        self.retain(now);
        self.record_clock(now);
        self.propose_compare(now);
        self.pursue_dispute(now, ports);
        self.pursue_resync(now, ports);
        self.hand_over(ports);
    }

    fn sweep_deadline(&self) -> Time {
        let idle = self.parked.is_empty()
            && self.waiters.is_empty()
            && self.forwards.is_empty()
            && self.checks.is_empty()
            && self.reads.is_empty()
            && !self.snapshots.is_busy()
            && !self.compare.is_busy();
        if idle { Time::MAX } else { self.next_sweep }
    }

    fn expire(&mut self, now: Time, ports: &mut impl Ports) {
        let unknown = Failure::Unknown("it was proposed, and not committed before the deadline".into());
        let (mut late, mut tokens) = (Vec::new(), Vec::new());
        self.forwards.expire(now, &mut late);
        self.waiters.expire(now, &mut tokens);
        late.extend(tokens.drain(..).map(|t| (t, unknown.clone())));
        self.parked.expire(now, &mut tokens);
        self.checks.expire(now, &mut tokens);
        // A leader that is known was too slow for the time given.
        let failure = match self.consensus.leader() {
            Some(_) => Failure::Timeout,
            None => Failure::NoLeader,
        };
        late.extend(tokens.drain(..).map(|t| (t, failure.clone())));
        for (token, failure) in late {
            ports.reply(token, Reply::Failed(failure));
        }
        self.expire_reads(now, ports);
    }

    /// How long an unanswered question is left alone before it is asked again.
    pub(crate) fn patience(&self) -> Duration {
        self.config.consensus.election_timeout_min
    }

    /// Whether its disk has no room for more records: it takes none in until there is.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        self.retry_room.is_some()
    }

    /// The places of the log that reads have found damaged in this life: which, and what to do.
    #[must_use]
    pub fn damages(&self) -> &[Arc<str>] {
        &self.damages
    }

    pub(crate) fn node(&self) -> NodeId {
        self.config.identity.node
    }

    /// Stops for good: everyone who waits is told, and nothing is decided any more.
    pub(crate) fn stop(&mut self, reason: String, ports: &mut impl Ports) {
        self.stopped.get_or_insert(reason);
        self.shutdown(ports);
    }

    /// Answers every request that still waits, and stops for good. Called before a node is dropped.
    pub fn shutdown(&mut self, ports: &mut impl Ports) {
        let why = self
            .stopped
            .get_or_insert_with(|| "the node was shut down".to_owned());
        let unknown = Failure::Unknown(format!("the node stopped before it was answered: {why}").into());
        let stopped = Failure::Stopped(why.clone().into());
        let sent: Vec<Token> = self.waiters.drain().chain(self.forwards.drain()).collect();
        let unsent = self.parked.drain().chain(self.gathered.drain());
        let unsent: Vec<Token> = unsent
            .chain(self.checks.drain())
            .chain(self.reads.drain())
            .collect();
        for token in sent {
            ports.reply(token, Reply::Failed(unknown.clone()));
        }
        for token in unsent {
            ports.reply(token, Reply::Failed(stopped.clone()));
        }
    }

    /// Why this node stopped, if it did.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Consensus, for whoever wants to look: status, checkers.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// What is known at the last record that has passed by: with a machine, the last one it has applied. With a
    /// plain log it may lag behind [`Self::applied`] after a start.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.applied.meta
    }

    /// How often something rare happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How far the log is applied here: Raft index and position of the last user entry.
    #[must_use]
    pub fn applied(&self) -> (Index, Position) {
        (self.applied.at.index, self.applied.position)
    }
}
