//! What packets travel by, and the little that differs between the two.
//!
//! Invariant: what is checked of a peer, what is told of it and how its lanes are bounded does not depend on the carrier.

use crate::{
    Limits, NodeCredentials, Socket, StartError, dial::Lost, greet::GreetError, peer::Peer, quic, tcp,
    transport::Shared,
};
use kontiki_wire::handshake::Agreed;
use std::{fmt, net::SocketAddr, rc::Rc, str::FromStr};

/// What packets travel by: the same on every node of a cluster. Both authenticate both ends by the same certificates, and nothing
/// travels in the clear by either.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Carrier {
    /// QUIC, over one UDP socket a node. What was lost holds up nothing but its lane, which is one of three streams; one
    /// connection a pair and direction.
    Quic,
    /// TLS 1.3 over TCP, a connection for each lane. It costs less CPU and answers sooner, since the kernel does what QUIC does
    /// in the process; docs/PERFORMANCE.md has the figures.
    #[default]
    Tcp,
}

impl FromStr for Carrier {
    type Err = UnknownCarrier;

    fn from_str(text: &str) -> Result<Self, UnknownCarrier> {
        match text {
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            _ => Err(UnknownCarrier(text.to_owned())),
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

/// There is no carrier of this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no carrier: it is \"quic\" or \"tcp\"")]
pub struct UnknownCarrier(String);

impl Carrier {
    /// What it may mean that nobody answers.
    pub(crate) fn silence(self) -> String {
        let by = self.protocol();
        format!("no answer: is the node running, and does {by} get through to it?")
    }

    /// What it is carried by itself.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Quic => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// A node's place in the network.
pub(crate) enum Endpoint {
    Quic(quic::Endpoint),
    Tcp(tcp::Endpoint),
}

/// A connection that is ready to send on.
pub(crate) enum Outbound {
    Quic(quic::Outbound),
    Tcp(tcp::Outbound),
}

impl Endpoint {
    pub(crate) fn new(
        credentials: NodeCredentials,
        limits: &Limits,
        socket: Socket,
    ) -> Result<Self, StartError> {
        Ok(match socket {
            Socket::Udp(socket) => Self::Quic(quic::Endpoint::new(credentials, limits, socket)?),
            Socket::Tcp(listener) => Self::Tcp(tcp::Endpoint::new(credentials, listener)?),
        })
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr, StartError> {
        match self {
            Self::Quic(endpoint) => endpoint.local_addr(),
            Self::Tcp(endpoint) => endpoint.local_addr(),
        }
    }

    /// Takes connections from peers, and packets from those, until it is closed.
    pub(crate) async fn accept(&self, shared: &Rc<Shared>) {
        match self {
            Self::Quic(endpoint) => endpoint.accept(shared).await,
            Self::Tcp(endpoint) => endpoint.accept(shared).await,
        }
    }

    /// Connects to a peer at this address, and greets it.
    pub(crate) async fn dial(
        &self,
        shared: &Shared,
        peer: &Peer,
        address: SocketAddr,
    ) -> Result<(Outbound, Agreed), GreetError> {
        Ok(match self {
            Self::Quic(endpoint) => {
                let (outbound, agreed) = endpoint.dial(shared, peer, address).await?;
                (Outbound::Quic(outbound), agreed)
            }
            Self::Tcp(endpoint) => {
                let (outbound, agreed) = endpoint.dial(shared, peer, address).await?;
                (Outbound::Tcp(outbound), agreed)
            }
        })
    }

    /// Ends all connections, and says goodbye on each.
    pub(crate) fn close(&self) {
        match self {
            Self::Quic(endpoint) => endpoint.close(),
            Self::Tcp(endpoint) => endpoint.close(),
        }
    }

    /// Waits until the goodbyes have been heard.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Quic(endpoint) => endpoint.closed().await,
            // They have been when the last connection has ended, and with that `accept`.
            Self::Tcp(_) => {}
        }
    }
}

impl Outbound {
    /// Sends what the peer's lanes hold until the connection is lost.
    pub(crate) async fn serve(&mut self, shared: &Shared, peer: &Peer, remote: SocketAddr) -> Lost {
        match self {
            Self::Quic(outbound) => outbound.serve(shared, peer, remote).await,
            Self::Tcp(outbound) => outbound.serve(peer).await,
        }
    }
}
