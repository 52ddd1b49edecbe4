//! The cluster's clock and the dates in records, at one node alone: what ages, and what a wrong date changes.

use kontiki_consensus::{
    Body, Config, Configuration, GroupId, Incarnation, Index, LogId, NodeId, Note, Position, Restored, Run,
    Term, TermStart, Time, Write,
};
use kontiki_log::{Fetch, LogEvent, SegmentStart, SnapshotCommand, SnapshotEvent, SnapshotFile};
use kontiki_node::{
    Ask, CompareConfig, Driver, DriverConfig, Input, Ports, Reply, Request, SnapshotConfig, Token,
    machine::{Asked, Restore, Source, Task},
};
use kontiki_wire::{
    ClusterId, Codec, Expect, Identity, Payload, PeerMessage, Session, SessionLimits,
    record::{Kind, RecordHeader, records},
    snapshot::SnapshotHeader,
};
use std::sync::Arc;

const NODE: NodeId = NodeId(1);
const SECOND: u64 = 1_000_000_000;
/// How old entries are when they are forgotten.
const AGE_SECONDS: u64 = 20;
/// The date at which a story begins.
const DATE: u64 = 1_700_000_000 * SECOND;
const YEARS_75: u64 = 75 * 365 * 86_400 * SECOND;

#[derive(Default)]
struct Wanted {
    writes: Vec<Write>,
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
        panic!("{task:?}");
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
    fn reply(&mut self, _: Token, reply: Reply) {
        self.replies.push(reply);
    }
    fn withdraw_queries(&mut self, _: GroupId, tokens: &[u64]) {
        panic!("{tokens:?}");
    }
    fn answers_held(&mut self, _: usize) -> usize {
        0
    }
    fn note(&mut self, _: GroupId, _: &Note) {}
    fn keep_lives(&mut self, lives: kontiki_wire::lives::Lives) {
        panic!("{lives:?}");
    }
    fn refuse(&mut self, peer: NodeId, _: kontiki_wire::StartId, why: &str) {
        panic!("{peer}: {why}");
    }
}

/// A node alone, with a plain log that forgets by age.
struct Alone {
    driver: Driver,
    wanted: Wanted,
    now: u64,
    /// How far its date is off.
    date_offset: u64,
    /// Everything in its log behind the genesis.
    log: Vec<Run>,
    segments: Vec<SegmentStart>,
    note: Option<SnapshotHeader>,
    asked: u64,
}

fn config(sessions: SessionLimits) -> DriverConfig {
    DriverConfig {
        lives: kontiki_wire::lives::Lives::default(),
        group: GroupId::default(),
        identity: Identity {
            cluster: ClusterId(5),
            node: NODE,
            incarnation: Incarnation(1),
        },
        consensus: Config::new(NODE),
        in_flight_bytes_max: 1 << 20,
        payload_bytes_max: 4 << 10,
        sessions,
        compare: CompareConfig { interval: None },
        snapshots: SnapshotConfig {
            retain_age: Some(AGE_SECONDS * SECOND),
            ..SnapshotConfig::default()
        },
    }
}

/// A log of the genesis and these runs.
fn restored(log: &[Run]) -> Restored {
    let members = Configuration::of_voters([NODE]);
    let genesis = Run::new(
        Index(1),
        Term::ZERO,
        Position(1),
        Body::Configuration(Arc::new(members.clone())),
    );
    let mut all = Restored {
        terms: vec![TermStart {
            term: Term::ZERO,
            index: Index(1),
            position_before: Position::ZERO,
        }],
        last: LogId::new(Term::ZERO, Index(1)),
        configurations: vec![(Index(1), members)],
        tail: vec![genesis],
        ..Restored::default()
    };
    for run in log {
        if run.term() > all.last.term {
            all.terms.push(TermStart {
                term: run.term(),
                index: run.first(),
                position_before: all.last_position,
            });
        }
        (all.last, all.last_position) = (run.last_id(), run.last_position());
        all.hard_state.term = run.term();
        all.tail.push(run.clone());
    }
    all
}

impl Alone {
    fn new() -> Self {
        Self::with(SessionLimits::default())
    }

    fn with(sessions: SessionLimits) -> Self {
        let mut this = Self {
            driver: Driver::new(config(sessions), restored(&[]), 1, Time::ZERO),
            wanted: Wanted::default(),
            now: 0,
            date_offset: 0,
            log: Vec::new(),
            segments: Vec::new(),
            note: None,
            asked: 0,
        };
        this.add_segment(LogId::ZERO, Position::ZERO);
        this.wait(2);
        this
    }

    fn give(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let (now, date) = (Time(self.now), DATE + self.now + self.date_offset);
        let mut inbox = inputs.into_iter().collect();
        self.driver.turn(now, date, &mut inbox, &mut self.wanted);
    }

