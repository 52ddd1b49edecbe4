//! What happened, as a hash that tells two runs apart and, if asked for, as lines to read.
//!
//! The hash is always kept; lines are made only in a replay, which gives the same run again. A trace
//! is a handle, so that what it holds outlives a panic of the run.

use crate::hash::Hash;
use kontiki_consensus::Time;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::rc::Rc;

/// How much of a run is kept to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Nothing: the hash only.
    Hash,
    /// The last so many lines.
    Last(usize),
    /// Every line, printed as it comes.
    Print,
}

#[derive(Debug)]
struct Inner {
    detail: Detail,
    hash: Hash,
    events: u64,
    lines: VecDeque<String>,
}

/// A handle on the trace of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    inner: Rc<RefCell<Inner>>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        let inner = Inner {
            detail,
            hash: Hash::default(),
            events: 0,
            lines: VecDeque::new(),
        };
        Self {
            inner: Rc::new(RefCell::new(inner)),
        }
    }

    /// Takes in an event: when, of what kind, and what tells it from others of its kind.
    pub fn event(&self, now: Time, kind: u64, detail: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.events += 1;
        inner.hash = inner.hash.with(now.0).with(kind ^ detail.rotate_left(8));
    }

    /// Keeps a line, if lines are kept.
    pub fn line(&self, now: Time, text: impl FnOnce() -> String) {
        let mut inner = self.inner.borrow_mut();
        match inner.detail {
            Detail::Hash => {}
            Detail::Last(most) => {
                let line = stamped(now, &text());
                if inner.lines.len() >= most {
                    inner.lines.pop_front();
                }
                inner.lines.push_back(line);
            }
            // Who reads it may have read enough: a closed pipe is no failure.
            Detail::Print => drop(writeln!(std::io::stdout(), "{}", stamped(now, &text()))),
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.borrow().hash.0
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner.borrow().events
    }

    /// The lines that were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner.borrow().lines.iter().cloned().collect()
    }
}

fn stamped(now: Time, text: &dyn fmt::Display) -> String {
    format!(
        "{:>3}.{:06} {text}",
        now.0 / 1_000_000_000,
        now.0 / 1_000 % 1_000_000
    )
}
