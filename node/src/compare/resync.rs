//! Taking over the state of a node that is right, in place of one's own that was found wrong.
//!
//! The log is sound and goes on as ever; only the state, and what Kontiki knows with it, is replaced. Nothing is applied
//! while a node is quarantined, so a snapshot that covers everything its machine was given is an advance as any other.
//! Invariants: a snapshot is taken over only if it covers at least that much, if all of it is known to be committed here,
//! and if another node made it; whoever is in doubt of itself offers none; a node takes at most one snapshot for one that
//! waits where it is; what was taken over is this node's own newest snapshot then, so that what it made itself of the
//! wrong state is removed.

use super::Standing;
use crate::{driver::Driver, ports::Ports};
use kontiki_consensus::{Event, Index, LogId, NodeId, Time};
use kontiki_log::SnapshotFile;
use kontiki_wire::{PeerMessage, Resync};
use std::collections::BTreeMap;

/// How a new state is being looked for, and what is offered to others.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    /// How often others were asked, and when last.
    asked: (u64, Time),
    /// What is being fetched.
    fetching: Option<LogId>,
    /// It is here, and waits until all of it is known to be committed.
    found: Option<SnapshotFile>,
    /// What was offered to others, for as long as they fetch it.
    offered: BTreeMap<NodeId, LogId>,
    /// Others wait for a snapshot that covers at least this.
    wanted: Option<Index>,
}

impl Driver {
    /// Looks for a state that is right, if this node's own is not.
    pub(crate) fn pursue_resync(&mut self, now: Time, ports: &mut impl Ports) {
        if !matches!(self.compare.standing, Standing::Quarantined { .. }) || !self.applied.machine {
            return;
        }
        self.take_over(now, ports);
        let busy =
            self.compare.syncing.found.is_some() || self.restores_snapshot() || self.fetches_snapshot();
        let (times, asked) = self.compare.syncing.asked;
        if busy || (times > 0 && now < asked.after(self.patience())) {
            return;
        }
        self.compare.syncing.asked = (times.saturating_add(1), now);
        let index = self.wanted_index();
        if let Some(file) = self
            .snapshot()
            .filter(|file| self.is_of_another(file, index))
            .cloned()
        {
            // It was fetched before this node went down.
            self.compare.syncing.found = Some(file);
            return self.take_over(now, ports);
        }
        if times == 20 {
            tracing::warn!(
                "this node stays quarantined: nobody has offered a snapshot; has the machine any?"
            );
        }
        let members = self.consensus.configuration().members();
        let mut others = members.into_iter().filter(|peer| *peer != self.node());
        let count = others.clone().count().max(1) as u64;
        if let Some(peer) = others.nth((times % count) as usize) {
            let ask = Resync { index, offer: None };
            ports.send(self.config.group, peer, PeerMessage::Resync(ask));
        }
    }

    /// What a snapshot must cover at least: all that the machine was given, and no snapshot of this node's own making.
    fn wanted_index(&self) -> Index {
        let own = self
            .snapshot()
            .filter(|file| file.header.maker.node == self.node());
        let behind_own = own.map_or(Index::ZERO, |file| file.header.base.last.index.next());
        self.applied.handed().max(behind_own)
    }

    fn is_of_another(&self, file: &SnapshotFile, index: Index) -> bool {
        file.header.maker.node != self.node() && file.header.base.last.index >= index
    }

    /// Another looks for a state, or has one.
    pub(crate) fn take_resync(&mut self, now: Time, from: NodeId, resync: Resync, ports: &mut impl Ports) {
        match resync.offer {
            Some(last) => self.take_offer(now, from, last),
            None => {
                self.end_dispute_with(from, ports);
                if self.compare.is_sound() && self.applied.machine {
                    self.offer(now, from, resync.index, ports);
                }
            }
        }
    }

    /// Who looks for a state has heard of a majority that differs from it. If there is no majority without this node, and that
    /// one is the only one that differs from it, this node is of that majority, though it has not heard it itself: whoever is
    /// to be heard may need a snapshot of this very node first.
    fn end_dispute_with(&mut self, peer: NodeId, ports: &mut impl Ports) {
        let (Standing::Disputed { index, .. } | Standing::Halted { index, .. }) = self.compare.standing
        else {
            return;
        };
        let Some(own) = self.compare.of(index, self.node()) else {
            return;
        };
        let members = self.consensus.configuration();
        if members.has_quorum(|n| n != peer && n != self.node()) {
            return;
        }
        let told = self.compare.told.get(&index).into_iter().flatten();
        let mut differing = told.filter(|(_, other)| !super::agree(own, other));
        if differing.next().is_some_and(|(first, _)| *first == peer) && differing.next().is_none() {
            tracing::info!(%index, "node {peer} knows that it is wrong: this node goes on");
            self.be_sound(ports);
            self.hand_over(ports);
        }
    }

