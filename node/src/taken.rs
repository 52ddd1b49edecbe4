//! Forwarded appends at the leader: each is taken at most once a term, in the order of its numbers.
//!
//! Invariants, per origin (one life of a forwarding node):
//! - Numbers are taken one after the other, without gaps except over what the forwarder says is
//!   settled. What comes early is held, within bounds, until the numbers before it have come.
//! - An answer is remembered until the forwarder says that its number is settled, so that who asks
//!   again hears the same; a number below that is never taken any more.
//! - A proposal is taken only by the leader of the term it names. Each term has one leader, and who has
//!   ceased to lead a term never leads it again: so what it refuses then is never taken by anyone.
//! - "Refused" means "never": it is said only where that is known. Of the terms before the latest this
//!   node led, and of those up to the one it was started in (an earlier life may have led that), it has
//!   no memory, and says nothing; the forwarder learns from its own log, or that it cannot know.

use crate::{driver::Driver, ports::Ports, proposals::Origin, route::Proposal};
use kontiki_consensus::{NodeId, Term};
use kontiki_wire::{PeerMessage, Propose, ProposeAnswer, ProposeReply, Refusal};
use std::collections::{BTreeMap, VecDeque};

/// How many lives of other nodes a leader deals with in one term; each costs some memory until the term ends.
const SENDERS_MAX: usize = 4096;
/// How many answers are remembered for one of them; more are not taken until some are settled.
const ANSWERS_MAX: u64 = 1 << 16;

/// One life of a forwarding node.
type SenderId = (NodeId, u64);

/// What this node took in the latest term it led.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The term this life of the node began in.
    boot_term: Term,
    /// The latest term led.
    term: Term,
    senders: BTreeMap<SenderId, Sender>,
    /// Proposals held, and what they weigh together.
    held: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Sender {
    /// The first number that is not settled, or was not when this was last heard from.
    base: u64,
    /// What was taken from `base` on; `None` where the answer is still to come.
    answers: VecDeque<Option<ProposeAnswer>>,
    held: BTreeMap<u64, Proposal>,
}

/// What a leader knows of a number.
enum Seen {
    /// It was never taken.
    Never,
    /// It was taken, and answered with this.
    Answered(ProposeAnswer),
    /// Its answer is still to come, or nobody waits for it any more.
    Silent,
}

impl Sender {
    /// The next number to be taken.
    fn next(&self) -> u64 {
        self.base.saturating_add(self.answers.len() as u64)
    }

    fn seen(&self, number: u64) -> Seen {
        let Some(place) = number.checked_sub(self.base) else {
            return Seen::Silent;
        };
        match usize::try_from(place).ok().and_then(|n| self.answers.get(n)) {
            Some(Some(answer)) => Seen::Answered(*answer),
            Some(None) => Seen::Silent,
            None => Seen::Never,
        }
    }

    /// Every number below `settled` is; gives what was held of them.
    fn settle(&mut self, settled: u64) -> BTreeMap<u64, Proposal> {
        while self.base < settled && self.answers.pop_front().is_some() {
            self.base += 1;
        }
        self.base = self.base.max(settled);
        let open = self.held.split_off(&self.base);
        std::mem::replace(&mut self.held, open)
    }
}

impl Taken {
    pub(crate) fn new(boot_term: Term) -> Self {
        Self {
            boot_term,
            term: Term::ZERO,
            senders: BTreeMap::new(),
            held: 0,
            held_bytes: 0,
        }
    }

    /// This node leads `term`: what it took in an earlier one is history. Said before anyone can hear of it.
    pub(crate) fn begin(&mut self, term: Term) {
        if term > self.term {
            *self = Self {
                term,
                ..Self::new(self.boot_term)
            };
        }
    }

    fn seen(&mut self, from: NodeId, propose: &Propose) -> Seen {
        let Some(sender) = self.senders.get_mut(&(from, propose.origin)) else {
            return Seen::Never;
        };
        for proposal in sender.settle(propose.settled).into_values() {
            self.held -= 1;
            self.held_bytes -= proposal.weight();
        }
        sender.seen(propose.number)
    }

    /// Holds a proposal until it is its turn, if there is room. The next of its sender always has room.
    fn hold(&mut self, from: NodeId, propose: Propose, bytes_max: usize) {
        let Propose {
            origin,
            number,
            settled,
            expect,
            payload,
            session,
            ..
        } = propose;
        let proposal = Proposal {
            payload,
            expect,
            session,
        };
        if !self.senders.contains_key(&(from, origin)) && self.senders.len() >= SENDERS_MAX {
            return;
        }
        let new = || Sender {
            base: settled,
            answers: VecDeque::new(),
            held: BTreeMap::new(),
        };
        let sender = self.senders.entry((from, origin)).or_insert_with(new);
        let bytes = proposal.weight();
        let room = number == sender.next() || self.held_bytes + bytes <= bytes_max;
        let near = number.checked_sub(sender.base).is_some_and(|n| n < ANSWERS_MAX);
        if room && near && !sender.held.contains_key(&number) {
            sender.held.insert(number, proposal);
            self.held += 1;
            self.held_bytes += bytes;
        }
    }

