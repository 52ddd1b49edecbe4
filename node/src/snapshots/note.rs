//! Notes: what Kontiki keeps of a plain log, put aside now and then, so that a start need not go through the whole log.
//!
//! Sessions wait for that, and with them every append that is to take effect once. Invariants: a note is of a committed
//! record, and taken only where the log still holds that very record; nothing else rests on it.

use super::{decode_ages, decode_meta, encode_ages, encode_meta};
use crate::driver::Driver;
use bytes::Bytes;
use kontiki_consensus::Base;
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
        match self.encode_note() {
            Ok(encoded) => {
                self.snapshots.notes = Notes {
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

    fn encode_note(&self) -> Result<Bytes, String> {
        let mut encoded = Vec::from(encode_meta(&self.applied.meta, self.date)?);
        if self.config.snapshots.retain_age.is_some() {
            encoded.extend(encode_ages(&self.snapshots.segments)?);
        }
        Ok(encoded.into())
    }

    /// Segments are as old as they were when a note was kept.
    fn restore_ages(&mut self, note: &[u8]) {
        let ages = decode_ages(note);
        for (start, began) in &mut self.snapshots.segments {
            let last = (start.last.index.0, start.last.term.0);
            let known = ages.iter().rfind(|(index, term, _)| (*index, *term) == last);
            *began = known.map(|(.., began)| *began);
        }
    }

    /// Goes on behind a note, if the log still holds its record.
    pub(super) fn take_note(&mut self, note: &SnapshotHeader) {
        let last = note.base.last;
        if self.consensus.term_at(last.index) != Some(last.term) {
            return;
        }
        match decode_meta(&note.meta) {
            Ok((meta, date)) if meta.at == last => {
                self.date = self.date.max(date);
                self.clock.see(meta.sessions.clock());
                self.restore_ages(&note.meta);
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
