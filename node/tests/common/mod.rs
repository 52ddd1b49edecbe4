//! A small world of drivers: time in steps of a millisecond, a network and disks that do as they are told.
//!
//! It checks of every answer that it was asked for and is the only one, and keeps what each node has
//! on disk, so that a node can go down and come back with nothing but that.

#![allow(dead_code)]

pub(crate) mod image;

use bytes::Bytes;
use image::Image;
use kontiki_consensus::{
    Config, Configuration, Duration, GroupId, Incarnation, NodeId, Note, Position, Role, Run, Term, Time,
    Write,
};
use kontiki_log::{Fetch, From, LogError, LogEvent, SnapshotCommand};
use kontiki_node::{
    Ask, CompareConfig, Consistency, Driver, DriverConfig, Failure, Input, Ports, Reply, Request,
    SnapshotConfig, Token,
    machine::{Applier, Asked, Restore, Source, Task, enqueue},
};
use kontiki_wire::{
    ClusterId, Codec, Expect, Identity, KnownLife, Packet, Payload, PeerMessage, ProposeAnswer, Session,
    SessionLimits, StartId, lives::Lives, record,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);
pub(crate) const MS: u64 = 1_000_000;

/// What one turn gave out.
#[derive(Default)]
struct Outgoing {
    writes: Vec<Write>,
    fetches: Vec<Fetch>,
    messages: Vec<(NodeId, PeerMessage)>,
    tasks: Vec<Task>,
    replies: Vec<(Token, Reply)>,
    retries: usize,
    withdrawn: Vec<u64>,
    /// How many bytes of answers clients hold, and whether it is to be told when they take some.
    held: usize,
    tells_taken: bool,
}

impl Ports for Outgoing {
    fn persist(&mut self, _: GroupId, write: Write) {
        self.writes.push(write);
    }
    fn fetch(&mut self, _: GroupId, fetch: Fetch) {
        self.fetches.push(fetch);
    }
    fn retry_room(&mut self) {
        self.retries += 1;
    }
    /// In this world everything is kept.
    fn snapshot(&mut self, _: GroupId, command: SnapshotCommand) {
        panic!("{command:?}");
    }
    fn restore(&mut self, _: GroupId, restore: Restore) {
        panic!("{restore:?}");
    }
    fn read_state(&mut self, _: GroupId, source: Source) {
        panic!("{source:?}");
    }
    fn query(&mut self, _: GroupId, asked: Asked) {
        panic!("{asked:?}");
    }
    fn withdraw_queries(&mut self, _: GroupId, queries: &[u64]) {
        self.withdrawn.extend(queries);
    }
    fn answers_held(&mut self, most: usize) -> usize {
        self.tells_taken |= self.held > most;
        self.held
    }
    fn send(&mut self, _: GroupId, to: NodeId, message: PeerMessage) {
        self.messages.push((to, message));
    }
    fn work(&mut self, _: GroupId, task: Task) {
        self.tasks.push(task);
    }
    fn reply(&mut self, token: Token, reply: Reply) {
        self.held += bytes_of(&reply);
        self.replies.push((token, reply));
    }
    fn note(&mut self, _: GroupId, _: &Note) {}
    fn keep_lives(&mut self, lives: Lives) {
        panic!("in this world all lives are known: {lives:?}");
    }
    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str) {
        panic!("{peer} in {start}: {why}");
    }
}

/// The only life of a node in this world, which every node knows.
fn only_life(n: NodeId) -> KnownLife {
    KnownLife {
        incarnation: Incarnation(n.0),
        number: 1,
        start: StartId(n.0),
    }
}

/// How many bytes an answer to a read or a query holds.
fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Reply::Read { runs, .. } => runs.iter().map(Run::weight).sum(),
        Reply::Answered { answer, .. } => answer.len(),
        _ => 0,
    }
}

