//! Reads, and everything else that is fetched from the log.
//!
//! A linearizable read (dissertation §6.4) asks consensus how far it must see: all that come in one
//! turn ask together, under one name. When that is applied here, it is served like a stale one: from
//! memory, or from the log; a query, by the machine. What other reads need is in [`freshness`], how much is with the log and the
//! machine at a time in [`backlog`], and how those who wait leave in [`leaving`]. Invariants: a name is never used twice, over restarts too; a read shows
//! nothing that is not applied; one that was refused is asked again until its deadline, not in circles.

mod backlog;
mod freshness;
mod leaving;

use crate::{
    driver::Driver,
    machine::Asked,
    ports::Ports,
    request::{Ask, Failure, Reply, Token},
};
use backlog::Backlog;
pub use backlog::{QUERIES_MAX, READ_FETCHES_MAX, READS_WAITING_MAX};
use bytes::Bytes;
use freshness::Rounds;
use kontiki_consensus::{Event, Index, NodeId, Position, ReadId, Run, Time};
use kontiki_log::{Fetch, From, LogError};
use std::{collections::BTreeMap, sync::Arc};

/// A client's read.
#[derive(Clone, Debug)]
struct Reader {
    token: Token,
    deadline: Time,
    wanted: Wanted,
}

/// What is to be read.
#[derive(Clone, Debug)]
enum Wanted {
    Entries(Range),
    /// The machine's answer.
    Answer(Bytes),
}

#[derive(Clone, Copy, Debug)]
struct Range {
    from: Position,
    to: Position,
    bytes_max: usize,
    wait: bool,
}

/// A client's read of entries.
#[derive(Clone, Copy, Debug)]
struct EntryReader {
    token: Token,
    deadline: Time,
    range: Range,
}

/// What a fetch was for.
#[derive(Debug)]
enum Purpose {
    /// Consensus, for a follower that is far behind.
    Peer { peer: NodeId, from: Index },
    /// The position of a committed record.
    Apply(Index),
    /// The records that pass by next.
    Replay,
    /// A client, unless it has left meanwhile; its answer may have so many bytes.
    Read(Option<EntryReader>, usize),
    /// A client asked the machine; this is no fetch, but a task under the same kind of name.
    Query {
        token: Token,
        deadline: Time,
        /// Length of the query, in bytes.
        bytes: usize,
        /// What the state it is answered from holds, once that is known.
        at: Option<Position>,
    },
}

impl Purpose {
    /// The client that waits, and until when.
    fn client(&self) -> Option<(Token, Time)> {
        match self {
            Self::Read(reader, _) => reader.map(|reader| (reader.token, reader.deadline)),
            Self::Query { token, deadline, .. } => Some((*token, *deadline)),
            Self::Peer { .. } | Self::Apply(_) | Self::Replay => None,
        }
    }
}

/// All reads, by what they wait for.
#[derive(Debug)]
pub(crate) struct Reads {
    /// The next name: names begin anywhere among 2^64, so that those of two lives do not meet.
    next_id: u64,
    next_token: u64,
    /// The name that comparisons of this turn wait for; consensus has still to be asked.
    confirming: Option<ReadId>,
    /// To be asked as soon as there is a leader.
    fresh: Vec<Reader>,
    /// Asked, and when.
    asked: BTreeMap<ReadId, (Time, Vec<Reader>)>,
    /// Refused, and when.
    refused: Vec<(Time, Reader)>,
    /// Confirmed: they wait for this index to be applied.
    confirmed: Vec<(Index, Reader)>,
    /// They wait for the entry at this position to be applied.
    awaiting: Vec<(Position, Reader)>,
    /// What confirmed questions have told.
    rounds: Rounds,
    /// They wait for something to stand where they begin.
    tails: Vec<EntryReader>,
    /// They can be answered, and wait for the log or the machine.
    backlog: Backlog,
    fetches: BTreeMap<u64, Purpose>,
}

