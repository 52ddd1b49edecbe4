//! Term and vote: neither goes back, restarts included, and nothing is promised before it is durable
//! (paper §5.1, §5.2 and Figure 2, "persistent state"; decision 12).

use crate::ledger::Ledger;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Call, HardState, Message, NodeId, Term};
use std::collections::BTreeMap;

/// The name of the first property.
pub const MONOTONE: &str = "term and vote never go back";
/// The name of the second property.
pub const GATE: &str = "nothing is promised before it is durable";

/// What each node has ever said about terms and votes.
#[derive(Debug, Default)]
pub struct HardStates {
    terms: BTreeMap<NodeId, Term>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
}

impl HardStates {
    /// A node wrote, recovered or shows this term and vote.
    ///
    /// # Errors
    /// If it was in a later term, or gave its vote in this term to another or took it back.
    pub fn seen(&mut self, node: NodeId, state: HardState) -> Verdict {
        let term = self.terms.entry(node).or_default();
        ensure(state.term >= *term, MONOTONE, || {
            format!("{node:?} went from {term:?} back to {:?}", state.term)
        })?;
        *term = state.term;
        if let Some(vote) = state.vote {
            return self.voted(node, state.term, vote);
        }
        let known = self.votes.get(&(node, state.term));
        ensure(known.is_none(), MONOTONE, || {
            format!(
                "{node:?} voted for {known:?} in {:?}, and then for nobody",
                state.term
            )
        })
    }

    /// A node went down: what of its term was not durable does not count.
    pub fn down(&mut self, node: NodeId, durable: HardState) {
        self.terms.insert(node, durable.term);
        self.votes
            .retain(|(voter, term), _| *voter != node || *term <= durable.term);
        if durable.vote.is_none() {
            self.votes.remove(&(node, durable.term));
        }
    }

    fn voted(&mut self, node: NodeId, term: Term, vote: NodeId) -> Verdict {
        let known = *self.votes.entry((node, term)).or_insert(vote);
        ensure(known == vote, MONOTONE, || {
            format!("{node:?} voted for {known:?} in {term:?}, and then for {vote:?}")
        })
    }

    /// A node whose disk holds this sends a message.
    ///
    /// # Errors
    /// If the message says something that is not durable.
    pub fn sends(&mut self, message: &Message, ledger: &Ledger) -> Verdict {
        let (node, durable) = (message.from, ledger.hard_state());
        let pre = matches!(
            message.call,
            Call::RequestVote { pre: true, .. } | Call::RequestVoteReply { pre: true, .. }
        );
        ensure(pre || message.term <= durable.term, GATE, || {
            format!("{node:?} sends {message:?} while its disk says {durable:?}")
        })?;
        match message.call {
            Call::RequestVoteReply {
                pre: false,
                granted: true,
                ..
            } => {
                let kept = durable.term > message.term || durable.vote == Some(message.to);
                ensure(kept, GATE, || {
                    format!("{node:?} sends {message:?} while its disk says {durable:?}")
                })?;
                self.voted(node, message.term, message.to)
            }
            Call::RequestVote { pre: false, .. } => self.voted(node, message.term, node),
            Call::AppendEntriesReply { persisted, .. } => {
                let on_disk = ledger.durable().len() as u64;
                ensure(persisted.0 <= on_disk, GATE, || {
                    format!("{node:?} acknowledges {persisted:?}, and its disk ends at {on_disk}")
                })
            }
            _ => Ok(()),
        }
    }
}
