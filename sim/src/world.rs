//! The world of one run: nodes, network, clients and time, and what happens next.
//!
//! One event after the other is taken off the queue and given to whom it concerns. Everything that a
//! node does, it does in a turn of its driver; after each turn the checkers look at what it shows.
//! Invariant: nothing here depends on anything but the seed.

use crate::checks::{Checks, View};
use crate::clients::Clients;
use crate::crowds::{Crowds, Stir};
use crate::disk::SimDisk;
use crate::greetings::{self, Greetings};
use crate::hints::{Hint, Hints};
use crate::impostors::{Impostors, Imposture};
use crate::ledger::Ledger;
use crate::machine::Health;
use crate::network::Network;
use crate::ports::{Outgoing, SimPorts, Watch};
use crate::queue::Queue;
use crate::random::Random;
use crate::replica::{Process, Replica};
use crate::run::ENDS;
use crate::sometimes::Sometimes;
use crate::swarm::{Swarm, allowance, leader_patience, transfer_patience};
use crate::trace::Trace;
use crate::transitions::{Copy, Transitions};
use crate::violation::{Verdict, Violation, ensure};
use bytes::Bytes;
use kontiki_consensus::{Body, Configuration, GroupId, HardState, Index, NodeId, Position, Run, Term, Time};
use kontiki_log::{Log, LogEvent, Recovered};
use kontiki_node::Input;
use kontiki_wire::{Packet, PeerMessage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process takes a turn.
    Turn { node: usize, life: u64 },
    /// A driver's deadline.
    Deadline { node: usize, life: u64 },
    /// A disk has completed something.
    Disk { node: usize, life: u64 },
    /// A machine has done its next task, or a piece of its state was read.
    Machine { node: usize, life: u64 },
    /// A paused process goes on.
    Resume { node: usize, life: u64 },
    /// A packet comes to the end of its link.
    Arrive {
        from: usize,
        to: usize,
        bytes: Bytes,
        copy: Copy,
    },
    /// A sender is told that a packet to this peer was dropped.
    Dropped { node: usize, peer: NodeId, life: u64 },
    /// A node is started: it opens its log.
    Start { node: usize },
    /// The log is open: the process begins.
    Begin { node: usize, opening: u64 },
    /// A client asks something.
    Client(usize),
    /// A leader that has just said so stands still.
    Nap(usize),
    /// All nodes but these two are killed and start again at once.
    Blink(usize, usize),
    /// The next fault of this plan.
    Fault(usize),
    /// A partition ends.
    Mend(u64),
    /// There is room on a disk again.
    Room(usize),
    /// A node is told that another's process has ended.
    Hint(Hint),
    /// Clients come in masses, give up, or take their answers.
    Crowd(Stir),
    /// Something about impostors.
    Impostor(Imposture),
}

/// A log that was opened, by a process that has yet to begin.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) number: u64,
    pub(crate) log: Log<SimDisk>,
    pub(crate) recovered: Recovered,
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) swarm: Swarm,
    pub(crate) queue: Queue<Event>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) openings: Vec<Option<Opening>>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) transitions: Transitions,
    pub(crate) random: Random,
    pub(crate) hints: Hints,
    pub(crate) crowds: Crowds,
    pub(crate) greetings: Greetings,
    pub(crate) impostors: Impostors,
    /// Which partition is in force; an older one that ends mends nothing.
    pub(crate) partition: u64,
    /// Whether faults come and clients ask.
    pub(crate) stormy: bool,
    pub(crate) clients_ask: bool,
    /// Nodes that stay as they are.
    pub(crate) frozen: Vec<bool>,
    /// How often each fault came.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) opened: u64,
    /// Whether a machine has gone wrong, and whether several have: one gives its snapshot to others.
    pub(crate) went_wrong: bool,
    pub(crate) many_wrong: bool,
    pub(crate) outgoing: Outgoing,
    watch: Watch,
}

