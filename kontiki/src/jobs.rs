//! What a thread of a node has to do: a queue whose order others decide, and from which they may take things back.
//!
//! Invariants: the thread is woken only when it sleeps; once the queue has ended nothing is given out any more.

use crate::shared::lock;
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

/// The queue.
#[derive(Debug)]
pub(crate) struct Jobs<T> {
    state: Mutex<State<T>>,
    given: Condvar,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    ended: bool,
    /// The thread sleeps, and nobody has woken it.
    sleeps: bool,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                ended: false,
                sleeps: false,
            }),
            given: Condvar::new(),
        }
    }
}

impl<T> Jobs<T> {
    /// Changes the queue.
    pub(crate) fn change(&self, change: impl FnOnce(&mut VecDeque<T>)) {
        self.update(|state| change(&mut state.queue));
    }

    /// Nothing is given out any more, and what is left is dropped.
    pub(crate) fn end(&self) {
        self.update(|state| {
            state.queue.clear();
            state.ended = true;
        });
    }

    fn update(&self, update: impl FnOnce(&mut State<T>)) {
        let mut state = lock(&self.state);
        update(&mut state);
        let wakes = state.sleeps && (state.ended || !state.queue.is_empty());
        state.sleeps &= !wakes;
        drop(state);
        if wakes {
            self.given.notify_one();
        }
    }

    /// The first, once there is one; `None` once the queue has ended. For one thread.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = lock(&self.state);
        while state.queue.is_empty() && !state.ended {
            state.sleeps = true;
            state = self.given.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeps = false;
        if state.ended {
            None
        } else {
            state.queue.pop_front()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn what_is_given_is_done_in_order_and_what_is_taken_back_is_not() {
        let jobs = Jobs::default();
        jobs.change(|queue| queue.extend([1, 2, 3]));
        jobs.change(|queue| queue.retain(|job| *job != 2));
        assert_eq!((jobs.next(), jobs.next()), (Some(1), Some(3)));
        jobs.change(|queue| queue.push_back(4));
        jobs.end();
        assert_eq!(jobs.next(), None, "it has ended");
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_for_each_that_comes_and_for_the_end() {
        let jobs = Arc::new(Jobs::default());
        let done = Arc::new(Jobs::default());
        let (its_jobs, its_done) = (jobs.clone(), done.clone());
        let thread = thread::spawn(move || {
            while let Some(job) = its_jobs.next() {
                its_done.change(|queue| queue.push_back(job));
            }
        });
        for n in 0..1000 {
            jobs.change(|queue| queue.push_back(n));
            assert_eq!(done.next(), Some(n));
        }
        jobs.end();
        thread.join().unwrap();
    }
}
