//! A disk that is nothing but memory: for clusters within one process, in tests and benches.
//!
//! Invariant: it completes every operation at once, and is as strict as a real one about names and lengths. What is written is
//! kept as it was given (`extents`).

use crate::{extents::Extents, shared::lock};
use bytes::Bytes;
use kontiki_log::disk::{Completion, Disk, DiskError, Done, FileId, Op, OpId, is_growing};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind, Read},
    sync::{Arc, Mutex},
};

/// What is in the memory of one node. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryDisk {
    name: String,
    content: Arc<Mutex<Content>>,
    done: VecDeque<Completion>,
    next: u64,
}

#[derive(Debug, Default)]
struct Content {
    /// Files by name; a directory has no file.
    names: BTreeMap<String, Option<FileId>>,
    files: BTreeMap<FileId, Extents>,
    /// Those of them that grow.
    growing: BTreeSet<FileId>,
    next: u32,
    #[cfg(test)]
    broken: Broken,
}

/// How a test has broken a disk.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Broken {
    #[default]
    Whole,
    /// Writes fail.
    Fails,
    /// Writes panic, as anything on the raft thread might.
    Panics,
}

impl MemoryDisk {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            content: Arc::default(),
            done: VecDeque::new(),
            next: 0,
        }
    }
}

#[cfg(test)]
impl MemoryDisk {
    pub(crate) fn break_it(&self, broken: Broken) {
        lock(&self.content).broken = broken;
    }
}

impl Disk for MemoryDisk {
    fn submit(&mut self, op: Op) -> OpId {
        let id = OpId(self.next);
        self.next += 1;
        let what = op_name(&op);
        let result = lock(&self.content).carry_out(op).map_err(|kind| DiskError {
            what: format!("cannot {what} in {}", self.name),
            kind,
            message: kind.to_string(),
        });
        self.done.push_back(Completion { id, result });
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn wait(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        let file = FileReader {
            content: self.content.clone(),
            name: name.to_owned(),
            offset: 0,
        };
        Box::new(file)
    }
}

/// Reads a file of a disk in memory in a row.
struct FileReader {
    content: Arc<Mutex<Content>>,
    name: String,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.content);
        let file = content.names.get(&self.name).copied().flatten();
        let file = file.ok_or(ErrorKind::NotFound)?;
        let Done::Read(bytes) = content.read(file, self.offset, into.len() as u64)? else {
            return Ok(0);
        };
        if let Some(into) = into.get_mut(..bytes.len()) {
            into.copy_from_slice(&bytes);
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }
}

fn op_name(op: &Op) -> &'static str {
    match op {
        Op::MakeDirectory { .. } => "make a directory",
        Op::Create { .. } => "create a file",
        Op::Open { .. } => "open a file",
        Op::Close { .. } => "close a file",
        Op::Write { .. } => "write",
        Op::Read { .. } => "read",
        Op::Rename { .. } => "rename a file",
        Op::Remove { .. } => "remove a file",
        Op::SyncDirectory { .. } => "sync a directory",
        Op::List { .. } => "list a directory",
    }
}

impl Content {
    fn carry_out(&mut self, op: Op) -> Result<Done, ErrorKind> {
        #[cfg(test)]
        if matches!(op, Op::Write { .. }) {
            assert!(self.broken != Broken::Panics, "a test wants a panic");
            if self.broken == Broken::Fails {
                return Err(ErrorKind::Other);
            }
        }
        match op {
            Op::MakeDirectory { name } => {
                self.names.entry(name).or_insert(None);
                Ok(Done::Unit)
            }
            Op::Create { name, bytes, .. } => self.create(name, bytes),
            Op::Open { name } => self.open(&name),
            Op::Close { .. } | Op::SyncDirectory { .. } => Ok(Done::Unit),
            Op::Write {
                file,
                offset,
                buffers,
                ..
            } => self.write(file, offset, buffers),
            Op::Read { file, offset, bytes } => self.read(file, offset, bytes),
            Op::Rename { from, to } => self.rename(&from, to),
            Op::Remove { name } => self.remove(&name),
            Op::List { name } => Ok(Done::Listed(self.list(&name))),
        }
    }

