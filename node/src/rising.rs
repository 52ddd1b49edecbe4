//! Things by numbers that mostly rise: what a session is answered, and what of it is in flight.
//!
//! A ring in the order of numbers in place of a tree: a client numbers its appends in order, so nearly every one comes
//! behind all others, goes when it is the first, and stands as far from the first as their numbers say. Invariant: numbers
//! rise from front to back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, VecDeque};

/// Things in the order of their numbers. To serde they are a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rising<T>(VecDeque<(u64, T)>);

impl<T> Default for Rising<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Rising<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u64, T)> {
        self.0.iter()
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        let (Some((first, _)), Some((last, _))) = (self.0.front(), self.0.back()) else {
            return Err(0);
        };
        if number > *last {
            return Err(self.0.len());
        }
        // Where it stands if none is missing before it.
        let place = usize::try_from(number.wrapping_sub(*first)).unwrap_or(usize::MAX);
        if self.0.get(place).is_some_and(|(other, _)| *other == number) {
            return Ok(place);
        }
        self.0.binary_search_by_key(&number, |(number, _)| *number)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.0.get(self.find(number).ok()?).map(|(_, thing)| thing)
    }

    /// Puts a thing where it belongs; gives back the one that had this number.
    pub(crate) fn insert(&mut self, number: u64, thing: T) -> Option<T> {
        match self.find(number) {
            Ok(at) => {
                let place = self.0.get_mut(at)?;
                Some(std::mem::replace(&mut place.1, thing))
            }
            Err(at) => {
                self.0.insert(at, (number, thing));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let at = self.find(number).ok()?;
        self.0.remove(at).map(|(_, thing)| thing)
    }

    /// Takes the lowest.
    pub(crate) fn pop_first(&mut self) -> Option<(u64, T)> {
        self.0.pop_front()
    }

    /// Takes the lowest, if it is below this.
    pub(crate) fn pop_below(&mut self, number: u64) -> Option<T> {
        let (_, thing) = self.0.pop_front_if(|(first, _)| *first < number)?;
        Some(thing)
    }
}

impl<T: Serialize> Serialize for Rising<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(number, thing)| (number, thing)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rising<T> {
    /// Whatever order they come in.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::deserialize(deserializer)?;
        Ok(Self(map.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_map_also_where_numbers_come_out_of_order() {
        let (mut rising, mut map) = (Rising::default(), BTreeMap::new());
        for (n, number) in [5, 7, 6, 9, 6, 2, 20, 5, 21, 22, 23].into_iter().enumerate() {
            assert_eq!(rising.insert(number, n), map.insert(number, n));
        }
        let same = |rising: &Rising<usize>, map: &BTreeMap<u64, usize>| {
            assert_eq!((rising.len(), rising.is_empty()), (map.len(), map.is_empty()));
            assert!((0..30).all(|number| rising.get(number) == map.get(&number)));
            assert!(rising.iter().map(|(n, s)| (n, s)).eq(map));
        };
        same(&rising, &map);
        let bytes = postcard::to_stdvec(&rising).expect("bytes");
        assert_eq!(bytes, postcard::to_stdvec(&map).expect("bytes"));
        assert_eq!(
            postcard::from_bytes::<Rising<usize>>(&bytes).expect("numbers"),
            rising
        );
        assert_eq!(rising.pop_below(2), None);
        assert_eq!(rising.pop_below(6), map.remove(&2));
        for number in [21, 8, 9, 23, u64::MAX] {
            assert_eq!(rising.remove(number), map.remove(&number));
            same(&rising, &map);
        }
        assert_eq!(rising.pop_first(), map.pop_first());
        same(&rising, &map);
    }
}
