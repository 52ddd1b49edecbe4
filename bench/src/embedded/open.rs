//! openraft with a log that is a vector, a state machine that keeps nothing, and a network that is a call.

use crate::{
    Failed,
    entries::{self, Proof},
    load::{Client, Figures, Stretch, closed_loop},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use openraft::{
    BasicNode, Config, EntryPayload, OptionalSend, Raft, RaftLogReader, RaftNetworkFactory, RaftNetworkV2,
    RaftSnapshotBuilder, SnapshotPolicy,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest,
        VoteResponse,
    },
    storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine},
    type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
};
use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const NODES: [u64; 3] = [1, 2, 3];

/// What is appended.
#[derive(Clone, Debug)]
pub(crate) struct Sample(Bytes);

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    pub(crate) Types: D = Sample, R = (), Node = BasicNode
);

type Node = Raft<Types, Machine>;

/// One run: a new cluster, clients in a closed loop, all three logs checked.
pub(crate) fn run(clients: u32, bytes: usize, stretch: Stretch) -> Result<(Figures, Duration), Failed> {
    super::runtime(true)?.block_on(async {
        let network = Network::default();
        let mut logs = Vec::new();
        for id in NODES {
            let log = Log::default();
            let node = Raft::new(id, config()?, network.clone(), log.clone(), Machine::default()).await?;
            lock(&network.0).insert(id, node);
            logs.push(log);
        }
        let nodes: Vec<Node> = lock(&network.0).values().cloned().collect();
        let members: BTreeMap<u64, BasicNode> = NODES.map(|id| (id, BasicNode::default())).into();
        nodes[0].initialize(members).await?;
        let leader = leader(&nodes).await?;
        let before = super::cpu();
        let writers = (0..clients)
            .map(|client| Writer {
                node: leader.clone(),
                client,
                number: 0,
                bytes,
            })
            .collect();
        let figures = closed_loop(writers, stretch).await?;
        let cpu = super::cpu() - before;
        check(&logs, figures.total).await?;
        for node in &nodes {
            node.shutdown().await?;
        }
        // The nodes hold the network, and the network the nodes.
        lock(&network.0).clear();
        Ok((figures, cpu))
    })
}

fn config() -> Result<Arc<Config>, Failed> {
    let config = Config {
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

async fn leader(nodes: &[Node]) -> Result<Node, Failed> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let id = nodes[0].current_leader().await;
        if let Some(n) = NODES.iter().position(|node| Some(*node) == id) {
            return Ok(nodes[n].clone());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("openraft: no node leads".into())
}

/// All logs hold what was acknowledged, each client's in order.
async fn check(logs: &[Log], acknowledged: u64) -> Result<(), Failed> {
    let end = Instant::now() + Duration::from_secs(20);
    for log in logs {
        loop {
            let mut proof = Proof::default();
            for entry in &lock(&log.0).entries {
                if let EntryPayload::Normal(sample) = &entry.payload {
                    proof.add(&sample.0)?;
                }
            }
            let (entries, _) = proof.finish();
            if entries == acknowledged {
                break;
            }
            if entries > acknowledged || Instant::now() > end {
                return Err(
                    format!("openraft: {acknowledged} entries acknowledged, a log has {entries}").into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

struct Writer {
    node: Node,
    client: u32,
    number: u32,
    bytes: usize,
}

impl Client for Writer {
    async fn call(&mut self) -> Result<(), Failed> {
        let entry = entries::entry(self.client, self.number, self.bytes);
        self.number += 1;
        self.node.client_write(Sample(entry)).await?;
        Ok(())
    }
}

/// A log in memory. Clones share it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogContent>>);

#[derive(Default)]
struct LogContent {
    vote: Option<VoteOf<Types>>,
    /// By index: the first is 0, and none is ever purged.
    entries: Vec<EntryOf<Types>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<Types>>, io::Error> {
        let content = lock(&self.0);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let to = (to as usize).min(content.entries.len());
        Ok(content
            .entries
            .get(from as usize..to)
            .unwrap_or_default()
            .to_vec())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(lock(&self.0).vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState {
            last_purged_log_id: None,
            last_log_id: lock(&self.0).entries.last().map(|entry| entry.log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        lock(&self.0).entries.extend(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        lock(&self.0)
            .entries
            .truncate(last.map_or(0, |id| id.index as usize + 1));
        Ok(())
    }

    async fn purge(&mut self, _: LogIdOf<Types>) -> Result<(), io::Error> {
        Err(io::Error::other("nothing is snapshotted, so nothing is purged"))
    }
}

/// A state machine that answers, and keeps nothing but its place.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, (): ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Err(io::Error::other("nothing is snapshotted"))
    }
}

/// The nodes by id.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<u64, Node>>>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Link {
        Link {
            network: self.clone(),
            target,
        }
    }
}

/// The way to one node.
struct Link {
    network: Network,
    target: u64,
}

impl Link {
    fn node(&self) -> Result<Node, RPCError<Types>> {
        let node = lock(&self.network.0).get(&self.target).cloned();
        node.ok_or_else(|| failed(io::Error::other("the node is not there yet")))
    }
}

fn failed(error: impl std::error::Error + 'static) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.node()?.append_entries(rpc).await.map_err(failed)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let answers = self.node()?.stream_append(input);
            let answers: BoxStream<'s, _> = Box::pin(answers.map(|answer| answer.map_err(failed)));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.node()?.vote(rpc).await.map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, ()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Network(NetworkError::new(&io::Error::other(
            "nothing is snapshotted",
        ))))
    }
}