    fn create(&mut self, name: String, bytes: u64) -> Result<Done, ErrorKind> {
        if self.names.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists);
        }
        let file = FileId(self.next);
        self.next += 1;
        self.files.insert(file, Extents::zeros(bytes));
        if is_growing(&name) {
            self.growing.insert(file);
        }
        self.names.insert(name, Some(file));
        Ok(Done::Opened(file, bytes))
    }

    fn open(&self, name: &str) -> Result<Done, ErrorKind> {
        let file = self
            .names
            .get(name)
            .copied()
            .flatten()
            .ok_or(ErrorKind::NotFound)?;
        let length = self.files.get(&file).ok_or(ErrorKind::NotFound)?.length();
        Ok(Done::Opened(file, length))
    }

    fn write(&mut self, file: FileId, offset: u64, buffers: Vec<Bytes>) -> Result<Done, ErrorKind> {
        let content = self.files.get_mut(&file).ok_or(ErrorKind::NotFound)?;
        if self.growing.contains(&file) && offset <= content.length() {
            let bytes: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
            content.grow(offset.saturating_add(bytes));
        }
        if content.write(offset, buffers) {
            Ok(Done::Unit)
        } else {
            Err(ErrorKind::InvalidInput)
        }
    }

    fn read(&self, file: FileId, offset: u64, bytes: u64) -> Result<Done, ErrorKind> {
        let content = self.files.get(&file).ok_or(ErrorKind::NotFound)?;
        Ok(Done::Read(content.read(offset, bytes)))
    }

    fn rename(&mut self, from: &str, to: String) -> Result<Done, ErrorKind> {
        if self.names.contains_key(&to) {
            return Err(ErrorKind::AlreadyExists);
        }
        let file = self.names.remove(from).ok_or(ErrorKind::NotFound)?;
        self.names.insert(to, file);
        Ok(Done::Unit)
    }

    fn remove(&mut self, name: &str) -> Result<Done, ErrorKind> {
        let file = self.names.remove(name).ok_or(ErrorKind::NotFound)?;
        if let Some(file) = file {
            self.files.remove(&file);
            self.growing.remove(&file);
        }
        Ok(Done::Unit)
    }

    fn list(&self, directory: &str) -> Vec<(String, u64)> {
        let inside = |name: &str| {
            let rest = if directory.is_empty() {
                Some(name)
            } else {
                name.strip_prefix(directory)?.strip_prefix('/')
            };
            rest.filter(|rest| !rest.contains('/')).map(str::to_owned)
        };
        let length = |file: &Option<FileId>| {
            file.and_then(|file| self.files.get(&file))
                .map_or(0, Extents::length)
        };
        self.names
            .iter()
            .filter_map(|(name, file)| Some((inside(name)?, length(file))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(disk: &mut MemoryDisk, op: Op) -> Result<Done, DiskError> {
        disk.submit(op);
        disk.wait().unwrap().result
    }

    #[test]
    fn the_disk_keeps_what_is_written_and_its_lengths() {
        let mut disk = MemoryDisk::new("memory:1".into());
        done(&mut disk, Op::MakeDirectory { name: "d".into() }).unwrap();
        let Ok(Done::Opened(file, 8)) = done(
            &mut disk,
            Op::Create {
                name: "d/a".into(),
                bytes: 8,
                within: 0,
                resumes: false,
            },
        ) else {
            panic!()
        };
        let write = |offset| Op::Write {
            file,
            offset,
            buffers: vec![Bytes::from_static(b"xyz")],
            sync: true,
        };
        done(&mut disk, write(4)).unwrap();
        assert!(done(&mut disk, write(6)).is_err(), "written beyond the end");
        done(
            &mut disk,
            Op::Rename {
                from: "d/a".into(),
                to: "d/b".into(),
            },
        )
        .unwrap();
        let Ok(Done::Opened(file, 8)) = done(&mut disk.clone(), Op::Open { name: "d/b".into() }) else {
            panic!()
        };
        let Ok(Done::Read(bytes)) = done(
            &mut disk,
            Op::Read {
                file,
                offset: 3,
                bytes: 100,
            },
        ) else {
            panic!()
        };
        assert_eq!(bytes[..], b"\0xyz\0"[..]);
        let Ok(Done::Listed(names)) = done(&mut disk, Op::List { name: "d".into() }) else {
            panic!()
        };
        assert_eq!(names, [("b".to_owned(), 8)]);
        let Ok(Done::Listed(names)) = done(&mut disk, Op::List { name: String::new() }) else {
            panic!()
        };
        assert_eq!(names, [("d".to_owned(), 0)]);
        done(&mut disk, Op::Remove { name: "d/b".into() }).unwrap();
        assert!(done(&mut disk, Op::Open { name: "d/b".into() }).is_err());
    }
}
