//! Errors: each says what went wrong, whether a write may have happened, whether trying again makes sense, and what to do.

use crate::Code;
use kontiki_log::LogError;
use kontiki_node::Failure;
use kontiki_transport::StartError;
use kontiki_wire::Refusal;
use std::path::Path;

/// Why something failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is not allowed.
    #[error("`{field}` is {value}; it must be {allowed}")]
    Config {
        /// The field of [`Config`](crate::Config).
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The cluster key is missing or cannot be used.
    #[error("{0}")]
    ClusterKey(String),
    /// The data directory is missing, in use, or belongs to another node or cluster.
    #[error("{0}")]
    Directory(String),
    /// Something that was acknowledged is damaged on this node's disk.
    #[error("{0}")]
    Damaged(String),
    /// The operating system refused something.
    #[error("{0}")]
    Io(String),
    /// An entry or a batch is above its limit. It was not sent anywhere.
    #[error("{what} of {bytes} bytes is above the limit of {bytes_max} bytes (`{limit}`)")]
    TooLarge {
        /// "an entry" or "a batch".
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
        /// The field of [`Config`](crate::Config) that sets the limit.
        limit: &'static str,
    },
    /// An entry does not come back from its encoding as it went in. It was not sent anywhere.
    #[error("a value of type {type_name} does not survive encoding: {why}")]
    NotRoundTrip {
        /// The type.
        type_name: &'static str,
        /// What was seen.
        why: String,
    },
    /// An entry of the log is not of the type it is read as.
    #[error("entry {index}, of schema {schema}, is not a {type_name}: {why}")]
    Decode {
        /// Index of the entry.
        index: u64,
        /// Its schema: a number of the program that appended it ([`Config::schema`](crate::Config::schema)).
        schema: u32,
        /// The type.
        type_name: &'static str,
        /// What was seen.
        why: String,
    },
    /// The log does not end where the append expects it to.
    #[error("the log does not end where the append expects: {}", end(*.index, *.term))]
    Mismatch {
        /// Index of the last entry; 0 if there is none.
        index: u64,
        /// The term it was appended in.
        term: u64,
    },
    /// The node taken for the leader does not lead (any more).
    #[error("the node taken for the leader does not lead{}", .leader.map_or(String::new(), |id| format!("; node {id} may")))]
    NotLeader {
        /// Who may lead.
        leader: Option<u64>,
    },
    /// There was no leader in time.
    #[error("no leader was found in time")]
    NoLeader,
    /// Another leader's record was committed in its place.
    #[error("a change of leader came before the append")]
    Superseded,
    /// Too much is in flight.
    #[error("too much is in flight already (`in_flight_bytes_max`)")]
    Overloaded,
    /// The disk of the node that was asked is full.
    #[error("the disk of node {node} is full")]
    DiskFull {
        /// The node.
        node: u64,
    },
    /// It is not known what became of an append.
    #[error("it is not known whether the append took place: {0}")]
    Unknown(String),
    /// A command was applied, and what it gave back is lost here.
    #[error("the command was applied as entry {index}, but what it gave back is lost: {why}")]
    OutputLost {
        /// Index of the command.
        index: u64,
        /// What was seen.
        why: String,
    },
    /// The session is not known (any more): it was silent for too long, or had to make room.
    #[error("the session has expired")]
    SessionExpired,
    /// The session no longer remembers what became of this append, which may have been given up by its client before.
    #[error("the session no longer remembers this append")]
    SessionStale,
    /// The state machine gave no answer to a query.
    #[error("the query was not answered: {0}")]
    Query(String),
    /// The entries are gone: the log has been trimmed, and begins later.
    #[error("the entries are gone: the log begins with entry {first}")]
    Compacted {
        /// Index of the first entry the log holds.
        first: u64,
    },
    /// It took too long.
    #[error("it was not answered in time")]
    Timeout,
    /// The node's state machine differs from the others', for the reason given: it answers nothing until it has the state
    /// of one of them.
    #[error("the node is quarantined: {0}")]
    Quarantined(String),
    /// The node has stopped, for the reason given.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

fn end(index: u64, term: u64) -> String {
    match index {
        0 => "it is empty".into(),
        _ => format!("it ends with entry {index} of term {term}"),
    }
}

/// What became of an append that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Certainly nothing was appended, and nothing will be.
    NotApplied,
    /// It may have been appended, or may still be.
    Unknown,
    /// It was appended; only what it gave back is missing.
    Applied,
}