impl Reads {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            next_id: crate::drawn(seed, 2),
            next_token: 0,
            confirming: None,
            fresh: Vec::new(),
            asked: BTreeMap::new(),
            refused: Vec::new(),
            confirmed: Vec::new(),
            awaiting: Vec::new(),
            rounds: Rounds::default(),
            tails: Vec::new(),
            backlog: Backlog::default(),
            fetches: BTreeMap::new(),
        }
    }

    /// Whether no client waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.asked.is_empty()
            && self.refused.is_empty()
            && self.confirmed.is_empty()
            && self.awaiting.is_empty()
            && self.tails.is_empty()
            && self.backlog.is_empty()
            && !self.fetches.values().any(|p| p.client().is_some())
    }

    fn next_id(&mut self) -> ReadId {
        self.next_id = self.next_id.wrapping_add(1);
        ReadId(self.next_id)
    }

    /// The name under which this turn's read round will be confirmed.
    pub(crate) fn confirm(&mut self) -> ReadId {
        let id = self.confirming.unwrap_or_else(|| self.next_id());
        *self.confirming.insert(id)
    }

    fn fetch(&mut self, purpose: Purpose) -> u64 {
        self.next_token += 1;
        self.fetches.insert(self.next_token, purpose);
        self.next_token
    }

    pub(crate) fn fetch_for_apply(&mut self, index: Index) -> u64 {
        self.fetch(Purpose::Apply(index))
    }

    pub(crate) fn fetch_for_replay(&mut self) -> u64 {
        self.fetch(Purpose::Replay)
    }

    pub(crate) fn fetch_for_peer(&mut self, peer: NodeId, from: Index, to: Index, bytes_max: usize) -> Fetch {
        let token = self.fetch(Purpose::Peer { peer, from });
        Fetch {
            token,
            from: From::Index(from),
            to,
            bytes_max,
        }
    }

    /// What was being read to be applied is not needed any more: a late answer finds nobody.
    pub(crate) fn forget_replay(&mut self) {
        self.fetches
            .retain(|_, purpose| !matches!(purpose, Purpose::Apply(_) | Purpose::Replay));
    }

    /// What was refused is asked again: there is news of the leader.
    pub(crate) fn ask_again(&mut self) {
        self.fresh
            .extend(self.refused.drain(..).map(|(_, reader)| reader));
    }
}

impl Driver {
    /// A client's read.
    pub(crate) fn read(
        &mut self,
        now: Time,
        (token, deadline): (Token, Time),
        ask: Ask,
        ports: &mut impl Ports,
    ) {
        let (wanted, consistency) = match ask {
            Ask::Read {
                from,
                to,
                bytes_max,
                consistency,
                wait,
            } => {
                let range = Range {
                    from,
                    to,
                    bytes_max,
                    wait,
                };
                (Wanted::Entries(range), consistency)
            }
            Ask::Query { .. } if !self.applied.machine => {
                let why = Failure::Query("there is no state machine on top of this log".to_owned());
                return ports.reply(token, Reply::Failed(why));
            }
            Ask::Query { query, consistency } => (Wanted::Answer(query), consistency),
            Ask::Append { .. } | Ask::OpenSession => return,
        };
        let reader = Reader {
            token,
            deadline,
            wanted,
        };
        self.begin_read(now, reader, consistency, ports);
    }

    /// Asks consensus, once for all that wait to be asked.
    pub(crate) fn ask_reads(&mut self, now: Time) {
        let readers = match self.consensus.leader() {
            Some(_) => std::mem::take(&mut self.reads.fresh),
            None => Vec::new(),
        };
        if readers.is_empty() && self.reads.confirming.is_none() {
            return;
        }
        let id = self
            .reads
            .confirming
            .take()
            .unwrap_or_else(|| self.reads.next_id());
        if !readers.is_empty() {
            self.reads.asked.insert(id, (now, readers));
        }
        self.consensus.step(now, Event::Read(id));
    }

    pub(crate) fn read_ready(&mut self, id: ReadId, index: Index, ports: &mut impl Ports) {
        self.checks_confirmed(id, ports);
        let Some((asked, readers)) = self.reads.asked.remove(&id) else {
            return;
        };
        self.reads.rounds.confirmed(asked, index, self.applied.at.index);
        for reader in readers {
            self.serve_at(index, reader, ports);
        }
    }

