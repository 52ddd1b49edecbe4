//! One HTTP connection, and what its failures mean for an append.
//!
//! The one thing that matters here: a request that never left is *not applied*; once it may have left, and no answer
//! came, its outcome is *unknown*.

use super::{CallError, endpoint::Endpoint};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection that can take a request.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, CallError> {
        let refused = |what: &dyn std::fmt::Display| CallError::unreachable(endpoint, what);
        let stream = TcpStream::connect(&endpoint.authority)
            .await
            .map_err(|error| refused(&error))?;
        stream.set_nodelay(true).map_err(|error| refused(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(&error))?;
        // The connection's end shows in the sender; its error says nothing more.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// Waits until it can take a request; an error if the other side has closed it.
    pub(super) async fn ready(&mut self, endpoint: &Endpoint) -> Result<(), CallError> {
        self.sender
            .ready()
            .await
            .map_err(|error| CallError::unreachable(endpoint, &error))
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| match error.take_message() {
                Some(_) => CallError::unreachable(endpoint, error.error()),
                None => CallError::unknown(endpoint, error.error()),
            })
    }
}
