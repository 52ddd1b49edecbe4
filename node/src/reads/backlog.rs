//! Reads that are due and cannot be answered at once: entries that are only on disk, and queries of the machine.
//!
//! Log and machine work beside the driver, and an answer takes memory until its client has taken it. So only a few reads are
//! with either of them at a time, and the others wait here, in the order in which they became due. Invariants: at most
//! [`READ_FETCHES_MAX`] reads of clients are with the log and [`QUERIES_MAX`] queries with the machine; answers that are given
//! and not taken, and those that the log is reading, stay below `in_flight_bytes_max` together, but for one that is larger by
//! itself; a read whose time is over goes to neither.

use super::{EntryReader, Purpose, Reads};
use crate::{
    driver::Driver,
    machine::Task,
    ports::Ports,
    request::{Failure, Reply, Token},
};
use bytes::Bytes;
use kontiki_consensus::{Position, Run, Time};
use kontiki_log::{Fetch, From};
use kontiki_wire::Refusal;
use std::collections::VecDeque;

/// How many reads of clients the log carries out at a time.
pub const READ_FETCHES_MAX: usize = 4;

/// How many queries may be with the machine, waiting for their turn or being answered.
pub const QUERIES_MAX: usize = 64;

/// How many bytes these may have together; one may have more.
const QUERIES_BYTES_MAX: usize = 1 << 20;

/// How many reads of entries, and how many queries, may wait here; one more is refused as overloaded.
pub const READS_WAITING_MAX: usize = 64 << 10;

/// A query that is due.
#[derive(Debug)]
pub(super) struct QueryReader {
    pub(super) token: Token,
    pub(super) deadline: Time,
    query: Bytes,
}

/// What is due, and how much is under way.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) entries: VecDeque<EntryReader>,
    pub(super) queries: VecDeque<QueryReader>,
    /// Reads of clients that are with the log, and how many bytes they may give.
    fetches: usize,
    fetches_bytes: usize,
    /// Queries that are with the machine, and their bytes.
    with_machine: usize,
    with_machine_bytes: usize,
    /// The first read of entries waits for answers to be taken: what could be answered from memory stands behind it.
    lacks_room: bool,
}

impl Backlog {
    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.queries.is_empty()
    }

    /// The log has answered a read of a client that might have given so many bytes.
    pub(super) fn end_fetch(&mut self, bytes: usize) {
        self.fetches = self.fetches.saturating_sub(1);
        self.fetches_bytes = self.fetches_bytes.saturating_sub(bytes);
    }

    fn takes_query(&self, bytes: usize) -> bool {
        self.with_machine < QUERIES_MAX
            && (self.with_machine == 0 || self.with_machine_bytes.saturating_add(bytes) <= QUERIES_BYTES_MAX)
    }
}

impl Reads {
    /// A query is with the machine no more: who asked it, and what the state holds that it was answered from.
    pub(super) fn end_query(&mut self, token: u64) -> Option<(Token, Option<Position>)> {
        let is_query = |purpose: &Purpose| matches!(purpose, Purpose::Query { .. });
        if !self.fetches.get(&token).is_some_and(is_query) {
            return None;
        }
        let Some(Purpose::Query { token, at, bytes, .. }) = self.fetches.remove(&token) else {
            return None;
        };
        self.backlog.with_machine = self.backlog.with_machine.saturating_sub(1);
        self.backlog.with_machine_bytes = self.backlog.with_machine_bytes.saturating_sub(bytes);
        Some((token, at))
    }
}

impl Driver {
    /// A read of entries waits for its turn.
    pub(super) fn put_reader(&mut self, reader: EntryReader, ports: &mut impl Ports) {
        if self.reads.backlog.entries.len() < READS_WAITING_MAX {
            self.reads.backlog.entries.push_back(reader);
        } else {
            self.refuse(reader.token, Refusal::Overloaded, ports);
        }
    }

    /// A query waits for its turn.
    pub(super) fn put_query(&mut self, token: Token, deadline: Time, query: Bytes, ports: &mut impl Ports) {
        if self.reads.backlog.queries.len() < READS_WAITING_MAX {
            let query = QueryReader {
                token,
                deadline,
                query,
            };
            self.reads.backlog.queries.push_back(query);
        } else {
            self.refuse(token, Refusal::Overloaded, ports);
        }
    }

