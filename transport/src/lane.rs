//! A lane: the bounded queue in front of one stream, and the loop that writes it out.
//!
//! Invariants: what waits and what is being written never exceeds the limits; a closed lane takes and holds
//! nothing; all that waits goes out in one write. Large pieces, which are records and entries, are not copied;
//! small ones are put together, since QUIC walks through all pieces that are not yet acknowledged each time it
//! fills a datagram.

use crate::Limits;
use bytes::{Bytes, BytesMut};
use kontiki_wire::{ClusterId, Packet, codec};
use std::cell::RefCell;
use tokio::sync::Notify;

/// Pieces from this size on are passed on as they are.
const LARGE_BYTES: usize = 4 << 10;
/// Small pieces are put together up to about this size.
const PIECE_BYTES: usize = 64 << 10;

/// What a lane is written to: the stream of one connection.
pub(crate) trait Drain {
    /// Why nothing more can be written.
    type Error;

    /// Writes all of these, in this order.
    async fn write(&mut self, batch: &mut [Bytes]) -> Result<(), Self::Error>;
}

/// Packets on their way into one stream.
#[derive(Debug)]
pub(crate) struct Lane {
    bytes_max: usize,
    packets_max: usize,
    packet_bytes_max: usize,
    queue: RefCell<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    pieces: Vec<Bytes>,
    /// The piece that small ones are being added to; it comes behind the others.
    last: BytesMut,
    waiting: Load,
    writing: Load,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    packets: usize,
    bytes: usize,
}

impl Lane {
    /// Holds at most so many bytes.
    pub(crate) fn new(limits: &Limits, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            packets_max: limits.queue_packets_max,
            packet_bytes_max: limits.packet_bytes_max.0 as usize,
            queue: RefCell::default(),
            filled: Notify::new(),
        }
    }

    pub(crate) fn open(&self) {
        self.queue.borrow_mut().open = true;
    }

    /// Drops all that waits, and takes nothing until it is opened again.
    pub(crate) fn close(&self) {
        self.queue.take();
    }

    /// Queues a packet. False if it was dropped: the lane is closed or full, or the packet too large.
    pub(crate) fn push(&self, cluster: ClusterId, packet: &Packet) -> bool {
        let mut guard = self.queue.borrow_mut();
        let queue = &mut *guard;
        if !queue.open || queue.waiting.packets + queue.writing.packets >= self.packets_max {
            return false;
        }
        let mut chunks = Vec::new();
        codec::encode(cluster, packet, &mut chunks);
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if bytes > self.packet_bytes_max {
            tracing::error!(
                to = %packet.to, bytes, bytes_max = self.packet_bytes_max,
                "a packet above the limit was dropped: raise packet_bytes_max on every node"
            );
            return false;
        }
        if queue.waiting.bytes + queue.writing.bytes + bytes > self.bytes_max {
            return false;
        }
        chunks.into_iter().for_each(|chunk| queue.add(chunk));
        queue.waiting.packets += 1;
        queue.waiting.bytes += bytes;
        self.filled.notify_one();
        true
    }

    /// Writes what is queued, all that waits at once, until the connection is lost.
    pub(crate) async fn write_to<D: Drain>(&self, stream: &mut D) -> D::Error {
        let mut batch = Vec::new();
        loop {
            while !self.take(&mut batch) {
                self.filled.notified().await;
            }
            if let Err(error) = stream.write(&mut batch).await {
                return error;
            }
            batch.clear();
            self.queue.borrow_mut().writing = Load::default();
        }
    }

    /// Moves all that waits into the empty `batch`. False if nothing waits.
    fn take(&self, batch: &mut Vec<Bytes>) -> bool {
        let mut queue = self.queue.borrow_mut();
        queue.end_piece();
        std::mem::swap(&mut queue.pieces, batch);
        queue.writing = std::mem::take(&mut queue.waiting);
        !batch.is_empty()
    }

    /// How many bytes it holds.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let queue = self.queue.borrow();
        queue.waiting.bytes + queue.writing.bytes
    }
}

impl Queue {
    fn add(&mut self, chunk: Bytes) {
        if chunk.len() >= LARGE_BYTES {
            self.end_piece();
            self.pieces.push(chunk);
            return;
        }
        self.last.extend_from_slice(&chunk);
        if self.last.len() >= PIECE_BYTES {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push(self.last.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_together_and_large_ones_are_not_copied() {
        let (small, large) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; LARGE_BYTES]));
        let mut queue = Queue::default();
        for chunk in [&small, &small, &large, &small] {
            queue.add(chunk.clone());
        }
        queue.end_piece();
        let sizes: Vec<usize> = queue.pieces.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [200, LARGE_BYTES, 100]);
        assert_eq!(queue.pieces[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_piece_does_not_grow_without_end() {
        let mut queue = Queue::default();
        for _ in 0..2 * PIECE_BYTES / 1000 {
            queue.add(Bytes::from(vec![0; 1000]));
        }
        assert!(!queue.pieces.is_empty());
        assert!(
            queue
                .pieces
                .iter()
                .all(|piece| piece.len() < PIECE_BYTES + LARGE_BYTES)
        );
    }
}
