//! Things by numbers that rise by one: what has a number is found by its distance from the lowest.
//!
//! A ring in place of a tree, since numbers are given in order and are taken out in nearly that order. Invariant: the first
//! place is never empty, so that it names the lowest number that is there. Memory is as large as the distance between the
//! lowest and the highest number, which whoever gives numbers bounds.

use std::collections::VecDeque;

/// Things by number.
#[derive(Clone, Debug)]
pub(crate) struct Window<T> {
    /// Number of the first place.
    first: u64,
    places: VecDeque<Option<T>>,
    count: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self {
            first: 0,
            places: VecDeque::new(),
            count: 0,
        }
    }
}

impl<T> Window<T> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lowest number.
    pub(crate) fn lowest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.first)
    }

    /// Adds a thing behind all others; false if its number is not above theirs.
    pub(crate) fn push(&mut self, number: u64, thing: T) -> bool {
        if self.places.is_empty() {
            self.first = number;
        }
        let end = self.first + self.places.len() as u64;
        if number < end {
            return false;
        }
        self.places.extend((end..number).map(|_| None));
        self.places.push_back(Some(thing));
        self.count += 1;
        true
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.places.get(self.place(number)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number)?;
        self.places.get_mut(place)?.as_mut()
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number)?;
        let thing = self.places.get_mut(place)?.take()?;
        self.count -= 1;
        while self.places.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        Some(thing)
    }

    /// Takes everything, in the order of numbers.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (u64, T)> + use<T> {
        let Self { first, places, .. } = std::mem::take(self);
        (first..)
            .zip(places)
            .filter_map(|(number, thing)| Some((number, thing?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn numbers_only_rise() {
        let mut window = Window::default();
        assert!(window.push(7, 'a'));
        assert!(!window.push(7, 'b') && !window.push(3, 'c'));
        assert!(window.push(9, 'd'));
        assert_eq!(window.remove(7), Some('a'));
        assert_eq!((window.lowest(), window.get(8), window.len()), (Some(9), None, 1));
        assert_eq!(window.take().collect::<Vec<_>>(), [(9, 'd')]);
        assert!(window.is_empty() && window.lowest().is_none());
    }

    #[test]
    fn it_does_what_a_map_does() {
        let mut chance = 1_u64;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 33) % below
        };
        let (mut window, mut map) = (Window::default(), BTreeMap::new());
        let mut next = 1;
        for _ in 0..10_000 {
            let number = next - draw(40).min(next);
            match draw(3) {
                0 => {
                    next += draw(3);
                    assert!(window.push(next, next));
                    map.insert(next, next);
                    next += 1;
                }
                1 => assert_eq!(window.remove(number), map.remove(&number)),
                _ => {
                    let lowest = window.lowest().unwrap_or(0);
                    assert_eq!(window.remove(lowest), map.remove(&lowest));
                }
            }
            assert_eq!(window.lowest(), map.first_key_value().map(|(n, _)| *n));
            assert_eq!((window.len(), window.is_empty()), (map.len(), map.is_empty()));
            assert_eq!(window.get(number), map.get(&number));
            assert_eq!(window.get_mut(number), map.get_mut(&number));
        }
        assert!(window.take().eq(map));
    }
}
