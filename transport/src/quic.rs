//! QUIC: one UDP socket a node, one connection a pair of nodes and direction, one stream a lane.
//!
//! The greeting is a stream of its own, the only bidirectional one; both sides end theirs behind the hello. A dialed
//! connection carries packets only away from the dialer.

mod accept;
pub(crate) mod config;
pub(crate) mod presence;

use crate::{
    Limits, NodeCredentials, StartError,
    credentials::server_name,
    dial::Lost,
    greet::{self, GreetError},
    lane::Drain,
    peer::Peer,
    reason::{self, Close},
    socket,
    transport::Shared,
};
#[cfg(test)]
pub(crate) use accept::answer;
use bytes::Bytes;
use kontiki_wire::handshake::{Agreed, HELLO_BYTES_MAX, Hello};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, TokioRuntime, VarInt, WriteError};
use std::{
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
};
use tokio::task::JoinSet;

/// What the lanes are worth to QUIC: all of the urgent one goes before any of the bulk one, and all of that before any
/// of the background one.
const URGENT_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
const BACKGROUND_PRIORITY: i32 = -1;

/// A socket, and all connections on it.
pub(crate) struct Endpoint(quinn::Endpoint);

/// A connection that is ready to send on.
pub(crate) struct Outbound {
    connection: Connection,
    urgent: Stream,
    bulk: Stream,
    background: Stream,
}

/// One direction of a lane.
struct Stream(SendStream);

impl Endpoint {
    pub(crate) fn new(
        credentials: NodeCredentials,
        limits: &Limits,
        socket: UdpSocket,
    ) -> Result<Self, StartError> {
        let configs = config::Configs::new(credentials, limits)?;
        socket::widen(&socket);
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint = quinn::Endpoint::new(configs.endpoint, Some(configs.server), socket, runtime)?;
        endpoint.set_default_client_config(configs.client);
        Ok(Self(endpoint))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr, StartError> {
        Ok(self.0.local_addr()?)
    }

    /// Takes connections until it is closed; holds those by which others watch this process.
    pub(crate) async fn accept(&self, shared: &Rc<Shared>) {
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.0.local_addr().ok().and_then(presence::listen) {
            tasks.spawn_local(presence::hold(shared.clone(), listener));
        }
        accept::accept(&self.0, shared).await;
    }

    /// Connects to a peer at this address, and greets it.
    pub(crate) async fn dial(
        &self,
        shared: &Shared,
        peer: &Peer,
        address: SocketAddr,
    ) -> Result<(Outbound, Agreed), GreetError> {
        let name = server_name(shared.own.cluster, peer.node);
        let connecting = self.0.connect(address, &name);
        let connecting = connecting.map_err(|error| Lost::otherwise(error.to_string()))?;
        let connection = connecting.await.map_err(|error| lost(&error))?;
        peer.reached.set(true);
        let agreed = greet(&connection, &shared.hello, peer)
            .await
            .and_then(|agreed| greet::check_life(shared, peer, &agreed).map(|()| agreed))
            .map_err(|error| refuse(&connection, error))?;
        let outbound = Outbound::open(connection).await.map_err(|error| lost(&error))?;
        Ok((outbound, agreed))
    }

    pub(crate) fn close(&self) {
        let close = Close::Shutdown;
        self.0.close(code(close), close.words().as_bytes());
    }

    pub(crate) async fn closed(&self) {
        self.0.wait_idle().await;
    }
}

impl Outbound {
    async fn open(connection: Connection) -> Result<Self, ConnectionError> {
        let urgent = Stream::open(&connection, URGENT_PRIORITY).await?;
        let bulk = Stream::open(&connection, BULK_PRIORITY).await?;
        let background = Stream::open(&connection, BACKGROUND_PRIORITY).await?;
        Ok(Self {
            connection,
            urgent,
            bulk,
            background,
        })
    }

