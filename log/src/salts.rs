//! Where salts come from: a seed that is handed in, for there is no chance in this crate.
//!
//! Invariant: a salt is never told to anybody, so that from a seed that nobody can guess follow salts that nobody can guess.

use kontiki_consensus::SuspectMark;
use kontiki_wire::Salt;

/// The salts of the segments that one process begins (`SplitMix64`).
#[derive(Clone)]
pub struct Salts {
    state: u64,
}

impl Salts {
    /// The salts that follow from a seed: in production one that nobody can guess, drawn anew for each process.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A mark for a node that has lost something. It is told to other nodes: so only half of what two draws give.
    pub(crate) fn mark(&mut self) -> SuspectMark {
        let (high, low) = (self.draw().0 >> 32, self.draw().0 >> 32);
        SuspectMark((high << 32 | low).max(1))
    }

    /// The next one.
    pub(crate) fn draw(&mut self) -> Salt {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Salt(mixed ^ (mixed >> 31))
    }
}

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts(..)")
    }
}
