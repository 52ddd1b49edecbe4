//! Clients with sessions: each append gets through once or is given up, whoever leads and whatever is lost.
//!
//! They run the shipped [`SessionClient`], send again what has no answer, to any node, at times while the first is
//! still under way and at times long after it was answered, and fall silent at times for so long that their session
//! expires. Where there is a machine they change its keys and ask for them, and all that goes into a history.
//! Invariant: what one of them was told of an append is never contradicted by what another attempt is told.

use crate::checkers::appends::Acknowledgement;
use crate::checks::Checks;
use crate::entries::{self, EntryId};
use crate::linearizability::{Answer, CallId, History, Op};
use crate::machine::{self, KEYS};
use crate::random::{Ppm, Random};
use crate::sometimes::Sometimes;
use crate::swarm::{Habits, MachineKind};
use crate::violation::{Verdict, Violation, ensure};
use bytes::Bytes;
use kontiki_consensus::{Duration, Index, LogId, Time};
use kontiki_node::session::{SessionClient, Verdict as Outcome};
use kontiki_node::{Ask, Consistency, Failure, Reply};
use kontiki_wire::{Codec, Expect, Payload, Refusal};
use std::collections::BTreeMap;

/// The name of the property.
pub const PROPERTY: &str = "an append of a session takes effect once, and every attempt is answered alike";
/// How many appends of one client may have no answer.
const OPEN_MAX: usize = 6;
/// How far apart their numbers may be: far enough that a session with little room for answers forgets some of them.
const DISTANCE_MAX: usize = 1024;
/// How many answered appends a client may send once more.
const DONE_MAX: usize = 8;

/// What a client with a session wants to know or do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Open a session.
    Open,
    /// An attempt of an append.
    Append(Attempt),
    /// What a key holds.
    Get(CallId),
}

/// An attempt of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// Which of all appends.
    pub operation: u64,
    /// Its session.
    pub session: u64,
    /// Its number there.
    pub sequence: u64,
}

/// An append without an answer.
#[derive(Debug)]
struct Pending {
    operation: u64,
    call: Option<CallId>,
    /// How many attempts are under way.
    out: u32,
    /// How long somebody had led when it was first asked.
    asked: Duration,
}

/// An append that was answered.
#[derive(Debug)]
struct Done {
    operation: u64,
    ask: Ask,
    said: Acknowledgement,
    outputs: Option<Bytes>,
}

/// One client.
#[derive(Debug)]
struct Client {
    session: SessionClient,
    opening: bool,
    /// How long somebody had led when a session was last asked for.
    opening_asked: Duration,
    /// The same of the present session, or of the last append in it that took effect.
    active: Duration,
    /// Its session is over, or it has none yet.
    needs_session: bool,
    silent_until: Time,
    pending: BTreeMap<u64, Pending>,
    done: BTreeMap<(u64, u64), Done>,
}

/// All of them.
#[derive(Debug)]
pub struct SessionClients {
    random: Random,
    habits: Habits,
    machine: MachineKind,
    clients: Vec<Client>,
    history: History,
    values: i64,
}

impl SessionClients {
    /// As many as the habits say.
    #[must_use]
    pub fn new(random: Random, habits: Habits, machine: MachineKind) -> Self {
        let client = || Client {
            session: SessionClient::new(DISTANCE_MAX),
            opening: false,
            opening_asked: Duration(0),
            active: Duration(0),
            needs_session: true,
            silent_until: Time::ZERO,
            pending: BTreeMap::new(),
            done: BTreeMap::new(),
        };
        Self {
            random,
            habits,
            machine,
            clients: (0..habits.sessions).map(|_| client()).collect(),
            history: History::default(),
            values: 0,
        }
    }

    /// What the clients did to keys, and what they were told.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What a client asks now. `operations` counts all appends there are.
    pub fn ask(
        &mut self,
        n: usize,
        now: Time,
        operations: &mut u64,
        checks: &mut Checks,
    ) -> Vec<(Wish, Ask)> {
        let mut asks = Vec::new();
        if self.clients[n].silent_until > now {
            return asks;
        }
        if self.random.chance(Ppm::percent(1)) {
            let silence = Duration::from_millis(1_500 * u64::from(self.habits.limits.ttl));
            self.clients[n].silent_until = now.after(silence);
        }
        if self.clients[n].needs_session {
            let opening = std::mem::replace(&mut self.clients[n].opening, true);
            if !opening {
                self.clients[n].opening_asked = checks.ages.led(now);
                asks.push((Wish::Open, Ask::OpenSession));
            }
            return asks;
        }
        self.send_again(n, &mut asks);
        if self.machine != MachineKind::None && self.random.chance(Ppm::percent(30)) {
            asks.push(self.get(n, now));
        } else if self.clients[n].pending.len() < OPEN_MAX {
            asks.extend(self.append(n, now, operations, checks));
        }
        asks
    }