pub(crate) struct Node {
    pub(crate) driver: Option<Driver>,
    pub(crate) disk: Image,
    writes: VecDeque<(u64, Write)>,
    pub(crate) applier: Option<Applier>,
    tasks: VecDeque<(u64, Task)>,
    /// Its process does not run while this is set.
    pub(crate) paused: bool,
    /// The machine does nothing while this is set.
    pub(crate) machine_stuck: bool,
    /// Writes stay under way while this is set.
    pub(crate) stuck: bool,
    /// Fetches fail like this while it is set.
    pub(crate) unreadable: Option<LogError>,
    /// How long the log takes to read anything, in ms.
    pub(crate) slow_reads: u64,
    late: Vec<(u64, Input)>,
    pub(crate) inbox: Vec<Input>,
    deadline: Time,
    pub(crate) fetched: usize,
    /// How many fetches by position, which are clients', are under way, and how many there were at once at most.
    pub(crate) reading: (usize, usize),
    of_clients: BTreeSet<u64>,
    /// Clients take their answers only when they are told to, while this is set.
    pub(crate) keeps_answers: bool,
    /// How many bytes of answers clients hold, and how many they held at most.
    pub(crate) held: (usize, usize),
    tells_taken: bool,
    /// How many queries the machine was given.
    pub(crate) queried: usize,
    /// How often it looked for room on its disk.
    pub(crate) retries: usize,
}

/// A small random stream.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n.max(1)
    }
}

/// The machine that a node starts with, if it has one.
type Makes = Box<dyn Fn(NodeId) -> Option<Applier>>;

/// Whether the network loses this message.
type Loses = Box<dyn FnMut(NodeId, NodeId, &PeerMessage) -> bool>;

pub(crate) struct World {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) now: u64,
    messages: Vec<(u64, NodeId, NodeId, PeerMessage)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    loses: Loses,
    makes: Makes,
    pub(crate) chance: Chance,
    /// Longest delay of a message and of a write, in ms; the shortest is 1.
    pub(crate) delay: (u64, u64),
    /// Longest time a task of a machine takes, in ms; the shortest is 1.
    pub(crate) task_delay: u64,
    /// One message in so many arrives twice; zero for none.
    pub(crate) twice: u64,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) tail_bytes_max: usize,
    pub(crate) lease_drift_ppm: Option<u32>,
    /// None unless set: a story is told in the order in which its causes come.
    pub(crate) commit_delay: Duration,
    /// The usual one unless it is set before nodes start.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) sessions: SessionLimits,
    /// How often nodes compare what they have become; never unless it is set before they start.
    pub(crate) compare: Option<Duration>,
    tokens: u64,
    lives: u64,
    open: BTreeMap<Token, (NodeId, u64)>,
    pub(crate) replies: BTreeMap<Token, Reply>,
    /// Everything sent, for tests that count.
    pub(crate) sent: Vec<(NodeId, NodeId, PeerMessage)>,
}

impl World {
    pub(crate) fn new(nodes: u64, seed: u64) -> Self {
        Self::with_machines(nodes, seed, |_| None)
    }

    pub(crate) fn with_machines(
        nodes: u64,
        seed: u64,
        makes: impl Fn(NodeId) -> Option<Applier> + 'static,
    ) -> Self {
        let members = Configuration::of_voters((1..=nodes).map(NodeId));
        let node = || Node {
            driver: None,
            disk: Image::founded(&members),
            writes: VecDeque::new(),
            applier: None,
            tasks: VecDeque::new(),
            paused: false,
            machine_stuck: false,
            stuck: false,
            unreadable: None,
            slow_reads: 0,
            late: Vec::new(),
            inbox: Vec::new(),
            deadline: Time::ZERO,
            fetched: 0,
            reading: (0, 0),
            of_clients: BTreeSet::new(),
            keeps_answers: false,
            held: (0, 0),
            tells_taken: false,
            queried: 0,
            retries: 0,
        };
        let mut world = Self {
            nodes: (1..=nodes).map(|n| (NodeId(n), node())).collect(),
            now: 0,
            messages: Vec::new(),
            cut: BTreeSet::new(),
            loses: Box::new(|_, _, _| false),
            makes: Box::new(makes),
            chance: Chance::new(seed),
            delay: (1, 1),
            task_delay: 1,
            twice: 0,
            in_flight_bytes_max: 64 << 10,
            payload_bytes_max: 4 << 10,
            tail_bytes_max: 64 << 10,
            lease_drift_ppm: None,
            commit_delay: Duration(0),
            heartbeat: None,
            sessions: SessionLimits::default(),
            compare: None,
            tokens: 0,
            lives: seed * 1000,
            open: BTreeMap::new(),
            replies: BTreeMap::new(),
            sent: Vec::new(),
        };
        for n in world.names() {
            world.start(n);
        }
        world
    }

