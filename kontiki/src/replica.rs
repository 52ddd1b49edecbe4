//! The raft thread: receives, decides, writes and sends on one thread, and never waits for any of it.
//!
//! It gives the node a turn as soon as the transport has delivered what a datagram brought, whenever it is woken, and when the
//! time has come that the node wants; in a network of this process callers and the raft threads of other nodes give turns as well
//! (`local`). Invariants: it sleeps no longer than the node wants to; what the node owned is closed by this thread, before it ends.

use crate::{
    network::{Network, Wired},
    shared::Shared,
    turns::{Core, End, Next},
};
use kontiki_node::{Greeting, Input};
use kontiki_transport::{Sink, TransportEvent};
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, Sleep, sleep_until},
};

/// The longest sleep; nothing depends on it.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Where a node's core stands: with its raft thread alone, or where others can give it turns, too.
pub(crate) trait Place {
    type Network: Network;

    /// Puts the core there.
    fn put(&self, core: Core<Self::Network>);

    /// Gives the core a turn, as its raft thread does; true as from [`Core::run`]. Not to be called from within one.
    fn run(&self) -> bool {
        self.with(Core::run) == Some(true)
    }

    /// Does something with the core, if it is there. Not to be called from within.
    fn with<R>(&self, act: impl FnOnce(&mut Core<Self::Network>) -> R) -> Option<R>;

    /// Takes the core away, for good.
    fn take(&self) -> Option<Core<Self::Network>>;
}

/// With the raft thread alone, as sockets need it.
pub(crate) type OwnPlace = RefCell<Option<Core<Wired>>>;

impl Place for OwnPlace {
    type Network = Wired;

    fn put(&self, core: Core<Wired>) {
        *self.borrow_mut() = Some(core);
    }

    fn with<R>(&self, act: impl FnOnce(&mut Core<Wired>) -> R) -> Option<R> {
        self.borrow_mut().as_mut().map(act)
    }

    fn take(&self) -> Option<Core<Wired>> {
        self.borrow_mut().take()
    }
}

/// A node at work, as its raft thread sees it.
pub(crate) struct Replica<P: Place> {
    shared: Arc<Shared>,
    place: P,
}

impl<P: Place> Replica<P> {
    pub(crate) fn new(shared: Arc<Shared>, place: P) -> Self {
        Self { shared, place }
    }

    /// Has the core from now on.
    pub(crate) fn put(&self, core: Core<P::Network>) {
        self.place.put(core);
    }

    /// Lives until it is told to stop or stops itself.
    pub(crate) async fn live(&self) -> End {
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            self.run();
            let mut next = self.place.with(Core::next);
            if matches!(next, Some(Next::Wake)) {
                // By those who were woken already, if they come to it; what was sent in the turn goes out meanwhile.
                yield_now().await;
                next = self.place.with(|core| {
                    core.wake_rest();
                    core.next()
                });
            }
            let (until, earlier) = match next {
                Some(Next::Wake) => continue,
                Some(Next::Sleep { until, earlier }) => (until, earlier),
                Some(Next::Write) => {
                    // What the turn has sent goes out first: the disks of the others are to work beside this one.
                    yield_now().await;
                    self.place.with(Core::write);
                    continue;
                }
                Some(Next::End(end)) => return end,
                None => return End::gone(),
            };
            if let (Some(until), true) = (until, earlier) {
                let sleep = self.shared.until(until).min(SLEEP_MAX);
                timer.as_mut().reset(Instant::now() + sleep);
            }
            if woken(&self.shared.signal, until.map(|_| timer.as_mut())).await {
                self.place.with(Core::rang);
            }
        }
    }

    /// Answers everyone who still waits, leaves the network, and closes all that the node owned.
    pub(crate) async fn leave(&self, end: &End) {
        let mut core = self.place.take();
        if let Some(core) = &mut core {
            core.leave(end);
        }
        self.shared.close(&end.why, end.by_itself);
        if let (Some(core), true) = (&mut core, end.farewell) {
            core.network().farewell().await;
        }
    }

    /// Gives the node a turn. Not to be called from within one.
    fn run(&self) {
        while self.place.run() {
            self.shared.wait_while_paused();
        }
    }
}

