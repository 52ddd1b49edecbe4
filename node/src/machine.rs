//! The seam of the state machine: what a program writes, and the applier that runs it.
//!
//! [`StateMachine`] is typed; below it all is bytes ([`Machine`], [`encoding`](crate::encoding)). The [`Applier`] does one task
//! after the other, on whichever thread has it: the driver knows nothing of that but the order. Invariants: what is applied
//! is committed and on this node's disk, in the order of the log, each entry once in the life of a state; once applying
//! has failed nothing is done any more, for the state may be half changed.

mod applier;
mod queue;
mod state;

pub use applier::{Applier, Asked, Done, Restore, Task};
pub use queue::{QUERIES_AHEAD_MAX, enqueue};
pub use state::{Source, restored, snapshot_of};

use crate::encoding::{decode, encode, encode_ordered};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::Cell,
    fmt,
    io::Read,
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
    /// The cluster's clock when it was appended, in seconds: the time that has passed under the cluster's leaders. It never
    /// goes back from one entry to the next, time without a leader does not pass, and no node's date moves it: what lasts for
    /// a time is to be measured by it. It counts whole seconds: what lasts `n` seconds is certainly over at `n + 1` more.
    pub clock_seconds: u32,
    /// The leader's date when it was appended, ns since 1970: for people. It is what one node's clock shows: where that is
    /// wrong it is wrong, and then it may go back from one entry to the next. Nothing is to be decided by it.
    pub date_ns: u64,
    /// The schema of the program that appended it, a number of the application's own; zero unless it says.
    pub schema: u32,
}

/// Answers one query from the state of one moment.
pub type Reader<Q, A> = Box<dyn FnOnce(Q) -> A + Send>;

/// The same behind the seam of bytes: query and answer as [`Machine::query`] has them.
pub type ReaderOfBytes = Box<dyn FnOnce(&[u8]) -> Result<Bytes, String> + Send>;

