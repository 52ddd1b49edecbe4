//! Those who read: what their answers take until they are taken, and who has given up.
//!
//! Invariants: an answer counts from before it is given until it is taken or given up; once the raft thread has asked for
//! room, the next answer that is taken wakes it; a read that is given up before it is answered is told to the raft thread
//! once, by its token, or found given up when the raft thread takes it in.

use crate::shared::lock;
use kontiki_consensus::Run;
use kontiki_node::{Reply, Token};
use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// What the raft thread and those who read have in common. On lines of its own in the caches: it is written with each read.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Readers {
    /// Bytes of answers that were given and not taken.
    held: AtomicUsize,
    /// The raft thread waits for some to be taken.
    room_wanted: AtomicBool,
    /// Some were.
    room_made: AtomicBool,
    given_up: Mutex<Vec<Token>>,
    /// Some were, or some have given up.
    news: AtomicBool,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
}

impl Readers {
    pub(crate) fn new(signal: Arc<Notify>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            room_wanted: AtomicBool::new(false),
            room_made: AtomicBool::new(false),
            given_up: Mutex::default(),
            news: AtomicBool::new(false),
            signal,
        }
    }

    /// Answers of so many bytes are about to be given.
    pub(crate) fn gives(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    /// Answers of so many bytes were taken, or will not be.
    pub(crate) fn takes(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        // After the bytes: the raft thread looks at them again after it has asked.
        if self.room_wanted.load(Ordering::SeqCst) && self.room_wanted.swap(false, Ordering::SeqCst) {
            self.room_made.store(true, Ordering::Relaxed);
            self.news.store(true, Ordering::Release);
            self.signal.notify_one();
        }
    }

    /// How many bytes of answers are not taken. If these are more than `most`, the raft thread is woken once some are.
    pub(crate) fn held(&self, most: usize) -> usize {
        let held = self.held.load(Ordering::SeqCst);
        if held <= most {
            return held;
        }
        self.room_wanted.store(true, Ordering::SeqCst);
        self.held.load(Ordering::SeqCst)
    }

    /// Whether there is anything to hear of since this was last asked.
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Acquire)
    }

    /// Whether there is room that was asked for; said once.
    pub(crate) fn room_made(&self) -> bool {
        self.room_made.swap(false, Ordering::Relaxed)
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn gives_up(&self, token: Token) {
        let mut given_up = lock(&self.given_up);
        let first = given_up.is_empty();
        given_up.push(token);
        self.news.store(true, Ordering::Release);
        drop(given_up);
        if first {
            self.signal.notify_one();
        }
    }

    /// Whose answers nobody waits for any more, since this was last asked.
    pub(crate) fn given_up(&self) -> Vec<Token> {
        mem::take(&mut *lock(&self.given_up))
    }
}

/// How many bytes an answer to a read or a query holds.
pub(crate) fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Reply::Read { runs, .. } => runs.iter().map(Run::weight).sum(),
        Reply::Answered { answer, .. } => answer.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_room_is_told_of_the_next_that_is_taken_and_no_other() {
        let readers = Readers::new(Arc::default());
        readers.gives(10);
        readers.takes(1);
        assert!(!readers.room_made(), "nobody has asked");
        assert_eq!(readers.held(9), 9);
        readers.takes(1);
        assert!(!readers.room_made(), "there was room");
        assert_eq!(readers.held(7), 8);
        readers.takes(3);
        assert!(readers.room_made() && !readers.room_made());
        readers.takes(5);
        assert!(!readers.room_made(), "asked for once");
        assert_eq!(readers.held(0), 0);
    }

    #[test]
    fn who_has_given_up_is_told_once() {
        let readers = Readers::new(Arc::default());
        assert!(readers.given_up().is_empty());
        readers.gives_up(Token(1));
        readers.gives_up(Token(2));
        assert!(readers.has_news() && !readers.has_news());
        assert_eq!(readers.given_up(), [Token(1), Token(2)]);
        assert!(readers.given_up().is_empty());
    }
}