    /// A turn, and all that follows from it.
    fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.give(inputs);
        loop {
            let (writes, group) = (std::mem::take(&mut self.wanted.writes), GroupId::default());
            let commands = std::mem::take(&mut self.wanted.snapshots);
            if writes.is_empty() && commands.is_empty() {
                return;
            }
            for write in writes {
                self.log.extend(write.runs.iter().cloned());
                self.give([Input::Log(LogEvent::Persisted { group, id: write.id })]);
            }
            for command in commands {
                match command {
                    SnapshotCommand::Note(header) => self.note = Some(header),
                    SnapshotCommand::Begin(header) => {
                        let header = header.into();
                        let file = SnapshotFile {
                            header,
                            bytes: 100,
                            sum: 0,
                        };
                        self.give([Input::Log(LogEvent::Snapshot(SnapshotEvent::Written(file)))]);
                    }
                    SnapshotCommand::End | SnapshotCommand::Remove(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Time passes, with the turns that a leader takes.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += SECOND / 10;
            self.turn([]);
        }
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        self.asked += 1;
        let request = Request {
            token: Token(self.asked),
            deadline: Time(self.now + 100 * SECOND),
            ask,
        };
        self.turn([Input::Request(request)]);
        self.wanted.replies.pop().expect("an answer")
    }

    fn append(&mut self) {
        let reply = self.ask(Ask::Append {
            payload: Payload::one(vec![7; 100].into(), Codec::Bytes),
            expect: Expect::Any,
            session: Session::None,
        });
        assert!(matches!(reply, Reply::Appended { .. }), "{reply:?}");
    }

    /// The log goes on in another segment.
    fn begin_segment(&mut self) {
        let consensus = self.driver.consensus();
        self.add_segment(consensus.last(), consensus.last_position());
    }

    fn add_segment(&mut self, last: LogId, position: Position) {
        let start = SegmentStart {
            last,
            position,
            bytes: 1000,
        };
        self.segments.push(start);
        let group = GroupId::default();
        self.turn([Input::Log(LogEvent::SegmentBegun { group, start })]);
    }

    /// Its process ends and another goes on from the disk.
    fn restart(&mut self) {
        let mut driver = Driver::new(
            config(SessionLimits::default()),
            restored(&self.log),
            2,
            Time(self.now),
        );
        let (note, segments) = (self.note.clone(), self.segments.clone());
        driver.restore(Time(self.now), Vec::new(), note, segments);
        self.driver = driver;
        self.wait(2);
    }

    fn first(&self) -> u64 {
        self.driver.first().0
    }

    fn headers(&self) -> Vec<RecordHeader> {
        let users = self
            .log
            .iter()
            .filter(|run| matches!(run.body(), Body::Records(_)));
        users
            .flat_map(|run| records(run).map(|(header, _)| header))
            .collect()
    }
}

#[test]
fn a_date_from_the_future_forgets_nothing_and_does_not_end_that_entries_age() {
    let mut alone = Alone::new();
    alone.append();
    alone.begin_segment();
    alone.date_offset = YEARS_75;
    alone.append();
    alone.wait(2);
    alone.begin_segment();
    alone.append();
    alone.wait(2);
    assert_eq!(alone.first(), 1, "all entries are seconds old");
    alone.date_offset = 0;
    for _ in 0..4 {
        alone.append();
        alone.begin_segment();
        alone.wait(AGE_SECONDS / 2);
    }
    assert_eq!(
        alone.first(),
        6,
        "all is gone that was certainly appended {AGE_SECONDS} s ago"
    );
}

#[test]
fn an_idle_log_ages_by_the_time_of_its_leader() {
    let mut alone = Alone::new();
    alone.append();
    alone.begin_segment();
    alone.wait(AGE_SECONDS - 1);
    assert_eq!(alone.first(), 1);
    alone.wait(3);
    assert_eq!(alone.first(), 2, "nothing was appended meanwhile");
}

#[test]
fn a_date_is_shown_as_the_leader_has_it_and_a_wrong_one_holds_the_next_for_a_minute_at_most() {
    let mut alone = Alone::new();
    let mut dates = Vec::new();
    for offset in [0, YEARS_75, 0, 30 * SECOND, 0] {
        alone.date_offset = offset;
        alone.append();
        let date = alone.headers().last().expect("a record").leader_time;
        dates.push(date - DATE);
    }
    let now = alone.now;
    let held = now + 30 * SECOND;
    assert_eq!(dates, [now, now + YEARS_75, now, held, held]);
    alone.wait(31);
    alone.append();
    assert_eq!(
        alone.headers().last().expect("a record").leader_time,
        DATE + alone.now
    );
}

#[test]
fn segments_are_as_old_after_a_restart_as_before_it() {
    let mut alone = Alone::new();
    for _ in 0..4 {
        alone.append();
        alone.begin_segment();
        alone.wait(AGE_SECONDS / 4);
    }
    assert_eq!(alone.first(), 1);
    alone.restart();
    alone.wait(AGE_SECONDS / 4);
    let first = alone.first();
    assert!(
        (2..5).contains(&first),
        "the first segments are old enough and the last are not: {first}"
    );
}

#[test]
fn the_log_shows_the_clock_while_something_ages_and_the_end_of_a_session() {
    let limits = SessionLimits {
        ttl: 40,
        ..SessionLimits::default()
    };
    let mut alone = Alone::with(limits);
    alone.wait(100);
    assert!(alone.headers().is_empty(), "nothing is there that ages");
    let opened = alone.ask(Ask::OpenSession);
    assert!(
        matches!(opened, Reply::SessionOpened { ttl: 40, .. }),
        "{opened:?}"
    );
    let opened_at = alone.headers()[0].clock;
    alone.wait(60);
    let headers = alone.headers();
    assert!(headers[1..].iter().all(|header| header.kind == Kind::Clock));
    let clocks: Vec<u32> = headers[1..]
        .iter()
        .map(|header| header.clock - opened_at)
        .collect();
    assert_eq!(
        clocks,
        [10, 20, 30, 40, 41],
        "every quarter of its time, and at its end"
    );
    assert_eq!(alone.driver.meta().sessions(), 0);
    assert_eq!(alone.driver.counts().expired, 1);
}
