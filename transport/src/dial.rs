//! Keeping one connection to each peer: resolve, dial, greet, write until it is lost, wait, again.

use crate::{
    TransportEvent,
    backoff::Backoff,
    credentials::server_name,
    greet::{GreetError, greet},
    peer::Peer,
    presence,
    reason::{Close, describe},
    transport::Shared,
    warnings::Source,
};
use kontiki_consensus::NodeId;
use kontiki_wire::Identity;
use quinn::{Connection, ConnectionError, SendStream};
use std::{net::SocketAddr, rc::Rc, time::Duration};
use tokio::{net::lookup_host, time};

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;
/// How long an attempt is given before a sign of life of the peer cuts it short.
const PATIENCE: Duration = Duration::from_millis(200);
/// What the lanes are worth to QUIC: all of the urgent one goes before any of the bulk one, and all of that before any
/// of the background one.
const URGENT_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
const BACKGROUND_PRIORITY: i32 = -1;

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("its name cannot be resolved: {0}")]
    Resolve(#[from] std::io::Error),
    #[error("its name resolves to no address")]
    NoAddress,
    #[error("{0}: {1}")]
    Connect(SocketAddr, quinn::ConnectError),
    #[error("{0}: {1}")]
    Greet(SocketAddr, GreetError),
    #[error("it has shown itself meanwhile; dialing anew")]
    Seen,
}

/// A connection that is ready to send on.
struct Outbound {
    connection: Connection,
    identity: Identity,
    urgent: SendStream,
    bulk: SendStream,
    background: SendStream,
}

/// Connects to a peer, and again whenever the connection is lost.
pub(crate) async fn keep_connected(shared: Rc<Shared>, node: NodeId, seed: u64) {
    let Some(peer) = shared.peers.get(&node) else {
        return;
    };
    let limits = &shared.limits;
    let mut backoff = Backoff::new(limits.reconnect_min, limits.reconnect_max, seed ^ node.0);
    loop {
        match dial(&shared, peer).await {
            Ok(outbound) => {
                backoff.reset();
                serve(&shared, peer, outbound).await;
            }
            Err(DialError::Seen) => {}
            Err(error) => fail(&shared, peer, &error.to_string()),
        }
        tokio::select! {
            () = time::sleep(backoff.wait()) => {}
            () = peer.seen.notified() => {}
        }
    }
}

fn fail(shared: &Shared, peer: &Peer, reason: &str) {
    peer.down(reason);
    let text = format!("no connection to {}: {reason}", peer.address());
    shared.warnings.tell(Source::To(peer.node), &text);
}

/// One attempt, over all addresses of the peer.
async fn dial(shared: &Shared, peer: &Peer) -> Result<Outbound, DialError> {
    tokio::select! {
        outbound = dial_each(shared, peer) => outbound,
        () = seen_late(peer) => Err(DialError::Seen),
    }
}

/// Ends when the peer shows itself while it is being dialed, as when it starts after this node.
async fn seen_late(peer: &Peer) {
    time::sleep(PATIENCE).await;
    peer.seen.notified().await;
}

async fn dial_each(shared: &Shared, peer: &Peer) -> Result<Outbound, DialError> {
    let addresses: Vec<SocketAddr> = lookup_host(peer.address()).await?.take(ADDRESSES_MAX).collect();
    let mut result = Err(DialError::NoAddress);
    for address in addresses {
        result = dial_address(shared, peer, address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn dial_address(shared: &Shared, peer: &Peer, address: SocketAddr) -> Result<Outbound, DialError> {
    let name = server_name(shared.own.cluster, peer.node);
    let connecting = shared
        .endpoint
        .connect(address, &name)
        .map_err(|e| DialError::Connect(address, e))?;
    let establish = establish(shared, peer, connecting);
    time::timeout(shared.limits.connect_timeout, establish)
        .await
        .unwrap_or(Err(GreetError::Lost(ConnectionError::TimedOut)))
        .map_err(|e| DialError::Greet(address, e))
}

async fn establish(
    shared: &Shared,
    peer: &Peer,
    connecting: quinn::Connecting,
) -> Result<Outbound, GreetError> {
    let connection = connecting.await?;
    let identity = greet(&connection, &shared.hello, peer).await?;
    let (urgent, bulk) = (connection.open_uni().await?, connection.open_uni().await?);
    let background = connection.open_uni().await?;
    let closed = |_| GreetError::BrokenOff("a new stream was closed".into());
    urgent.set_priority(URGENT_PRIORITY).map_err(closed)?;
    bulk.set_priority(BULK_PRIORITY).map_err(closed)?;
    background.set_priority(BACKGROUND_PRIORITY).map_err(closed)?;
    Ok(Outbound {
        connection,
        identity,
        urgent,
        bulk,
        background,
    })
}

/// Sends what is queued until the connection is lost.
async fn serve(shared: &Shared, peer: &Peer, outbound: Outbound) {
    let Outbound {
        connection,
        identity,
        urgent,
        bulk,
        background,
    } = outbound;
    let remote = connection.remote_address();
    peer.up(remote);
    shared.warnings.clear(Source::To(peer.node));
    tracing::info!(peer = %peer.node, %remote, "connected");
    tell(
        shared,
        [TransportEvent::Connected(peer.node, identity.incarnation)],
    );
    let reason = tokio::select! {
        error = peer.urgent.write_to(urgent) => write_failed(&connection, &error),
        error = peer.bulk.write_to(bulk) => write_failed(&connection, &error),
        error = peer.background.write_to(background) => write_failed(&connection, &error),
        error = connection.closed() => describe(&error),
        never = presence::watch(shared, peer, remote) => match never {},
    };
    peer.down(&reason);
    let text = format!("the connection to {remote} was lost: {reason}");
    shared.warnings.tell(Source::To(peer.node), &text);
    if connection
        .close_reason()
        .is_some_and(|why| Close::Shutdown.was_said(&why))
    {
        tell(shared, [TransportEvent::Gone(peer.node)]);
    }
    let lost = TransportEvent::Disconnected(peer.node, reason);
    tell(shared, [lost, TransportEvent::Dropped(peer.node)]);
}

/// The connection knows best why a stream failed.
fn write_failed(connection: &Connection, error: &quinn::WriteError) -> String {
    connection
        .close_reason()
        .map_or_else(|| error.to_string(), |e| describe(&e))
}

fn tell<const N: usize>(shared: &Shared, events: [TransportEvent; N]) {
    for event in events {
        shared.sink.deliver(event);
    }
    shared.sink.settle();
}
