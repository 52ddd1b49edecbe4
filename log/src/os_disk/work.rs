//! What the threads do with their jobs.

use super::directory::Directory;
use super::file::{self, Inode, New, OpenFile};
use super::queue::{Answers, Queue};
use crate::disk::{DiskError, Done, Op, OpId, is_growing};
use crate::room::is_full;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The largest write that counts as a small one, in bytes.
const SMALL_BYTES_MAX: u64 = 16 << 10;

/// How often a file that is being filled rests between two pieces while it is ahead, and how long: without appends 64 MiB take
/// about a second.
const RESTS: u32 = 4;
const REST: Duration = Duration::from_millis(1);

/// One operation, on its way to a thread.
pub(super) struct Job {
    pub(super) id: OpId,
    pub(super) work: Work,
}

/// What is to be done, with the file it is done to.
pub(super) enum Work {
    Write {
        file: Arc<OpenFile>,
        offset: u64,
        buffers: Vec<Bytes>,
        sync: bool,
    },
    Read {
        file: Arc<OpenFile>,
        offset: u64,
        bytes: u64,
    },
    Create {
        name: String,
        bytes: u64,
        within: u64,
        resumes: bool,
    },
    /// Held until its turn comes, behind what was submitted before.
    Close(Arc<OpenFile>),
    /// A hint, which nobody is answered for.
    Cool(Arc<OpenFile>),
    /// An operation on names, not on an open file.
    Names(Op),
    Refuse(DiskError),
}

/// Where it is done that must not hold up the writes of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Thread {
    Aside,
    Reads,
}

impl Work {
    /// Where it is done, if it must not hold up the writes of the log.
    pub(super) fn goes_to(&self) -> Option<Thread> {
        match self {
            Self::Read { .. } | Self::Cool(_) => Some(Thread::Reads),
            other => other.goes_aside().then_some(Thread::Aside),
        }
    }

    fn goes_aside(&self) -> bool {
        match self {
            Self::Create { .. } | Self::Names(Op::Remove { .. }) => true,
            Self::Write { file, .. } | Self::Close(file) => file.grows(),
            Self::Names(Op::MakeDirectory { name } | Op::Open { name }) => is_growing(name),
            Self::Names(Op::SyncDirectory { name } | Op::List { name }) => is_growing(name),
            Self::Names(Op::Rename { from, .. }) => is_growing(from),
            Self::Names(_) | Self::Refuse(_) | Self::Read { .. } | Self::Cool(_) => false,
        }
    }

    /// Whether it is a write that makes itself durable, small enough that syncing it takes most of the time.
    pub(super) fn is_small_write(&self) -> bool {
        match self {
            Self::Write {
                buffers, sync: true, ..
            } => file::total(buffers) <= SMALL_BYTES_MAX,
            _ => false,
        }
    }
}

/// What came of an operation.
pub(super) struct Answer {
    pub(super) id: OpId,
    /// Whether it was one of those that are carried out one after the other.
    pub(super) in_order: bool,
    pub(super) result: Result<Effect, DiskError>,
}

pub(super) enum Effect {
    Done(Done),
    /// A file that has no id yet.
    Opened(Arc<OpenFile>),
}

/// The thread of writes and names: one after the other, as submitted.
pub(super) fn in_order(writer: &Mutex<Writer>, queue: &Queue, answers: &Answers) {
    let mut jobs = VecDeque::new();
    while queue.take(&mut jobs) {
        for job in jobs.drain(..) {
            answers.push(perform(writer, job));
        }
    }
}

/// Carries out one operation of those that come one after the other, on whichever thread has them.
pub(super) fn perform(writer: &Mutex<Writer>, Job { id, work }: Job) -> Answer {
    // A panic in an operation is an error of that operation, and is noted like one.
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let result = guarded(|| writer.perform(work));
    Answer {
        id,
        in_order: true,
        result,
    }
}

