//! The seam of the state machine: what a program writes, and the applier that runs it.
//!
//! [`StateMachine`] is typed; below it all is bytes ([`Machine`]), encoded with postcard. The [`Applier`] does one task
//! after the other, on whichever thread has it: the driver knows nothing of that but the order. Invariants: what is applied
//! is committed and on this node's disk, in the order of the log, each entry once in the life of a state; once applying
//! has failed nothing is done any more, for the state may be half changed.

use crate::meta::{Changes, Meta};
use bytes::Bytes;
use kontiki_consensus::{Body, Index, Run};
use kontiki_wire::{
    Codec, Payload,
    record::{Kind, RecordHeader, entries_in, records},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::Cell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Where an entry stands: the same on every node, so that nobody looks at a clock while applying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// Its index, from 1, without a gap.
    pub index: u64,
    /// The Raft index of its record.
    pub raft_index: u64,
    /// The term it was appended in.
    pub term: u64,
    /// The leader's date when it was appended, ns since 1970; it never goes back from one entry to the next.
    pub leader_time: u64,
}

/// What a program replicates: a state that follows from the commands in the log, and from nothing else.
///
/// All four types are serde types whose postcard encoding round-trips. A panic in `apply` or a command that cannot
/// be decoded stops this node visibly; log and vote stay as they are, and a corrected program goes on from there.
pub trait StateMachine: Send + 'static {
    /// What is appended to the log.
    type Command: Serialize + DeserializeOwned;
    /// What applying a command gives back to whoever appended it.
    type Output: Serialize + DeserializeOwned;
    /// What is asked of the state without changing it.
    type Query: Serialize + DeserializeOwned;
    /// The answer.
    type Answer: Serialize + DeserializeOwned;

    /// Applies one command. It must give the same on every node: no clock, no chance, no order of a hash map.
    fn apply(&mut self, at: &At, command: Self::Command) -> Self::Output;

    /// Applies a batch, one output for each command, in their order. A durable machine overrides this: in one
    /// transaction it applies all, and stores the [rows](MetaDelta::rows) that come with it, for an empty batch too.
    ///
    /// # Errors
    /// If the state cannot be kept; the node stops with it.
    fn apply_batch(
        &mut self,
        batch: Batch<'_, Self::Command>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<Self::Output>, MachineError> {
        let _ = meta;
        Ok(batch.map(|(at, command)| self.apply(&at, command)).collect())
    }

    /// Answers a query from the state as it is.
    fn query(&self, query: Self::Query) -> Self::Answer;

    /// A number that is equal where states are equal, if there is one that is cheap to have.
    fn digest(&self) -> Option<u64> {
        None
    }

    /// What Kontiki has stored in a durable machine, all rows of it; nothing yet is no rows. `None`, the default, is a
    /// machine in memory: it is given the whole log again after each start.
    ///
    /// # Errors
    /// If it cannot be read.
    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        Ok(None)
    }
}

/// What Kontiki keeps in a durable machine: rows by key. In a delta, `None` removes the row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetaRows(pub Vec<(u64, Option<Bytes>)>);

impl MetaRows {
    /// Puts a delta into rows that are kept in memory.
    pub fn merge(&mut self, delta: Self) {
        for (key, row) in delta.0 {
            self.0.retain(|(k, _)| *k != key);
            if row.is_some() {
                self.0.push((key, row));
            }
        }
    }
}

/// Why a state machine cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct MachineError {
    /// The entry at which it failed, as far as that is known.
    pub index: Option<u64>,
    /// What happened.
    pub what: String,
}

impl MachineError {
    /// A failure that is nobody's entry in particular.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            index: None,
            what: what.into(),
        }
    }

    fn at(index: u64, what: impl Into<String>) -> Self {
        Self {
            index: (index > 0).then_some(index),
            what: what.into(),
        }
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "the state machine failed at entry {index}: {}", self.what),
            None => write!(f, "the state machine failed: {}", self.what),
        }
    }
}

/// Commands to be applied, each with its place. It notes how far it was taken, to name the one that fails.
#[derive(Debug)]
pub struct Batch<'a, C> {
    commands: std::vec::IntoIter<(At, C)>,
    reached: &'a Cell<u64>,
}

impl<C> Iterator for Batch<'_, C> {
    type Item = (At, C);

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.commands.next()?;
        self.reached.set(next.0.index);
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.commands.size_hint()
    }
}

impl<C> ExactSizeIterator for Batch<'_, C> {}

/// What Kontiki's own state becomes with a batch.
pub struct MetaDelta<'a> {
    rows: &'a mut dyn FnMut(&[Bytes]) -> Result<MetaRows, MachineError>,
    encoded: Option<Vec<Bytes>>,
}

impl fmt::Debug for MetaDelta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaDelta").finish_non_exhaustive()
    }
}

impl MetaDelta<'_> {
    /// The rows a durable machine is to store in the same transaction, given what the batch's commands were answered.
    /// To be asked once.
    ///
    /// # Errors
    /// If an output cannot be encoded, or there are not as many as commands.
    pub fn rows<O: Serialize>(&mut self, outputs: &[O]) -> Result<MetaRows, MachineError> {
        let encoded = encode_all(outputs)?;
        let rows = (self.rows)(&encoded)?;
        self.encoded = Some(encoded);
        Ok(rows)
    }
}

