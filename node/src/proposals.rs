//! Appends at the leader: gathered, sealed as one run, and answered when they are applied.
//!
//! Invariants: an append is answered by index *and* term, so that a record which took its place is
//! never taken for it; what is refused was never put into the log; a leader admits appends only once
//! its no-op is applied, when it knows the whole prefix; what was gathered in one term is never sealed
//! in another.

use crate::{
    driver::Driver,
    ports::Ports,
    request::{Failure, Reply, Token},
    route::{Append, weight},
    waiters::Waiter,
};
use kontiki_consensus::{Admission, Body, Event, LogId, NodeId, Position, Run, Term, Time};
use kontiki_wire::{
    Expect, Payload, ProposeAnswer, Refusal,
    record::{RecordHeader, RunBuilder},
};

/// Where an append comes from, and where its answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client of this node.
    Client {
        token: Token,
        deadline: Time,
        ticket: u64,
    },
    /// Another node, on behalf of its client; it named this term.
    Peer {
        node: NodeId,
        origin: u64,
        number: u64,
        term: Term,
    },
}

/// Appends waiting to be sealed.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    list: Vec<(Origin, Payload, Expect)>,
    bytes: usize,
    /// The term in which the first of them was taken in.
    term: Term,
}

impl Gathered {
    /// The clients of this node among those who wait.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.bytes = 0;
        std::mem::take(&mut self.list)
            .into_iter()
            .filter_map(|(origin, ..)| match origin {
                Origin::Client { token, .. } => Some(token),
                Origin::Peer { .. } => None,
            })
    }
}

impl Driver {
    /// What a leader grants once it has applied its no-op.
    pub(crate) fn admission(&self) -> Option<Admission> {
        // The no-op is the first record of its term: whoever has applied any of the term has applied it.
        self.consensus
            .admission()
            .filter(|a| a.term == self.applied.at.term)
    }

    /// Takes an append in, to be sealed with the others of this turn.
    pub(crate) fn gather(&mut self, origin: Origin, payload: Payload, expect: Expect) -> Result<(), Refusal> {
        if payload.bytes.len() > self.config.payload_bytes_max {
            return Err(self.too_large());
        }
        let bytes = weight(&payload);
        let waiting = self.waiters.in_flight_bytes() + self.gathered.bytes;
        if waiting > 0 && waiting + bytes > self.config.in_flight_bytes_max {
            return Err(Refusal::Overloaded);
        }
        if self.gathered.list.is_empty() {
            self.gathered.term = self.consensus.term();
        }
        self.gathered.bytes += bytes;
        self.gathered.list.push((origin, payload, expect));
        Ok(())
    }

    /// Seals everything gathered as one run and proposes it.
    pub(crate) fn seal(&mut self, now: Time, wall: u64, ports: &mut impl Ports) {
        if self.gathered.list.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        match self.admission().filter(|a| a.term == gathered.term) {
            Some(admission) => self.seal_at(now, wall, admission, &mut gathered, ports),
            None => self.give_back(&mut gathered, ports),
        }
        // The list's memory serves again.
        self.gathered = Gathered {
            list: gathered.list,
            ..Gathered::default()
        };
    }

    fn seal_at(
        &mut self,
        now: Time,
        wall: u64,
        admission: Admission,
        gathered: &mut Gathered,
        ports: &mut impl Ports,
    ) {
        self.leader_time = self.leader_time.max(wall);
        let (cluster, group) = (self.config.identity.cluster, self.config.group);
        let (records, bytes) = (gathered.list.len(), gathered.bytes);
        let mut builder = RunBuilder::with_capacity(cluster, group, admission, records, bytes);
        let mut next = admission;
        for (origin, payload, expect) in gathered.list.drain(..) {
            if payload.count == 0 || !self.expectation_holds(next, expect) {
                self.check_end(origin, next, expect);
                continue;
            }
            if builder.push(&payload, self.leader_time, 0, 0).is_err() {
                // Full: this run goes, and the rest begins another.
                let full = std::mem::replace(&mut builder, RunBuilder::new(cluster, group, next));
                self.propose(now, full);
                if builder.push(&payload, self.leader_time, 0, 0).is_err() {
                    self.answer(origin, Err(self.too_large()), ports);
                    continue;
                }
            }
            self.assign(origin, next, &payload, ports);
            next.index = next.index.next();
            next.position = Position(next.position.0 + u64::from(payload.count));
        }
        self.propose(now, builder);
    }

