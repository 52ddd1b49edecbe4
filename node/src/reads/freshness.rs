//! How fresh a read must be, and whether anybody has to be asked for that.
//!
//! A question that was confirmed tells more than whoever asked it wanted to know: what is applied up to its index holds
//! everything that was acknowledged before it was *asked*. So a read that may be old by so much is served after any
//! question asked within that time, and by this node's clock alone. Invariants: a question counts from when it was asked,
//! never from its answer; nothing is served before that index, or the entry that is waited for, is applied; of bounded
//! reads, at most one asks within the bound.

use super::{Reader, Reads};
use crate::{driver::Driver, ports::Ports, request::Consistency};
use kontiki_consensus::{Duration, Index, Time};
use std::collections::VecDeque;

/// Questions that were confirmed, by when they were asked: the latest whose index is applied, and those after it.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    list: VecDeque<(Time, Index)>,
}

impl Rounds {
    /// As many are remembered; those confirmed while so many wait to be applied help nobody else.
    const ROUNDS_MAX: usize = 64;

    /// A question asked then may be answered once `index` is applied.
    pub(super) fn confirmed(&mut self, asked: Time, index: Index, applied: Index) {
        if self.list.back().is_none_or(|(last, _)| *last < asked) {
            self.list.push_back((asked, index));
        }
        // Whoever could be served after an earlier one can be after this.
        if let Some(newest) = self.list.iter().rposition(|(_, index)| *index <= applied) {
            self.list.drain(..newest);
        }
        self.list.truncate(Self::ROUNDS_MAX);
    }

    /// What must be applied to hold everything that was acknowledged `lag` before `now`, if a question tells.
    fn within(&self, lag: Duration, now: Time) -> Option<Index> {
        let recent = self.list.iter().find(|(asked, _)| is_within(*asked, lag, now));
        recent.map(|(_, index)| *index)
    }
}

fn is_within(asked: Time, lag: Duration, now: Time) -> bool {
    asked.after(lag) >= now
}

impl Reads {
    /// The readers of a question that is under way and was asked within that time.
    fn joinable(&mut self, lag: Duration, now: Time) -> Option<&mut Vec<Reader>> {
        let mut asked = self.asked.values_mut();
        asked
            .find(|(asked, _)| is_within(*asked, lag, now))
            .map(|(_, readers)| readers)
    }
}

impl Driver {
    /// Serves a read if it is fresh enough here and now, or lets it wait for what makes it so. `now` must have been read
    /// after the read came.
    pub(super) fn begin_read(
        &mut self,
        now: Time,
        reader: Reader,
        consistency: Consistency,
        ports: &mut impl Ports,
    ) {
        match consistency {
            Consistency::Linearizable => self.reads.fresh.push(reader),
            Consistency::Lease => match self.consensus.lease_index(now) {
                Some(index) => {
                    self.counts.leased += 1;
                    self.serve_at(index, reader, ports);
                }
                None => self.reads.fresh.push(reader),
            },
            Consistency::Stale { max_lag: None } => self.serve(reader, ports),
            Consistency::Stale { max_lag: Some(lag) } => self.read_within(now, reader, lag, ports),
            Consistency::AtLeast(position) if position <= self.applied.position => self.serve(reader, ports),
            Consistency::AtLeast(position) => self.reads.awaiting.push((position, reader)),
        }
    }

    fn read_within(&mut self, now: Time, reader: Reader, lag: Duration, ports: &mut impl Ports) {
        if let Some(index) = self.reads.rounds.within(lag, now) {
            self.counts.recent += 1;
            self.serve_at(index, reader, ports);
        } else if let Some(readers) = self.reads.joinable(lag, now) {
            readers.push(reader);
        } else {
            self.reads.fresh.push(reader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_counts_from_when_it_was_asked_and_for_so_long() {
        let mut rounds = Rounds::default();
        rounds.confirmed(Time(100), Index(7), Index(7));
        assert_eq!(rounds.within(Duration(50), Time(150)), Some(Index(7)));
        assert_eq!(rounds.within(Duration(50), Time(151)), None);
    }

    #[test]
    fn the_earliest_that_is_good_enough_is_taken_for_it_is_applied_first() {
        let mut rounds = Rounds::default();
        for n in 1..=3 {
            rounds.confirmed(Time(n * 100), Index(n * 10), Index(5));
        }
        assert_eq!(rounds.within(Duration(250), Time(320)), Some(Index(10)));
        assert_eq!(rounds.within(Duration(150), Time(320)), Some(Index(20)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_shrinks_as_it_is_applied() {
        let mut rounds = Rounds::default();
        for n in 1..=1000 {
            rounds.confirmed(Time(n), Index(n), Index(0));
        }
        assert_eq!(rounds.list.len(), Rounds::ROUNDS_MAX);
        rounds.confirmed(Time(2000), Index(2000), Index(64));
        assert_eq!(rounds.list, [(Time(64), Index(64)), (Time(2000), Index(2000))]);
        rounds.confirmed(Time(2001), Index(2001), Index(3000));
        rounds.confirmed(Time(1999), Index(1999), Index(3000));
        assert_eq!(rounds.list, [(Time(2001), Index(2001))]);
    }
}
