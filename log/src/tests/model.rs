//! What a log must hold: every state a crash can have left, between what was told as persisted and what was
//! handed over. A node that drives a log through its life, and looks at all of it after each recovery.

use super::disk::{Chance, Crash, TestDisk};
use crate::{Fetch, From, Log, LogError, LogEvent, LogOptions, Recovered, Salts, SnapshotEvent};
use kontiki_consensus::{
    Admission, Base, Body, Configuration, GroupId, HardState, Incarnation, Index, LogId, NodeId, Position,
    Run, Term, Write, WriteId,
};
use kontiki_wire::record::{RecordHeader, RunBuilder};
use kontiki_wire::{ClusterId, Codec, Identity, Payload, Session, Stamp};
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(super) const NODE: NodeId = NodeId(2);
pub(super) const GROUP: GroupId = GroupId(0);

pub(super) fn identity() -> Identity {
    Identity {
        cluster: CLUSTER,
        node: NODE,
        incarnation: Incarnation(77),
    }
}

pub(super) fn members() -> Configuration {
    Configuration::of_voters([1, 2, 3].map(NodeId))
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        tail_bytes_max: 32 << 10,
    }
}

/// Others in each life.
pub(super) fn salts(disk: &TestDisk) -> Salts {
    Salts::new(disk.operations())
}

pub(super) fn made(disk: &TestDisk) {
    crate::create(disk.clone(), identity(), &members(), options(), salts(disk)).expect("made");
}

pub(super) fn open(disk: &TestDisk) -> Result<(Log<TestDisk>, Recovered), LogError> {
    Log::open(disk.clone(), CLUSTER, NODE, options(), salts(disk))
}

/// A record: its term, the position of its last entry, its bytes or those of its content.
pub(super) type Record = (Term, Position, Vec<u8>);

pub(super) fn records_of(runs: &[Run]) -> Vec<(Index, Record)> {
    let mut all = Vec::new();
    for run in runs {
        for n in run.first().0..=run.last().0 {
            let one = run.slice(Index(n), Index(n)).expect("in the run");
            let content = match one.body() {
                Body::Records(records) => records.bytes().to_vec(),
                other => format!("{other:?}").into_bytes(),
            };
            all.push((Index(n), (one.term(), one.last_position(), content)));
        }
    }
    all
}

/// A run of records, each with one entry of these lengths.
pub(super) fn entries(index: u64, term: u64, position: u64, lengths: &[usize]) -> Run {
    let at = Admission {
        index: Index(index),
        term: Term(term),
        position: Position(position),
    };
    let mut builder = RunBuilder::new(CLUSTER, GROUP, at);
    for (n, length) in lengths.iter().enumerate() {
        let entry: Vec<u8> = (0..*length)
            .map(|b| (b as u64 + index + term + n as u64) as u8)
            .collect();
        builder
            .push(
                &Payload::one(entry.into(), Codec::Bytes),
                Stamp::default(),
                Session::None,
            )
            .expect("room");
    }
    builder.finish().expect("records")
}

pub(super) fn genesis() -> Run {
    let body = Body::Configuration(Arc::new(members()));
    Run::new(Index(1), Term::ZERO, Position(1), body)
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) hard_state: HardState,
    /// What the records come after: zero, or the last snapshot installed.
    pub(super) start: Base,
    pub(super) records: Vec<Record>,
    /// What is forgotten.
    pub(super) base: Base,
}

impl State {
    /// Whether that was found; where the log begins is not looked at.
    pub(super) fn is(&self, found: &Recovered) -> bool {
        let found = &found.restored;
        let (last, position) = self.end();
        self.hard_state == found.hard_state && last == found.last && position == found.last_position
    }

    pub(super) fn end(&self) -> (LogId, Position) {
        let index = Index(self.start.last.index.0 + self.records.len() as u64);
        let last = self.records.last();
        let (term, position) = last.map_or((self.start.last.term, self.start.position), |r| (r.0, r.1));
        (LogId::new(term, index), position)
    }

