//! The handle: how a program uses a node. Every node takes every call and forwards to the leader what is for it.

use crate::{
    Append, BlockingHandle, Consistency, Error, Expect, LogEntry, Read, Status, Tail,
    request::Wanted,
    shared::{Limits, Order, STOP_MAX, Shared, lock},
};
use bytes::Bytes;
use kontiki_consensus::Position;
use kontiki_node::Ask;
use kontiki_wire::{Payload, Session};
use std::{
    borrow::Borrow,
    fmt,
    marker::PhantomData,
    ops::RangeBounds,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// A node, for a program to use: cheap to clone, usable from any thread, on any executor and on none.
///
/// When the last handle is dropped the node stops, without anybody waiting for that; [`shutdown`](Self::shutdown) waits.
pub struct Handle<T> {
    node: Arc<Owner>,
    timeout: Duration,
    _entry: PhantomData<fn(T) -> T>,
}

/// The handles of a node together: they own its thread.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            timeout: self.timeout,
            _entry: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("node", &self.shared().node)
            .finish_non_exhaustive()
    }
}

impl<T> Handle<T> {
    pub(crate) fn new(shared: Arc<Shared>, thread: thread::JoinHandle<()>) -> Self {
        let timeout = shared.limits.request_timeout;
        let node = Arc::new(Owner {
            shared,
            thread: Mutex::new(Some(thread)),
        });
        Self {
            node,
            timeout,
            _entry: PhantomData,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.node.shared
    }

    /// The same node, with another time that a call may take.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The same without async: each call waits on the calling thread.
    #[must_use]
    pub fn blocking(&self) -> BlockingHandle<T> {
        BlockingHandle::new(self.clone())
    }

    /// How the node is: its own view, which costs the node nothing and asks nobody.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = self.shared();
        shared.status().status(shared.node, shared.cluster)
    }

    /// Waits until the node has stopped, by itself or because it was shut down, and gives the reason.
    pub async fn stopped(&self) -> String {
        self.shared().stopped().await
    }

    /// Freezes the node, or lets it go on: for trying out what the others then do. It behaves as if its process were
    /// stopped: it neither answers nor receives. Whoever waits for it, or asks it meanwhile, is answered at once.
    pub fn pause(&self, paused: bool) {
        self.shared()
            .order(if paused { Order::Pause } else { Order::Run });
    }

    /// Stops the node: everyone who waits is answered, the peers are told, and all its threads have ended when this
    /// returns. Takes at most some seconds; does nothing more if it has stopped already.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the disk does not let go of it in time.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.end(Order::Stop).await
    }

    /// Stops the node at once, and tells the peers nothing: for trying out what they then do. What is acknowledged is
    /// safe, as always.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the disk does not let go of it in time.
    pub async fn abort(&self) -> Result<(), Error> {
        self.end(Order::Abort).await
    }

    /// Ends the node without blocking the executor: a thread waits, since no executor is known that could tell the time.
    async fn end(&self, order: Order) -> Result<(), Error> {
        self.shared().order(order);
        let (sender, ended) = oneshot::channel();
        let node = self.node.clone();
        let waiter = thread::Builder::new().name("kontiki-stop".into()).spawn(move || {
            // Whoever waited may have gone meanwhile.
            let _ = sender.send(node.wait());
        });
        let waiter = waiter.map_err(|error| Error::Io(format!("cannot start a thread: {error}")))?;
        let result = ended.await.unwrap_or(Err(Error::Timeout));
        // It has nothing left to do.
        let _ = waiter.join();
        result
    }

    pub(crate) fn end_blocking(&self, order: Order) -> Result<(), Error> {
        self.shared().order(order);
        self.node.wait()
    }
}

