//! Who is let in: a bounded number of handshakes at a time, and one connection of a peer for each purpose, the newest.

use crate::transport::Shared;
use std::{cell::Cell, rc::Rc};
use tokio::sync::Notify;

/// One of the places for handshakes; given back when dropped.
pub(crate) struct Place(Rc<Shared>);

impl Place {
    pub(crate) fn take(shared: &Rc<Shared>) -> Option<Self> {
        let taken: &Cell<usize> = &shared.handshakes;
        (taken.get() < shared.limits.handshakes_max).then(|| {
            taken.set(taken.get() + 1);
            Self(shared.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get().saturating_sub(1));
    }
}

/// A connection that a peer has made; it is told when a newer one takes its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted(Rc<Notify>);

impl Admitted {
    /// A newer one has come.
    pub(crate) fn replace(&self) {
        self.0.notify_one();
    }

    /// Waits until a newer one has come.
    pub(crate) async fn replaced(&self) {
        self.0.notified().await;
    }

    /// Whether these are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}
