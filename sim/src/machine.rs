//! The state machine of the simulated programs: numbers by key, run by the shipped applier.
//!
//! Every entry is a command: those of the clients that only append change nothing and answer nothing. Invariant:
//! it does to a key what the model does by which histories are judged, so that a history is wrong only if the log is.

use crate::entries;
use crate::hash::Hash;
use crate::linearizability::{Answer, State};
use bytes::{BufMut, Bytes, BytesMut};
use kontiki_node::MachineError;
use kontiki_node::machine::{At, Machine, MetaRows, ReaderOfBytes, restored, snapshot_of};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many keys there are, named from 0.
pub const KEYS: u64 = 4;

/// What a key is called in a history.
#[must_use]
pub fn key_name(key: u8) -> String {
    char::from(b'a' + key).to_string()
}

/// Numbers by key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Numbers {
    by_key: BTreeMap<u8, i64>,
    /// The last entry that was applied.
    last: u64,
    /// What has gone wrong with it; it goes where the state goes.
    wrong: u8,
}

/// The state has gone wrong, where no client asks for it.
pub const STATE: u8 = 1;
/// An entry that is answered with nothing was answered with something.
pub const OUTPUT: u8 = 2;

/// What the simulator knows of a machine, and does to it.
#[derive(Debug, Default)]
pub struct Health {
    /// What has gone wrong with its state as it is.
    wrong: AtomicU8,
    /// Whether it ever was.
    ever: AtomicBool,
    /// What is to go wrong, once, and from which entry on.
    plan: Mutex<Option<(u64, u8)>>,
}

impl Health {
    /// A machine that goes wrong in this way, from this entry on.
    #[must_use]
    pub fn going_wrong(entry: u64, kind: u8) -> Self {
        Self {
            plan: Mutex::new(Some((entry, kind))),
            ..Self::default()
        }
    }

    /// Whether its state, or what Kontiki knows with it, is wrong.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed) != 0
    }

    /// Whether it has gone wrong, now or before.
    #[must_use]
    pub fn was_wrong(&self) -> bool {
        self.ever.load(Ordering::Relaxed)
    }

    fn see(&self, numbers: &Numbers) {
        self.wrong.store(numbers.wrong, Ordering::Relaxed);
        self.ever.fetch_or(numbers.wrong != 0, Ordering::Relaxed);
    }

    /// What goes wrong with this entry.
    fn strikes(&self, entry: u64, is_op: bool) -> Option<u8> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let due = plan.take_if(|(from, kind)| entry >= *from && (*kind == STATE || !is_op));
        self.ever.fetch_or(due.is_some(), Ordering::Relaxed);
        due.map(|(_, kind)| kind)
    }
}

/// What a machine of this kind keeps through crashes: its numbers, and with them what Kontiki wants kept.
pub type Kept = Arc<Mutex<(NumbersOnDisk, MetaRows)>>;

/// The numbers of a durable machine.
#[derive(Clone, Default, Debug)]
pub struct NumbersOnDisk(Numbers);

/// The machine.
#[derive(Debug)]
pub struct KeyValue {
    numbers: Numbers,
    /// Where it is kept, if it is durable.
    kept: Option<Kept>,
    /// Decides which snapshots fail.
    chance: u64,
    health: Arc<Health>,
}

/// One snapshot in so many fails, in one of two ways.
const FAILS: u64 = 8;

/// A state of which a part can be read.
struct Broken(Box<dyn Read + Send>);

impl Read for Broken {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

impl KeyValue {
    /// One that knows nothing after a crash.
    #[must_use]
    pub fn in_memory(seed: u64, health: Arc<Health>) -> Self {
        let numbers = Numbers::default();
        health.see(&numbers);
        Self {
            numbers,
            kept: None,
            chance: seed,
            health,
        }
    }

