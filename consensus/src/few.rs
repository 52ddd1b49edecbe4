//! Lists that mostly have one element: the runs of a message or of a write.
//!
//! Where little is going on there is one, and a list is made for each follower and each write. Invariant:
//! a list of one needs no memory of its own, unless it was longer before.

use ::core::{fmt, iter::Chain, mem, ops::Deref, option, slice};
use alloc::{vec, vec::Vec};

/// A list that reads as a slice. One element alone needs no memory for the list.
#[derive(Clone)]
pub struct Few<T>(List<T>);

#[derive(Clone)]
enum List<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(List::Many(Vec::new()))
    }

    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, one: T) {
        match &mut self.0 {
            List::Many(many) if many.capacity() > 0 => many.push(one),
            List::Many(_) => self.0 = List::One(one),
            List::One(_) => self.push_second(one),
        }
    }

    fn push_second(&mut self, second: T) {
        let mut many = Vec::with_capacity(4);
        many.extend(mem::take(self));
        many.push(second);
        self.0 = List::Many(many);
    }

    /// Moves all of `others` to the end; they become the list if it has none yet.
    pub fn append(&mut self, others: Self) {
        if self.is_empty() {
            *self = others;
        } else {
            let mut many = mem::take(self).into_vec();
            many.extend(others);
            self.0 = List::Many(many);
        }
    }

    /// Keeps the first `len`.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.0 {
            List::One(_) if len > 0 => {}
            List::One(_) => *self = Self::new(),
            List::Many(many) => many.truncate(len),
        }
    }

    /// The same as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            List::One(one) => vec![one],
            List::Many(many) => many,
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            List::One(one) => slice::from_ref(one),
            List::Many(many) => many,
        }
    }
}

impl<T> From<T> for Few<T> {
    #[inline]
    fn from(one: T) -> Self {
        Self(List::One(one))
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(many: Vec<T>) -> Self {
        Self(List::Many(many))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        Vec::from_iter(all).into()
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = Chain<option::IntoIter<T>, vec::IntoIter<T>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self.0 {
            List::One(one) => (Some(one), Vec::new()),
            List::Many(many) => (None, many),
        };
        one.into_iter().chain(many)
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_grew_in_any_way_is_what_a_vector_would_be() {
        let lengths = (0..4_usize).flat_map(|first| (0..4_usize).map(move |more| (first, more)));
        for (first, more, kept) in lengths.flat_map(|(f, m)| (0..9_usize).map(move |k| (f, m, k))) {
            let mut few = Few::new();
            (0..first).for_each(|n| few.push(n));
            let mut others = Few::new();
            (first..first + more).for_each(|n| others.push(n));
            few.append(others);
            let mut expected: Vec<usize> = (0..first + more).collect();
            assert_eq!(few[..], expected[..]);
            assert_eq!(few.clone().into_iter().collect::<Vec<_>>(), expected);
            few.truncate(kept);
            expected.truncate(kept);
            assert_eq!(few, Few::from(expected.clone()));
            assert_eq!(few.into_vec(), expected);
        }
    }
}
