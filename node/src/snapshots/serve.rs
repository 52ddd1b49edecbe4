//! At a leader, or who was one: parts of snapshots are read for those who ask.
//!
//! Invariant: one part for each peer is under way at a time, so that memory is bounded by the size of the cluster.

use crate::{driver::Driver, ports::Ports};
use bytes::Bytes;
use kontiki_consensus::{Duration, NodeId, Time};
use kontiki_log::{SnapshotCommand, SnapshotFile};
use kontiki_wire::{PeerMessage, SnapshotChunk, SnapshotRequest};
use std::collections::BTreeMap;

/// How many bytes are read for a peer at once at most, whatever it asks for.
const CHUNK_BYTES_MAX: u32 = 4 << 20;

/// What is being read for others.
#[derive(Debug, Default)]
pub(super) struct Serving {
    tokens: u64,
    reads: BTreeMap<u64, (NodeId, SnapshotRequest)>,
    /// When each peer asked last.
    asked: BTreeMap<NodeId, Time>,
}

impl Driver {
    /// Whether a peer has asked for a part of a snapshot lately.
    pub(crate) fn makes_progress(&self, peer: NodeId, now: Time) -> bool {
        let patience = Duration(self.patience().0.saturating_mul(8));
        let asked = self.snapshots.serving.asked.get(&peer);
        asked.is_some_and(|asked| now < asked.after(patience))
    }

    /// A peer was told of a snapshot and is about to ask for it.
    pub(crate) fn expects_to_serve(&mut self, peer: NodeId, now: Time) {
        self.snapshots.serving.asked.insert(peer, now);
    }

    /// A peer asks for a part of a snapshot.
    pub(crate) fn serve_snapshot(
        &mut self,
        now: Time,
        peer: NodeId,
        request: SnapshotRequest,
        ports: &mut impl Ports,
    ) {
        let file = self.snapshots.files.get(&request.last.index);
        let gives = self.compare.is_sound();
        let Some(file) = file.filter(|f| gives && f.header.base.last == request.last) else {
            return self.send_chunk(peer, request, 0, Bytes::new(), ports);
        };
        let serving = &mut self.snapshots.serving;
        serving.asked.insert(peer, now);
        serving.reads.retain(|_, (other, _)| *other != peer);
        serving.tokens += 1;
        let other = request.header != 0 && request.header != file.sum;
        let request = SnapshotRequest {
            offset: if other { 0 } else { request.offset },
            ..request
        };
        serving.reads.insert(serving.tokens, (peer, request));
        self.snapshots.todo.push(SnapshotCommand::Read {
            token: serving.tokens,
            last: request.last,
            offset: request.offset,
            bytes: request.bytes_max.min(CHUNK_BYTES_MAX).into(),
        });
    }

    /// The disk gives it.
    pub(super) fn read_for_peer(
        &mut self,
        token: u64,
        found: Option<(SnapshotFile, Bytes)>,
        ports: &mut impl Ports,
    ) {
        if let Some((peer, request)) = self.snapshots.serving.reads.remove(&token) {
            let (total, bytes) = found.map_or((0, Bytes::new()), |(file, bytes)| (file.bytes, bytes));
            self.send_chunk(peer, request, total, bytes, ports);
        }
    }

    fn send_chunk(
        &self,
        peer: NodeId,
        request: SnapshotRequest,
        total: u64,
        bytes: Bytes,
        ports: &mut impl Ports,
    ) {
        let chunk = SnapshotChunk {
            last: request.last,
            offset: if total == 0 { 0 } else { request.offset },
            total,
            bytes,
        };
        ports.send(self.config.group, peer, PeerMessage::SnapshotChunk(chunk));
    }
}
