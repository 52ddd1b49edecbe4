//! Snapshots of a machine, step by step: one node alone, whose log, machine and reader do what the test says and when.

use kontiki_consensus::{
    Body, Config, Configuration, GroupId, HardState, Incarnation, Index, LogId, NodeId, Note, Position,
    Restored, Run, Term, TermStart, Time, Write,
};
use kontiki_log::{Fetch, LogEvent, SnapshotCommand, SnapshotEvent, SnapshotFile};
use kontiki_node::{
    Ask, Consistency, Driver, DriverConfig, Input, MachineError, Ports, Reply, Request, SnapshotConfig,
    StateMachine, Token,
    encoding::encode,
    machine::{Applier, Asked, At, Batch, Done, MetaDelta, MetaRows, Reader, Restore, Source, Task, Typed},
    machine::{restored, snapshot_of},
};
use kontiki_wire::{
    ClusterId, Codec, Expect, Identity, Payload, PeerMessage, Session, SessionLimits, StartId, lives::Lives,
    snapshot::SnapshotHeader,
};
use std::{
    io::{Cursor, Read},
    sync::{Arc, Mutex},
};

const NODE: NodeId = NodeId(1);
const SECOND: u64 = 1_000_000_000;

/// How a source fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Fails {
    #[default]
    Not,
    AtOnce,
    Breaks,
    Panics,
}

/// A sum, in memory or on a disk that survives.
#[derive(Default)]
struct Sum {
    total: u64,
    kept: Option<Arc<Mutex<(u64, MetaRows)>>>,
    fails: Arc<Mutex<Fails>>,
    /// How many commands it was given.
    applied: u64,
    /// Queries are answered aside.
    aside: bool,
}

struct Broken(Fails);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        assert!(self.0 != Fails::Panics, "a test wants a panic");
        Err(std::io::ErrorKind::Other.into())
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        assert!(self.0 != Fails::Panics, "a test wants another panic");
    }
}

impl StateMachine for Sum {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type Answer = (u64, u64);

    fn apply(&mut self, _: &At, command: u64) -> u64 {
        self.total += command;
        self.applied += 1;
        self.total
    }

    fn apply_batch(
        &mut self,
        batch: Batch<'_, u64>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<u64>, MachineError> {
        let outputs: Vec<u64> = batch.map(|(at, command)| self.apply(&at, command)).collect();
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().expect("whole");
            kept.1.merge(meta.rows(&outputs)?);
            kept.0 = self.total;
        }
        Ok(outputs)
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.total, self.applied)
    }

    fn reader(&self) -> Option<Reader<(), (u64, u64)>> {
        let then = (self.total, self.applied);
        self.aside.then(|| Box::new(move |()| then) as Reader<_, _>)
    }

    fn digest(&self) -> Option<u64> {
        Some(self.total)
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        Ok(self
            .kept
            .as_ref()
            .map(|kept| kept.lock().expect("whole").1.clone()))
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        match *self.fails.lock().expect("whole") {
            Fails::Not => snapshot_of(&self.total).map(Some),
            Fails::AtOnce => Err(MachineError::new("a test wants an error")),
            how => Ok(Some(Box::new(Broken(how)))),
        }
    }

    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError> {
        self.total = restored(from)?;
        if let Some(kept) = &self.kept {
            *kept.lock().expect("whole") = (self.total, rows.clone());
        }
        Ok(())
    }
}

/// What the node wants done, until the test does it.
#[derive(Default)]
struct Wanted {
    writes: Vec<Write>,
    tasks: Vec<Task>,
    restores: Vec<Restore>,
    sources: Vec<Source>,
    queries: Vec<Asked>,
    snapshots: Vec<SnapshotCommand>,
    replies: Vec<Reply>,
}