    /// The next proposal of a sender, if it is there: it is taken now, unless it needs the sessions and they are not known.
    fn take_next(&mut self, from: SenderId, with_sessions: bool) -> Option<(u64, Proposal)> {
        let sender = self.senders.get_mut(&from)?;
        let number = sender.next();
        let next = sender.held.get(&number)?;
        if next.needs_sessions() && !with_sessions {
            return None;
        }
        let proposal = sender.held.remove(&number)?;
        sender.answers.push_back(None);
        self.held -= 1;
        self.held_bytes -= proposal.weight();
        Some((number, proposal))
    }

    /// Remembers what a proposal of this term was answered.
    pub(crate) fn answered(&mut self, term: Term, from: SenderId, number: u64, answer: ProposeAnswer) {
        let sender = self.senders.get_mut(&from).filter(|_| term == self.term);
        let place = sender.and_then(|s| {
            let n = usize::try_from(number.checked_sub(s.base)?).ok()?;
            s.answers.get_mut(n)
        });
        if let Some(place) = place {
            *place = Some(answer);
        }
    }

    /// Everything that is held: it will never be taken.
    fn drop_held(&mut self) -> Vec<(SenderId, u64)> {
        let of = |(from, sender): (&SenderId, &mut Sender)| {
            let from = *from;
            std::mem::take(&mut sender.held)
                .into_keys()
                .map(move |number| (from, number))
        };
        let dropped = self.senders.iter_mut().flat_map(of).collect();
        (self.held, self.held_bytes) = (0, 0);
        dropped
    }
}

impl Driver {
    /// Another node forwards an append to this one, which leads, or did.
    pub(crate) fn take_forwarded(&mut self, from: NodeId, propose: Propose, ports: &mut impl Ports) {
        let term = self.consensus.term();
        let led = propose.term == self.taken.term;
        let leads = led && propose.term == term && self.consensus.leader() == Some(self.node());
        let forgotten = propose.term <= self.taken.boot_term || propose.term < self.taken.term;
        if forgotten || propose.settled > propose.number {
            return;
        }
        let seen = if led {
            self.taken.seen(from, &propose)
        } else {
            Seen::Never
        };
        let (origin, number) = (propose.origin, propose.number);
        match seen {
            Seen::Answered(answer) => self.answer_peer(from, origin, number, answer, ports),
            Seen::Silent => {}
            Seen::Never if leads => {
                self.taken.hold(from, propose, self.config.in_flight_bytes_max);
                self.take_in_order((from, origin), ports);
            }
            // It led that term and does no more, or that term is over and it never did.
            Seen::Never if led || propose.term < term => {
                self.refuse_peer((from, origin), number, ports);
            }
            // A term it has not led, and might yet: nobody can have seen it lead.
            Seen::Never => {}
        }
    }

    /// Takes in what is held of a sender, as far as its numbers go without a gap.
    fn take_in_order(&mut self, from: SenderId, ports: &mut impl Ports) {
        while self.admission().is_some()
            && let Some((number, proposal)) = self.taken.take_next(from, self.knows_sessions())
        {
            let (node, origin) = from;
            let origin = Origin::Peer {
                node,
                origin,
                number,
                term: self.taken.term,
            };
            if let Err(refusal) = self.gather(origin, proposal) {
                self.answer(origin, Err(refusal), ports);
            }
        }
    }

    /// Takes in what was held until this node may admit proposals.
    pub(crate) fn admit_held(&mut self, ports: &mut impl Ports) {
        if self.taken.held > 0 && self.admission().is_some() {
            let holding = self.taken.senders.iter().filter(|(_, s)| !s.held.is_empty());
            let senders: Vec<SenderId> = holding.map(|(id, _)| *id).collect();
            for from in senders {
                self.take_in_order(from, ports);
            }
        }
    }

    /// This node leads no more: what it holds it will never take.
    pub(crate) fn refuse_held(&mut self, ports: &mut impl Ports) {
        if self.taken.held > 0 {
            for (from, number) in self.taken.drop_held() {
                self.refuse_peer(from, number, ports);
            }
        }
    }

    fn refuse_peer(&self, (node, origin): SenderId, number: u64, ports: &mut impl Ports) {
        let leader = self.consensus.leader().filter(|l| *l != self.node());
        let answer = ProposeAnswer::Refused(Refusal::NotLeader { leader });
        self.answer_peer(node, origin, number, answer, ports);
    }

    pub(crate) fn answer_peer(
        &self,
        node: NodeId,
        origin: u64,
        number: u64,
        answer: ProposeAnswer,
        ports: &mut impl Ports,
    ) {
        let reply = PeerMessage::ProposeReply(ProposeReply {
            origin,
            number,
            answer,
        });
        ports.send(self.config.group, node, reply);
    }
}
