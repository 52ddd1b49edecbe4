//! Where a node keeps its log: a directory, or memory.

use crate::memory::MemoryDisk;
use kontiki_log::{
    OsDisk,
    disk::{Completion, Disk, Op, OpId},
};
use std::io::Read;

/// A disk of either kind.
#[derive(Debug)]
pub(crate) enum Storage {
    /// A data directory.
    Os(OsDisk),
    /// Memory.
    Memory(MemoryDisk),
}

impl Disk for Storage {
    fn submit(&mut self, op: Op) -> OpId {
        match self {
            Self::Os(disk) => disk.submit(op),
            Self::Memory(disk) => disk.submit(op),
        }
    }

    fn poll(&mut self) -> Option<Completion> {
        match self {
            Self::Os(disk) => disk.poll(),
            Self::Memory(disk) => disk.poll(),
        }
    }

    fn wait(&mut self) -> Option<Completion> {
        match self {
            Self::Os(disk) => disk.wait(),
            Self::Memory(disk) => disk.wait(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Os(disk) => disk.name(),
            Self::Memory(disk) => disk.name(),
        }
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        match self {
            Self::Os(disk) => disk.reader(name),
            Self::Memory(disk) => disk.reader(name),
        }
    }
}
