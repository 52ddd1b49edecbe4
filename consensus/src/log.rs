//! What consensus keeps in mind of the log: where it begins, where each term begins, where the log ends,
//! which configurations stand in it, and the newest records.
//!
//! Invariants: the log begins just after the base, of which a snapshot holds the rest (paper §7); `terms`
//! rises in index and term from there and covers the whole log; `tail` is consecutive and
//! ends where the log ends (or is empty); nothing that is not yet on disk is evicted from it.

use crate::{Base, Configuration, Index, LogId, Position, Restored, Run, Runs, Term, TermStart, run::Body};
use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

#[derive(Debug)]
pub(crate) struct Log {
    /// The last record that a snapshot covers and the log no longer holds.
    base: LogId,
    base_position: Position,
    /// Where each term after that of the base begins.
    terms: Vec<TermStart>,
    last: LogId,
    last_position: Position,
    /// The configuration in use at the base, unless that is zero, and every one after it.
    configurations: Vec<(Index, Arc<Configuration>)>,
    none: Arc<Configuration>,
    tail: VecDeque<Run>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    /// Whether anything was changed since it was last looked at whether all of it holds together.
    changed: bool,
}

impl Log {
    /// How many runs a message has room for at first: enough for a busy flush, little for a follower far behind.
    const RUNS_EXPECTED: usize = 32;

    pub(crate) fn new(restored: Restored, tail_bytes_max: usize) -> Self {
        let mut log = Self {
            base: restored.base,
            base_position: restored.base_position,
            terms: restored.terms,
            last: restored.last,
            last_position: restored.last_position,
            configurations: restored
                .configurations
                .into_iter()
                .map(|(i, c)| (i, Arc::new(c)))
                .collect(),
            none: Arc::default(),
            tail_bytes: restored.tail.iter().map(Run::weight).sum(),
            tail: restored.tail.into(),
            tail_bytes_max,
            changed: true,
        };
        log.forget_before_base();
        log.evict(log.last.index);
        log
    }

    /// Where the log begins: the last record that is not in it any more.
    pub(crate) fn base(&self) -> LogId {
        self.base
    }

