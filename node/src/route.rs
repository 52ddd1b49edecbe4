//! The way of a client's append: into the log if this node leads, to the leader if it knows one, else
//! aside until there is one. While this node's disk is full they are refused: it takes no records in, so it
//! could not tell what became of them.
//!
//! Invariants: appends take their way in the order they came; one that comes back, refused by a node
//! that led no more, stands again before those that came after it; what stands aside is bounded, and
//! was never proposed.

use crate::{
    driver::Driver,
    ports::Ports,
    proposals::Origin,
    request::{Failure, Reply, Token},
};
use kontiki_consensus::Time;
use kontiki_wire::{Codec, Expect, Payload, Refusal, Session, record::RecordHeader};
use std::collections::VecDeque;

/// A client's append.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    /// Its place among all appends of this node's clients.
    pub(crate) ticket: u64,
    pub(crate) token: Token,
    pub(crate) deadline: Time,
    pub(crate) proposal: Proposal,
}

/// What is to be appended.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) payload: Payload,
    pub(crate) expect: Expect,
    pub(crate) session: Session,
}

impl Proposal {
    /// Opens a session. The leader puts in the limits.
    pub(crate) fn opening() -> Self {
        Self {
            payload: Payload::empty(Codec::Bytes),
            expect: Expect::Any,
            session: Session::Open,
        }
    }

    /// Whether the leader must know all sessions to take it.
    pub(crate) fn needs_sessions(&self) -> bool {
        matches!(self.session, Session::In(_))
    }

    /// What it counts for where bytes are bounded: what its record will weigh.
    pub(crate) fn weight(&self) -> usize {
        weight(&self.payload)
    }
}

fn weight(payload: &Payload) -> usize {
    RecordHeader::BYTES + payload.bytes.len()
}

/// Appends that wait for a leader, those of sessions also for one that knows all sessions.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    plain: VecDeque<Append>,
    in_sessions: VecDeque<Append>,
    bytes: usize,
    tickets: u64,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.in_sessions.is_empty()
    }

    /// Whether an append would overtake another.
    fn holds_back(&self, proposal: &Proposal) -> bool {
        let ahead = [&self.plain, &self.in_sessions];
        ahead[usize::from(proposal.needs_sessions())].front().is_some()
    }

    /// The place of an append that has just come.
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Puts an append where it belongs.
    pub(crate) fn put(&mut self, append: Append) {
        self.bytes += append.proposal.weight();
        let list = if append.proposal.needs_sessions() {
            &mut self.in_sessions
        } else {
            &mut self.plain
        };
        let place = match list.back() {
            Some(last) if last.ticket > append.ticket => list.partition_point(|a| a.ticket < append.ticket),
            _ => list.len(),
        };
        list.insert(place, append);
    }

    /// The first of all, or of those that need no sessions.
    fn take_first(&mut self, with_sessions: bool) -> Option<Append> {
        let ticket = |list: &VecDeque<Append>| list.front().map_or(u64::MAX, |a| a.ticket);
        let append = if with_sessions && ticket(&self.in_sessions) < ticket(&self.plain) {
            self.in_sessions.pop_front()
        } else {
            self.plain.pop_front()
        }?;
        self.bytes -= append.proposal.weight();
        Some(append)
    }

    pub(crate) fn expire(&mut self, now: Time, late: &mut Vec<Token>) {
        let bytes = &mut self.bytes;
        let mut is_early = |append: &Append| {
            let keep = append.deadline > now;
            if !keep {
                *bytes -= append.proposal.weight();
                late.push(append.token);
            }
            keep
        };
        self.plain.retain(&mut is_early);
        self.in_sessions.retain(&mut is_early);
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.bytes = 0;
        let (plain, in_sessions) = (&mut self.plain, &mut self.in_sessions);
        let all = std::mem::take(plain)
            .into_iter()
            .chain(std::mem::take(in_sessions));
        all.map(|a| a.token)
    }
}

impl Driver {
    fn full(&self) -> Refusal {
        Refusal::DiskFull { node: self.node() }
    }

    /// A client's append.
    pub(crate) fn append(
        &mut self,
        now: Time,
        (token, deadline): (Token, Time),
        proposal: Proposal,
        ports: &mut impl Ports,
    ) {
        if proposal.payload.bytes.len() > self.config.payload_bytes_max {
            return self.refuse(token, self.too_large(), ports);
        }
        if matches!(proposal.session, Session::In(of) if !of.is_sound()) {
            return self.refuse(token, Refusal::SessionStale, ports);
        }
        if self.disk_is_full() {
            return self.refuse(token, self.full(), ports);
        }
        let ticket = self.parked.ticket();
        let append = Append {
            ticket,
            token,
            deadline,
            proposal,
        };
        if !self.parked.holds_back(&append.proposal) && self.has_way(&append.proposal) {
            self.route(now, append, ports);
        } else if self.parked.bytes == 0
            || self.parked.bytes + append.proposal.weight() <= self.config.in_flight_bytes_max
        {
            self.parked.put(append);
        } else {
            self.refuse(token, Refusal::Overloaded, ports);
        }
    }

