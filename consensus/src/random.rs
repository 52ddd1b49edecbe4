//! Chance that can be repeated: every draw follows from the seed (SplitMix64).

use crate::{Duration, SuspectMark};

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A fresh mark: it equals an earlier one with a probability of 2^-64.
    pub(crate) fn mark(&mut self) -> SuspectMark {
        SuspectMark(self.next().max(1))
    }

    /// A duration from `min` on, below `max`.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.0.saturating_sub(min.0).max(1);
        Duration(min.0.saturating_add(self.next() % span))
    }
}
