//! Small random histories against a checker that tries every order, and long ones.

use super::{DONE, bad, cas, did, found, good, judged, on, unknown};
use kontiki_sim::linearizability::{Answer, Op, Operation, Returned, State};
use std::collections::BTreeMap;

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn small(&mut self) -> i64 {
        self.below(3) as i64
    }

    fn state(&mut self) -> State {
        (!self.one_in(4)).then(|| self.small())
    }

    fn op(&mut self) -> Op {
        match self.below(8) {
            0 | 1 => Op::Put(self.small()),
            2..5 => Op::Get,
            5 => cas(self.state(), self.small()),
            6 => Op::Increment(1),
            _ => Op::Delete,
        }
    }

    fn answer(&mut self, op: Op) -> Answer {
        match op {
            Op::Put(_) => DONE,
            Op::Get => Answer::found(self.state()),
            Op::CompareAndSet { .. } | Op::Delete => Answer::did(self.one_in(2)),
            Op::Increment(_) => Answer::sum(self.small() + 1),
        }
    }

    /// An operation within `span` nanoseconds, on key "a".
    pub(super) fn operation(&mut self, span: u64) -> Operation {
        let call = self.below(span);
        let op = self.op();
        if self.one_in(4) {
            return unknown(0, call, op);
        }
        let at = call + self.below(span / 2);
        did(0, call, at, op, self.answer(op))
    }
}

/// Whether a sequence of operations explains itself; says nothing of times.
fn explains(order: &[&Operation]) -> bool {
    let mut holds: State = None;
    order.iter().all(|operation| {
        let before = holds;
        let answer = match operation.op {
            Op::Get => (true, before),
            Op::Put(value) => {
                holds = Some(value);
                (true, None)
            }
            Op::CompareAndSet { expect, value } => {
                holds = if before == expect { Some(value) } else { before };
                (before == expect, None)
            }
            Op::Increment(by) => {
                holds = Some(before.unwrap_or(0) + by);
                (true, holds)
            }
            Op::Delete => {
                holds = None;
                (before.is_some(), None)
            }
        };
        operation
            .returned
            .is_none_or(|r| (r.answer.ok, r.answer.out) == answer)
    })
}

fn respects_time(order: &[&Operation]) -> bool {
    let too_late = |n: usize| order[n + 1..].iter().any(|later| later.end() < order[n].call);
    !(0..order.len()).any(too_late)
}

/// Whether any order of `rest` after `order` will do.
fn any_permutation<'a>(order: &mut Vec<&'a Operation>, rest: &mut Vec<&'a Operation>) -> bool {
    if rest.is_empty() {
        return respects_time(order) && explains(order);
    }
    (0..rest.len()).any(|n| {
        order.push(rest.remove(n));
        let fits = any_permutation(order, rest);
        rest.insert(n, order.pop().expect("what was pushed"));
        fits
    })
}

/// Tries every order of every choice of unknown outcomes.
fn by_force(operations: &[Operation]) -> bool {
    let (known, unknown): (Vec<&Operation>, Vec<_>) = operations.iter().partition(|o| o.returned.is_some());
    (0_u32..1 << unknown.len()).any(|chosen| {
        let effective = unknown
            .iter()
            .enumerate()
            .filter(|(n, _)| chosen >> n & 1 == 1)
            .map(|(_, o)| *o);
        let mut rest: Vec<&Operation> = known.iter().copied().chain(effective).collect();
        any_permutation(&mut Vec::new(), &mut rest)
    })
}

#[test]
fn verdicts_are_those_of_trying_every_order() {
    let mut random = Random(1);
    let mut verdicts = [0, 0];
    for round in 0..6_000 {
        let (size, span) = (1 + random.below(6), 4 + random.below(12));
        let operations: Vec<Operation> = (0..size).map(|_| random.operation(span)).collect();
        let expected = by_force(&operations);
        let verdict = judged(operations.clone());
        assert_eq!(
            verdict.is_linearizable(),
            expected,
            "round {round}: {operations:?}: {verdict}"
        );
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|times| *times > 1_000), "{verdicts:?}");
}

/// A history of `size` operations on a few keys by 16 clients, each of which takes effect at some time
/// between its call and its return; one in `unknown` of them is never heard of again, if it is not 0.
fn long_history(random: &mut Random, size: u64, keys: u64, unknown: u64) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut effects = Vec::new();
    let mut free_at = [0_u64; 16];
    for n in 0..size {
        let client = random.below(16);
        let call = free_at[client as usize] + 1 + random.below(20);
        let effect = call + random.below(50);
        let at = effect + random.below(50);
        free_at[client as usize] = at;
        let op = match random.below(8) {
            0 | 1 => Op::Put(n as i64),
            2 => cas(Some(random.below(n + 1) as i64), n as i64),
            3 => Op::Increment(1),
            4 if random.one_in(4) => Op::Delete,
            _ => Op::Get,
        };
        let key = format!("key {}", random.below(keys));
        let lost = unknown > 0 && random.one_in(unknown);
        let returned = (!lost).then_some(Returned { at, answer: DONE });
        let operation = Operation {
            client,
            key,
            op,
            call,
            returned,
        };
        if !lost || random.one_in(2) {
            effects.push((effect, operations.len()));
        }
        operations.push(operation);
    }
    effects.sort_unstable();
    let mut states = BTreeMap::new();
    for (_, n) in effects {
        let operation = &mut operations[n];
        let state = states.entry(operation.key.clone()).or_insert(None);
        let (next, answer) = operation.op.apply(*state);
        *state = next;
        if let Some(returned) = &mut operation.returned {
            returned.answer = answer;
        }
    }
    operations
}

#[test]
fn long_histories_are_judged() {
    for (seed, keys, unknown) in [(1, 5, 0), (2, 5, 50), (3, 1, 100), (4, 10, 10)] {
        let operations = long_history(&mut Random(seed), 10_000, keys, unknown);
        good(operations);
    }
}

#[test]
fn one_wrong_answer_in_a_long_history_is_found() {
    for (seed, keys, unknown) in [(5, 5, 0), (6, 5, 50), (7, 1, 0)] {
        let mut operations = long_history(&mut Random(seed), 2_000, keys, unknown);
        let wrong = operations
            .iter_mut()
            .skip(1_000)
            .find(|o| o.op == Op::Get && o.returned.is_some());
        let wrong = wrong.expect("a get among 1,000 operations");
        wrong.returned.as_mut().expect("it has returned").answer = found(-1);
        let wrong = wrong.clone();
        let why = bad(operations);
        assert_eq!(why.culprit, wrong);
        assert!(why.window.len() < 100, "{} operations", why.window.len());
    }
}

#[test]
fn one_that_takes_the_whole_history_does_no_harm() {
    let mut operations = long_history(&mut Random(8), 2_000, 1, 0);
    operations.push(on("key 0", did(99, 0, u64::MAX - 1, Op::Put(-7), DONE)));
    good(operations);
}
