//! The JSON that HTTP carries: written by `serve`, read by the client commands.

use crate::logging;
use kontiki::Code;
use serde::{Deserialize, Serialize};

/// The answer to an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    /// Index of the first entry.
    pub(crate) first: u64,
    /// Index of the last entry.
    pub(crate) last: u64,
    /// The term they were appended in.
    pub(crate) term: u64,
}

/// A session that was opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Its name.
    pub(crate) session: String,
    /// How long it may be silent before it is forgotten.
    pub(crate) ttl_seconds: u64,
}

/// How a node is. Readers must accept roles they do not know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// The node.
    pub(crate) node: u64,
    /// Its role.
    pub(crate) role: String,
    /// Its term.
    pub(crate) term: u64,
    /// The leader it knows.
    pub(crate) leader: Option<u64>,
    /// The first entry its log holds.
    pub(crate) first: u64,
    /// The last entry it knows to be committed.
    pub(crate) commit: u64,
    /// The last entry in its log.
    pub(crate) last: u64,
    /// Its cluster.
    pub(crate) cluster: String,
    /// The Raft index its log ends at; control records count here.
    pub(crate) raft_index: u64,
    /// The Raft index it knows to be committed.
    pub(crate) raft_commit: u64,
    /// Whose votes count.
    pub(crate) voters: Vec<u64>,
    /// How it sees the other nodes.
    pub(crate) peers: Vec<PeerStatus>,
    /// Why it answers nothing, while it votes and replicates, if so.
    #[serde(default)]
    pub(crate) quarantined: Option<String>,
    /// The nodes whose state machines differ from a majority's.
    #[serde(default)]
    pub(crate) differing: Vec<u64>,
    /// What clients hold of it over HTTP.
    #[serde(default)]
    pub(crate) http: Option<HttpStatus>,
    /// Why it counts for no majority, if so.
    #[serde(default)]
    pub(crate) suspect: Option<String>,
    /// The places of its log that reads have found damaged.
    #[serde(default)]
    pub(crate) damaged: Vec<String>,
    /// Why it stopped itself, if it did.
    pub(crate) stopped: Option<String>,
    /// How many of its log lines were lost because its standard error was not read.
    #[serde(default)]
    pub(crate) log_lines_lost: u64,
}

/// What clients hold of a node over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HttpStatus {
    /// Connections.
    pub(crate) connections: usize,
    /// The most there may be.
    pub(crate) connections_max: usize,
    /// How many were refused since the node was started.
    pub(crate) connections_refused: u64,
    /// Bytes of requests above 64 KiB that are being read or appended.
    pub(crate) requests_bytes: u64,
    /// The most there may be.
    pub(crate) requests_bytes_max: u64,
    /// Bytes of answers that are asked for or not yet written.
    pub(crate) answers_bytes: u64,
    /// The most there may be.
    pub(crate) answers_bytes_max: u64,
}

/// How a node sees another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    /// The other node.
    pub(crate) node: u64,
    /// Where it is.
    pub(crate) address: String,
    /// Whether there is a connection.
    pub(crate) connected: bool,
    /// Why there is no connection at the moment.
    pub(crate) last_error: Option<String>,
    /// Why the data directory that it last came with is refused, if it is.
    #[serde(default)]
    pub(crate) refused: Option<String>,
    /// Raft index up to which its log is known to match; only a leader knows.
    pub(crate) matched: Option<u64>,
    /// Whether it is suspect and counts for nothing; only a leader knows.
    #[serde(default)]
    pub(crate) suspect: bool,
}

impl From<kontiki::Status> for NodeStatus {
    fn from(status: kontiki::Status) -> Self {
        Self {
            node: status.node,
            role: status.role.to_string(),
            term: status.term,
            leader: status.leader,
            first: status.first,
            commit: status.commit,
            last: status.last,
            cluster: status.cluster.to_string(),
            raft_index: status.raft_index,
            raft_commit: status.raft_commit,
            voters: status.voters,
            peers: status.peers.into_iter().map(PeerStatus::from).collect(),
            quarantined: status.quarantined,
            differing: status.differing,
            http: None,
            suspect: status.suspect,
            damaged: status.damaged,
            stopped: status.stopped,
            log_lines_lost: logging::lost(),
        }
    }
}

impl From<kontiki::PeerStatus> for PeerStatus {
    fn from(peer: kontiki::PeerStatus) -> Self {
        let kontiki::PeerStatus {
            id,
            address,
            connected,
            last_error,
            refused,
            matched,
            suspect,
            ..
        } = peer;
        Self {
            node: id,
            address,
            connected,
            last_error,
            refused,
            matched,
            suspect,
        }
    }
}

/// How a node is, between the entries of a tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// The last entry it knows to be committed.
    pub(crate) committed: u64,
    /// Whether it knows a leader.
    pub(crate) leader: bool,
}

/// What became of an append that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Certainly nothing was appended.
    NotApplied,
    /// It may have been appended.
    Unknown,
}

impl From<kontiki::Outcome> for Outcome {
    fn from(outcome: kontiki::Outcome) -> Self {
        match outcome {
            kontiki::Outcome::NotApplied => Self::NotApplied,
            _ => Self::Unknown,
        }
    }
}

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// The kind of problem, as a URI: `urn:kontiki:` and the code.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The stable code.
    pub(crate) code: String,
    /// What went wrong.
    pub(crate) detail: String,
    /// What became of an append; of one under a key, by whichever attempt.
    pub(crate) outcome: Outcome,
    /// What became of this attempt of an append under a key, where that says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<Outcome>,
    /// Whether asking again makes sense.
    pub(crate) retryable: bool,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Problem {
    /// A request that was refused before it reached the log.
    pub(crate) fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:kontiki:{}", code.name()),
            status: code.http_status(),
            code: code.name().to_owned(),
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            attempt: None,
            retryable: false,
            advice: None,
        }
    }

    /// The same, saying what to do next.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<kontiki::Error> for Problem {
    fn from(error: kontiki::Error) -> Self {
        let advice = Some(error.advice()).filter(|advice| !advice.is_empty());
        Self {
            outcome: error.outcome().into(),
            retryable: error.is_retryable(),
            advice: advice.map(str::to_owned),
            ..Self::refused(error.code(), error.to_string())
        }
    }
}
