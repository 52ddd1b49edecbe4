//! The socket a node listens on, and what can go wrong before a transport runs.

use crate::{Carrier, CredentialsError};
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

/// How much the kernel is asked to hold between two looks at the socket; it grants what it is allowed to.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A socket that is bound. Its kind decides what packets travel by.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// For [`Carrier::Quic`].
    Udp(UdpSocket),
    /// For [`Carrier::Tcp`].
    Tcp(TcpListener),
}

impl Socket {
    /// What packets travel by that come here.
    #[must_use]
    pub const fn carrier(&self) -> Carrier {
        match self {
            Self::Udp(_) => Carrier::Quic,
            Self::Tcp(_) => Carrier::Tcp,
        }
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(listener) => listener.local_addr(),
        }
    }
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        Self::Udp(socket)
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// Why a transport could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program has the port.
    #[error(
        "{} port {} of {} is taken: does this node run already? Stop what uses the port, \
         or give the node another one in the configuration of every node", .0.protocol(), .1.port(), .1.ip()
    )]
    PortTaken(Carrier, SocketAddr),
    /// The address is none of this machine's.
    #[error("{0} is not an address of this machine: set `listen` to one that is, or to 0.0.0.0:{port}", port = .0.port())]
    NotOurAddress(SocketAddr),
    /// The socket cannot be opened.
    #[error("cannot listen on {} {address}: {error}", .carrier.protocol())]
    Bind {
        /// For what.
        carrier: Carrier,
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The socket cannot be used.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The credentials cannot be used.
    #[error("this node's credentials cannot be used: {0}")]
    Credentials(String),
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CredentialsError),
    /// The limits contradict each other.
    #[error("the limits of the transport do not hold together: {0}")]
    Limits(&'static str),
}

/// A socket on this address.
///
/// # Errors
/// If the port is taken or the address is not this machine's; the error says what to do.
pub fn bind(carrier: Carrier, address: SocketAddr) -> Result<Socket, StartError> {
    let bound = match carrier {
        Carrier::Quic => UdpSocket::bind(address).map(Socket::Udp),
        Carrier::Tcp => TcpListener::bind(address).map(Socket::Tcp),
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(carrier, address),
        io::ErrorKind::AddrNotAvailable => StartError::NotOurAddress(address),
        _ => StartError::Bind {
            carrier,
            address,
            error,
        },
    })
}

/// Asks for larger buffers. What the system does not grant costs speed, nothing else.
pub(crate) fn widen(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    for granted in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = granted {
            tracing::debug!(%error, "the system did not grant larger socket buffers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_what_to_do() {
        for carrier in [Carrier::Quic, Carrier::Tcp] {
            let first = bind(carrier, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = first.local_addr().unwrap();
            let error = bind(carrier, address).unwrap_err().to_string();
            let port = format!("{} port {}", carrier.protocol(), address.port());
            assert!(error.contains(&port), "{error}");
            assert!(error.contains("does this node run already?"), "{error}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_refused_in_words() {
        let error = bind(Carrier::Tcp, SocketAddr::from(([192, 0, 2, 1], 7400))).unwrap_err();
        assert!(
            error.to_string().contains("is not an address of this machine"),
            "{error}"
        );
    }
}
