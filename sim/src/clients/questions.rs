//! What the clients without sessions ask: appends, reads of entries and queries, drawn as the run has it.

use super::{Clients, Question};
use crate::checks::Checks;
use crate::entries::{self, EntryId};
use crate::machine::KEYS;
use crate::random::Ppm;
use crate::sometimes::Sometimes;
use kontiki_consensus::{Duration, Position};
use kontiki_node::{Ask, Consistency};
use kontiki_wire::{Expect, Session};

impl Clients {
    pub(super) fn append(&mut self, checks: &mut Checks) -> (Question, Ask) {
        let expect = self.expect();
        if expect != Expect::Any && self.random.chance(Ppm::percent(20)) {
            return (
                Question::Check { expect },
                Ask::Append {
                    payload: entries::payload(&[]),
                    expect,
                    session: Session::None,
                },
            );
        }
        let count = if self.random.chance(Ppm::percent(15)) {
            self.random.between(2, 5) as u32
        } else {
            1
        };
        self.append_of(count, expect, checks)
    }

    pub(super) fn append_of(&mut self, count: u32, expect: Expect, checks: &mut Checks) -> (Question, Ask) {
        self.operations += 1;
        let operation = self.operations;
        checks.appends.sent(operation, count);
        checks.counters.hit_if(count > 1, Sometimes::BatchAppended);
        let mut entry = |part| {
            let length = self.random.below(self.habits.entry_bytes_max as u64) as usize;
            entries::encode(EntryId { operation, part }, length)
        };
        let payload = entries::payload(&(0..count).map(&mut entry).collect::<Vec<_>>());
        (
            Question::Append { operation, expect },
            Ask::Append {
                payload,
                expect,
                session: Session::None,
            },
        )
    }

    fn expect(&mut self) -> Expect {
        let (position, term) = self.end;
        match self.random.below(12) {
            0 => Expect::Empty,
            1 => Expect::Last { position, term: None },
            2 => Expect::Last {
                position,
                term: Some(term),
            },
            _ => Expect::Any,
        }
    }

    pub(super) fn read(&mut self) -> (Question, Ask) {
        let from = Position(self.random.between(1, self.floor.now().0 + 2));
        let to = Position(if self.random.coin() {
            from.0 + self.random.below(30)
        } else {
            u64::MAX
        });
        let consistency = self.consistency();
        let bytes_max = self.random.magnitude(1, 16 << 10) as usize;
        (
            Question::Read {
                from,
                to,
                consistency,
            },
            Ask::Read {
                from,
                to,
                bytes_max,
                consistency,
                wait: false,
            },
        )
    }

    pub(super) fn query(&mut self) -> (Question, Ask) {
        let consistency = self.consistency();
        let query = vec![self.random.below(KEYS) as u8].into();
        (Question::Query { consistency }, Ask::Query { query, consistency })
    }

    fn consistency(&mut self) -> Consistency {
        match self.random.below(10) {
            0..=3 => Consistency::Linearizable,
            4..=6 => Consistency::Lease,
            7 => Consistency::AtLeast(Position(self.floor.now().0 + self.random.below(3))),
            8 => Consistency::Stale {
                max_lag: Some(Duration(self.random.magnitude(1_000_000, 2_000_000_000))),
            },
            _ => Consistency::STALE,
        }
    }
}
