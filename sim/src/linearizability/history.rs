//! What clients asked and what they were told, recorded call by call and written as JSON lines.
//!
//! Invariant: of two events of a recorded history the later has the greater time. Where the simulator's
//! clock stands still between them, the later is put a nanosecond on, so that times alone give the order.

use super::model::{Answer, Op, State, shown};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, BufRead, Write};

/// An operation on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// The key.
    pub key: String,
    /// What was asked.
    pub op: Op,
    /// When it was asked, in nanoseconds.
    pub call: u64,
    /// When and with what it returned; `None` if the outcome is unknown.
    pub returned: Option<Returned>,
}

/// How an operation came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// When, in nanoseconds; not before the call.
    pub at: u64,
    /// What was answered.
    pub answer: Answer,
}

impl Operation {
    /// When it had taken effect at the latest, in nanoseconds: no limit if the outcome is unknown.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.returned.map_or(u64::MAX, |r| r.at)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} .. ", self.call)?;
        match self.returned {
            Some(Returned { at, .. }) => write!(f, "{at}]")?,
            None => f.write_str("?]")?,
        }
        write!(f, " client {}: {} -> ", self.client, self.op)?;
        match (self.returned, self.op) {
            (None, _) => f.write_str("unknown"),
            (Some(r), Op::Get | Op::Increment(_)) => f.write_str(&shown(r.answer.out)),
            (Some(r), _) => f.write_str(if r.answer.ok { "ok" } else { "no" }),
        }
    }
}

/// Names a call whose outcome is yet to be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallId(usize);

/// A history of operations on any number of keys.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct History {
    /// By call; those that surely did nothing are `None`.
    operations: Vec<Option<Operation>>,
    /// The time of the last event, in nanoseconds.
    last: Option<u64>,
}

impl History {
    /// Records that a client asks for something at `at` nanoseconds. Until told otherwise, the outcome is
    /// unknown.
    pub fn call(&mut self, client: u64, key: &str, op: Op, at: u64) -> CallId {
        let call = self.tick(at);
        self.operations.push(Some(Operation {
            client,
            key: key.to_owned(),
            op,
            call,
            returned: None,
        }));
        CallId(self.operations.len() - 1)
    }

    /// Records that a call was answered at `at` nanoseconds.
    ///
    /// # Panics
    /// If the operation cannot answer so, or its outcome was recorded before.
    pub fn returned(&mut self, call: CallId, answer: Answer, at: u64) {
        let at = self.tick(at);
        let open = self.open(call);
        assert!(open.op.can_answer(answer), "{} cannot answer {answer:?}", open.op);
        open.returned = Some(Returned { at, answer });
    }

    /// Records that a call surely did and will do nothing, and leaves it out.
    ///
    /// # Panics
    /// If its outcome was recorded before.
    pub fn failed(&mut self, call: CallId) {
        self.open(call);
        self.operations[call.0] = None;
    }

    /// The operations that did or may have done something, by call.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().flatten()
    }

    /// Writes the history as JSON lines.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for operation in self.operations() {
            serde_json::to_writer(&mut *out, &Line::from(operation))?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Reads a history from JSON lines, in any order; empty lines are passed over.
    ///
    /// # Errors
    /// With the line at fault, if the reader fails or the line is no operation as the module describes it.
    pub fn read(input: impl BufRead) -> Result<Self, HistoryError> {
        let mut operations: Vec<Operation> = Vec::new();
        for (n, line) in input.lines().enumerate() {
            let operation = line.map_err(|e| e.to_string()).and_then(|text| parse(&text));
            match operation {
                Ok(operation) => operations.extend(operation),
                Err(what) => return Err(HistoryError { line: n + 1, what }),
            }
        }
        Ok(operations.into_iter().collect())
    }

    fn tick(&mut self, at: u64) -> u64 {
        let at = self.last.map_or(at, |last| at.max(last.saturating_add(1)));
        self.last = Some(at);
        at
    }

    fn open(&mut self, call: CallId) -> &mut Operation {
        let operation = self.operations[call.0].as_mut();
        let open = operation.filter(|o| o.returned.is_none());
        open.expect("the outcome of a call is recorded once")
    }
}

/// Takes operations with their times as they are, in any order.
impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        let mut operations: Vec<Operation> = operations.into_iter().collect();
        operations.sort_by_key(|operation| operation.call);
        let latest = |o: &Operation| o.returned.map_or(o.call, |r| r.at);
        Self {
            last: operations.iter().map(latest).max(),
            operations: operations.into_iter().map(Some).collect(),
        }
    }
}

/// Why a file is no history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for HistoryError {}

/// An operation as a line has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u64,
    op: Name,
    key: String,
    value: Option<i64>,
    expect: State,
    call: u64,
    #[serde(rename = "return", default, skip_serializing_if = "Option::is_none")]
    returned: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    /// Outer `None`: not there; inner `None`: null.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    out: Option<State>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Put,
    Get,
    Cas,
    Increment,
    Delete,
}

fn there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<State>, D::Error> {
    State::deserialize(deserializer).map(Some)
}

impl From<&Operation> for Line {
    fn from(operation: &Operation) -> Self {
        let (op, value, expect) = match operation.op {
            Op::Put(value) => (Name::Put, Some(value), None),
            Op::Get => (Name::Get, None, None),
            Op::CompareAndSet { expect, value } => (Name::Cas, Some(value), expect),
            Op::Increment(by) => (Name::Increment, Some(by), None),
            Op::Delete => (Name::Delete, None, None),
        };
        Self {
            client: operation.client,
            op,
            key: operation.key.clone(),
            value,
            expect,
            call: operation.call,
            returned: operation.returned.map(|r| r.at),
            ok: operation.returned.map(|r| r.answer.ok),
            out: operation.returned.map(|r| r.answer.out),
        }
    }
}

impl Line {
    fn op(&self) -> Result<Op, String> {
        match (&self.op, self.value, self.expect) {
            (Name::Put, Some(value), None) => Ok(Op::Put(value)),
            (Name::Get, None, None) => Ok(Op::Get),
            (Name::Cas, Some(value), expect) => Ok(Op::CompareAndSet { expect, value }),
            (Name::Increment, Some(by), None) => Ok(Op::Increment(by)),
            (Name::Delete, None, None) => Ok(Op::Delete),
            _ => Err("this op takes another \"value\" or \"expect\"".to_owned()),
        }
    }

    fn returned(&self, op: Op) -> Result<Option<Returned>, String> {
        let (at, ok) = match (self.returned, self.ok, self.out) {
            (None, None, None) => return Ok(None),
            (Some(at), Some(ok), _) => (at, ok),
            _ => return Err("\"return\" and \"ok\" come together, and \"out\" only with them".to_owned()),
        };
        let answer = Answer {
            ok,
            out: self.out.flatten(),
        };
        if at < self.call {
            Err("it returns before it is called".to_owned())
        } else if at == u64::MAX {
            Err("it never returns".to_owned())
        } else if !op.can_answer(answer) {
            Err(format!("{op} cannot answer {answer:?}"))
        } else {
            Ok(Some(Returned { at, answer }))
        }
    }
}

fn parse(text: &str) -> Result<Option<Operation>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let op = line.op()?;
    let returned = line.returned(op)?;
    Ok(Some(Operation {
        client: line.client,
        key: line.key,
        op,
        call: line.call,
        returned,
    }))
}
