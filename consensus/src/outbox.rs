//! The only door messages leave by, and the durability gate in it.
//!
//! One rule serves every message: none leaves before the sender's term and vote, as they stood when
//! it was written, are on disk. A vote therefore waits for the vote, anything said in a new term
//! for the term. Acknowledgements name only what is persisted already when they are written, which
//! is asserted here; AppendEntries promises nothing, and a leader's term has been on disk since its
//! election, so it never waits. The gate table stands in `docs/ARCHITECTURE.md`.
//!
//! Invariant: what is held is bounded: a later vote, answer or acknowledgement to the same peer takes
//! the place of an earlier one, and what was said in an older term is dropped.

use crate::{Call, Index, Message, Output, Term};
use ::core::mem::discriminant;
use alloc::vec::Vec;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Every one is an [`Output::Send`], so that what may leave moves on in one piece.
    waiting: Vec<Output>,
}

impl Outbox {
    /// Hands a message to the door. `Err` if it would promise what is not on disk: a broken invariant.
    pub(crate) fn push(&mut self, message: Message, persisted: Index) -> Result<(), &'static str> {
        if let Call::AppendEntriesReply {
            persisted: promised, ..
        } = &message.call
            && *promised > persisted
        {
            return Err("an acknowledgement would name records that are not on disk");
        }
        if !self.waiting.is_empty()
            && !matches!(
                message.call,
                Call::AppendEntries { .. } | Call::ReadIndex { .. } | Call::ReadIndexReply { .. }
            )
        {
            let kind = discriminant(&message.call);
            let same = |m: &Message| {
                m.to == message.to && discriminant(&m.call) == kind && is_pre(m) == is_pre(&message)
            };
            self.waiting.retain(|o| !matches!(o, Output::Send(m) if same(m)));
        }
        self.waiting.push(Output::Send(message));
        Ok(())
    }

    /// Lets out what may leave: everything once term and vote are on disk, nothing before.
    pub(crate) fn flush(&mut self, hard_state_is_persisted: bool, term: Term, outputs: &mut Vec<Output>) {
        if self.waiting.is_empty() {
            return;
        }
        if hard_state_is_persisted {
            outputs.append(&mut self.waiting);
        } else {
            self.waiting
                .retain(|o| matches!(o, Output::Send(m) if m.term >= term));
        }
    }
}

fn is_pre(message: &Message) -> bool {
    matches!(
        message.call,
        Call::RequestVote { pre: true, .. } | Call::RequestVoteReply { pre: true, .. }
    )
}
