//! What is on the disk of a node.

use kontiki_consensus::{
    Body, Configuration, HardState, Index, LogId, Position, Restored, Run, Term, TermStart, Write,
};
use kontiki_log::{Fetch, From};
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct Image {
    hard_state: HardState,
    runs: Vec<Run>,
}

impl Image {
    /// A directory that holds the genesis.
    pub(crate) fn founded(members: &Configuration) -> Self {
        let body = Body::Configuration(Arc::new(members.clone()));
        let genesis = Run::new(Index(1), Term::ZERO, Position(1), body);
        Self {
            hard_state: HardState::default(),
            runs: vec![genesis],
        }
    }

    pub(crate) fn write(&mut self, write: &Write) {
        if let Some(state) = write.hard_state {
            self.hard_state = state;
        }
        if let Some(from) = write.truncate {
            let keep = |run: &Run| run.slice(run.first(), from.prev());
            self.runs = self.runs.iter().filter_map(keep).collect();
        }
        for run in &write.runs {
            let end = self.runs.last().map_or(Index::ZERO, Run::last);
            assert_eq!(run.first(), end.next(), "a write that leaves a gap or overlaps");
            self.runs.push(run.clone());
        }
    }

    /// What a restart finds, with about so many bytes of the newest records.
    pub(crate) fn restored(&self, tail_bytes: usize) -> Restored {
        let mut restored = Restored {
            hard_state: self.hard_state,
            ..Restored::default()
        };
        for run in &self.runs {
            if restored.terms.last().is_none_or(|t| t.term != run.term()) {
                restored.terms.push(TermStart {
                    term: run.term(),
                    index: run.first(),
                    position_before: run.first_position().prev(),
                });
            }
            if let Body::Configuration(configuration) = run.body() {
                restored
                    .configurations
                    .push((run.first(), (**configuration).clone()));
            }
        }
        restored.last = self.runs.last().map_or(LogId::ZERO, Run::last_id);
        restored.last_position = self.runs.last().map_or(Position::ZERO, Run::last_position);
        let mut room = tail_bytes;
        let newest = self.runs.iter().rev().take_while(|run| {
            let fits = run.weight() <= room;
            room = room.saturating_sub(run.weight());
            fits
        });
        restored.tail = newest.cloned().collect();
        restored.tail.reverse();
        restored
    }

    pub(crate) fn fetch(&self, fetch: &Fetch) -> Vec<Run> {
        let first = match fetch.from {
            From::Index(index) => Some(index),
            From::Position(position) => self.runs.iter().find_map(|r| r.index_of(position)),
        };
        let Some(first) = first else { return Vec::new() };
        let mut room = fetch.bytes_max;
        let mut found: Vec<Run> = Vec::new();
        for part in self.runs.iter().filter_map(|r| r.slice(first, fetch.to)) {
            let head = part.fitting(room);
            if !found.is_empty() && head.weight() > room {
                break;
            }
            let whole = head.last() == part.last();
            room = room.saturating_sub(head.weight());
            found.push(head);
            if !whole {
                break;
            }
        }
        found
    }

    pub(crate) fn entries_up_to(&self, index: Index) -> Vec<String> {
        let parts = self.runs.iter().filter_map(|r| r.slice(Index(1), index));
        parts.flat_map(|r| super::texts(&r)).collect()
    }
}