impl Error {
    /// Its kind, to be matched on.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Config { .. } => Code::Config,
            Self::ClusterKey(_) => Code::ClusterKey,
            Self::Directory(_) => Code::Directory,
            Self::Damaged(_) => Code::Damaged,
            Self::Io(_) => Code::Io,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::NotRoundTrip { .. } => Code::NotRoundTrip,
            Self::Decode { .. } => Code::Decode,
            Self::Mismatch { .. } => Code::Mismatch,
            Self::NotLeader { .. } => Code::NotLeader,
            Self::NoLeader => Code::NoLeader,
            Self::Superseded => Code::Superseded,
            Self::Overloaded => Code::Overloaded,
            Self::DiskFull { .. } => Code::DiskFull,
            Self::Unknown(_) => Code::UnknownOutcome,
            Self::OutputLost { .. } => Code::OutputLost,
            Self::SessionExpired => Code::SessionExpired,
            Self::SessionStale => Code::SessionStale,
            Self::Query(_) => Code::Query,
            Self::Compacted { .. } => Code::Compacted,
            Self::Timeout => Code::Timeout,
            Self::Quarantined(_) => Code::Quarantined,
            Self::Stopped(_) => Code::Stopped,
        }
    }

    /// What became of the append that failed with it. A read changes nothing, whatever it fails with.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            // Where a session has ended or forgotten, an earlier attempt of the same may have taken effect.
            Self::Unknown(_) | Self::SessionExpired | Self::SessionStale => Outcome::Unknown,
            Self::OutputLost { .. } => Outcome::Applied,
            _ => Outcome::NotApplied,
        }
    }

    /// Whether asking the same again, here or at another node, makes sense: it does no harm and may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::NoLeader
                | Self::Superseded
                | Self::Overloaded
                | Self::DiskFull { .. }
                | Self::Timeout
                | Self::Quarantined(_)
                | Self::Stopped(_)
        )
    }

    /// What to do next, in words; empty if the text says it all.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Config { .. } | Self::Directory(_) | Self::Damaged(_) | Self::Io(_) => "",
            Self::ClusterKey(_) => {
                "copy the cluster key from another node of the cluster, readable for its owner only"
            }
            Self::TooLarge { .. } => "append less at once, or raise the limit on every node",
            Self::NotRoundTrip { .. } => {
                "usual causes: #[serde(flatten)], #[serde(untagged)], #[serde(tag)], skip_serializing_if, serde_json::Value, or deep nesting"
            }
            Self::Decode { .. } => {
                "read the log as the type it was written as; add variants of an enum only at its end"
            }
            Self::Mismatch { .. } => "read up to the end of the log and decide anew",
            Self::NotLeader { .. } | Self::Superseded => "try again",
            Self::NoLeader => {
                "are a majority of the nodes running, and can they reach each other? then try again"
            }
            Self::Overloaded => "wait for some answers, then try again",
            Self::DiskFull { .. } => "make room on the disk of that node, or ask another node",
            Self::Unknown(_) => "read the end of the log before trying again: the entries may be there",
            Self::OutputLost { .. } => "do not repeat the command; ask the state machine what became of it",
            Self::SessionExpired => {
                "open another session; an earlier attempt may have been applied, so look before repeating it"
            }
            Self::SessionStale => "look whether it was applied before repeating it",
            Self::Query(_) => "is the query of the type this state machine takes?",
            Self::Compacted { .. } => {
                "read from that entry on; how much is kept is set by `retention_bytes` and `retention_age`"
            }
            Self::Timeout => "try again, with more time, or at another node",
            Self::Quarantined(_) | Self::Stopped(_) => "ask another node",
        }
    }

    /// A setting is not allowed.
    pub(crate) fn config(field: &'static str, value: impl ToString, allowed: impl Into<String>) -> Self {
        let (value, allowed) = (value.to_string(), allowed.into());
        Self::Config {
            field,
            value,
            allowed,
        }
    }

    /// Something could not be done with a file.
    pub(crate) fn file(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io(format!("cannot {what} {}: {error}", path.display()))
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Wrong(text) => Self::Directory(text),
            LogError::Damaged(text) => Self::Damaged(text),
            LogError::Compacted { first } => Self::Compacted { first: first.0 },
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        match error {
            StartError::PortTaken(carrier, address) => Self::Io(format!(
                "{} {address} is in use: does this node run already? stop what uses the port, \
                 or give the node another one in the configuration of every node",
                carrier.protocol()
            )),
            StartError::NotOurAddress(address) => Self::config(
                "listen",
                address,
                format!("an address of this machine, or 0.0.0.0:{}", address.port()),
            ),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Superseded => Self::Superseded,
            Failure::NoLeader => Self::NoLeader,
            Failure::Unknown(why) => Self::Unknown(why.into_owned()),
            Failure::Timeout => Self::Timeout,
            Failure::Log(error) => LogError::clone(&error).into(),
            Failure::Query(why) => Self::Query(why),
            Failure::Quarantined(why) => Self::Quarantined(why),
            Failure::Compacted { first } => Self::Compacted { first: first.0 },
            Failure::Stopped(why) => Self::Stopped(why.into_owned()),
            other => Self::Unknown(format!("{other:?}")),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader { leader } => Self::NotLeader {
                leader: leader.map(|id| id.0),
            },
            Refusal::Overloaded => Self::Overloaded,
            Refusal::DiskFull { node } => Self::DiskFull { node: node.0 },
            Refusal::Mismatch { last, term } => Self::Mismatch {
                index: last.0,
                term: term.0,
            },
            Refusal::TooLarge { bytes_max } => Self::TooLarge {
                what: "a batch",
                bytes: bytes_max.saturating_add(1),
                bytes_max,
                limit: "batch_bytes_max",
            },
            Refusal::SessionExpired => Self::SessionExpired,
            Refusal::SessionStale => Self::SessionStale,
            // A refusal of a kind this version does not know is one all the same.
            _ => Self::NotLeader { leader: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_never_retried() {
        let unknown = Error::Unknown("x".into());
        assert_eq!(
            (unknown.outcome(), unknown.is_retryable()),
            (Outcome::Unknown, false)
        );
        assert_eq!(unknown.code().exit_code(), 5);
        let none = Error::NoLeader;
        assert_eq!((none.outcome(), none.is_retryable()), (Outcome::NotApplied, true));
    }

    #[test]
    fn a_mismatch_says_where_the_log_ends() {
        let text = |index, term| Error::Mismatch { index, term }.to_string();
        assert!(text(7, 2).ends_with("it ends with entry 7 of term 2"));
        assert!(text(0, 0).ends_with("it is empty"));
    }
}