    pub(crate) fn base_position(&self) -> Position {
        self.base_position
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    pub(crate) fn last_position(&self) -> Position {
        self.last_position
    }

    /// The configuration in use: the latest in the log, committed or not (dissertation §4.1).
    pub(crate) fn configuration(&self) -> &Arc<Configuration> {
        self.configurations.last().map_or(&self.none, |(_, c)| c)
    }

    /// The configuration in use at `index`; `None` before the base and beyond the end.
    pub(crate) fn configuration_at(&self, index: Index) -> Option<&Arc<Configuration>> {
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let after = self.configurations.partition_point(|(i, _)| *i <= index);
        Some(
            after
                .checked_sub(1)
                .map_or(&self.none, |n| &self.configurations[n].1),
        )
    }

    /// The term of the record at `index`; zero at zero, `None` before the base and beyond the end.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index < self.base.index || index > self.last.index {
            return None;
        }
        // Nearly always it is asked of the newest term.
        if let Some(newest) = self.terms.last().filter(|t| t.index <= index) {
            return Some(newest.term);
        }
        let after = self.terms.partition_point(|t| t.index <= index);
        Some(
            after
                .checked_sub(1)
                .map_or(self.base.term, |n| self.terms[n].term),
        )
    }

    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The term of the user entry at `position`.
    pub(crate) fn term_of(&self, position: Position) -> Option<Term> {
        if position <= self.base_position || position > self.last_position {
            return None;
        }
        let after = self.terms.partition_point(|t| t.position_before < position);
        Some(
            after
                .checked_sub(1)
                .map_or(self.base.term, |n| self.terms[n].term),
        )
    }

    /// The last record at or before `id.index` whose term is no later than `id.term`: the furthest
    /// that two logs can agree if one of them holds `id` (paper §5.3, skipping whole terms). `None` if
    /// that lies before the base.
    pub(crate) fn furthest_agreement(&self, id: LogId) -> Option<LogId> {
        if id.index < self.base.index || id.term < self.base.term {
            return None;
        }
        let index = id.index.min(self.last.index);
        let later = self.terms.partition_point(|t| t.term <= id.term);
        let end = self.terms.get(later).map_or(self.last.index, |t| t.index.prev());
        let index = index.min(end);
        self.term_at(index).map(|term| LogId::new(term, index))
    }

    /// Adds a run that begins just after the end.
    pub(crate) fn append(&mut self, run: Run) {
        self.changed = true;
        if run.term() != self.last.term {
            let position_before = run.first_position().prev();
            self.terms.push(TermStart {
                term: run.term(),
                index: run.first(),
                position_before,
            });
        }
        if let Body::Configuration(configuration) = run.body() {
            self.configurations.push((run.first(), configuration.clone()));
        }
        self.last = run.last_id();
        self.last_position = run.last_position();
        self.tail_bytes += run.weight();
        self.tail.push_back(run);
    }

    /// Removes `from` and all after it. The run that takes its place says where the positions go on.
    pub(crate) fn truncate(&mut self, from: Index, replacement: &Run) {
        self.changed = true;
        self.terms.retain(|t| t.index < from);
        self.configurations.retain(|(index, _)| *index < from);
        while let Some(run) = self.tail.pop_back() {
            self.tail_bytes -= run.weight();
            if run.first() < from {
                if let Some(rest) = run.slice(run.first(), from.prev()) {
                    self.tail_bytes += rest.weight();
                    self.tail.push_back(rest);
                }
                break;
            }
        }
        let term = self.terms.last().map_or(self.base.term, |t| t.term);
        self.last = LogId::new(term, from.prev());
        self.last_position = replacement.first_position().prev();
    }

    /// Forgets everything up to `through`, which is in the log. Gives the base that the log has then.
    pub(crate) fn purge(&mut self, through: Index, position: Position) -> Option<Base> {
        let base = Base {
            last: LogId::new(self.term_at(through)?, through),
            position,
            configuration: self.configuration_at(through)?.clone(),
        };
        (self.base, self.base_position) = (base.last, position);
        self.forget_before_base();
        Some(base)
    }

    /// Forgets everything: the log begins, and for now ends, at `base`.
    pub(crate) fn install(&mut self, base: &Base) {
        self.changed = true;
        (self.base, self.base_position) = (base.last, base.position);
        (self.last, self.last_position) = (base.last, base.position);
        self.terms.clear();
        self.configurations = [(base.last.index, base.configuration.clone())].into();
        self.tail.clear();
        self.tail_bytes = 0;
    }

    fn forget_before_base(&mut self) {
        self.changed = true;
        let base = self.base;
        self.terms.retain(|t| t.index > base.index && t.term != base.term);
        let after = self.configurations.partition_point(|(i, _)| *i <= base.index);
        self.configurations.drain(..after.saturating_sub(1));
        while let Some(run) = self.tail.pop_front_if(|r| r.first() <= base.index) {
            self.tail_bytes -= run.weight();
            if let Some(rest) = run.slice(base.index.next(), run.last()) {
                self.tail_bytes += rest.weight();
                self.tail.push_front(rest);
            }
        }
    }

    /// Drops the oldest runs beyond the limit, as far as they are on disk.
    pub(crate) fn evict(&mut self, persisted: Index) {
        let on_disk = |run: &Run| run.last() <= persisted;
        while self.tail_bytes > self.tail_bytes_max && self.tail.front().is_some_and(on_disk) {
            self.changed = true;
            self.tail_bytes -= self.tail.pop_front().map_or(0, |r| r.weight());
        }
    }

    /// The first record still in memory; just after the end if there is none.
    pub(crate) fn tail_first(&self) -> Index {
        self.tail.front().map_or(self.last.index.next(), Run::first)
    }

    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Runs from `from` to `to`, at most `bytes_max` bytes but at least a record; `None` if they are no longer in memory.
    #[inline]
    pub(crate) fn runs(&self, from: Index, to: Index, bytes_max: usize) -> Option<Runs> {
        match self.tail.back() {
            // A follower that keeps up is sent the newest run, nearly always all of it and nothing else.
            Some(newest) if newest.first() == from && newest.last() <= to && newest.weight() <= bytes_max => {
                Some(newest.clone().into())
            }
            newest => self.some_runs(newest, from, to, bytes_max),
        }
    }

    /// The place of the first run in memory of which this holds, as it does of all behind it. Looks from the end on in steps that
    /// double: nearly always it is one of the last, and each of many would have to be fetched from far memory.
    fn first_run(&self, holds: impl Fn(&Run) -> bool) -> usize {
        let holds_at = |n: usize| self.tail.get(n).is_none_or(&holds);
        let (mut end, mut step) = (self.tail.len(), 1);
        while end > 0 && holds_at(end.saturating_sub(step)) {
            (end, step) = (end.saturating_sub(step), step * 2);
        }
        // It holds at `end`, and not so far before it.
        let mut start = end.saturating_sub(step);
        while start < end {
            let middle = start + (end - start) / 2;
            if holds_at(middle) {
                end = middle;
            } else {
                start = middle + 1;
            }
        }
        end
    }

    fn some_runs(&self, newest: Option<&Run>, from: Index, to: Index, bytes_max: usize) -> Option<Runs> {
        if from < self.tail_first() {
            return None;
        }
        // No search through all that memory holds.
        let start = match newest {
            Some(newest) if newest.first() <= from => self.tail.len() - usize::from(newest.last() >= from),
            _ => self.first_run(|r| r.last() >= from),
        };
        let mut runs = Vec::with_capacity((self.tail.len() - start).min(Self::RUNS_EXPECTED));
        let mut room = bytes_max;
        for run in self.tail.range(start..) {
            if run.first() >= from && run.last() <= to && run.weight() <= room {
                room -= run.weight();
                runs.push(run.clone());
                continue;
            }
            let Some(part) = run.slice(from, to) else { break };
            if !runs.is_empty() && part.weight() > room {
                let head = part.fitting(room);
                if head.weight() <= room {
                    runs.push(head);
                }
                break;
            }
            let head = part.fitting(room);
            let whole = head.last() == part.last();
            room = room.saturating_sub(head.weight());
            runs.push(head);
            if !whole {
                break;
            }
        }
        Some(runs.into())
    }

    /// Records that hold the user entries from `from` on, before `to` and up to record `limit`, about
    /// `bytes_max` bytes; `None` if memory no longer holds the first of them.
    pub(crate) fn runs_between(
        &self,
        from: Position,
        to: Position,
        limit: Index,
        bytes_max: usize,
    ) -> Option<Runs> {
        let holding = |position| {
            let n = self.first_run(|r| r.last_position() >= position);
            self.tail.get(n).and_then(|r| r.index_of(position))
        };
        let first = holding(from)?;
        let last = holding(to.prev()).unwrap_or(limit).min(limit);
        self.runs(first, last, bytes_max)
    }

    /// Position of the last user entry up to `index`, if that can be told from memory.
    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        if index >= self.last.index {
            return Some(self.last_position);
        }
        if index <= self.base.index {
            return (index == self.base.index).then_some(self.base_position);
        }
        if let Ok(next) = self.terms.binary_search_by_key(&index.next(), |t| t.index) {
            return Some(self.terms[next].position_before);
        }
        let run = self.tail.get(self.first_run(|r| r.last() >= index))?;
        (run.first() <= index)
            .then(|| run.position_at(index))
            .or_else(|| (run.first() == index.next()).then(|| run.first_position().prev()))
    }

    /// Whether the terms rise from the base and end at the end, and the configuration in use at the base is known:
    /// checked after each step that has changed anything.
    #[inline]
    pub(crate) fn is_sound(&mut self) -> bool {
        !::core::mem::take(&mut self.changed) || self.holds_together()
    }

    fn holds_together(&self) -> bool {
        let last_term = self.terms.last();
        let risen = match self.terms.as_slice() {
            [.., before, last] => before.term < last.term && before.index < last.index,
            _ => true,
        };
        let after_base = |t: &TermStart| t.term > self.base.term && t.index > self.base.index;
        risen
            && self.terms.first().is_none_or(after_base)
            && last_term.map_or(self.base.term, |t| t.term) == self.last.term
            && last_term.is_none_or(|t| t.index <= self.last.index)
            && self.base.index <= self.last.index
            && self.base_position <= self.last_position
            && self.has_configuration_at_base()
            && self.tail.front().is_none_or(|r| r.first() > self.base.index)
            && self.tail.back().is_none_or(|r| r.last_id() == self.last)
    }

    /// Whether it is known which configuration was in use at the base.
    pub(crate) fn has_configuration_at_base(&self) -> bool {
        let first = self.configurations.first();
        self.base == LogId::ZERO || first.is_some_and(|(index, _)| *index <= self.base.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mark, Records};
    use alloc::vec;

    /// Records of ten bytes and one entry each.
    fn run(first: u64, records: u32) -> Run {
        let marks = (1..=records).map(|n| Mark {
            end: 10 * n,
            entries: n,
        });
        let bytes = vec![0; 10 * records as usize].into();
        let records = Records::new(bytes, marks.collect()).expect("they rise to the end");
        Run::new(Index(first), Term(1), Position(first), Body::Records(records))
    }

    /// Records 1 to 9, the newest run of them from 5 on.
    fn log() -> Log {
        let mut log = Log::new(Restored::default(), usize::MAX);
        [run(1, 1), run(2, 3), run(5, 5)]
            .into_iter()
            .for_each(|r| log.append(r));
        log
    }

    #[test]
    fn the_first_run_is_found_wherever_it_is() {
        for runs in 0..40 {
            let mut log = Log::new(Restored::default(), usize::MAX);
            (0..runs).for_each(|n| log.append(run(2 * n + 1, 2)));
            for index in (0..=2 * runs + 2).map(Index) {
                let found = log.first_run(|r| r.last() >= index);
                assert_eq!(found, log.tail.partition_point(|r| r.last() < index));
            }
        }
    }

    #[test]
    fn what_memory_gives_begins_and_ends_where_it_is_told_to_and_fits() {
        let log = log();
        for (from, to, records) in
            (1..=10).flat_map(|f| (1..=9).flat_map(move |t| (1..=9).map(move |n| (f, t, n))))
        {
            let runs = log
                .runs(Index(from), Index(to), 10 * records as usize)
                .expect("all is in memory");
            let end = runs.iter().fold(Index(from), |next, run| {
                assert_eq!(run.first(), next, "{from}..={to}, {records} records");
                run.last().next()
            });
            assert_eq!(
                end.0 - from,
                (to + 1).saturating_sub(from).min(records),
                "{from}..={to}, {records} records"
            );
        }
    }
}
