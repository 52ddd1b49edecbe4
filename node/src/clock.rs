//! The cluster's clock: how many seconds have passed while somebody led, as far as the log tells.
//!
//! A leader goes on from the latest second that its log shows, by its own monotonic time, from turn to turn. Sessions, and
//! retention and snapshots by age, rest on it. Invariants: it never goes back, and is never behind what it was shown; it runs
//! at a leader alone, so that time without one does not pass; between two turns it goes on by an election timeout at most,
//! so that a process that did not run, or whose monotonic time jumps, does not count that; no date moves it.
//!
//! A leader that writes nothing puts the clock into the log now and then ([`Driver::record_clock`]): the next leader cannot
//! know of more than the log shows, so what a leader has not written when it falls is lost.
//!
//! The date in a record is another thing: it is for people, and nothing is decided by it.

use crate::driver::Driver;
use kontiki_consensus::{Duration, Event, Time};
use kontiki_wire::record::RunBuilder;

const SECOND: u64 = 1_000_000_000;
/// While a session is open, or something waits to become old enough to be forgotten, the log shows the clock at least so often.
const RECORD_INTERVAL_SECONDS_MAX: u32 = 60;
/// An earlier date than that of the record before is replaced by it where it is earlier by at most this: so leaders whose
/// clocks differ a little do not let dates go back. Where it is earlier by more, one of the two clocks was wrong, and the
/// date is told as the present leader has it: otherwise one wrong clock would hold all dates for as long as it was ahead.
const DATE_HOLD_NANOS_MAX: u64 = 60 * SECOND;

/// The clock, as this node knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it shows, in ns, as of the time beside it.
    shows: u64,
    at: Time,
    /// Whether this node leads: then it runs.
    runs: bool,
    /// The latest second in the records of this leader.
    recorded: u32,
    /// How far it goes on between two turns at most.
    step_max: Duration,
}

impl Clock {
    /// Not yet shown anything. It goes on by `step_max` at most between two turns.
    pub(crate) fn new(now: Time, step_max: Duration) -> Self {
        Self {
            shows: 0,
            at: now,
            runs: false,
            recorded: 0,
            step_max,
        }
    }

    /// A turn begins.
    pub(crate) fn pass(&mut self, now: Time) {
        if self.runs {
            let step = now.since(self.at).min(self.step_max);
            self.shows = self.shows.saturating_add(step.0);
        }
        self.at = self.at.max(now);
    }

    /// This node has become the leader, or leads no more.
    pub(crate) fn lead(&mut self, leads: bool) {
        if leads && !self.runs {
            self.recorded = 0;
        }
        self.runs = leads;
    }

    /// The second it is.
    pub(crate) fn second(&self) -> u32 {
        u32::try_from(self.shows / SECOND).unwrap_or(u32::MAX)
    }

    /// A record was made in this second.
    pub(crate) fn see(&mut self, second: u32) {
        self.shows = self.shows.max(u64::from(second) * SECOND);
        self.recorded = self.recorded.max(second);
    }
}

/// The date of a record, if that of the one before and of this leader's clock are these, in ns since 1970.
pub(crate) fn date_after(before: u64, wall: u64) -> u64 {
    if before > wall && before - wall <= DATE_HOLD_NANOS_MAX {
        before
    } else {
        wall
    }
}

/// Whether a time since the clock showed `began` is certainly this long: the clock counts whole seconds.
pub(crate) fn is_older(began: u32, second: u32, age: u64) -> bool {
    let whole = u64::from(second).saturating_sub(u64::from(began) + 1);
    whole.saturating_mul(SECOND) >= age && second > began
}

impl Driver {
    /// The cluster's clock, in seconds, as far as it is known here.
    pub(crate) fn second(&self) -> u32 {
        self.clock.second().max(self.applied.meta.sessions.clock())
    }

    /// Puts the clock into the log, if it matters that the next leader goes on from here: the time of a session is over, or
    /// nothing was written for a while and there are sessions, or parts of the log, that age.
    pub(crate) fn record_clock(&mut self, now: Time) {
        let Some(admission) = self.admission().filter(|_| self.knows_sessions()) else {
            return;
        };
        let (second, sessions) = (self.second(), &self.applied.meta.sessions);
        let recorded = self.clock.recorded.max(sessions.clock());
        let expires = sessions.next_expiry();
        let over = expires.is_some_and(|at| at <= u64::from(second) && u64::from(recorded) < at);
        let interval = RECORD_INTERVAL_SECONDS_MAX.min((self.config.sessions.ttl / 4).max(1));
        let ages = expires.is_some() || self.has_segments_to_age();
        let due = over || (ages && second.saturating_sub(recorded) >= interval);
        if !due {
            return;
        }
        let mut builder = RunBuilder::new(self.config.identity.cluster, self.config.group, admission);
        if builder.push_clock(self.stamp()).is_ok()
            && let Some(run) = builder.finish()
        {
            self.clock.recorded = second;
            self.consensus.step(now, Event::Propose(run));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_MAX: Duration = Duration(SECOND);

    #[test]
    fn it_goes_on_from_the_latest_second_it_was_shown_and_never_back() {
        let mut clock = Clock::new(Time(5 * SECOND), STEP_MAX);
        clock.see(100);
        clock.see(50);
        assert_eq!(clock.second(), 100);
        clock.lead(true);
        for at in [11, 12, 14, 13] {
            clock.pass(Time(at * SECOND / 2));
        }
        assert_eq!(clock.second(), 102, "an earlier moment is taken for that one");
    }

    #[test]
    fn it_stands_still_where_nobody_leads_and_while_the_process_does() {
        let mut clock = Clock::new(Time::ZERO, STEP_MAX);
        clock.pass(Time(50 * SECOND));
        assert_eq!(clock.second(), 0, "a follower only sees what the log shows");
        clock.lead(true);
        clock.pass(Time(51 * SECOND));
        assert_eq!(clock.second(), 1);
        clock.pass(Time(90 * SECOND));
        assert_eq!(clock.second(), 2, "that long it led nobody");
        clock.lead(false);
        clock.pass(Time(91 * SECOND));
        assert_eq!(clock.second(), 2);
    }

    #[test]
    fn a_date_is_held_for_a_small_difference_and_not_for_a_large_one() {
        let before = 1_000 * SECOND;
        assert_eq!(date_after(before, before + 1), before + 1);
        assert_eq!(date_after(before, before - 60 * SECOND), before);
        assert_eq!(date_after(before, before - 61 * SECOND), before - 61 * SECOND);
    }

    #[test]
    fn an_age_is_reached_only_when_so_much_time_has_certainly_passed() {
        assert!(!is_older(7, 17, 10 * SECOND), "7.9 and 17.0 are not 10 s apart");
        assert!(is_older(7, 18, 10 * SECOND));
        assert!(!is_older(7, 7, 0));
        assert!(!is_older(9, 7, 0));
    }
}