    /// A cluster in which all know the leader; it comes first, then the others.
    pub(crate) fn led(nodes: u64, seed: u64) -> (Self, Vec<NodeId>) {
        let world = Self::new(nodes, seed);
        world.once_led()
    }

    /// Once all know the leader; it comes first, then the others.
    pub(crate) fn once_led(mut self) -> (Self, Vec<NodeId>) {
        let mut names = self.names();
        let leader = self.await_leader();
        names.retain(|n| *n != leader);
        names.insert(0, leader);
        (self, names)
    }

    pub(crate) fn names(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, n: NodeId) -> &mut Node {
        self.nodes.get_mut(&n).expect("such a node")
    }

    pub(crate) fn driver(&self, n: NodeId) -> &Driver {
        self.nodes[&n].driver.as_ref().expect("a node that is up")
    }

    pub(crate) fn start(&mut self, n: NodeId) {
        self.lives += 1;
        let mut config = DriverConfig {
            group: GroupId::default(),
            lives: Lives::default(),
            identity: Identity {
                cluster: CLUSTER,
                node: n,
                incarnation: Incarnation(n.0),
            },
            consensus: Config {
                tail_bytes_max: self.tail_bytes_max,
                lease_drift_ppm: self.lease_drift_ppm,
                commit_delay: self.commit_delay,
                heartbeat_interval: self.heartbeat.unwrap_or(Config::new(n).heartbeat_interval),
                ..Config::new(n)
            },
            in_flight_bytes_max: self.in_flight_bytes_max,
            payload_bytes_max: self.payload_bytes_max,
            sessions: self.sessions,
            snapshots: SnapshotConfig::default(),
            compare: CompareConfig {
                interval: self.compare,
            },
        };
        let known = self.names().into_iter().map(|n| (n, only_life(n)));
        config.lives.peers = known.collect();
        let (now, seed, tail) = (self.time(), self.lives, self.tail_bytes_max);
        let applier = (self.makes)(n);
        let node = self.node(n);
        let restored = node.disk.restored(tail);
        node.driver = Some(match &applier {
            Some(applier) => Driver::with_machine(config, restored, applier.meta(), seed, now),
            None => Driver::new(config, restored, seed, now),
        });
        node.applier = applier;
        node.deadline = Time::ZERO;
    }

    /// Starts all nodes once more, as they are set now.
    pub(crate) fn start_anew(&mut self) {
        for n in self.names() {
            self.crash(n);
            self.start(n);
        }
    }

    /// A node goes down: only what is on disk remains, and nobody waits for its answers any more.
    pub(crate) fn crash(&mut self, n: NodeId) {
        let node = self.node(n);
        node.driver = None;
        node.writes.clear();
        node.tasks.clear();
        node.late.clear();
        node.of_clients.clear();
        (node.reading.0, node.held.0, node.tells_taken) = (0, 0, false);
        node.applier = None;
        node.inbox.clear();
        self.open.retain(|_, (asked, _)| *asked != n);
    }

    pub(crate) fn shut_down(&mut self, n: NodeId) {
        let mut outgoing = Outgoing::default();
        self.node(n)
            .driver
            .as_mut()
            .expect("a node that is up")
            .shutdown(&mut outgoing);
        self.give_out(n, outgoing);
    }

