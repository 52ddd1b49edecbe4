//! The handle without async: each call waits on the thread that makes it.

use crate::{
    Appended, Consistency, Entries, Entry, Error, Expect, Handle, LogEntry, Status, Tail, shared::Order,
};
use futures_core::Stream;
use std::{
    borrow::Borrow,
    fmt,
    future::poll_fn,
    ops::RangeBounds,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

/// A [`Handle`] whose calls wait. Not to be used on the threads of an executor, which would stand still meanwhile.
pub struct BlockingHandle<T> {
    handle: Handle<T>,
}

impl<T> Clone for BlockingHandle<T> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
        }
    }
}

impl<T> fmt::Debug for BlockingHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

impl<T> BlockingHandle<T> {
    pub(crate) fn new(handle: Handle<T>) -> Self {
        Self { handle }
    }

    /// The same with async.
    #[must_use]
    pub fn handle(&self) -> &Handle<T> {
        &self.handle
    }

    /// See [`Handle::with_timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self::new(self.handle.with_timeout(timeout))
    }

    /// See [`Handle::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// See [`Handle::stopped`].
    #[must_use]
    pub fn stopped(&self) -> String {
        block_on(self.handle.stopped())
    }

    /// See [`Handle::shutdown`].
    ///
    /// # Errors
    /// [`Error::Timeout`] if the disk does not let go of it in time.
    pub fn shutdown(&self) -> Result<(), Error> {
        self.handle.end_blocking(Order::Stop)
    }

    /// See [`Handle::abort`].
    ///
    /// # Errors
    /// [`Error::Timeout`] if the disk does not let go of it in time.
    pub fn abort(&self) -> Result<(), Error> {
        self.handle.end_blocking(Order::Abort)
    }
}

impl<T: LogEntry> BlockingHandle<T> {
    /// See [`Handle::append`].
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entry may have been appended.
    pub fn append(&self, entry: impl Borrow<T>) -> Result<Appended, Error> {
        block_on(self.handle.append(entry))
    }

    /// See [`Handle::append_all`].
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entries may have been appended.
    pub fn append_all(&self, entries: &[T]) -> Result<Appended, Error> {
        block_on(self.handle.append_all(entries))
    }

    /// See [`Handle::append_if`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the log does not end as expected. [`Error::outcome`] says whether the entries may have been
    /// appended.
    pub fn append_if(&self, expect: Expect, entries: &[T]) -> Result<Appended, Error> {
        block_on(self.handle.append_if(expect, entries))
    }

    /// See [`Handle::read`].
    ///
    /// # Errors
    /// [`Error::NoLeader`] or [`Error::Timeout`] if the read could not be confirmed by a majority in time.
    pub fn read(&self, range: impl RangeBounds<u64>, consistency: Consistency) -> Result<Entries<T>, Error> {
        block_on(self.handle.read(range, consistency))
    }

    /// See [`Handle::tail`].
    #[must_use]
    pub fn tail(&self, from: u64) -> BlockingTail<T> {
        BlockingTail {
            tail: self.handle.tail(from),
        }
    }

    /// See [`Handle::wait_ready`].
    ///
    /// # Errors
    /// [`Error::NoLeader`] or [`Error::Timeout`] if that takes longer than `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> Result<Status, Error> {
        block_on(self.handle.wait_ready(timeout))
    }
}

/// A [`Tail`] as an iterator that waits for each entry.
#[derive(Debug)]
pub struct BlockingTail<T> {
    tail: Tail<T>,
}

impl<T: LogEntry> Iterator for BlockingTail<T> {
    type Item = Result<Entry<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(poll_fn(|context| Pin::new(&mut self.tail).poll_next(context)))
    }
}

/// Runs a future on this thread, which sleeps while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
