//! How long to wait before dialing again: doubling, with jitter, so that a cluster does not dial in step.

use std::time::Duration;

/// The waits between attempts to reach one peer.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            next: min,
            random: seed,
        }
    }

    /// Begins anew: the peer was reached.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next wait: between half of what it has grown to and all of it.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        let half = whole / 2;
        half + half.mul_f64(self.fraction())
    }

    /// A number between zero and one (SplitMix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_within_bounds_and_begin_anew() {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(1000));
        let mut backoff = Backoff::new(min, max, 7);
        let waits: Vec<Duration> = (0..12).map(|_| backoff.wait()).collect();
        for (n, wait) in waits.iter().enumerate() {
            let whole = (min * (1 << n.min(8))).min(max);
            assert!(*wait >= whole / 2 && *wait <= whole, "wait {n}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= min);
    }

    #[test]
    fn two_seeds_do_not_dial_in_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), seed);
            (0..4).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
