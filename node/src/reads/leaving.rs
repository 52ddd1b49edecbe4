//! How clients that wait for a read leave before it is answered: their time is over, they have given up, or the node stops.
//!
//! Invariants: one whose time is over, or whose node stops, is answered; one that has given up is not; nothing more is done
//! for any of them, except that the log ends a fetch it has begun.

use super::{EntryReader, Purpose, Reader, Reads};
use crate::{
    driver::Driver,
    ports::Ports,
    request::{Failure, Reply, Token},
};
use kontiki_consensus::{Event, Time};
use std::mem;

impl Reads {
    /// Takes all clients out of the lists of those that nothing is being done for yet, as far as they are to leave.
    fn take_waiting(&mut self, leaves: impl Fn(Token, Time) -> bool) -> Vec<Token> {
        let goes = |reader: &Reader| leaves(reader.token, reader.deadline);
        let mut left: Vec<Reader> = self.fresh.extract_if(.., |r| goes(r)).collect();
        left.extend(self.refused.extract_if(.., |(_, r)| goes(r)).map(|(_, r)| r));
        left.extend(self.confirmed.extract_if(.., |(_, r)| goes(r)).map(|(_, r)| r));
        left.extend(self.awaiting.extract_if(.., |(_, r)| goes(r)).map(|(_, r)| r));
        for (_, readers) in self.asked.values_mut() {
            left.extend(readers.extract_if(.., |r| goes(r)));
        }
        let mut left: Vec<Token> = left.into_iter().map(|reader| reader.token).collect();
        let mut stays = |token, deadline| {
            let stays = !leaves(token, deadline);
            if !stays {
                left.push(token);
            }
            stays
        };
        self.backlog.entries.retain(|r| stays(r.token, r.deadline));
        self.backlog.queries.retain(|q| stays(q.token, q.deadline));
        left
    }

    /// Takes away clients of what is under way, as far as they are to leave; gives the names of queries that the machine need
    /// not answer any more.
    fn take_under_way(&mut self, leaves: impl Fn(Token, Time) -> bool, left: &mut Vec<Token>) -> Vec<u64> {
        let mut queries = Vec::new();
        for (name, purpose) in &mut self.fetches {
            let Some((token, _)) = purpose.client().filter(|(t, deadline)| leaves(*t, *deadline)) else {
                continue;
            };
            left.push(token);
            match purpose {
                Purpose::Read(reader, _) => *reader = None,
                _ => queries.push(*name),
            }
        }
        for name in &queries {
            self.end_query(*name);
        }
        queries
    }

    /// How many clients wait.
    fn count(&self) -> usize {
        let asked: usize = self.asked.values().map(|(_, readers)| readers.len()).sum();
        let under_way = self.fetches.values().filter(|p| p.client().is_some()).count();
        let lists = self.fresh.len() + self.refused.len() + self.confirmed.len() + self.awaiting.len();
        let due = self.tails.len() + self.backlog.entries.len() + self.backlog.queries.len();
        asked + under_way + lists + due
    }

    /// Everybody leaves.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Token> {
        let mut left = self.take_waiting(|_, _| true);
        left.extend(mem::take(&mut self.tails).iter().map(|tail| tail.token));
        self.take_under_way(|_, _| true, &mut left);
        self.asked.clear();
        left.into_iter()
    }
}

impl Driver {
    /// Nothing is answered any more: who waits for entries need not wait longer.
    pub(crate) fn refuse_tails(&mut self, ports: &mut impl Ports) {
        for tail in mem::take(&mut self.reads.tails) {
            self.refuses(tail.token, ports);
        }
    }

    /// Answers every read whose deadline has passed: a tail with nothing, which is what it found.
    pub(crate) fn expire_reads(&mut self, now: Time, ports: &mut impl Ports) {
        let last = self.applied.position;
        for EntryReader { token, .. } in self.reads.tails.extract_if(.., |r| r.deadline <= now) {
            let runs = Vec::new();
            ports.reply(token, Reply::Read { runs, last });
        }
        for token in self.take_leaving(now, |_, deadline| deadline <= now, ports) {
            ports.reply(token, Reply::Failed(Failure::Timeout));
        }
    }

    /// Nobody waits for the answers to these any more. Appends go on; they are answered to nobody.
    pub(crate) fn cancel(&mut self, now: Time, mut tokens: Vec<Token>, ports: &mut impl Ports) {
        tokens.sort_unstable();
        let leaves = |token: Token| tokens.binary_search(&token).is_ok();
        self.reads.tails.retain(|tail| !leaves(tail.token));
        self.take_leaving(now, |token, _| leaves(token), ports);
    }

    /// How many reads and queries of clients are not answered yet.
    #[must_use]
    pub fn reads_waiting(&self) -> usize {
        self.reads.count()
    }

    fn take_leaving(
        &mut self,
        now: Time,
        leaves: impl Fn(Token, Time) -> bool,
        ports: &mut impl Ports,
    ) -> Vec<Token> {
        let mut left = self.reads.take_waiting(&leaves);
        let queries = self.reads.take_under_way(&leaves, &mut left);
        if !queries.is_empty() {
            ports.withdraw_queries(self.config.group, &queries);
        }
        // Comparisons may wait under the same name, but only at a leader, which answers each.
        let leads = self.consensus.leader() == Some(self.config.identity.node);
        let asked = &mut self.reads.asked;
        for (id, _) in asked.extract_if(.., |_, (_, readers)| readers.is_empty()) {
            if !leads {
                self.consensus.step(now, Event::CancelRead(id));
            }
        }
        left
    }
}
