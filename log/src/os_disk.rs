//! The disk of the operating system: [`Disk`] over real files, working on three threads of its own.
//!
//! `kontiki-disk` carries out, in the order of submission, everything an append or a change of names
//! waits for; `kontiki-aside` makes new files, removes and does everything in the folder of growing
//! files ([`GROWING`](crate::disk::GROWING)), so that none of it holds up a write; `kontiki-read` reads, so that no read
//! stands behind a sync. The only order between the threads is the one the log makes by waiting for a completion: a name is
//! opened, renamed or removed only after its `Create` has completed, and bytes are read only after the
//! `Write` of them has; nothing else changes a name that is removed. A [`FileId`] is known to nobody before its completion was taken, hence the
//! table of open files belongs to the one who submits and needs no lock; every job carries its file
//! with it, and a file is closed when the last job that holds it is done.
//!
//! Invariants: one process and one `OsDisk` per directory (a lock on the file `lock`, which no
//! operation shows or touches); every operation completes once, refused ones too, from a thread
//! of the disk or in `carry_out`; a file or directory whose write or sync has failed is never written or synced again, but for
//! lack of room.

mod directory;
mod file;
mod queue;
mod reader;
mod reserve;
#[cfg(test)]
mod tests;
mod work;

use crate::LogError;
use crate::disk::{Completion, Disk, DiskError, Done, FileId, Op, OpId};
use directory::{Directory, LOCK};
use file::OpenFile;
use kontiki_wire::lives::Place;
use queue::{Answers, Queue};
use reader::Reader;
use reserve::Reserve;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, atomic::AtomicU64};
use std::time::UNIX_EPOCH;
use std::{fmt, process, thread};
use work::{Answer, Effect, Job, Thread, Work, Writer};

/// A data directory on a file system, held exclusively. Dropping it carries out what was submitted, but for new
/// files that are not filled yet, ends its threads, then gives the directory free.
pub struct OsDisk {
    // Dropped in this order: the threads end before the lock is released.
    writer: Worker,
    aside: Box<Worker>,
    reads: Box<Worker>,
    answers: Arc<Answers>,
    /// Answers fetched from the threads and not yet given out.
    fetched: VecDeque<Answer>,
    /// How many operations of `writer` have not been answered.
    in_order: usize,
    /// Whether a write may wait for [`carry_out`](Self::carry_out).
    holds: bool,
    held: Option<Job>,
    files: BTreeMap<FileId, Arc<OpenFile>>,
    directory: Directory,
    submitted: u64,
    completed: u64,
    opened: u32,
    _lock: File,
}

