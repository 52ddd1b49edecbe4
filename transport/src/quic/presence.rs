//! Whether a peer's process is there: an idle TCP connection beside the QUIC one, whose end the kernel tells at once.
//!
//! QUIC notices that a peer is dead only by its silence. A process that ends, however it ends, has its TCP connections closed
//! by its kernel: so each node listens on the TCP port with the number of its UDP port, and holds a connection to that of
//! each peer it sends to. Nothing is ever said on it. Invariants: what follows from it is a hint
//! ([`TransportEvent::Gone`]) and nothing else; it is given only by who dialled, about whom it dialled, if a connection that
//! stood has ended *and* another one is refused by the peer's host; whoever accepts need not know whom, and holds a bounded
//! number, of which those from other addresses than the peers' take none from these; without TCP (a port that is taken, a firewall) all else works as it does with it.

use crate::{
    TransportEvent,
    backoff::Backoff,
    peer::Peer,
    places::{Bounds, Places},
    transport::Shared,
};
use std::{
    convert::Infallible,
    io,
    net::{self, SocketAddr},
    rc::Rc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{self, JoinSet},
    time,
};

/// How many connections are held for each peer: its own, and what is left of its former lives.
const HELD_PER_PEER_MAX: usize = 8;
/// How many are held from addresses at which no peer is known to be: a peer may have another address than in the configuration.
const HELD_ELSEWHERE_MAX: usize = 16;
/// How many of these from one address.
pub(crate) const HELD_PER_ADDRESS_MAX: usize = 4;
/// How often it is looked at once whether the peer's host refuses: its listener may close a moment after its connections.
const LOOKS: u32 = 3;

/// The listener with the number of the UDP port, if that is to be had.
pub(crate) fn listen(address: SocketAddr) -> Option<TcpListener> {
    let bound = net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound
        .inspect_err(|error| {
            tracing::warn!(
                "TCP {address} cannot be listened on ({error}): if this process dies while it leads, the others wait \
                 an election timeout; all else works"
            );
        })
        .ok()
}

/// Accepts and holds connections until each ends, or makes room for a newer one.
pub(crate) async fn hold(shared: Rc<Shared>, listener: TcpListener) {
    let places = Places::new(Bounds {
        peers_max: HELD_PER_PEER_MAX * shared.peers.len(),
        strangers_max: HELD_ELSEWHERE_MAX,
        per_address_max: HELD_PER_ADDRESS_MAX,
    });
    let mut held = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                while held.try_join_next().is_some() {}
                if let Some(place) = places.take(shared.origin(remote.ip()), remote.ip()) {
                    held.spawn_local(async move {
                        tokio::select! {
                            _ = ended(&stream) => {}
                            () = place.lost() => {}
                        }
                    });
                }
                // Everything else has its turn before the next one.
                task::yield_now().await;
            }
            // There is no room for it at the moment (EMFILE, say): it is not worth taking any from others.
            Err(_) => time::sleep(shared.limits.reconnect_max).await,
        }
    }
}

/// Holds a connection to a peer that is connected from there, and tells when its process is gone.
pub(crate) async fn watch(shared: &Shared, peer: &Peer, remote: SocketAddr) -> Infallible {
    let limits = &shared.limits;
    let mut backoff = Backoff::new(limits.reconnect_min, limits.reconnect_max, peer.node.0);
    loop {
        if let Ok(stream) = dial(shared, remote).await {
            peer.watched.set(true);
            let refused = watch_one(shared, remote, stream).await;
            peer.watched.set(false);
            if refused {
                tracing::info!(peer = %peer.node, "its process seems to have ended");
                shared.sink.deliver(TransportEvent::Gone(peer.node));
                shared.sink.settle();
            }
        }
        time::sleep(backoff.wait()).await;
    }
}

/// Waits for the end of a connection; true if the peer's host refuses another one.
async fn watch_one(shared: &Shared, remote: SocketAddr, stream: TcpStream) -> bool {
    let mut stands = Some(stream);
    for _ in 0..LOOKS {
        if let Some(stream) = stands.take()
            && !ended(&stream).await
        {
            return false;
        }
        match dial(shared, remote).await {
            Ok(next) => stands = Some(next),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => return true,
                // The listener closed while it connected.
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {}
                _ => return false,
            },
        }
    }
    false
}

async fn dial(shared: &Shared, remote: SocketAddr) -> io::Result<TcpStream> {
    time::timeout(shared.limits.connect_timeout, TcpStream::connect(remote))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Waits until a connection is over; false if the other side has not ended it: it cannot be told, or something came where
/// nothing is to be said.
async fn ended(stream: &TcpStream) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match stream.try_read(&mut [0]) {
            Ok(read) => return read == 0,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                kind => return kind == io::ErrorKind::ConnectionReset,
            },
        }
    }
}