/// The thread of everything that must not hold up a write of the log, but for reads.
pub(super) fn aside(writer: &Mutex<Writer>, queue: &Queue, answers: &Answers) {
    // Nobody else has it.
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut jobs = VecDeque::new();
    while queue.take(&mut jobs) {
        let Some(Job { id, work }) = jobs.pop_front() else {
            continue;
        };
        let result = guarded(|| match work {
            Work::Create {
                name,
                bytes,
                within,
                resumes,
            } => {
                let pace = Pace::new(Arc::clone(&writer.written), bytes, within);
                writer.create(&name, bytes, resumes, &mut |done| {
                    let mut goes_on = queue.glance(&mut jobs);
                    for _ in 0..RESTS {
                        if !goes_on || !pace.is_ahead(done) {
                            break;
                        }
                        goes_on = queue.rest(REST, &mut jobs);
                    }
                    goes_on
                })
            }
            other => writer.perform(other),
        });
        answers.push(Answer {
            id,
            in_order: false,
            result,
        });
    }
}

/// The thread of reads. What they read is on disk, and the names that it leads to are known.
pub(super) fn reads(_: &Mutex<Writer>, queue: &Queue, answers: &Answers) {
    let mut jobs = VecDeque::new();
    while queue.take(&mut jobs) {
        for Job { id, work } in jobs.drain(..) {
            let result = match work {
                Work::Read { file, offset, bytes } => guarded(|| read(&file, offset, bytes)),
                Work::Cool(file) => {
                    file.cool();
                    continue;
                }
                _ => Err(misplaced()),
            };
            answers.push(Answer {
                id,
                in_order: false,
                result,
            });
        }
    }
}

/// A panic is an error like any other: whoever waits for an answer gets one.
fn guarded<T>(work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(DiskError {
            what: "carry out an operation".to_owned(),
            kind: ErrorKind::Other,
            message: format!("a thread of the disk panicked: {}", text.unwrap_or("(no text)")),
        })
    })
}

fn read(file: &OpenFile, offset: u64, bytes: u64) -> Result<Effect, DiskError> {
    Ok(Effect::Done(Done::Read(file.read(offset, bytes)?)))
}

fn misplaced() -> DiskError {
    DiskError {
        what: "carry out an operation".to_owned(),
        kind: ErrorKind::Unsupported,
        message: "it belongs to the other thread".to_owned(),
    }
}

/// How far a new file should be while others are written to: at full speed it would take from them what the device can do.
struct Pace {
    written: Arc<AtomicU64>,
    /// How much of that there was when it was begun.
    before: u64,
    bytes: u64,
    within: u64,
}

impl Pace {
    fn new(written: Arc<AtomicU64>, bytes: u64, within: u64) -> Self {
        let before = written.load(Ordering::Relaxed);
        Self {
            written,
            before,
            bytes,
            within,
        }
    }

    /// Whether so many bytes of it are more than are needed by now, if it is to be ready after three quarters of what may be
    /// written until it is needed.
    fn is_ahead(&self, done: u64) -> bool {
        let written = self.written.load(Ordering::Relaxed).wrapping_sub(self.before);
        let time = self.within / 4 * 3;
        u128::from(done) * u128::from(time) > u128::from(self.bytes) * u128::from(written)
    }
}

/// The state of a thread that writes.
pub(super) struct Writer {
    directory: Directory,
    /// How many bytes were written to files of the log, by both.
    written: Arc<AtomicU64>,
    /// Files and directories whose write or sync has failed, and how. What the system then still holds of them is
    /// unknown: a later sync may succeed although pages were dropped, so none is tried, through whatever handle.
    failed: BTreeMap<Inode, String>,
}

impl Writer {
    pub(super) fn new(directory: Directory, written: Arc<AtomicU64>) -> Self {
        Self {
            directory,
            written,
            failed: BTreeMap::new(),
        }
    }

