//! How a node reaches the others: QUIC, or memory if all are in one process.

use crate::{memory::LocalLink, status::Link};
use kontiki_consensus::NodeId;
use kontiki_transport::Transport;
use std::collections::BTreeMap;

/// A node's end of the network.
#[derive(Debug, Default)]
pub(crate) enum Network {
    /// Not yet, or no longer.
    #[default]
    None,
    /// QUIC over a UDP socket.
    Quic(Transport),
    /// Mailboxes in this process.
    Local(LocalLink),
}

/// How things stand with the other nodes.
pub(crate) fn links(network: &Network, members: &[NodeId], own: NodeId) -> BTreeMap<NodeId, Link> {
    let local = |id: &NodeId| {
        let connected = matches!(network, Network::Local(link) if link.reaches(*id));
        (
            *id,
            Link {
                address: format!("memory:{id}"),
                connected,
                last_error: None,
            },
        )
    };
    match network {
        Network::None => BTreeMap::new(),
        Network::Local(_) => members.iter().filter(|id| **id != own).map(local).collect(),
        Network::Quic(transport) => transport
            .status()
            .into_iter()
            .map(|link| {
                let known = Link {
                    address: link.address,
                    connected: link.connected,
                    last_error: link.last_error,
                };
                (link.node, known)
            })
            .collect(),
    }
}