impl Owner {
    /// Waits for the thread to end, and joins it.
    fn wait(&self) -> Result<(), Error> {
        if !self.shared.wait_ended() {
            tracing::error!(node = %self.shared.node, seconds = STOP_MAX.as_secs(), "the node did not stop in time");
            return Err(Error::Timeout);
        }
        if let Some(thread) = lock(&self.thread).take() {
            // What it panicked with, if it did, is the reason it gave for stopping.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl<T: LogEntry> Handle<T> {
    /// Appends an entry. The future resolves once a majority has it on disk; the append goes on if it is dropped.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entry may have been appended.
    pub fn append(&self, entry: impl Borrow<T>) -> Append {
        let limits = &self.shared().limits;
        let payload = entry.borrow().encode().and_then(|bytes| {
            check_entry(limits, bytes.len())?;
            Ok(Payload::one(bytes, T::CODEC))
        });
        self.submit(Expect::Any, payload)
    }

    /// Appends entries next to each other, all or none.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the entries may have been appended.
    pub fn append_all(&self, entries: &[T]) -> Append {
        self.append_if(Expect::Any, entries)
    }

    /// Appends entries next to each other, all or none, if the log ends as expected; without entries it only finds out
    /// whether it does.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the log does not end as expected, and where it does end. [`Error::outcome`] says whether
    /// the entries may have been appended.
    pub fn append_if(&self, expect: Expect, entries: &[T]) -> Append {
        self.submit(expect, payload(&self.shared().limits, entries))
    }

    fn submit(&self, expect: Expect, payload: Result<Payload, Error>) -> Append {
        let submit = |payload| {
            self.shared().submit(
                Ask::Append {
                    payload,
                    expect: expect.into(),
                    session: Session::None,
                },
                self.timeout,
            )
        };
        Append::new(payload.and_then(submit))
    }

    /// Reads the entries of a range of indexes, as many as one read may give (`read_bytes_max`).
    ///
    /// # Errors
    /// [`Error::NoLeader`] or [`Error::Timeout`] if the read could not be confirmed by a majority in time;
    /// [`Error::Decode`] if the first entry is not a `T`; what stands before a later one is read.
    pub fn read(&self, range: impl RangeBounds<u64>, consistency: Consistency) -> Read<T> {
        let wanted = Wanted::of(range, self.shared().limits.read_bytes_max);
        self.ask(wanted, consistency, false, self.timeout)
    }

    pub(crate) fn ask(
        &self,
        wanted: Wanted,
        consistency: Consistency,
        wait: bool,
        timeout: Duration,
    ) -> Read<T> {
        let ask = Ask::Read {
            from: Position(wanted.from),
            to: Position(wanted.to),
            bytes_max: wanted.bytes_max,
            consistency,
            wait,
        };
        Read::new(self.shared().submit(ask, timeout), wanted)
    }

    /// All entries from index `from` on, those to come as they are committed. No more is read than is taken.
    #[must_use]
    pub fn tail(&self, from: u64) -> Tail<T> {
        Tail::new(self.clone(), from)
    }

    /// Waits until a leader answers, and gives the status then.
    ///
    /// # Errors
    /// [`Error::NoLeader`] or [`Error::Timeout`] if that takes longer than `timeout`.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<Status, Error> {
        // Nothing stands there, so nothing is read; but a leader must have confirmed that.
        self.with_timeout(timeout)
            .read(u64::MAX.., Consistency::Linearizable)
            .await?;
        Ok(self.status())
    }
}

fn check_entry(limits: &Limits, bytes: usize) -> Result<(), Error> {
    check("an entry", bytes, limits.entry_bytes_max, "entry_bytes_max")
}

fn check(what: &'static str, bytes: usize, bytes_max: usize, limit: &'static str) -> Result<(), Error> {
    let too_large = || Error::TooLarge {
        what,
        bytes: bytes as u64,
        bytes_max: bytes_max as u64,
        limit,
    };
    (bytes <= bytes_max).then_some(()).ok_or_else(too_large)
}

/// The entries of one append, as one record.
fn payload<T: LogEntry>(limits: &Limits, entries: &[T]) -> Result<Payload, Error> {
    let mut encoded: Vec<Bytes> = Vec::with_capacity(entries.len());
    let mut bytes = 0usize;
    for entry in entries {
        let entry = entry.encode()?;
        check_entry(limits, entry.len())?;
        // What each takes beside itself; see the field of the configuration.
        bytes = bytes.saturating_add(entry.len()).saturating_add(size_of::<u32>());
        encoded.push(entry);
    }
    if let [entry] = &mut encoded[..] {
        return Ok(Payload::one(std::mem::take(entry), T::CODEC));
    }
    check("a batch", bytes, limits.batch_bytes_max, "batch_bytes_max")?;
    let too_large = || Error::TooLarge {
        what: "a batch",
        bytes: bytes as u64,
        bytes_max: limits.batch_bytes_max as u64,
        limit: "batch_bytes_max",
    };
    Payload::several(&encoded, T::CODEC).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raw;

    fn limits() -> Limits {
        Limits {
            entry_bytes_max: 10,
            batch_bytes_max: 28,
            in_flight_bytes_max: 1000,
            read_bytes_max: 1000,
            request_timeout: Duration::from_secs(1),
        }
    }

    fn entry(bytes: usize) -> Raw {
        Raw(vec![0; bytes].into())
    }

    #[test]
    fn what_is_too_large_names_its_limit() {
        let text = |entries: &[Raw]| {
            payload(&limits(), entries)
                .map(|p| p.count)
                .map_err(|error| error.to_string())
        };
        assert_eq!(text(&[entry(10)]), Ok(1));
        assert_eq!(text(&[entry(10), entry(10)]), Ok(2));
        assert_eq!(text(&[]), Ok(0));
        assert_eq!(
            text(&[entry(11)]).unwrap_err(),
            "an entry of 11 bytes is above the limit of 10 bytes (`entry_bytes_max`)"
        );
        assert_eq!(
            text(&[entry(10), entry(10), entry(0)]).unwrap_err(),
            "a batch of 32 bytes is above the limit of 28 bytes (`batch_bytes_max`)"
        );
    }

    #[test]
    fn handles_go_everywhere() {
        fn anywhere<H: Clone + Send + Sync + 'static>() {}
        anywhere::<Handle<Raw>>();
        // The entries themselves need not be shared between threads.
        anywhere::<Handle<std::cell::Cell<u8>>>();
        fn sent<F: Send + 'static>() {}
        sent::<Append>();
        sent::<Read<Raw>>();
        sent::<Tail<Raw>>();
    }
}
