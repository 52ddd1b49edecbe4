//! Snapshots beside the log: written, received, served and removed, while appends go on.
//!
//! A snapshot is one file (`kontiki_wire::snapshot`), named by the last record it covers. It is written under another
//! name, synced, renamed, and the folder synced: only then is it told of, so that a name without ending `.new` or
//! `.part` always means a whole file. What comes from another node is written as it comes and checked as it comes;
//! after a restart it goes on behind the last sound piece, once what is there is written and synced anew: a sync of it may have
//! failed, and the system may hold what the device never gets. Lack of room is never the end of the node (`no_room`). Invariants: four lanes (own, incoming, serving, notes), each with
//! at most one operation under way, so that snapshots never fill the disk's queue; what is told as written or
//! staged is on disk whole; nothing of another cluster is ever told of.

mod lane;
mod no_room;
mod note;
mod open;
mod parser;
mod state;

pub(crate) use open::open;

use crate::api::{SnapshotEvent, SnapshotFile};
use crate::disk::{Disk, DiskError, Done, GROWING, Op};
use bytes::Bytes;
use kontiki_consensus::{Index, LogId, Term};
use kontiki_wire::ClusterId;
use kontiki_wire::snapshot::{Pieces, SnapshotHeader};
use lane::{Action, Lane};
use parser::Parser;
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

/// Which lane an operation belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    Own,
    Incoming,
    Serving,
    Note,
}

/// One's own snapshot, being written.
#[derive(Debug)]
struct Writing {
    header: Arc<SnapshotHeader>,
    sum: u32,
    pieces: Pieces,
    at: u64,
}

/// Another node's, being received.
#[derive(Debug)]
struct Receiving {
    last: LogId,
    parser: Parser,
}

/// All snapshots of a node.
#[derive(Debug)]
pub(crate) struct Snapshots {
    cluster: ClusterId,
    has_folder: bool,
    /// Whole ones, with their length.
    files: BTreeMap<LogId, SnapshotFile>,
    /// Those of which a part has come.
    parts: BTreeSet<LogId>,
    /// Those that are about to get their name.
    naming: BTreeSet<LogId>,
    own: Lane,
    incoming: Lane,
    serving: Lane,
    notes: Lane,
    /// The notes that are on disk under their names.
    noted: Vec<LogId>,
    writing: Option<Writing>,
    receiving: Option<Receiving>,
    /// The one that is open to be served from.
    served: Option<LogId>,
    pub(crate) todo: Vec<(Op, Task)>,
    pub(crate) events: Vec<SnapshotEvent>,
    /// The disk has failed.
    pub(crate) failed: Option<DiskError>,
}

/// The name of a snapshot.
fn name(last: LogId, ending: &str) -> String {
    format!("{GROWING}/{:016}-{:016}.{ending}", last.index.0, last.term.0)
}

/// What a name in the folder stands for, and how it ends.
fn parse(name: &str) -> Option<(LogId, &str)> {
    let (numbers, ending) = name.split_once('.')?;
    let (index, term) = numbers.split_once('-')?;
    let number = |text: &str| Some(text).filter(|t| t.len() == 16)?.parse().ok();
    Some((LogId::new(Term(number(term)?), Index(number(index)?)), ending))
}

fn sync_folder() -> Action {
    Action::Do(Op::SyncDirectory {
        name: GROWING.to_owned(),
    })
}

impl Snapshots {
    fn new(
        cluster: ClusterId,
        has_folder: bool,
        files: BTreeMap<LogId, SnapshotFile>,
        parts: BTreeSet<LogId>,
    ) -> Self {
        Self {
            cluster,
            has_folder,
            files,
            parts,
            naming: BTreeSet::new(),
            own: Lane::default(),
            incoming: Lane::default(),
            serving: Lane::default(),
            notes: Lane::default(),
            noted: Vec::new(),
            writing: None,
            receiving: None,
            served: None,
            todo: Vec::new(),
            events: Vec::new(),
            failed: None,
        }
    }

    /// The whole ones.
    pub(crate) fn files(&self) -> impl Iterator<Item = &SnapshotFile> {
        self.files.values()
    }

    fn lane(&mut self, task: Task) -> &mut Lane {
        match task {
            Task::Own => &mut self.own,
            Task::Incoming => &mut self.incoming,
            Task::Serving => &mut self.serving,
            Task::Note => &mut self.notes,
        }
    }

