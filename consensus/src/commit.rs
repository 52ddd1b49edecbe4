//! Commitment: paper §5.3 and §5.4.2.
//!
//! Invariants: a record counts where it is on disk, at the leader too; by counting, only a record of
//! the leader's own term is committed, and with it all before it (Figure 8); what a suspect server holds does not count.

use crate::{Consensus, role::State};

impl Consensus {
    /// Followers are told at once when what the log holds now is committed.
    pub(crate) fn on_awaited(&mut self) {
        let last = self.log.last().index;
        if let State::Leader(leader) = &mut self.state {
            leader.awaited = last;
        }
    }

    /// Commits as far as a quorum's disks allow.
    pub(crate) fn advance_commit(&mut self) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let (own, on_disk) = (self.config.node, self.writes.persisted());
        let configuration = self.log.configuration();
        let reached = configuration.quorum_value(|n| match leader.peers.iter().find(|p| p.id == n) {
            Some(peer) if peer.trust.counts() => peer.matched,
            Some(_) => crate::Index::ZERO,
            None if n == own => on_disk,
            None => crate::Index::ZERO,
        });
        if reached <= self.commit || self.log.term_at(reached) != Some(self.hard_state.term) {
            return;
        }
        self.commit = reached;
        if leader.reads.has_early() {
            let early = leader.reads.take_early();
            early.into_iter().for_each(|reader| self.begin_read(reader));
        }
    }
}