    /// The place of a record in the list.
    pub(super) fn place(&self, index: Index) -> usize {
        (index.0 - self.start.last.index.0 - 1) as usize
    }

    /// The base if everything up to here is forgotten.
    pub(super) fn base_at(&self, index: Index) -> Base {
        let (term, position, _) = self.records[self.place(index)];
        Base {
            last: LogId::new(term, index),
            position,
            configuration: Arc::new(members()),
        }
    }

    /// The records that are not forgotten.
    pub(super) fn kept(&self) -> &[Record] {
        &self.records[self.place(self.base.last.index.next())..]
    }

    /// All that recovery has to say, besides what [`State::is`] compares.
    fn must_be(&self, found: &Recovered) {
        let found = &found.restored;
        let base = &self.base;
        assert_eq!((found.base, found.base_position), (base.last, base.position));
        let (snapshot, position) = found.snapshot.unwrap_or_default();
        assert!(snapshot.index >= base.last.index && snapshot.index <= found.last.index);
        if snapshot.index > base.last.index {
            let (term, held, _) = &self.records[self.place(snapshot.index)];
            assert_eq!((*term, *held), (snapshot.term, position));
        }
        let mut starts = Vec::new();
        let first = base.last.index.0 + 1;
        let (mut term, mut position) = (Some(base.last.term).filter(|_| first > 1), base.position);
        for (n, record) in self.kept().iter().enumerate() {
            if term != Some(record.0) {
                starts.push((record.0, Index(n as u64 + first), position));
                term = Some(record.0);
            }
            position = record.1;
        }
        let terms: Vec<_> = found
            .terms
            .iter()
            .map(|t| (t.term, t.index, t.position_before))
            .collect();
        assert_eq!(terms, starts);
        let configurations = self
            .kept()
            .iter()
            .enumerate()
            .filter(|(_, r)| r.2.starts_with(b"Conf"));
        let at_base = Some(base.last.index).filter(|i| *i > Index::ZERO);
        let after = configurations.map(|(n, _)| Index(n as u64 + first));
        let expected: Vec<Index> = at_base.into_iter().chain(after).collect();
        let indexes: Vec<Index> = found.configurations.iter().map(|(i, _)| *i).collect();
        assert_eq!(indexes, expected);
        assert_eq!(found.configurations[0].1, members());
        let tail = records_of(&found.tail);
        let from = tail.first().map_or(self.records.len(), |(i, _)| self.place(*i));
        assert_eq!(
            tail.into_iter().map(|(_, r)| r).collect::<Vec<_>>(),
            self.records[from..]
        );
    }
}

/// A log and what it must hold.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) disk: TestDisk,
    pub(super) log: Option<Log<TestDisk>>,
    pub(super) durable: State,
    pub(super) written: State,
    waiting: VecDeque<Write>,
    pub(super) next: u64,
    pub(super) full: bool,
    pub(super) failed: Option<String>,
    /// What was told of damage.
    pub(super) damages: Vec<String>,
    pub(super) torn_bytes: u64,
    /// Whether the last write was found to be rotten at the last start.
    pub(super) suspect: bool,
    /// An attempt to open it that was broken off may have marked it.
    pub(super) may_be_marked: bool,
    /// Those on disk, as far as the node has been told.
    pub(super) snapshots: Vec<LogId>,
}

impl Node {
    pub(super) fn new(disk: TestDisk) -> Self {
        let mut state = State::default();
        state
            .records
            .extend(records_of(&[genesis()]).into_iter().map(|(_, r)| r));
        let mut node = Self {
            disk,
            log: None,
            durable: state.clone(),
            written: state,
            waiting: VecDeque::new(),
            next: 1,
            full: false,
            failed: None,
            damages: Vec::new(),
            torn_bytes: 0,
            suspect: false,
            may_be_marked: false,
            snapshots: Vec::new(),
        };
        node.reopen();
        node
    }

