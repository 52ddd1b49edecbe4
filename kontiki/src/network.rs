//! How a node reaches the others: by sockets, or by mailboxes if all are in one process (`local`).

use crate::status::Link;
use kontiki_consensus::NodeId;
use kontiki_node::Input;
use kontiki_transport::Transport;
use kontiki_wire::{Packet, StartId};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// A node's end of the network.
pub(crate) trait Network {
    /// Sends a packet; false if it was dropped and nothing else will tell of that.
    fn send(&mut self, packet: Packet) -> bool;

    /// Takes what has come.
    fn receive(&mut self, inbox: &mut Vec<Input>);

    /// Ends all connections with this start of a node, for good, and tells it why.
    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str);

    /// How things stand with the other nodes.
    fn links(&self, members: &[NodeId]) -> BTreeMap<NodeId, Link>;

    /// Tells the others that this node goes.
    async fn farewell(&mut self);
}

/// By sockets: QUIC, or TLS over TCP.
pub(crate) struct Wired {
    pub(crate) transport: Transport,
    /// What it has delivered.
    pub(crate) inbox: Rc<RefCell<Vec<Input>>>,
}

impl Network for Wired {
    fn send(&mut self, packet: Packet) -> bool {
        // It tells itself what it drops.
        self.transport.send(&packet);
        true
    }

    fn receive(&mut self, inbox: &mut Vec<Input>) {
        inbox.append(&mut self.inbox.borrow_mut());
    }

    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str) {
        self.transport.refuse(peer, start, why);
    }

    fn links(&self, _: &[NodeId]) -> BTreeMap<NodeId, Link> {
        let link = |link: kontiki_transport::Link| {
            let known = Link {
                address: link.address,
                connected: link.connected,
                last_error: link.last_error,
                refused: None,
            };
            (link.node, known)
        };
        self.transport.status().into_iter().map(link).collect()
    }

    async fn farewell(&mut self) {
        self.transport.shutdown().await;
    }
}
