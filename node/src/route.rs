//! The way of a client's append: into the log if this node leads, to the leader if it knows one, else
//! aside until there is one.
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
use kontiki_wire::{Expect, Payload, Refusal, record::RecordHeader};
use std::collections::VecDeque;

/// A client's append.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    /// Its place among all appends of this node's clients.
    pub(crate) ticket: u64,
    pub(crate) token: Token,
    pub(crate) deadline: Time,
    pub(crate) payload: Payload,
    pub(crate) expect: Expect,
}

/// What a payload counts for where bytes are bounded: what its record will weigh.
pub(crate) fn weight(payload: &Payload) -> usize {
    RecordHeader::BYTES + payload.bytes.len()
}

/// Appends that wait for a leader.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    list: VecDeque<Append>,
    bytes: usize,
    tickets: u64,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The place of an append that has just come.
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Puts an append where it belongs.
    pub(crate) fn put(&mut self, append: Append) {
        self.bytes += weight(&append.payload);
        let place = match self.list.back() {
            Some(last) if last.ticket > append.ticket => {
                self.list.partition_point(|a| a.ticket < append.ticket)
            }
            _ => self.list.len(),
        };
        self.list.insert(place, append);
    }

    fn take_first(&mut self) -> Option<Append> {
        let append = self.list.pop_front()?;
        self.bytes -= weight(&append.payload);
        Some(append)
    }

    pub(crate) fn expire(&mut self, now: Time, late: &mut Vec<Token>) {
        let bytes = &mut self.bytes;
        self.list.retain(|append| {
            let keep = append.deadline > now;
            if !keep {
                *bytes -= weight(&append.payload);
                late.push(append.token);
            }
            keep
        });
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.bytes = 0;
        std::mem::take(&mut self.list).into_iter().map(|a| a.token)
    }
}

impl Driver {
    /// A client's append.
    pub(crate) fn append(
        &mut self,
        now: Time,
        (token, deadline): (Token, Time),
        payload: Payload,
        expect: Expect,
        ports: &mut impl Ports,
    ) {
        if payload.bytes.len() > self.config.payload_bytes_max {
            return self.refuse(token, self.too_large(), ports);
        }
        let ticket = self.parked.ticket();
        let append = Append {
            ticket,
            token,
            deadline,
            payload,
            expect,
        };
        if self.parked.is_empty() && self.has_way() {
            self.route(now, append, ports);
        } else if self.parked.bytes == 0
            || self.parked.bytes + weight(&append.payload) <= self.config.in_flight_bytes_max
        {
            self.parked.put(append);
        } else {
            self.refuse(token, Refusal::Overloaded, ports);
        }
    }

    /// Sends those on their way that stood aside, in their order, and takes in what was held for peers.
    pub(crate) fn admit(&mut self, now: Time, ports: &mut impl Ports) {
        while !self.parked.is_empty() && self.has_way() {
            let Some(append) = self.parked.take_first() else {
                break;
            };
            self.route(now, append, ports);
        }
        self.admit_held(ports);
    }

    /// Whether an append can go anywhere now.
    fn has_way(&self) -> bool {
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
                    payload,
                    expect,
                } = append;
                let origin = Origin::Client {
                    token,
                    deadline,
                    ticket,
                };
                if let Err(refusal) = self.gather(origin, payload, expect) {
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
    use kontiki_wire::Codec;

    #[test]
    fn what_comes_back_stands_before_what_came_later() {
        let mut parked = Parked::default();
        for ticket in [3, 5, 1, 4, 2] {
            parked.put(Append {
                ticket,
                token: Token(ticket),
                deadline: Time(ticket),
                payload: Payload::one(vec![0; 10].into(), Codec::Bytes),
                expect: Expect::Any,
            });
        }
        assert_eq!(parked.bytes, 5 * (RecordHeader::BYTES + 10));
        assert_eq!(parked.take_first().map(|a| a.ticket), Some(1));
        let mut late = Vec::new();
        parked.expire(Time(3), &mut late);
        assert_eq!(late, [Token(2), Token(3)]);
        assert_eq!(parked.bytes, 2 * (RecordHeader::BYTES + 10));
        assert_eq!(parked.drain().collect::<Vec<_>>(), [Token(4), Token(5)]);
        assert!(parked.is_empty() && parked.bytes == 0);
    }
}