    /// Sends what the peer's lanes hold until the connection is lost.
    pub(crate) async fn serve(&mut self, shared: &Shared, peer: &Peer, remote: SocketAddr) -> Lost {
        let connection = &self.connection;
        tokio::select! {
            error = peer.urgent.write_to(&mut self.urgent) => write_failed(connection, &error),
            error = peer.bulk.write_to(&mut self.bulk) => write_failed(connection, &error),
            error = peer.background.write_to(&mut self.background) => write_failed(connection, &error),
            error = connection.closed() => lost(&error),
            never = presence::watch(shared, peer, remote) => match never {},
        }
    }
}

impl Stream {
    async fn open(connection: &Connection, priority: i32) -> Result<Self, ConnectionError> {
        let stream = connection.open_uni().await?;
        // It fails only for a stream that is finished, which this one is not.
        let _ = stream.set_priority(priority);
        Ok(Self(stream))
    }
}

impl Drain for Stream {
    type Error = WriteError;

    async fn write(&mut self, batch: &mut [Bytes]) -> Result<(), WriteError> {
        self.0.write_all_chunks(batch).await
    }
}

/// Says hello to the node that was dialed, and hears its own.
pub(crate) async fn greet(connection: &Connection, ours: &Hello, peer: &Peer) -> Result<Agreed, GreetError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| lost(&error))?;
    say(connection, &mut send, ours).await?;
    let theirs = hear(connection, &mut receive).await?;
    greet::check_dialed(ours, &theirs, peer)
}

async fn say(connection: &Connection, stream: &mut SendStream, hello: &Hello) -> Result<(), Lost> {
    let broken = |error: &dyn std::fmt::Display| broken_off(connection, error);
    stream.write_all(&hello.encode()).await.map_err(|e| broken(&e))?;
    stream.finish().map_err(|e| broken(&e))
}

async fn hear(connection: &Connection, stream: &mut RecvStream) -> Result<Vec<u8>, Lost> {
    let hello = stream.read_to_end(HELLO_BYTES_MAX).await;
    hello.map_err(|e| broken_off(connection, &e))
}

/// Ends a connection whose greeting has failed; the other side learns why, if it is for this one to say.
fn refuse(connection: &Connection, error: GreetError) -> GreetError {
    if let Some(refusal) = error.refusal() {
        close(connection, error.close(), &refusal);
    }
    error
}

fn close(connection: &Connection, why: Close, reason: &str) {
    connection.close(code(why), reason::cut(reason));
}

fn code(close: Close) -> VarInt {
    VarInt::from_u32(close.code().into())
}

/// The connection knows best why a stream failed.
fn broken_off(connection: &Connection, error: &dyn std::fmt::Display) -> Lost {
    let broken = || Lost::otherwise(format!("the greeting broke off: {error}"));
    connection
        .close_reason()
        .map_or_else(broken, |error| lost(&error))
}

fn write_failed(connection: &Connection, error: &WriteError) -> Lost {
    let failed = || Lost::otherwise(error.to_string());
    connection
        .close_reason()
        .map_or_else(failed, |error| lost(&error))
}

/// How a connection ended or was never made.
fn lost(error: &ConnectionError) -> Lost {
    match error {
        ConnectionError::TimedOut => Lost::otherwise(crate::Carrier::Quic.silence()),
        ConnectionError::Reset => Lost::otherwise("the other side has restarted"),
        ConnectionError::LocallyClosed => Lost::otherwise("closed by this node"),
        ConnectionError::ApplicationClosed(close) => {
            reason::closed(close.error_code.into_inner(), &close.reason)
        }
        ConnectionError::ConnectionClosed(close) => alert(close.error_code.into()).map_or_else(
            || {
                let said = reason::printable(&close.reason);
                Lost::otherwise(format!("the other side ended the connection: {said}"))
            },
            reason::alerted,
        ),
        ConnectionError::TransportError(error) => alert(error.code.into()).map_or_else(
            || {
                let said = reason::printable(error.reason.as_bytes());
                Lost::otherwise(format!("the connection failed: {said}"))
            },
            |alert| reason::distrusted(alert, &error.reason),
        ),
        other => Lost::otherwise(other.to_string()),
    }
}

/// The TLS alert that this error of QUIC carries (RFC 9001, §4.8), if it does.
fn alert(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}
