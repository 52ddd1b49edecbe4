//! Those who wait for a record to be committed and applied here, and what a leader has in flight.
//!
//! Invariant: waiters stand in the order of elections, term before index. Terms never fall along a
//! committed log, so whoever stands at or before the applied record in that order can be answered:
//! its record is applied, or never will be.

use crate::{request::Token, rising::Rising};
use kontiki_consensus::{Index, LogId, Position, Time};
use kontiki_wire::{InSession, Session};
use std::collections::{BTreeMap, VecDeque};

/// A client that waits for its record to be applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    pub(crate) deadline: Time,
    pub(crate) first: Position,
    pub(crate) count: u32,
    pub(crate) session: Session,
}

/// Where an append stands that is in the log and not applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) at: LogId,
    pub(crate) first: Position,
    pub(crate) count: u32,
}

/// Everyone who waits, by index and term of the record.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: VecDeque<(LogId, Waiter)>,
    /// What this leader took in and has not committed: index and bytes.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
    /// Those of sessions among it, until they have passed by, and the second of the last. No session is there without one.
    in_sessions: BTreeMap<u64, (Rising<Place>, u32)>,
    /// Empty: the memory of the last that went, for the next.
    spare: Rising<Place>,
    /// The sessions that are opened by what it has in flight, until that has passed by.
    opening: VecDeque<Index>,
}

impl Waiters {
    pub(crate) fn wait(&mut self, at: LogId, waiter: Waiter) {
        // A leader assigns in rising order; only answers that overtook each other on their way do not come last.
        if self.waiting.back().is_none_or(|(last, _)| *last <= at) {
            self.waiting.push_back((at, waiter));
        } else {
            let place = self.waiting.partition_point(|(other, _)| *other <= at);
            self.waiting.insert(place, (at, waiter));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// This much was put into the log at `index`.
    pub(crate) fn carry(&mut self, index: Index, bytes: usize) {
        self.in_flight.push_back((index, bytes));
        self.in_flight_bytes += bytes;
    }

    /// And it is this append of a session, made in this second of the cluster's clock.
    pub(crate) fn carry_in_session(&mut self, of: InSession, place: Place, clock: u32) {
        let in_session = self.in_sessions.entry(of.session);
        let (places, last) = in_session.or_insert_with(|| (std::mem::take(&mut self.spare), clock));
        places.insert(of.sequence, place);
        *last = clock;
    }

    /// And it opens a session.
    pub(crate) fn carry_opening(&mut self, index: Index) {
        self.opening.push_back(index);
    }

    /// Whether a session is opened by what this leader has in flight: others may have applied that already.
    pub(crate) fn opens(&self, session: u64) -> bool {
        self.opening.binary_search(&Index(session)).is_ok()
    }

    /// Every session that is opened up to `index` is known to the table.
    pub(crate) fn opened_up_to(&mut self, index: Index) {
        while self.opening.pop_front_if(|opening| *opening <= index).is_some() {}
    }

    /// Where an append of a session stands, if this leader has it in flight.
    pub(crate) fn in_session(&self, of: InSession) -> Option<Place> {
        let (places, _) = self.in_sessions.get(&of.session)?;
        places.get(of.sequence).copied()
    }

    /// In which second the last append of a session was made that is in flight, if any is.
    pub(crate) fn session_used(&self, session: u64) -> Option<u32> {
        self.in_sessions.get(&session).map(|(_, clock)| *clock)
    }

    /// This append of a session is known to the table.
    pub(crate) fn lands_in_session(&mut self, (session, sequence): (u64, u64)) {
        if let Some((places, _)) = self.in_sessions.get_mut(&session) {
            places.remove(sequence);
            if places.is_empty() {
                self.spare = self.in_sessions.remove(&session).unwrap_or_default().0;
            }
        }
    }

    /// Bytes put into the log by this leader and not yet committed.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Everything up to `index` is committed.
    pub(crate) fn land(&mut self, index: Index) {
        while let Some((_, bytes)) = self.in_flight.front().filter(|(i, _)| *i <= index) {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
    }

    /// This node leads no more: others count what is in flight.
    pub(crate) fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.in_sessions.clear();
        self.opening.clear();
    }

    /// The next one whose fate is known once `applied` is applied.
    pub(crate) fn next_up_to(&mut self, applied: LogId) -> Option<(LogId, Waiter)> {
        self.waiting.front().filter(|(at, _)| *at <= applied)?;
        self.waiting.pop_front()
    }

    pub(crate) fn expire(&mut self, now: Time, late: &mut Vec<Token>) {
        self.waiting.retain(|(_, waiter)| {
            let keep = waiter.deadline > now;
            if !keep {
                late.push(waiter.token);
            }
            keep
        });
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.forget_in_flight();
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, w)| w.token)
    }
}