impl Ports for Wanted {
    fn persist(&mut self, _: GroupId, write: Write) {
        self.writes.push(write);
    }
    fn fetch(&mut self, _: GroupId, fetch: Fetch) {
        panic!("{fetch:?}");
    }
    fn snapshot(&mut self, _: GroupId, command: SnapshotCommand) {
        self.snapshots.push(command);
    }
    fn retry_room(&mut self) {}
    fn send(&mut self, _: GroupId, _: NodeId, message: PeerMessage) {
        panic!("{message:?}");
    }
    fn work(&mut self, _: GroupId, task: Task) {
        assert!(self.restores.is_empty(), "{task:?} overtakes a snapshot");
        self.tasks.push(task);
    }
    fn restore(&mut self, _: GroupId, restore: Restore) {
        self.restores.push(restore);
    }
    fn read_state(&mut self, _: GroupId, source: Source) {
        self.sources.push(source);
    }
    fn query(&mut self, _: GroupId, asked: Asked) {
        self.queries.push(asked);
    }
    fn withdraw_queries(&mut self, _: GroupId, queries: &[u64]) {
        panic!("{queries:?}");
    }
    fn answers_held(&mut self, _: usize) -> usize {
        0
    }
    fn reply(&mut self, _: Token, reply: Reply) {
        self.replies.push(reply);
    }
    fn note(&mut self, _: GroupId, _: &Note) {}
    fn keep_lives(&mut self, lives: Lives) {
        panic!("{lives:?}");
    }
    fn refuse(&mut self, peer: NodeId, _: StartId, why: &str) {
        panic!("{peer}: {why}");
    }
}

struct Alone {
    driver: Driver,
    applier: Applier,
    wanted: Wanted,
    now: u64,
    asked: u64,
}

fn config() -> DriverConfig {
    DriverConfig {
        group: GroupId::default(),
        identity: Identity {
            cluster: ClusterId(5),
            node: NODE,
            incarnation: Incarnation(1),
        },
        lives: Lives::default(),
        consensus: Config::new(NODE),
        in_flight_bytes_max: 1 << 20,
        payload_bytes_max: 4 << 10,
        sessions: SessionLimits::default(),
        compare: kontiki_node::CompareConfig { interval: None },
        snapshots: SnapshotConfig {
            snapshot_bytes: None,
            snapshot_entries: Some(3),
            keep_bytes: 0,
            piece_bytes: 1,
            ..SnapshotConfig::default()
        },
    }
}

fn members() -> Configuration {
    Configuration::of_voters([NODE])
}

/// A log of nothing but the genesis.
fn genesis() -> Restored {
    Restored {
        terms: vec![TermStart {
            term: Term::ZERO,
            index: Index(1),
            position_before: Position::ZERO,
        }],
        last: LogId::new(Term::ZERO, Index(1)),
        configurations: vec![(Index(1), members())],
        tail: vec![Run::new(
            Index(1),
            Term::ZERO,
            Position(1),
            Body::Configuration(Arc::new(members())),
        )],
        ..Restored::default()
    }
}

/// A log that begins, and ends, after what this snapshot covers.
fn behind(file: &SnapshotFile) -> Restored {
    let base = &file.header.base;
    Restored {
        hard_state: HardState {
            term: base.last.term,
            vote: None,
            ..HardState::default()
        },
        base: base.last,
        base_position: base.position,
        snapshot: Some((base.last, base.position)),
        last: base.last,
        last_position: base.position,
        configurations: vec![(base.last.index, members())],
        ..Restored::default()
    }
}

impl Alone {
    fn start(machine: Sum, log: Restored, snapshots: Vec<SnapshotFile>) -> Self {
        let applier = Applier::new(Typed(machine)).expect("a machine");
        let mut driver = Driver::with_machine(config(), log, applier.meta(), 1, Time::ZERO);
        driver.restore(Time::ZERO, snapshots, None, Vec::new());
        Self {
            driver,
            applier,
            wanted: Wanted::default(),
            now: 0,
            asked: 0,
        }
    }

    fn give(&mut self, input: Input) {
        let mut inbox = vec![input];
        self.driver
            .turn(Time(self.now), self.now, &mut inbox, &mut self.wanted);
    }

    fn log(&mut self, event: SnapshotEvent) {
        self.give(Input::Log(LogEvent::Snapshot(event)));
    }

    /// Lets time pass, and does what there is to write and to apply; a source of the state is not read.
    fn work(&mut self, nanos: u64) {
        self.now += nanos;
        let mut inbox = Vec::new();
        self.driver
            .turn(Time(self.now), self.now, &mut inbox, &mut self.wanted);
        loop {
            let writes = std::mem::take(&mut self.wanted.writes);
            let tasks = std::mem::take(&mut self.wanted.tasks);
            if writes.is_empty() && tasks.is_empty() {
                return;
            }
            let group = GroupId::default();
            writes
                .into_iter()
                .for_each(|w| self.give(Input::Log(LogEvent::Persisted { group, id: w.id })));
            for task in tasks {
                let done = self.applier.run(task);
                self.give(Input::Machine(done));
            }
        }
    }

