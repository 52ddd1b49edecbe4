//! What Kontiki itself knows at an applied record: how far, the sessions, and hashes to compare nodes by.
//!
//! It follows from the applied records and the machine's answers alone, in their order. A machine that is durable keeps
//! it, in rows, in the same transaction as its own state; so a restart goes on from there. Invariants: `at` moves by
//! one record at a time and never back; two nodes at the same record have equal hashes, or one of them is wrong.

use crate::{
    machine::{MachineError, MetaRows},
    sessions::{Row, Sessions, Stored},
};
use bytes::Bytes;
use kontiki_consensus::{Body, Index, LogId, NodeId, Position, Run, Term};
use kontiki_wire::{
    Compared, SessionLimits,
    record::{Kind, RecordHeader, TrimPoint, records},
};
use serde::{Deserialize, Serialize};

/// The key of the row that is not a session's: no session has this name.
const HEAD: u64 = 0;
/// The form of the rows.
const VERSION: u8 = 2;

/// What is known at an applied record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    pub(crate) at: LogId,
    pub(crate) position: Position,
    /// The term of the user entry at `position`: the log may no longer reach back to it.
    pub(crate) position_term: Term,
    pub(crate) log_hash: u64,
    pub(crate) output_hash: u64,
    pub(crate) sessions: Sessions,
    trimmed: TrimPoint,
    /// What is known to speak against this node's machine. Others know nothing of it.
    pub(crate) mark: Mark,
}

/// What speaks against a machine: a durable one keeps it, so that a restart makes nobody sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mark {
    /// Nothing.
    #[default]
    Sound,
    /// Another differs from what it was at this record, and no majority was heard. `halted`: it waits for one, and
    /// answers nothing.
    Disputed {
        /// What this node was.
        own: Compared,
        /// Whether it had stopped applying.
        halted: bool,
    },
    /// A majority differs from it, at this record.
    Quarantined(Index),
}

impl Mark {
    /// How the row of the head holds it: its kind, and what this node was.
    fn kept(&self) -> (u8, KeptCompared) {
        let kept = |of: &Compared| (of.index.0, of.log_hash, of.output_hash, of.digest);
        match self {
            Self::Sound => (0, KeptCompared::default()),
            Self::Quarantined(index) => (1, (index.0, 0, 0, None)),
            Self::Disputed { own, halted } => (2 + u8::from(*halted), kept(own)),
        }
    }

    fn of_kept(kind: u8, kept: KeptCompared) -> Option<Self> {
        let (index, log_hash, output_hash, digest) = kept;
        let own = Compared {
            index: Index(index),
            log_hash,
            output_hash,
            digest,
            is_answer: false,
        };
        match kind {
            0 => Some(Self::Sound),
            1 => Some(Self::Quarantined(Index(index))),
            2 | 3 => Some(Self::Disputed {
                own,
                halted: kind == 3,
            }),
            _ => None,
        }
    }
}

/// Index, hash of the log, hash of the outputs, digest.
type KeptCompared = (u64, u64, u64, Option<u64>);

/// The row of all that is not a session.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u8,
    index: u64,
    term: u64,
    position: u64,
    position_term: u64,
    log_hash: u64,
    output_hash: u64,
    clock: u32,
    trimmed_index: u64,
    trimmed_position: u64,
    mark: u8,
    marked: KeptCompared,
}

/// What applying has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Sessions whose row is another one, perhaps named several times.
    changed: Vec<u64>,
    /// Sessions that are over.
    pub(crate) gone: Vec<u64>,
    /// How many of them had to make room for another.
    pub(crate) evicted: u64,
    /// Where the log is to be trimmed.
    pub(crate) trim: Option<TrimPoint>,
    /// What was known behind each record by which replicas compare themselves, and the last user entry up to it.
    pub(crate) compared: Vec<(Compared, Position)>,
    /// Session and number of what took effect.
    pub(crate) answered: Vec<(u64, u64)>,
}

