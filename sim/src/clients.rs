//! The clients: what they ask, whom, and what they make of the answers.
//!
//! Clients ask whatever node they please, several things at a time, and give up by a deadline. What
//! they may conclude from each answer is checked at once against the committed log.

mod crowd;
mod questions;

pub(crate) use crowd::Crowd;

use crate::checkers::answers::Answers;
use crate::checkers::appends::Acknowledgement;
use crate::checkers::compare;
use crate::checkers::reads::{self, Answer, Floor};
use crate::checkers::tails::Tail;
use crate::checks::Checks;
use crate::entries;
use crate::linearizability::History;
use crate::random::Random;
use crate::session_clients::{SessionClients, Wish};
use crate::sometimes::Sometimes;
use crate::swarm::{Habits, MachineKind};
use crate::violation::{Verdict, Violation, ensure};
use kontiki_consensus::{Duration, Index, LogId, NodeId, Position, Run, Term, Time};
use kontiki_node::{Ask, Consistency, Failure, Reply, Token};
use kontiki_wire::{Expect, Refusal};
use std::collections::BTreeMap;

/// How many requests of one client may be open.
const OPEN_MAX: usize = 24;

/// A request on its way to a node.
#[derive(Debug)]
pub struct Asked {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub token: Token,
    /// What is asked.
    pub ask: Ask,
    /// How long the client waits.
    pub patience: Duration,
}

/// What a client wants to know or do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    Append {
        operation: u64,
        expect: Expect,
    },
    Check {
        expect: Expect,
    },
    Read {
        from: Position,
        to: Position,
        consistency: Consistency,
    },
    Query {
        consistency: Consistency,
    },
    Tail,
    Session(Wish),
}

#[derive(Debug)]
struct Open {
    client: usize,
    question: Question,
    /// How far the log was known to reach when it was asked.
    floor: Position,
    /// How far what is read must reach.
    must: Position,
    asked: Time,
}

/// All clients. Those from `habits.clients` on follow the log, each one request at a time; those behind them
/// have sessions.
#[derive(Debug)]
pub struct Clients {
    random: Random,
    habits: Habits,
    machine: MachineKind,
    /// By how many millionths each node's clock runs faster.
    drifts: Vec<i64>,
    open: BTreeMap<Token, Open>,
    tails: Vec<Tail>,
    sessions: SessionClients,
    answers: Answers,
    floor: Floor,
    /// Where an answer last said that the log ends.
    end: (Position, Term),
    tokens: u64,
    operations: u64,
    acknowledged: u64,
    answered: u64,
}

impl Clients {
    /// Clients of a cluster whose nodes' clocks run faster by so much.
    #[must_use]
    pub fn new(mut random: Random, habits: Habits, machine: MachineKind, drifts: Vec<i64>) -> Self {
        Self {
            sessions: SessionClients::new(random.fork(1), habits, machine),
            random,
            habits,
            machine,
            drifts,
            open: BTreeMap::new(),
            tails: vec![Tail::default(); habits.tails],
            answers: Answers::default(),
            floor: Floor::default(),
            end: (Position::ZERO, Term::ZERO),
            tokens: 0,
            operations: 0,
            acknowledged: 0,
            answered: 0,
        }
    }

