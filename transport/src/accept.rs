//! Connections that peers have dialed: greet, then read packets until they end.
//!
//! Invariants: only so many handshakes are under way at a time; a peer has one connection to this node, and
//! a newer one replaces it; who has not passed the greeting gets nothing but the reason.

use crate::{
    greet::{GreetError, answer},
    inbound::{StreamError, read_packets},
    peer::Peer,
    reason::{Close, describe},
    transport::Shared,
    warnings::Source,
};
use kontiki_wire::Identity;
use quinn::{Connection, Incoming, RecvStream};
use std::{cell::Cell, rc::Rc};
use tokio::{task::JoinSet, time};

/// Takes connections until the endpoint is closed.
pub(crate) async fn accept(shared: Rc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = shared.endpoint.accept() => match incoming {
                Some(incoming) => {
                    if let Some(place) = Place::take(&shared) {
                        connections.spawn_local(serve(shared.clone(), incoming, place));
                    } else {
                        incoming.ignore();
                    }
                }
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One of the places for handshakes; given back when dropped.
struct Place(Rc<Shared>);

impl Place {
    fn take(shared: &Rc<Shared>) -> Option<Self> {
        let taken: &Cell<usize> = &shared.handshakes;
        (taken.get() < shared.limits.handshakes_max).then(|| {
            taken.set(taken.get() + 1);
            Self(shared.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get().saturating_sub(1));
    }
}

async fn serve(shared: Rc<Shared>, incoming: Incoming, place: Place) {
    let remote = incoming.remote_address();
    let admitted = time::timeout(shared.limits.connect_timeout, admit(&shared, incoming)).await;
    drop(place);
    match admitted.unwrap_or(Err(GreetError::TooLate)) {
        Ok((connection, peer, identity)) => {
            shared.warnings.clear(Source::Stranger(remote));
            read_until_lost(&shared, connection, peer, identity).await;
        }
        Err(error) => shared.warnings.tell(Source::Stranger(remote), &error.to_string()),
    }
}

async fn admit(shared: &Shared, incoming: Incoming) -> Result<(Connection, &Peer, Identity), GreetError> {
    let connection = incoming.accept()?.await?;
    let (peer, identity) = answer(&connection, &shared.hello, &shared.peers).await?;
    Ok((connection, peer, identity))
}

async fn read_until_lost(shared: &Rc<Shared>, connection: Connection, peer: &Peer, identity: Identity) {
    if let Some(former) = peer.set_inbound(connection.clone()) {
        Close::Superseded.close(&former, "the node has connected anew");
    }
    let source = Source::From(peer.node);
    match read_lanes(shared, &connection, identity).await {
        StreamError::Lost(_) => {
            shared.warnings.clear(source);
            let reason = connection
                .close_reason()
                .map(|e| describe(&e))
                .unwrap_or_default();
            tracing::debug!("{source} ended: {reason}");
        }
        error => {
            let text = error.to_string();
            shared.warnings.tell(source, &text);
            Close::BadPacket.close(&connection, &text);
        }
    }
    peer.clear_inbound(&connection);
}

/// Reads every stream the peer opens, until the connection is lost or one of them says what it must not.
async fn read_lanes(shared: &Rc<Shared>, connection: &Connection, peer: Identity) -> StreamError {
    let mut lanes = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    lanes.spawn_local(read_lane(shared.clone(), stream, peer));
                }
                Err(error) => return StreamError::Lost(error.into()),
            },
            Some(ended) = lanes.join_next() => if let Ok(Err(error)) = ended {
                return error;
            },
        }
    }
}

async fn read_lane(shared: Rc<Shared>, stream: RecvStream, peer: Identity) -> Result<(), StreamError> {
    let bytes_max = shared.limits.packet_bytes_max;
    read_packets(stream, shared.own, peer, bytes_max, &*shared.sink).await
}
