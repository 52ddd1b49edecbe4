//! A snapshot that a follower is fetching stays, and so does the log behind it, as long as the transfer makes progress:
//! otherwise the next one is told of before this one has arrived, and so on without end.

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Duration, Index, LogId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the property.
pub const PROPERTY: &str = "what a follower is fetching stays";

/// What a node has done away with in a turn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gone {
    /// Its log begins behind this record now.
    pub log: Option<Index>,
    /// These snapshots were removed.
    pub snapshots: Vec<LogId>,
}

/// All transfers.
#[derive(Clone, Debug)]
pub struct Transfers {
    /// So long after it has asked a follower still makes progress.
    patience: Duration,
    /// What each follower has asked of a node last, and when, by that node's clock.
    asked: BTreeMap<(NodeId, NodeId), (LogId, Time)>,
    /// The same of what it was then given a part of.
    given: BTreeMap<(NodeId, NodeId), (LogId, Time)>,
    /// Which followers each leader had told of which snapshot after its last turn.
    told: BTreeMap<NodeId, Vec<(NodeId, LogId)>>,
    /// Who has told the node whose turn it is how far its log goes.
    answered: BTreeSet<NodeId>,
}

impl Transfers {
    /// A follower that asks within this time makes progress.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            asked: BTreeMap::new(),
            given: BTreeMap::new(),
            told: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    /// A node takes in, in this turn, that `peer` wants a part of the snapshot up to `last`.
    pub fn asks(&mut self, node: NodeId, peer: NodeId, last: LogId, now: Time) {
        self.asked.insert((node, peer), (last, now));
    }

    /// A node gives `peer` a part of what it has asked for. One that is not sure of its own state gives nothing.
    pub fn gives(&mut self, node: NodeId, peer: NodeId, last: LogId) {
        if let Some(asked) = self.asked.get(&(node, peer)).filter(|(of, _)| *of == last) {
            self.given.insert((node, peer), *asked);
        }
    }

    /// A node takes in, in this turn, how far the log of `peer` goes: it may need no snapshot any more.
    pub fn answers(&mut self, peer: NodeId) {
        self.answered.insert(peer);
    }

    /// A node has taken a turn: these followers are told of these snapshots now.
    ///
    /// # Errors
    /// If anything is gone that one of them was fetching.
    pub fn turned(&mut self, node: NodeId, now: Time, told: Vec<(NodeId, LogId)>, gone: &Gone) -> Verdict {
        let answered = std::mem::take(&mut self.answered);
        let before = self.told.insert(node, told).unwrap_or_default();
        if *gone == Gone::default() {
            return Ok(());
        }
        let told = self.told.get(&node).map(Vec::as_slice).unwrap_or_default();
        for (peer, last) in before {
            let given = self.given.get(&(node, peer));
            let fetches = given.is_some_and(|(of, at)| *of == last && now < at.after(self.patience));
            let waits = told.iter().any(|(other, _)| *other == peer) && !answered.contains(&peer);
            let has_gone = gone.snapshots.contains(&last) || gone.log.is_some_and(|index| index > last.index);
            ensure(!(fetches && waits && has_gone), PROPERTY, || {
                format!(
                    "{peer:?} is fetching the snapshot {last:?} of {node:?}, which does away with {gone:?}"
                )
            })?;
        }
        Ok(())
    }

    /// A node is down: nobody is fetching anything of it.
    pub fn down(&mut self, node: NodeId) {
        self.told.remove(&node);
        self.asked.retain(|(of, _), _| *of != node);
        self.given.retain(|(of, _), _| *of != node);
    }
}
