//! Ages: sessions end, and a log forgets, only after so much time under a leader, whatever dates and clocks do.
//!
//! The time that counts is at most the time in which some node led, by the clock of the fastest.

use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Duration, Position, Time};
use std::collections::VecDeque;

/// The name of the property.
pub const PROPERTY: &str = "nothing ends before its time under a leader is over";

/// How long somebody has led, and what was there when.
#[derive(Debug, Default)]
pub struct Ages {
    led: Duration,
    seen: Time,
    leads: bool,
    /// By how many millionths the fastest clock is fast.
    fastest: i64,
    /// A session had to make room for another: why one is not known any more cannot be told from then on.
    evicted: bool,
    /// How far any log ever went, and how long somebody had led then. Rising in both.
    ends: VecDeque<(Duration, Position)>,
    first: Position,
}

impl Ages {
    /// A turn was taken: whether a node leads now, and by how many millionths the fastest clock is fast.
    pub fn turned(&mut self, now: Time, leads: bool, fastest: i64) {
        self.led = self.led(now);
        (self.seen, self.leads, self.fastest) = (now, leads, fastest);
    }

    /// How long somebody has led.
    #[must_use]
    pub fn led(&self, now: Time) -> Duration {
        let more = if self.leads { now.since(self.seen).0 } else { 0 };
        Duration(self.led.0 + more)
    }

    /// Some session had to make room.
    pub fn evicted(&mut self) {
        self.evicted = true;
    }

    /// A node's log goes so far.
    pub fn ends(&mut self, last: Position) {
        if self.ends.back().is_none_or(|(_, position)| *position < last) {
            self.ends.push_back((self.led, last));
        }
    }

    /// A node's log begins here; by age alone it forgets what is older than this, in ns.
    ///
    /// # Errors
    /// If what it has forgotten is not so old.
    pub fn begins(&mut self, first: Position, age: u64) -> Verdict {
        if first <= self.first.max(Position(1)) {
            return Ok(());
        }
        self.first = first;
        let forgotten = first.prev();
        while self.ends.front().is_some_and(|(_, last)| *last < forgotten) {
            self.ends.pop_front();
        }
        let Some((then, _)) = self.ends.front() else {
            return Ok(());
        };
        ensure(self.is_over(self.led, *then, age), PROPERTY, || {
            format!(
                "{forgotten:?} is forgotten after {:?} under leaders, and {:?} is the age",
                Duration(self.led.0 - then.0),
                Duration(age)
            )
        })
    }

    /// A client was told that its session is over, in which it had something done not before `then`.
    ///
    /// # Errors
    /// If it is not.
    pub fn session_ended(&self, now: Time, then: Duration, ttl: u32) -> Verdict {
        let over = self.is_over(self.led(now), then, u64::from(ttl) * 1_000_000_000);
        ensure(over || self.evicted, PROPERTY, || {
            let led = Duration(self.led(now).0 - then.0);
            format!("a session of {ttl} s has ended after {led:?} under leaders")
        })
    }

    fn is_over(&self, now: Duration, then: Duration, age: u64) -> bool {
        let passed = u128::from(now.0 - then.0) * u128::from((1_000_000 + self.fastest).unsigned_abs());
        passed / 1_000_000 >= u128::from(age)
    }
}