    /// The same node, down, with another disk.
    pub(super) fn twin(&self, disk: TestDisk) -> Self {
        Self {
            disk,
            log: None,
            durable: self.durable.clone(),
            written: self.written.clone(),
            waiting: self.waiting.clone(),
            next: self.next,
            full: false,
            failed: None,
            damages: Vec::new(),
            torn_bytes: 0,
            suspect: false,
            may_be_marked: false,
            snapshots: self.snapshots.clone(),
        }
    }

    /// The last record was handed over and never acknowledged.
    pub(super) fn forget_last(&mut self) {
        let (last, position) = (self.last(), self.position());
        let lost = self.durable.records.pop().expect("a record");
        self.written = self.durable.clone();
        self.waiting.clear();
        let run = entries(last, lost.0.0, position, &[lost.2.len() - RecordHeader::BYTES]);
        assert_eq!(records_of(std::slice::from_ref(&run))[0].1, lost);
        self.waiting.push_back(Write {
            install: None,
            purge: None,
            id: WriteId(self.next),
            hard_state: None,
            truncate: None,
            runs: run.into(),
        });
    }

    pub(super) fn last(&self) -> u64 {
        self.written.end().0.index.0
    }

    pub(super) fn term(&self) -> u64 {
        self.written.end().0.term.0
    }

    pub(super) fn position(&self) -> u64 {
        self.written.end().1.0
    }

    pub(super) fn write(&mut self, hard_state: Option<HardState>, truncate: Option<u64>, runs: Vec<Run>) {
        self.write_all(hard_state, truncate, runs, [None, None]);
    }

    pub(super) fn write_all(
        &mut self,
        hard_state: Option<HardState>,
        truncate: Option<u64>,
        runs: Vec<Run>,
        [install, purge]: [Option<Base>; 2],
    ) {
        let write = Write {
            id: WriteId(self.next),
            hard_state,
            truncate: truncate.map(Index),
            install: install.map(Box::new),
            runs: runs.into(),
            purge: purge.map(Box::new),
        };
        self.next += 1;
        apply(&mut self.written, &write);
        self.waiting.push_back(write.clone());
        self.log.as_mut().expect("up").persist(GROUP, write);
    }

    /// Appends records with one entry each.
    pub(super) fn append(&mut self, lengths: &[usize]) {
        let run = entries(self.last() + 1, self.term(), self.position() + 1, lengths);
        self.write(None, None, vec![run]);
    }

    pub(super) fn vote(&mut self, term: u64, vote: Option<u64>) {
        let state = HardState {
            term: Term(term),
            vote: vote.map(NodeId),
            ..HardState::default()
        };
        self.write(Some(state), None, Vec::new());
    }

    /// Replaces everything from a record on by records of a later term.
    pub(super) fn replace(&mut self, from: u64, lengths: &[usize]) {
        let term = self.term() + 1;
        let before = self.written.place(Index(from)).checked_sub(1);
        let position = before
            .map_or(self.written.start.position, |n| self.written.records[n].1)
            .next()
            .0;
        self.write(None, Some(from), vec![entries(from, term, position, lengths)]);
    }

    /// Takes in one thing the log has to say; false if it has nothing.
    pub(super) fn turn(&mut self) -> bool {
        match self.log.as_mut().expect("up").poll() {
            Some(LogEvent::Persisted { group, id }) => {
                assert_eq!(group, GROUP);
                assert!(self.failed.is_none(), "nothing is told after a failure");
                assert!(
                    self.waiting.front().is_some_and(|w| w.id <= id),
                    "told twice or never written"
                );
                while let Some(write) = self.waiting.pop_front_if(|w| w.id <= id) {
                    apply(&mut self.durable, &write);
                }
                true
            }
            Some(LogEvent::DiskFull(full)) => {
                assert_ne!(self.full, full);
                self.full = full;
                true
            }
            Some(LogEvent::Failed(error)) => {
                assert!(self.failed.is_none(), "said once");
                self.failed = Some(error.to_string());
                true
            }
            Some(LogEvent::Snapshot(SnapshotEvent::Written(file))) => {
                self.snapshots.push(file.header.base.last);
                true
            }
            Some(LogEvent::Damaged(what)) => {
                self.damages.push(what.to_string());
                true
            }
            Some(LogEvent::Snapshot(_) | LogEvent::SegmentBegun { .. } | LogEvent::LivesKept(_)) => true,
            Some(LogEvent::Fetched { .. }) => panic!("nobody asked"),
            None => false,
        }
    }

