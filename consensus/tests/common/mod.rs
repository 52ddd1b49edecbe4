//! A cluster in the hands of a test: several `Consensus` values, a bag of messages with names, disks
//! that complete when told, and time that moves when told.
//!
//! After every flush the [`Checker`](checker::Checker) looks whether the properties of Figure 3 still hold,
//! in the scenarios as in the random runs.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod checker;
pub(crate) mod hand_made;
pub(crate) mod image;
pub(crate) mod storage;
pub(crate) mod words;

use checker::Checker;
use image::Image;
use kontiki_consensus::{
    Body, Config, Configuration, Consensus, Duration, Event, Index, LogId, Mark, Message, NodeId, Note,
    Output, ReadId, Records, Role, Run, SuspectMark, Time, Write, WriteId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One server: its life (none while it is down), its disk, and what its disk still has to do.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) life: Option<Consensus>,
    /// What survives a crash.
    pub(crate) disk: Image,
    /// What the disk will hold once all writes under way are done.
    pub(crate) memory: Image,
    pub(crate) writes: VecDeque<Write>,
    /// Whether writes wait for [`Cluster::persist`].
    pub(crate) slow: bool,
    /// Whether messages from and to it are lost.
    pub(crate) cut: bool,
    /// By how many millionths its clock runs fast.
    pub(crate) fast_ppm: u64,
    /// How far its state machine has applied, and the hash that is its state.
    pub(crate) machine: (Index, u64),
    /// The snapshot it is fetching, and from whom.
    pub(crate) fetching: Option<(NodeId, LogId)>,
    /// What its disk was before, now and then: one of these may be put back.
    pub(crate) past: Vec<Image>,
    lives: u64,
    /// What it had to tell.
    pub(crate) notes: Vec<Note>,
}

/// What of a disk is set back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetBack {
    Both,
    Records,
    Votes,
}

/// The servers and what is between them.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) servers: BTreeMap<NodeId, Server>,
    /// Messages under way, in the order they were sent.
    pub(crate) bag: Vec<(u64, Message)>,
    pub(crate) checker: Checker,
    /// What happened, one line each.
    pub(crate) trace: Vec<String>,
    seed: u64,
    next_message: u64,
    next_entry: u64,
    next_read: u64,
}

impl Cluster {
    /// Voters n1, n2, … and after them learners, each with the genesis record on its disk.
    pub(crate) fn new(voters: u64, learners: u64, seed: u64, tune: impl Fn(&mut Config)) -> Self {
        let genesis = Configuration {
            learners: (voters + 1..=voters + learners).map(NodeId).collect(),
            ..Configuration::of_voters((1..=voters).map(NodeId))
        };
        let mut cluster = Self {
            now: Time::ZERO,
            servers: BTreeMap::new(),
            bag: Vec::new(),
            checker: Checker::new(genesis.voters.clone()),
            trace: Vec::new(),
            seed,
            next_message: 1,
            next_entry: 1,
            next_read: 1,
        };
        for node in genesis.members() {
            // Who tells a story wants to see what follows at once.
            let mut config = Config {
                commit_delay: Duration(0),
                ..Config::new(node)
            };
            tune(&mut config);
            cluster.add(config, Image::with_genesis(&genesis));
        }
        cluster
    }

    fn add(&mut self, config: Config, disk: Image) {
        let node = config.node;
        let server = Server {
            config,
            life: None,
            memory: disk.clone(),
            disk,
            writes: VecDeque::new(),
            slow: false,
            cut: false,
            fast_ppm: 0,
            machine: (Index::ZERO, 0),
            fetching: None,
            past: Vec::new(),
            lives: 0,
            notes: Vec::new(),
        };
        self.servers.insert(node, server);
        self.restart(node, true);
    }

    /// Gives a server another disk, and a new life from it.
    pub(crate) fn replace_disk(&mut self, node: NodeId, disk: Image) {
        self.checker.learn(&disk);
        let server = self.server(node);
        server.memory = disk.clone();
        server.disk = disk;
        self.restart(node, true);
    }

    /// Remembers what the disk of a server is now.
    pub(crate) fn remember(&mut self, node: NodeId) {
        let server = self.server(node);
        if server.past.len() == 4 {
            server.past.remove(0);
        }
        server.past.push(server.disk.clone());
    }

    /// The server dies, its disk becomes what it was before, and it starts: with a mark, if the loss is noticed at once.
    pub(crate) fn set_back(&mut self, node: NodeId, past: usize, what: SetBack, mark: SuspectMark) {
        self.crash(node);
        let server = self.server(node);
        let (past, now) = (server.past[past].clone(), server.disk.clone());
        let (votes, records) = match what {
            SetBack::Both => (past.hard_state, past),
            SetBack::Records => (now.hard_state, past),
            SetBack::Votes => (past.hard_state, now.clone()),
        };
        let mut disk = Image {
            hard_state: votes,
            ..records
        };
        if disk.hard_state.term < disk.last().term {
            (disk.hard_state.term, disk.hard_state.vote) = (disk.last().term, None);
        }
        if mark != SuspectMark::ZERO {
            disk.hard_state.suspect = mark;
        }
        self.trace.push(format!(
            "{node:?} is set back ({what:?}) to {:?} and {:?}",
            disk.last(),
            disk.hard_state
        ));
        if disk.last() == now.last() && disk.hard_state == now.hard_state {
            return;
        }
        let votes_too = !matches!(what, SetBack::Records);
        self.checker.set_back(node, votes_too);
        self.replace_disk(node, disk);
    }

