//! Connections that peers have dialed: greet, then read packets until they end.
//!
//! Invariants: handshakes are bounded in number and in what they cost (`handshakes`); a peer has one connection a lane to this
//! node, and a newer one replaces it; who has not passed the greeting gets nothing but the reason; when the node stops, each is told.

use super::{
    Endpoint, LANES, end, refuse,
    secure::{self, Broken, Secure},
    words::{self, Word, Words},
};
use crate::{
    dial::Lost,
    greet::{self, GreetError},
    handshakes::Handshake,
    inbound::{Inbound, StreamError},
    peer::Peer,
    reason::{self, Close},
    transport::Shared,
    warnings::Source,
};
use kontiki_wire::handshake::Agreed;
use rustls::ServerConfig;
use std::{net::SocketAddr, rc::Rc, sync::Arc};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{self, JoinSet},
    time,
};

/// A connection from a peer that has proven who it is.
struct Accepted<'p> {
    secure: Secure,
    greeted: Greeted<'p>,
}

/// What a greeting has told.
struct Greeted<'p> {
    lane: usize,
    peer: &'p Peer,
    agreed: Agreed,
    /// What came behind it.
    rest: Vec<u8>,
}

/// What a connection is accepted with.
struct Terms {
    server: Arc<ServerConfig>,
    buffer: secure::Buffer,
    closing: watch::Receiver<bool>,
}

/// How a connection came to its end.
enum Stopped {
    Lost(Lost),
    Wrong(StreamError),
}

/// Takes connections until the endpoint is closed, and waits until all have ended.
pub(crate) async fn accept(endpoint: &Endpoint, shared: &Rc<Shared>) {
    let mut connections = JoinSet::new();
    let mut closing = endpoint.closing.subscribe();
    loop {
        tokio::select! {
            accepted = endpoint.listener.accept() => match accepted {
                Ok((socket, remote)) => {
                    if let Some(handshake) = shared.begin_handshake(remote) {
                        let terms = Terms {
                            server: endpoint.server.clone(),
                            buffer: endpoint.buffer.clone(),
                            closing: endpoint.closing.subscribe(),
                        };
                        connections.spawn_local(serve(shared.clone(), terms, socket, remote, handshake));
                    }
                    // Everything else has its turn before the next one.
                    task::yield_now().await;
                }
                // There is no room for it at the moment (EMFILE, say).
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted at the moment");
                    time::sleep(shared.limits.reconnect_max).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = closed(&mut closing) => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Waits until the endpoint is closed. What says so is not held on to: it would lock out who closes it once more.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn serve(
    shared: Rc<Shared>,
    terms: Terms,
    socket: TcpStream,
    remote: SocketAddr,
    handshake: Handshake,
) {
    let mut closing = terms.closing.clone();
    let admitted = tokio::select! {
        admitted = admit(&shared, terms, socket, &handshake) => admitted,
        () = time::sleep(shared.limits.connect_timeout) => Err(GreetError::TooLate),
        () = handshake.lost() => Err(GreetError::MadeRoom),
        () = closed(&mut closing) => return,
    };
    drop(handshake);
    // Each attempt comes from another port.
    let source = Source::Host(remote.ip());
    match admitted {
        Ok(accepted) => {
            shared.warnings.clear(source);
            read_until_lost(&shared, accepted, remote, closing).await;
        }
        Err(error) => shared.warnings.tell(error.source(source), &error.to_string()),
    }
}

async fn admit<'s>(
    shared: &'s Shared,
    terms: Terms,
    socket: TcpStream,
    handshake: &Handshake,
) -> Result<Accepted<'s>, GreetError> {
    secure::tune(&socket, &shared.limits);
    let secure = Secure::accept(socket, terms.server, terms.buffer, handshake).await?;
    match answer(&secure, shared).await {
        Ok(greeted) => Ok(Accepted { secure, greeted }),
        Err(error) => Err(refuse(&secure, error).await),
    }
}

/// Answers the greeting of a node that dialed this one.
async fn answer<'s>(secure: &Secure, shared: &'s Shared) -> Result<Greeted<'s>, GreetError> {
    let mut words = Words::default();
    let (lane, theirs) = match words.hear(secure).await? {
        Word::Hello(lane, hello) if usize::from(lane) < LANES => (lane, hello),
        Word::Hello(lane, _) => return Err(GreetError::Lane(lane)),
        Word::Close(code, said) => return Err(reason::closed(code.into(), &said).into()),
    };
    let certificate = secure.certificate();
    let (peer, agreed) = greet::check_dialer(&shared.hello, &theirs, certificate.as_ref(), &shared.peers)?;
    greet::check_life(shared, peer, &agreed)?;
    secure.write(&words::hello(lane, &shared.hello.encode())).await?;
    Ok(Greeted {
        lane: lane.into(),
        peer,
        agreed,
        rest: words.rest(),
    })
}

async fn read_until_lost(
    shared: &Shared,
    accepted: Accepted<'_>,
    remote: SocketAddr,
    mut closing: watch::Receiver<bool>,
) {
    let Accepted { secure, greeted } = accepted;
    let Greeted { lane, peer, .. } = greeted;
    let admitted = peer.admit(lane, remote, greeted.agreed.life.start);
    let source = Source::From(peer.node);
    tokio::select! {
        stopped = read_packets(shared, &secure, &greeted) => match stopped {
            Stopped::Lost(lost) => {
                shared.warnings.clear(source);
                tracing::debug!("{source} ended: {}", lost.why);
            }
            Stopped::Wrong(error) => {
                let text = error.to_string();
                shared.warnings.tell(source, &text);
                end(&secure, Close::BadPacket, &text).await;
            }
        },
        refused = admitted.ended() => match refused {
            Some(why) => end(&secure, Close::Life, &why).await,
            None => end(&secure, Close::Superseded, Close::Superseded.words()).await,
        },
        () = closed(&mut closing) => {
            end(&secure, Close::Shutdown, Close::Shutdown.words()).await;
        }
    }
    peer.leave(lane, &admitted);
}

/// Reads packets until the connection is lost or says what it must not.
async fn read_packets(shared: &Shared, secure: &Secure, greeted: &Greeted<'_>) -> Stopped {
    let mut inbound = Inbound::new(shared, &greeted.agreed);
    if let Err(error) = inbound.take(&greeted.rest) {
        return Stopped::Wrong(error);
    }
    loop {
        let read = secure
            .read(|piece| inbound.take(piece).map_err(Stopped::Wrong))
            .await;
        inbound.settle().await;
        if let Err(stopped) = read {
            return stopped;
        }
    }
}

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        Self::Lost(broken.into())
    }
}