impl Changes {
    /// Forgets what was noted, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.changed.clear();
        self.gone.clear();
        self.evicted = 0;
        self.answered.clear();
        self.compared.clear();
        self.trim = None;
    }
}

impl Meta {
    /// The last record that was applied.
    #[must_use]
    pub fn at(&self) -> LogId {
        self.at
    }

    /// The last user entry up to it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// A hash over all records up to it. A difference between two nodes at one record breaks Raft.
    #[must_use]
    pub fn log_hash(&self) -> u64 {
        self.log_hash
    }

    /// A hash over everything that the machine has answered. A difference is the machine's fault.
    #[must_use]
    pub fn output_hash(&self) -> u64 {
        self.output_hash
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// A hash over all of it: nodes at the same record have the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let Head {
            version,
            index,
            term,
            position,
            position_term,
            log_hash,
            output_hash,
            clock,
            trimmed_index,
            trimmed_position,
            mark: _,
            marked: _,
        } = self.head();
        let head = [
            version.into(),
            index,
            term,
            position,
            position_term,
            log_hash,
            output_hash,
            clock.into(),
            trimmed_index,
            trimmed_position,
        ];
        self.sessions.mix_into(head.into_iter().fold(0, mix), mix)
    }

    /// The records of a run were applied, and each was answered with this; nothing where nothing is left.
    pub(crate) fn take(
        &mut self,
        run: &Run,
        outputs: &mut impl Iterator<Item = Bytes>,
        changes: &mut Changes,
    ) {
        match run.body() {
            Body::Records(_) => {
                for (header, payload) in records(run) {
                    let outputs = outputs.next().unwrap_or_default();
                    self.take_record(&header, payload, outputs, changes);
                }
            }
            // Their bytes follow from place and content.
            Body::Noop => self.mix_log([run.first().0, run.term().0, 1]),
            Body::Configuration(configuration) => {
                let lists = [
                    &configuration.voters,
                    &configuration.outgoing,
                    &configuration.learners,
                ];
                let of_list = |hash, list: &Vec<NodeId>| {
                    let hash = mix(hash, list.len() as u64);
                    list.iter().fold(hash, |hash, node| mix(hash, node.0))
                };
                let nodes = lists.into_iter().fold(2, of_list);
                self.mix_log([run.first().0, run.term().0, nodes]);
            }
        }
        self.at = run.last_id();
        self.position = run.last_position();
    }

    fn take_record(&mut self, header: &RecordHeader, payload: &[u8], outputs: Bytes, changes: &mut Changes) {
        let index = header.index.0;
        let content = u64::from(header.payload_crc) << 32 | u64::from(header.payload_len);
        self.mix_log([index, header.term.0, content]);
        if header.count > 0 {
            self.position_term = header.term;
        }
        if !outputs.is_empty() {
            self.output_hash = mix_bytes(mix(self.output_hash, index), &outputs);
        }
        self.sessions.pass(header.clock, &mut changes.gone);
        match (header.kind, header.in_session()) {
            (Kind::Session, _) => {
                let limits = SessionLimits::of(payload).unwrap_or_default();
                let before = changes.gone.len();
                self.sessions.open(index, limits, &mut changes.gone);
                changes.evicted += (changes.gone.len() - before) as u64;
                changes.changed.push(index);
            }
            (_, Some(of)) => {
                let stored = Stored {
                    index,
                    term: header.term.0,
                    first: header.first.0,
                    count: header.count,
                    outputs,
                };
                self.sessions.answered(of, stored);
                changes.changed.push(of.session);
                changes.answered.push((of.session, of.sequence));
            }
            (Kind::Trim, None) => {
                let point = TrimPoint::of(payload).unwrap_or_default();
                if point > self.trimmed {
                    self.trimmed = point;
                    changes.trim = Some(point);
                }
            }
            (Kind::Compare, None) => {
                let compared = Compared {
                    index: header.index,
                    log_hash: self.log_hash,
                    output_hash: self.output_hash,
                    digest: None,
                    is_answer: false,
                };
                changes.compared.push((compared, header.first.prev()));
            }
            (_, None) => {}
        }
    }

    fn mix_log(&mut self, words: [u64; 3]) {
        self.log_hash = words.into_iter().fold(self.log_hash, mix);
    }

    /// The rows that have changed: what a durable machine is to store with its own changes.
    pub(crate) fn rows(&self, changes: &mut Changes) -> Result<MetaRows, MachineError> {
        changes.changed.sort_unstable();
        changes.changed.dedup();
        let mut rows = vec![(HEAD, Some(encoded(&self.head())?))];
        for session in &changes.changed {
            // What was changed and then dropped is not there any more.
            if let Some(row) = self.sessions.row(*session) {
                rows.push((*session, Some(encoded(row)?)));
            }
        }
        rows.extend(changes.gone.iter().map(|session| (*session, None)));
        Ok(MetaRows(rows))
    }

    /// All rows.
    pub(crate) fn all_rows(&self) -> Result<MetaRows, MachineError> {
        let mut changes = Changes {
            changed: self.sessions.names(),
            ..Changes::default()
        };
        self.rows(&mut changes)
    }

    /// What is before the first entry of the log.
    #[must_use]
    pub fn trimmed(&self) -> TrimPoint {
        self.trimmed
    }

    fn head(&self) -> Head {
        let (mark, marked) = self.mark.kept();
        Head {
            version: VERSION,
            index: self.at.index.0,
            term: self.at.term.0,
            position: self.position.0,
            position_term: self.position_term.0,
            log_hash: self.log_hash,
            output_hash: self.output_hash,
            clock: self.sessions.clock(),
            trimmed_index: self.trimmed.index.0,
            trimmed_position: self.trimmed.position.0,
            mark,
            marked,
        }
    }

    /// What a durable machine has kept; the beginning if that is nothing.
    pub(crate) fn of_rows(rows: &MetaRows) -> Result<Self, MachineError> {
        let wrong = |key: u64| {
            MachineError::new(format!(
                "row {key} of what Kontiki keeps in the machine cannot be read"
            ))
        };
        let kept = rows.0.iter().filter_map(|(key, row)| Some((*key, row.as_ref()?)));
        let (mut meta, mut clock, mut sessions) = (Self::default(), 0, Vec::new());
        for (key, bytes) in kept {
            if key == HEAD {
                let head: Head = postcard::from_bytes(bytes).map_err(|_| wrong(key))?;
                if head.version != VERSION {
                    return Err(wrong(key));
                }
                meta.at = LogId::new(Term(head.term), Index(head.index));
                meta.position = Position(head.position);
                meta.position_term = Term(head.position_term);
                meta.trimmed = TrimPoint {
                    index: Index(head.trimmed_index),
                    position: Position(head.trimmed_position),
                };
                meta.mark = Mark::of_kept(head.mark, head.marked).ok_or_else(|| wrong(key))?;
                (meta.log_hash, meta.output_hash, clock) = (head.log_hash, head.output_hash, head.clock);
            } else {
                let row: Row = postcard::from_bytes(bytes).map_err(|_| wrong(key))?;
                sessions.push((key, row));
            }
        }
        meta.sessions.restore(clock, sessions);
        Ok(meta)
    }
}

