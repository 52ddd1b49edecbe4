//! What a client asks of a node and what it is answered.

use bytes::Bytes;
use kontiki_consensus::{Duration, Position, Run, Term, Time};
use kontiki_wire::{Expect, Payload, Refusal, Session};
use std::borrow::Cow;

/// The asker's name for a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// A client's request. Any node takes any of them.
#[derive(Clone, Debug)]
pub struct Request {
    /// The asker's name for it.
    pub token: Token,
    /// When to give up.
    pub deadline: Time,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Append these entries as one record. An empty payload checks the precondition only.
    Append {
        /// The entries.
        payload: Payload,
        /// The precondition. A retry in a session is answered like the append that took effect, whatever it says.
        expect: Expect,
        /// Which append of which session it is. [`Session::Open`] is not for here: see [`Ask::OpenSession`].
        session: Session,
    },
    /// Open a session.
    OpenSession,
    /// Ask the state machine.
    Query {
        /// The query.
        query: Bytes,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Read entries.
    Read {
        /// First position; [`Position::ZERO`] is wherever the log begins.
        from: Position,
        /// The position after the last; may lie beyond the end.
        to: Position,
        /// Stop when this many bytes are read; at least one record.
        bytes_max: usize,
        /// How fresh the answer must be.
        consistency: Consistency,
        /// If nothing stands at `from` yet, wait until something does (or the deadline passes) instead of answering empty.
        wait: bool,
    },
}

/// How fresh a read is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// It sees every append that was acknowledged before it was asked (dissertation §6.4).
    #[default]
    Linearizable,
    /// The same as long as clocks keep the bound that is configured (`lease_drift_ppm`, dissertation §6.4.1): a leader
    /// that holds a lease answers without asking the others. Everywhere else, and without that setting, it is asked as
    /// `Linearizable`.
    Lease,
    /// It sees what this node has applied: a prefix of the log, perhaps an old one.
    Stale {
        /// By how much it may be old: it sees every append that was acknowledged so long before it was asked, by this
        /// node's own clock alone. `None`: however old, and without asking anybody.
        max_lag: Option<Duration>,
    },
    /// It waits until this node has applied the entry at this position, and asks nobody.
    AtLeast(Position),
}

impl Consistency {
    /// What this node has at hand, however old.
    pub const STALE: Self = Self::Stale { max_lag: None };
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The append is committed and applied.
    Appended {
        /// Position of its first entry.
        first: Position,
        /// Position of its last entry.
        last: Position,
        /// The term it was appended in.
        term: Term,
        /// Its Raft index.
        raft_index: u64,
        /// What the machine answered to its entries, in the form of a payload. `None` without a machine, or if that is
        /// no longer remembered here: where no session is used, that can be when the leader's answer came late.
        outputs: Option<Bytes>,
    },
    /// A session is open.
    SessionOpened {
        /// Its name.
        session: u64,
        /// After so many seconds of the cluster's clock in which nothing is appended in it, it expires.
        ttl: u32,
    },
    /// What the machine answered to a query.
    Answered {
        /// The answer.
        answer: Bytes,
        /// The last entry whose effect it shows.
        at: Position,
    },
    /// What was read: the records that hold the range, which may begin before it and end after it.
    Read {
        /// Consecutive runs; control records among them are to be skipped.
        runs: Vec<Run>,
        /// The last committed position known here.
        last: Position,
    },
    /// It failed.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The leader refused; definitely not applied.
    Refused(Refusal),
    /// Another term's record was committed in its place; definitely not applied.
    Superseded,
    /// It was never proposed: no leader was found before the deadline. Definitely not applied.
    NoLeader,
    /// It was proposed, and it is not known what became of it; why, in words.
    Unknown(Cow<'static, str>),
    /// The deadline passed before the read could be confirmed, or before the append was proposed to the leader that is known.
    /// Definitely not applied.
    Timeout,
    /// What was to be read is no longer in the log, which begins here.
    Compacted {
        /// The first entry there is.
        first: Position,
    },
    /// The entries could not be read from this node's log.
    Log(std::sync::Arc<kontiki_log::LogError>),
    /// The machine gave no answer to the query, and why.
    Query(String),
    /// This node's state machine differs from the others': it answers nothing. An append was not proposed.
    Quarantined(String),
    /// The node has stopped, for this reason; for an append that was not yet proposed.
    Stopped(Cow<'static, str>),
}
