//! The thread that reads a machine's state for a snapshot, while the machine goes on applying and the raft thread deciding.
//!
//! It is started for a snapshot and ends with it. Invariants: at most one piece is asked for at a time, so one is in memory;
//! each is told to the raft thread, whatever becomes of it; the raft thread waits for none but when the node ends.

use crate::shared::lock;
use bytes::Bytes;
use kontiki_node::{MachineError, machine::Source};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};
use tokio::sync::Notify;

/// What came of reading a piece.
type Piece = (Source, Result<Option<Bytes>, MachineError>);

/// The raft thread's end of it.
#[derive(Debug)]
pub(crate) struct Reading {
    /// `None` while no state is being read.
    sources: Option<Sender<Source>>,
    common: Arc<Common>,
    /// Those that have not ended yet.
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
    done: Mutex<Vec<Piece>>,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
}

impl Common {
    fn tell(&self, piece: Piece) {
        lock(&self.done).push(piece);
        self.signal.notify_one();
    }
}

impl Reading {
    pub(crate) fn new(signal: Arc<Notify>) -> Self {
        let done = Mutex::default();
        Self {
            sources: None,
            common: Arc::new(Common { done, signal }),
            threads: Vec::new(),
        }
    }

    /// Has the next piece read.
    pub(crate) fn read(&mut self, source: Source) {
        if let Some(sources) = &self.sources {
            // The thread ends only when this end is dropped.
            let _ = sources.send(source);
            return;
        }
        self.threads.retain(|thread| !thread.is_finished());
        let (sources, to_read) = mpsc::channel();
        let common = self.common.clone();
        let started = thread::Builder::new()
            .name("kontiki-snapshot".into())
            .spawn(move || work(&to_read, &common));
        match started {
            Ok(thread) => {
                self.threads.push(thread);
                // It waits for this.
                let _ = sources.send(source);
                self.sources = Some(sources);
            }
            Err(error) => {
                let error = MachineError::new(format!("cannot start a thread: {error}"));
                self.common.tell((source, Err(error)));
            }
        }
    }

    /// What was read since.
    pub(crate) fn done(&mut self) -> Vec<Piece> {
        let done = std::mem::take(&mut *lock(&self.common.done));
        if done.iter().any(|(_, piece)| !matches!(piece, Ok(Some(_)))) {
            self.end();
        }
        done
    }

    /// No more is wanted of what is being read: its thread ends, without anybody waiting for that.
    pub(crate) fn end(&mut self) {
        self.sources = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            // Reading gives a panic of the source as an error.
            let _ = thread.join();
        }
    }
}

fn work(to_read: &Receiver<Source>, common: &Common) {
    for mut source in to_read {
        let piece = source.read();
        common.tell((source, piece));
    }
}