    /// Answers a read as soon as this is applied.
    fn serve_at(&mut self, index: Index, reader: Reader, ports: &mut impl Ports) {
        if index <= self.applied.at.index {
            self.serve(reader, ports);
        } else {
            self.reads.confirmed.push((index, reader));
        }
    }

    pub(crate) fn read_refused(&mut self, now: Time, id: ReadId, ports: &mut impl Ports) {
        self.checks_refused(id, ports);
        let readers = self
            .reads
            .asked
            .remove(&id)
            .into_iter()
            .flat_map(|(_, readers)| readers);
        self.reads.refused.extend(readers.map(|reader| (now, reader)));
    }

    /// Asks again, by another name, what was refused a while ago, and what the leader has not answered:
    /// the question or its answer may be lost. At the leader itself nothing is.
    pub(crate) fn ask_overdue(&mut self, now: Time) {
        let patience = self.patience();
        let overdue = |since: Time| now >= since.after(patience);
        let refused = self.reads.refused.extract_if(.., |(since, _)| overdue(*since));
        self.reads.fresh.extend(refused.map(|(_, reader)| reader));
        if self.consensus.leader() == Some(self.node()) {
            return;
        }
        let lost = self.reads.asked.extract_if(.., |_, (since, _)| overdue(*since));
        for (id, (_, readers)) in lost {
            self.reads.fresh.extend(readers);
            self.consensus.step(now, Event::CancelRead(id));
        }
    }

    /// More is applied: serves whoever waited for it.
    pub(crate) fn serve_applied(&mut self, ports: &mut impl Ports) {
        let (index, position) = (self.applied.at.index, self.applied.position);
        if self.reads.confirmed.is_empty() && self.reads.awaiting.is_empty() && self.reads.tails.is_empty() {
            return;
        }
        let confirmed = self
            .reads
            .confirmed
            .extract_if(.., |(at, _)| *at <= index)
            .map(|(_, r)| r);
        let mut ready: Vec<Reader> = confirmed.collect();
        let waited = self.reads.awaiting.extract_if(.., |(at, _)| *at <= position);
        let before = ready.len();
        ready.extend(waited.map(|(_, r)| r));
        self.counts.awaited += (ready.len() - before) as u64;
        let tails = self.reads.tails.extract_if(.., |r| r.range.from <= position);
        let tails: Vec<EntryReader> = tails.collect();
        for reader in ready {
            self.serve(reader, ports);
        }
        for tail in tails {
            self.serve_entries(tail, ports);
        }
    }

    /// Answers a read from what is applied.
    fn serve(&mut self, reader: Reader, ports: &mut impl Ports) {
        if self.refuses(reader.token, ports) {
            return;
        }
        let Reader {
            token,
            deadline,
            wanted,
        } = reader;
        match wanted {
            Wanted::Entries(range) => {
                let reader = EntryReader {
                    token,
                    deadline,
                    range,
                };
                self.serve_entries(reader, ports);
            }
            Wanted::Answer(query) => self.put_query(token, deadline, query, ports),
        }
    }

    /// A query is to be answered aside, from the state as it is behind the tasks that were told.
    pub(crate) fn query_asked(&mut self, asked: Asked, ports: &mut impl Ports) {
        let position = self.applied.position;
        // Otherwise its client has been answered already.
        if let Some(Purpose::Query { at, .. }) = self.reads.fetches.get_mut(&asked.token()) {
            *at = Some(position);
            ports.query(self.config.group, asked);
        }
    }

    /// The machine has answered a query.
    pub(crate) fn query_answered(
        &mut self,
        token: u64,
        answer: Result<Bytes, String>,
        ports: &mut impl Ports,
    ) {
        // Otherwise its client has been answered already.
        if let Some((token, at)) = self.reads.end_query(token)
            && !self.refuses(token, ports)
        {
            let reply = match answer {
                // What was handed over before the query is done with by now, and nothing else.
                Ok(answer) => Reply::Answered {
                    answer,
                    at: at.unwrap_or(self.applied.position),
                },
                Err(why) => Reply::Failed(Failure::Query(why)),
            };
            ports.reply(token, reply);
        }
    }

