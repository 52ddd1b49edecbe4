//! What every node goes through and what nodes say to each other, as JSON lines, so that another program can judge
//! whether that is Raft. `docs/SIMULATOR.md` describes each line.
//!
//! Invariants: lines stand in the order in which things happened, one number after the other, and what came of
//! something stands behind it. Each copy of a message ends in at most one line, `recv` or `drop`. To write them
//! changes nothing in the run, and where none are asked for none are made.

mod lines;
mod messages;

use crate::replica::Process;
use kontiki_consensus::{NodeId, Note, Time, Write as LogWrite, WriteId};
use kontiki_wire::PeerMessage;
use lines::{Line, Records, State, What, Written};
use messages::Message;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;

/// Names a message: the number of the line that says it was sent. Zero if nothing is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MessageId(u64);

/// A message on its way, or its repetition by the network.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copy {
    /// The message.
    pub id: MessageId,
    /// Whether the network made this one.
    pub again: bool,
}

/// Where transitions are written to; nowhere by default. A handle, so that it outlives a panic of the run.
#[derive(Clone, Default)]
pub struct Transitions {
    inner: Option<Rc<RefCell<Inner>>>,
}

struct Inner {
    out: Box<dyn Write>,
    seq: u64,
    turn: u64,
    in_turn: bool,
    /// What each node that is up last showed.
    shown: BTreeMap<NodeId, State>,
    failed: Option<io::Error>,
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transitions {{ is_on: {} }}", self.is_on())
    }
}

impl Transitions {
    /// Writes to `out`.
    #[must_use]
    pub fn to(out: Box<dyn Write>) -> Self {
        let inner = Inner {
            out,
            seq: 0,
            turn: 0,
            in_turn: false,
            shown: BTreeMap::new(),
            failed: None,
        };
        Self {
            inner: Some(Rc::new(RefCell::new(inner))),
        }
    }

    /// Whether anything is written.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Writes a line if lines are written. Gives its number, or zero.
    fn line(&self, now: Time, node: Option<NodeId>, what: impl FnOnce() -> What) -> u64 {
        let Some(inner) = &self.inner else { return 0 };
        inner.borrow_mut().line(now, node, what())
    }

    /// All that was written must be in the file.
    ///
    /// # Errors
    /// The first that came up while it was written.
    pub fn finish(&self) -> io::Result<()> {
        let Some(inner) = &self.inner else {
            return Ok(());
        };
        let mut inner = inner.borrow_mut();
        match inner.failed.take() {
            Some(error) => Err(error),
            None => inner.out.flush(),
        }
    }

    /// A process begins with the log that it has recovered, for the `life`th time.
    pub fn up(&self, now: Time, node: NodeId, life: u64, process: &Process) {
        let Some(inner) = &self.inner else { return };
        let state = State::of(process);
        inner.borrow_mut().shown.insert(node, state.clone());
        self.line(now, Some(node), || What::Up {
            life,
            state,
            log: log_of(process),
        });
    }

    /// A process is gone, with all that it only remembered.
    pub fn down(&self, now: Time, node: NodeId) {
        if let Some(inner) = &self.inner {
            inner.borrow_mut().shown.remove(&node);
        }
        self.line(now, Some(node), || What::Down {});
    }

    /// A node takes a turn: the lines until [`Self::ends_turn`] are of it.
    pub fn begins_turn(&self) {
        if let Some(inner) = &self.inner {
            let mut inner = inner.borrow_mut();
            inner.turn += 1;
            inner.in_turn = true;
        }
    }

    /// A node has decided, and this is what it shows now; nothing if it has stopped itself. What it says follows.
    pub fn decided(&self, now: Time, node: NodeId, process: &Process) {
        let Some(inner) = &self.inner else { return };
        let state = State::of(process);
        let mut inner = inner.borrow_mut();
        let changed = inner.shown.get(&node) != Some(&state);
        if changed && process.driver.stopped().is_none() {
            inner.shown.insert(node, state.clone());
            inner.line(now, Some(node), What::State(state));
        }
    }

    /// The turn is over.
    pub fn ends_turn(&self) {
        if let Some(inner) = &self.inner {
            inner.borrow_mut().in_turn = false;
        }
    }

    /// A node takes in that a write is on disk.
    pub fn persisted(&self, now: Time, node: NodeId, id: WriteId) {
        self.line(now, Some(node), || What::Persisted { id: id.0 });
    }

    /// A node hands a write to its log.
    pub fn writes(&self, now: Time, node: NodeId, write: &LogWrite) {
        self.line(now, Some(node), || What::Write(Written::from(write)));
    }

    /// A node notes something: a change of its role is written.
    pub fn notes(&self, now: Time, node: NodeId, note: &Note) {
        if let Note::Role { term, role, leader } = note {
            self.line(now, Some(node), || What::Role {
                term: term.0,
                role: lines::name_of(*role),
                leader: leader.map_or(0, |l| l.0),
            });
        }
    }

    /// A message leaves its node.
    pub fn sends(&self, now: Time, from: NodeId, to: NodeId, message: &PeerMessage) -> MessageId {
        MessageId(self.line(now, Some(from), || What::Send {
            msg: Message::of(from, to, message),
        }))
    }

    /// The network makes a second copy of a message.
    pub fn repeats(&self, now: Time, id: MessageId) {
        self.line(now, None, || What::Repeat { id: id.0 });
    }

    /// A node takes in a message.
    pub fn receives(&self, now: Time, copy: Copy, from: NodeId, to: NodeId, message: &PeerMessage) {
        self.line(now, Some(to), || What::Recv {
            id: copy.id.0,
            again: copy.again,
            msg: Message::of(from, to, message),
        });
    }

    /// A message is lost, for this reason.
    pub fn drops(
        &self,
        now: Time,
        copy: Copy,
        why: &'static str,
        (from, to): (NodeId, NodeId),
        message: &PeerMessage,
    ) {
        self.line(now, None, || What::Drop {
            id: copy.id.0,
            again: copy.again,
            why,
            msg: Message::of(from, to, message),
        });
    }
}

impl Inner {
    fn line(&mut self, now: Time, node: Option<NodeId>, what: What) -> u64 {
        self.seq += 1;
        let line = Line {
            seq: self.seq,
            us: now.0 / 1_000,
            turn: if self.in_turn { self.turn } else { 0 },
            node: node.map_or(0, |n| n.0),
            what,
        };
        let written = serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from);
        let written = written.and_then(|()| self.out.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
        self.seq
    }
}

/// Which records a node holds behind its base, as runs of one term.
fn log_of(process: &Process) -> Vec<Records> {
    let consensus = process.driver.consensus();
    let mut runs: Vec<Records> = Vec::new();
    let mut at = consensus.base().index.next();
    while let Some(term) = consensus.term_at(at).filter(|_| at <= consensus.last().index) {
        match runs.last_mut().filter(|run| run.term == term.0) {
            Some(run) => run.last = at.0,
            None => runs.push(Records::unknown(at, term)),
        }
        at = at.next();
    }
    runs
}
