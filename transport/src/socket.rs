//! The UDP socket, and what can go wrong before a transport runs.

use crate::CredentialsError;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// How much the kernel is asked to hold between two looks at the socket; it grants what it is allowed to.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Why a transport could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program has the port.
    #[error(
        "UDP port {} of {} is taken: does this node run already? Stop what uses the port, \
         or give the node another one in the configuration of every node", .0.port(), .0.ip()
    )]
    PortTaken(SocketAddr),
    /// The address is none of this machine's.
    #[error("{0} is not an address of this machine: set `listen` to one that is, or to 0.0.0.0:{port}", port = .0.port())]
    NotOurAddress(SocketAddr),
    /// The socket cannot be opened.
    #[error("cannot listen on UDP {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The socket cannot be used.
    #[error("the UDP socket cannot be used: {0}")]
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

/// A UDP socket on this address, with room for bursts.
///
/// # Errors
/// If the port is taken or the address is not this machine's; the error says what to do.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, StartError> {
    UdpSocket::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        io::ErrorKind::AddrNotAvailable => StartError::NotOurAddress(address),
        _ => StartError::Bind { address, error },
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
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.port().to_string()), "{error}");
        assert!(error.contains("does this node run already?"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused_in_words() {
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 7400))).unwrap_err();
        assert!(
            error.to_string().contains("is not an address of this machine"),
            "{error}"
        );
    }
}
