//! A peer's connections: one for each purpose, the newest.

use std::rc::Rc;
use tokio::sync::Notify;

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