    fn add(&mut self, number: u64) {
        self.asked += 1;
        let payload = Payload::one(encode(&number).expect("a number"), Codec::Postcard);
        let ask = Ask::Append {
            payload,
            expect: Expect::Any,
            session: Session::None,
        };
        self.give(Input::Request(Request {
            token: Token(self.asked),
            deadline: Time(self.now + 100 * SECOND),
            ask,
        }));
        self.work(SECOND / 10);
    }

    /// The only thing that is to be done with snapshots.
    fn command(&mut self) -> SnapshotCommand {
        assert_eq!(self.wanted.snapshots.len(), 1, "{:?}", self.wanted.snapshots);
        self.wanted.snapshots.remove(0)
    }

    /// Adds up to 1 000 018, which makes a snapshot due.
    fn begun(&mut self) -> SnapshotHeader {
        self.work(2 * SECOND);
        [500_000, 500_011, 7]
            .into_iter()
            .for_each(|number| self.add(number));
        match self.command() {
            SnapshotCommand::Begin(header) => header,
            other => panic!("{other:?}"),
        }
    }

    /// Reads the state that is to be read.
    fn read(&mut self) {
        assert_eq!(self.wanted.sources.len(), 1);
        let mut source = self.wanted.sources.remove(0);
        let piece = source.read();
        self.give(Input::State { source, piece });
    }

    /// Takes a snapshot, piece by piece; gives it and its state.
    fn taken(&mut self, header: SnapshotHeader) -> (SnapshotFile, Vec<u8>) {
        let (last, mut state) = (header.base.last, Vec::new());
        loop {
            assert!(self.wanted.sources.is_empty(), "the disk has the turn");
            self.log(SnapshotEvent::Ready { last });
            self.read();
            match self.command() {
                SnapshotCommand::Piece(piece) => {
                    assert_eq!(piece.len(), 1);
                    state.extend_from_slice(&piece);
                }
                SnapshotCommand::End => break,
                other => panic!("{other:?}"),
            }
        }
        (file(header), state)
    }
}

fn file(header: SnapshotHeader) -> SnapshotFile {
    SnapshotFile {
        header: Arc::new(header),
        sum: 7,
        bytes: 100,
    }
}

/// A snapshot of that sum, as another life of a node has taken it.
fn snapshot() -> (SnapshotFile, Vec<u8>) {
    let mut other = Alone::start(Sum::default(), genesis(), Vec::new());
    let header = other.begun();
    other.taken(header)
}

/// Has the machine take over the snapshot it is to take over.
fn restore(alone: &mut Alone, state: &[u8]) -> Done {
    let restore = alone.wanted.restores.remove(0);
    let from = Cursor::new(state.to_vec());
    alone.applier.run(Task::Restore(restore, Box::new(from)))
}

#[test]
fn a_snapshot_is_written_piece_by_piece_and_only_then_is_the_log_forgotten() {
    let mut alone = Alone::start(Sum::default(), genesis(), Vec::new());
    let header = alone.begun();
    assert_eq!(
        (header.base.last.index, header.base.position),
        (Index(5), Position(3))
    );
    assert!(alone.driver.takes_snapshot() && alone.wanted.sources.is_empty());
    let (file, state) = alone.taken(header);
    assert_eq!(state, encode(&1_000_018_u64).expect("a number"));
    alone.work(SECOND);
    assert_eq!(
        alone.driver.consensus().base().index,
        Index(0),
        "it has no name yet"
    );
    alone.log(SnapshotEvent::Written(file.clone()));
    alone.work(SECOND);
    assert_eq!(alone.driver.consensus().base().index, Index(5));
    assert_eq!(
        (alone.driver.first(), alone.driver.counts().taken),
        (Position(4), 1)
    );
    assert_eq!(alone.driver.snapshot(), Some(&file));
    alone.add(1);
    assert!(alone.wanted.snapshots.is_empty(), "the next is not due");
}