impl World {
    /// The world of a seed: all nodes are founded and about to start.
    pub(crate) fn new(seed: u64, trace: Trace, transitions: Transitions) -> Result<Self, Violation> {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random.fork(1));
        let members = Configuration::of_voters((1..=swarm.nodes as u64).map(NodeId));
        let mut replicas = Vec::new();
        for n in 0..swarm.nodes {
            let node = NodeId(n as u64 + 1);
            let disk = SimDisk::new(
                &format!("the disk of {node:?}"),
                random.fork(100 + node.0),
                swarm.disks[n],
            );
            let habits = swarm.habits;
            let program = (swarm.machine, swarm.policy, habits.limits, habits.once);
            let replica = Replica::found(node, disk, swarm.clock_drift[n], swarm.sizes, program, &members);
            let mut replica = replica.map_err(|e| cannot_open(node, &e.to_string()))?;
            if let Some(wrong) = swarm.wrong.filter(|wrong| wrong.node == n) {
                replica.health = Arc::new(Health::going_wrong(wrong.entry, wrong.kind));
            }
            replicas.push(replica);
        }
        let genesis = Run::new(
            Index(1),
            Term::ZERO,
            Position(1),
            Body::Configuration(Arc::new(members.clone())),
        );
        let ledgers = vec![Ledger::founded(HardState::default(), &[genesis]); swarm.nodes];
        let checks = Checks::new(
            members,
            ledgers,
            allowance(&swarm),
            leader_patience(&swarm),
            transfer_patience(&swarm),
        );
        let mut world = Self {
            queue: Queue::default(),
            openings: (0..swarm.nodes).map(|_| None).collect(),
            network: Network::new(swarm.nodes, random.fork(2), swarm.network),
            clients: Clients::new(
                random.fork(3),
                swarm.habits,
                swarm.machine,
                swarm.clock_drift.clone(),
            ),
            checks,
            trace,
            transitions,
            partition: 0,
            stormy: true,
            clients_ask: true,
            frozen: vec![false; swarm.nodes],
            faults: BTreeMap::new(),
            opened: 0,
            went_wrong: false,
            many_wrong: false,
            outgoing: Outgoing::default(),
            watch: Watch::default(),
            replicas,
            swarm,
            random,
            hints: Hints::draw(seed),
            crowds: Crowds::draw(seed),
            greetings: Greetings::default(),
            impostors: Impostors::draw(seed),
        };
        world.schedule_beginnings();
        Ok(world)
    }

    fn schedule_beginnings(&mut self) {
        for node in 0..self.swarm.nodes {
            let at = Time(self.random.below(500_000_000));
            self.queue.schedule(at, Event::Start { node });
        }
        for client in 0..self.clients.count() {
            let at = Time::ZERO.after(self.clients.think());
            self.queue.schedule(at, Event::Client(client));
        }
        for plan in 0..self.swarm.plans.len() {
            self.schedule_fault(plan);
        }
        self.schedule_false_hint();
        self.schedule_crowd();
        self.schedule_impostor();
    }

    /// Lets everything happen that happens until then.
    pub(crate) fn run_until(&mut self, until: Time) -> Verdict {
        while let Some(event) = self.queue.next(until) {
            self.happen(event)?;
            ensure(self.trace.events() < EVENTS_MAX, ENDS, || {
                "nodes work without end".to_owned()
            })?;
        }
        self.queue.pass(until);
        Ok(())
    }

    pub(crate) fn now(&self) -> Time {
        self.queue.now()
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Turn { node, life } if self.is_live(node, life) => self.turn(node),
            Event::Deadline { node, life } if self.is_live(node, life) => {
                self.with(node, |process| process.wake = Time::MAX);
                self.schedule_turn(node, self.now());
                Ok(())
            }
            Event::Disk { node, life } if self.is_live(node, life) => {
                self.with(node, |process| process.disk_wake = Time::MAX);
                self.pump_disk(node);
                Ok(())
            }
            Event::Machine { node, life } if self.is_live(node, life) => self.work_aside(node),
            Event::Resume { node, life } if self.is_live(node, life) => {
                self.resume(node);
                self.work_aside(node)
            }
            Event::Dropped { node, peer, life } if self.is_live(node, life) => {
                self.checks.counters.hit(Sometimes::SendDropped);
                self.give(node, Input::SendDropped(peer));
                Ok(())
            }
            Event::Turn { .. } | Event::Deadline { .. } | Event::Disk { .. } => Ok(()),
            Event::Machine { .. } | Event::Resume { .. } | Event::Dropped { .. } => Ok(()),
            Event::Arrive {
                from,
                to,
                bytes,
                copy,
            } => self.arrive(from, to, &bytes, copy),
            Event::Start { node } => self.start(node),
            Event::Begin { node, opening } => self.begin(node, opening),
            Event::Client(client) => self.client_asks(client),
            Event::Hint(hint) => self.hint(hint),
            Event::Crowd(stir) => {
                self.stir(stir);
                Ok(())
            }
            Event::Impostor(imposture) => {
                self.impostor(imposture);
                Ok(())
            }
            Event::Fault(plan) => self.fault(plan),
            Event::Nap(leader) => {
                self.nap(leader);
                Ok(())
            }
            Event::Blink(leader, other) => {
                self.blink_others(leader, other);
                Ok(())
            }
            Event::Mend(partition) => {
                self.mend(partition);
                Ok(())
            }
            Event::Room(node) => {
                self.replicas[node].disk.set_full(false);
                Ok(())
            }
        }
    }

    /// Does something with the process of a node, if it is up.
    pub(crate) fn with<R>(&mut self, node: usize, f: impl FnOnce(&mut Process) -> R) -> Option<R> {
        self.replicas[node].process.as_mut().map(f)
    }

    // ---- turns

    /// Lets a node take a turn soon, unless one is due already.
    pub(crate) fn schedule_turn(&mut self, node: usize, at: Time) {
        let life = self.replicas[node].life;
        let Some(process) = self.replicas[node].process.as_mut() else {
            return;
        };
        if !process.turn_due {
            process.turn_due = true;
            self.queue.schedule(at, Event::Turn { node, life });
        }
    }

    /// Gives a node an input, for its next turn.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        self.with(node, |process| process.take(input));
        let at = self.now().after(self.random.around(self.swarm.turn));
        self.schedule_turn(node, at);
    }

    fn turn(&mut self, node: usize) -> Verdict {
        let now = self.now();
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut().filter(|p| p.paused_until <= now) else {
            return Ok(());
        };
        process.turn_due = false;
        replica.disk.advance(now);
        let mut inbox = std::mem::take(&mut process.inbox);
        let is_led = process.driver.consensus().leader().is_some();
        process.desk.gather(process.clock.shows(now), is_led, &mut inbox);
        let mut lives = greetings::lives_first(&mut inbox);
        let count = lives.len() + inbox.len();
        self.trace.event(now, 3, (node as u64) << 32 | count as u64);
        self.transitions.begins_turn();
        if !lives.is_empty() {
            self.drive(node, &mut lives);
        }
        self.observe(node, &inbox);
        let silent = self.with(node, |p| p.driver.quarantined().is_some()) == Some(true);
        let deadline = self.drive(node, &mut inbox);
        self.with(node, |process| process.inbox = inbox);
        self.wake_at(node, deadline);
        if silent {
            self.check_silent(node)?;
        }
        self.look_at(node)
    }

    /// Has the driver of a node deal with what has come.
    fn drive(&mut self, node: usize, inbox: &mut Vec<Input>) -> Time {
        let now = self.now();
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut() else {
            return Time::MAX;
        };
        let mut ports = SimPorts {
            node: replica.node,
            now,
            log: &mut process.log,
            reading: &mut process.reading,
            checks: &mut self.checks,
            watch: &mut self.watch,
            outgoing: &mut self.outgoing,
            trace: &self.trace,
            transitions: &self.transitions,
        };
        let date = DATE + now.0 + replica.date_offset;
        let clock = process.clock.shows(now);
        process.driver.turn(clock, date, inbox, &mut ports)
    }

    /// A node takes a turn at this time of its clock, at the latest.
    pub(crate) fn wake_at(&mut self, node: usize, deadline: Time) {
        let now = self.now();
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut().filter(|_| deadline < Time::MAX) else {
            return;
        };
        let wake = process.clock.moment(deadline).max(now);
        if wake < process.wake {
            process.wake = wake;
            let life = replica.life;
            self.queue.schedule(wake, Event::Deadline { node, life });
        }
    }

    /// After a turn: lets the checkers look, and sends off what the node has said.
    fn look_at(&mut self, node: usize) -> Verdict {
        let now = self.now();
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let replica = &self.replicas[node];
        let Some(process) = &replica.process else {
            return Ok(());
        };
        self.transitions.decided(now, replica.node, process);
        for (to, message, message_id) in &mut outgoing.messages {
            *message_id = self.transitions.sends(now, replica.node, *to, message);
        }
        self.transitions.ends_turn();
        outgoing.verdict()?;
        let view = view(process, now, outgoing.truncated.take());
        let gone = std::mem::take(&mut outgoing.gone);
        // Who has stopped in this turn hands nothing over any more of what he decided in it.
        if process.driver.stopped().is_none() {
            self.checks.turned(replica.node, &view)?;
            for (to, message, _) in &outgoing.messages {
                if let PeerMessage::SnapshotChunk(chunk) = message
                    && chunk.total > 0
                {
                    self.checks.transfers.gives(replica.node, *to, chunk.last);
                }
            }
            let told = process.driver.consensus().snapshot_peers().collect();
            self.checks
                .transfers
                .turned(replica.node, view.now, told, &gone)?;
        }
        let (id, start) = (replica.node, process.start);
        for (to, message, message_id) in outgoing.messages.drain(..) {
            let packet = Packet {
                group: GroupId::default(),
                from: id,
                start,
                to,
                message,
            };
            self.send(node, to, &packet, message_id);
        }
        self.settle_replies(node, &mut outgoing.replies);
        for (token, reply) in outgoing.replies.drain(..) {
            self.answer_given(node, &reply);
            let waiting = self
                .clients
                .answered(self.now(), id, token, reply, &mut self.checks)?;
            if let Some(client) = waiting {
                self.ask_now(client);
            }
        }
        self.clients.forget(outgoing.cancelled.drain(..));
        self.withdraw_queries(node, std::mem::take(&mut outgoing.withdrawn));
        self.give_tasks(node, std::mem::take(&mut outgoing.tasks));
        self.give_sources(node, std::mem::take(&mut outgoing.sources));
        self.give_asked(node, std::mem::take(&mut outgoing.asked));
        self.refuse(node, std::mem::take(&mut outgoing.refusals));
        self.outgoing = outgoing;
        self.check_reading(node)?;
        self.check_beliefs(node)?;
        self.compare(node)?;
        self.check_stopped(node)?;
        self.pump_disk(node);
        Ok(())
    }

    // ---- the disk

    /// Tells the log what its disk has completed, and the driver what the log makes of it.
    pub(crate) fn pump_disk(&mut self, node: usize) {
        let now = self.now();
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut().filter(|p| p.paused_until <= now) else {
            return;
        };
        replica.disk.advance(now);
        let mut said = false;
        while let Some(event) = process.log.poll() {
            self.trace.line(now, || format!("n{} log: {event:?}", node + 1));
            if let LogEvent::Persisted { id, .. } = &event {
                self.checks.persisted(replica.node, *id);
            }
            self.checks
                .counters
                .hit_if(matches!(event, LogEvent::DiskFull(true)), Sometimes::DiskWasFull);
            if let LogEvent::Fetched { token, .. } = &event {
                process.reading.fetches.remove(token);
            }
            process.log_failed |= matches!(event, LogEvent::Failed(_));
            process.inbox.push(Input::Log(event));
            said = true;
        }
        let segment = process.log.segment();
        let begun = segment > process.segment;
        self.checks.counters.hit_if(begun, Sometimes::SegmentBegun);
        process.segment = segment;
        let recycled = process.log.segments_recycled();
        self.checks
            .counters
            .hit_if(recycled > process.recycled, Sometimes::SegmentRecycled);
        process.recycled = recycled;
        process.disk_failed = replica.disk.has_failed();
        if said {
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
        if begun {
            self.endanger_segment(node);
        }
        self.watch_disk(node);
        self.check_power(node);
    }

    /// Looks after the disk again when it next completes something.
    fn watch_disk(&mut self, node: usize) {
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut() else {
            return;
        };
        // What was read and is not yet verified is looked at soon, whether the disk has anything to do or not.
        let soon = self.queue.now().after(self.swarm.turn);
        let more = process.log.has_more().then_some(soon);
        let Some(due) = replica.disk.next_due().into_iter().chain(more).min() else {
            return;
        };
        if due < process.disk_wake {
            process.disk_wake = due;
            self.queue.schedule(
                due,
                Event::Disk {
                    node,
                    life: replica.life,
                },
            );
        }
    }

    /// A fault happened once more.
    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn log_line(&self, text: impl FnOnce() -> String) {
        self.trace.line(self.now(), text);
    }
}

/// How many events a run may have: some hundred times what is usual.
const EVENTS_MAX: u64 = 5_000_000;

/// The date at which every run begins, in ns since 1970.
const DATE: u64 = 1_700_000_000_000_000_000;

fn view(process: &Process, now: Time, truncated: Option<Index>) -> View {
    let consensus = process.driver.consensus();
    let applied = match process.driver.applied().0 {
        index if index <= process.resumed => index.min(consensus.commit()),
        index => index,
    };
    View {
        now: process.clock.shows(now),
        hard_state: HardState {
            term: consensus.term(),
            vote: consensus.vote(),
            ..HardState::default()
        },
        role: consensus.role(),
        last: consensus.last(),
        commit: consensus.commit(),
        applied,
        held_bytes: consensus.tail_bytes(),
        tail_first: consensus.tail_first(),
        persisted: consensus.persisted().max(consensus.base().index),
        truncated,
    }
}

pub(crate) fn cannot_open(node: NodeId, error: &str) -> Violation {
    Violation {
        property: "a node can always open its log again",
        what: format!("{node:?}: {error}"),
    }
}
