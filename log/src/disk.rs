//! The disk, as something that is given work and later says that it is done.
//!
//! Everything above is a state machine over this trait, without thread or clock: `OsDisk` works on
//! threads of its own, the simulator's disk on virtual time, and either may stop between any two
//! operations. Operations on one file are carried out in the order they were submitted.

use bytes::Bytes;
use std::fmt;
use std::io::Read;

/// Names one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// An open file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// The folder of files that grow: they are made empty, and a write may begin anywhere up to their end and go on
/// beyond it. Only a synced write makes its bytes, and the length, durable. Files elsewhere keep their length.
pub const GROWING: &str = "snapshots";

/// Whether a name is that folder's or lies in it.
#[must_use]
pub fn is_growing(name: &str) -> bool {
    name.split('/').next() == Some(GROWING)
}

/// Work for the disk. Names are relative to the data directory; a name holds at most one `/`.
#[derive(Clone, Debug)]
pub enum Op {
    /// Make a directory (mode 0700) if it is not there.
    MakeDirectory {
        /// Its name.
        name: String,
    },
    /// Make a file of this many zero bytes (mode 0600), all of them written, and sync it. Fails if it exists, unless it
    /// goes on with what is there.
    /// Runs beside other operations, and does not hold up writes to other files.
    Create {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
        /// After how many bytes more, written to other files, it is needed; zero if it is awaited. The disk may take its time
        /// as long as it is ready by then.
        within: u64,
        /// Go on with what an earlier attempt at the same file has left, if it is no longer than that: whatever is in it is zeros.
        resumes: bool,
    },
    /// Open an existing file for reading and writing.
    Open {
        /// Its name.
        name: String,
    },
    /// Close a file; operations on it that were submitted before are carried out first.
    Close {
        /// The file.
        file: FileId,
    },
    /// Write these buffers one behind the other, inside the file's length unless it is one that grows ([`GROWING`]);
    /// then, if `sync`, `fdatasync`.
    Write {
        /// The file.
        file: FileId,
        /// Where the first begins.
        offset: u64,
        /// What to write.
        buffers: Vec<Bytes>,
        /// Make it and all earlier writes to this file durable.
        sync: bool,
    },
    /// Read up to `bytes` bytes; fewer only at the end of the file. May run beside writes.
    Read {
        /// The file.
        file: FileId,
        /// Where to begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Give a file another name; durable only after `SyncDirectory`.
    Rename {
        /// Its name now.
        from: String,
        /// Its name then; nothing may have it.
        to: String,
    },
    /// Remove a file; durable only after `SyncDirectory`. Does not hold up writes.
    Remove {
        /// Its name.
        name: String,
    },
    /// Make creations, renames and removals in this directory durable; `""` is the data directory itself.
    SyncDirectory {
        /// The directory.
        name: String,
    },
    /// The names in a directory, in order, with lengths; directories have length zero.
    List {
        /// The directory.
        name: String,
    },
}

/// What an operation gave.
#[derive(Clone, Debug)]
pub enum Done {
    /// Nothing but its being done.
    Unit,
    /// An open file and its length.
    Opened(FileId, u64),
    /// Bytes read.
    Read(Bytes),
    /// Names and lengths.
    Listed(Vec<(String, u64)>),
}

/// An operation that has ended.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which.
    pub id: OpId,
    /// What came of it.
    pub result: Result<Done, DiskError>,
}

/// Why an operation failed.
#[derive(Clone, Debug)]
pub struct DiskError {
    /// What was tried, on what: readable.
    pub what: String,
    /// What the system said.
    pub kind: std::io::ErrorKind,
    /// The system's words.
    pub message: String,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.message)
    }
}

impl std::error::Error for DiskError {}

/// A data directory.
pub trait Disk {
    /// Take an operation. Never blocks, never fails: what comes of it is told by a completion.
    fn submit(&mut self, op: Op) -> OpId;

    /// The next completion, if there is one already.
    fn poll(&mut self) -> Option<Completion>;

    /// Wait for the next completion. Used while a log is made or opened, never later. `None` if nothing is under way.
    fn wait(&mut self) -> Option<Completion>;

    /// What the directory is called in messages to the operator.
    fn name(&self) -> String;

    /// A hint: what this file holds is on disk and will hardly be read again soon, so that the system need not keep it in
    /// memory. Nothing is completed for it, and a disk that keeps nothing in memory has nothing to do.
    fn cool(&mut self, _file: FileId) {}

    /// A file as it is, to be read from its beginning to its end by another thread, which waits for the disk there. It is
    /// opened with the first read at the latest, and must have its name until then; whatever is wrong, a read tells.
    fn reader(&self, name: &str) -> Box<dyn Read + Send>;
}
