//! Connections that peers have dialed: greet, then read packets until they end.
//!
//! Invariants: handshakes are bounded in number and in what they cost (`handshakes`); where many are under way an address has to
//! be shown not to be forged before anything is kept for it; a peer has one connection to this node, and a newer one replaces it; who has not passed the greeting gets nothing but the reason.

use super::{close, hear, lost, refuse, say};
use crate::{
    greet::{self, GreetError},
    handshakes::Handshake,
    inbound::{Inbound, StreamError},
    peer::Peer,
    reason::Close,
    transport::Shared,
    warnings::Source,
};
use bytes::Bytes;
use kontiki_consensus::NodeId;
use kontiki_wire::handshake::{Agreed, Hello};
use quinn::{Connection, Endpoint, Incoming, RecvStream};
use rustls::pki_types::CertificateDer;
use std::{collections::BTreeMap, net::SocketAddr, rc::Rc};
use tokio::{
    task::{self, JoinSet},
    time,
};

/// How many pieces of a stream are taken before they are worked on. A piece is a datagram, or many of them: QUIC puts together
/// what has waited here unread, up to the window of the lane.
const PIECES: usize = 32;
/// The purpose under which a peer's connection is known: it has but one.
const CONNECTION: usize = 0;

/// Takes connections until the endpoint is closed.
pub(crate) async fn accept(endpoint: &Endpoint, shared: &Rc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    if let Some((incoming, handshake)) = begin(shared, incoming) {
                        connections.spawn_local(serve(shared.clone(), incoming, handshake));
                    }
                    // Everything else has its turn before the next one.
                    task::yield_now().await;
                }
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Begins a handshake, if there is room for it. Where many are under way a dialer has to answer from its address first, which
/// costs nothing here (Retry: RFC 9000, §8.1.2).
fn begin(shared: &Shared, incoming: Incoming) -> Option<(Incoming, Handshake)> {
    let remote = incoming.remote_address();
    let crowded = shared.handshakes.are_crowded(shared.origin(remote.ip()));
    if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
        // It fails only where it may not be done.
        let _ = incoming.retry();
        return None;
    }
    match shared.begin_handshake(remote) {
        Some(handshake) => Some((incoming, handshake)),
        None => {
            incoming.ignore();
            None
        }
    }
}

async fn serve(shared: Rc<Shared>, incoming: Incoming, handshake: Handshake) {
    let remote = incoming.remote_address();
    let admitted = tokio::select! {
        admitted = admit(&shared, incoming, &handshake) => admitted,
        () = time::sleep(shared.limits.connect_timeout) => Err(GreetError::TooLate),
        () = handshake.lost() => Err(GreetError::MadeRoom),
    };
    drop(handshake);
    match admitted {
        Ok((connection, peer, agreed)) => {
            shared.warnings.clear(Source::Stranger(remote));
            read_until_lost(&shared, connection, remote, peer, agreed).await;
        }
        Err(error) => {
            let source = error.source(Source::Stranger(remote));
            shared.warnings.tell(source, &error.to_string());
        }
    }
}

async fn admit<'s>(
    shared: &'s Shared,
    incoming: Incoming,
    handshake: &Handshake,
) -> Result<(Connection, &'s Peer, Agreed), GreetError> {
    // The first step is what costs; each of the others answers to a proof that the dialer has done as much.
    handshake.turn().await;
    let connecting = handshake
        .step(|| incoming.accept())
        .map_err(|error| lost(&error))?;
    let connection = connecting.await.map_err(|error| lost(&error))?;
    let answered = answer(&connection, &shared.hello, &shared.peers).await;
    let believed =
        answered.and_then(|(peer, agreed)| greet::check_life(shared, peer, &agreed).map(|()| (peer, agreed)));
    match believed {
        Ok((peer, agreed)) => Ok((connection, peer, agreed)),
        Err(error) => Err(refuse(&connection, error)),
    }
}

/// Answers the greeting of a node that dialed this one; returns which of the peers it is.
pub(crate) async fn answer<'p>(
    connection: &Connection,
    ours: &Hello,
    peers: &'p BTreeMap<NodeId, Peer>,
) -> Result<(&'p Peer, Agreed), GreetError> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| lost(&error))?;
    let theirs = hear(connection, &mut receive).await?;
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let known = greet::check_dialer(ours, &theirs, leaf, peers)?;
    say(connection, &mut send, ours).await?;
    Ok(known)
}

async fn read_until_lost(
    shared: &Rc<Shared>,
    connection: Connection,
    remote: SocketAddr,
    peer: &Peer,
    agreed: Agreed,
) {
    let admitted = peer.admit(CONNECTION, remote, agreed.life.start);
    let source = Source::From(peer.node);
    tokio::select! {
        error = read_lanes(shared, &connection, agreed) => if let Some(error) = error {
            let text = error.to_string();
            shared.warnings.tell(source, &text);
            close(&connection, Close::BadPacket, &text);
        } else {
            shared.warnings.clear(source);
            let reason = connection.close_reason().map(|e| lost(&e).why).unwrap_or_default();
            tracing::debug!("{source} ended: {reason}");
        },
        refused = admitted.ended() => match refused {
            Some(why) => close(&connection, Close::Life, &why),
            None => close(&connection, Close::Superseded, Close::Superseded.words()),
        },
    }
    peer.leave(CONNECTION, &admitted);
}

/// Reads every stream the peer opens, until the connection is lost or one of them says what it must not.
async fn read_lanes(shared: &Rc<Shared>, connection: &Connection, peer: Agreed) -> Option<StreamError> {
    let mut lanes = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    lanes.spawn_local(read_lane(shared.clone(), stream, peer));
                }
                Err(_) => return None,
            },
            Some(ended) = lanes.join_next() => if let Ok(Err(error)) = ended {
                return Some(error);
            },
        }
    }
}

/// Reads packets until the stream ends; the connection knows why, if it was lost.
async fn read_lane(shared: Rc<Shared>, mut stream: RecvStream, peer: Agreed) -> Result<(), StreamError> {
    let mut inbound = Inbound::new(&shared, &peer);
    let mut pieces = [const { Bytes::new() }; PIECES];
    while let Ok(Some(count)) = stream.read_chunks(&mut pieces).await {
        inbound.take_in_turns(&pieces[..count]).await?;
    }
    Ok(())
}
