//! The search for an order: depth first over what may come next, on a stack of its own.
//!
//! What may come next is what was called before the first return among all that is not ordered yet. Five
//! things keep it short, and none of them loses an order where there is one:
//! - a point is not visited twice ([`Seen`]);
//! - a value that is still to be met is not left if nothing brings it back ([`Values`]);
//! - what only observes and fits is ordered at once: put first, it changes nothing for the others;
//! - operations of unknown outcome that ask for the same are taken in the order of their calls, and only
//!   when nothing else helped;
//! - none is taken that changes nothing, or just before a blind write, which would undo it unseen.

use super::history::Operation;
use super::model::State;
use super::progress::{Progress, Seen};
use super::values::{Class, Known, Values, sorted};

/// What a search comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// There is an order: all operations that have returned, and those of the others that took effect, as
    /// places among those given.
    Order(Vec<usize>),
    /// There is none.
    None,
    /// The budget was used up.
    Undecided {
        /// How many steps were taken.
        steps: u64,
    },
}

/// Something that may come next, and what the key holds then.
#[derive(Clone, Copy, Debug)]
struct Choice {
    place: usize,
    what: What,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Known(usize),
    Unknown(usize),
}

/// A point on the way from nothing ordered to where the search stands.
#[derive(Debug)]
struct Frame {
    at: Progress,
    /// The place of the operation that led here; none at the root.
    came_by: Option<usize>,
    /// What is left to try here, the best last.
    choices: Vec<Choice>,
    /// Whether those of unknown outcome are among the choices, or were.
    with_unknown: bool,
}

/// The operations of one key, and how far the search has come.
#[derive(Debug)]
pub(super) struct Search {
    known: Vec<Known>,
    classes: Vec<Class>,
    values: Values,
    seen: Seen,
    steps: u64,
}

impl Search {
    /// A search for an order of these operations.
    pub(super) fn new(operations: &[Operation]) -> Self {
        let (known, classes) = sorted(operations);
        Self {
            values: Values::new(&known, &classes),
            known,
            classes,
            seen: Seen::default(),
            steps: 0,
        }
    }

    /// Searches until there is an order, or none can be, or `budget` steps are taken.
    pub(super) fn run(mut self, budget: u64) -> Found {
        let mut way = vec![self.frame(Progress::default(), None)];
        loop {
            let Some(top) = way.last_mut() else {
                return Found::None;
            };
            if top.at.ordered.len() == self.known.len() {
                return Found::Order(way.iter().filter_map(|frame| frame.came_by).collect());
            }
            if self.steps > budget {
                return Found::Undecided { steps: budget };
            }
            if let Some(choice) = top.choices.pop() {
                let next = Self::after(&top.at, choice);
                if !self.is_hopeless(top.at.state, &next) && self.seen.is_new(&next) {
                    way.push(self.frame(next, Some(choice.place)));
                }
            } else if top.with_unknown {
                way.pop();
            } else {
                top.with_unknown = true;
                self.add_unknown(top);
            }
        }
    }

    fn after(at: &Progress, choice: Choice) -> Progress {
        let mut next = Progress {
            state: choice.state,
            ..at.clone()
        };
        match choice.what {
            What::Known(n) => next.ordered = at.ordered.with(n),
            What::Unknown(class) => next.used = at.used.with(class),
        }
        next.by_unknown = matches!(choice.what, What::Unknown(_));
        next
    }

    /// Whether a step has left a state that somebody must still meet and that nothing brings back.
    fn is_hopeless(&self, left: State, next: &Progress) -> bool {
        next.state != left && self.values.is_lost(left, next, &self.known, &self.classes)
    }

    /// A point, with what may come next of known outcome: only the first that merely observes and fits, if
    /// there is one, else all that fits, in the order of returns.
    fn frame(&mut self, at: Progress, came_by: Option<usize>) -> Frame {
        let mut choices = Vec::new();
        let mut with_unknown = false;
        for n in self.candidates(&at) {
            let known = &self.known[n];
            self.steps += 1;
            if at.by_unknown && known.op.is_blind() {
                continue;
            }
            let Some(state) = known.fits(at.state) else {
                continue;
            };
            let choice = Choice {
                place: known.place,
                what: What::Known(n),
                state,
            };
            if known.op.only_observes(known.answer) {
                choices = vec![choice];
                with_unknown = true;
                break;
            }
            choices.push(choice);
        }
        let end = |choice: &Choice| match choice.what {
            What::Known(n) => self.known[n].end,
            What::Unknown(_) => u64::MAX,
        };
        choices.sort_by_key(|choice| std::cmp::Reverse(end(choice)));
        Frame {
            at,
            came_by,
            choices,
            with_unknown,
        }
    }

    /// What is of known outcome, not ordered yet, and was called before the first of these returned.
    fn candidates(&self, at: &Progress) -> Vec<usize> {
        let mut limit = u64::MAX;
        let mut found = Vec::new();
        for (n, known) in self.known.iter().enumerate().skip(at.ordered.first_missing()) {
            if known.call > limit {
                break;
            }
            if !at.ordered.contains(n) {
                limit = limit.min(known.end);
                found.push(n);
            }
        }
        found
    }

    /// Adds what may come next of unknown outcome.
    fn add_unknown(&mut self, frame: &mut Frame) {
        let at = &frame.at;
        let ends = self.candidates(at).into_iter().map(|n| self.known[n].end);
        let limit = ends.min().unwrap_or(u64::MAX);
        for (n, class) in self.classes.iter().enumerate() {
            let Some(&(call, place)) = class.calls.get(at.used.of(n)) else {
                continue;
            };
            if call > limit || at.by_unknown && class.op.is_blind() {
                continue;
            }
            self.steps += 1;
            let (state, _) = class.op.apply(at.state);
            if state != at.state {
                let what = What::Unknown(n);
                frame.choices.push(Choice { place, what, state });
            }
        }
    }
}
