//! The state machine: pairs of keys and values in redb.
//!
//! Invariants: pairs, sums and Kontiki's rows change in one transaction, so that whatever of them is on disk belongs
//! together; the digest is that of the pairs and nothing else, and does not depend on their order. A transaction need not
//! be on disk before the next begins: the log has every command, and after a crash the store is given again what it lost.
//! Before a snapshot it is, since the log is cut behind that. A large state is taken over in many transactions, so that
//! those who share the disk wait for none of them long; a store that was cut short in that is an empty one.

use kontiki::{At, Batch, MachineError, MetaDelta, MetaRows, Reader, StateMachine};
use redb::{
    Database, Durability, Range, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pairs");
const SUMS: TableDefinition<'_, &str, u64> = TableDefinition::new("sums");
/// What Kontiki keeps here.
const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("kontiki");

/// How much of a snapshot is in memory at a time, about.
const PIECE_BYTES: usize = 64 << 10;
/// The row of the sums that says that a snapshot is being taken over.
const RESTORING: &str = "restoring";

/// The longest key or value that is taken from a snapshot.
const PART_BYTES_MAX: u32 = 64 << 20;

#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) enum Command {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Puts the value if this is what stands there.
    Cas {
        key: Vec<u8>,
        expect: Option<Vec<u8>>,
        value: Vec<u8>,
    },
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Query {
    Get(Vec<u8>),
    /// How many keys begin with this.
    Count(Vec<u8>),
    Sums,
    /// The sums, made anew from all pairs.
    Recount,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) enum Answer {
    Value(Option<Vec<u8>>),
    Count(u64),
    Sums(Sums),
    Failed(String),
}

/// What is known of all pairs together.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sums {
    /// The last command applied.
    pub(crate) index: u64,
    pub(crate) pairs: u64,
    /// The sum of the hashes of all pairs: equal for equal pairs, whatever became of them on the way.
    pub(crate) digest: u64,
}

/// What a store tells of itself to the program around it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) taken: AtomicU64,
    pub(crate) restored: AtomicU64,
    /// Whether a snapshot is being read.
    pub(crate) reading: AtomicBool,
}

/// How a store is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Commands between two transactions that wait for the disk; 1: each of them does.
    pub(crate) sync_every: u64,
    pub(crate) cache_bytes: usize,
    /// How much is taken over from a snapshot in one transaction, about.
    pub(crate) part_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync_every: 100_000,
            cache_bytes: 32 << 20,
            part_bytes: 8 << 20,
        }
    }
}

pub(crate) struct Store {
    db: Database,
    sums: Sums,
    options: Options,
    /// Commands since the last transaction that waited for the disk.
    unsynced: u64,
    counters: Arc<Counters>,
}

impl Store {
    /// Opens what is there, or makes it.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Self, MachineError> {
        let mut builder = Database::builder();
        let db = builder
            .set_cache_size(options.cache_bytes)
            .create(path)
            .map_err(failed)?;
        let write = db.begin_write().map_err(failed)?;
        let cut_short = {
            let sums = write.open_table(SUMS).map_err(failed)?;
            sums.get(RESTORING).map_err(failed)?.is_some()
        };
        if cut_short {
            empty(&write).map_err(failed)?;
        }
        let sums = {
            write.open_table(PAIRS).map_err(failed)?;
            write.open_table(ROWS).map_err(failed)?;
            Sums::load(&write.open_table(SUMS).map_err(failed)?).map_err(failed)?
        };
        write.commit().map_err(failed)?;
        Ok(Self {
            db,
            sums,
            options,
            unsynced: 0,
            counters: Arc::default(),
        })
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn begin(&self, durable: bool) -> Result<WriteTransaction, MachineError> {
        let mut write = self.db.begin_write().map_err(failed)?;
        if durable {
            // With it, opening after a crash need not look at every pair.
            write.set_quick_repair(true);
        } else {
            write.set_durability(Durability::None).map_err(failed)?;
        }
        Ok(write)
    }

    fn pairs(&self) -> Result<Range<'static, &'static [u8], &'static [u8]>, redb::Error> {
        let table = self.db.begin_read()?.open_table(PAIRS)?;
        Ok(table.range::<&[u8]>(..)?)
    }

    fn view(&self) -> Result<View, redb::Error> {
        Ok(View {
            pairs: self.db.begin_read()?.open_table(PAIRS)?,
            sums: self.sums,
        })
    }
}

/// A version of the store, which nothing changes any more.
struct View {
    pairs: ReadOnlyTable<&'static [u8], &'static [u8]>,
    sums: Sums,
}

impl View {
    fn answer(&self, query: Query) -> Result<Answer, redb::Error> {
        match query {
            Query::Sums => Ok(Answer::Sums(self.sums)),
            Query::Get(key) => {
                let value = self.pairs.get(&key[..])?;
                Ok(Answer::Value(value.map(|value| value.value().to_vec())))
            }
            Query::Count(prefix) => {
                let mut count = 0;
                for pair in self.pairs.range(&prefix[..]..)? {
                    if !pair?.0.value().starts_with(&prefix) {
                        break;
                    }
                    count += 1;
                }
                Ok(Answer::Count(count))
            }
            Query::Recount => {
                let mut sums = Sums {
                    index: self.sums.index,
                    ..Sums::default()
                };
                for pair in self.pairs.range::<&[u8]>(..)? {
                    let (key, value) = pair?;
                    sums.add(key.value(), value.value());
                }
                Ok(Answer::Sums(sums))
            }
        }
    }
}

