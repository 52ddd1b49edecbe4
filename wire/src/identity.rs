//! Who a node is: the three names that stand in every file and every handshake, and the life that a process of it lives.

use kontiki_consensus::{Incarnation, NodeId};
use std::{array, fmt};

/// A cluster's random name; survives a change of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A node of a cluster, in one life of its data directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node within it.
    pub node: NodeId,
    /// Drawn when the data directory was made.
    pub incarnation: Incarnation,
}

/// How many starts before its own a life remembers.
pub const EARLIER_STARTS: usize = 32;

/// Drawn at each start of a node. It tells two processes apart that run from copies of one data directory. Zero is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StartId(pub u64);

impl fmt::Display for StartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of a data directory: from a start of its node to the end of that process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Life {
    /// Rises by one with each start, from 1; 0 before the first.
    pub number: u64,
    /// This start.
    pub start: StartId,
    /// The starts before it, the latest first.
    pub earlier: [StartId; EARLIER_STARTS],
}

impl Life {
    /// The life that begins with this start, after this one.
    #[must_use]
    pub fn next(&self, start: StartId) -> Self {
        let before = |n: usize| n.checked_sub(1).map_or(self.start, |n| self.earlier[n]);
        Self {
            number: self.number + 1,
            start,
            earlier: array::from_fn(before),
        }
    }

    /// The start of the life with this number, in the past of this one; `None` if that is too long ago, or never was.
    #[must_use]
    pub fn start_of(&self, number: u64) -> Option<StartId> {
        let ago = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let start = match ago.checked_sub(1) {
            None => self.start,
            Some(n) => *self.earlier.get(n)?,
        };
        (start != StartId::default()).then_some(start)
    }
}

/// The life of a peer as another node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownLife {
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// Its number.
    pub number: u64,
    /// Its start.
    pub start: StartId,
}

impl KnownLife {
    /// A life as a peer tells of it.
    #[must_use]
    pub fn of(incarnation: Incarnation, life: &Life) -> Self {
        Self {
            incarnation,
            number: life.number,
            start: life.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_remembers_the_starts_before_it() {
        let mut life = Life::default();
        for n in 1..=40 {
            life = life.next(StartId(n * 10));
        }
        assert_eq!((life.number, life.start), (40, StartId(400)));
        assert_eq!(life.start_of(40), Some(StartId(400)));
        assert_eq!(life.start_of(39), Some(StartId(390)));
        assert_eq!(life.start_of(8), Some(StartId(80)));
        assert_eq!(life.start_of(7), None, "too long ago");
        assert_eq!(life.start_of(41), None, "yet to come");
        assert_eq!(
            Life::default().next(StartId(5)).start_of(0),
            None,
            "before the first"
        );
    }
}
