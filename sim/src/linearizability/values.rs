//! Which operations must meet which value, and which can bring it about: when a search leaves a value that
//! is still to be met and that nothing brings back in time, it need not go on.

use super::history::Operation;
use super::model::{Answer, Op, State};
use super::progress::Progress;
use std::collections::BTreeMap;

/// An operation that has returned.
#[derive(Debug)]
pub(super) struct Known {
    /// Its place among those given.
    pub(super) place: usize,
    /// What was asked.
    pub(super) op: Op,
    /// What was answered.
    pub(super) answer: Answer,
    /// When it was asked, in nanoseconds.
    pub(super) call: u64,
    /// When it returned, in nanoseconds.
    pub(super) end: u64,
}

impl Known {
    /// What it makes of a state, if it can have answered as it did.
    pub(super) fn fits(&self, state: State) -> Option<State> {
        let (next, answer) = self.op.apply(state);
        (answer == self.answer).then_some(next)
    }

    /// The one state in which it can have answered as it did; `None` if there are several.
    fn meets(&self) -> Option<State> {
        match self.op {
            Op::Get => Some(self.answer.out),
            Op::CompareAndSet { expect, .. } => self.answer.ok.then_some(expect),
            Op::Delete => (!self.answer.ok).then_some(None),
            // An increment to just what it adds may have met 0 or nothing.
            Op::Increment(by) => self
                .answer
                .out
                .filter(|sum| *sum != by)
                .map(|sum| Some(sum.wrapping_sub(by))),
            Op::Put(_) => None,
        }
    }

    /// The state that it leaves if it changes any.
    fn brings(&self) -> Option<State> {
        match self.op {
            Op::Put(value) => Some(Some(value)),
            Op::CompareAndSet { value, .. } => self.answer.ok.then_some(Some(value)),
            Op::Increment(_) => Some(self.answer.out),
            Op::Delete => self.answer.ok.then_some(None),
            Op::Get => None,
        }
    }
}

/// Operations of unknown outcome that ask for the same.
#[derive(Debug)]
pub(super) struct Class {
    /// What is asked.
    pub(super) op: Op,
    /// When each was called, in nanoseconds, and its place among those given; the earliest first.
    pub(super) calls: Vec<(u64, usize)>,
}

/// The operations of one key: those that have returned, by call, and the others by what they ask for.
pub(super) fn sorted(operations: &[Operation]) -> (Vec<Known>, Vec<Class>) {
    let mut known = Vec::new();
    let mut unknown: BTreeMap<Op, Vec<(u64, usize)>> = BTreeMap::new();
    for (place, operation) in operations.iter().enumerate() {
        let Operation { op, call, .. } = *operation;
        match operation.returned {
            Some(returned) => known.push(Known {
                place,
                op,
                answer: returned.answer,
                call,
                end: returned.at,
            }),
            None => unknown.entry(op).or_default().push((call, place)),
        }
    }
    known.sort_by_key(|known| known.call);
    let class = |(op, mut calls): (Op, Vec<_>)| {
        calls.sort_unstable();
        Class { op, calls }
    };
    (known, unknown.into_iter().map(class).collect())
}

/// Who has to do with one value.
#[derive(Default, Debug)]
struct Parties {
    /// Those known that must meet it, by call.
    meeting: Vec<usize>,
    /// Those known that leave it, by call.
    bringing: Vec<usize>,
    /// The classes that may leave it; those of increments apart.
    maybe: Vec<usize>,
}

/// Who has to do with each value.
#[derive(Debug)]
pub(super) struct Values {
    parties: BTreeMap<State, Parties>,
    /// The classes of increments, which may leave any value.
    increments: Vec<usize>,
}

impl Values {
    /// The values of these operations.
    pub(super) fn new(known: &[Known], classes: &[Class]) -> Self {
        let mut parties: BTreeMap<State, Parties> = BTreeMap::new();
        for (n, known) in known.iter().enumerate() {
            if let Some(value) = known.meets() {
                parties.entry(value).or_default().meeting.push(n);
            }
            if let Some(value) = known.brings() {
                parties.entry(value).or_default().bringing.push(n);
            }
        }
        let mut increments = Vec::new();
        for (n, class) in classes.iter().enumerate() {
            match class.op {
                Op::Put(value) | Op::CompareAndSet { value, .. } => {
                    parties.entry(Some(value)).or_default().maybe.push(n);
                }
                Op::Delete => parties.entry(None).or_default().maybe.push(n),
                Op::Increment(_) => increments.push(n),
                Op::Get => {}
            }
        }
        Self { parties, increments }
    }

    /// Whether an operation that is not ordered at `at` must meet `value`, which the key does not hold, and
    /// nothing that was called before it returned can bring `value` back.
    pub(super) fn is_lost(&self, value: State, at: &Progress, known: &[Known], classes: &[Class]) -> bool {
        let Some(parties) = self.parties.get(&value) else {
            return false;
        };
        let meeting = still_open(&parties.meeting, at);
        let Some(until) = meeting.map(|n| known[n].end).min() else {
            return false;
        };
        let time = Until {
            until,
            at,
            known,
            classes,
        };
        !time.may_bring(parties) && !self.adds_up(value, &self.increments, &time, &mut { SUMS })
    }

    /// Whether increments of unknown outcome, of these classes, may lead to `value` from another that may
    /// come, or from the present one. Gives in after so many sums.
    fn adds_up(&self, value: State, classes: &[usize], time: &Until<'_>, sums: &mut u32) -> bool {
        let (Some(sum), Some((class, others))) = (value, classes.split_first()) else {
            return false;
        };
        if self.adds_up(value, others, time, sums) {
            return true;
        }
        let Op::Increment(by) = time.classes[*class].op else {
            return true;
        };
        let mut before = sum;
        for _ in 0..time.left(*class) {
            let Some(fewer) = sums.checked_sub(1) else {
                return true;
            };
            *sums = fewer;
            before = before.wrapping_sub(by);
            if self.may_come(before, time) || self.adds_up(Some(before), others, time, sums) {
                return true;
            }
        }
        false
    }

    /// Whether an increment may meet what counts as this.
    fn may_come(&self, number: i64, time: &Until<'_>) -> bool {
        let is_or_comes = |state: State| {
            let parties = self.parties.get(&state);
            time.at.state == state || parties.is_some_and(|parties| time.may_bring(parties))
        };
        is_or_comes(Some(number)) || number == 0 && is_or_comes(None)
    }
}

/// How many sums of increments are tried before a value counts as possible.
const SUMS: u32 = 64;

/// What can still happen from a point on before a time.
struct Until<'a> {
    until: u64,
    at: &'a Progress,
    known: &'a [Known],
    classes: &'a [Class],
}

impl Until<'_> {
    /// How many of a class.
    fn left(&self, class: usize) -> usize {
        let calls = &self.classes[class].calls;
        let called = calls.partition_point(|(call, _)| *call <= self.until);
        called.saturating_sub(self.at.used.of(class))
    }

    /// Whether one of those who bring a value, increments of unknown outcome apart.
    fn may_bring(&self, parties: &Parties) -> bool {
        let next = still_open(&parties.bringing, self.at).next();
        next.is_some_and(|n| self.known[n].call <= self.until)
            || parties.maybe.iter().any(|class| self.left(*class) > 0)
    }
}

/// Those among these that are not ordered, by call.
fn still_open<'a>(among: &'a [usize], at: &'a Progress) -> impl Iterator<Item = usize> + 'a {
    let first = at.ordered.first_missing();
    let from = among.partition_point(|n| *n < first);
    among[from..].iter().copied().filter(|n| !at.ordered.contains(*n))
}