    /// Answers a read of entries if memory holds them, and there is room for the answer.
    pub(super) fn give_from_memory(&mut self, reader: EntryReader, ports: &mut impl Ports) -> bool {
        if self.reads.backlog.lacks_room {
            return false;
        }
        let range = reader.range;
        let limit = self.applied.at.index;
        let found = self
            .consensus
            .runs_between(range.from, range.to, limit, range.bytes_max);
        let Some(runs) = found else { return false };
        let bytes = runs.iter().map(Run::weight).sum();
        if !self.has_room(bytes, ports) {
            return false;
        }
        let last = self.applied.position;
        ports.reply(reader.token, Reply::Read { runs, last });
        true
    }

    /// Hands on what is due, as much as may be under way.
    pub(crate) fn carry_on_reads(&mut self, now: Time, ports: &mut impl Ports) {
        if !self.reads.backlog.is_empty() {
            self.carry_on_entries(now, ports);
            self.carry_on_queries(now, ports);
        }
    }

    fn carry_on_entries(&mut self, now: Time, ports: &mut impl Ports) {
        self.reads.backlog.lacks_room = false;
        while let Some(reader) = self.reads.backlog.entries.pop_front() {
            let EntryReader {
                token,
                deadline,
                range,
            } = reader;
            if self.refuses(token, ports) {
                continue;
            }
            if deadline <= now {
                ports.reply(token, Reply::Failed(Failure::Timeout));
                continue;
            }
            if self.give_from_memory(reader, ports) {
                continue;
            }
            let is_full = self.reads.backlog.fetches >= READ_FETCHES_MAX;
            if is_full || !self.has_room(range.bytes_max, ports) {
                self.reads.backlog.lacks_room = !is_full;
                self.reads.backlog.entries.push_front(reader);
                return;
            }
            self.reads.backlog.fetches += 1;
            self.reads.backlog.fetches_bytes += range.bytes_max;
            let purpose = Purpose::Read(Some(reader), range.bytes_max);
            let fetch = Fetch {
                token: self.reads.fetch(purpose),
                from: From::Position(range.from),
                to: self.applied.at.index,
                bytes_max: range.bytes_max,
            };
            ports.fetch(self.config.group, fetch);
        }
    }

    fn carry_on_queries(&mut self, now: Time, ports: &mut impl Ports) {
        while let Some(reader) = self.reads.backlog.queries.pop_front() {
            let QueryReader { token, deadline, .. } = reader;
            if self.refuses(token, ports) {
                continue;
            }
            if deadline <= now {
                ports.reply(token, Reply::Failed(Failure::Timeout));
                continue;
            }
            let bytes = reader.query.len();
            if !self.reads.backlog.takes_query(bytes) || !self.has_room(0, ports) {
                self.reads.backlog.queries.push_front(reader);
                return;
            }
            self.reads.backlog.with_machine += 1;
            self.reads.backlog.with_machine_bytes += bytes;
            let at = None;
            let token = self.reads.fetch(Purpose::Query {
                token,
                deadline,
                bytes,
                at,
            });
            let query = reader.query;
            // It has applied all that was handed over so far when it comes to this.
            ports.work(self.config.group, Task::Query { token, query });
        }
    }

    /// Whether an answer of so many bytes may be given besides those that are not taken and those that the log is reading.
    /// If not, [`Input::AnswersTaken`](crate::Input::AnswersTaken) or an answer of the log follows.
    fn has_room(&self, bytes: usize, ports: &mut impl Ports) -> bool {
        let Backlog {
            fetches,
            fetches_bytes,
            ..
        } = self.reads.backlog;
        let most = self.config.in_flight_bytes_max.checked_sub(fetches_bytes);
        match most.and_then(|most| most.checked_sub(bytes)) {
            Some(most) if ports.answers_held(most) <= most => true,
            // One always goes ahead.
            _ => fetches == 0 && ports.answers_held(0) == 0,
        }
    }
}