impl<P: Place> Drop for Replica<P> {
    fn drop(&mut self) {
        // After a panic of the raft thread it is still there, and others may hold on to the place.
        drop(self.place.take());
    }
}

/// Where the transport delivers. It does not keep the node alive.
pub(crate) struct Door {
    replica: Weak<Replica<OwnPlace>>,
    inbox: Rc<RefCell<Vec<Input>>>,
}

impl Door {
    pub(crate) fn new(replica: &Rc<Replica<OwnPlace>>, inbox: Rc<RefCell<Vec<Input>>>) -> Self {
        let replica = Rc::downgrade(replica);
        Self { replica, inbox }
    }
}

impl Sink for Door {
    fn deliver(&self, event: TransportEvent) {
        let Some(replica) = self.replica.upgrade() else {
            return;
        };
        let mut inbox = self.inbox.borrow_mut();
        match event {
            TransportEvent::Packet(packet) => inbox.push(Input::Packet(packet)),
            TransportEvent::Dropped(peer) => inbox.push(Input::SendDropped(peer)),
            TransportEvent::Greeted {
                peer,
                incarnation,
                life,
            } => inbox.push(Input::Greeted(Box::new(Greeting {
                peer,
                incarnation,
                life: *life,
            }))),
            TransportEvent::Refused(peer, why) => inbox.push(Input::RefusedBy { peer, why }),
            TransportEvent::Gone(peer) => inbox.push(Input::PeerGone(peer)),
            TransportEvent::Connected(peer, _) => {
                tracing::info!(node = %replica.shared.node, %peer, "connected")
            }
            TransportEvent::Disconnected(peer, why) => {
                tracing::info!(node = %replica.shared.node, %peer, why, "disconnected");
            }
        }
    }

    fn settle(&self) {
        if let Some(replica) = self.replica.upgrade() {
            replica.run();
            if replica.place.with(Core::wants_loop) == Some(true) {
                replica.shared.signal.notify_one();
            }
        }
    }
}

/// Waits for the signal, or for the timer if there is one; true if that has rung.
///
/// Where nothing has to be waited for, the network gets its turn all the same: a signal that is there again each time, as
/// when clients ask without a pause, would otherwise keep this thread from every packet and every timer of the transport.
async fn woken(signal: &Notify, mut timer: Option<Pin<&mut Sleep>>) -> bool {
    let mut signal = pin!(signal.notified());
    let mut waited = false;
    let rung = poll_fn(|context| {
        let rung = timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        if rung || signal.as_mut().poll(context).is_ready() {
            return Poll::Ready(rung);
        }
        waited = true;
        Poll::Pending
    })
    .await;
    if !waited {
        yield_now().await;
    }
    rung
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::{
        runtime::{self, LocalOptions},
        task::spawn_local,
    };

    #[test]
    fn the_network_has_its_turn_however_often_clients_ask() {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let turns = Rc::new(Cell::new(0));
        let count = turns.clone();
        runtime.block_on(async move {
            spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    yield_now().await;
                }
            });
            let asks = spawn_local(async {
                let signal = Notify::new();
                for _ in 0..100 {
                    signal.notify_one();
                    assert!(!woken(&signal, None).await);
                }
            });
            asks.await.unwrap();
        });
        assert!(turns.get() >= 50, "{} turns", turns.get());
    }

    #[test]
    fn a_timer_rings_whether_there_is_a_signal_or_not() {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let signal = Notify::new();
            assert!(woken(&signal, Some(pin!(sleep_until(Instant::now())))).await);
            let mut timer = pin!(sleep_until(Instant::now()));
            signal.notify_one();
            while !woken(&signal, Some(timer.as_mut())).await {
                signal.notify_one();
            }
        });
    }
}