    fn propose(&mut self, now: Time, builder: RunBuilder) {
        if let Some(run) = builder.finish() {
            self.consensus.step(now, Event::Propose(run));
        }
    }

    /// Leadership was lost between gathering and sealing: none of it reached the log. What this node's
    /// clients asked waits for the next leader; other nodes see to theirs.
    fn give_back(&mut self, gathered: &mut Gathered, ports: &mut impl Ports) {
        let leader = self.consensus.leader();
        for (origin, payload, expect) in gathered.list.drain(..) {
            match origin {
                Origin::Client {
                    token,
                    deadline,
                    ticket,
                } => {
                    self.parked.put(Append {
                        ticket,
                        token,
                        deadline,
                        payload,
                        expect,
                    });
                }
                Origin::Peer { .. } => self.answer(origin, Err(Refusal::NotLeader { leader }), ports),
            }
        }
    }

    /// An append has its place: its client waits for the commit, its forwarder is told where to look for it.
    fn assign(&mut self, origin: Origin, place: Admission, payload: &Payload, ports: &mut impl Ports) {
        let (at, first) = (LogId::new(place.term, place.index), place.position);
        self.waiters.carry(place.index, weight(payload));
        match origin {
            Origin::Client { token, deadline, .. } => {
                self.waiters.wait(
                    at,
                    Waiter {
                        token,
                        deadline,
                        first,
                        count: payload.count,
                    },
                );
            }
            Origin::Peer { .. } => self.answer(origin, Ok((at, first)), ports),
        }
    }

    /// Tells whoever asked that the append was refused, or another node where its append was put.
    pub(crate) fn answer(
        &mut self,
        origin: Origin,
        outcome: Result<(LogId, Position), Refusal>,
        ports: &mut impl Ports,
    ) {
        match (origin, outcome) {
            (Origin::Client { token, .. }, Err(refusal)) => self.refuse(token, refusal, ports),
            (Origin::Client { .. }, Ok(_)) => {}
            (
                Origin::Peer {
                    node,
                    origin,
                    number,
                    term,
                },
                outcome,
            ) => {
                let answer = match outcome {
                    Ok((at, first)) => ProposeAnswer::Assigned { at, first },
                    Err(refusal) => ProposeAnswer::Refused(refusal),
                };
                self.taken.answered(term, (node, origin), number, answer);
                self.answer_peer(node, origin, number, answer, ports);
            }
        }
    }

    /// Waits for a record, unless its fate is known already.
    pub(crate) fn wait_for(&mut self, at: LogId, waiter: Waiter, ports: &mut impl Ports) {
        if at <= self.applied.at {
            self.answer_applied(at, waiter, ports);
        } else {
            self.waiters.wait(at, waiter);
        }
    }

    /// Answers everyone whose fate is known now that everything up to the applied record is.
    pub(crate) fn answer_waiters(&mut self, ports: &mut impl Ports) {
        self.waiters.land(self.applied.at.index);
        while let Some((at, waiter)) = self.waiters.next_up_to(self.applied.at) {
            self.answer_applied(at, waiter, ports);
        }
    }

    /// The record waited for is applied, or another term's record was committed at its index or before,
    /// and then it never will be: terms do not fall along a log.
    fn answer_applied(&self, at: LogId, waiter: Waiter, ports: &mut impl Ports) {
        let reply = if self.has_applied(at) {
            let last = Position((waiter.first.0.saturating_add(waiter.count.into())).saturating_sub(1));
            Reply::Appended {
                first: waiter.first,
                last,
                term: at.term,
                raft_index: at.index.0,
            }
        } else {
            Reply::Failed(Failure::Superseded)
        };
        ports.reply(waiter.token, reply);
    }

    /// Remembers the leader time of what is being written, so that a later leader does not go behind it.
    pub(crate) fn see_leader_time(&mut self, runs: &[Run]) {
        self.leader_time = self.leader_time.max(leader_time_of(runs));
    }
}

/// The leader time of the last record of users in these runs; zero if there is none.
pub(crate) fn leader_time_of(runs: &[Run]) -> u64 {
    let last = runs.iter().rev().find_map(|run| match run.body() {
        Body::Records(records) => records.record(records.len() - 1),
        _ => None,
    });
    last.and_then(|(bytes, ..)| RecordHeader::peek(&bytes))
        .map_or(0, |header| header.leader_time)
}
