//! Writes on their way to disk: what is gathered for the next, what is under way, what is done.
//!
//! A write has a name, and its completion means that everything up to it is durable. Invariants:
//! writes complete in order; `persisted` never covers a record that a later write removes, for a
//! truncation or a new base lowers what every earlier write may still claim.

use crate::{Base, HardState, Index, Output, Run, Runs, Write, WriteId};
use ::core::mem::take;
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

#[derive(Debug)]
pub(crate) struct Writes {
    /// Whether anything was gathered since the last flush, and what: the next write, but for its name.
    gathered: bool,
    write: Write,
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
            gathered: false,
            write: Write::default(),
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
        self.gathered = true;
        self.write.hard_state = Some(state);
        self.hard_state_in = self.next;
    }

    /// Whether term and vote are on disk as they now are.
    pub(crate) fn hard_state_is_persisted(&self) -> bool {
        self.done >= self.hard_state_in
    }

    pub(crate) fn append(&mut self, run: Run) {
        self.gathered = true;
        self.end = run.last();
        self.write.runs.push(run);
    }

    /// The same for consecutive runs; their list becomes the write's if that has none yet.
    pub(crate) fn append_all(&mut self, runs: Runs) {
        let Some(last) = runs.last() else { return };
        self.gathered = true;
        self.end = last.last();
        self.write.runs.append(runs);
    }

    pub(crate) fn truncate(&mut self, from: Index) {
        let keep = from.prev();
        let gathered_from = self.write.runs.first().map_or(self.end.next(), Run::first);
        let kept = take(&mut self.write.runs).into_iter();
        self.write.runs = kept.filter_map(|run| run.slice(run.first(), keep)).collect();
        if from < gathered_from {
            self.write.truncate = Some(self.write.truncate.map_or(from, |t| t.min(from)));
        }
        // If that took back all there was: what replaces it is appended at once.
        self.gathered = true;
        self.claim_at_most(keep);
        self.end = keep;
    }

    /// The log begins anew after `base`. Until that is on disk, only what is up to `keep` counts.
    pub(crate) fn install(&mut self, base: Base, keep: Index) {
        self.write.runs = Runs::new();
        (self.write.truncate, self.write.purge) = (None, None);
        self.claim_at_most(keep);
        self.end = base.last.index;
        self.gathered = true;
        self.write.install = Some(Box::new(base));
        self.install_in = self.next;
    }

    /// Whether the log on disk begins after the latest snapshot that was installed.
    pub(crate) fn install_is_persisted(&self) -> bool {
        self.done >= self.install_in
    }

    pub(crate) fn purge(&mut self, base: Base) {
        self.gathered = true;
        self.write.purge = Some(Box::new(base));
    }

    /// What is on disk, or will be once a write under way is done, counts up to `keep` only.
    fn claim_at_most(&mut self, keep: Index) {
        for (_, end) in &mut self.under_way {
            *end = (*end).min(keep);
        }
        self.persisted = self.persisted.min(keep);
    }

    /// Gives out what was gathered as one write, if anything was.
    #[inline]
    pub(crate) fn flush(&mut self, outputs: &mut Vec<Output>) {
        if self.gathered {
            self.give_out(outputs);
        }
    }

    fn give_out(&mut self, outputs: &mut Vec<Output>) {
        self.gathered = false;
        let id = self.next;
        self.next = id.next();
        self.under_way.push_back((id, self.end));
        self.write.id = id;
        outputs.push(Output::Persist(take(&mut self.write)));
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
