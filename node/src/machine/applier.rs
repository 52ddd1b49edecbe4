//! The applier: runs a machine, one task after the other.
//!
//! Invariants: tasks are done in the order in which they are given; what a durable machine stores with each is what
//! Kontiki knows behind that very task; after a failure nothing is done any more.

use super::{At, Machine, MachineError, MetaRows, ReaderOfBytes, Source};
use crate::meta::{Changes, Mark, Meta};
use bytes::Bytes;
use kontiki_consensus::{Body, Index, LogId, Run};
use kontiki_log::SnapshotFile;
use kontiki_wire::{
    Codec, Payload,
    record::{Kind, RecordHeader, entries_in, records},
};
use std::{
    fmt,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What the driver asks of the machine. Tasks are done in the order that [`enqueue`](super::enqueue) makes.
pub enum Task {
    /// Apply what these runs hold.
    Apply(Vec<Run>),
    /// Answer a query from the state as it then is: that behind all that was given before, or a later one.
    Query {
        /// The driver's name for it.
        token: u64,
        /// The query.
        query: Bytes,
    },
    /// Give a source of the state as it then is.
    Snapshot,
    /// Take over the state of a snapshot, which can be read from here.
    Restore(Restore, Box<dyn Read + Send>),
    /// A durable machine is to keep what speaks against it, or that nothing does any more.
    Mark(Mark),
}

/// A snapshot whose state the machine is to take over.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The snapshot; it is on disk, and stays there until this is done.
    pub file: SnapshotFile,
    /// What Kontiki knows with that state.
    pub meta: Box<Meta>,
}

impl Restore {
    /// The last record it covers.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.file.header.base.last
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(runs) => f.debug_tuple("Apply").field(runs).finish(),
            Self::Query { token, .. } => f.debug_tuple("Query").field(token).finish(),
            Self::Mark(mark) => f.debug_tuple("Mark").field(mark).finish(),
            Self::Snapshot => f.write_str("Snapshot"),
            Self::Restore(restore, _) => f.debug_tuple("Restore").field(&restore.last()).finish(),
        }
    }
}

impl Task {
    /// Whether it is a query, and of what name.
    #[must_use]
    pub fn query(&self) -> Option<u64> {
        match self {
            Self::Query { token, .. } => Some(*token),
            _ => None,
        }
    }
}

/// What came of a task.
#[derive(Debug)]
pub enum Done {
    /// The runs were applied.
    Applied {
        /// The runs of the task.
        runs: Vec<Run>,
        /// What the entries of each record of users were answered, in the form of a payload.
        outputs: Vec<Bytes>,
        /// What the machine said of its state just behind each record by which replicas compare themselves.
        digests: Vec<(Index, Option<u64>)>,
    },
    /// It is kept what speaks against the machine.
    Marked,
    /// A query was answered, or why not.
    Answered {
        /// The driver's name for it.
        token: u64,
        /// The answer, or in words why there is none.
        answer: Result<Bytes, String>,
    },
    /// A query that is to be answered aside.
    Asked(Asked),
    /// A source of the state as it is, or none if this machine has no snapshots, or why there is none at the moment.
    Source(Result<Option<Source>, MachineError>),
    /// The state is that of the snapshot.
    Restored(Restore),
    /// The machine cannot go on.
    Failed(MachineError),
}

/// A query, and a reader of the state as it was when its turn came.
pub struct Asked {
    token: u64,
    query: Bytes,
    reader: ReaderOfBytes,
}

impl Asked {
    /// The driver's name for it.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Answers it; gives [`Done::Answered`].
    #[must_use]
    pub fn answer(self) -> Done {
        let Self { token, query, reader } = self;
        let answer = catch_unwind(AssertUnwindSafe(|| reader(&query)));
        Done::Answered {
            token,
            answer: answer.unwrap_or_else(|panic| Err(super::panicked(&*panic))),
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.token).finish()
    }
}

/// Runs a machine.
pub struct Applier {
    machine: Box<dyn Machine>,
    /// What a durable machine is to store; the driver keeps its own for one in memory.
    durable: Option<Meta>,
    changes: Changes,
    failed: Option<MachineError>,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (durable, failed) = (&self.durable, &self.failed);
        f.debug_struct("Applier")
            .field("durable", durable)
            .field("failed", failed)
            .finish_non_exhaustive()
    }
}