    /// Each lane makes it for itself until it is there for good: another's may still be under way.
    fn make_folder(&mut self, task: Task) {
        if !self.has_folder {
            let name = GROWING.to_owned();
            let root = String::new();
            self.lane(task).push([
                Action::Do(Op::MakeDirectory { name }),
                Action::Do(Op::SyncDirectory { name: root }),
            ]);
        }
    }

    /// Begins to write a snapshot of one's own, in place of any other that is being written.
    pub(crate) fn begin(&mut self, header: SnapshotHeader) {
        let last = header.base.last;
        self.abandon();
        let comes = self.receiving.as_ref().is_some_and(|r| r.last == last);
        if comes || self.naming.contains(&last) || self.files.contains_key(&last) {
            let why = "there is one of this state already, or it is being received".to_owned();
            return self.events.push(SnapshotEvent::Refused { last, why });
        }
        self.make_folder(Task::Own);
        let bytes = header.encode();
        // What was encoded just now can be read.
        let sum = SnapshotHeader::read(&bytes).map_or(0, |(_, sum)| sum);
        self.writing = Some(Writing {
            header: Arc::new(header),
            sum,
            pieces: Pieces::new(self.cluster, sum),
            at: bytes.len() as u64,
        });
        self.own.what = Some((last, "new"));
        self.own.push([
            Action::Create(name(last, "new")),
            Action::Write(0, vec![bytes]),
            Action::Tell(SnapshotEvent::Ready { last }),
        ]);
        self.advance(Task::Own);
    }

    /// Adds a piece of the state; then [`SnapshotEvent::Ready`].
    pub(crate) fn piece(&mut self, piece: Bytes) {
        let Some(writing) = &mut self.writing else {
            return;
        };
        let last = writing.header.base.last;
        if !piece.is_empty() {
            let (at, head) = (writing.at, writing.pieces.head(&piece));
            writing.at += (head.len() + piece.len()) as u64;
            self.own.push([Action::Write(at, vec![head, piece])]);
        }
        self.own.push([Action::Tell(SnapshotEvent::Ready { last })]);
        self.advance(Task::Own);
    }