/// A state machine whose commands and answers are bytes. [`Typed`] makes one of any [`StateMachine`].
pub trait Machine: Send {
    /// Applies entries in their order; gives one output for each. `rows` gives a durable machine what to store with it.
    ///
    /// # Errors
    /// If one of them cannot be applied. The state may be half changed then.
    fn apply(
        &mut self,
        batch: Vec<(At, Bytes)>,
        rows: &mut dyn FnMut(&[Bytes]) -> Result<MetaRows, MachineError>,
    ) -> Result<Vec<Bytes>, MachineError>;

    /// Answers a query.
    ///
    /// # Errors
    /// In words, if the query cannot be answered; the state is as it was.
    fn query(&self, query: &[u8]) -> Result<Bytes, String>;

    /// See [`StateMachine::digest`].
    fn digest(&self) -> Option<u64>;

    /// See [`StateMachine::durable`].
    ///
    /// # Errors
    /// If it cannot be read.
    fn durable(&self) -> Result<Option<MetaRows>, MachineError>;
}

/// A typed machine behind the seam of bytes: encodes, decodes, and turns a panic into an error.
#[derive(Debug)]
pub struct Typed<M>(pub M);

impl<M: StateMachine> Machine for Typed<M> {
    fn apply(
        &mut self,
        batch: Vec<(At, Bytes)>,
        rows: &mut dyn FnMut(&[Bytes]) -> Result<MetaRows, MachineError>,
    ) -> Result<Vec<Bytes>, MachineError> {
        let mut commands = Vec::with_capacity(batch.len());
        for (at, bytes) in batch {
            let command = decode::<M::Command>(&bytes)
                .map_err(|e| MachineError::at(at.index, format!("the command cannot be decoded: {e}")))?;
            commands.push((at, command));
        }
        let reached = Cell::new(0);
        let mut meta = MetaDelta { rows, encoded: None };
        let batch = Batch {
            commands: commands.into_iter(),
            reached: &reached,
        };
        let applied = catch_unwind(AssertUnwindSafe(|| self.0.apply_batch(batch, &mut meta)));
        let outputs = match applied {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(MachineError { index, what })) => {
                return Err(MachineError::at(index.unwrap_or(reached.get()), what));
            }
            Err(panic) => return Err(MachineError::at(reached.get(), panicked(&*panic))),
        };
        meta.encoded.map_or_else(|| encode_all(&outputs), Ok)
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, String> {
        let query = decode::<M::Query>(query).map_err(|e| format!("the query cannot be decoded: {e}"))?;
        let answer = catch_unwind(AssertUnwindSafe(|| self.0.query(query)));
        let answer = answer.map_err(|panic| panicked(&*panic))?;
        encode(&answer).map_err(|e| e.what)
    }

    fn digest(&self) -> Option<u64> {
        self.0.digest()
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        self.0.durable()
    }
}

/// The bytes of a command, query or answer.
///
/// # Errors
/// If serde cannot encode it.
pub fn encode(value: &impl Serialize) -> Result<Bytes, MachineError> {
    let bytes =
        postcard::to_stdvec(value).map_err(|e| MachineError::new(format!("it cannot be encoded: {e}")))?;
    Ok(bytes.into())
}

fn encode_all(values: &[impl Serialize]) -> Result<Vec<Bytes>, MachineError> {
    values.iter().map(encode).collect()
}

/// The value of these bytes, which must be all of it.
///
/// # Errors
/// In words, if they are not the encoding of one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("(no text)"))
}

/// What the driver asks of the machine. Tasks are done in the order in which they are given.
#[derive(Debug)]
pub enum Task {
    /// Apply what these runs hold.
    Apply(Vec<Run>),
    /// Answer a query from the state as it then is.
    Query {
        /// The driver's name for it.
        token: u64,
        /// The query.
        query: Bytes,
    },
    /// A durable machine is to keep that it was found to differ from a majority's, at this record.
    Quarantine(Index),
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
    /// It is kept that the machine differs.
    Marked,
    /// A query was answered, or why not.
    Answered {
        /// The driver's name for it.
        token: u64,
        /// The answer, or in words why there is none.
        answer: Result<Bytes, String>,
    },
    /// The machine cannot go on.
    Failed(MachineError),
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

    /// See [`StateMachine::digest`].
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
            Task::Query { token, query } => Done::Answered {
                token,
                answer: self.machine.query(&query),
            },
            Task::Quarantine(index) => match self.mark(index) {
                Ok(()) => Done::Marked,
                Err(error) => Done::Failed(self.failed.insert(error).clone()),
            },
        }
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

    /// A durable machine keeps that it was found to differ.
    fn mark(&mut self, index: Index) -> Result<(), MachineError> {
        let Some(meta) = &mut self.durable else {
            return Ok(());
        };
        meta.quarantined = index;
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
struct Content {
    /// Everything there is to apply.
    entries: Vec<(At, Bytes)>,
    /// How many entries each record of users has.
    counts: Vec<u32>,
    /// The records by which replicas compare themselves.
    compares: Vec<Index>,
}

impl Content {
    fn of(runs: &[Run]) -> Result<Self, MachineError> {
        let mut all = Self::default();
        for run in runs {
            let expected = match run.body() {
                Body::Records(records) => all.counts.len() + records.len(),
                _ => all.counts.len(),
            };
            for (header, payload) in records(run) {
                all.add(&header, &payload);
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
                leader_time: header.leader_time,
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

#[cfg(test)]
mod tests;
