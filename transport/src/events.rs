//! What a transport tells its owner, and the report of what was dropped.
//!
//! Invariant: the sink is never called from within [`Transport::send`](crate::Transport::send), so that its
//! owner may send while it handles an event. What `send` drops is noted here and reported a moment later.

use kontiki_consensus::{Incarnation, NodeId};
use kontiki_wire::{Life, Packet};
use std::{cell::RefCell, collections::BTreeSet};
use tokio::sync::Notify;

/// What a transport tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// A packet for this node, from the node that it says, and from the start with which that has greeted.
    Packet(Packet),
    /// A peer has greeted, before any packet on that connection. A life that the owner does not believe it refuses before the
    /// sink's [`settle`](Sink::settle) returns, or later, by [`Transport::refuse`](crate::Transport::refuse).
    Greeted {
        /// The peer.
        peer: NodeId,
        /// The incarnation of its data directory.
        incarnation: Incarnation,
        /// The life that it lives.
        life: Box<Life>,
    },
    /// This peer refuses the life of this node, and why.
    Refused(NodeId, String),
    /// Something for this peer was dropped: its queue was full, or there is no connection to it (any more).
    Dropped(NodeId),
    /// There is a connection to this peer, with this incarnation of its data directory.
    Connected(NodeId, Incarnation),
    /// The connection to this peer is gone, and why. [`Dropped`](Self::Dropped) follows.
    Disconnected(NodeId, String),
    /// The process of this peer seems to have ended, or says that it does. Only a hint: it may be false, or missing.
    Gone(NodeId),
}

/// Where events go. Called on the transport's thread. The transport holds its sink for as long as it lives: a
/// sink that needs the transport had better hold it weakly.
pub trait Sink {
    /// Takes one event; others may follow at once, so that the work is better left to [`settle`](Self::settle).
    fn deliver(&self, event: TransportEvent);
    /// Nothing more has arrived for now: deal with what was delivered.
    fn settle(&self);
}

/// The peers for which something was dropped since it was last told.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    peers: RefCell<BTreeSet<NodeId>>,
    some: Notify,
}

impl Dropped {
    pub(crate) fn note(&self, peer: NodeId) {
        self.peers.borrow_mut().insert(peer);
        self.some.notify_one();
    }

    /// Reports to the sink for as long as it is polled.
    pub(crate) async fn report(&self, sink: &dyn Sink) {
        loop {
            self.some.notified().await;
            let peers = self.peers.take();
            for peer in peers {
                sink.deliver(TransportEvent::Dropped(peer));
            }
            sink.settle();
        }
    }
}
