//! Applying: how far the committed log has taken effect here.
//!
//! The state of a plain log *is* the log, so applying it means to know how far it goes, and to
//! answer those who wait. Invariant: never beyond what is committed and on this node's disk
//! (consensus says both at once), and never back.

use crate::{driver::Driver, ports::Ports};
use kontiki_consensus::{Index, LogId, Position};
use kontiki_log::{Fetch, From};

/// How far is applied, and how far may be.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The last record that is applied.
    pub(crate) at: LogId,
    /// The last user entry up to it.
    pub(crate) position: Position,
    /// Committed and on disk.
    target: Index,
    /// The log is being asked which position `target` had when it was asked.
    asked: bool,
}

impl Driver {
    /// Everything up to `index` is committed and on disk.
    pub(crate) fn commit(&mut self, index: Index, ports: &mut impl Ports) {
        self.applied.target = index;
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
            self.commit(self.applied.target, ports);
        }
    }

    fn apply_to(&mut self, index: Index, position: Position, ports: &mut impl Ports) {
        let term = self.consensus.term_at(index).unwrap_or_default();
        self.applied.at = LogId::new(term, index);
        self.applied.position = position;
        self.answer_waiters(ports);
        self.answer_checks(ports);
        self.serve_applied(ports);
    }

    /// Whether this very record is applied.
    pub(crate) fn has_applied(&self, at: LogId) -> bool {
        at.index <= self.applied.at.index && self.consensus.term_at(at.index) == Some(at.term)
    }
}
