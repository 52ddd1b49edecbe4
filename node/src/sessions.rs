//! The table of client sessions (dissertation §6.3): what makes a retry take effect once.
//!
//! It is part of the replicated state: what it holds follows from the applied records alone, in their order, so it is
//! the same on every node and on a machine's disk. Invariants: a session is known by the Raft index of the record that
//! opened it, and never comes back once it is gone; a number below `settled` has no answer any more; every bound
//! is one that the record which opened the session named, and what is dropped for it is decided by the log.

use crate::rising::Rising;
use bytes::Bytes;
use kontiki_consensus::{Index, LogId, Position};
use kontiki_wire::{InSession, SessionLimits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What an answer counts for beyond its bytes where they are bounded.
pub(crate) const ANSWER_BYTES: u64 = 64;

/// What became of an append of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// What the machine answered; nothing without one.
    #[serde(with = "serde_bytes_of")]
    pub(crate) outputs: Bytes,
}

impl Stored {
    pub(crate) fn at(&self) -> LogId {
        LogId::new(kontiki_consensus::Term(self.term), Index(self.index))
    }

    pub(crate) fn first(&self) -> Position {
        Position(self.first)
    }

    fn weight(&self) -> u64 {
        ANSWER_BYTES + self.outputs.len() as u64
    }
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// After so many seconds of silence it is forgotten.
    ttl: u32,
    /// How many bytes of answers it may have.
    answers_bytes_max: u32,
    /// The first second of the cluster's clock in which it is forgotten.
    expires: u64,
    /// The client's lowest number without an answer, or the first one that was not dropped for room.
    settled: u64,
    /// The answers from `settled` on.
    answers: Rising<Stored>,
    answers_bytes: u64,
}

impl Row {
    /// After so many seconds of silence it is forgotten.
    pub(crate) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// When it is forgotten, if an append that is not applied yet was made in it then.
    fn expires_used(&self, used: Option<u32>) -> u64 {
        used.map_or(self.expires, |used| self.expires.max(expiry(used, self.ttl)))
    }

    /// The client needs nothing below this any more.
    fn settle(&mut self, settled: u64) {
        self.settled = self.settled.max(settled);
        while let Some(gone) = self.answers.pop_below(self.settled) {
            self.answers_bytes -= gone.weight();
        }
    }

    fn store(&mut self, sequence: u64, stored: Stored) {
        self.answers_bytes += stored.weight();
        if let Some(before) = self.answers.insert(sequence, stored) {
            self.answers_bytes -= before.weight();
        }
        // The latest is kept, however large it is: somebody is about to ask for it.
        while self.answers_bytes > u64::from(self.answers_bytes_max) && self.answers.len() > 1 {
            let Some((oldest, dropped)) = self.answers.pop_first() else {
                return;
            };
            self.answers_bytes -= dropped.weight();
            self.settled = self.settled.max(oldest.saturating_add(1));
        }
    }
}

/// What the table knows of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known<'a> {
    /// It took effect, with this answer.
    Answered(&'a Stored),
    /// It has not taken effect, and may.
    New,
    /// Whether it took effect is no longer remembered.
    Stale,
    /// There is no such session, or it is over.
    NoSession,
}

/// All sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sessions {
    rows: BTreeMap<u64, Row>,
    /// The order in which they expire.
    by_expiry: BTreeSet<(u64, u64)>,
    /// The cluster's clock at the last record, in seconds.
    clock: u32,
}

impl Sessions {
    /// The names of all that are open.
    pub(crate) fn names(&self) -> Vec<u64> {
        self.rows.keys().copied().collect()
    }

    /// The cluster's clock at the last record that was applied, in seconds.
    pub(crate) fn clock(&self) -> u32 {
        self.clock
    }

