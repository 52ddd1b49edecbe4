//! What all kinds of handles have in common: a node's thread, the time a call may take, and how a node is ended.
//!
//! Invariants: the last handle to go stops the node, without waiting for that; the thread is joined once.

use crate::{
    Consistency, Error, Raw, Read, Status,
    request::Wanted,
    shared::{Answer, Order, STOP_MAX, Shared, lock},
};
use kontiki_consensus::Position;
use kontiki_node::Ask;
use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// A node as a handle holds it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    owner: Arc<Owner>,
    pub(crate) timeout: Duration,
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

impl Node {
    pub(crate) fn new(shared: Arc<Shared>, thread: thread::JoinHandle<()>) -> Self {
        let timeout = shared.limits.request_timeout;
        let owner = Arc::new(Owner {
            shared,
            thread: Mutex::new(Some(thread)),
        });
        Self { owner, timeout }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    pub(crate) fn submit(&self, ask: Ask) -> Result<Answer, Error> {
        self.shared().submit(ask, self.timeout)
    }

    pub(crate) fn read<T>(&self, wanted: Wanted, consistency: Consistency, wait: bool) -> Read<T> {
        let ask = Ask::Read {
            from: Position(wanted.from),
            to: Position(wanted.to),
            bytes_max: wanted.bytes_max,
            consistency: consistency.ask(self.shared().seen()),
            wait,
        };
        Read::new(self.submit(ask), wanted)
    }

    pub(crate) fn status(&self) -> Status {
        let shared = self.shared();
        shared.status().status(shared.node, shared.cluster)
    }

    pub(crate) async fn wait_ready(&self, timeout: Duration) -> Result<Status, Error> {
        // Nothing stands there, so nothing is read; but a leader must have confirmed that.
        let wanted = Wanted::of(u64::MAX.., self.shared().limits.read_bytes_max);
        self.with_timeout(timeout)
            .read::<Raw>(wanted, Consistency::Linearizable, false)
            .await?;
        Ok(self.status())
    }

    /// Ends the node without blocking the executor: a thread waits, since no executor is known that could tell the time.
    pub(crate) async fn end(&self, order: Order) -> Result<(), Error> {
        self.shared().order(order);
        let (sender, ended) = oneshot::channel();
        let owner = self.owner.clone();
        let waiter = thread::Builder::new().name("kontiki-stop".into()).spawn(move || {
            // Whoever waited may have gone meanwhile.
            let _ = sender.send(owner.wait());
        });
        let waiter = waiter.map_err(|error| Error::Io(format!("cannot start a thread: {error}")))?;
        let result = ended.await.unwrap_or(Err(Error::Timeout));
        // It has nothing left to do.
        let _ = waiter.join();
        result
    }

    pub(crate) fn end_blocking(&self, order: Order) -> Result<(), Error> {
        self.shared().order(order);
        self.owner.wait()
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

/// What a program can do with a node whatever it is used for: the same calls for each kind of handle, which has a field
/// `node`, a function `of` that makes one, and the parameter named.
macro_rules! common_calls {
    ($handle:ident<$parameter:ident $(: $bound:path)?>, $blocking:ident) => {
        impl<$parameter $(: $bound)?> Clone for $handle<$parameter> {
            fn clone(&self) -> Self {
                Self::of(self.node.clone())
            }
        }

        impl<$parameter $(: $bound)?> std::fmt::Debug for $handle<$parameter> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($handle))
                    .field("node", &self.node.shared().node)
                    .finish_non_exhaustive()
            }
        }

        impl<$parameter $(: $bound)?> $handle<$parameter> {
            pub(crate) fn of(node: $crate::owner::Node) -> Self {
                Self {
                    node,
                    _of: std::marker::PhantomData,
                }
            }

            /// The same node, with another time that a call may take.
            #[must_use]
            pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
                Self::of(self.node.with_timeout(timeout))
            }

            /// The same without async: each call waits on the calling thread.
            #[must_use]
            pub fn blocking(&self) -> $crate::$blocking<$parameter> {
                $crate::$blocking::new(self.clone())
            }

            /// How the node is: its own view, which costs the node nothing and asks nobody.
            #[must_use]
            pub fn status(&self) -> $crate::Status {
                self.node.status()
            }

            /// Index of the last entry that any handle of this node was told of, by an append, a read or a query; 0 before the
            /// first. [`Consistency::AtLeast`](crate::Consistency) it, another node shows no less.
            #[must_use]
            pub fn seen(&self) -> u64 {
                self.node.shared().seen()
            }

            /// Opens a session that this program keeps itself: what is appended or applied in it under a
            /// [`SessionKey`](crate::SessionKey) takes effect once, whichever node is asked, and across restarts of this program.
            /// It is forgotten if nothing is appended in it for long.
            ///
            /// # Errors
            /// As for an append. It does no harm to open another.
            pub fn open_session(&self) -> $crate::OpenSession {
                $crate::OpenSession::new(&self.node)
            }

            /// Waits until a leader answers, and gives the status then.
            ///
            /// # Errors
            /// [`Error::NoLeader`](crate::Error::NoLeader) or [`Error::Timeout`](crate::Error::Timeout) if that takes
            /// longer than `timeout`.
            pub async fn wait_ready(&self, timeout: std::time::Duration) -> Result<$crate::Status, $crate::Error> {
                self.node.wait_ready(timeout).await
            }

            /// Waits until the node has stopped, by itself or because it was shut down, and gives the reason.
            pub async fn stopped(&self) -> String {
                self.node.shared().stopped().await
            }

            /// Freezes the node, or lets it go on: for trying out what the others then do. It behaves as if its process
            /// were stopped: it neither answers nor receives. Whoever waits for it, or asks it meanwhile, is answered at
            /// once.
            pub fn pause(&self, paused: bool) {
                use $crate::shared::Order;
                self.node
                    .shared()
                    .order(if paused { Order::Pause } else { Order::Run });
            }

            /// Stops the node: everyone who waits is answered, the peers are told, and all its threads have ended when
            /// this returns, except one that looks up the name of a peer and waits for the system's resolver. Takes at most some seconds; does nothing more if it has stopped already.
            ///
            /// # Errors
            /// [`Error::Timeout`](crate::Error::Timeout) if the disk, or whatever else it waits for, does not let go of it
            /// in time.
            pub async fn shutdown(&self) -> Result<(), $crate::Error> {
                self.node.end($crate::shared::Order::Stop).await
            }

            /// Stops the node at once, and tells the peers nothing: for trying out what they then do. What is
            /// acknowledged is safe, as always.
            ///
            /// # Errors
            /// As [`shutdown`](Self::shutdown).
            pub async fn abort(&self) -> Result<(), $crate::Error> {
                self.node.end($crate::shared::Order::Abort).await
            }
        }
    };
}

pub(crate) use common_calls;
