//! How a node is, as it sees itself: kept up to date by the raft thread, read by anyone without asking it.

use kontiki_consensus::{Configuration, Index, NodeId, Position};
use kontiki_node::driver::Driver;
use kontiki_wire::ClusterId;
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// What a node is at the moment. Expect others to be added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// Leads its term: every append goes through it.
    Leader,
    /// Takes entries from a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Asks whether it would win an election (dissertation §9.6).
    PreCandidate,
    /// Takes entries, has no vote.
    Learner,
    /// Was stopped.
    Stopped,
    /// Has stopped itself, for good: its disk failed, its state machine cannot go on, or something is not as it must be.
    /// [`Status::stopped`] says what, and where.
    Fatal,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::PreCandidate => "pre-candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
            Self::Fatal => "fatal",
        })
    }
}

impl From<kontiki_consensus::Role> for Role {
    fn from(role: kontiki_consensus::Role) -> Self {
        use kontiki_consensus::Role as Raft;
        match role {
            Raft::Leader => Self::Leader,
            Raft::Candidate => Self::Candidate,
            Raft::PreCandidate => Self::PreCandidate,
            Raft::Learner => Self::Learner,
            _ => Self::Follower,
        }
    }
}

/// How a node is. Its own view: it asks nobody for it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub node: u64,
    /// Its cluster.
    #[serde(serialize_with = "in_words")]
    pub cluster: ClusterId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows of; itself, if it leads.
    pub leader: Option<u64>,
    /// The first entry its log holds, or will hold: what is before it was forgotten.
    pub first: u64,
    /// The last entry it knows to be committed; 0 before the first.
    pub commit: u64,
    /// The last entry in its log, committed or not.
    pub last: u64,
    /// Raft index of the last record of its log: a batch counts once, and records of the protocol count.
    pub raft_index: u64,
    /// Raft index of the last record it knows to be committed.
    pub raft_commit: u64,
    /// The nodes whose votes count.
    pub voters: Vec<u64>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// The snapshot that it goes on from, if there is one.
    pub snapshot: Option<SnapshotStatus>,
    /// Whether it is taking a snapshot.
    pub takes_snapshot: bool,
    /// Whether it fetches another node's snapshot, or its machine is taking one over.
    pub fetches_snapshot: bool,
    /// Why it answers nothing but goes on voting and replicating, if so: its state machine differs from a majority's, or
    /// replicas differ and there is no majority.
    pub quarantined: Option<String>,
    /// The nodes whose state machines differ from this one's and a majority's.
    pub differing: Vec<u64>,
    /// Why it gives no vote and counts for no majority, if so: its disk lost what it had promised. It is fed, and that ends once
    /// a majority of the others has committed a record after the loss.
    pub suspect: Option<String>,
    /// The places of its log that reads have found damaged since it started, at most 16: which file, what, and what to do.
    pub damaged: Vec<String>,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
}

/// A snapshot on a node's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct SnapshotStatus {
    /// The last entry it covers.
    pub index: u64,
    /// Raft index of the last record it covers.
    pub raft_index: u64,
    /// How large it is, in bytes.
    pub bytes: u64,
}

/// How a node sees another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The other node.
    pub id: u64,
    /// Its address as configured.
    pub address: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Why there is no connection to it at the moment. None while there is one, or before the first attempt.
    pub last_error: Option<String>,
    /// Why the data directory that it last came with is refused here, if it is: made anew, an older copy, or one of two that run.
    pub refused: Option<String>,
    /// On a leader: Raft index up to which the other's log is known to be the same.
    pub matched: Option<u64>,
    /// On a leader: whether the other is suspect (see [`Status::suspect`]) and counts for nothing.
    pub suspect: bool,
}

/// As a string: an id is above what a number of JSON holds exactly.
fn in_words<S: Serializer>(id: &ClusterId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// What the raft thread tells of itself after each turn.
#[derive(Debug)]
pub(crate) struct Snapshot {
    role: Role,
    term: u64,
    leader: Option<NodeId>,
    first: Position,
    commit: Position,
    last: Position,
    raft_index: Index,
    raft_commit: Index,
    configuration: Arc<Configuration>,
    matched: Vec<(NodeId, Index)>,
    links: BTreeMap<NodeId, Link>,
    snapshot: Option<SnapshotStatus>,
    takes_snapshot: bool,
    fetches_snapshot: bool,
    quarantined: Option<String>,
    differing: Vec<NodeId>,
    suspect: Option<String>,
    suspects: Vec<NodeId>,
    damaged: Vec<Arc<str>>,
    stopped: Option<String>,
}

/// How things stand with a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) address: String,
    pub(crate) connected: bool,
    pub(crate) last_error: Option<String>,
    pub(crate) refused: Option<String>,
}

