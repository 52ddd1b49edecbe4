//! Compare-and-append: "append only if the log ends here".
//!
//! The leader compares with the last *appended* user entry. A hit is safe by Log Matching: if the
//! append commits, so has everything it was compared with. A miss is answered only once the end it
//! names is applied in the same term and a read round begun after the request has confirmed that
//! this node still leads; otherwise the answer is "not the leader", which says nothing about the log.
//! An append that appends nothing is answered like a miss, with what the comparison gave; and so is one of a
//! session that this node does not know, or whose number it no longer remembers.

use crate::{driver::Driver, ports::Ports, proposals::Origin, request::Token};
use kontiki_consensus::{Admission, LogId, Position, ReadId, Term, Time};
use kontiki_wire::{Expect, Refusal};

/// An answer about the end of the log that is not yet certain.
#[derive(Debug)]
struct Check {
    origin: Origin,
    read: ReadId,
    /// The last record when the comparison was made.
    end: LogId,
    /// What is to be answered then.
    refusal: Refusal,
    confirmed: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    list: Vec<Check>,
}

impl Checks {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn expire(&mut self, now: Time, late: &mut Vec<Token>) {
        let is_late = |c: &mut Check| matches!(c.origin, Origin::Client { deadline, .. } if deadline <= now);
        late.extend(self.list.extract_if(.., is_late).filter_map(|c| client(&c)));
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        std::mem::take(&mut self.list)
            .into_iter()
            .filter_map(|c| client(&c))
    }
}

fn client(check: &Check) -> Option<Token> {
    match check.origin {
        Origin::Client { token, .. } => Some(token),
        Origin::Peer { .. } => None,
    }
}

impl Driver {
    /// Whether the log ends as expected just before `next`.
    pub(crate) fn expectation_holds(&self, next: Admission, expect: Expect) -> bool {
        if expect == Expect::Any {
            return true;
        }
        let (last, last_term) = self.end_before(next);
        match expect {
            Expect::Any => true,
            Expect::Empty => last == Position::ZERO,
            Expect::Last { position, term } => position == last && term.is_none_or(|t| last_term == Some(t)),
        }
    }

    /// Position and term of the last user entry before `next`, which may be sealed but not yet proposed. No term
    /// while what lies before the beginning of the log is still being read.
    fn end_before(&self, next: Admission) -> (Position, Option<Term>) {
        let (last, meta) = (next.position.prev(), &self.applied.meta);
        let term = if last == Position::ZERO {
            Some(Term::ZERO)
        } else if last > self.consensus.last_position() {
            Some(next.term)
        } else {
            let remembered = (meta.position == last).then_some(meta.position_term);
            self.consensus.term_of(last).or(remembered)
        };
        (last, term)
    }

    /// Begins to make certain where the log ends, to answer a miss, or an append that appends nothing.
    pub(crate) fn check_end(&mut self, origin: Origin, next: Admission, expect: Expect) {
        let refusal = match self.end_before(next) {
            // Says nothing about the log: ask again.
            (_, None) => Refusal::NotLeader { leader: None },
            (last, Some(term)) if self.expectation_holds(next, expect) => Refusal::Holds { last, term },
            (last, Some(term)) => Refusal::Mismatch { last, term },
        };
        self.refuse_confirmed(origin, next, refusal);
    }

    /// Refuses an append for what stands before `next`, once it is certain that this is the log.
    pub(crate) fn refuse_confirmed(&mut self, origin: Origin, next: Admission, refusal: Refusal) {
        let index = next.index.prev();
        let term = self.consensus.term_at(index).unwrap_or(next.term);
        let read = self.reads.confirm();
        let end = LogId::new(term, index);
        self.checks.list.push(Check {
            origin,
            read,
            end,
            refusal,
            confirmed: false,
        });
    }

    /// A read round that began after these comparisons has confirmed that this node leads.
    pub(crate) fn checks_confirmed(&mut self, read: ReadId, ports: &mut impl Ports) {
        for check in self.checks.list.iter_mut().filter(|c| c.read == read) {
            check.confirmed = true;
        }
        self.answer_checks(ports);
    }

    /// Leadership was lost before it was confirmed.
    pub(crate) fn checks_refused(&mut self, read: ReadId, ports: &mut impl Ports) {
        let leader = self.consensus.leader().filter(|l| *l != self.node());
        let refused: Vec<Check> = self.checks.list.extract_if(.., |c| c.read == read).collect();
        for check in refused {
            self.answer(check.origin, Err(Refusal::NotLeader { leader }), ports);
        }
    }

    /// Answers what is confirmed and applied.
    pub(crate) fn answer_checks(&mut self, ports: &mut impl Ports) {
        if self.checks.list.is_empty() {
            return;
        }
        let applied = self.applied.at;
        let ready: Vec<Check> = self
            .checks
            .list
            .extract_if(.., |c| c.confirmed && c.end <= applied)
            .collect();
        for check in ready {
            let refusal = if self.has_applied(check.end) == Some(true) {
                check.refusal
            } else {
                Refusal::NotLeader {
                    leader: self.consensus.leader(),
                }
            };
            self.answer(check.origin, Err(refusal), ports);
        }
    }
}