    /// Sends those on their way that stood aside, in their order, and takes in what was held for peers.
    pub(crate) fn admit(&mut self, now: Time, ports: &mut impl Ports) {
        if self.disk_is_full() {
            let parked: Vec<Token> = self.parked.drain().collect();
            for token in parked {
                self.refuse(token, self.full(), ports);
            }
        }
        while !self.parked.is_empty() && self.leads_somewhere() {
            let Some(append) = self.parked.take_first(self.takes_sessions()) else {
                break;
            };
            self.route(now, append, ports);
        }
        self.admit_held(ports);
    }

    fn has_way(&self, proposal: &Proposal) -> bool {
        self.leads_somewhere() && (self.takes_sessions() || !proposal.needs_sessions())
    }

    /// Whether appends of sessions can go where the others go: to another node, or here if all sessions are known.
    fn takes_sessions(&self) -> bool {
        self.consensus.leader() != Some(self.node()) || self.knows_sessions()
    }

    /// Whether an append can go anywhere now.
    fn leads_somewhere(&self) -> bool {
        match self.consensus.leader() {
            Some(leader) if leader == self.node() => self.admission().is_some(),
            Some(_) => self.forwards.takes(self.consensus.term()),
            None => false,
        }
    }

    fn route(&mut self, now: Time, append: Append, ports: &mut impl Ports) {
        match self.consensus.leader() {
            Some(leader) if leader != self.node() => self.forward(now, leader, append, ports),
            _ => {
                let Append {
                    ticket,
                    token,
                    deadline,
                    proposal,
                } = append;
                let origin = Origin::Client {
                    token,
                    deadline,
                    ticket,
                };
                if let Err(refusal) = self.gather(origin, proposal) {
                    self.refuse(token, refusal, ports);
                }
            }
        }
    }

    pub(crate) fn refuse(&self, token: Token, refusal: Refusal, ports: &mut impl Ports) {
        ports.reply(token, Reply::Failed(Failure::Refused(refusal)));
    }

    pub(crate) fn too_large(&self) -> Refusal {
        Refusal::TooLarge {
            bytes_max: self.config.payload_bytes_max as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_wire::InSession;

    fn append(ticket: u64, session: Session) -> Append {
        Append {
            ticket,
            token: Token(ticket),
            deadline: Time(ticket),
            proposal: Proposal {
                payload: Payload::one(vec![0; 10].into(), Codec::Bytes),
                expect: Expect::Any,
                session,
            },
        }
    }

    #[test]
    fn what_needs_no_sessions_does_not_wait_behind_what_does() {
        let mut parked = Parked::default();
        for ticket in 1..=4 {
            let of = InSession {
                session: 1,
                sequence: ticket,
                settled: 1,
            };
            parked.put(append(
                ticket,
                if ticket % 2 == 1 {
                    Session::In(of)
                } else {
                    Session::None
                },
            ));
        }
        assert_eq!(parked.take_first(false).map(|a| a.ticket), Some(2));
        assert_eq!(parked.take_first(true).map(|a| a.ticket), Some(1));
        assert_eq!(parked.take_first(true).map(|a| a.ticket), Some(3));
        parked.put(append(5, Session::None));
        assert_eq!(parked.take_first(false).map(|a| a.ticket), Some(4));
        assert_eq!(parked.drain().collect::<Vec<_>>(), [Token(5)]);
        assert!(parked.is_empty());
    }

    #[test]
    fn what_comes_back_stands_before_what_came_later() {
        let mut parked = Parked::default();
        for ticket in [3, 5, 1, 4, 2] {
            parked.put(append(ticket, Session::None));
        }
        assert_eq!(parked.bytes, 5 * (RecordHeader::BYTES + 10));
        assert_eq!(parked.take_first(true).map(|a| a.ticket), Some(1));
        let mut late = Vec::new();
        parked.expire(Time(3), &mut late);
        assert_eq!(late, [Token(2), Token(3)]);
        assert_eq!(parked.bytes, 2 * (RecordHeader::BYTES + 10));
        assert_eq!(parked.drain().collect::<Vec<_>>(), [Token(4), Token(5)]);
        assert!(parked.is_empty() && parked.bytes == 0);
    }
}
