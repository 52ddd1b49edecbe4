//! Check-quorum: who leads hears a quorum, or has given up leading (dissertation §6.2).
//!
//! All times are of the leader's own clock, and what counts is when it took an answer in: one that stood
//! still is judged by the turn in which it goes on.

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Configuration, Duration, NodeId, Term, Time};
use std::collections::BTreeMap;

/// The name of the property.
pub const PROPERTY: &str = "a leader that no quorum answers steps down";

#[derive(Debug)]
struct Leader {
    term: Term,
    since: Time,
    heard: BTreeMap<NodeId, Time>,
}

/// Whom each leader has heard, and when.
#[derive(Debug, Default)]
pub struct QuorumContact {
    leaders: BTreeMap<NodeId, Leader>,
}

impl QuorumContact {
    /// A node takes in another's answer to AppendEntries of this term.
    pub fn hears(&mut self, node: NodeId, from: NodeId, term: Term, now: Time) {
        if let Some(leader) = self.leaders.get_mut(&node).filter(|l| l.term == term) {
            leader.heard.insert(from, now);
        }
    }

    /// A node went down.
    pub fn down(&mut self, node: NodeId) {
        self.leaders.remove(&node);
    }

    /// A node has taken a turn, and leads this term or none. A leader may be silent for `patience`.
    ///
    /// # Errors
    /// If it leads although a quorum has been silent for longer.
    pub fn turned(
        &mut self,
        node: NodeId,
        leads: Option<Term>,
        now: Time,
        patience: Duration,
        members: &Configuration,
    ) -> Verdict {
        let Some(term) = leads else {
            self.leaders.remove(&node);
            return Ok(());
        };
        let new = || Leader {
            term,
            since: now,
            heard: BTreeMap::new(),
        };
        let leader = self.leaders.entry(node).or_insert_with(new);
        if leader.term != term {
            *leader = new();
        }
        let heard = |n: NodeId| match leader.heard.get(&n) {
            _ if n == node => now,
            Some(at) => *at,
            None => leader.since,
        };
        let quorum = members.quorum_value(heard);
        ensure(now.since(quorum).0 <= patience.0, PROPERTY, || {
            format!(
                "{node:?} leads {term:?} at {now:?} by its clock, and a quorum was last heard at {quorum:?}"
            )
        })
    }
}
