//! The only door messages leave by, and the durability gate in it.
//!
//! One rule serves every message: none leaves before the sender's term, vote and mark, as they stood when
//! it was written, are on disk. A vote therefore waits for the vote, anything said in a new term
//! for the term, and what a suspect server says for its mark. Acknowledgements name only what is persisted already when they are written, which
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
    /// Hands a message to the door, as the output it is to become. `Err` if it would promise what is not on disk: a
    /// broken invariant.
    // Of what is written in one place only one kind of message can come of it, and it need not be moved twice.
    #[inline(always)]
    pub(crate) fn push(&mut self, send: Output, persisted: Index) -> Result<(), &'static str> {
        let Output::Send(message) = &send else {
            return Err("something else than a message was to be sent");
        };
        if let Call::AppendEntriesReply {
            persisted: promised, ..
        } = message.call
            && promised > persisted
        {
            return Err("an acknowledgement would name records that are not on disk");
        }
        if !self.waiting.is_empty() {
            self.make_way_for(message);
        }
        self.waiting.push(send);
        Ok(())
    }

    /// Drops all that has not left: it does not say what is known now.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Drops what this message takes the place of.
    fn make_way_for(&mut self, message: &Message) {
        if matches!(
            message.call,
            Call::AppendEntries { .. } | Call::ReadIndex { .. } | Call::ReadIndexReply { .. }
        ) {
            return;
        }
        let kind = discriminant(&message.call);
        let same =
            |m: &Message| m.to == message.to && discriminant(&m.call) == kind && is_pre(m) == is_pre(message);
        self.waiting.retain(|o| !matches!(o, Output::Send(m) if same(m)));
    }

    /// Lets out what may leave: everything once term and vote are on disk, nothing before.
    #[inline]
    pub(crate) fn flush(&mut self, hard_state_is_persisted: bool, term: Term, outputs: &mut Vec<Output>) {
        if self.waiting.is_empty() {
            return;
        }
        if hard_state_is_persisted && outputs.is_empty() {
            // Nothing is before them: the list goes as it is, and an empty one comes back to be filled.
            ::core::mem::swap(outputs, &mut self.waiting);
        } else {
            self.let_out(hard_state_is_persisted, term, outputs);
        }
    }

    fn let_out(&mut self, hard_state_is_persisted: bool, term: Term, outputs: &mut Vec<Output>) {
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
