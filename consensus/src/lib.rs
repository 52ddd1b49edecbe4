//! The Raft algorithm, pure and deterministic: events go in, outputs come out.
//!
//! This crate is what Figure 2 of the Raft paper describes, with pre-vote, check-quorum,
//! read-index and leases from the dissertation, and log compaction from §7. It has no clock, no chance, no thread and no I/O: time and
//! seed come from outside, and the compiler holds it to that (`no_std`).
//!
//! One file a mechanism: `election`, `follower`, `replication`, `commit`, `reads`, `lease`, `snapshot`; `log` is the part of
//! the log that consensus keeps in mind, `writes` what is on its way to disk; `outbox` is the only door messages leave by, and holds each until
//! what it promises is on disk.
#![no_std]

extern crate alloc;

mod cause;
mod commit;
mod config;
mod configuration;
mod core;
mod election;
mod event;
mod few;
mod follower;
mod lease;
mod log;
mod message;
mod outbox;
mod patience;
mod progress;
mod random;
mod reads;
mod replication;
mod role;
mod run;
mod snapshot;
mod suspect;
mod types;
mod writes;

pub use self::core::Consensus;
pub use cause::Cause;
pub use config::Config;
pub use configuration::Configuration;
pub use event::{Admission, Base, Event, Loss, Note, Output, Restored, TermStart, Write};
pub use few::Few;
pub use message::{Call, Conflict, Message, Standing, Verdict};
pub use run::{Body, Mark, MarkList, Records, Run, Runs};
pub use types::{
    Duration, GroupId, HardState, Incarnation, Index, LogId, NodeId, Position, ReadId, Round, SuspectMark,
    Term, Time, WriteId,
};

/// What a server is at the moment, without what it owns in that role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Takes entries from a leader.
    Follower,
    /// Asks whether it would win (dissertation §9.6).
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads its term.
    Leader,
    /// Takes entries, has no vote.
    Learner,
}