impl StateMachine for Store {
    type Command = Command;
    /// Whether something stood there before; for a comparison that fails, what stands there.
    type Output = Result<bool, Option<Vec<u8>>>;
    type Query = Query;
    type Answer = Answer;

    fn apply(&mut self, at: &At, _: Command) -> Self::Output {
        unreachable!("entry {}: commands are applied in batches", at.index)
    }

    fn apply_batch(
        &mut self,
        batch: Batch<'_, Command>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<Self::Output>, MachineError> {
        let unsynced = self.unsynced + batch.len() as u64;
        let durable = unsynced >= self.options.sync_every;
        let write = self.begin(durable)?;
        let (mut sums, mut outputs) = (self.sums, Vec::with_capacity(batch.len()));
        {
            let mut pairs = write.open_table(PAIRS).map_err(failed)?;
            for (at, command) in batch {
                outputs.push(sums.change(&mut pairs, command).map_err(failed)?);
                sums.index = at.index;
            }
        }
        store(&write, &sums, meta.rows(&outputs)?).map_err(failed)?;
        write.commit().map_err(failed)?;
        self.sums = sums;
        self.unsynced = if durable { 0 } else { unsynced };
        Ok(outputs)
    }

    fn query(&self, query: Query) -> Answer {
        let answer = self.view().and_then(|view| view.answer(query));
        answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }

    fn reader(&self) -> Option<Reader<Query, Answer>> {
        let view = self.view();
        Some(Box::new(move |query| {
            let answer = view.and_then(|view| view.answer(query));
            answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
        }))
    }