    pub(crate) fn time(&self) -> Time {
        Time(self.now * MS)
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Nothing gets from or to this node.
    pub(crate) fn isolate(&mut self, n: NodeId) {
        for other in self.names() {
            self.cut.extend([(n, other), (other, n)]);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.loses = Box::new(|_, _, _| false);
    }

    pub(crate) fn lose(&mut self, loses: impl FnMut(NodeId, NodeId, &PeerMessage) -> bool + 'static) {
        self.loses = Box::new(loses);
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.deliver();
            for n in self.names() {
                if self.node(n).paused {
                    continue;
                }
                self.complete_writes(n);
                self.complete_tasks(n);
                self.complete_reads(n);
                let now = self.time();
                let node = self.node(n);
                if node.driver.is_some() && (!node.inbox.is_empty() || node.deadline <= now) {
                    self.turn(n);
                }
            }
        }
    }

    /// Until something holds; at most ten seconds.
    pub(crate) fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let limit = self.now + 10_000;
        while !holds(self) {
            assert!(self.now < limit, "waited in vain for {what}");
            self.run(1);
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, rest) = std::mem::take(&mut self.messages)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.messages = rest;
        for (_, from, to, message) in due {
            if self.cut.contains(&(from, to)) {
                continue;
            }
            self.hand(from, to, message);
        }
    }

    /// Brings a message to its receiver's inbox.
    pub(crate) fn hand(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        let packet = Packet {
            group: GroupId::default(),
            from,
            start: only_life(from).start,
            to,
            message,
        };
        let node = self.node(to);
        if node.driver.is_some() {
            node.inbox.push(Input::Packet(packet));
        }
    }

