//! A line, as it is written.
//!
//! Invariants: nothing is null and every number fits into 31 bits, which is what TLC reads: what may be more is text.
//! What is absent has no field; a node that is nobody is 0.

use super::messages::Message;
use crate::replica::Process;
use kontiki_consensus::{Base, Body, Configuration, HardState, Index, LogId, NodeId, Role, Run, Term, Write};
use serde::Serialize;

/// A line.
#[derive(Serialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) us: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) turn: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) node: u64,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What happened.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum What {
    Up {
        life: u64,
        #[serde(flatten)]
        state: State,
        log: Vec<Records>,
    },
    Down {},
    State(State),
    Role {
        term: u64,
        role: &'static str,
        leader: u64,
    },
    Write(Written),
    Persisted {
        id: u64,
    },
    Send {
        msg: Message,
    },
    Recv {
        id: u64,
        #[serde(skip_serializing_if = "is_false")]
        again: bool,
        msg: Message,
    },
    Repeat {
        id: u64,
    },
    Drop {
        id: u64,
        #[serde(skip_serializing_if = "is_false")]
        again: bool,
        why: &'static str,
        msg: Message,
    },
}

/// What a node shows.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct State {
    role: &'static str,
    term: u64,
    vote: u64,
    leader: u64,
    commit: u64,
    applied: u64,
    persisted: u64,
    last: At,
    last_position: u64,
    base: At,
    base_position: u64,
    snapshot: At,
    configuration: Members,
}

impl State {
    pub(super) fn of(process: &Process) -> Self {
        let consensus = process.driver.consensus();
        Self {
            role: name_of(consensus.role()),
            term: consensus.term().0,
            vote: nobody(consensus.vote()),
            leader: nobody(consensus.leader()),
            commit: consensus.commit().0,
            applied: process.driver.applied().0.0,
            persisted: consensus.persisted().0,
            last: consensus.last().into(),
            last_position: consensus.last_position().0,
            base: consensus.base().into(),
            base_position: consensus.base_position().0,
            snapshot: consensus.snapshot().into(),
            configuration: Members::from(&**consensus.configuration()),
        }
    }
}

/// Index and term of a record.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct At {
    index: u64,
    term: u64,
}

impl From<LogId> for At {
    fn from(id: LogId) -> Self {
        Self {
            index: id.index.0,
            term: id.term.0,
        }
    }
}

/// The members of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct Members {
    voters: Vec<u64>,
    outgoing: Vec<u64>,
    learners: Vec<u64>,
}

impl From<&Configuration> for Members {
    fn from(configuration: &Configuration) -> Self {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|n| n.0).collect();
        Self {
            voters: ids(&configuration.voters),
            outgoing: ids(&configuration.outgoing),
            learners: ids(&configuration.learners),
        }
    }
}

/// Consecutive records of one term.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct Records {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<Members>,
}

impl Records {
    /// One of which only the term is known.
    pub(super) fn unknown(at: Index, term: Term) -> Self {
        Self {
            first: at.0,
            last: at.0,
            term: term.0,
            kind: None,
            entries: None,
            configuration: None,
        }
    }
}

/// Runs, those of user records joined where they follow each other in one term: where they are cut says nothing.
pub(super) fn joined(runs: &[Run]) -> Vec<Records> {
    let mut all: Vec<Records> = Vec::new();
    for next in runs.iter().map(Records::from) {
        let before = all
            .last_mut()
            .filter(|run| run.kind == Some("user") && next.kind == run.kind && run.term == next.term);
        match before {
            Some(run) => {
                run.last = next.last;
                run.entries = run.entries.zip(next.entries).map(|(one, other)| one + other);
            }
            None => all.push(next),
        }
    }
    all
}

impl From<&Run> for Records {
    fn from(run: &Run) -> Self {
        let (kind, configuration) = match run.body() {
            Body::Noop => ("noop", None),
            Body::Configuration(members) => ("configuration", Some(Members::from(&**members))),
            Body::Records(_) => ("user", None),
        };
        Self {
            last: run.last().0,
            kind: Some(kind),
            entries: Some(run.entries()),
            configuration,
            ..Self::unknown(run.first(), run.term())
        }
    }
}

/// What a node hands to its log.
#[derive(Serialize)]
pub(super) struct Written {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vote: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<Begins>,
    records: Vec<Records>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purge: Option<Begins>,
}

/// Where a log begins.
#[derive(Serialize)]
struct Begins {
    last: At,
    position: u64,
    configuration: Members,
}

impl From<&Base> for Begins {
    fn from(base: &Base) -> Self {
        Self {
            last: base.last.into(),
            position: base.position.0,
            configuration: Members::from(&*base.configuration),
        }
    }
}

impl From<&Write> for Written {
    fn from(write: &Write) -> Self {
        let state: Option<HardState> = write.hard_state;
        Self {
            id: write.id.0,
            term: state.map(|s| s.term.0),
            vote: state.map(|s| nobody(s.vote)),
            truncate: write.truncate.map(|t| t.0),
            install: write.install.as_deref().map(Begins::from),
            records: joined(&write.runs),
            purge: write.purge.as_deref().map(Begins::from),
        }
    }
}

pub(super) fn nobody(node: Option<NodeId>) -> u64 {
    node.map_or(0, |n| n.0)
}

pub(super) fn name_of(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
        _ => "other",
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}
