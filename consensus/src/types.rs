//! The numbers and names everything else is written in.
//!
//! Each is a type of its own, so that an index cannot stand where a term belongs, nor a user's
//! position where a Raft index does. Invariant: none of them ever wraps; all grow from zero.

use ::core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// Zero: before the first.
            pub const ZERO: Self = Self(0);

            /// The one after this one; stays at the largest value rather than wrapping.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The one before this one; stays at zero rather than wrapping.
            #[must_use]
            pub const fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A term: Raft's logical clock (paper §5.1). At most one leader per term.
    Term, "t"
);
number!(
    /// A *Raft* index: the place of a record in the replicated log, from 1. Internal; users see [`Position`].
    Index, "i"
);
number!(
    /// The index users see: the place of an entry among the users' entries, dense, from 1.
    Position, "p"
);
number!(
    /// The name of a server. Zero is no server.
    NodeId, "n"
);
number!(
    /// Names one write to disk. Completions name the write and not an index, so that after a
    /// truncation a late completion can never cover a new entry.
    WriteId, "w"
);
number!(
    /// Names one read-index request of this node.
    ReadId, "r"
);
number!(
    /// A heartbeat round of a leader; never reused within a term (dissertation §6.4).
    Round, "h"
);
number!(
    /// Drawn at random when a data directory is made: tells a wiped node from the one it replaces.
    Incarnation, "x"
);

number!(
    /// The mark of a server that lost something it had promised: drawn at random for each loss, so that what was
    /// said about one loss is never taken for word about another. Zero is no mark.
    SuspectMark, "s"
);

/// One Raft group. There is one today; the field is in every format so that many can share a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct GroupId(pub u32);

/// Monotonic nanoseconds since the process started. Not a date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The beginning.
    pub const ZERO: Self = Self(0);
    /// Later than everything.
    pub const MAX: Self = Self(u64::MAX);

    /// This much later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// A span of monotonic time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub u64);

impl Duration {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// Index and term of a record: two logs that hold the same one are equal up to it (Log Matching, §5.3).
///
/// The order is the one that elections use (§5.4.1): the later term first, then the longer log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term the record was made in.
    pub term: Term,
    /// Its Raft index.
    pub index: Index,
}

impl LogId {
    /// Before the first record.
    pub const ZERO: Self = Self {
        term: Term::ZERO,
        index: Index::ZERO,
    };

    /// The log id of `index` in `term`.
    #[must_use]
    pub const fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.index, self.term)
    }
}

/// What Figure 2 calls `currentTerm` and `votedFor`, and whether both can be relied on: durable before anything that
/// depends on it leaves the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The latest term this server has seen.
    pub term: Term,
    /// The candidate that got this server's vote in `term`.
    pub vote: Option<NodeId>,
    /// The mark of a loss that this server has not made up for; zero if it knows of none.
    pub suspect: SuspectMark,
}