impl Snapshot {
    pub(crate) fn new() -> Self {
        Self {
            role: Role::Follower,
            term: 0,
            leader: None,
            first: Position(1),
            commit: Position::ZERO,
            last: Position::ZERO,
            raft_index: Index::ZERO,
            raft_commit: Index::ZERO,
            configuration: Arc::default(),
            matched: Vec::new(),
            links: BTreeMap::new(),
            snapshot: None,
            takes_snapshot: false,
            fetches_snapshot: false,
            quarantined: None,
            differing: Vec::new(),
            suspect: None,
            suspects: Vec::new(),
            damaged: Vec::new(),
            stopped: None,
        }
    }

    /// Takes what changes with a turn; without an allocation unless the members have changed, or why it is suspect.
    pub(crate) fn see(&mut self, driver: &Driver, suspect: Option<&str>) {
        let consensus = driver.consensus();
        self.role = consensus.role().into();
        self.term = consensus.term().0;
        self.leader = consensus.leader();
        self.first = driver.first();
        let ((applied, position), commit) = (driver.applied(), consensus.commit());
        // As a rule all is applied that is committed, and nothing has to be looked up.
        let known = (applied != commit)
            .then(|| consensus.position_at(commit))
            .flatten();
        self.commit = self.commit.max(known.unwrap_or(position));
        self.last = consensus.last_position();
        self.raft_index = consensus.last().index;
        self.raft_commit = consensus.commit();
        if !Arc::ptr_eq(&self.configuration, consensus.configuration()) {
            self.configuration = consensus.configuration().clone();
        }
        self.matched.clear();
        self.matched.extend(consensus.matched());
        self.snapshot = driver.snapshot().map(|file| SnapshotStatus {
            index: file.header.base.position.0,
            raft_index: file.header.base.last.index.0,
            bytes: file.bytes,
        });
        self.takes_snapshot = driver.takes_snapshot();
        self.fetches_snapshot = driver.fetches_snapshot() || driver.restores_snapshot();
        if self.quarantined.as_deref() != driver.quarantined() {
            self.quarantined = driver.quarantined().map(str::to_owned);
        }
        self.differing.clear();
        self.differing.extend(driver.differing());
        if self.suspect.as_deref() != suspect {
            self.suspect = suspect.map(str::to_owned);
        }
        self.suspects.clear();
        self.suspects.extend(consensus.suspects().map(|(node, ..)| node));
        if self.damaged.len() != driver.damages().len() {
            self.damaged = driver.damages().to_vec();
        }
    }

    pub(crate) fn see_links(&mut self, links: BTreeMap<NodeId, Link>) {
        self.links = links;
    }

    pub(crate) fn stop(&mut self, why: &str, by_itself: bool) {
        if self.stopped.is_none() {
            self.role = if by_itself { Role::Fatal } else { Role::Stopped };
            self.stopped = Some(why.to_owned());
        }
        self.leader = None;
    }

    pub(crate) fn status(&self, node: NodeId, cluster: ClusterId) -> Status {
        Status {
            node: node.0,
            cluster,
            role: self.role,
            term: self.term,
            leader: self.leader.map(|id| id.0),
            first: self.first.0,
            commit: self.commit.0,
            last: self.last.0,
            raft_index: self.raft_index.0,
            raft_commit: self.raft_commit.0,
            voters: self.configuration.voters.iter().map(|id| id.0).collect(),
            peers: self.links.iter().map(|(id, link)| self.peer(*id, link)).collect(),
            snapshot: self.snapshot,
            takes_snapshot: self.takes_snapshot,
            fetches_snapshot: self.fetches_snapshot,
            quarantined: self.quarantined.clone(),
            differing: self.differing.iter().map(|id| id.0).collect(),
            suspect: self.suspect.clone(),
            damaged: self.damaged.iter().map(ToString::to_string).collect(),
            stopped: self.stopped.clone(),
        }
    }

    fn peer(&self, id: NodeId, link: &Link) -> PeerStatus {
        let matched = self.matched.iter().find(|(peer, _)| *peer == id);
        PeerStatus {
            id: id.0,
            address: link.address.clone(),
            connected: link.connected && self.stopped.is_none(),
            last_error: link.last_error.clone(),
            refused: link.refused.clone(),
            matched: matched.map(|(_, index)| index.0),
            suspect: self.suspects.contains(&id),
        }
    }
}
