//! The disk, one operation after the other: for making and opening a log, when nothing else happens.

use crate::disk::{Disk, DiskError, Done, FileId, Op};
use crate::room::is_full;
use bytes::Bytes;
use std::io::ErrorKind;

/// How many bytes one operation reads or overwrites.
pub(crate) const PIECE: u64 = 1 << 20;

/// Carries out an operation and waits for it.
pub(crate) fn perform(disk: &mut impl Disk, op: Op) -> Result<Done, DiskError> {
    let id = disk.submit(op);
    while let Some(completion) = disk.wait() {
        if completion.id == id {
            return completion.result;
        }
    }
    Err(unexpected("wait for an operation", "the disk does not answer"))
}

/// A disk that does something else than it was told.
fn unexpected(what: &str, message: &str) -> DiskError {
    DiskError {
        what: what.to_owned(),
        kind: ErrorKind::Other,
        message: message.to_owned(),
    }
}

pub(crate) fn open(disk: &mut impl Disk, name: String) -> Result<(FileId, u64), DiskError> {
    opened(perform(disk, Op::Open { name })?)
}

pub(crate) fn create(disk: &mut impl Disk, name: String, bytes: u64) -> Result<FileId, DiskError> {
    let op = Op::Create {
        name,
        bytes,
        within: 0,
        resumes: false,
    };
    opened(perform(disk, op)?).map(|(file, _)| file)
}

fn opened(done: Done) -> Result<(FileId, u64), DiskError> {
    match done {
        Done::Opened(file, bytes) => Ok((file, bytes)),
        _ => Err(unexpected("open a file", "the disk gives no file")),
    }
}

/// Lack of room is no reason not to start.
pub(crate) fn unless_full(result: Result<(), DiskError>) -> Result<(), DiskError> {
    result.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })
}

/// Exactly these bytes of a file.
pub(crate) fn read(disk: &mut impl Disk, file: FileId, offset: u64, bytes: u64) -> Result<Bytes, DiskError> {
    match perform(disk, Op::Read { file, offset, bytes })? {
        Done::Read(read) if read.len() as u64 == bytes => Ok(read),
        _ => Err(unexpected(
            "read a file",
            "it is shorter than it was when it was opened",
        )),
    }
}

/// Writes and syncs.
pub(crate) fn write(
    disk: &mut impl Disk,
    file: FileId,
    offset: u64,
    buffers: Vec<Bytes>,
) -> Result<(), DiskError> {
    perform(
        disk,
        Op::Write {
            file,
            offset,
            buffers,
            sync: true,
        },
    )
    .map(|_| ())
}

/// Overwrites a range with zeros and syncs.
pub(crate) fn clear(disk: &mut impl Disk, file: FileId, from: u64, to: u64) -> Result<(), DiskError> {
    let zeros = Bytes::from(vec![0; to.saturating_sub(from).min(PIECE) as usize]);
    let mut at = from;
    while at < to {
        let step = (to - at).min(PIECE);
        let buffers = vec![zeros.slice(..step as usize)];
        let sync = at + step == to;
        perform(
            disk,
            Op::Write {
                file,
                offset: at,
                buffers,
                sync,
            },
        )?;
        at += step;
    }
    Ok(())
}

pub(crate) fn rename(disk: &mut impl Disk, from: String, to: String) -> Result<(), DiskError> {
    perform(disk, Op::Rename { from, to }).map(|_| ())
}

pub(crate) fn remove(disk: &mut impl Disk, name: String) -> Result<(), DiskError> {
    perform(disk, Op::Remove { name }).map(|_| ())
}

pub(crate) fn sync_directory(disk: &mut impl Disk, name: &str) -> Result<(), DiskError> {
    perform(
        disk,
        Op::SyncDirectory {
            name: name.to_owned(),
        },
    )
    .map(|_| ())
}

pub(crate) fn list(disk: &mut impl Disk, name: &str) -> Result<Vec<(String, u64)>, DiskError> {
    match perform(
        disk,
        Op::List {
            name: name.to_owned(),
        },
    )? {
        Done::Listed(names) => Ok(names),
        _ => Err(unexpected("list a directory", "the disk gives no names")),
    }
}
