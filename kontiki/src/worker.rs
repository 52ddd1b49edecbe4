//! The thread that applies: the state machine runs here, so that a slow command holds up neither votes nor the log.
//!
//! Invariants: tasks are done one after the other, in the order given; what is done is told in that order, and the raft
//! thread is woken once for all that has piled up; a panic anywhere in the machine is told like any other failure, and
//! nothing is done after it. Dropping the worker ends its thread: what was not begun is not done.

use crate::{Error, shared::lock, turns::panic_text};
use kontiki_node::encoding::MACHINE_STACK_BYTES;
use kontiki_node::machine::{Applier, Done, MachineError, Task};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};
use tokio::sync::Notify;

/// Makes the applier, on the node's own thread.
pub(crate) type MakeApplier = Box<dyn FnOnce() -> Result<Applier, MachineError> + Send>;

/// The raft thread's end of it.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` once it is to end.
    tasks: Option<Sender<Task>>,
    common: Arc<Common>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
    done: Mutex<Vec<Done>>,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
    ending: AtomicBool,
}

impl Worker {
    /// Begins to work.
    pub(crate) fn start(applier: Applier, signal: Arc<Notify>) -> Result<Self, Error> {
        let common = Arc::new(Common {
            done: Mutex::default(),
            signal,
            ending: AtomicBool::new(false),
        });
        let (tasks, to_do) = mpsc::channel();
        let own = common.clone();
        let thread = thread::Builder::new()
            .name("kontiki-apply".into())
            .stack_size(MACHINE_STACK_BYTES)
            .spawn(move || work(applier, &to_do, &own))
            .map_err(|error| Error::Io(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            tasks: Some(tasks),
            common,
            thread: Some(thread),
        })
    }

    /// Hands a task over.
    pub(crate) fn give(&self, task: Task) {
        // A worker that takes nothing any more has told why.
        let _ = self.tasks.as_ref().map(|tasks| tasks.send(task));
    }

    /// What was done since.
    pub(crate) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut *lock(&self.common.done))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.common.ending.store(true, Ordering::Relaxed);
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // It panics at most while it drops the machine, when nothing depends on it any more.
            let _ = thread.join();
        }
    }
}

fn work(mut applier: Applier, to_do: &Receiver<Task>, common: &Common) {
    for task in to_do {
        if common.ending.load(Ordering::Relaxed) {
            return;
        }
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