    /// Sends again what no attempt is under way of; at times what is; at times what was answered.
    fn send_again(&mut self, n: usize, asks: &mut Vec<(Wish, Ask)>) {
        let client = &mut self.clients[n];
        let Some(session) = client.session.session() else {
            return;
        };
        for (sequence, pending) in &mut client.pending {
            if pending.out > 0 && !self.random.chance(Ppm::percent(10)) {
                continue;
            }
            if pending.out > 0 {
                let silence = Reply::Failed(Failure::Unknown("there is no answer yet".into()));
                client.session.answered(*sequence, silence);
            }
            if let Some(ask) = client.session.retry(*sequence) {
                pending.out += 1;
                let attempt = Attempt {
                    operation: pending.operation,
                    session,
                    sequence: *sequence,
                };
                asks.push((Wish::Append(attempt), ask));
            }
        }
        let place = self.random.place(client.done.len().max(1));
        if let Some(((session, sequence), done)) = client.done.iter().nth(place)
            && self.random.chance(Ppm::percent(10))
        {
            let attempt = Attempt {
                operation: done.operation,
                session: *session,
                sequence: *sequence,
            };
            asks.push((Wish::Append(attempt), done.ask.clone()));
        }
    }

    fn get(&mut self, n: usize, now: Time) -> (Wish, Ask) {
        let key = self.random.below(KEYS) as u8;
        let call = self
            .history
            .call(n as u64, &machine::key_name(key), Op::Get, now.0);
        let ask = Ask::Query {
            query: vec![key].into(),
            consistency: if self.random.coin() {
                Consistency::Linearizable
            } else {
                Consistency::Lease
            },
        };
        (Wish::Get(call), ask)
    }

    fn append(
        &mut self,
        n: usize,
        now: Time,
        operations: &mut u64,
        checks: &mut Checks,
    ) -> Option<(Wish, Ask)> {
        *operations += 1;
        let id = EntryId {
            operation: *operations,
            part: 0,
        };
        let (entry, call) = if self.machine == MachineKind::None {
            let length = self.random.below(self.habits.entry_bytes_max as u64) as usize;
            (entries::encode(id, length), None)
        } else {
            let (key, op) = (self.random.below(KEYS) as u8, self.op());
            let call = self.history.call(n as u64, &machine::key_name(key), op, now.0);
            (entries::encode_op(id, key, op), Some(call))
        };
        let client = &mut self.clients[n];
        let session = client.session.session()?;
        let (sequence, ask) = client
            .session
            .append(Payload::one(entry, Codec::Bytes), Expect::Any)?;
        checks.appends.sent(id.operation, 1);
        let pending = Pending {
            operation: id.operation,
            call,
            out: 1,
            asked: checks.ages.led(now),
        };
        client.pending.insert(sequence, pending);
        let attempt = Attempt {
            operation: id.operation,
            session,
            sequence,
        };
        Some((Wish::Append(attempt), ask))
    }

    fn op(&mut self) -> Op {
        self.values += 1;
        let value = self.values * 1000;
        match self.random.below(8) {
            0..=2 => Op::Put(value),
            3 | 4 => Op::CompareAndSet {
                expect: self
                    .random
                    .coin()
                    .then(|| value - 1000 * self.random.between(1, 6) as i64),
                value,
            },
            5 | 6 => Op::Increment(self.random.between(1, 3) as i64),
            _ => Op::Delete,
        }
    }

    /// No answer will come: the node went down, or could not be reached at all.
    pub fn lost(&mut self, n: usize, wish: Wish, reached: bool) {
        let client = &mut self.clients[n];
        match wish {
            Wish::Open => client.opening = false,
            Wish::Get(call) => self.history.failed(call),
            Wish::Append(Attempt {
                session, sequence, ..
            }) => {
                let Some(pending) = client.pending.get_mut(&sequence) else {
                    return;
                };
                if client.session.session() == Some(session) {
                    pending.out -= 1;
                    let failure = if reached {
                        Failure::Unknown("the node went down".into())
                    } else {
                        Failure::NoLeader
                    };
                    client.session.answered(sequence, Reply::Failed(failure));
                }
            }
        }
    }

    /// A node answers.
    ///
    /// # Errors
    /// If the answer cannot be true. The number of appends that this acknowledges otherwise.
    pub fn answered(
        &mut self,
        n: usize,
        now: Time,
        wish: Wish,
        reply: Reply,
        checks: &mut Checks,
    ) -> Result<u64, Violation> {
        match (wish, reply) {
            (Wish::Open, Reply::SessionOpened { session, .. }) => {
                self.opened(n, session, checks)?;
                Ok(0)
            }
            (Wish::Open, Reply::Failed(_)) => {
                self.clients[n].opening = false;
                Ok(0)
            }
            (Wish::Get(call), Reply::Answered { answer, .. }) => {
                let answer =
                    machine::decode(&answer).ok_or_else(|| wrong("a get was answered with no answer"))?;
                self.history.returned(call, answer, now.0);
                Ok(0)
            }
            (Wish::Get(call), Reply::Failed(_)) => {
                self.history.failed(call);
                Ok(0)
            }
            (Wish::Append(attempt), reply @ (Reply::Appended { .. } | Reply::Failed(_))) => {
                self.append_answered(n, now, attempt, reply, checks)
            }
            (wish, reply) => Err(wrong(&format!("{wish:?} was answered with {reply:?}"))),
        }
    }

