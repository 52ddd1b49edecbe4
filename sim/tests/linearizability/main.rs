//! The linearizability checker: its verdicts on histories made by hand, the same against a checker that
//! tries every order of many small random ones, long histories, and histories as files.

mod by_hand;
mod files;
mod random;

use kontiki_sim::linearizability::{
    Answer, Counterexample, Op, Operation, Returned, STEPS_PER_KEY, State, Verdict, check,
};

const DONE: Answer = Answer::DONE;
const YES: Answer = Answer::did(true);
const NO: Answer = Answer::did(false);

fn cas(expect: State, value: i64) -> Op {
    Op::CompareAndSet { expect, value }
}

fn found(value: i64) -> Answer {
    Answer::found(Some(value))
}

/// An operation on key "a".
fn did(client: u64, call: u64, at: u64, op: Op, answer: Answer) -> Operation {
    Operation {
        returned: Some(Returned { at, answer }),
        ..unknown(client, call, op)
    }
}

/// An operation on key "a" of which nothing was heard.
fn unknown(client: u64, call: u64, op: Op) -> Operation {
    Operation {
        client,
        key: "a".to_owned(),
        op,
        call,
        returned: None,
    }
}

fn on(key: &str, operation: Operation) -> Operation {
    Operation {
        key: key.to_owned(),
        ..operation
    }
}

fn judged(operations: impl IntoIterator<Item = Operation>) -> Verdict {
    check(&operations.into_iter().collect(), STEPS_PER_KEY)
}

fn good(operations: impl IntoIterator<Item = Operation>) {
    let verdict = judged(operations);
    assert!(verdict.is_linearizable(), "{verdict}");
}

fn bad(operations: impl IntoIterator<Item = Operation>) -> Counterexample {
    match judged(operations) {
        Verdict::Violated(why) => *why,
        other => panic!("taken for {other}"),
    }
}