    pub(super) fn retry_room(&mut self) {
        self.log.as_mut().expect("up").retry_room();
    }

    pub(super) fn settle(&mut self) {
        while self.turn() {}
    }

    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        self.log = None;
        self.disk.crash(crash);
    }

    /// Opens the log again and looks at all of it.
    pub(super) fn reopen(&mut self) {
        self.try_reopen().expect("opened");
    }

    pub(super) fn try_reopen(&mut self) -> Result<(), LogError> {
        let (log, found) = open(&self.disk)?;
        let names = self.disk.names();
        assert!(
            names.iter().filter(|n| n.ends_with(".seg")).count() as u64 > log.segment() - log.first_segment()
        );
        let state = self.left_by(&found).unwrap_or_else(|| {
            panic!(
                "found {:?} {:?}; persisted are {} records {:?}, and {} writes more were handed over",
                found.restored.last,
                found.restored.hard_state,
                self.durable.records.len(),
                self.durable.hard_state,
                self.waiting.len()
            )
        });
        state.must_be(&found);
        assert_eq!(found.incarnation, Incarnation(77));
        self.torn_bytes = found.torn_bytes;
        self.suspect = found.suspect.is_some();
        self.snapshots = found.snapshots.iter().map(|f| f.header.base.last).collect();
        self.durable = state.clone();
        self.written = state;
        self.waiting.clear();
        (self.full, self.failed) = (false, None);
        self.log = Some(log);
        Ok(())
    }

    /// The latest state that a crash can have left and that was found. What is found to be rotten gives a mark beside that.
    fn left_by(&self, found: &Recovered) -> Option<State> {
        let mut state = self.durable.clone();
        let mark = found.restored.hard_state.suspect;
        if found.suspect.is_some() || self.may_be_marked {
            state.hard_state.suspect = mark;
        }
        let mut result = None;
        // A purge may be there though something before it is not: it was committed long before.
        let mut bases = vec![state.base.clone()];
        let mut look = |state: &State, bases: &[Base]| {
            let base = bases.iter().find(|b| b.last == found.restored.base);
            if let Some(base) = base.filter(|_| state.is(found)) {
                let base = base.clone();
                result = Some(State {
                    base,
                    ..state.clone()
                });
            }
        };
        look(&state, &bases);
        for write in &self.waiting {
            bases.extend(
                write
                    .purge
                    .as_deref()
                    .cloned()
                    .filter(|b| b.last.index <= state.end().0.index),
            );
            state.hard_state = write.hard_state.unwrap_or(state.hard_state);
            if found.suspect.is_some() || self.may_be_marked {
                state.hard_state.suspect = mark;
            }
            look(&state, &bases);
            if let Some(from) = write.truncate {
                state.records.truncate(state.place(from));
            }
            if let Some(base) = &write.install {
                state.install(base);
                bases = vec![Base::clone(base)];
                look(&state, &bases);
            }
            for (_, record) in records_of(&write.runs) {
                state.records.push(record);
                look(&state, &bases);
            }
            bases.extend(write.purge.as_deref().cloned());
            look(&state, &bases);
        }
        result
    }

    /// Reads everything from disk, in pieces of so many bytes.
    pub(super) fn read_all(&mut self, bytes_max: usize) -> Result<Vec<Record>, String> {
        let mut all: Vec<Record> = Vec::new();
        let (base, last) = (self.durable.base.last.index.0, self.durable.end().0.index);
        while base + (all.len() as u64) < last.0 {
            let from = From::Index(Index(base + all.len() as u64 + 1));
            let runs = self.fetch(from, last, bytes_max)?;
            assert!(!runs.is_empty(), "nothing at {from:?} of {last:?}");
            for (index, record) in records_of(&runs) {
                assert_eq!(index.0, base + all.len() as u64 + 1);
                all.push(record);
            }
        }
        Ok(all)
    }

    pub(super) fn fetch(&mut self, from: From, to: Index, bytes_max: usize) -> Result<Vec<Run>, String> {
        let log = self.log.as_mut().expect("up");
        log.fetch(
            GROUP,
            Fetch {
                token: 9,
                from,
                to,
                bytes_max,
            },
        );
        loop {
            match log.poll() {
                Some(LogEvent::Fetched { token: 9, runs, .. }) => return runs.map_err(|e| e.to_string()),
                Some(LogEvent::DiskFull(full)) => self.full = full,
                Some(LogEvent::Damaged(what)) => self.damages.push(what.to_string()),
                Some(other) => panic!("{other:?}"),
                None => assert!(log.has_more(), "a read is never answered"),
            }
        }
    }

    /// What is on disk is what must be.
    pub(super) fn check(&mut self, bytes_max: usize) {
        let found = self.read_all(bytes_max).expect("readable");
        assert!(
            found == self.durable.kept(),
            "other records are read than were written"
        );
        let base = self.durable.base.clone();
        for from in [From::Index(base.last.index), From::Position(base.position)] {
            if base.position > Position::ZERO {
                let compacted = self.fetch(from, Index(u64::MAX), 1).expect_err("forgotten");
                assert!(compacted.contains(&format!("begins at entry {}", base.position.next())));
            }
        }
    }

    /// Does something a node may do.
    pub(super) fn act(&mut self, chance: &mut Chance) {
        let term = self.term().max(self.written.hard_state.term.0);
        let lengths: Vec<usize> = (0..=chance.below(6))
            .map(|_| chance.below(700) as usize)
            .collect();
        match chance.below(12) {
            0 => self.vote(term + 1, Some(chance.below(3) + 1)),
            1 => {
                let run = Run::new(
                    Index(self.last() + 1),
                    Term(term),
                    Position(self.position() + 1),
                    Body::Noop,
                );
                let state = HardState {
                    term: Term(term),
                    vote: None,
                    ..HardState::default()
                };
                self.write(Some(state), None, vec![run]);
            }
            2 if self.last() > self.written.base.last.index.0.max(3) => {
                let from = self.last() - chance.below(self.last().min(40) - 2);
                self.replace(from.max(2).max(self.written.base.last.index.0 + 1), &lengths);
            }
            3 => {
                let body = Body::Configuration(Arc::new(members()));
                let (index, position) = (Index(self.last() + 1), Position(self.position() + 1));
                self.write(
                    None,
                    None,
                    vec![Run::new(index, Term(self.term()), position, body)],
                );
            }
            4 => self.append(&[chance.below(20_000) as usize]),
            _ => self.append(&lengths),
        }
    }
}

impl State {
    fn install(&mut self, base: &Base) {
        (self.start, self.base) = (base.clone(), base.clone());
        self.records.clear();
    }
}

fn apply(state: &mut State, write: &Write) {
    state.hard_state = write.hard_state.unwrap_or(state.hard_state);
    if let Some(from) = write.truncate {
        state.records.truncate(state.place(from));
    }
    if let Some(base) = &write.install {
        state.install(base);
    }
    state
        .records
        .extend(records_of(&write.runs).into_iter().map(|(_, r)| r));
    if let Some(base) = &write.purge {
        state.base = Base::clone(base);
    }
}
