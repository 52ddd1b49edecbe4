//! What passes between the one who submits and the threads: jobs one way, answers the other.
//!
//! Invariants: a lock is held for moving a few words, never across a call of the system; nobody is woken who
//! is not asleep (a wake costs far more than what is handed over); nobody sleeps while there is
//! something for him.

use super::work::{Answer, Job};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nothing is left half done under these locks, so a poisoned one is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The jobs of one thread, in order.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    asleep: bool,
    stopped: bool,
}

impl Queue {
    /// Adds a job.
    pub(super) fn push(&self, job: Job) {
        self.change(|state| state.jobs.push_back(job));
    }

    /// Lets the thread end once it has done what was pushed before.
    pub(super) fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    fn change(&self, how: impl FnOnce(&mut Waiting)) {
        let mut state = locked(&self.state);
        how(&mut state);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Moves all jobs behind those in `jobs`, waiting for one if there is none in either; false if none will come.
    pub(super) fn take(&self, jobs: &mut VecDeque<Job>) -> bool {
        let mut state = locked(&self.state);
        while jobs.is_empty() && state.jobs.is_empty() && !state.stopped {
            state.asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        jobs.append(&mut state.jobs);
        !jobs.is_empty()
    }

    /// As [`Queue::glance`], but waits so long for a job.
    pub(super) fn rest(&self, time: Duration, jobs: &mut VecDeque<Job>) -> bool {
        let mut state = locked(&self.state);
        if state.jobs.is_empty() && !state.stopped {
            state.asleep = true;
            let waited = self.filled.wait_timeout(state, time);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        jobs.append(&mut state.jobs);
        !state.stopped
    }

    /// Moves all jobs behind those in `jobs` without waiting; false if none will come any more.
    pub(super) fn glance(&self, jobs: &mut VecDeque<Job>) -> bool {
        let mut state = locked(&self.state);
        jobs.append(&mut state.jobs);
        !state.stopped
    }
}

/// The answers of both threads, in the order in which they arose.
pub(super) struct Answers {
    state: Mutex<Untaken>,
    added: Condvar,
    /// Whether `state` holds any: looked at without the lock.
    any: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Untaken {
    answers: VecDeque<Answer>,
    /// The taker sleeps in [`Answers::wait`].
    asleep: bool,
}

impl Answers {
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            state: Mutex::default(),
            added: Condvar::new(),
            any: AtomicBool::new(false),
            wake,
        }
    }

    /// Adds an answer, and tells the taker unless he was told since he last fetched.
    pub(super) fn push(&self, answer: Answer) {
        let mut state = locked(&self.state);
        state.answers.push_back(answer);
        let told = self.any.swap(true, Ordering::Release);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.added.notify_one();
        }
        // The thread outlives a panic of the one it wakes: who waits for other answers must get them.
        if !told && catch_unwind(AssertUnwindSafe(|| (self.wake)())).is_err() {
            tracing::error!("whoever is woken by the disk has panicked");
        }
    }

    /// Moves all answers there are into `into`.
    pub(super) fn fetch(&self, into: &mut VecDeque<Answer>) {
        // A push not seen here calls `wake` after it, and its taker comes again.
        if self.any.load(Ordering::Acquire) {
            self.move_all(&mut locked(&self.state), into);
        }
    }

    /// As [`Answers::fetch`], but waits for the first.
    pub(super) fn wait(&self, into: &mut VecDeque<Answer>) {
        let mut state = locked(&self.state);
        while state.answers.is_empty() {
            state.asleep = true;
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.move_all(&mut state, into);
    }

    fn move_all(&self, state: &mut Untaken, into: &mut VecDeque<Answer>) {
        into.append(&mut state.answers);
        self.any.store(false, Ordering::Release);
    }
}