    fn offer(&mut self, now: Time, to: NodeId, index: Index, ports: &mut impl Ports) {
        let newest = self.snapshot().map(|file| file.header.base.last);
        match newest.filter(|last| last.index >= index) {
            Some(last) => {
                self.compare.syncing.wanted = None;
                self.compare.syncing.offered.insert(to, last);
                self.expects_to_serve(to, now);
                let offer = Resync {
                    index,
                    offer: Some(last),
                };
                ports.send(self.config.group, to, PeerMessage::Resync(offer));
            }
            None => self.compare.syncing.wanted = Some(index),
        }
    }

    fn take_offer(&mut self, now: Time, from: NodeId, last: LogId) {
        let wanted = matches!(self.compare.standing, Standing::Quarantined { .. })
            && last.index >= self.wanted_index()
            && self.compare.syncing.found.is_none();
        if wanted && !self.fetches_snapshot() && !self.restores_snapshot() {
            self.compare.syncing.fetching = Some(last);
            self.fetch_snapshot(now, from, last);
        }
    }

    /// Whether a snapshot is to be taken now because another node waits for one.
    pub(crate) fn is_waited_for(&self) -> bool {
        let wanted = self.compare.syncing.wanted;
        let newest = self.consensus.snapshot().index;
        wanted.is_some_and(|index| index <= self.applied.at.index && newest < index)
    }

    /// Whether another node waits for a snapshot that covers more than the log holds.
    pub(super) fn waits_for_records(&self) -> bool {
        let wanted = self.compare.syncing.wanted;
        wanted.is_some_and(|index| index > self.consensus.last().index)
    }

    /// Whether a snapshot was offered to a node that is fetching it.
    pub(crate) fn is_offered(&self, last: LogId, now: Time) -> bool {
        let mut offered = self.compare.syncing.offered.iter();
        offered.any(|(peer, offered)| *offered == last && self.makes_progress(*peer, now))
    }

    /// A snapshot is here whole; true if it is the one that a new state is to be taken from.
    pub(crate) fn resync_staged(&mut self, file: &SnapshotFile) -> bool {
        let last = file.header.base.last;
        if self.compare.syncing.fetching.take_if(|f| *f == last).is_none() {
            return false;
        }
        self.fetched_whole(last);
        if self.is_of_another(file, self.wanted_index()) {
            self.compare.syncing.found = Some(file.clone());
        }
        true
    }

    /// Gives the machine the state that was found, once all of it is known to be committed here.
    fn take_over(&mut self, now: Time, ports: &mut impl Ports) {
        let Some(file) = &self.compare.syncing.found else {
            return;
        };
        let base = file.header.base.clone();
        if base.last.index > self.applied.target() {
            return;
        }
        let Some(file) = self.compare.syncing.found.take() else {
            return;
        };
        // A later one of the leader's may have come meanwhile, with which the log begins now.
        if self.consensus.term_at(base.last.index) != Some(base.last.term) || self.restores_snapshot() {
            return self.forget_snapshot(base.last);
        }
        match self.await_restore(file.clone()) {
            Ok(()) => {
                self.adopt_snapshot(now, file);
                self.hand_over(ports);
            }
            Err(what) => self.stop(
                format!(
                    "the snapshot up to record {} is not sound: {what}",
                    base.last.index
                ),
                ports,
            ),
        }
    }

    /// The leader has the node fetch another one: that comes first.
    pub(crate) fn resync_gives_way(&mut self) {
        self.compare.syncing.fetching = None;
    }

    /// The machine's state is that of a snapshot. If another node has made it, of a later record than the one at which this
    /// node was found wrong, nothing speaks against it any more.
    pub(crate) fn resynced(&mut self, now: Time, file: &SnapshotFile, ports: &mut impl Ports) {
        let Standing::Quarantined { index, .. } = self.compare.standing else {
            return;
        };
        if !self.is_of_another(file, index) {
            return;
        }
        let (node, last) = (self.node(), file.header.base.last);
        tracing::info!(index = %last.index, "node {node} has the state of another and is quarantined no more");
        self.counts.resynced += 1;
        self.be_sound(ports);
        // What it told of its former state is of no account.
        self.compare.told.clear();
        self.compare.passed.clear();
        self.compare.syncing = Syncing::default();
        self.consensus.step(now, Event::MayLead(true));
    }
}