    fn create(
        &mut self,
        name: &str,
        bytes: u64,
        resumes: bool,
        meanwhile: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Effect, DiskError> {
        let new = New {
            bytes,
            grows: is_growing(name),
            resumes,
        };
        let reserve = &self.directory.reserve;
        let file = file::create(self.directory.path(name)?, new, reserve, meanwhile)?;
        // It may have the number of one that failed and was removed.
        self.failed.remove(&file.inode());
        Ok(Effect::Opened(Arc::new(file)))
    }

    fn perform(&mut self, work: Work) -> Result<Effect, DiskError> {
        let done = match work {
            Work::Write {
                file,
                offset,
                buffers,
                sync,
            } => self.write(&file, offset, &buffers, sync)?,
            Work::Close(file) => {
                drop(file);
                Done::Unit
            }
            Work::Names(op) => return self.names(op),
            Work::Refuse(error) => return Err(error),
            Work::Read { .. } | Work::Create { .. } | Work::Cool(_) => return Err(misplaced()),
        };
        Ok(Effect::Done(done))
    }

    fn write(
        &mut self,
        file: &OpenFile,
        offset: u64,
        buffers: &[Bytes],
        sync: bool,
    ) -> Result<Done, DiskError> {
        file.check_fits(offset, buffers)?;
        self.check_sound(file.inode(), || file.write_words(offset, buffers))?;
        let written = file.write(offset, buffers);
        if !file.grows() {
            self.written.fetch_add(file::total(buffers), Ordering::Relaxed);
        }
        let written = written.and_then(|()| if sync { file.sync() } else { Ok(()) });
        match written {
            // The system may have dropped what was to be written: whoever writes all of that once more may sync it.
            Err(error) if is_full(&error) => Err(error),
            written => self.remember(file.inode(), written),
        }
    }

    fn sync_directory(&mut self, name: &str) -> Result<Done, DiskError> {
        let (directory, inode) = self.directory.open_directory(name)?;
        self.check_sound(inode, || self.directory.sync_words(name))?;
        match self.directory.sync(name, &directory) {
            // Nothing was dropped, there is no room for it: whoever gives a name anew may sync that.
            Err(error) if is_full(&error) => Err(error),
            synced => self.remember(inode, synced),
        }
    }

    fn check_sound(&self, inode: Inode, what: impl FnOnce() -> String) -> Result<(), DiskError> {
        let Some(earlier) = self.failed.get(&inode) else {
            return Ok(());
        };
        let message =
            format!("not tried, since what is on disk is unknown after an earlier failure: {earlier}");
        Err(DiskError {
            what: what(),
            kind: ErrorKind::Other,
            message,
        })
    }

    fn remember(&mut self, inode: Inode, result: Result<(), DiskError>) -> Result<Done, DiskError> {
        if let Err(error) = &result {
            self.failed.insert(inode, error.to_string());
        }
        result.map(|()| Done::Unit)
    }

    fn names(&mut self, op: Op) -> Result<Effect, DiskError> {
        let done = match op {
            Op::Open { name } => {
                return Ok(Effect::Opened(Arc::new(file::open(
                    self.directory.path(&name)?,
                    is_growing(&name),
                    &self.directory.reserve,
                )?)));
            }
            Op::MakeDirectory { name } => self.directory.make(&name).map(|()| Done::Unit)?,
            Op::Rename { from, to } => self.directory.rename(&from, &to).map(|()| Done::Unit)?,
            Op::Remove { name } => self.directory.remove(&name).map(|()| Done::Unit)?,
            Op::SyncDirectory { name } => self.sync_directory(&name)?,
            Op::List { name } => Done::Listed(self.directory.list(&name)?),
            Op::Create { .. } | Op::Close { .. } | Op::Write { .. } | Op::Read { .. } => {
                return Err(misplaced());
            }
        };
        Ok(Effect::Done(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_ready_in_time_and_not_long_before() {
        let written = Arc::new(AtomicU64::new(500));
        let pace = Pace::new(Arc::clone(&written), 1000, 400);
        assert!(!pace.is_ahead(0), "the first piece waits for nothing");
        assert!(pace.is_ahead(1));
        written.fetch_add(150, Ordering::Relaxed);
        assert!(
            !pace.is_ahead(500) && pace.is_ahead(501),
            "half of three quarters"
        );
        written.fetch_add(150, Ordering::Relaxed);
        assert!(
            !pace.is_ahead(1000),
            "all of it, with a quarter left to name and sync it"
        );
    }

    #[test]
    fn a_new_file_that_is_awaited_never_rests() {
        assert!(!Pace::new(Arc::default(), 1000, 0).is_ahead(999));
    }

    #[test]
    fn a_panic_is_told_as_an_error() {
        let told = |message: Result<(), DiskError>| message.expect_err("a panic").to_string();
        assert!(told(guarded(|| panic!("as a test wants"))).ends_with("panicked: as a test wants"));
        assert!(told(guarded(|| panic!("test {}", 2))).ends_with("panicked: test 2"));
        assert!(guarded(|| Ok(())).is_ok());
    }
}
