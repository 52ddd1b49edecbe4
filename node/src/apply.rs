//! Applying: how far the committed log has taken effect here.
//!
//! The state of a plain log *is* the log: it is applied as soon as it is known how far it goes, by arithmetic alone. A
//! machine is given the records one after the other, a bounded number of bytes at a time, and is applied as
//! far as it says. In both cases every record passes by once, in order, for what Kontiki itself keeps
//! ([`Meta`]): out of memory, or read back from the log after a restart. With a plain log that may lag
//! behind what is applied; sessions wait for it, nothing else does.
//! Invariant: never beyond what is committed and on this node's disk (consensus says both at once), and never back.

use crate::{
    driver::Driver,
    machine::{Done, Task},
    meta::{Changes, Meta},
    ports::Ports,
    sessions::Stored,
};
use bytes::Bytes;
use kontiki_consensus::{Body, Index, LogId, Position, Run, Time};
use kontiki_log::{Fetch, From, LogError};
use kontiki_wire::{Compared, Session};
use std::{collections::VecDeque, sync::Arc};

/// How many bytes of records are handed over at a time, about.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// How many bytes of records may be with the machine at once, about.
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;
/// How many bytes of outputs are kept for those who learn late that they waited for them.
const RECENT_BYTES_MAX: usize = 1 << 20;
/// What an output counts for beyond its bytes.
const RECENT_BYTES: usize = 64;

/// How far is applied, and how far may be.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The last record that is applied.
    pub(crate) at: LogId,
    /// The last user entry up to it.
    pub(crate) position: Position,
    /// What Kontiki keeps, behind the last record that has passed by.
    pub(crate) meta: Meta,
    /// Whether there is a machine.
    pub(crate) machine: bool,
    /// Committed and on disk.
    target: Index,
    /// The log is being asked which position `target` had when it was asked.
    asked: bool,
    /// The last record that was handed over, and the bytes that are not done with.
    handed: Index,
    under_way: usize,
    /// The log is being asked for the next records.
    fetching: bool,
    changes: Changes,
    recent: Recent,
}

/// The latest outputs of the machine, by record.
#[derive(Debug, Default)]
struct Recent {
    list: VecDeque<(Index, Bytes)>,
    bytes: usize,
}

impl Recent {
    fn add(&mut self, index: Index, outputs: Bytes) {
        self.bytes += RECENT_BYTES + outputs.len();
        self.list.push_back((index, outputs));
    }

    fn get(&self, index: Index) -> Option<&Bytes> {
        let place = self.list.binary_search_by_key(&index, |(i, _)| *i).ok()?;
        self.list.get(place).map(|(_, outputs)| outputs)
    }

    fn trim(&mut self) {
        while self.bytes > RECENT_BYTES_MAX {
            let Some((_, outputs)) = self.list.pop_front() else {
                return;
            };
            self.bytes -= RECENT_BYTES + outputs.len();
        }
    }
}

impl Applied {
    /// With a machine that goes on behind what `meta` says.
    pub(crate) fn with_machine(meta: Meta) -> Self {
        Self {
            at: meta.at,
            position: meta.position,
            handed: meta.at.index,
            machine: true,
            meta,
            ..Self::default()
        }
    }

    /// What became of an append of a session that stands there, if it is applied and that is still remembered.
    pub(crate) fn remembered(&self, at: LogId, session: Session) -> Option<&Stored> {
        match session {
            Session::In(of) => self.meta.sessions.answer(of).filter(|s| s.at() == at),
            Session::None | Session::Open => None,
        }
    }

    /// The state becomes that of a snapshot. What is kept may be further: then it stays, and records up to there
    /// have no effect on it again.
    pub(crate) fn install(&mut self, at: LogId, position: Position, meta: Meta) {
        (self.at, self.position) = (at, position);
        self.target = self.target.max(at.index);
        if meta.at.index > self.meta.at.index {
            self.meta = meta;
        }
        self.handed = self.meta.at.index;
        (self.asked, self.fetching) = (false, false);
    }

    /// What is kept becomes what it was at a later record; false if it is as far.
    pub(crate) fn resume(&mut self, meta: Meta) -> bool {
        let later = meta.at.index > self.meta.at.index;
        if later {
            self.handed = meta.at.index;
            self.meta = meta;
        }
        later
    }

