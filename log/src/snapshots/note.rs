//! Notes: what belongs to the state behind a record, kept while the log before it stays.
//!
//! A note is a snapshot of nothing under a name of its own (`.note`). Invariants: nothing rests on a note, so that one which
//! is missing or damaged costs time and nothing else; the one before goes only once the next has its name for good, so that one
//! for which there is no room takes nothing away.

use super::{Action, Snapshots, Task, name, sync_folder};
use crate::disk::Op;
use kontiki_consensus::LogId;
use kontiki_wire::snapshot::{Pieces, SnapshotHeader};

impl Snapshots {
    /// Writes a note, unless one is being written.
    pub(crate) fn keep_note(&mut self, header: &SnapshotHeader) {
        let last = header.base.last;
        if !self.notes.is_idle() || self.noted.contains(&last) {
            return;
        }
        self.make_folder(Task::Note);
        let bytes = header.encode();
        // What was encoded just now can be read.
        let sum = SnapshotHeader::read(&bytes).map_or(0, |(_, sum)| sum);
        let end = Pieces::new(self.cluster, sum).end();
        self.notes.what = Some((last, "note.new"));
        self.notes.push([
            Action::Create(name(last, "note.new")),
            Action::Write(0, vec![bytes, end]),
            Action::Close,
            Action::Do(Op::Rename {
                from: name(last, "note.new"),
                to: name(last, "note"),
            }),
            sync_folder(),
            Action::Noted(last),
        ]);
        self.advance(Task::Note);
    }

    /// It has its name for good: those before it go. One that cannot be removed is found at the next start.
    pub(super) fn note_kept(&mut self, last: LogId) {
        self.notes.what = None;
        let earlier = std::mem::replace(&mut self.noted, vec![last]);
        for note in &earlier {
            let name = name(*note, "note");
            self.notes.push([Action::Do(Op::Remove { name })]);
        }
        if !earlier.is_empty() {
            self.notes.push([sync_folder()]);
        }
    }
}