    /// A session takes the place of the last one: what has no answer there is given up.
    fn opened(&mut self, n: usize, session: u64, checks: &mut Checks) -> Verdict {
        let client = &mut self.clients[n];
        client.opening = false;
        client.active = client.opening_asked;
        client.needs_session = false;
        for (sequence, in_doubt) in client.session.opened(session) {
            let Some(pending) = client.pending.remove(&sequence) else {
                continue;
            };
            if in_doubt || pending.out > 0 {
                checks.appends.unknown(pending.operation);
                continue;
            }
            if let Some(call) = pending.call {
                self.history.failed(call);
            }
            checks.appends.not_applied(pending.operation)?;
        }
        Ok(())
    }

    fn append_answered(
        &mut self,
        n: usize,
        now: Time,
        attempt: Attempt,
        reply: Reply,
        checks: &mut Checks,
    ) -> Result<u64, Violation> {
        let client = &mut self.clients[n];
        let key = (attempt.session, attempt.sequence);
        let said = acknowledgement(&reply);
        if let Some((said, outputs)) = &said {
            if let Some(done) = client.done.get(&key) {
                done.agrees(*said, outputs)?;
                return Ok(0);
            }
            checks
                .appends
                .acknowledged(attempt.operation, *said, &checks.committed)?;
        }
        if client.session.session() != Some(attempt.session) {
            return Ok(0);
        }
        let Some(pending) = client.pending.get_mut(&attempt.sequence) else {
            return Ok(0);
        };
        pending.out -= 1;
        let asked = pending.asked;
        client.lives(asked, &reply, now, self.habits.limits.ttl, checks)?;
        let ask = client.session.retry(attempt.sequence);
        let outcome = client.session.answered(attempt.sequence, reply);
        if matches!(outcome, None | Some(Outcome::Retry)) {
            return Ok(0);
        }
        let call = client.pending.remove(&attempt.sequence).and_then(|p| p.call);
        match (outcome, said, ask) {
            (Some(Outcome::Final(_)), Some((said, outputs)), Some(ask)) => {
                if let (Some(call), Some(outputs)) = (call, &outputs) {
                    self.history.returned(call, answer_of(outputs)?, now.0);
                }
                let done = Done {
                    operation: attempt.operation,
                    ask,
                    said,
                    outputs,
                };
                client.done.insert(key, done);
                while client.done.len() > DONE_MAX {
                    client.done.pop_first();
                }
                Ok(1)
            }
            (Some(Outcome::InDoubt(_)), ..) => {
                checks.counters.hit(Sometimes::SessionDoubt);
                checks.appends.unknown(attempt.operation);
                Ok(0)
            }
            _ => {
                if let Some(call) = call {
                    self.history.failed(call);
                }
                checks.appends.not_applied(attempt.operation)?;
                Ok(0)
            }
        }
    }
}

impl Client {
    /// An attempt of an append that was asked then got this answer: its session goes on, or is over.
    fn lives(&mut self, asked: Duration, reply: &Reply, now: Time, ttl: u32, checks: &mut Checks) -> Verdict {
        match reply {
            Reply::Appended { .. } => self.active = self.active.max(asked),
            Reply::Failed(Failure::Refused(Refusal::SessionExpired)) => {
                checks.counters.hit(Sometimes::SessionExpired);
                self.needs_session = true;
                checks.ages.session_ended(now, self.active, ttl)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Done {
    fn agrees(&self, said: Acknowledgement, outputs: &Option<Bytes>) -> Verdict {
        // An output may be forgotten by the time an attempt is answered; it is never another.
        let both = self.outputs.as_ref().zip(outputs.as_ref());
        let alike = self.said == said && both.is_none_or(|(one, other)| one == other);
        ensure(alike, PROPERTY, || {
            format!(
                "it was answered {:?} {:?}, and then {said:?} {outputs:?}",
                self.said, self.outputs
            )
        })
    }
}

/// What the machine has answered to a change of a key: it answers every one.
fn answer_of(outputs: &[u8]) -> Result<Answer, Violation> {
    machine::decode(outputs).ok_or_else(|| wrong(&format!("{outputs:?} is no answer of the machine")))
}

fn acknowledgement(reply: &Reply) -> Option<(Acknowledgement, Option<Bytes>)> {
    match reply {
        Reply::Appended {
            first,
            last,
            term,
            raft_index,
            outputs,
        } => Some((
            Acknowledgement {
                first: *first,
                last: *last,
                at: LogId::new(*term, Index(*raft_index)),
            },
            outputs.clone(),
        )),
        _ => None,
    }
}

fn wrong(what: &str) -> Violation {
    Violation {
        property: PROPERTY,
        what: what.to_owned(),
    }
}
