//! A message in a line: its kind, its ends and its fields.
//!
//! Invariant: what Raft decides by is in it; the bytes of entries and snapshots are told by their number.

use super::lines::{At, Records, joined};
use kontiki_consensus::{Call, NodeId, ReadId};
use kontiki_wire::{PeerMessage, ProposeAnswer};
use serde::Serialize;

/// A message.
#[derive(Serialize)]
pub(super) struct Message {
    from: u64,
    to: u64,
    /// Of Raft's messages the sender's term; of a forwarded append the one it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(flatten)]
    fields: Fields,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Fields {
    RequestVote {
        pre: bool,
        transfer: bool,
        last: At,
    },
    RequestVoteReply {
        pre: bool,
        granted: bool,
    },
    AppendEntries {
        prev: At,
        commit: u64,
        round: u64,
        records: Vec<Records>,
    },
    AppendEntriesReply {
        success: bool,
        persisted: u64,
        received: u64,
        round: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<At>,
    },
    InstallSnapshot {
        last: At,
        position: u64,
    },
    ReadIndex {
        read: String,
    },
    ReadIndexReply {
        read: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    Propose {
        origin: String,
        number: u64,
        settled: u64,
        entries: u32,
    },
    ProposeReply {
        origin: String,
        number: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        assigned: Option<At>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    SnapshotRequest {
        last: At,
        offset: u64,
        bytes_max: u32,
    },
    SnapshotChunk {
        last: At,
        offset: u64,
        total: u64,
        bytes: usize,
    },
    Compared {
        index: u64,
        log: String,
        outputs: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
    Resync {
        index: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        offer: Option<At>,
    },
}

impl Message {
    pub(super) fn of(from: NodeId, to: NodeId, message: &PeerMessage) -> Self {
        let term = match message {
            PeerMessage::Raft(raft) => Some(raft.term),
            PeerMessage::Propose(propose) => Some(propose.term),
            _ => None,
        };
        Self {
            from: from.0,
            to: to.0,
            term: term.map(|t| t.0),
            fields: Fields::of(message),
        }
    }
}

impl Fields {
    fn of(message: &PeerMessage) -> Self {
        match message {
            PeerMessage::Raft(raft) => Self::of_raft(&raft.call),
            PeerMessage::Propose(propose) => Self::Propose {
                origin: name(propose.origin),
                number: propose.number,
                settled: propose.settled,
                entries: propose.payload.count,
            },
            PeerMessage::ProposeReply(reply) => {
                let (assigned, refused) = match reply.answer {
                    ProposeAnswer::Assigned { at, .. } => (Some(at.into()), None),
                    ProposeAnswer::Refused(why) => (None, Some(format!("{why:?}"))),
                };
                Self::ProposeReply {
                    origin: name(reply.origin),
                    number: reply.number,
                    assigned,
                    refused,
                }
            }
            PeerMessage::SnapshotRequest(request) => Self::SnapshotRequest {
                last: request.last.into(),
                offset: request.offset,
                bytes_max: request.bytes_max,
            },
            PeerMessage::SnapshotChunk(chunk) => Self::SnapshotChunk {
                last: chunk.last.into(),
                offset: chunk.offset,
                total: chunk.total,
                bytes: chunk.bytes.len(),
            },
            PeerMessage::Compared(compared) => Self::Compared {
                index: compared.index.0,
                log: name(compared.log_hash),
                outputs: name(compared.output_hash),
                digest: compared.digest.map(name),
            },
            PeerMessage::Resync(resync) => Self::Resync {
                index: resync.index.0,
                offer: resync.offer.map(Into::into),
            },
        }
    }

    fn of_raft(call: &Call) -> Self {
        match call {
            Call::RequestVote { pre, transfer, last } => Self::RequestVote {
                pre: *pre,
                transfer: *transfer,
                last: (*last).into(),
            },
            Call::RequestVoteReply { pre, granted, .. } => Self::RequestVoteReply {
                pre: *pre,
                granted: *granted,
            },
            Call::AppendEntries {
                prev,
                commit,
                round,
                runs,
                ..
            } => Self::AppendEntries {
                prev: (*prev).into(),
                commit: commit.0,
                round: round.0,
                records: joined(runs),
            },
            Call::AppendEntriesReply {
                round,
                persisted,
                received,
                conflict,
                ..
            } => Self::AppendEntriesReply {
                success: conflict.is_none(),
                persisted: persisted.0,
                received: received.0,
                round: round.0,
                refused: conflict.map(|c| c.prev.0),
                hint: conflict.map(|c| c.hint.into()),
            },
            Call::InstallSnapshot { last, position } => Self::InstallSnapshot {
                last: (*last).into(),
                position: position.0,
            },
            Call::ReadIndex { id } => Self::ReadIndex { read: read(*id) },
            Call::ReadIndexReply { id, index } => Self::ReadIndexReply {
                read: read(*id),
                index: index.map(|i| i.0),
            },
        }
    }
}

/// A number drawn from all of 64 bits.
fn name(number: u64) -> String {
    format!("{number:016x}")
}

fn read(id: ReadId) -> String {
    name(id.0)
}