    /// What the machine has answered is not to be relied on.
    pub(crate) fn forget_outputs(&mut self) {
        self.recent = Recent::default();
    }

    /// The last record that was handed over.
    pub(crate) fn handed(&self) -> Index {
        self.handed
    }

    /// How far is committed and on disk.
    pub(crate) fn target(&self) -> Index {
        self.target
    }

    /// Everything up to here is committed and on disk, as a snapshot shows.
    pub(crate) fn aim_at(&mut self, index: Index) {
        self.target = self.target.max(index);
    }

    /// Whether a machine that has kept its state can go on from it with a log that begins after `base`. One that knows
    /// nothing is better off with a snapshot, if there is one.
    pub(crate) fn goes_on_behind(&self, base: Index) -> bool {
        self.at != LogId::ZERO && self.at.index >= base
    }

    /// The machine will be given a snapshot up to `index`: what comes next is behind that.
    pub(crate) fn await_restore(&mut self, index: Index) {
        self.aim_at(index);
        self.handed = index;
        (self.asked, self.fetching) = (false, false);
    }

    /// The machine's state is that of a snapshot. It never goes back.
    pub(crate) fn restored(&mut self, at: LogId, position: Position, meta: Meta) {
        if at.index >= self.at.index {
            (self.at, self.position, self.meta) = (at, position, meta);
        }
    }

    /// What the machine answered to an applied record, if that is still remembered.
    pub(crate) fn outputs(&self, at: LogId, session: Session) -> Option<Bytes> {
        if !self.machine {
            return None;
        }
        self.remembered(at, session)
            .map(|stored| &stored.outputs)
            .or_else(|| self.recent.get(at.index))
            .cloned()
    }
}

impl Driver {
    /// Everything up to `index` is committed and on disk.
    pub(crate) fn commit(&mut self, index: Index, ports: &mut impl Ports) {
        self.applied.target = index;
        if !self.applied.machine {
            self.apply_plain(index, ports);
        }
        self.hand_over(ports);
    }

    fn apply_plain(&mut self, index: Index, ports: &mut impl Ports) {
        if let Some(position) = self.consensus.position_at(index) {
            self.apply_to(index, position, ports);
        } else if !self.applied.asked {
            // Just after a restart, the end of what is committed may lie before what memory holds.
            self.applied.asked = true;
            let token = self.reads.fetch_for_apply(index);
            let fetch = Fetch {
                token,
                from: From::Index(index),
                to: index,
                bytes_max: 1,
            };
            ports.fetch(self.config.group, fetch);
        }
    }

    /// The log told which position a committed index has.
    pub(crate) fn position_fetched(&mut self, index: Index, position: Position, ports: &mut impl Ports) {
        self.applied.asked = false;
        if index > self.applied.at.index {
            self.apply_to(index, position, ports);
        }
        if self.applied.target > self.applied.at.index {
            self.apply_plain(self.applied.target, ports);
        }
    }

    fn apply_to(&mut self, index: Index, position: Position, ports: &mut impl Ports) {
        let term = self.consensus.term_at(index).unwrap_or_default();
        self.applied.at = LogId::new(term, index);
        self.applied.position = position;
        self.serve_waiting(ports);
    }

    /// More is applied: answers everyone who waited for it.
    pub(crate) fn serve_waiting(&mut self, ports: &mut impl Ports) {
        self.answer_waiters(ports);
        self.answer_checks(ports);
        self.serve_applied(ports);
        self.applied.recent.trim();
    }

    /// Lets the records pass by that are committed and have not, as many as may be under way.
    pub(crate) fn hand_over(&mut self, ports: &mut impl Ports) {
        self.give_restores(ports);
        while self.stopped.is_none()
            && self.applied.handed < self.applied.target
            && !self.applied.fetching
            && !self.compare.holds()
            && self.applied.under_way < UNDER_WAY_BYTES_MAX
        {
            let (from, to) = (self.applied.handed.next(), self.applied.target);
            match self.consensus.runs(from, to, PIECE_BYTES_MAX) {
                Some(runs) => self.hand(runs, ports),
                None => {
                    self.applied.fetching = true;
                    let token = self.reads.fetch_for_replay();
                    let fetch = Fetch {
                        token,
                        from: From::Index(from),
                        to,
                        bytes_max: PIECE_BYTES_MAX,
                    };
                    ports.fetch(self.config.group, fetch);
                }
            }
        }
    }

