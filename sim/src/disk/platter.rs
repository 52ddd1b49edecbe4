//! The device behind a [`SimDisk`](super::SimDisk): what is under way, when it ends, and what it then does.
//!
//! Invariants: an operation has its effect when it completes, and until then none that a loss of
//! power cannot undo; operations on one file run in the order they were submitted, but for reads,
//! which run beside writes, and a name is removed beside everything else; once the power is lost nothing completes.

use super::inode::Inode;
use super::names::{Names, Target};
use super::{Damage, DiskProfile, Severity};
use crate::random::Random;
use bytes::Bytes;
use kontiki_consensus::{Duration, Time};
use kontiki_log::disk::{Completion, DiskError, Done, FileId, Op, OpId, is_growing};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;

/// The stream of what is drawn by processes on a machine.
const SECRETS: u64 = 0x5ec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Power {
    On,
    /// Fails when this many more operations were submitted or completed.
    FailsAfter(u64),
    Lost,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Job {
    op: Op,
    begins: Time,
}

#[derive(Debug)]
pub(super) struct Platter {
    pub(super) name: String,
    pub(super) now: Time,
    pub(super) random: Random,
    /// Chance of the machine's, apart from that of the disk.
    pub(super) secrets: Random,
    pub(super) profile: DiskProfile,
    pub(super) power: Power,
    /// The process is killed once a name has changed in this directory, before that is synced.
    pub(super) kills_named: Option<&'static str>,
    /// It was.
    pub(super) killed: bool,
    pub(super) full: bool,
    /// Writes fail from now on.
    pub(super) broken: bool,
    /// How often a file was gone on with that an earlier process had begun.
    pub(super) resumed: u64,
    /// A write has failed.
    pub(super) has_failed: bool,
    pub(super) stalled_until: Time,
    pub(super) names: Names,
    pub(super) inodes: Vec<Inode>,
    open: BTreeMap<FileId, usize>,
    files_opened: u32,
    submitted: u64,
    /// By the time they end.
    pub(super) under_way: BTreeMap<(Time, OpId), Job>,
    /// Until when the operations so far on a file, or on names, take.
    file_busy: BTreeMap<FileId, Time>,
    names_busy: Time,
    pub(super) completed: VecDeque<Completion>,
    /// Operations that the loss of power left unanswered.
    unanswered: VecDeque<OpId>,
}

impl Platter {
    pub(super) fn new(
        name: &str,
        random: Random,
        profile: DiskProfile,
        names: Names,
        inodes: Vec<Inode>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            now: Time::ZERO,
            secrets: random.clone().fork(SECRETS),
            random,
            profile,
            power: Power::On,
            kills_named: None,
            killed: false,
            full: false,
            broken: false,
            resumed: 0,
            has_failed: false,
            stalled_until: Time::ZERO,
            names,
            inodes,
            open: BTreeMap::new(),
            files_opened: 0,
            submitted: 0,
            under_way: BTreeMap::new(),
            file_busy: BTreeMap::new(),
            names_busy: Time::ZERO,
            completed: VecDeque::new(),
            unanswered: VecDeque::new(),
        }
    }

    pub(super) fn submit(&mut self, op: Op) -> OpId {
        self.submitted += 1;
        let id = OpId(self.submitted);
        if self.spend_power() {
            self.unanswered.push_back(id);
            return id;
        }
        let begins = self.begins(&op);
        let ends = begins.after(self.takes(&op));
        match &op {
            Op::Write { file, .. } | Op::Close { file } => {
                self.file_busy.insert(*file, ends);
            }
            Op::Create { .. } | Op::Read { .. } | Op::Remove { .. } => {}
            _ => self.names_busy = ends,
        }
        self.under_way.insert((ends, id), Job { op, begins });
        id
    }

    /// Counts an operation; true if the power is lost.
    fn spend_power(&mut self) -> bool {
        match self.power {
            Power::On => return false,
            Power::FailsAfter(n) if n > 0 => {
                self.power = Power::FailsAfter(n - 1);
                return false;
            }
            Power::FailsAfter(_) => {
                self.power = Power::Lost;
                self.unanswered.extend(self.under_way.keys().map(|(_, id)| *id));
            }
            Power::Lost => {}
        }
        true
    }

    fn begins(&self, op: &Op) -> Time {
        match op {
            Op::Write { file, .. } | Op::Close { file } => self
                .file_busy
                .get(file)
                .copied()
                .unwrap_or_default()
                .max(self.now),
            Op::Create { .. } | Op::Read { .. } | Op::Remove { .. } => self.now,
            _ => self.names_busy.max(self.now),
        }
    }

    fn takes(&mut self, op: &Op) -> Duration {
        let profile = self.profile;
        if self.random.chance(profile.hiccups) {
            return Duration(self.random.below(profile.hiccup.0));
        }
        let mean = match op {
            Op::Write { sync: true, .. } => Duration(profile.write.0 + profile.sync.0),
            Op::SyncDirectory { .. } => profile.sync,
            Op::Create { name, bytes, .. } => {
                let there = self.content(name).map_or(0, |bytes| bytes.len() as u64);
                Duration(profile.sync.0 * 2 + bytes.saturating_sub(there) * 4)
            }
            _ => profile.write,
        };
        self.random.around(mean)
    }

    pub(super) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.stalled_until > self.now {
            return;
        }
        while let Some((&(ends, _), _)) = self.under_way.first_key_value()
            && ends <= self.now
            && self.complete_first()
        {}
    }

    pub(super) fn wait(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.completed.pop_front() {
                return Some(completion);
            }
            if let Some(id) = self.unanswered.pop_front() {
                return Some(Completion {
                    id,
                    result: Err(failure("the power is lost", ErrorKind::Interrupted)),
                });
            }
            let (&(ends, _), _) = self.under_way.first_key_value()?;
            self.now = self.now.max(ends).max(self.stalled_until);
            self.complete_first();
        }
    }

    /// Completes the operation that ends first; false if the power fails instead.
    fn complete_first(&mut self) -> bool {
        if self.spend_power() {
            return false;
        }
        if let Some(((_, id), job)) = self.under_way.pop_first() {
            let result = self.perform(job.op);
            self.completed.push_back(Completion { id, result });
        }
        true
    }

    fn perform(&mut self, op: Op) -> Result<Done, DiskError> {
        match op {
            Op::MakeDirectory { name } => self.make_directory(&name),
            Op::Create {
                name, bytes, resumes, ..
            } => self.create(&name, bytes, resumes),
            Op::Open { name } => self.open(&name),
            Op::Close { file } => {
                self.open.remove(&file);
                self.file_busy.remove(&file);
                Ok(Done::Unit)
            }
            Op::Write {
                file,
                offset,
                buffers,
                sync,
            } => self.write(file, offset, &buffers, sync),
            Op::Read { file, offset, bytes } => Ok(Done::Read(self.inode(file)?.read(offset, bytes))),
            Op::Rename { from, to } => self.rename(&from, &to),
            Op::Remove { name } => self.remove(&name),
            Op::SyncDirectory { name } => self.sync_directory(&name),
            Op::List { name } => Ok(Done::Listed(self.list(&name))),
        }
    }

    /// What a file holds, if it is there.
    pub(super) fn content(&self, name: &str) -> Option<Bytes> {
        match self.names.get(name) {
            Some(Target::File(inode)) => self.inodes.get(inode).map(|i| i.read(0, i.len())),
            _ => None,
        }
    }

    fn make_directory(&mut self, name: &str) -> Result<Done, DiskError> {
        if self.names.is_free(name) {
            if self.full {
                return Err(failure(name, ErrorKind::StorageFull));
            }
            self.names.link(name, Target::Directory);
        }
        if self.names.has_directory(name) {
            Ok(Done::Unit)
        } else {
            Err(failure(name, ErrorKind::NotADirectory))
        }
    }

    fn create(&mut self, name: &str, bytes: u64, resumes: bool) -> Result<Done, DiskError> {
        if self.full {
            return Err(failure(name, ErrorKind::StorageFull));
        }
        if let Some(Target::File(begun)) = self.names.get(name).filter(|_| resumes)
            && self.inodes[begun].len() <= bytes
        {
            self.inodes[begun] = Inode::zeros(bytes, is_growing(name));
            self.resumed += 1;
            return Ok(self.opened(begun));
        }
        self.check_free(name)?;
        let inode = self.add(Inode::zeros(bytes, is_growing(name)));
        self.names.link(name, Target::File(inode));
        Ok(self.opened(inode))
    }

    fn check_free(&self, name: &str) -> Result<(), DiskError> {
        match self.names.get(name) {
            Some(_) => Err(failure(name, ErrorKind::AlreadyExists)),
            None if self.names.is_free(name) => Ok(()),
            None => Err(failure(name, ErrorKind::NotFound)),
        }
    }

    fn add(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn open(&mut self, name: &str) -> Result<Done, DiskError> {
        match self.names.get(name) {
            Some(Target::File(inode)) => Ok(self.opened(inode)),
            Some(Target::Directory) => Err(failure(name, ErrorKind::IsADirectory)),
            None => Err(failure(name, ErrorKind::NotFound)),
        }
    }

    fn opened(&mut self, inode: usize) -> Done {
        self.files_opened += 1;
        let file = FileId(self.files_opened);
        self.open.insert(file, inode);
        Done::Opened(file, self.inodes[inode].len())
    }

    fn inode(&mut self, file: FileId) -> Result<&mut Inode, DiskError> {
        let inode = self
            .open
            .get(&file)
            .ok_or_else(|| failure(&format!("{file:?}"), ErrorKind::NotFound))?;
        Ok(&mut self.inodes[*inode])
    }

    fn write(&mut self, file: FileId, offset: u64, buffers: &[Bytes], sync: bool) -> Result<Done, DiskError> {
        let (broken, full) = (self.broken, self.full);
        let inode = self.inode(file)?;
        let end = offset + buffers.iter().map(|b| b.len() as u64).sum::<u64>();
        if full && end > inode.len() {
            return Err(failure(&format!("{file:?} at {offset}"), ErrorKind::StorageFull));
        }
        if !inode.write(offset, buffers) {
            return Err(failure(&format!("{file:?} at {offset}"), ErrorKind::InvalidInput));
        }
        if broken {
            inode.fail_sync();
            self.has_failed = true;
            return Err(failure(&format!("{file:?} at {offset}"), ErrorKind::Other));
        }
        if sync {
            inode.sync();
        }
        Ok(Done::Unit)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<Done, DiskError> {
        let target = self
            .names
            .get(from)
            .ok_or_else(|| failure(from, ErrorKind::NotFound))?;
        self.check_free(to)?;
        self.names.rename(from, to, target);
        let kills = self.kills_named.take_if(|directory| to.starts_with(*directory));
        if kills.is_some() && self.power != Power::Lost {
            (self.killed, self.power) = (true, Power::FailsAfter(0));
        }
        Ok(Done::Unit)
    }

    fn remove(&mut self, name: &str) -> Result<Done, DiskError> {
        self.names
            .get(name)
            .ok_or_else(|| failure(name, ErrorKind::NotFound))?;
        self.names.unlink(name);
        Ok(Done::Unit)
    }

    fn sync_directory(&mut self, name: &str) -> Result<Done, DiskError> {
        if !self.names.has_directory(name) {
            return Err(failure(name, ErrorKind::NotFound));
        }
        self.names.sync(name);
        Ok(Done::Unit)
    }

    fn list(&self, name: &str) -> Vec<(String, u64)> {
        let length = |target| match target {
            Target::File(inode) => self.inodes[inode].len(),
            Target::Directory => 0,
        };
        self.names
            .list(name)
            .into_iter()
            .map(|(name, target)| (name, length(target)))
            .collect()
    }

    pub(super) fn kill(&mut self) -> Damage {
        let damage = self.interrupt();
        self.restart();
        damage
    }

    pub(super) fn crash(&mut self, severity: Severity) -> Damage {
        let mut damage = self.interrupt();
        for inode in self.inodes.iter_mut().filter(|i| i.has_unsynced()) {
            damage.torn_write |= inode.lose_power(severity, &mut self.random);
        }
        damage.lost_name = self.names.lose_power(severity, &mut self.random);
        self.restart();
        damage
    }

    /// What is being carried out is done in part, so that a crash finds something to tear.
    fn interrupt(&mut self) -> Damage {
        let mut damage = Damage::default();
        let now = self.now;
        for job in std::mem::take(&mut self.under_way)
            .into_values()
            .filter(|job| job.begins <= now)
        {
            damage.in_flight += 1;
            match job.op {
                Op::Create { name, bytes, .. } => {
                    damage.in_create = true;
                    self.create_in_part(&name, bytes);
                }
                Op::Write {
                    file,
                    offset,
                    buffers,
                    ..
                } => self.write_in_part(file, offset, buffers),
                Op::SyncDirectory { .. } | Op::Read { .. } => {}
                other => drop(self.perform(other)),
            }
        }
        damage
    }

    /// A write that was being carried out: all of it or a beginning is in the page cache, none of it synced.
    fn write_in_part(&mut self, file: FileId, offset: u64, mut buffers: Vec<Bytes>) {
        if self.random.coin() {
            buffers.truncate(self.random.place(buffers.len() + 1));
            if let Some(last) = buffers.last_mut() {
                let length = self.random.place(last.len() + 1);
                last.truncate(length);
            }
        }
        drop(self.write(file, offset, &buffers, false));
    }

    /// A file that was being made: its name may be there already, with any length so far.
    fn create_in_part(&mut self, name: &str, bytes: u64) {
        if self.names.is_free(name) && !self.full {
            let length = self.random.below(bytes + 1);
            let inode = self.add(Inode::zeros(length, is_growing(name)));
            self.names.link(name, Target::File(inode));
        }
    }

    fn restart(&mut self) {
        self.open.clear();
        self.file_busy.clear();
        self.names_busy = Time::ZERO;
        self.completed.clear();
        self.unanswered.clear();
        self.power = Power::On;
        (self.kills_named, self.killed) = (None, false);
        (self.broken, self.has_failed) = (false, false);
        self.forget_unnamed();
    }

    /// Frees the content of files that no name leads to any more.
    fn forget_unnamed(&mut self) {
        let named = self.names.files();
        for (n, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&n) {
                *inode = Inode::default();
            }
        }
    }
}

fn failure(what: &str, kind: ErrorKind) -> DiskError {
    DiskError {
        what: what.to_owned(),
        kind,
        message: kind.to_string(),
    }
}