fn encoded(row: &impl Serialize) -> Result<Bytes, MachineError> {
    let bytes = postcard::to_stdvec(row).map_err(|e| MachineError::new(e.to_string()))?;
    Ok(bytes.into())
}

/// One step of a hash: cheap, and every bit of both counts.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ (product >> 64) as u64 ^ hash.rotate_left(23)
}

fn mix_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let hash = mix(hash, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(hash, |h, word| mix(h, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |h, byte| mix(h, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_consensus::{Admission, GroupId};
    use kontiki_wire::{ClusterId, Codec, InSession, Payload, Session, Stamp, record::RunBuilder};

    /// A session, two appends in it, one outside, one much later; then a no-op.
    fn runs() -> Vec<Run> {
        let at = Admission {
            index: Index(2),
            term: Term(1),
            position: Position(1),
        };
        let limits = SessionLimits {
            ttl: 5,
            ..SessionLimits::default()
        };
        let of = |sequence, settled| {
            Session::In(InSession {
                session: 2,
                sequence,
                settled,
            })
        };
        let entry = || Payload::one(vec![1; 3].into(), Codec::Bytes);
        let mut builder = RunBuilder::new(ClusterId(1), GroupId(0), at);
        let all = [
            (limits.payload(), 0, Session::Open),
            (entry(), 1, of(1, 1)),
            (entry(), 2, of(2, 2)),
            (entry(), 2, Session::None),
            (entry(), 90, Session::None),
        ];
        for (payload, clock, session) in all {
            let stamp = Stamp {
                leader_time: 0,
                clock,
            };
            builder.push(&payload, stamp, session).expect("room");
        }
        let run = builder.finish().expect("records");
        let noop = Run::new(run.last().next(), Term(2), run.last_position().next(), Body::Noop);
        vec![run, noop]
    }

    fn outputs() -> Vec<Bytes> {
        [&b""[..], b"one", b"two", b"three", b"four"]
            .map(Bytes::from_static)
            .into()
    }

    #[test]
    fn what_is_known_does_not_depend_on_how_the_log_is_cut() {
        let (mut whole, mut cut) = (Meta::default(), Meta::default());
        let mut changes = Changes::default();
        let mut answers = outputs().into_iter();
        for run in runs() {
            whole.take(&run, &mut answers, &mut changes);
        }
        let mut answers = outputs().into_iter();
        for run in runs() {
            for index in run.first().0..=run.last().0 {
                let one = run.slice(Index(index), Index(index)).expect("a record");
                cut.take(&one, &mut answers, &mut changes);
            }
        }
        assert_eq!(whole, cut);
        assert_eq!(
            (whole.at, whole.position, whole.sessions()),
            (LogId::new(Term(2), Index(7)), Position(4), 0)
        );
        assert_eq!(whole.position_term, Term(1), "a no-op is no entry");
        assert_eq!(changes.answered, [(2, 1), (2, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn another_answer_is_seen_in_one_hash_and_another_record_in_the_other() {
        let meta_of = |runs: &[Run], answers: Vec<Bytes>| {
            let mut meta = Meta::default();
            let mut answers = answers.into_iter();
            runs.iter()
                .for_each(|run| meta.take(run, &mut answers, &mut Changes::default()));
            meta
        };
        let meta = meta_of(&runs(), outputs());
        let mut other = outputs();
        other[3] = Bytes::from_static(b"thref");
        let other = meta_of(&runs(), other);
        assert_eq!(meta.log_hash, other.log_hash);
        assert_ne!(meta.output_hash, other.output_hash);
        let mut shorter = runs();
        shorter[0] = shorter[0].slice(Index(3), Index(6)).expect("records");
        assert_ne!(meta.log_hash, meta_of(&shorter, outputs()).log_hash);
    }

    #[test]
    fn rows_stored_one_batch_after_the_other_give_it_back() {
        let (mut meta, mut kept) = (Meta::default(), MetaRows::default());
        let mut answers = outputs().into_iter();
        for run in runs() {
            for index in run.first().0..=run.last().0 {
                let mut changes = Changes::default();
                let one = run.slice(Index(index), Index(index)).expect("a record");
                meta.take(&one, &mut answers, &mut changes);
                kept.merge(meta.rows(&mut changes).expect("rows"));
                assert_eq!(Meta::of_rows(&kept).expect("rows"), meta);
            }
        }
        assert_eq!(kept.0.len(), 1, "the session is over");
        let mut wrong = kept.clone();
        wrong.merge(MetaRows(vec![(HEAD, Some(Bytes::from_static(&[9; 9])))]));
        assert!(Meta::of_rows(&wrong).is_err());
        assert_eq!(
            Meta::of_rows(&MetaRows::default()).expect("rows"),
            Meta::default()
        );
    }
}