    /// Ends it; then [`SnapshotEvent::Written`].
    pub(crate) fn end(&mut self) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        let (last, end) = (writing.header.base.last, writing.pieces.end());
        self.naming.insert(last);
        let file = SnapshotFile {
            bytes: writing.at + end.len() as u64,
            header: writing.header,
            sum: writing.sum,
        };
        self.own.push([
            Action::Write(writing.at, vec![end]),
            Action::Close,
            Action::Do(Op::Rename {
                from: name(last, "new"),
                to: name(last, "snap"),
            }),
            sync_folder(),
            Action::Tell(SnapshotEvent::Written(file)),
        ]);
        self.advance(Task::Own);
    }

    /// Gives up what is being written, if anything is.
    pub(crate) fn abandon(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.own.give_up(name(writing.header.base.last, "new"));
            self.advance(Task::Own);
        }
    }

    /// Prepares to receive a snapshot, in place of any other; then [`SnapshotEvent::Receiving`].
    pub(crate) fn receive(&mut self, last: LogId) {
        self.stop_receiving();
        if let Some(file) = self.files.get(&last) {
            return self.events.push(SnapshotEvent::Staged(file.clone()));
        }
        let is_written = self.writing.as_ref().is_some_and(|w| w.header.base.last == last);
        if is_written || self.naming.contains(&last) {
            let why = "it is being written here".to_owned();
            return self.events.push(SnapshotEvent::Refused { last, why });
        }
        self.make_folder(Task::Incoming);
        let others: Vec<LogId> = self.parts.iter().copied().filter(|p| *p != last).collect();
        for other in others {
            self.parts.remove(&other);
            let name = name(other, "part");
            self.incoming
                .push([Action::Do(Op::Remove { name }), sync_folder()]);
        }
        self.receiving = Some(Receiving {
            last,
            parser: Parser::new(self.cluster),
        });
        self.incoming.what = Some((last, "part"));
        let there = !self.parts.insert(last);
        let name = name(last, "part");
        if there {
            self.incoming.push([Action::Open(name)]);
        } else {
            self.incoming.push([Action::Create(name), sync_folder()]);
        }
        self.incoming.push([Action::Scan(0)]);
        self.advance(Task::Incoming);
    }

    /// Ends receiving; what has come stays for another time.
    pub(crate) fn stop_receiving(&mut self) {
        if let Some(Receiving { last, .. }) = self.receiving.take() {
            // Nothing of it is there if its file was still to be made: that is given up with the rest.
            if self.incoming.queue.iter().any(|a| matches!(a, Action::Create(_))) {
                self.parts.remove(&last);
            }
            self.incoming.queue.retain(Action::must_be_done);
            self.incoming.push([Action::Close]);
            self.advance(Task::Incoming);
        }
    }

    /// Takes in bytes of the snapshot that is being received. What begins at zero again is another one of the same name.
    pub(crate) fn received(&mut self, last: LogId, offset: u64, bytes: &Bytes) {
        let Some(receiving) = self.receiving.as_mut().filter(|r| r.last == last) else {
            return;
        };
        if self.incoming.scans() {
            // It was asked for before this was begun; more is asked for once that is known which has come.
            return;
        }
        if offset == 0 && receiving.parser.at() > 0 {
            receiving.parser = Parser::new(self.cluster);
            self.incoming.give_up(name(last, "part"));
            self.incoming
                .push([Action::Create(name(last, "part")), sync_folder()]);
        }
        if offset != receiving.parser.at() {
            let at = receiving.parser.at();
            return self.events.push(SnapshotEvent::Receiving {
                last,
                at,
                header: receiving.parser.header_sum(),
            });
        }
        match receiving.parser.feed(bytes) {
            Ok(()) => self.store(last, offset, bytes.clone()),
            Err(error) => self.refuse(last, &error.to_string()),
        }
    }

    /// Writes what was found sound.
    fn store(&mut self, last: LogId, offset: u64, bytes: Bytes) {
        let Some(receiving) = &self.receiving else {
            return;
        };
        let (at, sum) = (receiving.parser.at(), receiving.parser.header_sum());
        let whole = receiving.parser.whole();
        self.incoming.push([Action::Write(offset, vec![bytes])]);
        match whole {
            None => {
                let event = SnapshotEvent::Receiving {
                    last,
                    at,
                    header: sum,
                };
                self.incoming.push([Action::Tell(event)]);
            }
            Some(header) => {
                self.receiving = None;
                self.parts.remove(&last);
                self.naming.insert(last);
                self.incoming.push([
                    Action::Close,
                    Action::Do(Op::Rename {
                        from: name(last, "part"),
                        to: name(last, "snap"),
                    }),
                    sync_folder(),
                    Action::Tell(SnapshotEvent::Staged(SnapshotFile {
                        header,
                        sum,
                        bytes: at,
                    })),
                ]);
            }
        }
        self.advance(Task::Incoming);
    }

    /// What came is not what it should be: it is thrown away.
    fn refuse(&mut self, last: LogId, why: &str) {
        self.receiving = None;
        self.parts.remove(&last);
        self.incoming.give_up(name(last, "part"));
        let why = format!("the snapshot that came is damaged: {why}");
        self.incoming
            .push([Action::Tell(SnapshotEvent::Refused { last, why })]);
        self.advance(Task::Incoming);
    }

    /// Reads bytes of a whole one; then [`SnapshotEvent::Read`].
    pub(crate) fn read(&mut self, token: u64, last: LogId, offset: u64, bytes: u64) {
        if !self.files.contains_key(&last) {
            return self.events.push(SnapshotEvent::Read { token, found: None });
        }
        if self.served != Some(last) {
            self.serving
                .push([Action::Close, Action::Open(name(last, "snap"))]);
            self.served = Some(last);
        }
        self.serving.push([Action::Read {
            token,
            last,
            offset,
            bytes,
        }]);
        self.advance(Task::Serving);
    }

    /// A reader of the state in a whole one.
    pub(crate) fn state(&self, disk: &impl Disk, file: &SnapshotFile) -> Box<dyn Read + Send> {
        let name = name(file.header.base.last, "snap");
        let from = disk.reader(&name);
        let name = format!("{}: {name}", disk.name());
        Box::new(State::new(from, name, self.cluster, file.sum))
    }

    /// Removes a whole one, or what has come of one; then [`SnapshotEvent::Removed`].
    pub(crate) fn remove(&mut self, last: LogId) {
        if self.receiving.as_ref().is_some_and(|r| r.last == last) {
            self.stop_receiving();
        }
        if self.parts.remove(&last) {
            let name = name(last, "part");
            self.incoming
                .push([Action::Do(Op::Remove { name }), sync_folder()]);
            self.advance(Task::Incoming);
        }
        if self.files.remove(&last).is_some() {
            if self.served.take_if(|served| *served == last).is_some() {
                self.serving.push([Action::Close]);
            }
            let name = name(last, "snap");
            self.serving.push([
                Action::Do(Op::Remove { name }),
                sync_folder(),
                Action::Tell(SnapshotEvent::Removed { last }),
            ]);
            self.advance(Task::Serving);
        }
    }

    /// An operation of a lane has ended.
    pub(crate) fn completed(&mut self, task: Task, result: Result<Done, DiskError>) {
        let Some(action) = self.lane(task).current.take() else {
            return;
        };
        match (action, result) {
            (action, Err(error)) => self.action_failed(task, action, error),
            (Action::Create(_) | Action::Open(_), Ok(Done::Opened(file, _))) => {
                self.lane(task).file = Some(file);
            }
            (Action::Do(Op::Rename { to, .. }), Ok(_)) => self.lane(task).renamed(&to),
            // The data directory is synced here for nothing but the folder's name.
            (Action::Do(Op::SyncDirectory { name }), Ok(_)) if name.is_empty() => self.has_folder = true,
            (Action::Scan(at), Ok(Done::Read(bytes))) => self.scanned(at, &bytes),
            (Action::Read { token, last, .. }, Ok(Done::Read(bytes))) => {
                let file = self.files.get(&last).cloned();
                let found = file.map(|file| (file, bytes));
                self.events.push(SnapshotEvent::Read { token, found });
            }
            _ => {}
        }
        self.advance(task);
    }

    /// A piece of what came before a restart was read: as far as it is sound, it need not come again. It is written again, for
    /// a sync of it may have failed before.
    fn scanned(&mut self, at: u64, bytes: &Bytes) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        let end = at + bytes.len() as u64;
        let rewrite = Action::Write(at, vec![bytes.clone()]);
        let damaged = receiving.parser.feed(bytes).is_err();
        if !damaged && bytes.len() as u64 == lane::SCAN_BYTES {
            self.incoming.queue.push_front(Action::Scan(end));
            self.incoming.queue.push_front(rewrite);
            return;
        }
        self.incoming.push([rewrite]);
        receiving.parser.forget_rest();
        let (last, at) = (receiving.last, receiving.parser.at());
        if receiving.parser.whole().is_some() {
            // Only its name is missing.
            return self.store(last, at, Bytes::new());
        }
        let header = receiving.parser.header_sum();
        if at == 0 && end > 0 {
            // What comes may be another one, and shorter: none of this may stand behind it.
            self.incoming.give_up(name(last, "part"));
            self.incoming
                .push([Action::Create(name(last, "part")), sync_folder()]);
        }
        let event = SnapshotEvent::Receiving { last, at, header };
        self.incoming.push([Action::Tell(event)]);
    }

    /// Gives the next operation of a lane out, if none is under way.
    fn advance(&mut self, task: Task) {
        while self.failed.is_none() {
            match self.lane(task).next() {
                lane::Next::Do(op) => return self.todo.push((op, task)),
                lane::Next::Tell(event) => {
                    if let SnapshotEvent::Written(file) | SnapshotEvent::Staged(file) = &event {
                        self.naming.remove(&file.header.base.last);
                        self.lane(task).what = None;
                        self.files.insert(file.header.base.last, file.clone());
                    }
                    self.events.push(event);
                }
                lane::Next::Noted(last) => self.note_kept(last),
                lane::Next::Nothing => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let last = LogId::new(Term(5), Index(60));
        let name = name(last, "snap");
        assert_eq!(name, "snapshots/0000000000000060-0000000000000005.snap");
        assert_eq!(
            parse("0000000000000060-0000000000000005.snap"),
            Some((last, "snap"))
        );
        for foreign in ["60-5.snap", "0000000000000060.snap", "lost+found", ""] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
