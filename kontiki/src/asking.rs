//! The thread that answers queries aside, from the state of one moment, while the machine goes on applying.
//!
//! It is started with the first query that a reader answers (`StateMachine::reader`). Invariants: each query that is given is
//! answered, in words if there is no thread; a slow one holds up other queries, and nothing else.

use crate::shared::lock;
use kontiki_node::encoding::MACHINE_STACK_BYTES;
use kontiki_node::machine::{Asked, Done};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};
use tokio::sync::Notify;

/// The raft thread's end of it.
#[derive(Debug)]
pub(crate) struct Asking {
    queries: Option<Sender<Asked>>,
    common: Arc<Common>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
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
        let done = Mutex::default();
        Self {
            queries: None,
            common: Arc::new(Common { done, signal }),
            thread: None,
        }
    }

    /// Has a query answered.
    pub(crate) fn ask(&mut self, asked: Asked) {
        if self.queries.is_none() {
            self.start();
        }
        match &self.queries {
            // The thread ends only when this end is dropped.
            Some(queries) => drop(queries.send(asked)),
            // Without a thread of its own it is answered here.
            None => self.common.tell(asked.answer()),
        }
    }

    fn start(&mut self) {
        let (queries, to_answer) = mpsc::channel();
        let common = self.common.clone();
        let started = thread::Builder::new()
            .name("kontiki-query".into())
            .stack_size(MACHINE_STACK_BYTES)
            .spawn(move || work(&to_answer, &common));
        match started {
            Ok(thread) => (self.thread, self.queries) = (Some(thread), Some(queries)),
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
        self.queries = None;
        if let Some(thread) = self.thread.take() {
            // A panic of a reader is an answer in words.
            let _ = thread.join();
        }
    }
}

fn work(to_answer: &Receiver<Asked>, common: &Common) {
    for asked in to_answer {
        common.tell(asked.answer());
    }
}
