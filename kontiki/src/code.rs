//! The one table of error codes: what the library, HTTP and exit codes have in common.
//!
//! Invariants: a name, once released, keeps its meaning; each name occurs once.

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident, $name:literal, $http:literal, $exit:literal;)*) => {
        /// The kind of a failure. Stable: to be matched on, while texts are for people and free to change.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// Its name, as HTTP problems and logs have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$code => $http,)* }
            }

            /// What a process that fails with it exits with: 1, unless a script needs to tell it apart.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$code => $exit,)* }
            }

            /// The code with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$code),)* _ => None }
            }
        }
    };
}

codes! {
    /// A setting is not allowed.
    Config, "config", 500, 1;
    /// The cluster key is missing or cannot be used.
    ClusterKey, "cluster_key", 500, 1;
    /// The data directory is missing, in use, or belongs to another node or cluster.
    Directory, "directory", 500, 1;
    /// Something that was acknowledged is damaged on this node's disk.
    Damaged, "damaged", 500, 1;
    /// The operating system refused something.
    Io, "io", 500, 1;
    /// An entry or a batch is above its limit.
    TooLarge, "too_large", 413, 1;
    /// An entry does not come back from its encoding as it went in.
    NotRoundTrip, "not_round_trip", 422, 1;
    /// An entry of the log is not of the type it is read as.
    Decode, "decode", 500, 1;
    /// The log does not end where the append expects it to.
    Mismatch, "mismatch", 409, 1;
    /// The node asked for it does not lead (any more).
    NotLeader, "not_leader", 503, 1;
    /// There is no leader.
    NoLeader, "no_leader", 503, 1;
    /// Another leader's record was committed in its place.
    Superseded, "superseded", 503, 1;
    /// Too much is in flight.
    Overloaded, "overloaded", 503, 1;
    /// The disk of the node that was asked is full.
    DiskFull, "disk_full", 507, 1;
    /// It is not known what became of an append.
    UnknownOutcome, "unknown_outcome", 504, 5;
    /// A command was applied, and what it gave back is lost.
    OutputLost, "output_lost", 500, 1;
    /// A session is not known (any more).
    SessionExpired, "session_expired", 410, 5;
    /// A session no longer remembers what became of an append.
    SessionStale, "session_stale", 409, 5;
    /// The state machine gave no answer to a query.
    Query, "query", 422, 1;
    /// The entries are gone: the log has been trimmed.
    Compacted, "compacted", 410, 1;
    /// A request did not come whole in time.
    RequestTimeout, "request_timeout", 408, 1;
    /// It took too long.
    Timeout, "timeout", 504, 1;
    /// The node's state machine differs from the others': it answers nothing.
    Quarantined, "quarantined", 503, 1;
    /// The node has stopped.
    Stopped, "stopped", 503, 1;
    /// A command was used in a way it does not have.
    Usage, "usage", 400, 2;
    /// A request is not understood.
    BadRequest, "bad_request", 400, 1;
    /// A request comes from where none are taken.
    Forbidden, "forbidden", 403, 1;
    /// There is no such thing.
    NotFound, "not_found", 404, 1;
    /// There is such a thing, but not for this method.
    MethodNotAllowed, "method_not_allowed", 405, 1;
    /// Entries do not come in this media type.
    UnsupportedMediaType, "unsupported_media_type", 415, 1;
    /// No node could be reached.
    Unreachable, "unreachable", 503, 1;
    /// A signal ended it.
    Interrupted, "interrupted", 503, 130;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_code() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
            assert!((400..600).contains(&code.http_status()) && code.exit_code() > 0);
        }
        assert_eq!(Code::from_name("nonsense"), None);
    }
}
