//! Those who read: what their answers take until they are taken, and who has given up.
//!
//! A client that does not take its answers must not keep others from theirs for long: where room is wanted, large answers
//! that were not taken within [`HELD_MAX`] are replaced by [`Refusal::Overloaded`].
//!
//! Invariants: an answer counts from before it is given until it is taken or given up; once the raft thread has asked for
//! room, the next answer that is taken wakes it; a read that is given up before it is answered is told to the raft thread
//! once, by its token, or found given up when the raft thread takes it in.

use crate::{answer::Given, shared::lock};
use kontiki_consensus::{Duration, Run, Time};
use kontiki_node::{Failure, Reply, Token};
use kontiki_wire::Refusal;
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// How long an answer may stand untaken while others wait for room.
const HELD_MAX: Duration = Duration::from_millis(250);

/// An answer of fewer bytes is not replaced: to watch each of them would cost more than they hold.
const LARGE_BYTES: usize = 4 << 10;

/// So many large answers are watched before those are sorted out that were taken.
const WATCHED_MIN: usize = 64;

/// Large answers, oldest first.
#[derive(Debug, Default)]
struct Watched {
    list: VecDeque<(Time, Given)>,
    /// How many there are to be when those are sorted out that were taken.
    sort_at: usize,
}

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
    watched: Mutex<Watched>,
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
            watched: Mutex::default(),
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

    /// An answer of so many bytes is about to be given now.
    pub(crate) fn watch(&self, bytes: usize, now: impl Fn() -> Time, given: impl Fn() -> Given) {
        if bytes < LARGE_BYTES {
            return;
        }
        let mut watched = lock(&self.watched);
        if watched.list.len() >= watched.sort_at {
            watched.list.retain(|(_, given)| !given.is_gone());
            watched.sort_at = WATCHED_MIN.max(2 * watched.list.len());
        }
        watched.list.push_back((now(), given()));
    }

    /// How many bytes of answers are not taken. If these are more than `most`, those go that were not taken for long, and the
    /// raft thread is woken once others are.
    pub(crate) fn held(&self, most: usize, now: Time) -> usize {
        let held = self.held.load(Ordering::SeqCst);
        if held <= most {
            return held;
        }
        self.drop_untaken(now);
        self.room_wanted.store(true, Ordering::SeqCst);
        self.held.load(Ordering::SeqCst)
    }

    fn drop_untaken(&self, now: Time) {
        let mut watched = lock(&self.watched);
        let is_late = |(since, given): &mut (Time, Given)| since.after(HELD_MAX) <= now || given.is_gone();
        while let Some((_, given)) = watched.list.pop_front_if(is_late) {
            let refusal = Reply::Failed(Failure::Refused(Refusal::Overloaded));
            if let Some(reply) = given.replace(refusal) {
                self.held.fetch_sub(bytes_of(&reply), Ordering::SeqCst);
            }
        }
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
    use crate::answer::{answer, tell_all};

    #[test]
    fn who_asks_for_room_is_told_of_the_next_that_is_taken_and_no_other() {
        let readers = Readers::new(Arc::default());
        readers.gives(10);
        readers.takes(1);
        assert!(!readers.room_made(), "nobody has asked");
        assert_eq!(readers.held(9, Time(0)), 9);
        readers.takes(1);
        assert!(!readers.room_made(), "there was room");
        assert_eq!(readers.held(7, Time(0)), 8);
        readers.takes(3);
        assert!(readers.room_made() && !readers.room_made());
        readers.takes(5);
        assert!(!readers.room_made(), "asked for once");
        assert_eq!(readers.held(0, Time(0)), 0);
    }

    #[test]
    fn who_does_not_take_large_answers_loses_them_once_others_wait() {
        let readers = Readers::new(Arc::default());
        let give = |at: u64, bytes: usize| {
            let (teller, listener) = answer();
            let answer = vec![0; bytes].into();
            let at_position = kontiki_consensus::Position(1);
            let reply = Reply::Answered {
                answer,
                at: at_position,
            };
            readers.gives(bytes);
            readers.watch(bytes, || Time(at), || teller.given());
            drop(tell_all([(teller, reply)].into_iter(), drop));
            listener
        };
        let mut small = give(0, LARGE_BYTES - 1);
        let mut old = give(0, LARGE_BYTES);
        let mut young = give(HELD_MAX.0, LARGE_BYTES);
        let all = 3 * LARGE_BYTES - 1;
        assert_eq!(readers.held(all, Time(HELD_MAX.0)), all, "there is room");
        assert_eq!(readers.held(0, Time(HELD_MAX.0)), all - LARGE_BYTES);
        assert!(matches!(
            old.take(),
            Some(Reply::Failed(Failure::Refused(Refusal::Overloaded)))
        ));
        for kept in [&mut small, &mut young] {
            assert!(matches!(kept.take(), Some(Reply::Answered { .. })));
        }
        let listeners: Vec<_> = (0..10 * WATCHED_MIN).map(|_| give(0, LARGE_BYTES)).collect();
        drop(listeners);
        drop(give(0, LARGE_BYTES));
        assert!(lock(&readers.watched).list.len() <= 20 * WATCHED_MIN);
        (0..WATCHED_MIN * 20).for_each(|_| drop(give(0, LARGE_BYTES)));
        assert!(lock(&readers.watched).list.len() <= WATCHED_MIN);
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
