//! Appends at the leader: gathered, sealed as one run, and answered when they are applied.
//!
//! Invariants: an append is answered by index *and* term, so that a record which took its place is
//! never taken for it; what is refused was never put into the log; a leader admits appends only once
//! its no-op is applied, when it knows the whole prefix; what was gathered in one term is never sealed
//! in another.

use crate::{
    clock::date_after,
    driver::Driver,
    ports::Ports,
    request::{Failure, Reply, Token},
    route::{Append, Proposal},
    sessions::Known,
    waiters::{Place, Waiter},
};
use kontiki_consensus::{Admission, Body, Event, LogId, NodeId, Position, Run, Term, Time};
use kontiki_wire::{
    ProposeAnswer, Refusal, Session, Stamp,
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
    list: Vec<(Origin, Proposal)>,
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
            .filter_map(|(origin, _)| match origin {
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
    pub(crate) fn gather(&mut self, origin: Origin, proposal: Proposal) -> Result<(), Refusal> {
        if proposal.payload.bytes.len() > self.config.payload_bytes_max {
            return Err(self.too_large());
        }
        let bytes = proposal.weight();
        let waiting = self.waiters.in_flight_bytes() + self.gathered.bytes;
        if waiting > 0 && waiting + bytes > self.config.in_flight_bytes_max {
            return Err(Refusal::Overloaded);
        }
        if self.gathered.list.is_empty() {
            self.gathered.term = self.consensus.term();
        }
        self.gathered.bytes += bytes;
        self.gathered.list.push((origin, proposal));
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
        self.date = date_after(self.date, wall);
        let stamp = self.stamp();
        let (cluster, group) = (self.config.identity.cluster, self.config.group);
        let (records, bytes) = (gathered.list.len(), gathered.bytes);
        let mut builder = RunBuilder::with_capacity(cluster, group, admission, records, bytes);
        let mut next = admission;
        for (origin, mut proposal) in gathered.list.drain(..) {
            match proposal.session {
                // Only now: one that is given back goes to the next leader as it came.
                Session::Open => proposal.payload = self.config.sessions.payload(),
                _ if proposal.payload.count == 0 => proposal.session = Session::None,
                _ => {}
            }
            let Proposal {
                ref payload,
                expect,
                session,
            } = proposal;
            if self.is_known(origin, session, next, stamp.clock, ports) {
                continue;
            }
            let appends = payload.count > 0 || session == Session::Open;
            if !appends || !self.expectation_holds(next, expect) {
                self.check_end(origin, next, expect);
                continue;
            }
            if builder.push(payload, stamp, session).is_err() {
                // Full: this run goes, and the rest begins another.
                let full = std::mem::replace(&mut builder, RunBuilder::new(cluster, group, next));
                self.propose(now, full);
                if builder.push(payload, stamp, session).is_err() {
                    self.answer(origin, Err(self.too_large()), ports);
                    continue;
                }
            }
            self.assign(origin, next, &proposal, ports);
            next.index = next.index.next();
            next.position = Position(next.position.0 + u64::from(payload.count));
        }
        self.propose(now, builder);
    }

    /// When a record that is made now was made.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            leader_time: self.date,
            clock: self.second(),
        }
    }

    /// Whether all sessions are known: then what is known of them and what is in flight is the whole prefix.
    pub(crate) fn knows_sessions(&self) -> bool {
        self.applied.meta.at.term == self.consensus.term()
    }

    /// Sees to an append that must not be put into the log: a retry of one that is there, which is answered like it,
    /// or one of which it cannot be told whether it is there. False if it is to be put there.
    fn is_known(
        &mut self,
        origin: Origin,
        session: Session,
        next: Admission,
        clock: u32,
        ports: &mut impl Ports,
    ) -> bool {
        let Session::In(of) = session else {
            return false;
        };
        if let Some(place) = self.waiters.in_session(of) {
            self.counts.joined += 1;
            self.join(origin, place, session, ports);
            return true;
        }
        // What is in flight keeps its session alive from when it was made.
        let used = self.waiters.session_used(of.session);
        let refusal = match self.applied.meta.sessions.known(of, clock, used) {
            Known::New => return false,
            Known::Answered(stored) => {
                let place = Place {
                    at: stored.at(),
                    first: stored.first(),
                    count: stored.count,
                };
                self.counts.answered += 1;
                self.join(origin, place, session, ports);
                return true;
            }
            Known::Stale => Refusal::SessionStale,
            // This node's disk may be slower than those of a majority, and its clients hear of the session before it does.
            Known::NoSession if self.waiters.opens(of.session) => return false,
            Known::NoSession => Refusal::SessionExpired,
        };
        self.refuse_confirmed(origin, next, refusal);
        true
    }

    /// Answers a retry when the append that it repeats is answered.
    fn join(&mut self, origin: Origin, place: Place, session: Session, ports: &mut impl Ports) {
        let Place { at, first, count } = place;
        match origin {
            Origin::Client { token, deadline, .. } => {
                let waiter = Waiter {
                    token,
                    deadline,
                    first,
                    count,
                    session,
                };
                self.wait_for(at, waiter, ports);
            }
            Origin::Peer { .. } => self.answer(origin, Ok((at, first)), ports),
        }
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
        for (origin, proposal) in gathered.list.drain(..) {
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
                        proposal,
                    });
                }
                Origin::Peer { .. } => self.answer(origin, Err(Refusal::NotLeader { leader }), ports),
            }
        }
    }

    /// An append has its place: its client waits for the commit, its forwarder is told where to look for it.
    fn assign(&mut self, origin: Origin, place: Admission, proposal: &Proposal, ports: &mut impl Ports) {
        let (at, first) = (LogId::new(place.term, place.index), place.position);
        let (count, session) = (proposal.payload.count, proposal.session);
        self.waiters.carry(place.index, proposal.weight());
        if let Session::In(of) = session {
            let clock = self.second();
            self.waiters
                .carry_in_session(of, Place { at, first, count }, clock);
        } else if session == Session::Open {
            self.waiters.carry_opening(place.index);
        }
        match origin {
            Origin::Client { token, deadline, .. } => {
                self.waiters.wait(
                    at,
                    Waiter {
                        token,
                        deadline,
                        first,
                        count,
                        session,
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
                    Ok((at, first)) => {
                        self.awaited = true;
                        ProposeAnswer::Assigned { at, first }
                    }
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
        let applied = match self.has_applied(at) {
            Some(true) => Some(true),
            // What is remembered is applied, even where the log no longer reaches back to it.
            _ if self.applied.remembered(at, waiter.session).is_some() => Some(true),
            applied => applied,
        };
        let reply = if applied.is_none() {
            Reply::Failed(Failure::Unknown(
                "a snapshot has taken the place of the records among which it was or was not".into(),
            ))
        } else if applied == Some(false) {
            Reply::Failed(Failure::Superseded)
        } else if waiter.session == Session::Open {
            Reply::SessionOpened {
                session: at.index.0,
                ttl: self.ttl(at.index.0),
            }
        } else {
            let last = Position((waiter.first.0.saturating_add(waiter.count.into())).saturating_sub(1));
            Reply::Appended {
                first: waiter.first,
                last,
                term: at.term,
                raft_index: at.index.0,
                outputs: self
                    .applied
                    .outputs(at, waiter.session)
                    .filter(|_| self.compare.why().is_none()),
            }
        };
        ports.reply(waiter.token, reply);
    }

    /// After how many seconds of silence a session is forgotten. It is the leader's setting that counts, but where the table
    /// is behind, what this node would have said must do.
    fn ttl(&self, session: u64) -> u32 {
        let sessions = &self.applied.meta.sessions;
        sessions
            .row(session)
            .map_or(self.config.sessions.ttl, |row| row.ttl())
    }

    /// Remembers the times of what is being written, for a leader goes on from there.
    pub(crate) fn see_times(&mut self, runs: &[Run]) {
        let Stamp { leader_time, clock } = stamp_of(runs);
        if leader_time > 0 {
            self.date = leader_time;
        }
        self.clock.see(clock);
    }
}

/// The times of the last record of users in these runs; zero if there is none.
pub(crate) fn stamp_of(runs: &[Run]) -> Stamp {
    let last = runs.iter().rev().find_map(|run| match run.body() {
        Body::Records(records) => records.record(records.len() - 1),
        _ => None,
    });
    last.and_then(|(bytes, ..)| RecordHeader::peek(&bytes))
        .map_or_else(Stamp::default, |header| Stamp {
            leader_time: header.leader_time,
            clock: header.clock,
        })
}