    fn digest(&self) -> Option<u64> {
        Some(self.sums.digest)
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        let rows = || -> Result<MetaRows, redb::Error> {
            let table = self.db.begin_read()?.open_table(ROWS)?;
            let mut rows = MetaRows::default();
            for row in table.range::<u64>(..)? {
                let (key, bytes) = row?;
                rows.0.push((key.value(), Some(bytes.value().to_vec().into())));
            }
            Ok(rows)
        };
        rows().map(Some).map_err(failed)
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        self.begin(true)?.commit().map_err(failed)?;
        self.unsynced = 0;
        let source = Source::new(self.sums, self.pairs().map_err(failed)?, self.counters());
        self.counters.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Box::new(source)))
    }

    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError> {
        let mut from = BufReader::with_capacity(PIECE_BYTES, from);
        let unreadable =
            |error: io::Error| MachineError::new(format!("the snapshot cannot be read: {error}"));
        let [index, pairs, digest] = head(&mut from).map_err(unreadable)?;
        let mut write = self.begin(true)?;
        empty(&write).map_err(failed)?;
        store(&write, &Sums::default(), MetaRows::default()).map_err(failed)?;
        mark(&write, true).map_err(failed)?;
        let mut sums = Sums {
            index,
            ..Sums::default()
        };
        while part(&write, &mut sums, &mut from, self.options.part_bytes)? {
            let began = Instant::now();
            write.commit().map_err(failed)?;
            // Whoever shares the disk is to have it as long as this did.
            thread::sleep(began.elapsed());
            write = self.begin(true)?;
        }
        if sums != (Sums { index, pairs, digest }) {
            return Err(MachineError::new(
                "the snapshot does not hold the pairs it began with",
            ));
        }
        store(&write, &sums, rows.clone()).map_err(failed)?;
        mark(&write, false).map_err(failed)?;
        write.commit().map_err(failed)?;
        (self.sums, self.unsynced) = (sums, 0);
        self.counters.restored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn failed(error: impl Into<redb::Error>) -> MachineError {
    MachineError::new(format!("redb: {}", error.into()))
}

/// Forgets everything.
fn empty(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.delete_table(PAIRS)?;
    write.delete_table(ROWS)?;
    write.delete_table(SUMS)?;
    Ok(())
}

/// Puts the next pairs of a snapshot into a transaction, as many as one is for; false at its end.
fn part(
    write: &WriteTransaction,
    sums: &mut Sums,
    from: &mut BufReader<impl Read>,
    bytes_max: usize,
) -> Result<bool, MachineError> {
    let unreadable = |error: io::Error| MachineError::new(format!("the snapshot cannot be read: {error}"));
    let mut table = write.open_table(PAIRS).map_err(failed)?;
    let (mut key, mut value, mut bytes) = (Vec::new(), Vec::new(), 0);
    while bytes < bytes_max {
        if !pair(from, &mut key, &mut value).map_err(unreadable)? {
            return Ok(false);
        }
        table.insert(&key[..], &value[..]).map_err(failed)?;
        sums.add(&key, &value);
        bytes += key.len() + value.len();
    }
    Ok(true)
}

/// Notes whether a snapshot is being taken over.
fn mark(write: &WriteTransaction, restoring: bool) -> Result<(), redb::Error> {
    let mut sums = write.open_table(SUMS)?;
    if restoring {
        sums.insert(RESTORING, 1)?;
    } else {
        sums.remove(RESTORING)?;
    }
    Ok(())
}

/// Puts what belongs to the pairs into the same transaction.
fn store(write: &WriteTransaction, sums: &Sums, rows: MetaRows) -> Result<(), redb::Error> {
    let mut table = write.open_table(ROWS)?;
    for (key, row) in rows.0 {
        match row {
            Some(row) => table.insert(key, &row[..])?.map(drop),
            None => table.remove(key)?.map(drop),
        };
    }
    let mut table = write.open_table(SUMS)?;
    for (name, value) in [
        ("index", sums.index),
        ("pairs", sums.pairs),
        ("digest", sums.digest),
    ] {
        table.insert(name, value)?;
    }
    Ok(())
}

impl Sums {
    fn load(table: &Table<'_, &'static str, u64>) -> Result<Self, redb::StorageError> {
        let sum = |name| -> Result<u64, redb::StorageError> {
            Ok(table.get(name)?.map_or(0, |value| value.value()))
        };
        Ok(Self {
            index: sum("index")?,
            pairs: sum("pairs")?,
            digest: sum("digest")?,
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_add(1);
        self.digest = self.digest.wrapping_add(hash(key, value));
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(hash(key, value));
    }

    fn change(
        &mut self,
        pairs: &mut Table<'_, &'static [u8], &'static [u8]>,
        command: Command,
    ) -> Result<<Store as StateMachine>::Output, redb::StorageError> {
        let (key, old) = match command {
            Command::Put { key, value } => {
                self.add(&key, &value);
                let old = pairs
                    .insert(&key[..], &value[..])?
                    .map(|old| old.value().to_vec());
                (key, old)
            }
            Command::Delete { key } => {
                let old = pairs.remove(&key[..])?.map(|old| old.value().to_vec());
                (key, old)
            }
            Command::Cas { key, expect, value } => {
                let found = pairs.get(&key[..])?.map(|found| found.value().to_vec());
                if found != expect {
                    return Ok(Err(found));
                }
                return self.change(pairs, Command::Put { key, value });
            }
        };
        if let Some(old) = &old {
            self.take(&key, old);
        }
        Ok(Ok(old.is_some()))
    }
}

/// FNV-1a over lengths and bytes, and the finalizer of SplitMix64 so that sums of it spread.
fn hash(key: &[u8], value: &[u8]) -> u64 {
    let length = (key.len() as u64).to_le_bytes();
    let bytes = length.iter().chain(key).chain(value);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A snapshot: the sums, then every pair with its lengths before it. It reads from a version of the database that does
/// not change any more, one piece at a time.
struct Source {
    pairs: Range<'static, &'static [u8], &'static [u8]>,
    piece: Vec<u8>,
    /// How much of the piece was given.
    given: usize,
    counters: Arc<Counters>,
}

impl Source {
    fn new(sums: Sums, pairs: Range<'static, &'static [u8], &'static [u8]>, counters: Arc<Counters>) -> Self {
        counters.reading.store(true, Ordering::Relaxed);
        let head = [sums.index, sums.pairs, sums.digest];
        Self {
            pairs,
            piece: head.iter().flat_map(|word| word.to_le_bytes()).collect(),
            given: 0,
            counters,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.given = 0;
        while self.piece.len() < PIECE_BYTES {
            let Some(pair) = self.pairs.next() else { break };
            let (key, value) = pair.map_err(io::Error::other)?;
            let (key, value) = (key.value(), value.value());
            for part in [key, value] {
                let length = u32::try_from(part.len()).map_err(io::Error::other)?;
                self.piece.extend_from_slice(&length.to_le_bytes());
            }
            self.piece.extend_from_slice(key);
            self.piece.extend_from_slice(value);
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() {
            self.fill()?;
        }
        let mut rest = self.piece.get(self.given..).unwrap_or_default();
        let read = rest.read(into)?;
        self.given += read;
        Ok(read)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.counters.reading.store(false, Ordering::Relaxed);
    }
}

fn head(from: &mut impl Read) -> io::Result<[u64; 3]> {
    let mut word = || -> io::Result<u64> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    Ok([word()?, word()?, word()?])
}

/// The next pair of a snapshot; false at its end.
fn pair(from: &mut BufReader<impl Read>, key: &mut Vec<u8>, value: &mut Vec<u8>) -> io::Result<bool> {
    use std::io::BufRead;
    if from.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut lengths = [0; 8];
    from.read_exact(&mut lengths)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let lengths = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
    for (part, length) in [key, value].into_iter().zip(lengths) {
        if length > PART_BYTES_MAX {
            return Err(io::Error::other("a key or value that is too long"));
        }
        part.clear();
        part.resize(length as usize, 0);
        from.read_exact(part)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