impl Applier {
    /// Takes over a machine.
    ///
    /// # Errors
    /// If what Kontiki has stored in a durable one cannot be read.
    pub fn new(machine: impl Machine + 'static) -> Result<Self, MachineError> {
        let rows = machine.durable()?;
        let durable = rows.as_ref().map(Meta::of_rows).transpose()?;
        Ok(Self {
            machine: Box::new(machine),
            durable,
            changes: Changes::default(),
            failed: None,
        })
    }

    /// Behind which record the machine goes on: what the driver is to be begun with.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.durable.clone().unwrap_or_default()
    }

    /// See [`StateMachine::digest`](super::StateMachine::digest).
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        self.machine.digest()
    }

    /// Does a task.
    pub fn run(&mut self, task: Task) -> Done {
        if let Some(error) = &self.failed {
            return Done::Failed(error.clone());
        }
        match task {
            Task::Apply(runs) => match self.apply(&runs) {
                Ok((outputs, digests)) => Done::Applied {
                    runs,
                    outputs,
                    digests,
                },
                Err(error) => Done::Failed(self.failed.insert(error).clone()),
            },
            Task::Query { token, query } => match self.machine.reader() {
                Some(reader) => Done::Asked(Asked { token, query, reader }),
                None => Done::Answered {
                    token,
                    answer: self.machine.query(&query),
                },
            },
            Task::Mark(mark) => match self.mark(mark) {
                Ok(()) => Done::Marked,
                Err(error) => Done::Failed(self.failed.insert(error).clone()),
            },
            Task::Snapshot => Done::Source(self.machine.snapshot().map(|source| source.map(Source::new))),
            Task::Restore(restore, mut from) => match self.restore(&restore, &mut *from) {
                Ok(()) => Done::Restored(restore),
                Err(error) => Done::Failed(self.failed.insert(error).clone()),
            },
        }
    }

    /// Takes over the state of a snapshot: all of it, or the machine is of no use any more.
    fn restore(&mut self, restore: &Restore, from: &mut dyn Read) -> Result<(), MachineError> {
        let index = restore.last().index;
        let wrong = |what: String| MachineError::new(format!("the snapshot up to record {index}: {what}"));
        // What speaks against this machine stays until the driver says otherwise: a crash must not make it sound.
        let mark = self.durable.as_ref().map(|durable| durable.mark);
        let kept = mark.map(|mark| {
            let mut meta = Meta::clone(&restore.meta);
            meta.mark = mark;
            meta
        });
        let rows = match &kept {
            Some(meta) => meta.all_rows()?,
            None => MetaRows::default(),
        };
        let taken = self.machine.restore(from, &rows);
        // What cannot be read says so again; and its end is told only behind all of it.
        match (from.read(&mut [0]), taken) {
            (Err(error), _) => return Err(wrong(error.to_string())),
            (Ok(_), Err(error)) => return Err(wrong(error.what)),
            (Ok(0), Ok(())) => {}
            (Ok(_), Ok(())) => return Err(wrong("it was not read to its end".to_owned())),
        }
        self.durable = kept;
        self.changes.clear();
        Ok(())
    }

    /// Applies what the runs hold; gives what each record of users was answered, and what the machine says of its state
    /// just behind each record by which replicas compare themselves.
    #[allow(clippy::type_complexity)]
    fn apply(&mut self, runs: &[Run]) -> Result<(Vec<Bytes>, Vec<(Index, Option<u64>)>), MachineError> {
        let all = Content::of(runs)?;
        if all.compares.is_empty() {
            return Ok((self.apply_part(runs, all)?, Vec::new()));
        }
        let (mut outputs, mut digests) = (Vec::new(), Vec::new());
        let mut from = runs.first().map_or(Index::ZERO, Run::first);
        for index in &all.compares {
            let part = between(runs, from, *index);
            outputs.extend(self.apply_part(&part, Content::of(&part)?)?);
            digests.push((*index, self.machine.digest()));
            from = index.next();
        }
        let rest = between(runs, from, runs.last().map_or(Index::ZERO, Run::last));
        if !rest.is_empty() {
            outputs.extend(self.apply_part(&rest, Content::of(&rest)?)?);
        }
        Ok((outputs, digests))
    }

    fn apply_part(&mut self, runs: &[Run], content: Content) -> Result<Vec<Bytes>, MachineError> {
        let Content { entries, counts, .. } = content;
        if entries.is_empty() && self.durable.is_none() {
            return Ok(vec![Bytes::new(); counts.len()]);
        }
        let Self { durable, changes, .. } = self;
        let mut stored = durable.is_none();
        let mut rows = |outputs: &[Bytes]| match durable {
            None => Ok(MetaRows::default()),
            Some(_) if stored => Err(MachineError::new("it asked twice for what it is to store")),
            Some(meta) => {
                stored = true;
                let mut by_record = by_record(outputs, &counts)?.into_iter();
                runs.iter()
                    .for_each(|run| meta.take(run, &mut by_record, changes));
                let rows = meta.rows(changes);
                changes.clear();
                rows
            }
        };
        let outputs = self.machine.apply(entries, &mut rows)?;
        if stored {
            by_record(&outputs, &counts)
        } else {
            Err(MachineError::new(
                "it is durable, and did not ask for what it is to store",
            ))
        }
    }

    /// A durable machine keeps what speaks against it.
    fn mark(&mut self, mark: Mark) -> Result<(), MachineError> {
        let Some(meta) = &mut self.durable else {
            return Ok(());
        };
        meta.mark = mark;
        self.apply_part(&[], Content::default()).map(drop)
    }
}

