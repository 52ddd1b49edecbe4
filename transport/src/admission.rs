//! A peer's connections: one for each purpose, the newest; none with a start of it that the owner refuses.

use kontiki_wire::StartId;
use std::{cell::OnceCell, rc::Rc};
use tokio::sync::Notify;

/// A connection from or to a peer that stands; it is told when it is to end.
#[derive(Clone, Debug)]
pub(crate) struct Admitted(Rc<Standing>);

#[derive(Debug)]
struct Standing {
    /// The start of the peer that it is with.
    start: StartId,
    end: Notify,
    /// Why that start is refused, if it is.
    refused: OnceCell<String>,
}

impl Admitted {
    pub(crate) fn new(start: StartId) -> Self {
        Self(Rc::new(Standing {
            start,
            end: Notify::new(),
            refused: OnceCell::new(),
        }))
    }

    /// Another one has taken its place.
    pub(crate) fn replace(&self) {
        self.0.end.notify_one();
    }

    /// The owner refuses a start of the peer: it ends, if it is with that.
    pub(crate) fn refuse(&self, start: StartId, why: &str) {
        if self.0.start == start && self.0.refused.set(why.to_owned()).is_ok() {
            self.0.end.notify_one();
        }
    }

    /// Waits until it is to end; the reason, if its start is refused.
    pub(crate) async fn ended(&self) -> Option<String> {
        self.0.end.notified().await;
        self.0.refused.get().cloned()
    }

    /// Whether these are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}
