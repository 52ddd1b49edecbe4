//! One open file: writes in one call of the system, reads beside them.
//!
//! Invariants: reads and writes carry their offset, so that none depends on another; a file keeps the length it was made with,
//! unless it is one that grows.

use super::failed;
use super::reserve::Reserve;
use crate::disk::DiskError;
use bytes::Bytes;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a file is, whatever its name: device and number on it.
pub(super) type Inode = (u64, u64);

/// How much of a new file is written at once, with reads served in between. An append that is synced
/// meanwhile waits for what the device has in hand: with this it is about a millisecond; with 8 MiB
/// it was about 20, for a file made a third faster.
const CHUNK: usize = 256 << 10;
/// How many pieces of a file that was begun are written again: those that an interrupted process had in hand.
const PIECES_AGAIN: u64 = 4;
/// Where writes past the system's memory begin and end, and their bytes in ours: whatever the device wants, it is no more.
const DIRECT: usize = 4 << 10;

pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
    bytes: AtomicU64,
    grows: bool,
    inode: Inode,
}

/// Opens an existing file for reading and writing.
pub(super) fn open(path: PathBuf, grows: bool, reserve: &Reserve) -> Result<OpenFile, DiskError> {
    match open_file(&path, reserve) {
        Ok((file, found)) => Ok(OpenFile::new(file, path, &found, grows)),
        Err(e) => Err(failed(format!("open {}", path.display()), &e)),
    }
}

fn open_file(path: &Path, reserve: &Reserve) -> io::Result<(File, Metadata)> {
    let opened = reserve.open(|| OpenOptions::new().read(true).write(true).open(path));
    opened.and_then(|file| {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok((file, found))
    })
}

/// What is to be made.
#[derive(Clone, Copy)]
pub(super) struct New {
    pub(super) bytes: u64,
    pub(super) grows: bool,
    /// It goes on with what an earlier attempt has left, if anything is there.
    pub(super) resumes: bool,
}

/// Makes a file of zeros and syncs it; `meanwhile` is told now and then how far it is, and says whether to go on. What is
/// not finished then stays, to be gone on with; for lack of room, or if anything fails, it is removed.
pub(super) fn create(
    path: PathBuf,
    new: New,
    reserve: &Reserve,
    meanwhile: &mut dyn FnMut(u64) -> bool,
) -> Result<OpenFile, DiskError> {
    let New {
        bytes,
        grows,
        resumes,
    } = new;
    let error = |e: &io::Error| failed(format!("make {} of {bytes} bytes", path.display()), e);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let (file, done) = match reserve.open(|| options.open(&path)) {
        Err(e) if resumes && e.kind() == ErrorKind::AlreadyExists => {
            begun(&path, bytes, reserve).map_err(|e| error(&e))?
        }
        made => (made.map_err(|e| error(&e))?, 0),
    };
    match fill(&path, &file, (done, bytes), reserve, meanwhile).and_then(|()| file.metadata()) {
        Ok(found) => Ok(OpenFile::new(file, path, &found, grows)),
        Err(e) if e.kind() == ErrorKind::Interrupted => Err(error(&e)),
        Err(e) => {
            let error = error(&e);
            Err(remove_partial(&path, error))
        }
    }
}

/// What an earlier attempt has left, and up to where it need not be done again. Whatever was written into it is zeros, and what
/// was not reads as zeros: the last pieces are written again only so that their room is taken.
fn begun(path: &Path, bytes: u64, reserve: &Reserve) -> io::Result<(File, u64)> {
    let (file, found) = open_file(path, reserve)?;
    if found.len() > bytes {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let pieces = found.len() / CHUNK as u64;
    Ok((file, pieces.saturating_sub(PIECES_AGAIN) * CHUNK as u64))
}

/// Every byte is written, not only promised: a write into it later changes no metadata, hence its sync
/// is one flush, and the room is taken.
fn fill(
    path: &Path,
    file: &File,
    (mut done, bytes): (u64, u64),
    reserve: &Reserve,
    meanwhile: &mut dyn FnMut(u64) -> bool,
) -> io::Result<()> {
    let memory = vec![0; CHUNK + DIRECT];
    let aligned = memory.as_ptr().align_offset(DIRECT);
    // Where that cannot be told, the system refuses it and it is filled the other way.
    let zeros = memory
        .get(aligned..)
        .and_then(|rest| rest.get(..CHUNK))
        .unwrap_or(&memory);
    let mut direct = if bytes > 0 {
        open_direct(path, reserve)
    } else {
        None
    };
    while done < bytes {
        if !meanwhile(done) {
            return Err(io::Error::new(
                ErrorKind::Interrupted,
                "the directory is given free",
            ));
        }
        let step = usize::try_from(bytes - done).map_or(CHUNK, |left| left.min(CHUNK));
        let zeros = zeros.get(..step).unwrap_or(zeros);
        let whole = step.is_multiple_of(DIRECT);
        match direct
            .as_ref()
            .filter(|_| whole)
            .map(|d| d.write_all_at(zeros, done))
        {
            Some(Ok(())) => {}
            // Not here, or not like this: the other way says what is wrong, if anything is.
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                direct = None;
                continue;
            }
            Some(Err(error)) => return Err(error),
            None => {
                file.write_all_at(zeros, done)?;
                file.sync_data()?;
            }
        }
        done += step as u64;
    }
    file.sync_all()
}