    /// The first second in which a session is forgotten, if there is any.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.by_expiry.first().map(|(expires, _)| *expires)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn row(&self, session: u64) -> Option<&Row> {
        self.rows.get(&session)
    }

    /// What became of an append, if it took effect and that is still remembered.
    pub(crate) fn answer(&self, of: InSession) -> Option<&Stored> {
        self.rows.get(&of.session)?.answers.get(of.sequence)
    }

    /// What is known of an append, if the cluster's clock will be `clock` when it is appended, and was `used` when the last
    /// one of its session was that is not applied yet.
    pub(crate) fn known(&self, of: InSession, clock: u32, used: Option<u32>) -> Known<'_> {
        match self.rows.get(&of.session) {
            None => Known::NoSession,
            // An answer that is still here is still true.
            Some(row) => match row.answers.get(of.sequence) {
                Some(stored) => Known::Answered(stored),
                None if row.expires_used(used) <= u64::from(clock) => Known::NoSession,
                None if of.sequence < row.settled || of.sequence < of.settled => Known::Stale,
                None => Known::New,
            },
        }
    }

    /// A record was applied at this second: forgets what has expired, and says what that was.
    pub(crate) fn pass(&mut self, clock: u32, gone: &mut Vec<u64>) {
        self.clock = self.clock.max(clock);
        while let Some((expires, session)) = self.by_expiry.first().copied() {
            if expires > u64::from(self.clock) {
                break;
            }
            self.remove(expires, session, gone);
        }
    }

    fn remove(&mut self, expires: u64, session: u64, gone: &mut Vec<u64>) {
        self.by_expiry.remove(&(expires, session));
        self.rows.remove(&session);
        gone.push(session);
    }

    /// A record that opens a session was applied; says what had to make room.
    pub(crate) fn open(&mut self, session: u64, limits: SessionLimits, gone: &mut Vec<u64>) {
        while self.rows.len() >= limits.sessions_max.max(1) as usize {
            let Some((expires, oldest)) = self.by_expiry.first().copied() else {
                break;
            };
            self.remove(expires, oldest, gone);
        }
        let row = Row {
            ttl: limits.ttl,
            answers_bytes_max: limits.answers_bytes_max,
            expires: expiry(self.clock, limits.ttl),
            settled: 1,
            answers: Rising::default(),
            answers_bytes: 0,
        };
        self.put(session, row);
    }

    /// An append of a session was applied. Nothing is remembered of one whose session is gone.
    pub(crate) fn answered(&mut self, of: InSession, stored: Stored) {
        let Some(row) = self.rows.get_mut(&of.session) else {
            return;
        };
        let expires = expiry(self.clock, row.ttl);
        if expires != row.expires {
            self.by_expiry.remove(&(row.expires, of.session));
            self.by_expiry.insert((expires, of.session));
            row.expires = expires;
        }
        row.settle(of.settled);
        row.store(of.sequence, stored);
    }

    /// Takes all sessions into a hash.
    pub(crate) fn mix_into(&self, hash: u64, mix: impl Fn(u64, u64) -> u64) -> u64 {
        let of_row = |hash, (session, row): (&u64, &Row)| {
            let of_answer = |hash, (sequence, answer): &(u64, Stored)| {
                let place = [*sequence, answer.index, answer.outputs.len() as u64];
                place.into_iter().fold(hash, &mix)
            };
            let head = [*session, row.expires, row.settled, row.answers_bytes];
            let hash = head.into_iter().fold(hash, &mix);
            row.answers.iter().fold(hash, of_answer)
        };
        self.rows.iter().fold(hash, of_row)
    }

    /// Puts back what was kept elsewhere.
    pub(crate) fn restore(&mut self, clock: u32, rows: impl IntoIterator<Item = (u64, Row)>) {
        self.clock = clock;
        for (session, row) in rows {
            self.put(session, row);
        }
    }

    fn put(&mut self, session: u64, row: Row) {
        self.by_expiry.insert((row.expires, session));
        self.rows.insert(session, row);
    }
}

/// Silence at `clock` is too long from here on.
fn expiry(clock: u32, ttl: u32) -> u64 {
    u64::from(clock) + u64::from(ttl) + 1
}

