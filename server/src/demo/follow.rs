//! `tail` in the demo: prints entries as they are appended, while commands go on being read.

use super::cluster::Live;
use crate::output::{is_dumb, printable};
use futures_core::Stream;
use kontiki::{Entry, Raw, Tail};
use std::{
    future::poll_fn,
    io::{self, Write},
    pin::Pin,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// How long the end of the log is waited for when following ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long to wait before turning to another node.
const PAUSE: Duration = Duration::from_millis(100);

/// A task that prints entries.
pub(super) struct Follower {
    task: JoinHandle<()>,
    printed: watch::Receiver<u64>,
}

impl Follower {
    /// Prints from entry `from` on, from whichever node lives; `prompt` is shown again after each.
    pub(super) fn start(live: Live, from: u64, prompt: &'static str) -> Self {
        let (sender, printed) = watch::channel(from.saturating_sub(1));
        Self {
            task: tokio::spawn(follow(live, sender, prompt)),
            printed,
        }
    }

    /// Ends it, once everything up to entry `last` is printed.
    pub(super) async fn stop(mut self, last: u64) {
        // If the entries cannot be read in time, there is nothing to wait for.
        let _ = timeout(LAST_WORDS, self.printed.wait_for(|printed| *printed >= last)).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(live: Live, printed: watch::Sender<u64>, prompt: &'static str) {
    loop {
        for (_, handle) in live.all() {
            let from = *printed.borrow() + 1;
            print_all(handle.tail(from), &printed, prompt).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints until the node stops or standard output is gone.
async fn print_all(mut tail: Tail<Raw>, printed: &watch::Sender<u64>, prompt: &str) {
    while let Some(Ok(entry)) = poll_fn(|context| Pin::new(&mut tail).poll_next(context)).await {
        if print(&entry, prompt).is_err() {
            return;
        }
        printed.send_replace(entry.index);
    }
}

fn print(entry: &Entry<Raw>, prompt: &str) -> io::Result<()> {
    let erase = match prompt {
        "" => "",
        _ if is_dumb() => "\n",
        _ => "\r\x1b[K",
    };
    let mut out = io::stdout().lock();
    write!(
        out,
        "{erase}{}\t{}\n{prompt}",
        entry.index,
        printable(&entry.value.0)
    )?;
    out.flush()
}