impl OsDisk {
    /// Takes an existing data directory.
    ///
    /// `wake` is called from the disk's threads after a completion can be polled, and not again until
    /// [`Disk::poll`] has taken what was there: poll until `None`. It must neither block nor panic.
    ///
    /// # Errors
    /// [`LogError::Wrong`] if there is no such directory or it is in use; [`LogError::Disk`] if it cannot be
    /// locked or the threads cannot be started.
    pub fn open(path: impl AsRef<Path>, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, LogError> {
        let path = absolute(path.as_ref())?;
        check_directory(&path)?;
        let lock = lock(&path)?;
        let answers = Arc::new(Answers::new(Box::new(wake)));
        let written = Arc::default();
        let root =
            File::open(&path).map_err(|e| failed(format!("open data directory {}", path.display()), &e))?;
        let directory = Directory::new(path, Arc::new(Reserve::new(root)));
        let start = |name, work| Worker::start(name, work, &directory, &answers, &written);
        Ok(Self {
            writer: start("kontiki-disk", work::in_order)?,
            aside: Box::new(start("kontiki-aside", work::aside)?),
            reads: Box::new(start("kontiki-read", work::reads)?),
            answers,
            fetched: VecDeque::new(),
            in_order: 0,
            holds: false,
            held: None,
            files: BTreeMap::new(),
            directory,
            submitted: 0,
            completed: 0,
            opened: 0,
            _lock: lock,
        })
    }

    /// Makes the directory (mode 0700) and its parents, durably, as far as they are missing, then takes it as
    /// [`OsDisk::open`] does. What is in it already stays; its name is made durable in any case.
    ///
    /// # Errors
    /// As [`OsDisk::open`]; [`LogError::Disk`] if a directory cannot be made.
    pub fn create(path: impl AsRef<Path>, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, LogError> {
        let path = absolute(path.as_ref())?;
        make_directories(&path)?;
        Self::open(path, wake)
    }

    /// Where the directory is, as far as its file system tells.
    ///
    /// # Errors
    /// [`LogError::Disk`] if the system does not say.
    pub fn place(&self) -> Result<Place, LogError> {
        let root = self.directory.root();
        let found =
            fs::metadata(root).map_err(|e| failed(format!("look at directory {}", root.display()), &e))?;
        let made = found.created().ok();
        let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let made = made.and_then(|made| u64::try_from(made.as_nanos()).ok());
        Ok(Place {
            inode: found.ino(),
            made: made.unwrap_or_default(),
            device: found.dev(),
            ..Place::default()
        })
    }

    /// From now on a small synced write that finds the disk idle is held back until [`carry_out`](Self::carry_out),
    /// [`hand_over`](Self::hand_over) or the next operation on the log's files, which hands it over.
    pub fn hold_writes(&mut self) {
        self.holds = true;
    }

    /// Whether a write is being held back.
    #[must_use]
    pub fn holds_write(&self) -> bool {
        self.held.is_some()
    }

    /// Carries out the write that is held back, on this thread: that saves a wake there and one back, which together take as
    /// long as the write on a fast disk.
    pub fn carry_out(&mut self) {
        if let Some(job) = self.held.take() {
            self.fetched.push_back(work::perform(&self.writer.writer, job));
        }
    }

    /// The write that is held back goes to the disk's thread, before anything that comes later.
    pub fn hand_over(&mut self) {
        if let Some(job) = self.held.take() {
            self.writer.queue.push(job);
        }
    }

    /// What is to be done, with its file; an unknown file is refused in due order, like any other failure.
    fn work(&mut self, op: Op) -> Work {
        match op {
            Op::Create {
                name,
                bytes,
                within,
                resumes,
            } => Work::Create {
                name,
                bytes,
                within,
                resumes,
            },
            Op::Write {
                file,
                offset,
                buffers,
                sync,
            } => self.with(file, |file| Work::Write {
                file,
                offset,
                buffers,
                sync,
            }),
            Op::Read { file, offset, bytes } => self.with(file, |file| Work::Read { file, offset, bytes }),
            Op::Close { file } => match self.files.remove(&file) {
                Some(file) => Work::Close(file),
                None => self.unknown(file),
            },
            Op::MakeDirectory { .. }
            | Op::Open { .. }
            | Op::Rename { .. }
            | Op::Remove { .. }
            | Op::SyncDirectory { .. }
            | Op::List { .. } => Work::Names(op),
        }
    }

    fn with(&self, file: FileId, work: impl FnOnce(Arc<OpenFile>) -> Work) -> Work {
        match self.files.get(&file) {
            Some(open) => work(Arc::clone(open)),
            None => self.unknown(file),
        }
    }

    fn unknown(&self, file: FileId) -> Work {
        Work::Refuse(DiskError {
            what: format!("use file {} of {}", file.0, self.name()),
            kind: ErrorKind::NotFound,
            message: "it is not open".to_owned(),
        })
    }

    /// The completion an answer stands for; a new file gets its id here.
    fn completion(&mut self, answer: Answer) -> Completion {
        self.completed += 1;
        self.in_order -= usize::from(answer.in_order);
        let result = answer.result.map(|effect| match effect {
            Effect::Done(done) => done,
            Effect::Opened(file) => {
                self.opened = self.opened.wrapping_add(1);
                let (id, bytes) = (FileId(self.opened), file.bytes());
                self.files.insert(id, file);
                Done::Opened(id, bytes)
            }
        });
        Completion {
            id: answer.id,
            result,
        }
    }
}

impl Disk for OsDisk {
    fn submit(&mut self, op: Op) -> OpId {
        self.submitted += 1;
        let id = OpId(self.submitted);
        let work = self.work(op);
        if let Some(thread) = work.goes_to() {
            let worker = match thread {
                Thread::Aside => &self.aside,
                Thread::Reads => &self.reads,
            };
            worker.queue.push(Job { id, work });
            return id;
        }
        self.in_order += 1;
        if self.holds && self.in_order == 1 && work.is_small_write() {
            self.held = Some(Job { id, work });
        } else {
            self.hand_over();
            self.writer.queue.push(Job { id, work });
        }
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        if self.fetched.is_empty() {
            self.answers.fetch(&mut self.fetched);
        }
        let answer = self.fetched.pop_front()?;
        Some(self.completion(answer))
    }

    fn wait(&mut self) -> Option<Completion> {
        if self.submitted == self.completed {
            return None;
        }
        self.hand_over();
        if self.fetched.is_empty() {
            self.answers.wait(&mut self.fetched);
        }
        self.poll()
    }

    fn cool(&mut self, file: FileId) {
        if let Some(file) = self.files.get(&file) {
            let work = Work::Cool(Arc::clone(file));
            self.reads.queue.push(Job { id: OpId(0), work });
        }
    }

    fn name(&self) -> String {
        self.directory.root().display().to_string()
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        Box::new(Reader::new(self.directory.clone(), name.to_owned()))
    }
}

impl fmt::Debug for OsDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsDisk")
            .field("path", &self.directory.root())
            .field("under_way", &(self.submitted - self.completed))
            .finish_non_exhaustive()
    }
}