#[test]
fn what_is_applied_meanwhile_is_not_in_the_snapshot() {
    let mut alone = Alone::start(Sum::default(), genesis(), Vec::new());
    let header = alone.begun();
    alone.add(100);
    let (file, state) = alone.taken(header);
    assert_eq!(state, encode(&1_000_018_u64).expect("a number"));
    alone.log(SnapshotEvent::Written(file));
    alone.work(SECOND);
    assert_eq!(alone.driver.consensus().base().index, Index(5));
    assert_eq!(alone.driver.applied(), (Index(6), Position(4)));
}

#[test]
fn a_source_that_fails_costs_its_snapshot_and_is_asked_again_after_a_while() {
    for how in [Fails::AtOnce, Fails::Breaks, Fails::Panics] {
        let machine = Sum::default();
        let fails = machine.fails.clone();
        *fails.lock().expect("whole") = how;
        let mut alone = Alone::start(machine, genesis(), Vec::new());
        if how == Fails::AtOnce {
            alone.work(2 * SECOND);
            [500_000, 500_011, 7]
                .into_iter()
                .for_each(|number| alone.add(number));
        } else {
            let last = alone.begun().base.last;
            alone.log(SnapshotEvent::Ready { last });
            alone.read();
            assert_eq!(alone.command(), SnapshotCommand::Abandon);
        }
        assert_eq!(alone.driver.counts().abandoned, 1, "{how:?}");
        *fails.lock().expect("whole") = Fails::Not;
        alone.work(4 * SECOND);
        assert!(alone.wanted.snapshots.is_empty() && alone.driver.stopped().is_none());
        alone.work(2 * SECOND);
        let SnapshotCommand::Begin(header) = alone.command() else {
            panic!("not begun")
        };
        let (file, _) = alone.taken(header);
        alone.log(SnapshotEvent::Written(file));
        assert_eq!(alone.driver.counts().taken, 1);
    }
}

#[test]
fn a_piece_of_an_earlier_source_is_not_taken_for_the_next_ones() {
    let mut alone = Alone::start(Sum::default(), genesis(), Vec::new());
    let header = alone.begun();
    let last = header.base.last;
    alone.log(SnapshotEvent::Ready { last });
    let mut stale = alone.wanted.sources.remove(0);
    let why = "no room".to_owned();
    alone.log(SnapshotEvent::Refused { last, why });
    alone.work(6 * SECOND);
    let SnapshotCommand::Begin(header) = alone.command() else {
        panic!("not begun")
    };
    let piece = stale.read();
    alone.give(Input::State { source: stale, piece });
    assert!(alone.wanted.snapshots.is_empty());
    let (_, state) = alone.taken(header);
    assert_eq!(state, encode(&1_000_018_u64).expect("a number"));
}

#[test]
fn a_machine_in_memory_begins_with_the_snapshot_and_nothing_overtakes_it() {
    let (file, state) = snapshot();
    let mut alone = Alone::start(Sum::default(), behind(&file), vec![file.clone()]);
    let mut inbox = Vec::new();
    alone.driver.turn(Time(0), 0, &mut inbox, &mut alone.wanted);
    assert_eq!(alone.wanted.restores.len(), 1);
    assert_eq!(alone.driver.applied().0, Index(0), "it has not taken it over yet");
    let done = restore(&mut alone, &state);
    alone.give(Input::Machine(done));
    assert_eq!(alone.driver.applied(), (Index(5), Position(3)));
    assert_eq!(
        (alone.applier.digest(), alone.driver.counts().restored),
        (Some(1_000_018), 1)
    );
    alone.work(2 * SECOND);
    alone.add(2);
    assert_eq!(alone.applier.digest(), Some(1_000_020));
    assert!(alone.wanted.snapshots.is_empty(), "one entry is not three");
}

#[test]
fn what_the_log_on_disk_rests_on_stays_until_a_newer_snapshot_is_installed_there() {
    let mut other = Alone::start(Sum::default(), genesis(), Vec::new());
    let header = other.begun();
    let (older, state) = other.taken(header);
    other.log(SnapshotEvent::Written(older.clone()));
    other.wanted.snapshots.clear();
    let header = other.begun();
    let (newer, _) = other.taken(header);
    let mut alone = Alone::start(Sum::default(), behind(&older), vec![older.clone()]);
    alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
    alone.log(SnapshotEvent::Staged(newer));
    assert!(alone.wanted.writes.iter().any(|write| write.install.is_some()));
    // The write may take long. The machine is done with the older one meanwhile.
    let done = restore(&mut alone, &state);
    alone.give(Input::Machine(done));
    let removes = |alone: &Alone| format!("{:?}", alone.wanted.snapshots);
    assert_eq!(removes(&alone), "[]");
    let group = GroupId::default();
    for write in std::mem::take(&mut alone.wanted.writes) {
        alone.give(Input::Log(LogEvent::Persisted { group, id: write.id }));
    }
    assert_eq!(removes(&alone), format!("[Remove({:?})]", older.header.base.last));
}

