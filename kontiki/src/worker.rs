//! The thread that applies: the state machine runs here, so that a slow command holds up neither votes nor the log.
//!
//! Invariants: tasks are done one after the other, in the order that [`enqueue`] makes; what is done is told in that order, and
//! the raft thread is woken once for all that has piled up; a panic anywhere in the machine is told like any other failure, and
//! nothing is done after it. Dropping the worker ends its thread: what was not begun is not done.

use crate::{Error, jobs::Jobs, shared::lock, turns::panic_text};
use kontiki_node::encoding::MACHINE_STACK_BYTES;
use kontiki_node::machine::{Applier, Done, MachineError, Task, enqueue};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread,
};
use tokio::sync::Notify;

/// Makes the applier, on the node's own thread.
pub(crate) type MakeApplier = Box<dyn FnOnce() -> Result<Applier, MachineError> + Send>;

/// The raft thread's end of it.
#[derive(Debug)]
pub(crate) struct Worker {
    common: Arc<Common>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
    tasks: Jobs<Task>,
    done: Mutex<Vec<Done>>,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
}

impl Worker {
    /// Begins to work.
    pub(crate) fn start(applier: Applier, signal: Arc<Notify>) -> Result<Self, Error> {
        let common = Arc::new(Common {
            tasks: Jobs::default(),
            done: Mutex::default(),
            signal,
        });
        let own = common.clone();
        let thread = thread::Builder::new()
            .name("kontiki-apply".into())
            .stack_size(MACHINE_STACK_BYTES)
            .spawn(move || work(applier, &own))
            .map_err(|error| Error::Io(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            common,
            thread: Some(thread),
        })
    }

    /// Hands a task over.
    pub(crate) fn give(&self, task: Task) {
        // A worker that does nothing any more has told why.
        let tasks = &self.common.tasks;
        tasks.change(|queue| enqueue(queue, task, |task| task.query().is_some()));
    }

    /// Takes queries back that are not begun.
    pub(crate) fn withdraw(&self, queries: &[u64]) {
        let stays = |task: &Task| task.query().is_none_or(|query| !queries.contains(&query));
        self.common.tasks.change(|queue| queue.retain(stays));
    }

    /// What was done since.
    pub(crate) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut *lock(&self.common.done))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.common.tasks.end();
        if let Some(thread) = self.thread.take() {
            // It panics at most while it drops the machine, when nothing depends on it any more.
            let _ = thread.join();
        }
    }
}

fn work(mut applier: Applier, common: &Common) {
    while let Some(task) = common.tasks.next() {
        let done = catch_unwind(AssertUnwindSafe(|| applier.run(task))).unwrap_or_else(|panic| {
            Done::Failed(MachineError::new(format!("it panicked: {}", panic_text(&*panic))))
        });
        let failed = matches!(done, Done::Failed(_));
        let mut told = lock(&common.done);
        let first = told.is_empty();
        told.push(done);
        drop(told);
        if first {
            common.signal.notify_one();
        }
        if failed {
            return;
        }
    }
}