    fn complete_writes(&mut self, n: NodeId) {
        let now = self.now;
        let node = self.node(n);
        while !node.stuck && node.writes.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, write)) = node.writes.pop_front() else {
                return;
            };
            node.disk.write(&write);
            node.inbox.push(Input::Log(LogEvent::Persisted {
                group: GroupId::default(),
                id: write.id,
            }));
        }
    }

    /// How many bytes of records are with the machine.
    pub(crate) fn task_bytes(&self, n: NodeId) -> usize {
        let of = |(_, task): &(u64, Task)| match task {
            Task::Apply(runs) => runs.iter().map(Run::weight).sum(),
            Task::Query { .. } | Task::Mark(_) | Task::Snapshot | Task::Restore(..) => 0,
        };
        self.nodes[&n].tasks.iter().map(of).sum()
    }

    fn complete_reads(&mut self, n: NodeId) {
        let now = self.now;
        let node = self.node(n);
        let done = node.late.extract_if(.., |(due, _)| *due <= now);
        let done: Vec<Input> = done.map(|(_, input)| input).collect();
        for input in &done {
            if let Input::Log(LogEvent::Fetched { token, .. }) = input {
                node.reading.0 -= usize::from(node.of_clients.remove(token));
            }
        }
        node.inbox.extend(done);
    }

    fn complete_tasks(&mut self, n: NodeId) {
        let now = self.now;
        let node = self.node(n);
        while !node.machine_stuck && node.tasks.front().is_some_and(|(due, _)| *due <= now) {
            let (Some((_, task)), Some(applier)) = (node.tasks.pop_front(), node.applier.as_mut()) else {
                return;
            };
            node.inbox.push(Input::Machine(applier.run(task)));
        }
    }

    pub(crate) fn turn(&mut self, n: NodeId) {
        let now = self.time();
        let node = self.node(n);
        let mut inbox = std::mem::take(&mut node.inbox);
        let mut outgoing = Outgoing {
            held: node.held.0,
            tells_taken: node.tells_taken,
            ..Outgoing::default()
        };
        let driver = node.driver.as_mut().expect("a node that is up");
        node.deadline = driver.turn(now, 1_000_000 + now.0, &mut inbox, &mut outgoing);
        assert!(
            node.deadline > now,
            "a deadline that has passed already would be asked for without end"
        );
        self.give_out(n, outgoing);
    }

    fn give_out(&mut self, n: NodeId, outgoing: Outgoing) {
        let (message_delay, write_delay) = self.delay;
        let node = self.node(n);
        node.retries += outgoing.retries;
        node.tells_taken = outgoing.tells_taken;
        node.held = (outgoing.held, node.held.1.max(outgoing.held));
        if !node.keeps_answers {
            self.take_answers(n);
        }
        let node = self.node(n);
        node.tasks.retain(|(_, task)| {
            task.query()
                .is_none_or(|name| !outgoing.withdrawn.contains(&name))
        });
        for write in outgoing.writes {
            let earliest = self.nodes[&n].writes.back().map_or(0, |(due, _)| *due);
            let due = (self.now + 1 + self.chance.below(write_delay)).max(earliest);
            self.node(n).writes.push_back((due, write));
        }
        for task in outgoing.tasks {
            let earliest = self.nodes[&n].tasks.back().map_or(0, |(due, _)| *due);
            let due = (self.now + 1 + self.chance.below(self.task_delay)).max(earliest);
            let node = self.node(n);
            node.queried += usize::from(task.query().is_some());
            enqueue(&mut node.tasks, (due, task), |(_, task)| task.query().is_some());
        }
        for fetch in outgoing.fetches {
            let now = self.now;
            let node = self.node(n);
            node.fetched += 1;
            if matches!(fetch.from, From::Position(_)) {
                node.of_clients.insert(fetch.token);
                node.reading = (node.reading.0 + 1, node.reading.1.max(node.reading.0 + 1));
            }
            let runs = match &node.unreadable {
                Some(error) => Err(Arc::new(error.clone())),
                None => Ok(node.disk.fetch(&fetch)),
            };
            let event = LogEvent::Fetched {
                group: GroupId::default(),
                token: fetch.token,
                runs,
            };
            node.late.push((now + node.slow_reads, Input::Log(event)));
        }
        for (to, message) in outgoing.messages {
            self.sent.push((n, to, message.clone()));
            if self.cut.contains(&(n, to)) || (self.loses)(n, to, &message) {
                continue;
            }
            if self.twice > 0 && self.chance.below(self.twice) == 0 {
                let due = self.now + 1 + self.chance.below(message_delay * 8);
                self.messages.push((due, n, to, message.clone()));
            }
            let due = self.now + 1 + self.chance.below(message_delay);
            self.messages.push((due, n, to, message));
        }
        for (token, reply) in outgoing.replies {
            let asked = self.open.remove(&token);
            assert_eq!(
                asked.map(|(node, _)| node),
                Some(n),
                "{token:?} was answered unasked: {reply:?}"
            );
            self.replies.insert(token, reply);
        }
    }

    /// Clients take all answers they hold.
    pub(crate) fn take_answers(&mut self, n: NodeId) {
        let node = self.node(n);
        node.held.0 = 0;
        if std::mem::take(&mut node.tells_taken) {
            node.inbox.push(Input::AnswersTaken);
        }
    }

    /// How many queries are with the machine.
    pub(crate) fn queries_with_machine(&self, n: NodeId) -> usize {
        let tasks = self.nodes[&n].tasks.iter();
        tasks.filter(|(_, task)| task.query().is_some()).count()
    }

    /// How many queries stand before the first other task of the machine.
    pub(crate) fn queries_ahead(&self, n: NodeId) -> Option<usize> {
        let mut tasks = self.nodes[&n].tasks.iter();
        tasks.position(|(_, task)| task.query().is_none())
    }

    /// A client gives up: it must not be answered any more.
    pub(crate) fn cancel(&mut self, n: NodeId, tokens: Vec<Token>) {
        for token in &tokens {
            self.open.remove(token).expect("not answered yet");
        }
        self.node(n).inbox.push(Input::Cancel(tokens));
    }

    // ---- what clients ask

    pub(crate) fn ask(&mut self, n: NodeId, ask: Ask, patience_ms: u64) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        let deadline = Time((self.now + patience_ms) * MS);
        self.open.insert(token, (n, self.now + patience_ms));
        self.node(n)
            .inbox
            .push(Input::Request(Request { token, deadline, ask }));
        token
    }

    pub(crate) fn append(&mut self, n: NodeId, text: &str) -> Token {
        self.append_if(n, &[text], Expect::Any)
    }

    pub(crate) fn append_if(&mut self, n: NodeId, texts: &[&str], expect: Expect) -> Token {
        let payload = Payload::several(texts, Codec::Bytes).expect("a small payload");
        self.ask(
            n,
            Ask::Append {
                payload,
                expect,
                session: Session::None,
            },
            5_000,
        )
    }

    pub(crate) fn read(&mut self, n: NodeId, from: u64, to: u64, consistency: Consistency) -> Token {
        let (from, to) = (Position(from), Position(to));
        self.ask(
            n,
            Ask::Read {
                from,
                to,
                bytes_max: 1 << 20,
                consistency,
                wait: false,
            },
            5_000,
        )
    }

    pub(crate) fn tail(&mut self, n: NodeId, from: u64, consistency: Consistency, patience_ms: u64) -> Token {
        let (from, to) = (Position(from), Position(u64::MAX));
        self.ask(
            n,
            Ask::Read {
                from,
                to,
                bytes_max: 1 << 20,
                consistency,
                wait: true,
            },
            patience_ms,
        )
    }

    /// Lets time pass until this is answered.
    pub(crate) fn answer(&mut self, token: Token) -> Reply {
        self.run_until("an answer", |w| w.replies.contains_key(&token));
        self.replies[&token].clone()
    }

    pub(crate) fn position(&mut self, token: Token) -> u64 {
        match self.answer(token) {
            Reply::Appended { first, .. } => first.0,
            other => panic!("not appended: {other:?}"),
        }
    }

    pub(crate) fn failure(&mut self, token: Token) -> Failure {
        match self.answer(token) {
            Reply::Failed(failure) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    /// The entries of a read's answer that it asked for, and where it says the log ends.
    pub(crate) fn texts(&mut self, token: Token) -> (Vec<String>, u64) {
        match self.answer(token) {
            Reply::Read { runs, last } => (runs.iter().flat_map(texts).collect(), last.0),
            other => panic!("not read: {other:?}"),
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Fails if an answer is more than 200 ms late.
    pub(crate) fn check_in_time(&self) {
        let late = self.open.iter().find(|(_, (_, by))| by + 200 < self.now);
        assert!(late.is_none(), "not answered at {}: {late:?}", self.now);
    }

    // ---- what can be seen

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let up = self
            .nodes
            .iter()
            .filter_map(|(n, node)| Some((*n, node.driver.as_ref()?)));
        let leads = up.filter(|(_, d)| d.consensus().role() == Role::Leader);
        leads.max_by_key(|(_, d)| d.consensus().term()).map(|(n, _)| n)
    }

    /// A leader whose no-op is applied on every node that is up.
    pub(crate) fn await_leader(&mut self) -> NodeId {
        self.run_until("a leader", |w| {
            let Some(leader) = w.leader() else { return false };
            let term = w.driver(leader).consensus().term();
            let mut up = w.nodes.values().filter_map(|n| n.driver.as_ref());
            up.all(|d| {
                d.consensus().leader() == Some(leader) && d.consensus().term_at(d.applied().0) == Some(term)
            })
        });
        self.leader().expect("a leader")
    }

    pub(crate) fn term(&self, n: NodeId) -> Term {
        self.driver(n).consensus().term()
    }

    /// All entries that are applied at a node, from its disk.
    pub(crate) fn log(&self, n: NodeId) -> Vec<String> {
        let applied = self.driver(n).applied().0;
        self.nodes[&n].disk.entries_up_to(applied)
    }

    /// How many answers of this kind were sent.
    pub(crate) fn answers_sent(&self, assigned: bool) -> usize {
        let is = |m: &PeerMessage| match m {
            PeerMessage::ProposeReply(r) => matches!(r.answer, ProposeAnswer::Assigned { .. }) == assigned,
            _ => false,
        };
        self.sent.iter().filter(|(_, _, m)| is(m)).count()
    }
}

pub(crate) fn texts(run: &kontiki_consensus::Run) -> Vec<String> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    record::entries(run).map(|entry| text(entry.bytes)).collect()
}
