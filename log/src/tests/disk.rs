//! A disk in memory: what was synced is certain, what was not is at the mercy of a crash.

use crate::disk::{Completion, Disk, DiskError, Done, FileId, Op, OpId, is_growing};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{Cursor, ErrorKind, Read};
use std::rc::Rc;

const SECTOR: usize = 512;

/// Repeatable chance.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crash {
    LoseAll,
    KeepAll,
    /// Each sector and each change of names survives or not.
    Torn,
    /// The process dies, the machine goes on; what a failed sync gave up stays in memory and never gets further.
    Kill,
}

#[derive(Clone, Debug, Default)]
struct File {
    grows: bool,
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Bytes)>,
    given_up: Vec<(usize, Bytes)>,
}

impl File {
    fn sync(&mut self) {
        for (at, bytes) in self.unsynced.drain(..) {
            let end = self.durable.len().max(at + bytes.len());
            self.durable.resize(end, 0);
            self.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    fn lose_power(&mut self, crash: Crash, chance: &mut Chance) {
        match crash {
            Crash::KeepAll => self.sync(),
            Crash::LoseAll | Crash::Kill => {}
            Crash::Torn => {
                // How far a file has grown is another thing than what stands in it.
                let more = self.seen.len().saturating_sub(self.durable.len()) as u64;
                let bytes = self.durable.len() as u64 + chance.below(more + 1);
                self.durable.resize(bytes as usize, 0);
                for sector in (0..self.durable.len()).step_by(SECTOR) {
                    if chance.coin() {
                        continue;
                    }
                    for (at, bytes) in &self.unsynced {
                        let from = (*at).max(sector);
                        let to = (at + bytes.len()).min(sector + SECTOR).min(self.durable.len());
                        if from < to {
                            self.durable[from..to].copy_from_slice(&bytes[from - at..to - at]);
                        }
                    }
                }
            }
        }
        self.unsynced.clear();
        self.given_up.clear();
        self.seen = self.durable.clone();
    }
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
    Folder(String),
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, usize>,
    folders: Vec<String>,
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(name, file) => drop(self.files.insert(name.clone(), *file)),
            Change::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Change::Unlink(name) => drop(self.files.remove(name)),
            Change::Folder(name) => self.folders.push(name.clone()),
        }
    }
}

#[derive(Clone, Debug)]
struct State {
    chance: Chance,
    files: Vec<File>,
    seen: Names,
    durable: Names,
    unsynced: Vec<Change>,
    open: BTreeMap<FileId, usize>,
    opened: u32,
    submitted: u64,
    queue: VecDeque<(OpId, Op)>,
    /// Operations until the power fails.
    power: Option<u64>,
    is_off: bool,
    full: bool,
    /// Neither is there room for names: from this operation of theirs on.
    names_full: Option<u64>,
    /// There is no room for anything that changes, from this operation of those on.
    refuses: Option<u64>,
    /// There are no descriptors.
    refuses_opens: bool,
    /// Nor for another name of a file.
    renames_full: bool,
    broken: bool,
    /// How many zeros new files were filled with.
    filled: u64,
    writes: u64,
    /// Reads are kept back.
    holds_reads: bool,
    held: VecDeque<(OpId, usize, usize, usize)>,
    /// So are writes at the end of a file, which are indexes.
    holds_indexes: bool,
    indexes: VecDeque<(OpId, Op)>,
}

/// A handle on the disk.
#[derive(Clone, Debug)]
pub(super) struct TestDisk(Rc<RefCell<State>>);

