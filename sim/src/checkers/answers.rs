//! Answers: every request is answered exactly once, by its deadline, unless its node goes down first or its client gives up.

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{NodeId, Time};
use kontiki_node::Token;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the property.
pub const PROPERTY: &str = "every request is answered once and in time";

/// Requests that wait for their answer.
#[derive(Debug, Default)]
pub struct Answers {
    /// The node that was asked, and when it must have answered.
    open: BTreeMap<Token, (NodeId, Time)>,
    /// Requests whose clients have given up, and the node that is still to hear of it.
    withdrawn: BTreeMap<Token, NodeId>,
    /// Nodes that cannot answer for the time being.
    still: BTreeSet<NodeId>,
}

impl Answers {
    /// A node was asked, and must answer by then.
    pub fn asked(&mut self, token: Token, node: NodeId, by: Time) {
        self.open.insert(token, (node, by));
    }

    /// A node answers.
    ///
    /// # Errors
    /// If it was not asked, or has answered already.
    pub fn answered(&mut self, token: Token, node: NodeId) -> Verdict {
        let asked = self.open.remove(&token).map(|(node, _)| node);
        let asked = asked.or_else(|| self.withdrawn.remove(&token));
        ensure(asked == Some(node), PROPERTY, || {
            format!("{node:?} answers {token:?}, which {asked:?} was asked")
        })
    }

    /// A client gives up: its node may answer until it hears of it, and need not.
    pub fn withdraw(&mut self, token: Token) {
        if let Some((node, _)) = self.open.remove(&token) {
            self.withdrawn.insert(token, node);
        }
    }

    /// The node has heard that nobody waits for this answer any more.
    pub fn forgotten(&mut self, token: Token) {
        self.withdrawn.remove(&token);
    }

    /// How many requests a node has not answered that it may answer.
    #[must_use]
    pub fn open_at(&self, node: NodeId) -> usize {
        let open = self.open.values().filter(|(asked, _)| *asked == node).count();
        open + self.withdrawn.values().filter(|asked| **asked == node).count()
    }

    /// A node went down: what it was asked stays without an answer.
    pub fn down(&mut self, node: NodeId) -> Vec<Token> {
        self.withdrawn.retain(|_, asked| *asked != node);
        let lost = self.open.extract_if(.., |_, (asked, _)| *asked == node);
        lost.map(|(token, _)| token).collect()
    }

    /// A node could not answer for this long: it stood still.
    pub fn delay(&mut self, node: NodeId, until: Time) {
        for (_, by) in self.open.values_mut().filter(|(asked, _)| *asked == node) {
            *by = (*by).max(until);
        }
    }

    /// A node stands still until further notice.
    pub fn stands_still(&mut self, node: NodeId) {
        self.still.insert(node);
    }

    /// A node that stood still goes on, and what is overdue must be answered by then.
    pub fn goes_on(&mut self, node: NodeId, by: Time) {
        self.still.remove(&node);
        self.delay(node, by);
    }

    /// It is now this late.
    ///
    /// # Errors
    /// If an answer is overdue.
    pub fn overdue(&self, now: Time) -> Verdict {
        let late = self
            .open
            .iter()
            .find(|(_, (node, by))| *by < now && !self.still.contains(node));
        ensure(late.is_none(), PROPERTY, || {
            format!("not answered at {now:?}: {late:?} (token, node asked, latest time)")
        })
    }
}