    pub(crate) fn server(&mut self, node: NodeId) -> &mut Server {
        self.servers
            .get_mut(&node)
            .unwrap_or_else(|| panic!("there is no {node:?}"))
    }

    /// The consensus of a server that is up.
    pub(crate) fn at(&self, node: u64) -> &Consensus {
        self.servers[&NodeId(node)]
            .life
            .as_ref()
            .expect("the server is down")
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.servers[&node].life.is_some()
    }

    pub(crate) fn role(&self, node: u64) -> Role {
        self.at(node).role()
    }

    /// The server that leads the latest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let lives = self
            .servers
            .values()
            .filter_map(|s| s.life.as_ref().map(|l| (s.config.node, l)));
        let leaders = lives.filter(|(_, life)| life.role() == Role::Leader);
        leaders.max_by_key(|(_, life)| life.term()).map(|(node, _)| node)
    }

    /// Something happens to a server that is up, and it puts out what follows.
    pub(crate) fn happen(&mut self, node: NodeId, event: Event) {
        self.step(node, event);
        self.flush(node);
    }

    /// Something happens; what follows stays inside until the next flush.
    pub(crate) fn step(&mut self, node: NodeId, event: Event) {
        let now = self.local_now(node);
        if let Some(life) = &mut self.server(node).life {
            life.step(now, event);
        }
    }

    /// What the clock of this server shows.
    pub(crate) fn local_now(&self, node: NodeId) -> Time {
        let ahead = u128::from(self.now.0) * u128::from(self.servers[&node].fast_ppm) / 1_000_000;
        Time(self.now.0.saturating_add(ahead as u64))
    }

    /// When the timer of a server goes off, if it is up and waits for something.
    pub(crate) fn due(&self, node: NodeId) -> Option<Time> {
        let server = &self.servers[&node];
        let local = server.life.as_ref()?.deadline();
        let rate = 1_000_000 + u128::from(server.fast_ppm);
        let due = Time((u128::from(local.0) * 1_000_000).div_ceil(rate) as u64);
        (local < Time::MAX).then_some(due)
    }

    /// Puts out what follows from the events since the last flush, until nothing more does.
    pub(crate) fn flush(&mut self, node: NodeId) {
        loop {
            let (now, mut outputs) = (self.local_now(node), Vec::new());
            let Some(life) = &mut self.server(node).life else {
                return;
            };
            life.flush(now, &mut outputs);
            let mut followups = Vec::new();
            for output in outputs {
                self.carry_out(node, output, &mut followups);
            }
            self.checker.look(node, &self.servers);
            if followups.is_empty() {
                return;
            }
            for event in followups {
                self.step(node, event);
            }
        }
    }

    fn carry_out(&mut self, node: NodeId, output: Output, followups: &mut Vec<Event>) {
        self.trace.extend(words::output(node, &output, self.next_message));
        match output {
            Output::Persist(write) => followups.extend(self.begin_write(node, write)),
            Output::Send(message) => self.post(node, message),
            Output::Commit(index) => self.apply(node, index),
            Output::FetchSnapshot { from, last, .. } => self.server(node).fetching = Some((from, last)),
            Output::InstallSnapshot { last } => self.install(node, last),
            Output::DropSnapshot { last } => self.drop_snapshot(node, last),
            Output::Fetch {
                peer,
                from,
                to,
                bytes_max,
            } => {
                let runs = self.servers[&node].disk.read(from, to, bytes_max);
                followups.push(Event::Fetched { peer, from, runs });
            }
            Output::ReadReady { id, index } => self.checker.read_ready(id, index),
            Output::Note(note) => self.server(node).notes.push(note),
            Output::ReadRefused(_) => {}
            Output::Fatal(_) if self.checker.excused => self.crash(node),
            Output::Fatal(reason) => panic!("{node:?} is broken: {reason}\n{}", self.story()),
        }
    }

    /// Hands a write to the disk; a disk that is not slow has done it at once.
    fn begin_write(&mut self, node: NodeId, write: Write) -> Option<Event> {
        let server = self.servers.get_mut(&node).expect("known");
        server.memory.apply(&write);
        self.checker.learn(&server.memory);
        server.writes.push_back(write);
        if server.slow {
            return None;
        }
        self.finish_write(node).map(Event::Persisted)
    }

    /// The disk does a write, and the server does not hear of it yet.
    pub(crate) fn finish_write(&mut self, node: NodeId) -> Option<WriteId> {
        let server = self.server(node);
        let write = server.writes.pop_front()?;
        server.disk.apply(&write);
        Some(write.id)
    }

    fn post(&mut self, node: NodeId, message: Message) {
        self.checker.sent(&message, &self.servers[&node].disk);
        let name = self.next_message;
        self.next_message += 1;
        if self.servers[&message.to].cut || self.servers[&node].cut {
            return;
        }
        self.bag.push((name, message));
    }

    /// The oldest write of this server's disk is done.
    pub(crate) fn persist(&mut self, node: NodeId) {
        if let Some(id) = self.finish_write(node) {
            self.trace.push(format!("{node:?} has {id:?} on disk"));
            self.happen(node, Event::Persisted(id));
        }
    }

    /// Takes a message out of the bag.
    pub(crate) fn take(&mut self, name: u64) -> Option<Message> {
        let place = self.bag.iter().position(|(n, _)| *n == name)?;
        Some(self.bag.remove(place).1)
    }

    /// Lets a message arrive. One for a server that is down is lost.
    pub(crate) fn arrive(&mut self, name: u64, message: Message) {
        let to = message.to;
        let lost = self.servers[&to].cut || self.servers[&message.from].cut || !self.is_up(to);
        if lost {
            self.trace.push(format!("m{name} is lost"));
            return;
        }
        self.trace.push(format!("{to:?} receives m{name}"));
        self.happen(to, Event::Message(message));
    }

    /// Delivers all there is and all that follows from it, in order.
    pub(crate) fn settle(&mut self) {
        while !self.bag.is_empty() {
            let (name, message) = self.bag.remove(0);
            self.arrive(name, message);
        }
    }

    /// The timer of a server goes off; the clock moves to where it does.
    pub(crate) fn timeout(&mut self, node: NodeId) {
        if !self.is_up(node) {
            return;
        }
        let due = self.due(node);
        let due = due.unwrap_or_else(|| panic!("{node:?} waits for nothing"));
        self.now = self.now.max(due);
        self.happen(node, Event::Timeout);
    }

    /// Proposes `records` records of one entry of `bytes` bytes each. False if the server admits none.
    pub(crate) fn propose(&mut self, node: NodeId, records: u64, bytes: usize) -> bool {
        let admission = self.servers[&node].life.as_ref().and_then(Consensus::admission);
        let Some(place) = admission else { return false };
        let (mut content, mut marks) = (Vec::new(), Vec::new());
        for n in 1..=records {
            let end = content.len() + bytes.max(8);
            content.extend(self.next_entry.to_le_bytes());
            content.resize(end, 0);
            self.next_entry += 1;
            marks.push(Mark {
                end: end as u32,
                entries: n as u32,
            });
        }
        let records = Records::new(content.into(), marks).expect("well made");
        let run = Run::new(place.index, place.term, place.position, Body::Records(records));
        self.happen(node, Event::Propose(run));
        true
    }

    /// A client of this server reads.
    pub(crate) fn read(&mut self, node: NodeId) -> ReadId {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.checker.read_begins(id);
        self.happen(node, Event::Read(id));
        id
    }

    /// The server dies: what is not on its disk is gone.
    pub(crate) fn crash(&mut self, node: NodeId) {
        let server = self.servers.get_mut(&node).expect("known");
        server.life = None;
        server.fetching = None;
        server.writes.clear();
        server.memory = server.disk.clone();
        self.checker.died(node, &server.disk);
    }

    /// The server starts from its disk, with the newest records in memory or (cold) without.
    pub(crate) fn restart(&mut self, node: NodeId, warm: bool) {
        self.crash(node);
        let (now, seed) = (self.local_now(node), self.seed);
        let server = self.server(node);
        server.lives += 1;
        server.restore_machine();
        let mut restored = server.disk.restored();
        if !warm {
            restored.tail.clear();
        }
        let seed = seed ^ (node.0 << 32) ^ server.lives;
        server.life = Some(Consensus::new(server.config.clone(), restored, seed, now));
        self.tell_of_staged(node);
    }

    /// Elects this server, with all others listening, and lets its first record be committed.
    pub(crate) fn elect(&mut self, node: u64) {
        let longest = self.servers.values().map(|s| s.config.election_timeout_max).max();
        self.now = self.now.after(longest.expect("there is a server"));
        self.timeout(NodeId(node));
        self.settle();
        assert_eq!(self.role(node), Role::Leader, "{}", self.story());
    }

    /// The members that are up.
    pub(crate) fn living(&self) -> BTreeSet<NodeId> {
        self.servers.keys().copied().filter(|n| self.is_up(*n)).collect()
    }

    /// Where every server's applied log must end if all are equal: `None` while they differ.
    pub(crate) fn agreement(&self) -> Option<Index> {
        let ends: BTreeSet<_> = self
            .servers
            .values()
            .map(|s| s.life.as_ref().map(|l| (l.commit(), l.last())))
            .collect();
        match ends.iter().next() {
            Some(Some((commit, last))) if ends.len() == 1 && *commit == last.index => Some(*commit),
            _ => None,
        }
    }

    /// The last lines of what happened.
    pub(crate) fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..].join("\n")
    }
}