impl TestDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            chance: Chance::new(seed),
            files: Vec::new(),
            seen: Names::default(),
            durable: Names::default(),
            unsynced: Vec::new(),
            open: BTreeMap::new(),
            opened: 0,
            submitted: 0,
            queue: VecDeque::new(),
            power: None,
            is_off: false,
            full: false,
            names_full: None,
            refuses: None,
            refuses_opens: false,
            renames_full: false,
            broken: false,
            filled: 0,
            writes: 0,
            holds_reads: false,
            held: VecDeque::new(),
            holds_indexes: false,
            indexes: VecDeque::new(),
        })))
    }

    /// Another disk with the same content.
    pub(super) fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    pub(super) fn reseed(&self, seed: u64) {
        self.0.borrow_mut().chance = Chance::new(seed);
    }

    /// The power fails at this operation.
    pub(super) fn fail_power_at(&self, operation: u64) {
        self.0.borrow_mut().power = Some(operation);
    }

    pub(super) fn is_off(&self) -> bool {
        self.0.borrow().is_off
    }

    pub(super) fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// The next `after` operations with names have room, the ones after them have none; `None`: all have.
    pub(super) fn set_names_full(&self, after: Option<u64>) {
        self.0.borrow_mut().names_full = after;
    }

    /// The next `after` operations that change something have room, the ones after them have none; `None`: all have.
    pub(super) fn refuse_after(&self, after: Option<u64>) {
        self.0.borrow_mut().refuses = after;
    }

    /// Reads that are begun from now on end only when this is called with `false`, whatever happens to the file.
    pub(super) fn hold_reads(&self, holds: bool) {
        self.0.borrow_mut().holds_reads = holds;
    }

    /// The same for indexes of segments.
    pub(super) fn hold_indexes(&self, holds: bool) {
        self.0.borrow_mut().holds_indexes = holds;
    }

    pub(super) fn set_renames_full(&self, full: bool) {
        self.0.borrow_mut().renames_full = full;
    }

    pub(super) fn break_writes(&self) {
        self.0.borrow_mut().broken = true;
    }

    /// Nothing that is there can be opened.
    pub(super) fn refuse_opens(&self, refuses: bool) {
        self.0.borrow_mut().refuses_opens = refuses;
    }

    /// How many zeros new files were filled with.
    pub(super) fn filled(&self) -> u64 {
        self.0.borrow().filled
    }

    /// How many writes there were.
    pub(super) fn writes(&self) -> u64 {
        self.0.borrow().writes
    }

    /// How many operations there were.
    pub(super) fn operations(&self) -> u64 {
        self.0.borrow().submitted
    }

    /// All names in folders, now.
    pub(super) fn names(&self) -> Vec<String> {
        let state = self.0.borrow();
        let in_folders = state.seen.files.keys().filter(|name| name.contains('/'));
        in_folders.cloned().collect()
    }

    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.0.borrow();
        state.files[state.seen.files[name]].seen.clone()
    }

    /// Changes a file behind everybody's back.
    pub(super) fn set_content(&self, name: &str, content: &[u8]) {
        let mut state = self.0.borrow_mut();
        let n = match state.seen.files.get(name) {
            Some(n) => *n,
            None => {
                state.files.push(File::default());
                let n = state.files.len() - 1;
                state.seen.files.insert(name.to_owned(), n);
                state.durable.files.insert(name.to_owned(), n);
                n
            }
        };
        state.files[n].seen = content.to_vec();
        state.files[n].durable = content.to_vec();
    }

    pub(super) fn remove(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        state.seen.files.remove(name);
        state.durable.files.remove(name);
    }

    /// The process, and perhaps the machine, stops.
    pub(super) fn crash(&self, crash: Crash) {
        let state = &mut *self.0.borrow_mut();
        for (_, op) in std::mem::take(&mut state.queue) {
            let half = state.chance.coin();
            match op {
                Op::Create {
                    name, bytes, resumes, ..
                } if !state.full => {
                    let there = state
                        .seen
                        .files
                        .get(&name)
                        .map_or(0, |n| state.files[*n].seen.len() as u64);
                    let bytes = if half { (there + bytes) / 2 } else { bytes };
                    state.create(&name, bytes, resumes).ok();
                }
                Op::Write {
                    file,
                    offset,
                    buffers,
                    ..
                } => drop(state.write(file, offset, &buffers, false)),
                Op::SyncDirectory { .. } => {}
                other => drop(state.perform(other)),
            }
        }
        if crash != Crash::Kill {
            for file in &mut state.files {
                file.lose_power(crash, &mut state.chance);
            }
            for change in std::mem::take(&mut state.unsynced) {
                let survives = match crash {
                    Crash::LoseAll | Crash::Kill => false,
                    Crash::KeepAll => true,
                    Crash::Torn => state.chance.coin(),
                };
                if survives {
                    state.durable.apply(&change);
                }
            }
            state.seen = state.durable.clone();
        }
        state.open.clear();
        (state.holds_reads, state.held) = (false, VecDeque::new());
        (state.holds_indexes, state.indexes) = (false, VecDeque::new());
        (state.power, state.is_off, state.broken) = (None, false, false);
    }
}

