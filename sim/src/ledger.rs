//! What a node's log must hold: kept by the simulator from what the node hands to its log.
//!
//! A ledger follows each write on its way: handed over (`written`), then reported as persisted
//! (`durable`). A crash may lose what lies between the two, and nothing else: [`Ledger::reopen`]
//! compares what recovery found with every state the disk can have been left in. Invariant: each
//! record carries a hash over itself and all records before it, so that two logs which agree on one
//! hash agree on everything up to it.

use crate::hash::Hash;
use crate::violation::{Verdict, Violation, ensure};
use kontiki_consensus::{
    Body, HardState, Index, LogId, Position, Restored, Run, Term, TermStart, Write, WriteId,
};
use std::collections::VecDeque;

const RECOVERY: &str = "recovery finds what was persisted, and nothing that was not written";
const WRITES: &str = "writes follow one another";

/// A record as the checkers know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its term.
    pub term: Term,
    /// The last user entry up to and in it.
    pub position: Position,
    /// A hash over it and all records before it.
    pub chain: Hash,
}

/// The records of a run, given the hash of all before it.
#[must_use]
pub fn records_of(run: &Run, before: Hash) -> Vec<Record> {
    let mut chain = before;
    let mut next = |content: Hash, position: Position| {
        chain = chain.with(run.term().0).with(position.0).with(content.0);
        Record {
            term: run.term(),
            position,
            chain,
        }
    };
    match run.body() {
        Body::Noop => vec![next(Hash(1), run.last_position())],
        Body::Configuration(configuration) => {
            let hash = configuration
                .members()
                .iter()
                .fold(Hash(2), |hash, node| hash.with(node.0));
            vec![next(hash, run.last_position())]
        }
        Body::Records(records) => {
            let before = run.first_position().prev().0;
            let all = (0..records.len()).filter_map(|n| records.record(n));
            all.map(|(bytes, skip, entries)| {
                let position = Position(before + skip + u64::from(entries));
                next(Hash(3).with_bytes(&bytes), position)
            })
            .collect()
        }
    }
}

/// A write that is not yet reported as persisted.
#[derive(Clone, Debug)]
struct Pending {
    id: WriteId,
    hard_state: Option<HardState>,
    truncate: Option<Index>,
    /// What a snapshot that is installed covers: it takes the place of everything.
    install: Option<Vec<Record>>,
    records: Vec<Record>,
}

/// A node's log and hard state, as handed over and as persisted.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    written: Vec<Record>,
    durable: State,
    pending: VecDeque<Pending>,
    /// How many records were persisted before the last write that was reported, and are there still.
    settled: usize,
}

#[derive(Clone, Debug, Default)]
struct State {
    hard_state: HardState,
    records: Vec<Record>,
}

impl State {
    fn chain(&self) -> Hash {
        chain_of(&self.records)
    }

    fn truncate(&mut self, from: Index) {
        self.records.truncate(from.prev().0 as usize);
    }

    fn apply(&mut self, write: &Pending) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = write.truncate {
            self.truncate(from);
        }
        if let Some(covered) = &write.install {
            self.records.clone_from(covered);
        }
        self.records.extend(&write.records);
    }

    /// Whether this is what recovery found.
    fn is(&self, found: &Restored) -> bool {
        last_id(&self.records) == found.last
            && self.hard_state == found.hard_state
            && self.records.last().map_or(Position::ZERO, |r| r.position) == found.last_position
            && self.rests_on(found)
            && self.holds_tail(&found.tail)
    }

    /// Whether what is forgotten is what stood there, and the terms after that are these.
    fn rests_on(&self, found: &Restored) -> bool {
        let (base, position) = (found.base, found.base_position);
        let stood = at(&self.records, base.index);
        let is_base = base == LogId::ZERO
            || stood.is_some_and(|record| (record.term, record.position) == (base.term, position));
        let mut starts = term_starts(&self.records);
        if base != LogId::ZERO {
            starts.retain(|start| start.index > base.index && start.term != base.term);
        }
        is_base && starts == found.terms
    }

    fn holds_tail(&self, tail: &[Run]) -> bool {
        let Some(first) = tail.first().map(Run::first) else {
            return true;
        };
        let before = first.prev().0 as usize;
        if before > self.records.len() {
            return false;
        }
        let mut found: Vec<Record> = Vec::new();
        for run in tail {
            let chain = found
                .last()
                .map_or_else(|| chain_of(&self.records[..before]), |r| r.chain);
            found.extend(records_of(run, chain));
        }
        self.records[before..] == found
    }
}

fn chain_of(records: &[Record]) -> Hash {
    records.last().map_or(Hash::default(), |r| r.chain)
}

fn last_id(records: &[Record]) -> LogId {
    LogId::new(
        records.last().map_or(Term::ZERO, |r| r.term),
        Index(records.len() as u64),
    )
}

fn term_starts(records: &[Record]) -> Vec<TermStart> {
    let mut starts: Vec<TermStart> = Vec::new();
    let mut position_before = Position::ZERO;
    for (n, record) in records.iter().enumerate() {
        if starts.last().is_none_or(|s| s.term != record.term) {
            starts.push(TermStart {
                term: record.term,
                index: Index(n as u64 + 1),
                position_before,
            });
        }
        position_before = record.position;
    }
    starts
}

fn at(records: &[Record], index: Index) -> Option<&Record> {
    records.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
}