/// The file once more, for writes that go past the system's memory, where that is possible: filling 64 MiB took 5 ms of the
/// processor in place of 66, and a third of the time.
fn open_direct(path: &Path, reserve: &Reserve) -> Option<File> {
    #[cfg(target_os = "linux")]
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    #[cfg(not(target_os = "linux"))]
    let flags = 0;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags);
    reserve.open(|| options.open(path)).ok().filter(|_| flags != 0)
}

fn remove_partial(path: &Path, mut error: DiskError) -> DiskError {
    if let Err(e) = fs::remove_file(path) {
        error.message = format!("{}; what there is of it cannot be removed: {e}", error.message);
    }
    error
}

impl OpenFile {
    pub(super) fn new(file: File, path: PathBuf, found: &Metadata, grows: bool) -> Self {
        Self {
            file,
            path,
            bytes: AtomicU64::new(found.len()),
            grows,
            inode: (found.dev(), found.ino()),
        }
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a write may make it longer.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    pub(super) fn inode(&self) -> Inode {
        self.inode
    }

    /// Refuses a write that would make a file of fixed length longer, or would leave a gap in one that grows.
    pub(super) fn check_fits(&self, offset: u64, buffers: &[Bytes]) -> Result<(), DiskError> {
        let bytes = self.bytes();
        let fits = |end: u64| end <= bytes || (self.grows && offset <= bytes);
        if offset.checked_add(total(buffers)).is_some_and(fits) {
            return Ok(());
        }
        let message = format!("the file has {bytes} bytes");
        Err(DiskError {
            what: self.write_words(offset, buffers),
            kind: ErrorKind::InvalidInput,
            message,
        })
    }

    pub(super) fn write_words(&self, offset: u64, buffers: &[Bytes]) -> String {
        format!(
            "write {} bytes at {offset} of {}",
            total(buffers),
            self.path.display()
        )
    }

    pub(super) fn write(&self, offset: u64, buffers: &[Bytes]) -> Result<(), DiskError> {
        let written = match buffers {
            [] => Ok(()),
            [one] => self.file.write_all_at(one, offset),
            several => self.write_several(offset, several),
        };
        written.map_err(|e| failed(self.write_words(offset, buffers), &e))?;
        self.bytes.fetch_max(offset + total(buffers), Ordering::Relaxed);
        Ok(())
    }

    /// As many buffers with each call as the system takes.
    fn write_several(&self, mut offset: u64, buffers: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = buffers
            .iter()
            .filter(|b| !b.is_empty())
            .map(|b| IoSlice::new(b))
            .collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match rustix::io::pwritev(&self.file, left, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(|e| failed(format!("sync {}", self.path.display()), &e))
    }

    /// The system need not keep its bytes in memory. What would be kept instead of them is what the program and others
    /// need, and a page that the system has at hand is much cheaper to fill than one it has to find.
    pub(super) fn cool(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed) {
            tracing::debug!(path = %self.path.display(), %error, "the system does not take a hint");
        }
    }

    /// Up to `bytes` bytes; fewer only at the end.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Bytes, DiskError> {
        let bytes = bytes.min(self.bytes().saturating_sub(offset));
        let read = self.read_exactly(offset, bytes);
        read.map_err(|e| {
            failed(
                format!("read {bytes} bytes at {offset} of {}", self.path.display()),
                &e,
            )
        })
    }

    fn read_exactly(&self, offset: u64, bytes: u64) -> io::Result<Bytes> {
        let bytes = usize::try_from(bytes).map_err(|_| ErrorKind::OutOfMemory)?;
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(bytes)
            .map_err(|_| ErrorKind::OutOfMemory)?;
        buffer.resize(bytes, 0);
        match self.file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(buffer.into()),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(io::Error::new(
                e.kind(),
                format!("the file had {} bytes", self.bytes()),
            )),
            Err(e) => Err(e),
        }
    }
}

/// How many bytes they hold.
pub(super) fn total(buffers: &[Bytes]) -> u64 {
    buffers.iter().map(|b| b.len() as u64).sum()
}
