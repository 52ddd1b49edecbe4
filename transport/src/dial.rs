//! Keeping one connection to each peer: resolve, dial, greet, send until it is lost, wait, again.

use crate::{
    TransportEvent, backoff::Backoff, carrier::Outbound, greet::GreetError, peer::Peer, reason,
    transport::Shared, warnings::Source,
};
use kontiki_consensus::NodeId;
use kontiki_wire::handshake::Agreed;
use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::time;

/// How long an attempt is given before a sign of life of the peer cuts it short.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a peer is dialed at once whose connection broke off without a word: if its process has ended its host refuses,
/// but its listener may close a moment after its connections.
const LOOKS: u32 = 3;

/// How a connection was lost, or why there was none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    /// In words for an operator.
    pub(crate) why: String,
    pub(crate) how: How,
}

/// What follows from that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// The other side said that it stops.
    Farewell,
    /// It broke off without a word, as when the kernel closes it for a process that is no more.
    BrokeOff,
    /// The host is there, and nobody listens.
    NobodyListens,
    /// One side does not accept the other.
    Refused,
    /// The other side does not believe the life of this node.
    Unbelieved,
    /// Anything else.
    Otherwise,
}

impl Lost {
    /// One side does not accept the other, which does not pass by itself.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        let (why, how) = (why.into(), How::Refused);
        Self { why, how }
    }

    /// Lost for a reason that tells nothing about the other process.
    pub(crate) fn otherwise(why: impl Into<String>) -> Self {
        let (why, how) = (why.into(), How::Otherwise);
        Self { why, how }
    }
}

/// A connection that is ready to send on, and whose.
struct Connected {
    remote: SocketAddr,
    agreed: Agreed,
    outbound: Outbound,
}

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("its name cannot be resolved: {0}")]
    Resolve(String),
    #[error("its name is not resolved yet: the resolver of this machine does not answer")]
    ResolverSilent,
    #[error("its name resolves to no address")]
    NoAddress,
    #[error("{0}: {1}")]
    Greet(SocketAddr, GreetError),
    #[error("it has shown itself meanwhile; dialing anew")]
    Seen,
}

impl DialError {
    fn how(&self) -> How {
        match self {
            Self::Greet(_, GreetError::Lost(lost)) => lost.how,
            Self::Greet(..) => How::Refused,
            _ => How::Otherwise,
        }
    }
}

/// Connects to a peer, and again whenever the connection is lost.
pub(crate) async fn keep_connected(shared: Rc<Shared>, node: NodeId, seed: u64) {
    let Some(peer) = shared.peers.get(&node) else {
        return;
    };
    let limits = &shared.limits;
    let mut backoff = Backoff::new(limits.reconnect_min, limits.reconnect_max, seed ^ node.0);
    let mut looks = 0;
    loop {
        match dial(&shared, peer).await {
            Ok(connected) => {
                let since = Instant::now();
                let how = serve(&shared, peer, connected).await;
                looks = if how == How::BrokeOff { LOOKS } else { 0 };
                // One that is cut as soon as it stands is not dialed without a pause.
                if since.elapsed() >= limits.reconnect_max {
                    backoff.reset();
                    if looks > 0 {
                        continue;
                    }
                }
            }
            Err(DialError::Seen) => {}
            Err(error) => {
                fail(&shared, peer, &error);
                if let DialError::Greet(_, GreetError::Lost(lost)) = &error
                    && lost.how == How::Unbelieved
                {
                    tell(
                        &shared,
                        [TransportEvent::Refused(peer.node, reason::said(&lost.why))],
                    );
                }
                looks = look_again(&shared, peer, error.how(), looks);
                if looks > 0 {
                    continue;
                }
            }
        }
        tokio::select! {
            () = time::sleep(backoff.wait()) => {}
            () = peer.seen.notified() => {}
        }
    }
}

/// How often to look again, at once, for a peer whose connection broke off; tells it if its process has ended.
fn look_again(shared: &Shared, peer: &Peer, how: How, looks: u32) -> u32 {
    match how {
        How::NobodyListens if looks > 0 => {
            tracing::info!(peer = %peer.node, "its process seems to have ended");
            tell(shared, [TransportEvent::Gone(peer.node)]);
            0
        }
        // Its listener may be about to close, or another program have its port.
        _ => looks.saturating_sub(1),
    }
}

