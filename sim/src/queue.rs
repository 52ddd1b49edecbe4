//! Virtual time: what will happen, in the order in which it will.
//!
//! Invariant: events of the same instant come in the order in which they were scheduled, and time
//! never goes back.

use kontiki_consensus::Time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Scheduled<E>>,
    scheduled: u64,
    now: Time,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Time,
    order: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    /// The heap gives out its largest first: the earliest is the largest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            scheduled: 0,
            now: Time::ZERO,
        }
    }
}

impl<E> Queue<E> {
    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets an event happen at this time; at once if the time has passed.
    pub fn schedule(&mut self, at: Time, event: E) {
        let order = self.scheduled;
        self.scheduled += 1;
        self.heap.push(Scheduled {
            at: at.max(self.now),
            order,
            event,
        });
    }

    /// Lets time pass to `until`, once nothing is left that happens earlier.
    pub fn pass(&mut self, until: Time) {
        if self.heap.peek().is_none_or(|next| next.at >= until) {
            self.now = self.now.max(until);
        }
    }

    /// The next event that happens no later than `until`. Time moves on to it.
    pub fn next(&mut self, until: Time) -> Option<E> {
        if self.heap.peek()?.at > until {
            return None;
        }
        let next = self.heap.pop()?;
        self.now = next.at;
        Some(next.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_scheduled() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.schedule(Time(at), event);
        }
        let order: Vec<char> = std::iter::from_fn(|| queue.next(Time(5))).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        assert_eq!(queue.now(), Time(5));
    }

    #[test]
    fn nothing_happens_before_its_time() {
        let mut queue = Queue::default();
        queue.schedule(Time(9), ());
        assert_eq!(queue.next(Time(8)), None);
        assert_eq!(queue.next(Time(9)), Some(()));
    }
}