impl State {
    fn spend(&mut self) -> bool {
        if let Some(left) = &mut self.power {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.is_off = true,
            }
        }
        self.is_off
    }

    fn complete(&mut self) -> Option<Completion> {
        if !self.holds_reads
            && let Some((id, file, from, to)) = self.held.pop_front()
        {
            let bytes = Bytes::copy_from_slice(&self.files[file].seen[from..to]);
            let result = Ok(Done::Read(bytes));
            return Some(Completion { id, result });
        }
        if !self.holds_indexes
            && let Some((id, op)) = self.indexes.pop_front()
        {
            let result = self.perform(op);
            return Some(Completion { id, result });
        }
        if self.is_off || self.queue.is_empty() || self.spend() {
            return None;
        }
        let (id, op) = self.queue.pop_front()?;
        if self.holds_indexes && self.is_index(&op) {
            self.indexes.push_back((id, op));
            return self.complete();
        }
        if let (true, &Op::Read { file, offset, bytes }) = (self.holds_reads, &op) {
            let length = self.files[self.open[&file]].seen.len();
            let to = length.min((offset + bytes) as usize);
            self.held
                .push_back((id, self.open[&file], (offset as usize).min(to), to));
            return self.complete();
        }
        let result = self.perform(op);
        Some(Completion { id, result })
    }

    fn is_index(&self, op: &Op) -> bool {
        let Op::Write {
            file,
            offset,
            buffers,
            ..
        } = op
        else {
            return false;
        };
        let file = &self.files[self.open[file]];
        let end = *offset as usize + buffers.iter().map(Bytes::len).sum::<usize>();
        end == file.seen.len() && !file.grows
    }

    fn take_name_room(&mut self, op: &Op) -> Result<(), DiskError> {
        let of_names = matches!(
            op,
            Op::Rename { .. } | Op::Remove { .. } | Op::SyncDirectory { .. }
        );
        if self.renames_full && matches!(op, Op::Rename { from, .. } if from.ends_with(".seg")) {
            return Err(failure("a name", ErrorKind::QuotaExceeded));
        }
        if let Some(left) = self.names_full.as_mut().filter(|_| of_names) {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| failure("a name", ErrorKind::QuotaExceeded))?;
        }
        Ok(())
    }

    /// Takes room for anything; a write that finds none is done in part, and the system gives that up.
    fn take_room(&mut self, op: &Op) -> Result<(), DiskError> {
        let changes = !matches!(
            op,
            Op::Open { .. } | Op::Close { .. } | Op::Read { .. } | Op::List { .. }
        );
        match self.refuses {
            Some(0) if changes => {}
            Some(left) if changes => {
                self.refuses = Some(left - 1);
                return Ok(());
            }
            _ => return Ok(()),
        }
        if let Op::Write {
            file,
            offset,
            buffers,
            ..
        } = op
        {
            let all = buffers.concat();
            let half = vec![Bytes::copy_from_slice(&all[..all.len() / 2])];
            self.write(*file, *offset, &half, false)?;
            let file = &mut self.files[self.open[file]];
            file.given_up.append(&mut file.unsynced);
        }
        Err(failure("anything", ErrorKind::StorageFull))
    }

    fn perform(&mut self, op: Op) -> Result<Done, DiskError> {
        self.take_name_room(&op)?;
        self.take_room(&op)?;
        match op {
            Op::MakeDirectory { name } if self.full => Err(failure(&name, ErrorKind::StorageFull)),
            Op::MakeDirectory { name } => {
                if !self.seen.folders.contains(&name) {
                    self.change(Change::Folder(name));
                }
                Ok(Done::Unit)
            }
            Op::Create { name, .. } if self.full => Err(failure(&name, ErrorKind::StorageFull)),
            Op::Create {
                name, bytes, resumes, ..
            } => self.create(&name, bytes, resumes),
            Op::Open { name } if self.refuses_opens => Err(failure(&name, ErrorKind::QuotaExceeded)),
            Op::Open { name } => match self.seen.files.get(&name) {
                Some(n) => Ok(self.opened(*n)),
                None => Err(failure(&name, ErrorKind::NotFound)),
            },
            Op::Close { file } => {
                self.open.remove(&file).expect("closed once");
                Ok(Done::Unit)
            }
            Op::Write {
                file,
                offset,
                buffers,
                sync,
            } => self.write(file, offset, &buffers, sync),
            Op::Read { file, offset, bytes } => {
                let seen = &self.files[self.open[&file]].seen;
                let from = (offset as usize).min(seen.len());
                let to = (offset.saturating_add(bytes) as usize).min(seen.len());
                Ok(Done::Read(Bytes::copy_from_slice(&seen[from..to])))
            }
            Op::Rename { from, to } => {
                if self.seen.files.contains_key(&to) {
                    return Err(failure(&to, ErrorKind::AlreadyExists));
                }
                assert!(self.seen.files.contains_key(&from), "{from} is not there");
                self.change(Change::Rename(from, to));
                Ok(Done::Unit)
            }
            Op::Remove { name } => {
                if !self.seen.files.contains_key(&name) {
                    return Err(failure(&name, ErrorKind::NotFound));
                }
                self.change(Change::Unlink(name));
                Ok(Done::Unit)
            }
            Op::SyncDirectory { name } if !name.is_empty() && !self.seen.folders.contains(&name) => {
                Err(failure(&name, ErrorKind::NotFound))
            }
            Op::SyncDirectory { name } => {
                let of = |c: &Change| match c {
                    Change::Link(n, _) | Change::Rename(_, n) | Change::Unlink(n) | Change::Folder(n) => {
                        folder_of(n) == name
                    }
                };
                for change in self.unsynced.extract_if(.., |c| of(c)) {
                    self.durable.apply(&change);
                }
                Ok(Done::Unit)
            }
            Op::List { name } => self.list(&name),
        }
    }

    fn list(&self, folder: &str) -> Result<Done, DiskError> {
        let files = self.seen.files.iter().filter(|(n, _)| folder_of(n) == folder);
        let length = |n: &usize| self.files[*n].seen.len() as u64;
        let short = |n: &str| n.rsplit('/').next().unwrap_or(n).to_owned();
        let mut all: Vec<_> = files.map(|(n, f)| (short(n), length(f))).collect();
        let folders = self.seen.folders.iter().filter(|n| folder_of(n) == folder);
        all.extend(folders.map(|n| (short(n), 0)));
        all.sort();
        Ok(Done::Listed(all))
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.unsynced.push(change);
    }

    fn create(&mut self, name: &str, bytes: u64, resumes: bool) -> Result<Done, DiskError> {
        let begun = self.seen.files.get(name).copied().filter(|_| resumes);
        if let Some(n) = begun.filter(|n| self.files[*n].seen.len() as u64 <= bytes) {
            self.filled += bytes - self.files[n].seen.len() as u64;
            assert!(
                self.files[n].seen.iter().all(|b| *b == 0),
                "zeros are gone on with"
            );
            self.files[n].seen.resize(bytes as usize, 0);
            self.files[n].durable.resize(bytes as usize, 0);
            return Ok(self.opened(n));
        }
        if self.seen.files.contains_key(name) {
            return Err(failure(name, ErrorKind::AlreadyExists));
        }
        assert!(
            folder_of(name).is_empty() || self.seen.folders.iter().any(|f| f == folder_of(name)),
            "no folder for {name}"
        );
        self.filled += bytes;
        let zeros = vec![0; bytes as usize];
        self.files.push(File {
            grows: is_growing(name),
            seen: zeros.clone(),
            durable: zeros,
            ..File::default()
        });
        self.change(Change::Link(name.to_owned(), self.files.len() - 1));
        Ok(self.opened(self.files.len() - 1))
    }

    fn opened(&mut self, n: usize) -> Done {
        self.opened += 1;
        self.open.insert(FileId(self.opened), n);
        Done::Opened(FileId(self.opened), self.files[n].seen.len() as u64)
    }

    fn write(&mut self, file: FileId, offset: u64, buffers: &[Bytes], sync: bool) -> Result<Done, DiskError> {
        self.writes += 1;
        let broken = self.broken;
        let file = &mut self.files[self.open[&file]];
        let mut at = offset as usize;
        let end = at + buffers.iter().map(Bytes::len).sum::<usize>();
        if end > file.seen.len() {
            assert!(file.grows && at <= file.seen.len(), "a write beyond the end");
            file.seen.resize(end, 0);
        }
        for buffer in buffers {
            file.seen[at..at + buffer.len()].copy_from_slice(buffer);
            file.unsynced.push((at, buffer.clone()));
            at += buffer.len();
        }
        if broken {
            file.given_up.append(&mut file.unsynced);
            return Err(failure("a broken file", ErrorKind::Other));
        }
        if sync {
            file.sync();
        }
        Ok(Done::Unit)
    }
}

fn failure(what: &str, kind: ErrorKind) -> DiskError {
    DiskError {
        what: what.to_owned(),
        kind,
        message: kind.to_string(),
    }
}

impl Disk for TestDisk {
    fn submit(&mut self, op: Op) -> OpId {
        let mut state = self.0.borrow_mut();
        state.submitted += 1;
        let id = OpId(state.submitted);
        if !state.spend() {
            state.queue.push_back((id, op));
        }
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        self.0.borrow_mut().complete()
    }

    fn wait(&mut self) -> Option<Completion> {
        self.0.borrow_mut().complete()
    }

    fn name(&self) -> String {
        "the test directory".to_owned()
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        let state = self.0.borrow();
        let found = state.seen.files.get(name).map(|n| state.files[*n].seen.clone());
        Box::new(Cursor::new(found.expect("it is there")))
    }
}