/// What a program replicates: a state that follows from the commands in the log, and from nothing else.
///
/// All four types are serde types that postcard can decode ([`encoding`](crate::encoding)); each command is tried before it is
/// sent. A panic in `apply` or a command that cannot be decoded stops this node visibly; log and vote stay as they are, and a
/// corrected program goes on from there.
pub trait StateMachine: Send + 'static {
    /// What is appended to the log.
    type Command: Serialize + DeserializeOwned;
    /// What applying a command gives back to whoever appended it. Replicas compare the bytes of their outputs. The entries of
    /// a map are encoded in the order of their keys' bytes, so a `HashMap` is equal everywhere; a `HashSet` is encoded as a
    /// sequence in an order of its own, and would quarantine every node: give a `BTreeSet` or a sorted vector.
    type Output: Serialize + DeserializeOwned;
    /// What is asked of the state without changing it.
    type Query: Serialize + DeserializeOwned;
    /// The answer.
    type Answer: Serialize + DeserializeOwned;

    /// The command of these bytes. A program whose commands have changed decodes those of an earlier
    /// [schema](At::schema) as their earlier type and converts them, or refuses what is later than itself. It must give the
    /// same on every node.
    ///
    /// # Errors
    /// In words; the node stops with it and names the entry, and log and vote stay as they are.
    fn decode(&self, at: &At, bytes: &[u8]) -> Result<Self::Command, String> {
        let _ = at;
        decode(bytes)
    }

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

    /// A reader of the state as it is now, which no later command changes: a version of a database, say. It answers one query
    /// on a thread of its own while applying goes on. `None`, the default: [`query`](Self::query) answers, and applying waits.
    fn reader(&self) -> Option<Reader<Self::Query, Self::Answer>> {
        None
    }

    /// A number that is equal where states are equal, if there is one that is cheap to have.
    fn digest(&self) -> Option<u64> {
        None
    }

    /// What Kontiki has stored in a durable machine, all rows of it; nothing yet is no rows. `None`, the default, is a
    /// machine in memory: it is given its newest snapshot and the log behind it again after each start.
    ///
    /// # Errors
    /// If it cannot be read.
    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        Ok(None)
    }

    /// An owned source of the whole state as it is now; it is read to its end on another thread while applying goes on.
    /// `None`, the default: this machine has no snapshots, and its log is kept whole. For a state in memory there is
    /// [`snapshot_of`]. Paper §7.
    ///
    /// # Errors
    /// If there is none at the moment: the node goes on, and asks again after a while.
    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        Ok(None)
    }

    /// The state becomes the one that `from` holds, to its end: what [`snapshot`](Self::snapshot) gave, on this node or
    /// another. A durable machine stores `rows` in the same transaction, in place of all rows it has; or, if the state is
    /// too large for one, in the last of several, and opens as a new one, empty and without rows, if it was cut short.
    /// For a state in memory there is [`restored`].
    ///
    /// # Errors
    /// If it cannot be read or kept; the node stops with it. An error that `from` gives is to be given on.
    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError> {
        let _ = (from, rows);
        Err(MachineError::new(
            "it takes no snapshots, and another node has sent one",
        ))
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

    /// See [`StateMachine::reader`].
    fn reader(&self) -> Option<ReaderOfBytes> {
        None
    }

    /// See [`StateMachine::durable`].
    ///
    /// # Errors
    /// If it cannot be read.
    fn durable(&self) -> Result<Option<MetaRows>, MachineError>;

    /// See [`StateMachine::snapshot`].
    ///
    /// # Errors
    /// If there is none at the moment.
    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError>;

    /// See [`StateMachine::restore`].
    ///
    /// # Errors
    /// If it cannot be read or kept. The state may be half changed then.
    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError>;
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
            let decoded = catch_unwind(AssertUnwindSafe(|| self.0.decode(&at, &bytes)));
            let decoded = decoded.unwrap_or_else(|panic| Err(panicked(&*panic)));
            let refused = |why| {
                let schema = at.schema;
                let what = format!("the command, of schema {schema}, cannot be decoded: {why}");
                MachineError::at(at.index, what)
            };
            let command = decoded.map_err(refused)?;
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
        answered(query, |query| self.0.query(query))
    }

    fn reader(&self) -> Option<ReaderOfBytes> {
        let reader = catch_unwind(AssertUnwindSafe(|| self.0.reader())).unwrap_or_else(|panic| {
            let text = panicked(&*panic);
            // Whoever asks hears of it.
            Some(Box::new(move |_| panic!("{text}")))
        })?;
        Some(Box::new(move |query| answered(query, reader)))
    }

    fn digest(&self) -> Option<u64> {
        self.0.digest()
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        self.0.durable()
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        catch_unwind(AssertUnwindSafe(|| self.0.snapshot()))
            .unwrap_or_else(|panic| Err(MachineError::new(panicked(&*panic))))
    }

    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError> {
        catch_unwind(AssertUnwindSafe(|| self.0.restore(from, rows)))
            .unwrap_or_else(|panic| Err(MachineError::new(panicked(&*panic))))
    }
}

/// The bytes of what a query is answered with; a panic is an answer in words.
fn answered<Q: DeserializeOwned, A: Serialize>(
    query: &[u8],
    by: impl FnOnce(Q) -> A,
) -> Result<Bytes, String> {
    let query = decode::<Q>(query).map_err(|e| format!("the query cannot be decoded: {e}"))?;
    let answer = catch_unwind(AssertUnwindSafe(|| by(query)));
    let answer = answer.map_err(|panic| panicked(&*panic))?;
    encode(&answer).map_err(|why| format!("the answer cannot be encoded: {why}"))
}

fn encode_all(outputs: &[impl Serialize]) -> Result<Vec<Bytes>, MachineError> {
    let encode = |output| {
        encode_ordered(output).map_err(|why| MachineError::new(format!("an output cannot be encoded: {why}")))
    };
    outputs.iter().map(encode).collect()
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("(no text)"))
}

#[cfg(test)]
mod tests;
