//! Where a node keeps its log: a directory, or memory.

use crate::{memory::MemoryDisk, pace::Pace};
use kontiki_log::{
    OsDisk,
    disk::{Completion, Disk, FileId, Op, OpId},
};
use std::{io::Read, time::Instant};

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

    /// The write that is held back goes to the disk's thread, which carries it out even if the node ends meanwhile.
    pub(crate) fn hand_over(&mut self) {
        if let Self::Os(disk) = self {
            disk.hand_over();
        }
    }

    /// Carries out the write that is held back, on this thread or on the disk's.
    pub(crate) fn carry_out(&mut self, pace: &mut Pace) {
        let Self::Os(disk) = self else { return };
        if pace.is_fast() {
            let began = Instant::now();
            disk.carry_out();
            pace.see(began.elapsed());
        } else {
            disk.hand_over();
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

    fn cool(&mut self, file: FileId) {
        match self {
            Self::Os(disk) => disk.cool(file),
            Self::Memory(disk) => disk.cool(file),
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
