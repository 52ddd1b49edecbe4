//! Looking up the name of a peer, however long the resolver of the system takes.
//!
//! The resolver cannot be interrupted, and one that hangs does so for as long as it likes. A lookup therefore has a thread of
//! its own, which nothing waits for: not the end of an attempt, nor that of the transport or the process. Invariant: one
//! lookup of a peer is under way at most; an attempt that needs one meanwhile waits for the same.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, ToSocketAddrs},
    thread,
};
use tokio::sync::watch;

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a name, or why there are none.
type Found = Result<Vec<SocketAddr>, String>;

/// The lookups of one peer.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// The lookup under way, or its answer if nobody has waited for that.
    pending: RefCell<Option<watch::Receiver<Option<Found>>>>,
}

impl Resolver {
    /// The addresses of `host:port`. Dropped before it has them, it leaves the lookup to the next.
    pub(crate) async fn addresses(&self, address: &str) -> Found {
        self.addresses_by(address, by_system).await
    }

    async fn addresses_by(&self, address: &str, resolve: fn(&str) -> Found) -> Found {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let mut pending = {
            let mut pending = self.pending.borrow_mut();
            match &*pending {
                Some(lookup) => lookup.clone(),
                None => pending
                    .insert(start(address, resolve).map_err(|error| error.to_string())?)
                    .clone(),
            }
        };
        let found = match pending.wait_for(Option::is_some).await {
            Ok(found) => found.clone(),
            Err(_) => None,
        };
        // The next attempt asks anew: an address may have changed.
        self.pending.take();
        found.unwrap_or_else(|| Err("its lookup has panicked".to_owned()))
    }
}

fn start(address: &str, resolve: fn(&str) -> Found) -> io::Result<watch::Receiver<Option<Found>>> {
    let (sender, receiver) = watch::channel(None);
    let address = address.to_owned();
    thread::Builder::new()
        .name("kontiki-resolve".into())
        .spawn(move || sender.send_replace(Some(resolve(&address))))?;
    Ok(receiver)
}

fn by_system(address: &str) -> Found {
    let found = address.to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::Future,
        pin::pin,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        task::{Context, Poll, Waker},
        time::Duration,
    };
    use tokio::runtime::{Builder, LocalOptions};

    fn polled(lookup: impl Future<Output = Found>) -> Poll<Found> {
        pin!(lookup).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn resolver_that_hangs_holds_up_no_end_and_is_asked_once() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn hang(_: &str) -> Found {
            ASKED.fetch_add(1, Ordering::Relaxed);
            loop {
                thread::park();
            }
        }
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            // As the thread of a node does it.
            let runtime = Builder::new_current_thread()
                .build_local(LocalOptions::default())
                .unwrap();
            runtime.block_on(async {
                let resolver = Resolver::default();
                for _ in 0..3 {
                    assert!(polled(resolver.addresses_by("name:1", hang)).is_pending());
                }
            });
            drop(runtime);
            sender.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(120)).unwrap();
        assert!(ASKED.load(Ordering::Relaxed) <= 1);
    }

    #[test]
    fn answer_that_came_late_serves_the_next_attempt_and_no_other() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn count(_: &str) -> Found {
            let port = ASKED.fetch_add(1, Ordering::Relaxed) as u16;
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        }
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let resolver = Resolver::default();
            // Whether it is there at once or not.
            let first = polled(resolver.addresses_by("name:1", count));
            let next = resolver.addresses_by("name:1", count).await.unwrap()[0].port();
            assert_eq!(next, u16::from(first.is_ready()));
            assert_eq!(
                resolver.addresses_by("name:1", count).await.unwrap()[0].port(),
                next + 1
            );
            assert_eq!(resolver.addresses("127.0.0.1:7").await.unwrap()[0].port(), 7);
        });
    }
}
