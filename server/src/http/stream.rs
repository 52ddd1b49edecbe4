//! Response bodies that are produced as fast as the client takes them, and no faster.
//!
//! Invariant: a body that is not complete is cut off, never ended as if it were. The client sees that (the last chunk is
//! missing), asks again from the next index, and then hears why.

use super::{media::Wanted, problem::Refusal};
use crate::api::Heartbeat;
use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::Frame;
use kontiki::{Entry, Raw};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Pieces that may wait for the client.
const PIECES: usize = 2;

/// Bytes of entries in a piece, unless it is a single entry. Encoding more at once would keep a thread from other clients.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Where pieces of a body are put.
pub(super) struct Sink {
    pieces: mpsc::Sender<Result<Bytes, CutOff>>,
    wanted: Wanted,
}

impl Sink {
    /// Puts entries into the body, piece by piece. False if the client is gone or the body was cut off.
    pub(super) async fn put(&self, entries: &[Entry<Raw>]) -> bool {
        let mut bytes = 0;
        let slices = entries.split_inclusive(|entry| {
            bytes += entry.value.0.len() + crate::frames::LENGTH_BYTES;
            let full = bytes >= PIECE_BYTES;
            bytes = if full { 0 } else { bytes };
            full
        });
        for slice in slices {
            let put = match self.wanted.encode(slice) {
                Ok(piece) => self.pieces.send(Ok(piece)).await.is_ok(),
                Err(_) => self.cut_off("an entry cannot be encoded").await,
            };
            if !put {
                return false;
            }
        }
        true
    }

    /// Puts a heartbeat into the body. False if the client is gone or the body was cut off.
    pub(super) async fn beat(&self, heartbeat: Heartbeat) -> bool {
        match self.wanted.heartbeat(heartbeat) {
            Ok(piece) => self.pieces.send(Ok(piece)).await.is_ok(),
            Err(_) => self.cut_off("a heartbeat cannot be encoded").await,
        }
    }

    /// Cuts the body off; always false.
    pub(super) async fn cut_off(&self, why: impl Into<String>) -> bool {
        // If the client is gone already, nobody is left to be told.
        let _ = self.pieces.send(Err(CutOff(why.into()))).await;
        false
    }

    /// Waits until the client is gone.
    pub(super) async fn closed(&self) {
        self.pieces.closed().await;
    }
}

/// A response whose body is what is put into the sink until it is dropped.
pub(super) fn response(wanted: Wanted) -> (Sink, Response) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let body = Body::new(Pieces { receiver });
    let response = ([(CONTENT_TYPE, wanted.media_type())], body).into_response();
    (
        Sink {
            pieces: sender,
            wanted,
        },
        response,
    )
}

struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, CutOff>>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        self.receiver
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Why a body was cut off.
#[derive(Debug)]
struct CutOff(String);

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CutOff {}

/// The answer of a handler that streams.
pub(super) type Streamed = Result<Response, Refusal>;