/// The part of these runs from one record to another, both included.
fn between(runs: &[Run], from: Index, to: Index) -> Vec<Run> {
    let parts = runs.iter().filter(|run| run.first() <= to && from <= run.last());
    parts
        .filter_map(|run| run.slice(from.max(run.first()), to.min(run.last())))
        .collect()
}

/// What there is in some runs.
#[derive(Default)]
pub(super) struct Content {
    /// Everything there is to apply.
    pub(super) entries: Vec<(At, Bytes)>,
    /// How many entries each record of users has.
    pub(super) counts: Vec<u32>,
    /// The records by which replicas compare themselves.
    compares: Vec<Index>,
}

impl Content {
    pub(super) fn of(runs: &[Run]) -> Result<Self, MachineError> {
        let mut all = Self::default();
        for run in runs {
            let Body::Records(bytes) = run.body() else {
                continue;
            };
            let expected = all.counts.len() + bytes.len();
            for (header, payload) in records(run) {
                all.add(&header, &bytes.bytes().slice_ref(payload));
            }
            if all.counts.len() != expected {
                return Err(MachineError::new(format!("a run that is not sound: {run:?}")));
            }
        }
        Ok(all)
    }

    fn add(&mut self, header: &RecordHeader, payload: &Bytes) {
        self.counts.push(header.count);
        if header.kind == Kind::Compare {
            self.compares.push(header.index);
        }
        let entries = if header.count > 0 {
            entries_in(payload, header.count)
        } else {
            None
        };
        for (n, entry) in entries.into_iter().flatten().enumerate() {
            let at = At {
                index: header.first.0.saturating_add(n as u64),
                raft_index: header.index.0,
                term: header.term.0,
                clock_seconds: header.clock,
                date_ns: header.leader_time,
                schema: header.schema,
            };
            self.entries.push((at, entry));
        }
    }
}

/// The outputs of each record, in the form of a payload.
fn by_record(outputs: &[Bytes], counts: &[u32]) -> Result<Vec<Bytes>, MachineError> {
    let mut rest = outputs;
    let mut records = Vec::with_capacity(counts.len());
    let wrong = |what: &str| MachineError::new(what.to_owned());
    for count in counts {
        let (of_record, others) = rest
            .split_at_checked(*count as usize)
            .ok_or_else(|| wrong("it gave fewer outputs than there were commands"))?;
        rest = others;
        records.push(match of_record {
            [] => Bytes::new(),
            [one] => one.clone(),
            several => {
                Payload::several(several, Codec::Postcard)
                    .ok_or_else(|| wrong("its outputs for one record are above 4 GiB"))?
                    .bytes
            }
        });
    }
    if rest.is_empty() {
        Ok(records)
    } else {
        Err(wrong("it gave more outputs than there were commands"))
    }
}
