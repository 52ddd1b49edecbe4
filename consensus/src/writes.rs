//! Writes on their way to disk: what is gathered for the next, what is under way, what is done.
//!
//! A write has a name, and its completion means that everything up to it is durable. Invariants:
//! writes complete in order; `persisted` never covers a record that a later write removes, for a
//! truncation or a new base lowers what every earlier write may still claim.

use crate::{Base, HardState, Index, Run, Runs, Write, WriteId};
use alloc::{boxed::Box, collections::VecDeque};

#[derive(Debug)]
pub(crate) struct Writes {
    /// Gathered since the last flush.
    hard_state: Option<HardState>,
    truncate: Option<Index>,
    install: Option<Box<Base>>,
    runs: Runs,
    purge: Option<Box<Base>>,
    /// The end of the log as the gathered write will leave it.
    end: Index,
    /// Given out and not yet reported: name, and the end of the log once it is done.
    under_way: VecDeque<(WriteId, Index)>,
    next: WriteId,
    done: WriteId,
    /// The write that makes the current term and vote durable.
    hard_state_in: WriteId,
    /// The write that lets the log begin after the latest snapshot from another server.
    install_in: WriteId,
    persisted: Index,
}

impl Writes {
    pub(crate) fn new(persisted: Index) -> Self {
        Self {
            hard_state: None,
            truncate: None,
            install: None,
            runs: Runs::new(),
            purge: None,
            end: persisted,
            under_way: VecDeque::new(),
            next: WriteId(1),
            done: WriteId::ZERO,
            hard_state_in: WriteId::ZERO,
            install_in: WriteId::ZERO,
            persisted,
        }
    }

    /// The last record that is on disk and has not been removed since.
    pub(crate) fn persisted(&self) -> Index {
        self.persisted
    }

    pub(crate) fn hard_state(&mut self, state: HardState) {
        self.hard_state = Some(state);
        self.hard_state_in = self.next;
    }

    /// Whether term and vote are on disk as they now are.
    pub(crate) fn hard_state_is_persisted(&self) -> bool {
        self.done >= self.hard_state_in
    }

    pub(crate) fn append(&mut self, run: Run) {
        self.end = run.last();
        self.runs.push(run);
    }

    /// The same for consecutive runs; their list becomes the write's if that has none yet.
    pub(crate) fn append_all(&mut self, runs: Runs) {
        let Some(last) = runs.last() else { return };
        self.end = last.last();
        self.runs.append(runs);
    }

    pub(crate) fn truncate(&mut self, from: Index) {
        let keep = from.prev();
        let gathered_from = self.runs.first().map_or(self.end.next(), Run::first);
        let kept = ::core::mem::take(&mut self.runs).into_iter();
        self.runs = kept.filter_map(|run| run.slice(run.first(), keep)).collect();
        if from < gathered_from {
            self.truncate = Some(self.truncate.map_or(from, |t| t.min(from)));
        }
        self.claim_at_most(keep);
        self.end = keep;
    }

    /// The log begins anew after `base`. Until that is on disk, only what is up to `keep` counts.
    pub(crate) fn install(&mut self, base: Base, keep: Index) {
        self.runs = Runs::new();
        (self.truncate, self.purge) = (None, None);
        self.claim_at_most(keep);
        self.end = base.last.index;
        self.install = Some(Box::new(base));
        self.install_in = self.next;
    }

    /// Whether the log on disk begins after the latest snapshot that was installed.
    pub(crate) fn install_is_persisted(&self) -> bool {
        self.done >= self.install_in
    }

    pub(crate) fn purge(&mut self, base: Base) {
        self.purge = Some(Box::new(base));
    }

    /// What is on disk, or will be once a write under way is done, counts up to `keep` only.
    fn claim_at_most(&mut self, keep: Index) {
        for (_, end) in &mut self.under_way {
            *end = (*end).min(keep);
        }
        self.persisted = self.persisted.min(keep);
    }

    /// Gives out what was gathered as one write, if anything was.
    pub(crate) fn take(&mut self) -> Option<Write> {
        let log_changes = self.truncate.is_some() || self.install.is_some() || self.purge.is_some();
        if self.hard_state.is_none() && self.runs.is_empty() && !log_changes {
            return None;
        }
        let id = self.next;
        self.next = id.next();
        self.under_way.push_back((id, self.end));
        Some(Write {
            id,
            hard_state: self.hard_state.take(),
            truncate: self.truncate.take(),
            install: self.install.take(),
            runs: ::core::mem::take(&mut self.runs),
            purge: self.purge.take(),
        })
    }

    /// This write and all before it are on disk. False if no such write was given out.
    pub(crate) fn complete(&mut self, id: WriteId) -> bool {
        if id >= self.next {
            return false;
        }
        while let Some(&(first, end)) = self.under_way.front().filter(|(first, _)| *first <= id) {
            self.done = first;
            self.persisted = end;
            self.under_way.pop_front();
        }
        true
    }
}
