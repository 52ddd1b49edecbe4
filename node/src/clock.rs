//! The cluster's clock: how many seconds have passed while somebody led, as far as the log tells.
//!
//! Each leader goes on from the latest second in its log, by its own monotonic time; nobody's date moves it, so
//! a date that jumps ends no session. Invariants: it never goes back, and is never behind what it was shown.

use kontiki_consensus::Time;

const SECOND: u64 = 1_000_000_000;

/// The clock, as this node knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed, in ns, and when.
    showed: u64,
    at: Time,
}

impl Clock {
    /// Not yet shown anything.
    pub(crate) fn new(now: Time) -> Self {
        Self { showed: 0, at: now }
    }

    /// The second it is.
    pub(crate) fn second(&self, now: Time) -> u32 {
        u32::try_from(self.nanos(now) / SECOND).unwrap_or(u32::MAX)
    }

    fn nanos(&self, now: Time) -> u64 {
        self.showed.saturating_add(now.since(self.at).0)
    }

    /// A record was made in this second.
    pub(crate) fn see(&mut self, second: u32, now: Time) {
        let seen = u64::from(second) * SECOND;
        if seen > self.nanos(now) {
            *self = Self {
                showed: seen,
                at: now,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_latest_second_it_was_shown_and_never_back() {
        let mut clock = Clock::new(Time(5 * SECOND));
        assert_eq!(clock.second(Time(7 * SECOND)), 2);
        clock.see(100, Time(7 * SECOND));
        clock.see(50, Time(8 * SECOND));
        assert_eq!(clock.second(Time(8 * SECOND)), 101);
        assert_eq!(
            clock.second(Time(7 * SECOND)),
            100,
            "an earlier moment is taken for that one"
        );
    }
}
