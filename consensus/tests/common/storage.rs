//! What a node does around consensus: it applies to a state machine, takes snapshots of it, fetches those of
//! others, installs them, and forgets the log behind them. Nothing here is on disk that was not synced.

use super::{Cluster, Server, image::Snapshot};
use kontiki_consensus::{Base, Event, Index, LogId, NodeId};

impl Server {
    /// A restart builds the state from the newest snapshot that the log goes on from.
    pub(crate) fn restore_machine(&mut self) {
        let newest = self.disk.newest().cloned();
        assert!(
            newest.is_some() || self.disk.base.last == LogId::ZERO,
            "the log begins after {:?}, and no snapshot covers what is before",
            self.disk.base.last
        );
        self.machine = newest
            .as_ref()
            .map_or((Index::ZERO, 0), |s| (s.base.last.index, s.hash));
        if let Some(snapshot) = newest {
            self.keep(snapshot);
        }
    }

    /// It is this server's own now.
    fn keep(&mut self, snapshot: Snapshot) {
        let last = snapshot.base.last.index;
        for image in [&mut self.disk, &mut self.memory] {
            image.snapshots.insert(last, snapshot.clone());
            // What is older was overtaken.
            image.staged.retain(|index, _| *index > last);
        }
    }

    fn stage(&mut self, snapshot: &Snapshot) {
        for image in [&mut self.disk, &mut self.memory] {
            image.staged.insert(snapshot.base.last.index, snapshot.clone());
        }
    }
}

impl Cluster {
    /// Applies what is committed.
    pub(crate) fn apply(&mut self, node: NodeId, to: Index) {
        let server = self.servers.get_mut(&node).expect("known");
        let (applied, hash) = server.machine;
        assert!(to > applied, "{node:?} is to apply {to:?} again");
        assert_eq!(
            server.memory.chain_at(applied),
            Some(hash),
            "the state of {node:?} at {applied:?} is not what its log goes on from"
        );
        self.checker.applied(&server.memory, to);
        server.machine = (to, server.memory.chain_at(to).expect("it is in the log"));
    }

    /// Replaces the state by a snapshot.
    pub(crate) fn install(&mut self, node: NodeId, last: LogId) {
        let server = self.servers.get_mut(&node).expect("known");
        assert!(
            server.machine.0 < last.index,
            "{node:?} is to install {last:?} over newer state"
        );
        assert!(
            server.disk.base.last.index >= last.index,
            "{node:?} installs {last:?} before the log begins after it"
        );
        let snapshot = server.disk.staged.get(&last.index).cloned();
        let snapshot = snapshot.unwrap_or_else(|| panic!("the snapshot up to {last:?} is not on disk"));
        assert_eq!(snapshot.base.last, last);
        self.checker.installed(&snapshot);
        server.machine = (last.index, snapshot.hash);
        server.keep(snapshot);
    }

    pub(crate) fn drop_snapshot(&mut self, node: NodeId, last: LogId) {
        let server = self.server(node);
        server.fetching = server.fetching.filter(|(_, fetching)| *fetching != last);
        for image in [&mut server.disk, &mut server.memory] {
            image.staged.remove(&last.index);
        }
    }

    /// Takes a snapshot of the state as it is, if there is anything new in it.
    pub(crate) fn take_snapshot(&mut self, node: NodeId) {
        let server = self.server(node);
        let (applied, hash) = server.machine;
        let Some(life) = &server.life else { return };
        if applied <= life.snapshot().index {
            return;
        }
        let base = server.memory.base_at(applied);
        assert_eq!(life.configuration_at(applied), Some(&base.configuration));
        let (last, position) = (base.last, base.position);
        server.keep(Snapshot { base, hash });
        self.happen(node, Event::SnapshotTaken { last, position });
    }

    /// Forgets the log up to here.
    pub(crate) fn purge(&mut self, node: NodeId, through: u64) {
        let through = Index(through);
        let position = self.servers[&node].memory.base_at(through).position;
        self.happen(node, Event::Purge { through, position });
    }

    /// Takes a snapshot and forgets all that it covers.
    pub(crate) fn compact(&mut self, node: NodeId) {
        self.take_snapshot(node);
        let covered = self.servers[&node].life.as_ref().map(|l| l.snapshot().index.0);
        let begins = self.servers[&node].memory.base.last.index.0;
        if let Some(covered) = covered.filter(|c| *c > begins) {
            self.purge(node, covered);
        }
    }

    /// The transfer that is under way arrives whole, if its source can be reached and still has it.
    pub(crate) fn transfer(&mut self, node: NodeId) {
        match self.stage(node) {
            Some(base) => self.staged(node, base),
            None => self.break_transfer(node),
        }
    }

    /// The transfer arrives whole, and consensus does not hear of it yet.
    pub(crate) fn stage(&mut self, node: NodeId) -> Option<Base> {
        let (from, last) = self.servers[&node].fetching?;
        let source = &self.servers[&from];
        let reached = source.life.is_some() && !source.cut && !self.servers[&node].cut;
        let mut found = source.disk.snapshots.range(last.index..).map(|(_, s)| s.clone());
        let snapshot = found.next().filter(|_| reached)?;
        let line = format!(
            "{node:?} has the snapshot of {from:?} up to {:?} on disk",
            snapshot.base.last
        );
        self.trace.push(line);
        let server = self.server(node);
        server.fetching = None;
        server.stage(&snapshot);
        Some(snapshot.base)
    }

    /// A snapshot arrives that nobody waits for any more.
    pub(crate) fn receive(&mut self, node: NodeId, snapshot: &Snapshot) {
        if self.is_up(node) {
            self.server(node).stage(snapshot);
            self.staged(node, snapshot.base.clone());
        }
    }

    fn staged(&mut self, node: NodeId, base: Base) {
        self.happen(node, Event::SnapshotStaged(base));
    }

    /// The transfer breaks off.
    pub(crate) fn break_transfer(&mut self, node: NodeId) {
        if let Some((_, last)) = self.server(node).fetching.take() {
            self.happen(node, Event::SnapshotFailed(last));
        }
    }

    /// After a restart: a snapshot that was staged, and that the log does not know of.
    pub(crate) fn tell_of_staged(&mut self, node: NodeId) {
        if let Some((_, snapshot)) = self.servers[&node].disk.staged.last_key_value() {
            self.staged(node, snapshot.base.clone());
        }
    }

    /// Removes an old snapshot, and says so.
    pub(crate) fn remove_snapshot(&mut self, node: NodeId, index: u64) {
        let server = self.server(node);
        server.memory.snapshots.remove(&Index(index));
        let Some(gone) = server.disk.snapshots.remove(&Index(index)) else {
            return;
        };
        assert!(
            server.disk.newest().is_some(),
            "{:?} was the last snapshot",
            gone.base.last
        );
        self.happen(node, Event::SnapshotGone(gone.base.last));
    }

    /// Reads under the lease, if there is one.
    pub(crate) fn lease_read(&mut self, node: NodeId) -> Option<Index> {
        let now = self.local_now(node);
        let index = self.servers[&node].life.as_ref()?.lease_index(now)?;
        self.checker.lease_read(node, index);
        Some(index)
    }
}
