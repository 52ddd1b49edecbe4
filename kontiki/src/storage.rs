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

impl Storage {
    /// See [`OsDisk::hold_writes`].
    pub(crate) fn hold_writes(&mut self) {
        if let Self::Os(disk) = self {
            disk.hold_writes();
        }
    }

    /// See [`OsDisk::holds_write`].
    pub(crate) fn holds_write(&self) -> bool {
        matches!(self, Self::Os(disk) if disk.holds_write())
    }

    /// See [`OsDisk::carry_out`].
    pub(crate) fn carry_out(&mut self) {
        if let Self::Os(disk) = self {
            disk.carry_out();
        }
    }
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
