//! Reads under a lease (dissertation §6.4.1): a leader answers at once, without a round of its own.
//!
//! Whoever heard a leader refuses its vote for the shortest election timeout (§4.2.3). So, from when a round
//! *began* that a quorum answered, no other leader can be elected for that long: some member of any quorum
//! heard the round no earlier than it was sent. Invariants: the lease runs from the sending of a round, never
//! from its answer; it is shortened by as much as clocks may differ in rate; it belongs to the leadership and
//! ends with it; a server that restarts refuses its vote for the shortest election timeout too, for it may
//! have heard a leader just before it died.
//!
//! A leader that hands over (§3.10) lets another be elected whom the refusal does not hold back: its lease
//! must end before it asks for that election, and no round that it began before counts again.

use crate::{Consensus, Duration, Index, Round, Time, role::State};
use alloc::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Rounds and when they began, of those a quorum has not yet answered. Of rounds close together only
    /// the first is here, which is on the safe side, and keeps them few.
    begun: VecDeque<(Round, Time)>,
    /// When the latest of those began that a quorum has answered.
    from: Option<Time>,
}

impl Lease {
    /// As many rounds as are remembered; those that begin while so many are unanswered extend no lease.
    const ROUNDS_MAX: usize = 256;

    /// A round begins: nothing of it was sent before `now`.
    pub(crate) fn begin(&mut self, round: Round, now: Time, apart: Duration) {
        let far = self.begun.back().is_none_or(|(_, at)| now >= at.after(apart));
        if far && self.begun.len() < Self::ROUNDS_MAX {
            self.begun.push_back((round, now));
        }
    }

    /// A quorum has answered `round`.
    pub(crate) fn confirm(&mut self, round: Round) {
        while let Some((_, at)) = self.begun.pop_front_if(|(begun, _)| *begun <= round) {
            self.from = Some(at);
        }
    }

    /// Whether no round is under way that could extend it.
    pub(crate) fn is_idle(&self) -> bool {
        self.begun.is_empty()
    }
}

impl Consensus {
    /// How far must be applied to answer a linearizable read at once; `None` if no lease holds now, and the
    /// read must be confirmed by [`Event::Read`](crate::Event::Read).
    ///
    /// `now` must have been read from the clock after the read came, or the lease may have ended in between.
    #[must_use]
    pub fn lease_index(&self, now: Time) -> Option<Index> {
        let State::Leader(leader) = &self.state else {
            return None;
        };
        let holds = now < leader.lease.from?.after(self.config.lease_length());
        // Before the first commit of its term a leader does not know what is committed (§6.4, step 1).
        let knows = self.commit >= leader.term_start && self.fatal.is_none();
        (holds && knows).then_some(self.commit)
    }
}