    /// The log gives the records that come next.
    pub(crate) fn replay_fetched(&mut self, runs: Result<Vec<Run>, Arc<LogError>>, ports: &mut impl Ports) {
        self.applied.fetching = false;
        match runs {
            // It was found wrong while they were read. They are read again once it has another state.
            Ok(_) if self.compare.holds() => {}
            Ok(runs) => {
                self.hand(runs, ports);
                self.hand_over(ports);
            }
            // A snapshot takes their place, and that will be told.
            Err(_) if self.consensus.base().index > self.applied.handed => {}
            Err(error) => self.stop(error.to_string(), ports),
        }
    }

    fn hand(&mut self, runs: Vec<Run>, ports: &mut impl Ports) {
        let next = self.applied.handed.next();
        let Some(last) = runs.last().filter(|_| runs.first().map(Run::first) == Some(next)) else {
            let what = format!("record {next} is committed, and the log does not have it");
            return self.stop(what, ports);
        };
        self.applied.handed = last.last();
        if self.applied.machine {
            self.applied.under_way += weight(&runs);
            ports.work(self.config.group, Task::Apply(runs));
        } else {
            self.pass(&runs, &mut std::iter::empty(), &[]);
        }
    }

    /// The machine has done a task.
    pub(crate) fn take_done(&mut self, now: Time, done: Done, ports: &mut impl Ports) {
        match done {
            Done::Applied {
                runs,
                outputs,
                digests,
            } => {
                let weight = weight(&runs);
                self.applied.under_way = self.applied.under_way.saturating_sub(weight);
                self.count_applied(weight);
                self.remember(&runs, &outputs);
                self.pass(&runs, &mut outputs.into_iter(), &digests);
                self.applied.at = self.applied.meta.at;
                self.applied.position = self.applied.meta.position;
                self.serve_waiting(ports);
                self.hand_over(ports);
            }
            Done::Asked(asked) => self.query_asked(asked, ports),
            Done::Answered { token, answer } => self.query_answered(token, answer, ports),
            Done::Marked => {}
            Done::Source(found) => self.begin_own(now, found),
            Done::Restored(restore) => self.restored(now, restore, ports),
            Done::Failed(error) => self.stop(error.to_string(), ports),
        }
    }

    fn remember(&mut self, runs: &[Run], outputs: &[Bytes]) {
        let indexes = runs.iter().filter(|run| matches!(run.body(), Body::Records(_)));
        let indexes = indexes.flat_map(|run| run.first().0..=run.last().0).map(Index);
        for (index, outputs) in indexes.zip(outputs) {
            self.applied.recent.add(index, outputs.clone());
        }
    }

    /// Records take effect on what Kontiki keeps.
    fn pass(
        &mut self,
        runs: &[Run],
        outputs: &mut impl Iterator<Item = Bytes>,
        digests: &[(Index, Option<u64>)],
    ) {
        let Applied {
            meta,
            changes,
            machine,
            ..
        } = &mut self.applied;
        for run in runs {
            meta.take(run, outputs, changes);
        }
        self.clock.see(meta.sessions.clock());
        for key in &changes.answered {
            self.waiters.lands_in_session(*key);
        }
        self.waiters.opened_up_to(meta.at.index);
        self.counts.expired += changes.gone.len() as u64;
        self.counts.evicted += changes.evicted;
        if let Some(point) = changes.trim
            && !*machine
        {
            self.snapshots.trim(point);
        }
        for (compared, position) in &changes.compared {
            let digest = digests.iter().find(|(index, _)| *index == compared.index);
            let digest = digest.and_then(|(_, digest)| *digest);
            self.compare.passed(Compared { digest, ..*compared }, *position);
        }
        changes.clear();
        self.see_ages();
    }

    /// Whether this very record is applied; `None` if the log has forgotten what stood there.
    pub(crate) fn has_applied(&self, at: LogId) -> Option<bool> {
        if at.index > self.applied.at.index {
            return Some(false);
        }
        self.consensus.term_at(at.index).map(|term| term == at.term)
    }
}

fn weight(runs: &[Run]) -> usize {
    runs.iter().map(Run::weight).sum()
}
