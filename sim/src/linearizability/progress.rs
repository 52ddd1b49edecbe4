//! Where a search stands: which operations are ordered, and what the key holds after them.
//!
//! Invariant: two sets of the same operations are equal, whatever the order in which they were filled.

use super::model::State;
use std::collections::BTreeMap;

/// A set of numbers that fills up roughly from 0 on: all words before `full` are full, the last is not empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Ordered {
    full: usize,
    words: Vec<u64>,
    len: usize,
}

const WORD: usize = 64;

impl Ordered {
    /// How many numbers are in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a number is in it.
    pub(super) fn contains(&self, n: usize) -> bool {
        let Some(word) = (n / WORD).checked_sub(self.full) else {
            return true;
        };
        self.words
            .get(word)
            .is_some_and(|bits| bits >> (n % WORD) & 1 == 1)
    }

    /// The first number that is not in it.
    pub(super) fn first_missing(&self) -> usize {
        let within = self.words.first().map_or(0, |bits| bits.trailing_ones() as usize);
        self.full * WORD + within
    }

    /// The same with another number, which is not in it yet.
    #[must_use]
    pub(super) fn with(&self, n: usize) -> Self {
        let mut more = self.clone();
        let word = n / WORD - more.full;
        if more.words.len() <= word {
            more.words.resize(word + 1, 0);
        }
        more.words[word] |= 1 << (n % WORD);
        more.len += 1;
        let full = more.words.iter().take_while(|bits| **bits == u64::MAX).count();
        more.words.drain(..full);
        more.full += full;
        more
    }
}

/// How many operations of unknown outcome took effect, by class; classes of which none did are left out.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Used(Vec<(usize, usize)>);

impl Used {
    /// How many of a class.
    pub(super) fn of(&self, class: usize) -> usize {
        let place = self.0.binary_search_by_key(&class, |(class, _)| *class);
        place.map_or(0, |place| self.0[place].1)
    }

    /// The same with one more of a class.
    #[must_use]
    pub(super) fn with(&self, class: usize) -> Self {
        let mut more = self.clone();
        match more.0.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(place) => more.0[place].1 += 1,
            Err(place) => more.0.insert(place, (class, 1)),
        }
        more
    }

    /// Whether there are at most as many of every class as in `other`.
    fn within(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len() && self.0.iter().all(|(class, times)| *times <= other.of(*class))
    }
}

/// A point of the search.
#[derive(Clone, Default, Debug)]
pub(super) struct Progress {
    /// The operations of known outcome that are ordered.
    pub(super) ordered: Ordered,
    /// Those of unknown outcome that took effect.
    pub(super) used: Used,
    /// What the key holds now.
    pub(super) state: State,
    /// Whether the last operation ordered is one of unknown outcome.
    pub(super) by_unknown: bool,
}

/// The points that the search has been at.
#[derive(Default, Debug)]
pub(super) struct Seen(BTreeMap<(Ordered, State), Vec<Used>>);

impl Seen {
    /// Whether this point is worth a visit; remembers that it was visited. From a point with the same
    /// operations ordered and the same state, and no more effects of unknown outcome spent, everything can
    /// be reached that can be reached from here.
    pub(super) fn is_new(&mut self, at: &Progress) -> bool {
        let known = self.0.entry((at.ordered.clone(), at.state)).or_default();
        if known.iter().any(|used| used.within(&at.used)) {
            return false;
        }
        known.retain(|used| !at.used.within(used));
        known.push(at.used.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_the_same_in_whatever_order_it_was_filled() {
        let forwards = (0..200).fold(Ordered::default(), |set, n| set.with(n));
        let backwards = (0..200).rev().fold(Ordered::default(), |set, n| set.with(n));
        assert_eq!(forwards, backwards);
        assert_eq!((forwards.len(), forwards.first_missing()), (200, 200));
        assert!(forwards.contains(0) && forwards.contains(199) && !forwards.contains(200));
    }

    #[test]
    fn the_first_missing_number_holds_the_window() {
        let set = (0..300)
            .filter(|n| *n != 70)
            .fold(Ordered::default(), |set, n| set.with(n));
        assert_eq!((set.first_missing(), set.full, set.contains(70)), (70, 1, false));
        let set = set.with(70);
        assert_eq!((set.first_missing(), set.full, set.words.len()), (300, 4, 1));
    }

    #[test]
    fn a_point_that_spent_more_is_not_visited_again() {
        let mut seen = Seen::default();
        let spent = |classes: &[usize]| Progress {
            used: classes
                .iter()
                .fold(Used::default(), |used, class| used.with(*class)),
            ..Progress::default()
        };
        assert!(seen.is_new(&spent(&[1, 2])));
        assert!(!seen.is_new(&spent(&[2, 1])));
        assert!(!seen.is_new(&spent(&[1, 2, 2])));
        assert!(seen.is_new(&spent(&[2, 2])));
        assert!(seen.is_new(&spent(&[2])));
        assert!(!seen.is_new(&spent(&[1, 2])));
    }
}
