//! Crowds: masses of reads of old entries, of queries and of tails at one node, clients that give up, and clients that do not
//! take their answers for a while.
//!
//! They have a random stream of their own, so that a seed's other chances do not depend on them. They come while the storm
//! lasts. Invariant: an answer that a client holds counts until it takes it, as in a real process.

use crate::checkers::backlog::{self, UnderWay};
use crate::clients::Crowd;
use crate::ports::Work;
use crate::random::{Ppm, Random};
use crate::sometimes::Sometimes;
use crate::violation::Verdict;
use crate::world::{Event, World};
use kontiki_consensus::{Duration, NodeId, Run};
use kontiki_node::{Input, QUERIES_MAX, READ_FETCHES_MAX, Reply, Token};
use std::collections::BTreeSet;

/// What becomes of crowds in a run.
#[derive(Debug)]
pub(crate) struct Crowds {
    random: Random,
    /// The mean time between two.
    every: Option<Duration>,
    /// How often an answer is not taken at once.
    holds: Ppm,
    /// For how long, at most.
    held: Duration,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Stir {
    /// A crowd comes.
    Comes,
    /// Those of these who still wait at this node, in this life of it, give up.
    GivesUp(usize, u64, Vec<Token>),
    /// An answer of so many bytes is taken from this node, in this life of it.
    Takes(usize, u64, usize),
}

/// What reads and queries have under way at a node.
#[derive(Debug, Default)]
pub struct Reading {
    /// Fetches of clients that the log has not answered.
    pub fetches: BTreeSet<u64>,
    /// Bytes of answers that are not taken.
    pub held: usize,
    /// It is to be told when some are.
    pub wants_room: bool,
    /// How many queries in a row its machine has answered while something else waited.
    pub in_row: usize,
}

/// How many bytes an answer to a read or a query holds.
pub(crate) fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Reply::Read { runs, .. } => runs.iter().map(Run::weight).sum(),
        Reply::Answered { answer, .. } => answer.len(),
        _ => 0,
    }
}

impl Crowds {
    /// The habits of a seed: crowds come in two of five runs, and in half of the runs some do not take their answers at once.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6372_6f77_6473_2121);
        let often = Duration::from_millis(random.magnitude(500, 20_000));
        let every = random.chance(Ppm::percent(40)).then_some(often);
        let holds = Ppm::percent([0, 0, 10, 60][random.place(4)]);
        let held = Duration::from_millis(random.magnitude(1, 3_000));
        Self {
            random,
            every,
            holds,
            held,
        }
    }
}

impl World {
    /// Lets the next crowd come after a while.
    pub(crate) fn schedule_crowd(&mut self) {
        if let Some(every) = self.crowds.every {
            let at = self.now().after(self.crowds.random.around(every));
            self.queue.schedule(at, Event::Crowd(Stir::Comes));
        }
    }

    pub(crate) fn stir(&mut self, stir: Stir) {
        match stir {
            Stir::Comes if self.stormy => {
                self.crowd_comes();
                self.schedule_crowd();
            }
            Stir::Comes => {}
            Stir::GivesUp(node, life, tokens) if self.is_live(node, life) => self.give_up(node, tokens),
            Stir::Takes(node, life, bytes) if self.is_live(node, life) => self.take_answer(node, bytes),
            Stir::GivesUp(..) | Stir::Takes(..) => {}
        }
    }

    fn crowd_comes(&mut self) {
        let now = self.now();
        let random = &mut self.crowds.random;
        let node = NodeId(random.between(1, self.swarm.nodes as u64));
        let crowd = Crowd::draw(random, self.swarm.machine);
        let (patience, gives_up) = (crowd.patience, random.coin());
        let mut tokens = Vec::new();
        for _ in 0..crowd.count {
            let asked = self.clients.join(&crowd, node, now, &mut self.crowds.random);
            tokens.push(asked.token);
            self.request(asked);
        }
        if gives_up {
            let (node, after) = (
                node.0 as usize - 1,
                Duration(self.crowds.random.below(patience.0)),
            );
            let stir = Stir::GivesUp(node, self.replicas[node].life, tokens);
            self.queue.schedule(now.after(after), Event::Crowd(stir));
        }
    }

    /// Those of these who still wait do so no longer.
    fn give_up(&mut self, node: usize, mut tokens: Vec<Token>) {
        tokens.retain(|token| self.clients.withdraw(*token));
        if !tokens.is_empty() {
            self.log_line(|| format!("{} clients of n{} give up", tokens.len(), node + 1));
            self.checks.counters.hit(Sometimes::GivenUp);
            self.give(node, Input::Cancel(tokens));
        }
    }

    /// A client has been given an answer, and takes it now or later.
    pub(crate) fn answer_given(&mut self, node: usize, reply: &Reply) {
        let (bytes, life) = (bytes_of(reply), self.replicas[node].life);
        let crowds = &mut self.crowds;
        if bytes > 0 && self.stormy && crowds.random.chance(crowds.holds) {
            let at = self
                .queue
                .now()
                .after(Duration(crowds.random.below(crowds.held.0)));
            self.queue
                .schedule(at, Event::Crowd(Stir::Takes(node, life, bytes)));
        } else {
            self.take_answer(node, bytes);
        }
    }

    fn take_answer(&mut self, node: usize, bytes: usize) {
        let wanted = self.with(node, |process| {
            process.reading.held -= bytes;
            bytes > 0 && std::mem::take(&mut process.reading.wants_room)
        });
        if wanted == Some(true) {
            self.checks.counters.hit(Sometimes::RoomMade);
            self.give(node, Input::AnswersTaken);
        }
    }

    /// After a turn: what is under way for reads and queries stays below its bounds.
    pub(crate) fn check_reading(&mut self, node: usize) -> Verdict {
        let replica = &self.replicas[node];
        let Some(process) = &replica.process else {
            return Ok(());
        };
        let queued = process.tasks.iter().filter(|(_, work)| work.is_query()).count();
        let waiting = process.driver.reads_waiting();
        let under_way = UnderWay {
            fetches: process.reading.fetches.len(),
            queries: queued + process.asked.len(),
            held: process.reading.held,
            waiting,
            open: if waiting > 0 {
                self.clients.open_at(replica.node)
            } else {
                0
            },
        };
        let counters = &mut self.checks.counters;
        counters.hit_if(under_way.fetches == READ_FETCHES_MAX, Sometimes::ReadsInMasses);
        counters.hit_if(under_way.queries == QUERIES_MAX, Sometimes::QueriesInMasses);
        backlog::bounded(replica.node, &under_way, self.checks.allowance())
    }
}

impl Work {
    /// Whether it is a query.
    #[must_use]
    pub fn is_query(&self) -> bool {
        matches!(self, Self::Task(task) if task.query().is_some())
    }
}