    /// One that goes on where it was.
    #[must_use]
    pub fn durable(kept: Kept, seed: u64, health: Arc<Health>) -> Self {
        let numbers = kept.lock().unwrap_or_else(PoisonError::into_inner).0.0.clone();
        health.see(&numbers);
        Self {
            numbers,
            kept: Some(kept),
            chance: seed,
            health,
        }
    }
}

impl Numbers {
    fn apply(&mut self, at: &At, entry: &[u8], health: &Health) -> Result<Bytes, MachineError> {
        if at.index != self.last + 1 {
            return Err(MachineError {
                index: Some(at.index),
                what: format!("the entry before it was {}", self.last),
            });
        }
        self.last = at.index;
        let op = entries::op_of(entry);
        let strikes = health.strikes(at.index, op.is_some());
        if let Some(kind) = strikes {
            self.wrong = kind;
            health.see(self);
        }
        let Some((key, op)) = op else {
            let wrong = strikes == Some(OUTPUT);
            return Ok(if wrong {
                Bytes::from_static(&[1])
            } else {
                Bytes::new()
            });
        };
        let (state, answer) = op.apply(self.by_key.get(&key).copied());
        match state {
            Some(number) => self.by_key.insert(key, number),
            None => self.by_key.remove(&key),
        };
        Ok(encode(answer))
    }
}

fn encode(answer: Answer) -> Bytes {
    let mut bytes = BytesMut::with_capacity(10);
    bytes.put_u8(answer.ok.into());
    bytes.put_u8(answer.out.is_some().into());
    bytes.put_i64_le(answer.out.unwrap_or_default());
    bytes.freeze()
}

/// What the bytes of an answer say; `None` if they are none.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Answer> {
    let (ok, rest) = bytes.split_first()?;
    let (some, rest) = rest.split_first()?;
    let out: State = (*some != 0).then_some(i64::from_le_bytes(*rest.first_chunk()?));
    Some(Answer { ok: *ok != 0, out })
}

fn look_up(numbers: &BTreeMap<u8, i64>, query: &[u8]) -> Result<Bytes, String> {
    let key = query.first().ok_or("no key")?;
    Ok(encode(Answer::found(numbers.get(key).copied())))
}

