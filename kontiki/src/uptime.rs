//! The clock of a node: monotonic, and it goes on while the machine sleeps.
//!
//! `Instant` stands still on Linux while the machine is suspended: a lease, a bound on the age of a read or a deadline would
//! hold for as much longer. Where the system has no clock that goes on, `Instant` it is. Invariant: it never goes back.

use kontiki_consensus::Time;

/// When a node was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uptime {
    origin: Moment,
}

impl Uptime {
    /// A node starts now.
    pub(crate) fn start() -> Self {
        Self { origin: moment() }
    }

    /// How much time has passed since.
    pub(crate) fn now(&self) -> Time {
        Time(since(self.origin))
    }
}

/// Nanoseconds since the machine was started, suspended time included.
#[cfg(target_os = "linux")]
type Moment = u64;

#[cfg(target_os = "linux")]
fn moment() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither is ever negative for this clock.
    let whole = |part| u64::try_from(part).unwrap_or(0);
    whole(now.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(whole(now.tv_nsec))
}

#[cfg(target_os = "linux")]
fn since(origin: Moment) -> u64 {
    moment().saturating_sub(origin)
}

#[cfg(not(target_os = "linux"))]
type Moment = std::time::Instant;

#[cfg(not(target_os = "linux"))]
fn moment() -> Moment {
    std::time::Instant::now()
}

#[cfg(not(target_os = "linux"))]
fn since(origin: Moment) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};

    #[test]
    fn it_goes_on_and_never_back() {
        let uptime = Uptime::start();
        let mut last = uptime.now();
        for _ in 0..1_000 {
            let now = uptime.now();
            assert!(now >= last);
            last = now;
        }
        thread::sleep(Duration::from_millis(20));
        assert!(uptime.now().since(last).0 >= 20_000_000);
    }
}