#[test]
fn a_snapshot_that_is_not_sound_or_not_read_to_its_end_stops_the_node() {
    let (file, state) = snapshot();
    for state in [&state[..0], &[state.as_slice(), &[0]].concat()] {
        let mut alone = Alone::start(Sum::default(), behind(&file), vec![file.clone()]);
        alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
        let done = restore(&mut alone, state);
        alone.give(Input::Machine(done));
        let why = alone.driver.stopped().expect("stopped");
        assert!(why.contains("the snapshot up to record 5"), "{why}");
    }
    let mut header = (*file.header).clone();
    header.base.position = Position(2);
    let wrong = self::file(header);
    let alone = Alone::start(Sum::default(), behind(&wrong), vec![wrong]);
    let why = alone.driver.stopped().expect("its state is of another record");
    assert!(why.contains("is not sound"), "{why}");
}

#[test]
fn a_durable_machine_takes_over_a_snapshot_only_if_the_log_begins_behind_it() {
    let (file, state) = snapshot();
    let kept = Arc::new(Mutex::new((0, MetaRows::default())));
    let machine = || Sum {
        total: kept.lock().expect("whole").0,
        kept: Some(kept.clone()),
        ..Sum::default()
    };
    let mut alone = Alone::start(machine(), behind(&file), vec![file.clone()]);
    alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
    // A crash before it was taken over: at the next start it still is to be.
    drop(alone);
    let mut alone = Alone::start(machine(), behind(&file), vec![file.clone()]);
    alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
    let done = restore(&mut alone, &state);
    drop(done);
    // And one right behind: it goes on with what it has.
    let mut alone = Alone::start(machine(), behind(&file), vec![file.clone()]);
    assert_eq!(alone.driver.applied(), (Index(5), Position(3)));
    alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
    assert!(alone.wanted.restores.is_empty());
    alone.work(2 * SECOND);
    alone.add(2);
    assert_eq!(alone.applier.digest(), Some(1_000_020));
}

#[test]
fn a_snapshot_that_the_log_on_disk_still_rests_on_stays() {
    let (file, state) = snapshot();
    let mut header = (*file.header).clone();
    (header.base.last.index, header.base.position) = (Index(9), Position(7));
    let next = self::file(header);
    let mut alone = Alone::start(Sum::default(), behind(&file), vec![file.clone(), next]);
    alone.driver.turn(Time(0), 0, &mut Vec::new(), &mut alone.wanted);
    assert!(
        alone.driver.consensus().is_installing(),
        "the newer one came before a crash"
    );
    let done = restore(&mut alone, &state);
    alone.give(Input::Machine(done));
    assert_eq!(alone.driver.counts().restored, 1);
    assert_eq!(
        alone.wanted.snapshots,
        [],
        "the log does not begin behind the newer one yet"
    );
}

#[test]
fn a_query_is_answered_aside_from_the_state_of_its_moment() {
    let machine = Sum {
        aside: true,
        ..Sum::default()
    };
    let mut alone = Alone::start(machine, genesis(), Vec::new());
    alone.work(2 * SECOND);
    alone.add(5);
    alone.wanted.replies.clear();
    alone.give(Input::Request(Request {
        token: Token(99),
        deadline: Time(u64::MAX),
        ask: Ask::Query {
            query: encode(&()).expect("nothing"),
            consistency: Consistency::STALE,
        },
    }));
    alone.work(0);
    let asked = alone.wanted.queries.remove(0);
    alone.add(7);
    alone.wanted.replies.clear();
    alone.give(Input::Machine(asked.answer()));
    let expected = encode(&(5_u64, 1_u64)).expect("numbers");
    let [Reply::Answered { answer, at }] = &alone.wanted.replies[..] else {
        panic!("{:?}", alone.wanted.replies)
    };
    assert_eq!((answer, *at), (&expected, Position(1)));
}
