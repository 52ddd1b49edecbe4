//! What a disk holds: term, vote and records, each record a run of its own, and a hash of every prefix.

use kontiki_consensus::{
    Body, Configuration, HardState, Index, LogId, Mark, Position, Records, Restored, Run, Term, TermStart,
    Write,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) records: Vec<Run>,
    /// Hash of the log up to and with each record.
    pub(crate) chain: Vec<u64>,
}

impl Image {
    pub(crate) fn with_genesis(genesis: &Configuration) -> Self {
        let body = Body::Configuration(Arc::new(genesis.clone()));
        let mut image = Self::default();
        image.hard_state.term = Term(1);
        image.append(&Run::new(Index(1), Term(1), Position(1), body));
        image
    }

    /// The genesis, and after it a record of each of these terms. Records of the same place and term are equal.
    pub(crate) fn with_terms(genesis: &Run, terms: &[u64]) -> Self {
        let mut image = Self::default();
        image.append(genesis);
        for (n, term) in terms.iter().enumerate() {
            let content = [*term, n as u64].map(u64::to_le_bytes).concat();
            let marks = vec![Mark {
                end: content.len() as u32,
                entries: 1,
            }];
            let records = Records::new(content.into(), marks).expect("well made");
            let (index, position) = (Index(n as u64 + 2), Position(n as u64 + 1));
            image.append(&Run::new(index, Term(*term), position, Body::Records(records)));
        }
        image.hard_state.term = image.last().term;
        image
    }

    pub(crate) fn last(&self) -> LogId {
        self.records.last().map_or(LogId::ZERO, Run::last_id)
    }

    /// The hash of the log up to `index`, if it reaches so far.
    pub(crate) fn chain_at(&self, index: Index) -> Option<u64> {
        match index.0.checked_sub(1) {
            None => Some(0),
            Some(n) => self.chain.get(n as usize).copied(),
        }
    }

    fn append(&mut self, run: &Run) {
        assert_eq!(run.first(), self.last().index.next(), "a write leaves a hole");
        for n in run.first().0..=run.last().0 {
            let record = run.slice(Index(n), Index(n)).expect("within the run");
            let mut hasher = DefaultHasher::new();
            self.chain.last().hash(&mut hasher);
            (record.term(), record.first_position()).hash(&mut hasher);
            match record.body() {
                Body::Records(records) => records.bytes().hash(&mut hasher),
                other => format!("{other:?}").hash(&mut hasher),
            }
            self.chain.push(hasher.finish());
            self.records.push(record);
        }
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = write.truncate {
            self.records.truncate(from.0 as usize - 1);
            self.chain.truncate(from.0 as usize - 1);
        }
        write.runs.iter().for_each(|run| self.append(run));
    }

    /// Records from `from` to `to`, about `bytes_max` bytes.
    pub(crate) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Run> {
        let mut room = bytes_max;
        let wanted = self
            .records
            .iter()
            .filter(|r| r.first() >= from && r.first() <= to);
        let fits = wanted.enumerate().take_while(|(n, r)| {
            let fits = *n == 0 || r.weight() <= room;
            room = room.saturating_sub(r.weight());
            fits
        });
        fits.map(|(_, r)| r.clone()).collect()
    }

    /// What a restart finds.
    pub(crate) fn restored(&self) -> Restored {
        let mut terms: Vec<TermStart> = Vec::new();
        let mut configurations = Vec::new();
        for record in &self.records {
            if terms.last().is_none_or(|t| t.term != record.term()) {
                let position_before = record.first_position().prev();
                terms.push(TermStart {
                    term: record.term(),
                    index: record.first(),
                    position_before,
                });
            }
            if let Body::Configuration(configuration) = record.body() {
                configurations.push((record.first(), (**configuration).clone()));
            }
        }
        Restored {
            hard_state: self.hard_state,
            terms,
            last: self.last(),
            last_position: self.records.last().map_or(Position::ZERO, Run::last_position),
            configurations,
            tail: self.records.clone(),
        }
    }
}
