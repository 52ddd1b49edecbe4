//! Whether a write is carried out on the raft thread or on the disk's.
//!
//! On the raft thread it saves two wakes, one after the other, on the way of an append that is alone; but whatever arrives
//! meanwhile waits for it. Invariant: a disk that was slow once does not hold up the raft thread again for the writes that follow.

use std::time::Duration;

/// A write that took longer costs more than two wakes.
const FAST: Duration = Duration::from_millis(2);
/// After one that did, so many writes go to the disk's thread.
const SLOW_WRITES: u32 = 64;

/// How fast the disk has been.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// So many writes more go to the disk's thread.
    slow: u32,
}

impl Pace {
    /// Whether the next write is worth waiting for.
    pub(crate) fn is_fast(&mut self) -> bool {
        let fast = self.slow == 0;
        self.slow = self.slow.saturating_sub(1);
        fast
    }

    /// A write that was waited for took so long.
    pub(crate) fn see(&mut self, took: Duration) {
        if took > FAST {
            self.slow = SLOW_WRITES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_write_sends_the_next_ones_elsewhere() {
        let mut pace = Pace::default();
        assert!(pace.is_fast());
        pace.see(FAST);
        assert!(pace.is_fast());
        pace.see(FAST + Duration::from_nanos(1));
        for _ in 0..SLOW_WRITES {
            assert!(!pace.is_fast());
        }
        assert!(pace.is_fast());
    }
}
