//! A lane: the bounded queue in front of one stream, and the loop that writes it out.
//!
//! Invariants: what waits and what is being written never exceeds the limits; a closed lane takes and holds
//! nothing; all that waits goes out in one write, record bytes uncopied.

use crate::Limits;
use bytes::Bytes;
use kontiki_wire::{ClusterId, Packet, codec};
use quinn::{SendStream, WriteError};
use std::cell::RefCell;
use tokio::sync::Notify;

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
    chunks: Vec<Bytes>,
    waiting: Load,
    writing: Load,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    packets: usize,
    bytes: usize,
}

impl Lane {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.queue_bytes_max,
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
        let from = queue.chunks.len();
        codec::encode(cluster, packet, &mut queue.chunks);
        let bytes: usize = queue.chunks[from..].iter().map(Bytes::len).sum();
        if bytes > self.packet_bytes_max {
            tracing::error!(
                to = %packet.to, bytes, bytes_max = self.packet_bytes_max,
                "a packet above the limit was dropped: raise packet_bytes_max on every node"
            );
        }
        let fits = bytes <= self.packet_bytes_max
            && queue.waiting.bytes + queue.writing.bytes + bytes <= self.bytes_max;
        if !fits {
            queue.chunks.truncate(from);
            return false;
        }
        queue.waiting.packets += 1;
        queue.waiting.bytes += bytes;
        self.filled.notify_one();
        true
    }

    /// Writes what is queued, all that waits at once, until the connection is lost.
    pub(crate) async fn write_to(&self, mut stream: SendStream) -> WriteError {
        let mut batch = Vec::new();
        loop {
            while !self.take(&mut batch) {
                self.filled.notified().await;
            }
            if let Err(error) = stream.write_all_chunks(&mut batch).await {
                return error;
            }
            batch.clear();
            self.queue.borrow_mut().writing = Load::default();
        }
    }

    /// Moves all that waits into the empty `batch`. False if nothing waits.
    fn take(&self, batch: &mut Vec<Bytes>) -> bool {
        let mut queue = self.queue.borrow_mut();
        std::mem::swap(&mut queue.chunks, batch);
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
