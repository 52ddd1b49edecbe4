//! The greeting: both sides say who they are, and each checks it against the other's certificate.
//!
//! The dialer speaks first, on the connection's only bidirectional stream. Its certificate check was part of
//! the TLS handshake, which names the node it dials; the accepting side learns the node from the hello and
//! then asks whether the certificate bears that name.

use crate::{
    credentials::server_name,
    peer::Peer,
    reason::{Close, describe},
};
use kontiki_consensus::{Incarnation, NodeId};
use kontiki_wire::{
    Identity,
    handshake::{HELLO_BYTES_MAX, HandshakeError, Hello},
};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
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
    #[error("{}", describe(.0))]
    Lost(#[from] ConnectionError),
    /// The greeting broke off.
    #[error("the greeting broke off: {0}")]
    BrokenOff(String),
    /// It did not come in time.
    #[error("no greeting in time: is it a Kontiki node?")]
    TooLate,
    /// The two do not fit together.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The certificate is not that of the node it says it is.
    #[error("it says that it is node {node}, but its certificate is another node's: {why}")]
    Certificate { node: NodeId, why: String },
    /// It is none of the peers.
    #[error("it is node {0}, which is not among the peers in this node's configuration")]
    NotAPeer(NodeId),
    /// It is not the one this node has met before.
    #[error(
        "node {node} came as incarnation {now} where {before} was known: its data directory was made anew, \
         or there are two of them. It may have forgotten votes it gave and is not listened to: \
         put its old directory back"
    )]
    Incarnation {
        node: NodeId,
        now: Incarnation,
        before: Incarnation,
    },
}

impl GreetError {
    /// Whether this node is the one that refuses.
    fn is_refusal(&self) -> bool {
        !matches!(self, Self::Lost(_) | Self::BrokenOff(_))
    }

    /// Ends the connection; the other side learns why, if it is for this one to say.
    fn close(self, connection: &Connection) -> Self {
        if self.is_refusal() {
            Close::Refused.close(connection, &self.to_string());
        }
        self
    }
}

/// Greets the node that was dialed.
pub(crate) async fn greet(
    connection: &Connection,
    ours: &Hello,
    peer: &Peer,
) -> Result<Identity, GreetError> {
    greet_unchecked(connection, ours, peer)
        .await
        .map_err(|error| error.close(connection))
}

async fn greet_unchecked(connection: &Connection, ours: &Hello, peer: &Peer) -> Result<Identity, GreetError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    say(connection, &mut send, ours).await?;
    let theirs = hear(connection, &mut receive).await?;
    let agreed = ours.agree(&theirs, Some(peer.node))?;
    peer.recognize(agreed.peer.incarnation)?;
    Ok(agreed.peer)
}

/// Answers the greeting of a node that dialed this one; returns which of the peers it is.
pub(crate) async fn answer<'p>(
    connection: &Connection,
    ours: &Hello,
    peers: &'p BTreeMap<NodeId, Peer>,
) -> Result<(&'p Peer, Identity), GreetError> {
    answer_unchecked(connection, ours, peers)
        .await
        .map_err(|error| error.close(connection))
}

async fn answer_unchecked<'p>(
    connection: &Connection,
    ours: &Hello,
    peers: &'p BTreeMap<NodeId, Peer>,
) -> Result<(&'p Peer, Identity), GreetError> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    let theirs = hear(connection, &mut receive).await?;
    let agreed = ours.agree(&theirs, None)?;
    check_certificate(connection, agreed.peer)?;
    let node = agreed.peer.node;
    let peer = peers.get(&node).ok_or(GreetError::NotAPeer(node))?;
    peer.recognize(agreed.peer.incarnation)?;
    say(connection, &mut send, ours).await?;
    Ok((peer, agreed.peer))
}

async fn say(connection: &Connection, stream: &mut SendStream, hello: &Hello) -> Result<(), GreetError> {
    let broken = |error: &dyn std::fmt::Display| broken_off(connection, error);
    stream.write_all(&hello.encode()).await.map_err(|e| broken(&e))?;
    stream.finish().map_err(|e| broken(&e))
}

async fn hear(connection: &Connection, stream: &mut RecvStream) -> Result<Hello, GreetError> {
    let bytes = stream
        .read_to_end(HELLO_BYTES_MAX)
        .await
        .map_err(|e| broken_off(connection, &e))?;
    Ok(Hello::decode(&bytes)?)
}

/// The connection knows best why a stream failed.
fn broken_off(connection: &Connection, error: &dyn std::fmt::Display) -> GreetError {
    connection
        .close_reason()
        .map_or_else(|| GreetError::BrokenOff(error.to_string()), GreetError::Lost)
}

/// Whether the certificate at the other end, which TLS has verified, is that of the node it says it is.
fn check_certificate(connection: &Connection, peer: Identity) -> Result<(), GreetError> {
    let wrong = |why: String| GreetError::Certificate { node: peer.node, why };
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| wrong("it shows none".into()))?;
    let leaf = chain.first().ok_or_else(|| wrong("it shows none".into()))?;
    let certificate = ParsedCertificate::try_from(leaf).map_err(|e| wrong(e.to_string()))?;
    let name =
        ServerName::try_from(server_name(peer.cluster, peer.node)).map_err(|e| wrong(e.to_string()))?;
    verify_server_name(&certificate, &name).map_err(|e| wrong(e.to_string()))
}
