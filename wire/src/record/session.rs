//! What a record has to do with the session of a client (dissertation §6.3).
//!
//! A session is opened by a record of its own, whose Raft index is the session's name. That record says for how
//! long and how much is remembered: so every node forgets the same, at the same record, whatever it is configured to.

use super::{Codec, Payload};
use bytes::{Buf, BufMut, BytesMut};

/// What an append has to do with sessions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Session {
    /// Nothing: appended again, it is there twice.
    #[default]
    None,
    /// It opens a session and appends nothing.
    Open,
    /// It is one of a session's appends, and takes effect at most once.
    In(InSession),
}

/// Which append of which session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct InSession {
    /// The session: the Raft index of the record that opened it; never zero.
    pub session: u64,
    /// Its number within the session, from 1.
    pub sequence: u64,
    /// The client's lowest number without an answer, at most `sequence`: what is below need not be remembered.
    pub settled: u64,
}

impl InSession {
    /// How far the lowest number without an answer may be behind: above that a record cannot say it.
    pub const BEHIND_MAX: u64 = u32::MAX as u64;

    /// Whether the numbers can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let behind = self.sequence.checked_sub(self.settled);
        self.session > 0 && self.settled > 0 && behind.is_some_and(|n| n <= Self::BEHIND_MAX)
    }
}

/// How long and how much of a session is remembered. The record that opens a session holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// It expires when nothing was appended in it for so many seconds of the cluster's clock.
    pub ttl: u32,
    /// It takes the place of the one that would expire first when there are more than so many.
    pub sessions_max: u32,
    /// How many bytes of answers are remembered; beyond that the oldest are forgotten.
    pub answers_bytes_max: u32,
}

impl Default for SessionLimits {
    /// An hour; 2000 sessions; 256 KiB each, hence 500 MiB of memory at the very most.
    fn default() -> Self {
        Self {
            ttl: 3600,
            sessions_max: 2000,
            answers_bytes_max: 256 << 10,
        }
    }
}

impl SessionLimits {
    /// The payload of a record that opens a session.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let mut bytes = BytesMut::with_capacity(12);
        bytes.put_u32_le(self.ttl);
        bytes.put_u32_le(self.sessions_max);
        bytes.put_u32_le(self.answers_bytes_max);
        Payload {
            count: 0,
            ..Payload::one(bytes.freeze(), Codec::Bytes)
        }
    }

    /// What the payload of such a record says; `None` if it is not of that form.
    #[must_use]
    pub fn of(mut payload: &[u8]) -> Option<Self> {
        Some(Self {
            ttl: payload.try_get_u32_le().ok()?,
            sessions_max: payload.try_get_u32_le().ok()?,
            answers_bytes_max: payload.try_get_u32_le().ok()?,
        })
    }
}

/// When a record is appended, as its leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// The leader's date, ns since 1970, for people: it goes back where a clock was wrong.
    pub leader_time: u64,
    /// The cluster's clock: the seconds that leaders have seen pass, one after the other. It never goes back in the log, no
    /// date moves it, and time without a leader does not pass.
    pub clock: u32,
}