impl Machine for KeyValue {
    fn apply(
        &mut self,
        batch: Vec<(At, Bytes)>,
        rows: &mut dyn FnMut(&[Bytes]) -> Result<MetaRows, MachineError>,
    ) -> Result<Vec<Bytes>, MachineError> {
        let outputs = batch
            .iter()
            .map(|(at, entry)| self.numbers.apply(at, entry, &self.health));
        let outputs = outputs.collect::<Result<Vec<Bytes>, MachineError>>()?;
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.1.merge(rows(&outputs)?);
            kept.0 = NumbersOnDisk(self.numbers.clone());
        }
        Ok(outputs)
    }

    /// A query is a key.
    fn query(&self, query: &[u8]) -> Result<Bytes, String> {
        look_up(&self.numbers.by_key, query)
    }

    /// As with a database, which has versions.
    fn reader(&self) -> Option<ReaderOfBytes> {
        self.kept.as_ref()?;
        let version = self.numbers.by_key.clone();
        Some(Box::new(move |query| look_up(&version, query)))
    }

    fn digest(&self) -> Option<u64> {
        let numbers = self.numbers.by_key.iter();
        let hash = numbers.fold(Hash::default().with(self.numbers.last), |hash, (key, number)| {
            hash.with(u64::from(*key)).with(*number as u64)
        });
        Some(if self.numbers.wrong == STATE {
            hash.with(1).0
        } else {
            hash.0
        })
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        let rows = |kept: &Kept| kept.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        Ok(self.kept.as_ref().map(rows))
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        let Numbers { by_key, last, wrong } = &self.numbers;
        let state = snapshot_of(&(last, by_key, wrong))?;
        self.chance = Hash(self.chance).with(*last).0;
        match self.chance % (2 * FAILS) {
            0 => Err(MachineError::new("it has no source at the moment")),
            1 => Ok(Some(Box::new(Broken(state)))),
            _ => Ok(Some(state)),
        }
    }

    fn restore(&mut self, from: &mut dyn Read, rows: &MetaRows) -> Result<(), MachineError> {
        let (last, by_key, wrong) = restored(from)?;
        self.numbers = Numbers { by_key, last, wrong };
        self.health.see(&self.numbers);
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = (NumbersOnDisk(self.numbers.clone()), rows.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::EntryId;
    use crate::linearizability::Op;

    fn batch(from: u64, ops: &[(u8, Op)]) -> Vec<(At, Bytes)> {
        let command = |(n, (key, op)): (usize, &(u8, Op))| {
            let id = EntryId {
                operation: 300 + n as u64,
                part: 0,
            };
            let at = At {
                index: from + n as u64,
                raft_index: 9,
                term: 1,
                clock_seconds: 0,
                date_ns: 0,
                schema: 0,
            };
            (at, entries::encode_op(id, *key, *op))
        };
        ops.iter().enumerate().map(command).collect()
    }

    fn answers(machine: &mut KeyValue, batch: Vec<(At, Bytes)>) -> Vec<Option<Answer>> {
        let mut rows = |_: &[Bytes]| Ok(MetaRows::default());
        let outputs = machine.apply(batch, &mut rows).expect("applied");
        outputs.iter().map(|o| decode(o)).collect()
    }

    #[test]
    fn keys_do_what_the_model_says_and_other_entries_do_nothing() {
        let ops = [
            (0, Op::Put(-7)),
            (1, Op::Increment(2)),
            (
                0,
                Op::CompareAndSet {
                    expect: Some(-7),
                    value: 5,
                },
            ),
            (
                0,
                Op::CompareAndSet {
                    expect: None,
                    value: 6,
                },
            ),
            (1, Op::Delete),
        ];
        let mut machine = KeyValue::in_memory(1, Arc::default());
        let expected = [
            Answer::DONE,
            Answer::sum(2),
            Answer::did(true),
            Answer::did(false),
            Answer::did(true),
        ];
        assert_eq!(answers(&mut machine, batch(1, &ops)), expected.map(Some));
        let before = machine.numbers.by_key.clone();
        let id = EntryId {
            operation: u64::MAX,
            part: 3,
        };
        let other: Vec<_> = [0, 12, 13, 40]
            .iter()
            .enumerate()
            .map(|(n, length)| {
                (
                    At {
                        index: 6 + n as u64,
                        raft_index: 9,
                        term: 1,
                        clock_seconds: 0,
                        date_ns: 0,
                        schema: 0,
                    },
                    entries::encode(id, *length),
                )
            })
            .collect();
        assert_eq!(answers(&mut machine, other), [None; 4]);
        assert_eq!(machine.numbers.by_key, before);
        let found = machine.query(&[0]).expect("an answer");
        assert_eq!(decode(&found), Some(Answer::found(Some(5))));
    }

    #[test]
    fn an_entry_that_comes_twice_or_too_early_is_seen() {
        let mut rows = |_: &[Bytes]| Ok(MetaRows::default());
        for from in [0, 2] {
            let mut machine = KeyValue::in_memory(1, Arc::default());
            assert!(machine.apply(batch(from, &[(0, Op::Put(1))]), &mut rows).is_err());
        }
    }

    #[test]
    fn what_is_kept_goes_on_where_it_was() {
        let kept = Kept::default();
        let mut machine = KeyValue::durable(kept.clone(), 1, Arc::default());
        answers(&mut machine, batch(1, &[(2, Op::Put(8))]));
        let mut again = KeyValue::durable(kept, 1, Arc::default());
        assert_eq!(again.digest(), machine.digest());
        assert_eq!(
            answers(&mut again, batch(2, &[(2, Op::Increment(1))])),
            [Some(Answer::sum(9))]
        );
    }
}
