//! What a disk holds: term, vote and records, each record a run of its own, a hash of every prefix, and
//! snapshots, which are no more than the hash of what they cover.

use kontiki_consensus::{
    Base, Body, Configuration, HardState, Index, LogId, Mark, Position, Records, Restored, Run, Term,
    TermStart, Write,
};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A snapshot of a state that is the hash of all records applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) base: Base,
    pub(crate) hash: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    /// Where the log begins, and the hash there.
    pub(crate) base: Base,
    pub(super) base_hash: u64,
    /// Of this server's own state, or installed.
    pub(crate) snapshots: BTreeMap<Index, Snapshot>,
    /// From other servers, not yet taken up.
    pub(crate) staged: BTreeMap<Index, Snapshot>,
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
        self.records.last().map_or(self.base.last, Run::last_id)
    }

    /// The hash of the log up to `index`, if it reaches so far and does not begin later.
    pub(crate) fn chain_at(&self, index: Index) -> Option<u64> {
        match index.0.checked_sub(self.base.last.index.0)? {
            0 => Some(self.base_hash),
            n => self.chain.get(n as usize - 1).copied(),
        }
    }

    /// Whether the log up to `index` has this hash, or begins later: then a snapshot covers what is committed.
    pub(crate) fn holds(&self, index: Index, hash: u64) -> bool {
        index < self.base.last.index || self.chain_at(index) == Some(hash)
    }

    /// The base that the log would have if all up to `index`, which it holds, were forgotten.
    pub(crate) fn base_at(&self, index: Index) -> Base {
        let records = &self.records[..(index.0 - self.base.last.index.0) as usize];
        let mut configurations = records.iter().filter_map(|r| match r.body() {
            Body::Configuration(configuration) => Some(configuration),
            _ => None,
        });
        Base {
            last: records.last().map_or(self.base.last, Run::last_id),
            position: records.last().map_or(self.base.position, Run::last_position),
            configuration: configurations
                .next_back()
                .unwrap_or(&self.base.configuration)
                .clone(),
        }
    }

    /// The newest snapshot that the log goes on from: what a restart builds its state from.
    pub(crate) fn newest(&self) -> Option<&Snapshot> {
        let all = self.snapshots.values().chain(self.staged.values());
        let base = self.base.last.index;
        let fitting = all.filter(|s| s.base.last.index >= base && self.holds(s.base.last.index, s.hash));
        fitting.max_by_key(|s| s.base.last.index)
    }

    fn append(&mut self, run: &Run) {
        assert_eq!(run.first(), self.last().index.next(), "a write leaves a hole");
        for n in run.first().0..=run.last().0 {
            let record = run.slice(Index(n), Index(n)).expect("within the run");
            let mut hasher = DefaultHasher::new();
            let before = (n > 1).then(|| self.chain.last().copied().unwrap_or(self.base_hash));
            before.hash(&mut hasher);
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
            let kept = (from.0 - self.base.last.index.0) as usize - 1;
            self.records.truncate(kept);
            self.chain.truncate(kept);
        }
        if let Some(base) = &write.install {
            self.install(base);
        }
        write.runs.iter().for_each(|run| self.append(run));
        if let Some(base) = &write.purge {
            self.purge(base);
        }
    }

    fn install(&mut self, base: &Base) {
        let snapshot = self.staged.get(&base.last.index);
        let snapshot =
            snapshot.unwrap_or_else(|| panic!("the snapshot up to {:?} is not on disk", base.last));
        assert_eq!(&snapshot.base, base, "the log begins after another snapshot");
        self.base_hash = snapshot.hash;
        self.base = base.clone();
        self.records.clear();
        self.chain.clear();
    }

    fn purge(&mut self, base: &Base) {
        let index = base.last.index;
        assert_eq!(&self.base_at(index), base, "the log was purged to another base");
        self.base_hash = self.chain_at(index).expect("what is purged is in the log");
        let gone = (index.0 - self.base.last.index.0) as usize;
        self.records.drain(..gone);
        self.chain.drain(..gone);
        self.base = base.clone();
        assert!(
            self.newest().is_some(),
            "no snapshot covers the log up to {:?}",
            base.last
        );
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
        if self.base.last != LogId::ZERO {
            configurations.push((self.base.last.index, (*self.base.configuration).clone()));
        }
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
            base: self.base.last,
            base_position: self.base.position,
            snapshot: self.newest().map(|s| (s.base.last, s.base.position)),
            terms,
            last: self.last(),
            last_position: self.records.last().map_or(self.base.position, Run::last_position),
            configurations,
            tail: self.records.clone(),
        }
    }
}