/// Bytes that share their memory where they can, to serde.
mod serde_bytes_of {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        ttl: 10,
        sessions_max: 2,
        answers_bytes_max: 200,
    };

    fn of(session: u64, sequence: u64, settled: u64) -> InSession {
        InSession {
            session,
            sequence,
            settled,
        }
    }

    fn stored(index: u64, bytes: usize) -> Stored {
        Stored {
            index,
            term: 1,
            first: index,
            count: 1,
            outputs: vec![7; bytes].into(),
        }
    }

    fn with_one() -> Sessions {
        let mut sessions = Sessions::default();
        sessions.pass(100, &mut Vec::new());
        sessions.open(5, LIMITS, &mut Vec::new());
        sessions
    }

    #[test]
    fn a_number_is_new_then_answered_then_stale() {
        let mut sessions = with_one();
        assert_eq!(sessions.known(of(5, 1, 1), 100, None), Known::New);
        sessions.answered(of(5, 1, 1), stored(6, 1));
        assert_eq!(
            sessions.known(of(5, 1, 1), 100, None),
            Known::Answered(&stored(6, 1))
        );
        assert_eq!(sessions.known(of(5, 2, 1), 100, None), Known::New);
        sessions.answered(of(5, 3, 2), stored(7, 1));
        assert_eq!(sessions.known(of(5, 1, 1), 100, None), Known::Stale);
        assert_eq!(
            sessions.known(of(5, 2, 2), 100, None),
            Known::New,
            "a gap may still be filled"
        );
        assert_eq!(sessions.known(of(9, 1, 1), 100, None), Known::NoSession);
    }

    #[test]
    fn silence_ends_a_session_and_an_append_prolongs_it() {
        let mut sessions = with_one();
        assert_eq!(sessions.known(of(5, 1, 1), 110, None), Known::New);
        assert_eq!(sessions.known(of(5, 1, 1), 111, None), Known::NoSession);
        assert_eq!(sessions.known(of(5, 1, 1), 111, Some(101)), Known::New);
        assert_eq!(sessions.known(of(5, 1, 1), 112, Some(101)), Known::NoSession);
        let mut gone = Vec::new();
        sessions.pass(110, &mut gone);
        sessions.answered(of(5, 1, 1), stored(6, 1));
        sessions.pass(120, &mut gone);
        assert!(gone.is_empty());
        sessions.pass(121, &mut gone);
        assert_eq!((gone, sessions.len()), (vec![5], 0));
        sessions.answered(of(5, 2, 1), stored(7, 1));
        assert_eq!(
            sessions.known(of(5, 2, 1), 121, None),
            Known::NoSession,
            "it does not come back"
        );
    }

    #[test]
    fn answers_that_are_too_many_make_the_oldest_stale() {
        let mut sessions = with_one();
        for sequence in [2, 3, 1] {
            sessions.answered(of(5, sequence, 1), stored(6 + sequence, 30));
        }
        assert_eq!(
            sessions.known(of(5, 1, 1), 100, None),
            Known::Stale,
            "the lowest went"
        );
        assert!(matches!(
            sessions.known(of(5, 2, 1), 100, None),
            Known::Answered(_)
        ));
        sessions.answered(of(5, 4, 1), stored(10, 10_000));
        assert!(matches!(
            sessions.known(of(5, 4, 1), 100, None),
            Known::Answered(_)
        ));
        assert_eq!(sessions.known(of(5, 3, 1), 100, None), Known::Stale);
    }

    #[test]
    fn one_session_too_many_takes_the_place_of_the_one_that_was_silent_longest() {
        let mut sessions = with_one();
        let mut gone = Vec::new();
        sessions.pass(101, &mut gone);
        sessions.open(6, LIMITS, &mut gone);
        sessions.pass(102, &mut gone);
        sessions.answered(of(5, 1, 1), stored(7, 1));
        sessions.open(8, LIMITS, &mut gone);
        assert_eq!(
            (gone, sessions.rows.into_keys().collect::<Vec<_>>()),
            (vec![6], vec![5, 8])
        );
    }
}
