//! Changes of role, with their cause and what this node itself was doing: an election is to explain itself afterwards.
//!
//! Consensus says why ([`Cause`]); the driver adds what consensus cannot see: that the process did not run, or that a write
//! took long. It measures both by the times it is called with. Invariant: what is remembered is bounded by the writes under
//! way.

use crate::{driver::Driver, ports::Ports};
use kontiki_consensus::{Cause, Duration, Event, NodeId, Note, Role, Term, Time, WriteId};
use std::{collections::VecDeque, fmt};

/// A change of role, term or leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleChange {
    /// The term now.
    pub term: Term,
    /// The role now.
    pub role: Role,
    /// The leader that is known now.
    pub leader: Option<NodeId>,
    /// Why.
    pub cause: Option<Cause>,
    /// This process did not run for so long, at least, a short time before.
    pub late: Option<Duration>,
    /// A write of this node took so long, a short time before, or has taken so long without being done.
    pub write: Option<Duration>,
}

impl fmt::Display for RoleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{cause}")?,
            None => f.write_str("no cause is known")?,
        }
        let ms = |time: &Duration| time.0 / 1_000_000;
        if let Some(late) = &self.late {
            write!(f, "; this process did not run for {} ms", ms(late))?;
        }
        if let Some(write) = &self.write {
            write!(f, "; a write to its disk took {} ms", ms(write))?;
        }
        Ok(())
    }
}

/// What is remembered for the next change.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    cause: Option<Cause>,
    last: Option<RoleChange>,
    /// When the last turn wanted to be followed by another.
    due: Option<Time>,
    /// When it was last found that the process had not run, and for how long.
    late: Option<(Time, Duration)>,
    writing: VecDeque<(WriteId, Time)>,
    /// When a write was last done that took long, and how long.
    slow: Option<(Time, Duration)>,
}

impl Driver {
    /// A turn begins: tells consensus if it should have begun long ago.
    pub(crate) fn see_late(&mut self, now: Time) {
        let due = self.roles.due.take().unwrap_or(Time::MAX);
        let late = now.since(due);
        if late >= self.config.consensus.heartbeat_interval {
            self.roles.late = Some((now, late));
            self.consensus.step(now, Event::Late(late));
        }
    }

    /// A turn ends, and the next is due then.
    pub(crate) fn next_due(&mut self, due: Time) -> Time {
        self.roles.due = Some(due);
        due
    }

    /// A write is handed to the disk.
    pub(crate) fn write_begins(&mut self, now: Time, id: WriteId) {
        self.roles.writing.push_back((id, now));
    }

    /// This write and all before it are on disk.
    pub(crate) fn write_ends(&mut self, now: Time, id: WriteId) {
        while let Some((_, began)) = self.roles.writing.pop_front_if(|(write, _)| *write <= id) {
            let took = now.since(began);
            if took >= self.config.consensus.heartbeat_interval {
                self.roles.slow = Some((now, took));
            }
        }
    }

    /// Consensus has something to tell.
    pub(crate) fn see_note(&mut self, now: Time, note: &Note, ports: &mut impl Ports) {
        match note {
            Note::Cause(cause) => self.roles.cause = Some(*cause),
            Note::Role { term, role, leader } => {
                let change = RoleChange {
                    term: *term,
                    role: *role,
                    leader: *leader,
                    cause: self.roles.cause.take(),
                    late: self.lately(now, self.roles.late),
                    write: self.slow_write(now),
                };
                ports.role_changed(self.config.group, &change);
                self.roles.last = Some(change);
                self.role_changed(now, ports);
            }
            _ => {}
        }
    }

    /// What was no longer ago than two election timeouts.
    fn lately(&self, now: Time, what: Option<(Time, Duration)>) -> Option<Duration> {
        let recent = Duration(self.config.consensus.election_timeout_max.0.saturating_mul(2));
        what.filter(|(at, _)| now.since(*at) <= recent)
            .map(|(_, long)| long)
    }

    fn slow_write(&self, now: Time) -> Option<Duration> {
        let under_way = self.roles.writing.front().map(|(_, began)| now.since(*began));
        let under_way = under_way.filter(|long| *long >= self.config.consensus.heartbeat_interval);
        under_way.max(self.lately(now, self.roles.slow))
    }

    /// The last change of role, term or leader in this life of the node.
    #[must_use]
    pub fn role_change(&self) -> Option<&RoleChange> {
        self.roles.last.as_ref()
    }
}