    /// How many clients there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.habits.clients + self.habits.tails + self.habits.sessions
    }

    /// What the clients did to keys, and what they were told.
    #[must_use]
    pub fn history(&self) -> &History {
        self.sessions.history()
    }

    /// Which client with a session this is, if it is one.
    fn with_session(&self, client: usize) -> Option<usize> {
        client.checked_sub(self.habits.clients + self.habits.tails)
    }

    /// How many appends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many requests were answered, with success or not.
    #[must_use]
    pub fn answered_count(&self) -> u64 {
        self.answered
    }

    /// How many requests wait for an answer.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How long a client waits before it asks again.
    pub fn think(&mut self) -> Duration {
        self.random.around(self.habits.think)
    }

    /// What a client asks now.
    pub fn ask(
        &mut self,
        client: usize,
        now: Time,
        leader: Option<NodeId>,
        checks: &mut Checks,
    ) -> Vec<Asked> {
        if let Some(n) = self.with_session(client) {
            let asks = self.sessions.ask(n, now, &mut self.operations, checks);
            let asked = asks.into_iter().map(|(wish, ask)| {
                let node = self.choose(leader);
                self.open(client, now, node, Question::Session(wish), ask)
            });
            return asked.collect();
        }
        let open = self.open.values().filter(|o| o.client == client).count();
        if client >= self.habits.clients {
            return if open == 0 {
                vec![self.follow(client, now)]
            } else {
                Vec::new()
            };
        }
        let burst = if self.random.chance(self.habits.bursts) {
            self.random.between(4, 16) as usize
        } else {
            1
        };
        (0..burst.min(OPEN_MAX - open.min(OPEN_MAX)))
            .map(|_| self.ask_one(client, now, leader, checks))
            .collect()
    }

    fn ask_one(&mut self, client: usize, now: Time, leader: Option<NodeId>, checks: &mut Checks) -> Asked {
        let node = self.choose(leader);
        let (question, ask) = match self.random.below(10) {
            0..=5 => self.append(checks),
            6 if self.machine != MachineKind::None => self.query(),
            _ => self.read(),
        };
        self.open(client, now, node, question, ask)
    }

    /// An append of one small entry to this node, to see whether it works.
    pub fn probe(&mut self, node: NodeId, now: Time, patience: Duration, checks: &mut Checks) -> Asked {
        let (question, ask) = self.append_of(1, Expect::Any, checks);
        let mut asked = self.open(0, now, node, question, ask);
        asked.patience = patience;
        asked
    }

    fn choose(&mut self, leader: Option<NodeId>) -> NodeId {
        let anyone = NodeId(self.random.between(1, self.drifts.len() as u64));
        if self.random.chance(self.habits.elsewhere) {
            anyone
        } else {
            leader.unwrap_or(anyone)
        }
    }

    fn follow(&mut self, client: usize, now: Time) -> Asked {
        let node = NodeId(self.random.between(1, self.drifts.len() as u64));
        let from = self.tails[client - self.habits.clients].next();
        let bytes_max = self.random.magnitude(1, 16 << 10) as usize;
        let to = Position(u64::MAX);
        let ask = Ask::Read {
            from,
            to,
            bytes_max,
            consistency: Consistency::STALE,
            wait: true,
        };
        self.open(client, now, node, Question::Tail, ask)
    }

    fn open(&mut self, client: usize, now: Time, node: NodeId, question: Question, ask: Ask) -> Asked {
        self.tokens += 1;
        let token = Token(self.tokens);
        let drift = self.drifts[node.0 as usize - 1];
        let must = match question {
            Question::Read { consistency, .. } | Question::Query { consistency } => {
                reads::must_see(consistency, &self.floor, now, drift)
            }
            _ => Position::ZERO,
        };
        self.open.insert(
            token,
            Open {
                client,
                question,
                floor: self.floor.now(),
                must,
                asked: now,
            },
        );
        let patience = self
            .random
            .between(self.habits.patience.0 / 8, self.habits.patience.0);
        Asked {
            node,
            token,
            ask,
            patience: Duration(patience),
        }
    }

    /// The request has reached its node, which must answer by then.
    pub fn taken(&mut self, token: Token, node: NodeId, by: Time) {
        self.answers.asked(token, node, by);
    }

    /// The node could not be reached: nothing came of the request.
    pub fn unreachable(&mut self, token: Token) {
        self.lost(token, false);
    }

    /// A node goes down: whatever it was asked stays without an answer.
    pub fn down(&mut self, node: NodeId) {
        for token in self.answers.down(node) {
            self.lost(token, true);
        }
    }

    fn lost(&mut self, token: Token, reached: bool) {
        if let Some(Open {
            client,
            question: Question::Session(wish),
            ..
        }) = self.open.remove(&token)
            && let Some(n) = self.with_session(client)
        {
            self.sessions.lost(n, wish, reached);
        }
    }

    /// A node stands still until then, and may answer later than it should.
    pub fn delay(&mut self, node: NodeId, until: Time) {
        self.answers.delay(node, until);
    }

    /// A node stands still until further notice.
    pub fn stands_still(&mut self, node: NodeId) {
        self.answers.stands_still(node);
    }

    /// A node that stood still goes on, and what is overdue must be answered by then.
    pub fn goes_on(&mut self, node: NodeId, by: Time) {
        self.answers.goes_on(node, by);
    }

    /// It is now this late.
    ///
    /// # Errors
    /// If an answer is overdue.
    pub fn overdue(&self, now: Time) -> Verdict {
        self.answers.overdue(now)
    }

    /// A node answers. Gives the client that was waiting if it should ask on at once.
    ///
    /// # Errors
    /// If the answer cannot be true.
    pub fn answered(
        &mut self,
        now: Time,
        node: NodeId,
        token: Token,
        reply: Reply,
        checks: &mut Checks,
    ) -> Result<Option<usize>, Violation> {
        self.answers.answered(token, node)?;
        let Some(open) = self.open.remove(&token) else {
            return Ok(None);
        };
        self.answered += 1;
        match (open.question, reply) {
            (Question::Append { operation, expect }, reply) => {
                self.append_answered(now, operation, expect, &open, reply, checks)?;
            }
            (Question::Check { expect }, Reply::Failed(failure)) => {
                self.end_told(now, expect, &open, &failure, checks)?
            }
            (
                Question::Read {
                    from,
                    to,
                    consistency,
                },
                Reply::Read { runs, last },
            ) => {
                let answer = read_answer(&runs, last)?;
                reads::answered(from, to, &answer, &checks.committed)?;
                self.saw(now, consistency, &open, answer.last, checks)?;
            }
            (Question::Tail, Reply::Read { runs, last }) => {
                let answer = read_answer(&runs, last)?;
                self.followed(now, &open, &answer, checks)?;
                return Ok(Some(open.client));
            }
            (Question::Query { consistency }, Reply::Answered { at, .. }) => {
                self.saw(now, consistency, &open, at, checks)?;
            }
            (Question::Read { .. } | Question::Query { .. }, Reply::Failed(failure)) => {
                checks
                    .counters
                    .hit_if(matches!(failure, Failure::Timeout), Sometimes::ReadTimedOut);
            }
            (Question::Tail, Reply::Failed(Failure::Compacted { first })) => {
                checks.counters.hit(Sometimes::ReadCompacted);
                let tail = &mut self.tails[open.client - self.habits.clients];
                tail.compacted(first, checks.committed.last_position())?;
            }
            (Question::Tail, Reply::Failed(_)) => {}
            (Question::Session(wish), reply) => {
                if let Some(n) = self.with_session(open.client) {
                    self.acknowledged += self.sessions.answered(n, now, wish, reply, checks)?;
                }
            }
            (question, reply) => return Err(mistaken(question, &reply)),
        }
        Ok(None)
    }

    fn append_answered(
        &mut self,
        now: Time,
        operation: u64,
        expect: Expect,
        open: &Open,
        reply: Reply,
        checks: &mut Checks,
    ) -> Verdict {
        match reply {
            Reply::Appended {
                first,
                last,
                term,
                raft_index,
                outputs: _,
            } => {
                let said = Acknowledgement {
                    first,
                    last,
                    at: LogId::new(term, Index(raft_index)),
                };
                self.acknowledged += 1;
                checks.appends.acknowledged(operation, said, &checks.committed)?;
                compare::hit(expect, first, &checks.committed)?;
                checks.counters.hit_if(expect != Expect::Any, Sometimes::Compared);
                ensure(first > open.floor, reads::PROPERTY, || {
                    format!(
                        "append {operation} was put at {first:?}, {:?} was there before it was sent",
                        open.floor
                    )
                })?;
                self.reaches(now, last, term);
                Ok(())
            }
            Reply::Failed(failure) => self.append_failed(now, operation, expect, open, &failure, checks),
            reply => Err(mistaken(open.question, &reply)),
        }
    }

    fn append_failed(
        &mut self,
        now: Time,
        operation: u64,
        expect: Expect,
        open: &Open,
        failure: &Failure,
        checks: &mut Checks,
    ) -> Verdict {
        checks
            .counters
            .hit_if(matches!(failure, Failure::Superseded), Sometimes::Superseded);
        checks
            .counters
            .hit_if(matches!(failure, Failure::NoLeader), Sometimes::NoLeader);
        checks.counters.hit_if(
            matches!(failure, Failure::Refused(Refusal::Overloaded)),
            Sometimes::Overloaded,
        );
        match failure {
            Failure::Unknown(_) => {
                checks.counters.hit(Sometimes::Unknown);
                checks.appends.unknown(operation);
                Ok(())
            }
            Failure::Log(_) => Err(mistaken(open.question, &Reply::Failed(failure.clone()))),
            // An earlier attempt of it may have taken effect: what came of that is remembered no longer.
            Failure::Refused(Refusal::SessionExpired | Refusal::SessionStale) if self.habits.once => {
                checks.counters.hit(Sometimes::OnceDoubt);
                checks.appends.unknown(operation);
                Ok(())
            }
            Failure::Refused(Refusal::Mismatch { .. } | Refusal::Holds { .. }) => {
                checks.appends.not_applied(operation)?;
                self.end_told(now, expect, open, failure, checks)
            }
            _ => checks.appends.not_applied(operation),
        }
    }

    /// An answer says where the log ended, if it does.
    fn end_told(
        &mut self,
        now: Time,
        expect: Expect,
        open: &Open,
        failure: &Failure,
        checks: &mut Checks,
    ) -> Verdict {
        let (last, term, holds) = match failure {
            Failure::Refused(Refusal::Mismatch { last, term }) => (*last, *term, false),
            Failure::Refused(Refusal::Holds { last, term }) => (*last, *term, true),
            _ => return Ok(()),
        };
        checks.counters.hit(if holds {
            Sometimes::Holds
        } else {
            Sometimes::Mismatched
        });
        compare::answered(
            expect,
            compare::End { last, term, holds },
            open.floor,
            &checks.committed,
        )?;
        self.reaches(now, last, term);
        Ok(())
    }

    fn reaches(&mut self, now: Time, last: Position, term: Term) {
        self.floor.raise(now, last);
        self.end = self.end.max((last, term));
    }

    /// A read or a query saw the log up to here.
    fn saw(
        &mut self,
        now: Time,
        consistency: Consistency,
        open: &Open,
        last: Position,
        checks: &mut Checks,
    ) -> Verdict {
        ensure(last <= checks.committed.last_position(), reads::PROPERTY, || {
            format!("{last:?} was seen, which is not committed")
        })?;
        reads::fresh(consistency, last, open.must)?;
        match consistency {
            Consistency::Linearizable | Consistency::Lease => self.floor.raise(now, last),
            _ => checks.counters.hit_if(last < open.floor, Sometimes::StaleBehind),
        }
        Ok(())
    }

    fn followed(&mut self, now: Time, open: &Open, answer: &Answer, checks: &mut Checks) -> Verdict {
        let tail = &mut self.tails[open.client - self.habits.clients];
        let waited = now.since(open.asked) > Duration::from_millis(100) && !answer.entries.is_empty();
        checks.counters.hit_if(waited, Sometimes::TailWaited);
        reads::answered(tail.next(), Position(u64::MAX), answer, &checks.committed)?;
        tail.given(&answer.entries)
    }
}

fn mistaken(question: Question, reply: &Reply) -> Violation {
    Violation {
        property: "an answer fits its question",
        what: format!("{question:?} was answered with {reply:?}"),
    }
}

/// The entries of what was read, whose runs must be consecutive.
fn read_answer(runs: &[Run], last: Position) -> Result<Answer, Violation> {
    for pair in runs.windows(2) {
        ensure(pair[0].last().next() == pair[1].first(), reads::PROPERTY, || {
            format!("a read gave {:?} and then {:?}", pair[0], pair[1])
        })?;
    }
    let mut entries = Vec::new();
    for run in runs {
        let ids = entries::entries_of(run).into_iter().flatten();
        let positions = run.first_position().0..;
        entries.extend(positions.map(Position).zip(ids));
    }
    Ok(Answer { entries, last })
}
