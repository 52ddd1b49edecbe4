//! Chance that can be repeated: everything a run does follows from its seed.
//!
//! Xoshiro256** seeded through SplitMix64, integers only, so that a seed means the same on every
//! machine. Invariant: each part of the simulator draws from a stream of its own ([`Random::fork`]),
//! so that one more draw in the network does not change what the disks do.

use kontiki_consensus::Duration;

/// A chance in parts of a million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ppm(pub u32);

impl Ppm {
    /// So many per cent.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 10_000)
    }
}

/// A stream of draws.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut s = seed;
        Self {
            state: std::array::from_fn(|_| split_mix(&mut s)),
        }
    }

    /// A stream of its own, told apart by `label`.
    pub fn fork(&mut self, label: u64) -> Self {
        Self::new(self.draw() ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`; zero if the bound is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A place in a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from `min` to `max`, both included.
    pub fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.below(max.saturating_sub(min) + 1)
    }

    /// A number from `min` to `max` where every order of magnitude is as likely as every other.
    pub fn magnitude(&mut self, min: u64, max: u64) -> u64 {
        let min = min.max(1);
        let doublings = (max / min).max(1).ilog2();
        let low = min << self.below(u64::from(doublings) + 1);
        self.between(low, (low.saturating_mul(2)).min(max).max(low))
    }

    /// Whether something of this chance happens.
    pub fn chance(&mut self, chance: Ppm) -> bool {
        chance.0 > 0 && self.below(1_000_000) < u64::from(chance.0)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    /// A duration around `mean`: mostly near it, at times much longer.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let nanos = self.between(mean.0 / 2, mean.0 + mean.0 / 2);
        Duration(if self.below(16) == 0 { nanos * 6 } else { nanos })
    }

    /// One of these; `None` of an empty list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.place(list.len()))
    }

    /// Puts a list in a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            list.swap(n, self.place(n + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draws = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let seen: Vec<u64> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!(seen.iter().min(), Some(&3));
        assert_eq!(seen.iter().max(), Some(&6));
        assert!((0..1000).all(|_| (10..=1000).contains(&random.magnitude(10, 1000))));
    }
}
