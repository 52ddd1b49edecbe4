//! Notes: what Kontiki keeps of a plain log, put aside now and then, so that a start need not go through the whole log.
//!
//! Sessions wait for that, and with them every append that is to take effect once. Invariants: a note is of a committed
//! record, and taken only where the log still holds that very record; nothing else rests on it.

use super::{decode_meta, encode_meta};
use crate::driver::Driver;
use kontiki_consensus::{Base, Time};
use kontiki_log::SnapshotCommand;
use kontiki_wire::snapshot::SnapshotHeader;

/// So many bytes of log are written for each byte of notes, at least.
const LOG_BYTES: u64 = 4;

/// When notes are kept.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Length of the last one.
    bytes: u64,
    /// How much log was begun since.
    since: u64,
}

impl Driver {
    /// So much more of the log is begun: keeps a note, if that is worth it.
    pub(super) fn keep_note(&mut self, bytes: u64) {
        let notes = &mut self.snapshots.notes;
        notes.since += bytes;
        let meta = &self.applied.meta;
        if notes.since < notes.bytes.saturating_mul(LOG_BYTES) || meta.at.index <= self.consensus.base().index
        {
            return;
        }
        match encode_meta(meta, self.leader_time) {
            Ok(encoded) => {
                *notes = Notes {
                    bytes: encoded.len() as u64,
                    since: 0,
                };
                let base = Base {
                    last: meta.at,
                    position: meta.position,
                    configuration: self.consensus.configuration().clone(),
                };
                let header = SnapshotHeader {
                    maker: self.config.identity,
                    group: self.config.group,
                    base,
                    meta: encoded,
                };
                self.snapshots.todo.push(SnapshotCommand::Note(header));
            }
            Err(error) => tracing::warn!("what is known of sessions is not put aside: {error}"),
        }
    }

    /// Goes on behind a note, if the log still holds its record.
    pub(super) fn take_note(&mut self, now: Time, note: &SnapshotHeader) {
        let last = note.base.last;
        if self.consensus.term_at(last.index) != Some(last.term) {
            return;
        }
        match decode_meta(&note.meta) {
            Ok((meta, leader_time)) if meta.at == last => {
                self.leader_time = self.leader_time.max(leader_time);
                self.clock.see(meta.sessions.clock(), now);
                // Nothing but this may have come of the record that said so.
                if meta.trimmed().index > self.consensus.snapshot().index {
                    self.snapshots.trim(meta.trimmed());
                }
                if self.applied.resume(meta) {
                    self.counts.resumed += 1;
                }
            }
            Ok(_) => {
                tracing::warn!(index = %last.index, "a note is of another record than it says, and is not used")
            }
            Err(error) => {
                tracing::warn!(index = %last.index, "a note cannot be read, and is not used: {error}")
            }
        }
    }
}