impl Drop for OsDisk {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// A thread and what it has to do; dropping it lets it finish that and waits for it.
struct Worker {
    queue: Arc<Queue>,
    /// What it works with, while nobody else does.
    writer: Arc<Mutex<Writer>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    fn start(
        name: &str,
        work: fn(&Mutex<Writer>, &Queue, &Answers),
        directory: &Directory,
        answers: &Arc<Answers>,
        written: &Arc<AtomicU64>,
    ) -> Result<Self, LogError> {
        let queue = Arc::new(Queue::default());
        let (its_queue, its_answers) = (Arc::clone(&queue), Arc::clone(answers));
        let writer = Arc::new(Mutex::new(Writer::new(directory.clone(), Arc::clone(written))));
        let its_writer = Arc::clone(&writer);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&its_writer, &its_queue, &its_answers))
            .map_err(|e| failed(format!("start thread {name}"), &e))?;
        Ok(Self {
            queue,
            writer,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the disk has panicked");
        }
    }
}

/// An error as a completion reports it. Without descriptors there is no room for another file: that passes, too.
fn failed(what: String, error: &io::Error) -> DiskError {
    DiskError {
        what,
        kind: if reserve::is_out_of_descriptors(error) {
            ErrorKind::QuotaExceeded
        } else {
            error.kind()
        },
        message: error.to_string(),
    }
}

/// Independent of where the process goes later.
fn absolute(path: &Path) -> Result<PathBuf, LogError> {
    let found = std::path::absolute(path);
    Ok(found.map_err(|e| failed(format!("find data directory \"{}\"", path.display()), &e))?)
}

fn check_directory(path: &Path) -> Result<(), LogError> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(LogError::Wrong(format!(
            "{shown} is not a directory: name the data directory that `kontiki init` has made"
        ))),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(LogError::Wrong(format!(
            "there is no data directory {shown}: check its name; a new one is made by `kontiki init`, or \
             by `Config::bootstrap` from a program"
        ))),
        Err(e) => Err(failed(format!("look at data directory {shown}"), &e).into()),
    }
}

/// Takes the directory for this process. The lock ends with the file, hence also when the process is killed.
fn lock(path: &Path) -> Result<File, LogError> {
    let name = path.join(LOCK);
    let error = |e: &io::Error| failed(format!("lock {}", name.display()), e);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&name).map_err(|e| error(&e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &file)),
        Err(TryLockError::Error(e)) => return Err(error(&e).into()),
    }
    // Only to help whoever finds it locked: it may fail where the disk is full, and then says nothing.
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
    if let Err(e) = written {
        tracing::debug!(file = %name.display(), error = %e, "the lock file does not name this process");
    }
    Ok(file)
}

fn in_use(path: &Path, lock: &File) -> LogError {
    let mut text = String::new();
    let holder = match lock
        .take(16)
        .read_to_string(&mut text)
        .map(|_| text.trim().parse::<u32>())
    {
        Ok(Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    };
    LogError::Wrong(format!(
        "data directory {} is in use by a running node{holder}: stop that one first, or give this node \
         a directory of its own",
        path.display()
    ))
}

/// Makes a directory and the parents it lacks; each new name is synced where it stands, and that of the directory if it was there:
/// whoever has made it, or an earlier attempt of this one, may not have done so.
fn make_directories(path: &Path) -> Result<(), LogError> {
    if path.exists() {
        return sync_name(path);
    }
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    for new in missing.into_iter().rev() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(new);
        made.map_err(|e| failed(format!("make directory {}", new.display()), &e))?;
        sync_name(new)?;
    }
    Ok(())
}

/// Makes a name durable in the directory where it stands. One that this process may not open others have made, and their names with it.
fn sync_name(path: &Path) -> Result<(), LogError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match File::open(parent).and_then(|p| p.sync_all()) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            tracing::warn!(
                "the name of {} is not synced: {} may not be opened: {e}",
                path.display(),
                parent.display()
            );
            Ok(())
        }
        synced => Ok(synced.map_err(|e| failed(format!("sync directory {}", parent.display()), &e))?),
    }
}
