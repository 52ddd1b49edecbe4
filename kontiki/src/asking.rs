//! The thread that answers queries aside, from the state of one moment, while the machine goes on applying.
//!
//! It is started with the first query that a reader answers (`StateMachine::reader`). Invariants: each query that is given and
//! not taken back is answered, by the raft thread if there is no other; a slow one holds up other queries, and nothing else.

use crate::{jobs::Jobs, shared::lock};
use kontiki_node::encoding::MACHINE_STACK_BYTES;
use kontiki_node::machine::{Asked, Done};
use std::{
    sync::{Arc, Mutex},
    thread,
};
use tokio::sync::Notify;

/// The raft thread's end of it.
#[derive(Debug)]
pub(crate) struct Asking {
    common: Arc<Common>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
    queries: Jobs<Asked>,
    done: Mutex<Vec<Done>>,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
}

impl Common {
    fn tell(&self, done: Done) {
        let mut told = lock(&self.done);
        let first = told.is_empty();
        told.push(done);
        drop(told);
        if first {
            self.signal.notify_one();
        }
    }
}

impl Asking {
    pub(crate) fn new(signal: Arc<Notify>) -> Self {
        let common = Common {
            queries: Jobs::default(),
            done: Mutex::default(),
            signal,
        };
        Self {
            common: Arc::new(common),
            thread: None,
        }
    }

    /// Has a query answered.
    pub(crate) fn ask(&mut self, asked: Asked) {
        if self.thread.is_none() {
            self.start();
        }
        if self.thread.is_none() {
            // Without a thread of its own it is answered here.
            return self.common.tell(asked.answer());
        }
        self.common.queries.change(|queue| queue.push_back(asked));
    }

    /// Takes queries back that are not begun.
    pub(crate) fn withdraw(&self, queries: &[u64]) {
        let stays = |asked: &Asked| !queries.contains(&asked.token());
        self.common.queries.change(|queue| queue.retain(stays));
    }

    fn start(&mut self) {
        let common = self.common.clone();
        let started = thread::Builder::new()
            .name("kontiki-query".into())
            .stack_size(MACHINE_STACK_BYTES)
            .spawn(move || work(&common));
        match started {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::warn!("queries are answered on the raft thread: {error}"),
        }
    }

    /// What was answered since.
    pub(crate) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut *lock(&self.common.done))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.common.queries.end();
        if let Some(thread) = self.thread.take() {
            // A panic of a reader is an answer in words.
            let _ = thread.join();
        }
    }
}

fn work(common: &Common) {
    while let Some(asked) = common.queries.next() {
        common.tell(asked.answer());
    }
}