    fn serve_entries(&mut self, mut reader: EntryReader, ports: &mut impl Ports) {
        if self.refuses(reader.token, ports) {
            return;
        }
        let last = self.applied.position;
        let first = self.first();
        if reader.range.from == Position::ZERO {
            // From where the log begins; a range that ends before that is gone.
            let some = reader.range.to > first;
            reader.range.from = if some { first } else { Position(1) };
        }
        let Range { from, to, wait, .. } = reader.range;
        if from < first {
            ports.reply(reader.token, Reply::Failed(Failure::Compacted { first }));
        } else if from > last && wait {
            // A range that can hold nothing waits too: answered at once, a tail from the last index there is would ask
            // again without a pause.
            self.reads.tails.push(reader);
        } else if from >= to || from > last {
            ports.reply(
                reader.token,
                Reply::Read {
                    runs: Vec::new(),
                    last,
                },
            );
        } else if !self.give_from_memory(reader, ports) {
            self.put_reader(reader, ports);
        }
    }

    /// The log answers.
    pub(crate) fn take_fetched(
        &mut self,
        now: Time,
        token: u64,
        runs: Result<Vec<Run>, Arc<LogError>>,
        ports: &mut impl Ports,
    ) {
        match self.reads.fetches.remove(&token) {
            Some(Purpose::Peer { peer, from }) => {
                let runs = match runs {
                    Ok(runs) => runs,
                    // What it has acknowledged is gone: whoever counts on this node must not any longer.
                    Err(error) if matches!(*error, LogError::Damaged(_)) => {
                        return self.stop(error.to_string(), ports);
                    }
                    Err(error) => {
                        tracing::warn!(%peer, %from, %error, "records for a follower could not be read");
                        Vec::new()
                    }
                };
                self.consensus.step(now, Event::Fetched { peer, from, runs });
            }
            Some(Purpose::Apply(index)) => match runs {
                Ok(runs) => match runs.iter().find(|r| r.first() <= index && index <= r.last()) {
                    Some(run) => self.position_fetched(index, run.position_at(index), ports),
                    None => self.stop(
                        format!("record {index} is committed, and the log does not have it"),
                        ports,
                    ),
                },
                // A snapshot takes its place, and that will be told.
                Err(_) if self.consensus.base().index >= index => {}
                Err(error) => self.stop(error.to_string(), ports),
            },
            Some(Purpose::Replay) => self.replay_fetched(runs, ports),
            Some(Purpose::Read(reader, bytes)) => {
                self.reads.backlog.end_fetch(bytes);
                if let Some(reader) = reader {
                    self.serve_fetched(reader, runs, ports);
                }
            }
            // Its client has been answered already.
            Some(Purpose::Query { .. }) | None => {}
        }
    }

    fn serve_fetched(
        &self,
        reader: EntryReader,
        runs: Result<Vec<Run>, Arc<LogError>>,
        ports: &mut impl Ports,
    ) {
        if self.refuses(reader.token, ports) {
            return;
        }
        let Range { from, to, .. } = reader.range;
        let missing = || {
            let what = format!("entry {from} is applied, and the log does not have it");
            Arc::new(LogError::Damaged(what))
        };
        let found = |runs: &Vec<Run>| runs.iter().any(|r| r.index_of(from).is_some());
        let reply = match runs.and_then(|runs| found(&runs).then_some(runs).ok_or_else(missing)) {
            Ok(runs) => Reply::Read {
                runs: up_to(to, runs),
                last: self.applied.position,
            },
            Err(error) => match *error {
                LogError::Compacted { first } => Reply::Failed(Failure::Compacted { first }),
                _ => Reply::Failed(Failure::Log(error)),
            },
        };
        ports.reply(reader.token, reply);
    }
}

/// Without the records behind the one that holds the entry before `to`.
fn up_to(to: Position, mut runs: Vec<Run>) -> Vec<Run> {
    let end = runs
        .iter()
        .enumerate()
        .find_map(|(n, run)| Some((n, run.index_of(to.prev())?)));
    if let Some((n, index)) = end {
        runs.truncate(n + 1);
        if let Some(last) = runs.last_mut()
            && let Some(head) = last.slice(last.first(), index)
        {
            *last = head;
        }
    }
    runs
}
