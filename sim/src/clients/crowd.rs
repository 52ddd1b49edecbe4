//! Clients that come in masses, ask once, and may give up.

use super::{Asked, Clients, Question};
use crate::checkers::backlog::READ_BYTES_MAX;
use crate::machine::KEYS;
use crate::random::Random;
use crate::swarm::MachineKind;
use kontiki_consensus::{Duration, NodeId, Position, Time};
use kontiki_node::{Ask, Consistency, Token};

/// No client that asks on.
const NOBODY: usize = usize::MAX;

/// Clients that all ask the same kind of thing at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// How many there are.
    pub(crate) count: u64,
    /// How long each waits.
    pub(crate) patience: Duration,
    wants: Wants,
    consistency: Consistency,
}

#[derive(Clone, Copy, Debug)]
enum Wants {
    /// Entries from the first part of the log on.
    Old,
    /// The machine's answer.
    Answer,
    /// Entries that are not there yet.
    ToCome,
}

impl Crowd {
    pub(crate) fn draw(random: &mut Random, machine: MachineKind) -> Self {
        let wants = match random.below(4) {
            0 => Wants::ToCome,
            1 | 2 if machine != MachineKind::None => Wants::Answer,
            _ => Wants::Old,
        };
        let consistency = match random.below(4) {
            0 => Consistency::Linearizable,
            1 => Consistency::AtLeast(Position(random.magnitude(1, 500))),
            _ => Consistency::STALE,
        };
        Self {
            count: random.magnitude(10, 300),
            patience: Duration::from_millis(random.magnitude(2, 4_000)),
            wants,
            consistency,
        }
    }
}

impl Clients {
    /// What one of a crowd asks.
    pub(crate) fn join(&mut self, crowd: &Crowd, node: NodeId, now: Time, random: &mut Random) -> Asked {
        let consistency = crowd.consistency;
        let end = self.floor.now().0;
        let (from, wait) = match crowd.wants {
            Wants::Answer => {
                let query = vec![random.below(KEYS) as u8].into();
                let ask = Ask::Query { query, consistency };
                return self.of_crowd(crowd, now, node, Question::Query { consistency }, ask);
            }
            Wants::Old => (random.between(1, end / 2 + 1), false),
            Wants::ToCome => (end + random.magnitude(1, 1_000), true),
        };
        let (from, to) = (Position(from), Position(u64::MAX));
        let ask = Ask::Read {
            from,
            to,
            bytes_max: random.magnitude(1, READ_BYTES_MAX as u64) as usize,
            consistency,
            wait,
        };
        let question = Question::Read {
            from,
            to,
            consistency,
        };
        self.of_crowd(crowd, now, node, question, ask)
    }

    fn of_crowd(&mut self, crowd: &Crowd, now: Time, node: NodeId, question: Question, ask: Ask) -> Asked {
        let mut asked = self.open(NOBODY, now, node, question, ask);
        asked.patience = crowd.patience;
        asked
    }

    /// A client gives up, if it still waits.
    pub(crate) fn withdraw(&mut self, token: Token) -> bool {
        let waits = self.open.remove(&token).is_some();
        if waits {
            self.answers.withdraw(token);
        }
        waits
    }

    /// A node has heard that these have given up, and must not answer them any more.
    pub(crate) fn forget(&mut self, tokens: impl Iterator<Item = Token>) {
        tokens.for_each(|token| self.answers.forgotten(token));
    }

    /// How many requests a node has not answered that it may answer.
    pub(crate) fn open_at(&self, node: NodeId) -> usize {
        self.answers.open_at(node)
    }
}
