//! The answers that a session remembers, by the client's numbers.
//!
//! A ring in the order of numbers in place of a tree: a client numbers its appends in order, so nearly every answer comes
//! behind all others and goes when it is the first. Invariant: numbers rise from front to back.

use crate::sessions::Stored;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, VecDeque};

/// Answers in the order of their numbers. To serde they are a map.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answers(VecDeque<(u64, Stored)>);

impl Answers {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u64, Stored)> {
        self.0.iter()
    }

    fn find(&self, sequence: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Stored> {
        self.0.get(self.find(sequence).ok()?).map(|(_, stored)| stored)
    }

    /// Puts an answer where it belongs; gives back the one that had this number.
    pub(crate) fn insert(&mut self, sequence: u64, stored: Stored) -> Option<Stored> {
        if self.0.back().is_none_or(|(last, _)| *last < sequence) {
            self.0.push_back((sequence, stored));
            return None;
        }
        match self.find(sequence) {
            Ok(at) => {
                let place = self.0.get_mut(at)?;
                Some(std::mem::replace(&mut place.1, stored))
            }
            Err(at) => {
                self.0.insert(at, (sequence, stored));
                None
            }
        }
    }

    /// Takes the lowest.
    pub(crate) fn pop_first(&mut self) -> Option<(u64, Stored)> {
        self.0.pop_front()
    }

    /// Takes the lowest, if it is below this.
    pub(crate) fn pop_below(&mut self, sequence: u64) -> Option<Stored> {
        let (_, stored) = self.0.pop_front_if(|(first, _)| *first < sequence)?;
        Some(stored)
    }
}

impl Serialize for Answers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(sequence, stored)| (sequence, stored)))
    }
}

impl<'de> Deserialize<'de> for Answers {
    /// Whatever order they come in.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::deserialize(deserializer)?;
        Ok(Self(map.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(index: u64) -> Stored {
        Stored {
            index,
            term: 1,
            first: index,
            count: 1,
            outputs: bytes::Bytes::new(),
        }
    }

    #[test]
    fn they_are_a_map_also_where_numbers_come_out_of_order() {
        let (mut answers, mut map) = (Answers::default(), BTreeMap::new());
        for (n, sequence) in [5, 7, 6, 9, 6, 2, 20, 5].into_iter().enumerate() {
            let before = answers.insert(sequence, stored(n as u64));
            assert_eq!(before, map.insert(sequence, stored(n as u64)));
        }
        assert_eq!(answers.len(), map.len());
        assert!((0..30).all(|sequence| answers.get(sequence) == map.get(&sequence)));
        let bytes = postcard::to_stdvec(&answers).expect("bytes");
        assert_eq!(bytes, postcard::to_stdvec(&map).expect("bytes"));
        assert_eq!(postcard::from_bytes::<Answers>(&bytes).expect("answers"), answers);
        assert_eq!(answers.pop_below(2), None);
        assert_eq!(answers.pop_below(6), map.remove(&2));
        assert_eq!(answers.pop_first(), map.pop_first());
        assert!(answers.iter().map(|(n, s)| (n, s)).eq(&map));
    }
}