/// An attempt has failed. That a peer is out of reach is a warning only once it lasts: nodes are started one after the other.
fn fail(shared: &Shared, peer: &Peer, error: &DialError) {
    let reason = error.to_string();
    peer.down(&reason);
    let text = format!("no connection to {}: {reason}", peer.address());
    if matches!(error, DialError::ResolverSilent) && shared.warnings.holds(Source::To(peer.node)) {
        // Each answer of a slow resolver would otherwise be told anew.
        return;
    }
    let lasts = matches!(error.how(), How::Refused | How::Unbelieved);
    if !lasts && peer.since().elapsed() < shared.limits.absence_max {
        tracing::debug!("connection to node {}: {text}", peer.node);
    } else {
        shared.warnings.tell(Source::To(peer.node), &text);
    }
}

/// One attempt, over all addresses of the peer.
async fn dial(shared: &Shared, peer: &Peer) -> Result<Connected, DialError> {
    peer.reached.set(false);
    tokio::select! {
        connected = dial_each(shared, peer) => connected,
        () = seen_late(peer) => Err(DialError::Seen),
    }
}

/// Ends when the peer shows itself while it is being dialed and does not answer, as when it starts after this node.
async fn seen_late(peer: &Peer) {
    time::sleep(PATIENCE).await;
    peer.seen.notified().await;
    if peer.reached.get() {
        std::future::pending().await
    }
}

async fn dial_each(shared: &Shared, peer: &Peer) -> Result<Connected, DialError> {
    let address = peer.address();
    let lookup = time::timeout(shared.limits.connect_timeout, peer.resolver.addresses(&address));
    let found = lookup.await.map_err(|_| DialError::ResolverSilent)?;
    let addresses = found.map_err(DialError::Resolve)?;
    peer.resolved(&addresses);
    let mut result = Err(DialError::NoAddress);
    for address in addresses {
        result = dial_address(shared, peer, address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn dial_address(shared: &Shared, peer: &Peer, remote: SocketAddr) -> Result<Connected, DialError> {
    let establish = shared.endpoint.dial(shared, peer, remote);
    let too_late = || Err(GreetError::Lost(Lost::otherwise(shared.carrier.silence())));
    let outbound = time::timeout(shared.limits.connect_timeout, establish).await;
    let (outbound, agreed) = outbound
        .unwrap_or_else(|_| too_late())
        .map_err(|error| DialError::Greet(remote, error))?;
    Ok(Connected {
        remote,
        agreed,
        outbound,
    })
}

/// Sends what is queued until the connection is lost.
async fn serve(shared: &Shared, peer: &Peer, connected: Connected) -> How {
    let Connected {
        remote,
        agreed,
        mut outbound,
    } = connected;
    peer.up(remote);
    let standing = peer.stand(agreed.life.start);
    shared.warnings.clear(Source::To(peer.node));
    tracing::info!(peer = %peer.node, %remote, "connected");
    tell(
        shared,
        [TransportEvent::Connected(peer.node, agreed.peer.incarnation)],
    );
    let Lost { why, how } = tokio::select! {
        lost = outbound.serve(shared, peer, remote) => lost,
        refused = standing.ended() => Lost::otherwise(refused.unwrap_or_default()),
    };
    peer.down(&why);
    if how == How::Farewell {
        // It is stopped, perhaps to be started again: a warning only once that lasts.
        tell(shared, [TransportEvent::Gone(peer.node)]);
    } else {
        let text = format!("the connection to {remote} was lost: {why}");
        shared.warnings.tell(Source::To(peer.node), &text);
    }
    if how == How::Unbelieved {
        tell(shared, [TransportEvent::Refused(peer.node, reason::said(&why))]);
    }
    let lost = TransportEvent::Disconnected(peer.node, why);
    tell(shared, [lost, TransportEvent::Dropped(peer.node)]);
    how
}

fn tell<const N: usize>(shared: &Shared, events: [TransportEvent; N]) {
    for event in events {
        shared.sink.deliver(event);
    }
    shared.sink.settle();
}
