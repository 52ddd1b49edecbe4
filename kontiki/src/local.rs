//! The network of a cluster within one process: a mailbox for each node.
//!
//! A node's core stands behind a lock, which its raft thread takes for its turns. Invariant: the network loses what finds a mailbox
//! full or nobody there, and says so to the sender.

#[cfg(test)]
use crate::memory::{Broken, MemoryDisk};
use crate::{network::Network, replica::Place, shared::lock, status::Link, turns::Core};
use kontiki_consensus::NodeId;
use kontiki_node::Input;
use kontiki_wire::Packet;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// How many packets may wait for a node.
const MAILBOX_PACKETS_MAX: usize = 16 << 10;

/// All nodes of a cluster in memory.
#[derive(Debug, Default)]
pub(crate) struct LocalNetwork {
    nodes: Mutex<BTreeMap<NodeId, Arc<LocalNode>>>,
    /// The disks, for tests that break them.
    #[cfg(test)]
    pub(crate) disks: Mutex<BTreeMap<NodeId, MemoryDisk>>,
    /// How new disks are broken.
    #[cfg(test)]
    pub(crate) broken: Mutex<Broken>,
}

/// A node as the others and its callers have it.
pub(crate) struct LocalNode {
    /// The mailbox.
    packets: Mutex<Vec<Packet>>,
    /// Wakes the raft thread.
    signal: Arc<Notify>,
    /// None before it has begun, and after it has ended.
    core: Mutex<Option<Core<LocalLink>>>,
}

/// One node's place in the network. Dropping it closes the mailbox.
#[derive(Debug)]
pub(crate) struct LocalLink {
    id: NodeId,
    node: Arc<LocalNode>,
    network: Arc<LocalNetwork>,
    /// Empty between turns: kept for its memory.
    packets: Vec<Packet>,
}

impl LocalNetwork {
    /// Lets a node take part.
    pub(crate) fn join(self: &Arc<Self>, id: NodeId, node: &Arc<LocalNode>) -> LocalLink {
        lock(&self.nodes).insert(id, node.clone());
        LocalLink {
            id,
            node: node.clone(),
            network: self.clone(),
            packets: Vec::new(),
        }
    }
}

#[cfg(test)]
impl LocalNetwork {
    /// Keeps the disk of a node for tests, and breaks it.
    pub(crate) fn equip(&self, node: NodeId, disk: &MemoryDisk) {
        disk.break_it(*lock(&self.broken));
        lock(&self.disks).insert(node, disk.clone());
    }
}

impl LocalNode {
    /// A node whose raft thread is woken by `signal`.
    pub(crate) fn new(signal: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            packets: Mutex::default(),
            signal,
            core: Mutex::default(),
        })
    }

    fn wake(&self) {
        self.signal.notify_one();
    }
}

impl fmt::Debug for LocalNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNode").finish_non_exhaustive()
    }
}

impl Place for Arc<LocalNode> {
    type Network = LocalLink;

    fn put(&self, core: Core<LocalLink>) {
        *lock(&self.core) = Some(core);
    }

    fn with<R>(&self, act: impl FnOnce(&mut Core<LocalLink>) -> R) -> Option<R> {
        lock(&self.core).as_mut().map(act)
    }

    fn take(&self) -> Option<Core<LocalLink>> {
        lock(&self.core).take()
    }
}

impl Network for LocalLink {
    fn send(&mut self, packet: Packet) -> bool {
        let Some(node) = lock(&self.network.nodes).get(&packet.to).cloned() else {
            return false;
        };
        let mut packets = lock(&node.packets);
        let (room, first) = (packets.len() < MAILBOX_PACKETS_MAX, packets.is_empty());
        if room {
            packets.push(packet);
        }
        drop(packets);
        if first {
            node.wake();
        }
        room
    }

    fn receive(&mut self, inbox: &mut Vec<Input>) {
        std::mem::swap(&mut *lock(&self.node.packets), &mut self.packets);
        inbox.extend(self.packets.drain(..).map(Input::Packet));
    }

    fn links(&self, members: &[NodeId]) -> BTreeMap<NodeId, Link> {
        let nodes = lock(&self.network.nodes);
        let link = |id: &NodeId| {
            let link = Link {
                address: format!("memory:{id}"),
                connected: nodes.contains_key(id),
                last_error: None,
            };
            (*id, link)
        };
        members.iter().filter(|id| **id != self.id).map(link).collect()
    }

    async fn farewell(&mut self) {}
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        lock(&self.network.nodes).remove(&self.id);
    }
}
