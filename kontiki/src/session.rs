//! Sessions that a program keeps itself, so that what it appends takes effect once even if it asks another node.
//!
//! What is appended without such a session goes through the node's own, which helps as long as this node lives. Invariant:
//! a key names one append; whoever makes keys never uses one for another.

use crate::{Error, owner::Node, request::State};
use kontiki_node::{Ask, Reply};
use kontiki_wire::InSession;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How far below a number the lowest without an answer is taken to be, unless it is said.
const WINDOW: u64 = 1023;

/// Names an append of a session: sent again under the same key, to any node, it takes effect once, and every attempt is
/// answered like the first (dissertation §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct SessionKey {
    /// The session, as [`OpenSession`] gave it; never zero.
    pub session: u64,
    /// The number of the append within the session, from 1. Of appends that are out at once, any may take effect first.
    pub sequence: u64,
    /// The lowest number whose answer is still wanted, from 1 to `sequence`: what is below is forgotten and takes no effect any
    /// more.
    pub settled: u64,
}

impl SessionKey {
    /// The key of an append. Answers more than 1023 numbers back are not wanted any more, unless
    /// [`settled`](Self::settled) says more.
    #[must_use]
    pub fn new(session: u64, sequence: u64) -> Self {
        Self {
            session,
            sequence,
            settled: sequence.saturating_sub(WINDOW).max(1),
        }
    }

    /// The same, saying which is the lowest number whose answer is still wanted; at most the append's own counts.
    #[must_use]
    pub fn settled(mut self, settled: u64) -> Self {
        self.settled = settled.clamp(1, self.sequence.max(1));
        self
    }
}

impl From<SessionKey> for kontiki_wire::Session {
    fn from(key: SessionKey) -> Self {
        let SessionKey {
            session,
            sequence,
            settled,
        } = key;
        Self::In(InSession {
            session,
            sequence,
            settled,
        })
    }
}

/// A session that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Session {
    /// Its name.
    pub id: u64,
    /// How long it may be silent before it is forgotten, by the time that passes for the cluster under its leaders.
    pub ttl: Duration,
}

/// A session being opened.
#[derive(Debug)]
#[must_use = "the name of the session is known only to its future"]
pub struct OpenSession {
    state: State,
}

impl OpenSession {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            state: State::new(node.submit(Ask::OpenSession)),
        }
    }
}

impl Future for OpenSession {
    type Output = Result<Session, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| match reply? {
            Some(Reply::SessionOpened { session, ttl }) => Ok(Session {
                id: session,
                ttl: Duration::from_secs(ttl.into()),
            }),
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(_) | None => Err(Error::Unknown("the node ended without an answer".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_forget_what_is_far_below_unless_they_say_otherwise() {
        let settled = |key: SessionKey| key.settled;
        assert_eq!(settled(SessionKey::new(7, 1)), 1);
        assert_eq!(settled(SessionKey::new(7, 1023)), 1);
        assert_eq!(settled(SessionKey::new(7, 1025)), 2);
        assert_eq!(settled(SessionKey::new(7, 9).settled(4)), 4);
        assert_eq!(settled(SessionKey::new(7, 9).settled(10)), 9);
        assert_eq!(settled(SessionKey::new(7, 9).settled(0)), 1);
    }
}
