//! The handle without async: each call waits on the thread that makes it.

use crate::{
    Appended, Applied, Consistency, Entries, Entry, Error, Expect, Handle, IntoEntry, LogEntry,
    MachineHandle, Session, SessionKey, StateMachine, Status, Tail, shared::Order,
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

/// A [`MachineHandle`] whose calls wait. Not to be used on the threads of an executor, which would stand still meanwhile.
pub struct BlockingMachine<M: StateMachine> {
    handle: MachineHandle<M>,
}

/// What is the same for each of them.
macro_rules! common_calls {
    ($blocking:ident<$parameter:ident $(: $bound:path)?>, $handle:ident) => {
        impl<$parameter $(: $bound)?> Clone for $blocking<$parameter> {
            fn clone(&self) -> Self {
                Self::new(self.handle.clone())
            }
        }

        impl<$parameter $(: $bound)?> fmt::Debug for $blocking<$parameter> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.handle.fmt(f)
            }
        }

        impl<$parameter $(: $bound)?> $blocking<$parameter> {
            pub(crate) fn new(handle: $handle<$parameter>) -> Self {
                Self { handle }
            }

            /// The same with async.
            #[must_use]
            pub fn handle(&self) -> &$handle<$parameter> {
                &self.handle
            }

            /// The same node, with another time that a call may take.
            #[must_use]
            pub fn with_timeout(&self, timeout: Duration) -> Self {
                Self::new(self.handle.with_timeout(timeout))
            }

            /// How the node is: its own view.
            #[must_use]
            pub fn status(&self) -> Status {
                self.handle.status()
            }

            /// Index of the last entry that any handle of this node was told of; see the handle's `seen`.
            #[must_use]
            pub fn seen(&self) -> u64 {
                self.handle.seen()
            }

            /// Opens a session that this program keeps itself; see the handle's `open_session`.
            ///
            /// # Errors
            /// As for an append. It does no harm to open another.
            pub fn open_session(&self) -> Result<Session, Error> {
                block_on(self.handle.open_session())
            }

            /// Waits until a leader answers, and gives the status then.
            ///
            /// # Errors
            /// [`Error::NoLeader`] or [`Error::Timeout`] if that takes longer than `timeout`.
            pub fn wait_ready(&self, timeout: Duration) -> Result<Status, Error> {
                block_on(self.handle.wait_ready(timeout))
            }

            /// Waits until the node has stopped, and gives the reason.
            #[must_use]
            pub fn stopped(&self) -> String {
                block_on(self.handle.stopped())
            }

            /// Stops the node; see the handle's `shutdown`.
            ///
            /// # Errors
            /// [`Error::Timeout`] if the disk, or whatever else it waits for, does not let go of it in time.
            pub fn shutdown(&self) -> Result<(), Error> {
                self.handle.node.end_blocking(Order::Stop)
            }

            /// Stops the node at once, and tells the peers nothing; see the handle's `abort`.
            ///
            /// # Errors
            /// As [`shutdown`](Self::shutdown).
            pub fn abort(&self) -> Result<(), Error> {
                self.handle.node.end_blocking(Order::Abort)
            }
        }
    };
}

common_calls!(BlockingHandle<T>, Handle);
common_calls!(BlockingMachine<M: StateMachine>, MachineHandle);

impl<M: StateMachine> BlockingMachine<M> {
    /// See [`MachineHandle::apply`].
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the command may have been applied.
    pub fn apply(&self, command: impl IntoEntry<M::Command>) -> Result<Applied<M::Output>, Error> {
        block_on(self.handle.apply(command))
    }

    /// See [`MachineHandle::apply_all`].
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the commands may have been applied.
    pub fn apply_all(&self, commands: &[M::Command]) -> Result<Vec<Applied<M::Output>>, Error> {
        block_on(self.handle.apply_all(commands))
    }

    /// See [`MachineHandle::apply_in`].
    ///
    /// # Errors
    /// [`Error::SessionExpired`] and [`Error::SessionStale`] if what became of earlier attempts is no longer remembered.
    /// Otherwise as [`apply`](Self::apply).
    pub fn apply_in(
        &self,
        key: SessionKey,
        command: impl IntoEntry<M::Command>,
    ) -> Result<Applied<M::Output>, Error> {
        block_on(self.handle.apply_in(key, command))
    }

    /// See [`MachineHandle::apply_all_in`].
    ///
    /// # Errors
    /// As [`apply_in`](Self::apply_in).
    pub fn apply_all_in(
        &self,
        key: SessionKey,
        commands: &[M::Command],
    ) -> Result<Vec<Applied<M::Output>>, Error> {
        block_on(self.handle.apply_all_in(key, commands))
    }

    /// See [`MachineHandle::query`].
    ///
    /// # Errors
    /// As there.
    pub fn query(&self, query: impl Borrow<M::Query>, consistency: Consistency) -> Result<M::Answer, Error> {
        block_on(self.handle.query(query, consistency))
    }
}

impl<T: LogEntry> BlockingHandle<T> {
    /// See [`Handle::append`].
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entry may have been appended.
    pub fn append(&self, entry: impl IntoEntry<T>) -> Result<Appended, Error> {
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

    /// See [`Handle::append_in`].
    ///
    /// # Errors
    /// [`Error::SessionExpired`] and [`Error::SessionStale`] if what became of earlier attempts is no longer remembered.
    /// Otherwise as [`append_if`](Self::append_if).
    pub fn append_in(&self, key: SessionKey, expect: Expect, entries: &[T]) -> Result<Appended, Error> {
        block_on(self.handle.append_in(key, expect, entries))
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
}

/// A [`Tail`] as an iterator that waits for each entry.
#[derive(Debug)]
pub struct BlockingTail<T> {
    tail: Tail<T>,
}

impl<T: LogEntry> BlockingTail<T> {
    /// See [`Tail::next_index`].
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.tail.next_index()
    }
}

impl<T: LogEntry> Iterator for BlockingTail<T> {
    type Item = Result<Entry<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(poll_fn(|context| Pin::new(&mut self.tail).poll_next(context)))
    }
}

thread_local! {
    /// Wakes this thread. Always the same one: a node knows by it who asks again.
    static WAKER: Waker = waker();
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Runs a future on this thread, which sleeps while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // Where the thread is ending it has no such things any more.
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| waker());
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
