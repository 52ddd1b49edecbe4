//! The network of a cluster within one process, and the turns that one thread gives to its nodes.
//!
//! A raft thread that is awake need not wake others: it gives the node whose it is a turn, then those that this has sent
//! something to, and so on, until nothing is left to do. So one thread does the work of all nodes, whatever is asked meanwhile
//! makes one batch, and no batch is split on its way. A caller who is alone (`lone`) wakes nobody at all, and gives these turns
//! itself ([`LocalNode::carry`]). For that a node's core stands behind a lock.
//!
//! Invariants: whoever puts the first packet into a mailbox, or the first request into a queue, *owes* the node a look, and so
//! does whoever gives a turn after which the raft thread has to look. What is owed is paid by a turn that begins after that, with
//! the lock, or by a wake of the raft thread, which waits for the lock: a lock that another holds is no reason to wait, but to
//! wake. Only a raft thread waits for a lock, and for that of its own node, while it holds no other; so nobody waits in a circle,
//! even if whoever is answered within a turn asks again from there. The network loses what finds a mailbox full or nobody
//! there, and says so to the sender.

#[cfg(test)]
use crate::memory::{Broken, MemoryDisk};
use crate::{network::Network, replica::Place, shared::lock, status::Link, turns::Core};
use kontiki_consensus::NodeId;
use kontiki_node::Input;
use kontiki_wire::{Packet, StartId};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};
use tokio::sync::Notify;

/// How many packets may wait for a node.
const MAILBOX_PACKETS_MAX: usize = 16 << 10;
/// How many times a caller gives nodes turns for one request: an append of three nodes needs six, by way of a follower
/// seven. What is left is the raft threads', one of which gives others no more before it looks after its own node again.
const TURNS_MAX: usize = 16;

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
    #[cfg(test)]
    wakes: std::sync::atomic::AtomicUsize,
}

/// One node's place in the network. Dropping it closes the mailbox.
#[derive(Debug)]
pub(crate) struct LocalLink {
    id: NodeId,
    node: Arc<LocalNode>,
    network: Arc<LocalNetwork>,
    /// Those who are owed a look, while turns are given; between them they are woken at once.
    owed: Option<VecDeque<Arc<LocalNode>>>,
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
            owed: None,
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
            #[cfg(test)]
            wakes: Default::default(),
        })
    }

    /// Gives turns, on this thread, to this node and to those that are sent something by that, until nothing is left to do
    /// or enough was done. For whatever is left raft threads are woken.
    pub(crate) fn carry(self: &Arc<Self>) {
        let mut due = VecDeque::with_capacity(4);
        due.push_back(self.clone());
        carry_through(due);
    }

    /// Gives it one turn, or wakes its raft thread; who is owed one by that is added to those who are `due`.
    fn turn(&self, due: &mut VecDeque<Arc<Self>>) {
        let Some(mut place) = try_lock(&self.core) else {
            return self.wake();
        };
        let wants_loop = place
            .as_mut()
            .is_none_or(|core| owing(core, due) || core.wants_loop());
        drop(place);
        if wants_loop {
            self.wake();
        }
    }

    fn wake(&self) {
        #[cfg(test)]
        self.wakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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

    fn run(&self) -> bool {
        carry_on(self, VecDeque::with_capacity(4))
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
            match &mut self.owed {
                Some(owed) => owed.push_back(node),
                None => node.wake(),
            }
        }
        room
    }

    fn receive(&mut self, inbox: &mut Vec<Input>) {
        std::mem::swap(&mut *lock(&self.node.packets), &mut self.packets);
        inbox.extend(self.packets.drain(..).map(Input::Packet));
    }

    /// Not asked for: in memory all are known ([`crate::node`]).
    fn refuse(&mut self, _: NodeId, _: StartId, _: &str) {}

    fn links(&self, members: &[NodeId]) -> BTreeMap<NodeId, Link> {
        let nodes = lock(&self.network.nodes);
        let link = |id: &NodeId| {
            let link = Link {
                address: format!("memory:{id}"),
                connected: nodes.contains_key(id),
                last_error: None,
                refused: None,
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

/// Gives a turn; who is owed one by that is added to those who are `due`. True as from [`Core::run`].
fn owing(core: &mut Core<LocalLink>, due: &mut VecDeque<Arc<LocalNode>>) -> bool {
    core.network().owed = Some(std::mem::take(due));
    let stands_still = core.run();
    *due = core.network().owed.take().unwrap_or_default();
    stands_still
}

/// See [`LocalNode::carry`].
fn carry_through(mut due: VecDeque<Arc<LocalNode>>) {
    for _ in 0..TURNS_MAX {
        let Some(node) = due.pop_front() else { return };
        node.turn(&mut due);
    }
    due.iter().for_each(|node| node.wake());
}

/// Gives turns, on the raft thread of this node, to it, to those who are `due` and to those that are sent something by that, until
/// nothing is left to do or this node is not to go on: then raft threads are woken. True if it is told to stand still.
fn carry_on(own: &Arc<LocalNode>, mut due: VecDeque<Arc<LocalNode>>) -> bool {
    let mut turns = 0_usize;
    loop {
        turns = turns.wrapping_add(1);
        let told = own.with(|core| {
            // Sooner, they can still wake each other.
            if turns.is_multiple_of(TURNS_MAX) {
                core.wake_rest();
            }
            (owing(core, &mut due), core.has_ended())
        });
        let (stands_still, has_ended) = told.unwrap_or((false, true));
        if stands_still || has_ended {
            due.iter().for_each(|node| node.wake());
            return stands_still;
        }
        // It must not miss its own orders and deadlines, however much the others have to do.
        for _ in 0..TURNS_MAX {
            match due.pop_front() {
                None => return false,
                Some(node) if Arc::ptr_eq(&node, own) => break,
                Some(node) => node.turn(&mut due),
            }
        }
    }
}

/// The lock, unless another holds it, or this thread does already. Poisoned it is as good: turns catch their panics.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests;