impl Ledger {
    /// The ledger of a log that was just made and holds nothing but these runs.
    #[must_use]
    pub fn founded(hard_state: HardState, runs: &[Run]) -> Self {
        let mut durable = State {
            hard_state,
            records: Vec::new(),
        };
        for run in runs {
            durable.records.extend(records_of(run, durable.chain()));
        }
        Self {
            written: durable.records.clone(),
            durable,
            pending: VecDeque::new(),
            settled: 0,
        }
    }

    /// Follows a write to the log; gives the index of its first record. `covered` is what a snapshot that it installs
    /// covers.
    ///
    /// # Errors
    /// If it does not follow the one before, leaves a gap, or truncates beyond the end.
    pub fn follow(&mut self, write: &Write, covered: Option<Vec<Record>>) -> Result<Index, Violation> {
        if let Some(last) = self.pending.back() {
            ensure(write.id == last.id.next(), WRITES, || {
                format!("{:?} came after {:?}", write.id, last.id)
            })?;
        }
        if let Some(from) = write.truncate {
            let inside = from.0 >= 1 && from.0 <= self.written.len() as u64;
            ensure(inside, WRITES, || {
                format!("truncated from {from:?}, the log ends at {:?}", self.last())
            })?;
            self.written.truncate(from.prev().0 as usize);
        }
        if let Some(covered) = &covered {
            self.written.clone_from(covered);
        }
        let first = self.last().index.next();
        for run in &write.runs {
            let next = self.last().index.next();
            ensure(run.first() == next, WRITES, || {
                format!("{run:?} was written where {next:?} should stand")
            })?;
            let chain = chain_of(&self.written);
            self.written.extend(records_of(run, chain));
        }
        let records = self.written[first.prev().0 as usize..].to_vec();
        let Write {
            id,
            hard_state,
            truncate,
            ..
        } = *write;
        self.pending.push_back(Pending {
            id,
            hard_state,
            truncate,
            install: covered,
            records,
        });
        Ok(first)
    }

    /// Follows a write that installs nothing.
    ///
    /// # Errors
    /// See [`Self::follow`].
    pub fn write(&mut self, write: &Write) -> Result<Index, Violation> {
        self.follow(write, None)
    }

    /// This write and all before it are reported as persisted.
    pub fn persisted(&mut self, id: WriteId) {
        let mut settled = self.durable.records.len();
        while let Some(write) = self.pending.pop_front_if(|w| w.id <= id) {
            settled = settled.min(write.truncate.map_or(settled, |from| from.prev().0 as usize));
            settled = settled.min(write.install.as_ref().map_or(settled, |_| 0));
            self.durable.apply(&write);
        }
        self.settled = settled;
    }

    /// The records behind which something later is on disk: whatever is damaged, they are not just gone.
    #[must_use]
    pub fn settled(&self) -> &[Record] {
        &self.durable.records[..self.settled]
    }

    /// The node was down, and recovery has found this on its disk.
    ///
    /// # Errors
    /// If the disk cannot have been left like that: something persisted is missing, or something is
    /// there that was never written.
    pub fn reopen(&mut self, found: &Restored) -> Verdict {
        let writes = std::mem::take(&mut self.pending);
        let Some(state) = self.left_by(&writes, found) else {
            let persisted = last_id(&self.durable.records);
            return ensure(false, RECOVERY, || {
                format!(
                    "found {:?} {:?} terms {:?}; persisted were {persisted:?} {:?}, and handed over {:?} in {} writes more",
                    found.last,
                    found.hard_state,
                    found.terms,
                    self.durable.hard_state,
                    last_id(&self.written),
                    writes.len()
                )
            });
        };
        self.written.clone_from(&state.records);
        // A truncation that survived unreported removes records with it.
        let both = self.durable.records.iter().zip(&state.records);
        self.settled = self.settled.min(both.take_while(|(a, b)| a == b).count());
        self.durable = state;
        Ok(())
    }

    /// The latest state a crash can have left that is the one found: after any write, or within one.
    fn left_by(&self, writes: &VecDeque<Pending>, found: &Restored) -> Option<State> {
        let mut state = self.durable.clone();
        let mut result = state.is(found).then(|| state.clone());
        let mut look = |state: &State| {
            if state.is(found) {
                result = Some(state.clone());
            }
        };
        for write in writes {
            state.hard_state = write.hard_state.unwrap_or(state.hard_state);
            look(&state);
            if let Some(from) = write.truncate {
                state.truncate(from);
                look(&state);
            }
            if let Some(covered) = &write.install {
                state.records.clone_from(covered);
                look(&state);
            }
            for record in &write.records {
                state.records.push(*record);
                look(&state);
            }
        }
        result
    }

    /// The last record handed over.
    #[must_use]
    pub fn last(&self) -> LogId {
        last_id(&self.written)
    }

    /// All records handed over.
    #[must_use]
    pub fn written(&self) -> &[Record] {
        &self.written
    }

    /// All records that are persisted.
    #[must_use]
    pub fn durable(&self) -> &[Record] {
        &self.durable.records
    }

    /// The record handed over at this index.
    #[must_use]
    pub fn record(&self, index: Index) -> Option<&Record> {
        at(&self.written, index)
    }

    /// The record persisted at this index.
    #[must_use]
    pub fn durable_record(&self, index: Index) -> Option<&Record> {
        at(&self.durable.records, index)
    }

    /// The hard state that is persisted.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.durable.hard_state
    }
}
