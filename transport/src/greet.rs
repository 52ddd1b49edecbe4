//! The greeting: both sides say who they are, and each checks it against the other's certificate.
//!
//! The dialer speaks first. Its certificate check was part of the TLS handshake, which names the node it dials; the
//! accepting side learns the node from the hello and then asks whether the certificate bears that name. The hellos are
//! carried by `quic` and `tcp`; what they have to say to each other is checked here.

use crate::{
    TransportEvent, credentials::server_name, dial::Lost, peer::Peer, reason::Close, transport::Shared,
    warnings::Source,
};
use kontiki_consensus::NodeId;
use kontiki_wire::{
    Identity,
    handshake::{Agreed, HandshakeError, Hello},
};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use std::collections::BTreeMap;

/// Why two nodes did not come together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    /// The connection ended; maybe the other side refused.
    #[error("{}", .0.why)]
    Lost(Lost),
    /// It did not come in time.
    #[error("no greeting in time: is it a Kontiki node?")]
    TooLate,
    /// It kept this node waiting, and others needed its place.
    #[error("it kept this node waiting until others needed its place: is it a Kontiki node?")]
    MadeRoom,
    /// The two do not fit together.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The connection is for something this version does not know.
    #[error("it connects for lane {0}, which this node does not know: upgrade this node")]
    Lane(u8),
    /// The certificate is not that of the node it says it is.
    #[error("it says that it is node {node}, but its certificate is another node's: {why}")]
    Certificate { node: NodeId, why: String },
    /// It is none of the peers.
    #[error("it is node {0}, which is not among the peers in this node's configuration")]
    NotAPeer(NodeId),
    /// The owner does not believe the life it comes in.
    #[error("{why}")]
    Life { node: NodeId, why: String },
}

impl From<Lost> for GreetError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl GreetError {
    /// The number under which the other side is told.
    pub(crate) fn close(&self) -> Close {
        match self {
            Self::Life { .. } => Close::Life,
            _ => Close::Refused,
        }
    }

    /// Of whom the log is told: a peer that has proven which it is, or else this one.
    pub(crate) fn source(&self, stranger: Source) -> Source {
        match self {
            Self::Life { node, .. } => Source::From(*node),
            _ => stranger,
        }
    }

    /// What to tell the other side, if it is for this one to say.
    pub(crate) fn refusal(&self) -> Option<String> {
        (!matches!(self, Self::Lost(_))).then(|| self.to_string())
    }
}

/// Whether what answered is the peer that was dialed; who it is.
pub(crate) fn check_dialed(ours: &Hello, theirs: &[u8], peer: &Peer) -> Result<Agreed, GreetError> {
    Ok(ours.agree(&Hello::decode(theirs)?, Some(peer.node))?)
}

/// Whether the owner believes the life in which a peer has greeted. It is asked for each connection, unless it has refused
/// that start before.
pub(crate) fn check_life(shared: &Shared, peer: &Peer, agreed: &Agreed) -> Result<(), GreetError> {
    let start = agreed.life.start;
    if peer.refusal(start).is_none() {
        shared.sink.deliver(TransportEvent::Greeted {
            peer: peer.node,
            incarnation: agreed.peer.incarnation,
            life: Box::new(agreed.life),
        });
        shared.sink.settle();
    }
    let node = peer.node;
    peer.refusal(start)
        .map_or(Ok(()), |why| Err(GreetError::Life { node, why }))
}

/// Which of the peers has dialed this node, by its hello and its certificate.
pub(crate) fn check_dialer<'p>(
    ours: &Hello,
    theirs: &[u8],
    certificate: Option<&CertificateDer<'_>>,
    peers: &'p BTreeMap<NodeId, Peer>,
) -> Result<(&'p Peer, Agreed), GreetError> {
    let agreed = ours.agree(&Hello::decode(theirs)?, None)?;
    check_certificate(certificate, agreed.peer)?;
    let node = agreed.peer.node;
    let peer = peers.get(&node).ok_or(GreetError::NotAPeer(node))?;
    Ok((peer, agreed))
}

/// Whether the certificate at the other end, which TLS has verified, is that of the node it says it is.
fn check_certificate(certificate: Option<&CertificateDer<'_>>, peer: Identity) -> Result<(), GreetError> {
    let wrong = |why: String| GreetError::Certificate { node: peer.node, why };
    let leaf = certificate.ok_or_else(|| wrong("it shows none".into()))?;
    let certificate = ParsedCertificate::try_from(leaf).map_err(|e| wrong(e.to_string()))?;
    let name =
        ServerName::try_from(server_name(peer.cluster, peer.node)).map_err(|e| wrong(e.to_string()))?;
    verify_server_name(&certificate, &name).map_err(|e| wrong(e.to_string()))
}
