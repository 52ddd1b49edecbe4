//! The demo's nodes, and calls that go to whichever of them lives.
//!
//! Nodes talk TLS over sockets of their own on 127.0.0.1. A node comes back on the port it had, so that the others find it
//! again.

use super::place::Place;
use crate::{
    api::{self, Outcome},
    append::Appender,
    client::CallError,
    config_file::ConfigFile,
    failure::Failure,
    frames,
    init::config_path,
    lines::Batch,
};
use kontiki::{Appended, Code, Consistency, Entries, Handle, LogOnly, RaftNode, Raw, Status};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a call may take at one node before another is tried.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long a call is tried altogether.
const PATIENCE: Duration = Duration::from_secs(10);

/// The nodes that can be asked. Shared with whoever follows the log.
#[derive(Clone, Default)]
pub(super) struct Live(Arc<Mutex<BTreeMap<u64, Handle<Raw>>>>);

impl Live {
    fn with<R>(&self, work: impl FnOnce(&mut BTreeMap<u64, Handle<Raw>>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All nodes that can be asked.
    pub(super) fn all(&self) -> Vec<(u64, Handle<Raw>)> {
        self.with(|nodes| nodes.iter().map(|(id, handle)| (*id, handle.clone())).collect())
    }

    fn one(&self, id: u64) -> Option<Handle<Raw>> {
        self.with(|nodes| nodes.get(&id).cloned())
    }
}

/// What is with a node.
pub(super) enum State {
    /// It runs.
    Running(Box<Status>),
    /// It is frozen.
    Paused,
    /// It was killed.
    Killed,
}

/// A node of the demo.
struct Node {
    file: ConfigFile,
    address: SocketAddr,
    /// There while the node is frozen.
    frozen: Option<Handle<Raw>>,
}

/// The demo's nodes.
pub(super) struct Cluster {
    nodes: BTreeMap<u64, Node>,
    live: Live,
}

impl Cluster {
    /// Starts every node.
    pub(super) fn start(place: &Place) -> Result<Self, Failure> {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            live: Live::default(),
        };
        let mut sockets = BTreeMap::new();
        for id in 1..=place.nodes {
            let file = ConfigFile::load(&config_path(&place.dir, id))?;
            let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let address = socket.local_addr().map_err(|error| no_socket(&error))?;
            cluster.nodes.insert(
                id,
                Node {
                    file,
                    address,
                    frozen: None,
                },
            );
            sockets.insert(id, socket);
        }
        for (id, socket) in sockets {
            cluster.launch(id, socket)?;
        }
        Ok(cluster)
    }

    /// The nodes that can be asked.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Every node's number and address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (u64, SocketAddr)> {
        self.nodes.iter().map(|(id, node)| (*id, node.address))
    }

    /// What is with every node.
    pub(super) fn states(&self) -> Vec<(u64, State)> {
        let state = |(id, node): (&u64, &Node)| match (self.live.one(*id), &node.frozen) {
            (Some(handle), _) => (*id, State::Running(Box::new(handle.status()))),
            (None, Some(_)) => (*id, State::Paused),
            (None, None) => (*id, State::Killed),
        };
        self.nodes.iter().map(state).collect()
    }

    /// Waits until the cluster has a leader.
    pub(super) async fn ready(&self) -> Result<Status, Failure> {
        let handle = self
            .live
            .all()
            .into_iter()
            .next()
            .map(|(_, handle)| handle)
            .ok_or_else(nobody)?;
        Ok(handle.wait_ready(PATIENCE).await?)
    }

    /// Whether enough nodes can be asked to have a leader.
    pub(super) fn has_majority(&self) -> bool {
        self.live.all().len() * 2 > self.nodes.len()
    }

    /// Waits until every node that can be asked has heard from a leader, if they are enough to have one. An append
    /// that is sent to a leader which is no more has an unknown outcome, and nothing is appended twice to find out.
    pub(super) async fn settle(&self) {
        if !self.has_majority() {
            return;
        }
        for (_, handle) in self.live.all() {
            // A node that hears from none says so to the next command.
            let _ = handle.wait_ready(ATTEMPT).await;
        }
    }

    /// Stops a node at once, with nothing said to the others.
    pub(super) async fn kill(&mut self, id: u64) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
        let handle = node
            .frozen
            .take()
            .or_else(|| self.live.with(|live| live.remove(&id)));
        let handle = handle.ok_or_else(|| Failure::new(Code::Usage, format!("node {id} is dead already")))?;
        Ok(handle.abort().await?)
    }

    /// Freezes a node.
    pub(super) fn pause(&mut self, id: u64) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
        let handle = self.live.with(|live| live.remove(&id));
        let handle = handle.ok_or_else(|| Failure::new(Code::Usage, format!("node {id} does not run")))?;
        handle.pause(true);
        node.frozen = Some(handle);
        Ok(())
    }

    /// Starts a node that was killed, or unfreezes one.
    pub(super) fn revive(&mut self, id: u64) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
        if let Some(handle) = node.frozen.take() {
            handle.pause(false);
            self.live.with(|live| live.insert(id, handle));
            return Ok(());
        }
        if self.live.one(id).is_some() {
            return Err(Failure::new(Code::Usage, format!("node {id} runs already")));
        }
        let socket = bind(node.address)?;
        self.launch(id, socket)
    }

    /// Stops every node cleanly.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let frozen: Vec<_> = self
            .nodes
            .values_mut()
            .filter_map(|node| node.frozen.take())
            .collect();
        frozen.iter().for_each(|handle| handle.pause(false));
        let live = self.live.with(std::mem::take);
        for handle in frozen.iter().chain(live.values()) {
            handle.shutdown().await?;
        }
        Ok(())
    }

    /// Reads from one node, or from any.
    pub(super) async fn read(
        &self,
        from: u64,
        to: u64,
        at: Option<u64>,
    ) -> Result<(u64, Entries<Raw>), Failure> {
        let Some(id) = at else {
            let read = self.any(true, |handle| async move {
                handle.read(from..to, Consistency::Linearizable).await
            });
            return read.await.map_err(|error| error.failure);
        };
        let node = self.nodes.get(&id).ok_or_else(|| no_node(id))?;
        let down = || {
            Failure::new(Code::Stopped, format!("node {id} does not run")).advise(format!("try `start {id}`"))
        };
        let handle = self
            .live
            .one(id)
            .filter(|_| node.frozen.is_none())
            .ok_or_else(down)?;
        let read = handle
            .with_timeout(PATIENCE)
            .read(from..to, Consistency::Linearizable);
        match read.await {
            Ok(entries) => Ok((id, entries)),
            Err(error) => Err(self.explained(error.into())),
        }
    }

    /// Appends through any node.
    pub(super) async fn append(&self, entries: &[Raw]) -> Result<(u64, Appended), CallError> {
        self.any(false, |handle| async move { handle.append_all(entries).await })
            .await
    }

    /// Asks one living node after the other, as long as asking again does no harm.
    async fn any<T, F>(&self, repeatable: bool, ask: impl Fn(Handle<Raw>) -> F) -> Result<(u64, T), CallError>
    where
        F: Future<Output = Result<T, kontiki::Error>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut nodes = self.live.all().into_iter().cycle();
        loop {
            let Some((id, handle)) = nodes.next() else {
                return Err(CallError::not_applied(nobody()));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match ask(handle.with_timeout(ATTEMPT.min(left))).await {
                Ok(answer) => return Ok((id, answer)),
                Err(error) => CallError::from(error),
            };
            let safe = repeatable || error.outcome == Outcome::NotApplied;
            if !safe || !error.retryable || Instant::now() >= deadline {
                return Err(CallError {
                    failure: self.explained(error.failure),
                    ..error
                });
            }
            // A refusal may come at once; a leader needs a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The failure, with what to do if there can be no leader.
    fn explained(&self, failure: Failure) -> Failure {
        if self.has_majority() {
            return failure;
        }
        let (live, nodes) = (self.live.all().len(), self.nodes.len());
        failure.advise(format!(
            "{live} of {nodes} nodes can be asked, which is no majority; `start` one"
        ))
    }

    fn launch(&mut self, id: u64, socket: TcpListener) -> Result<(), Failure> {
        let peers = self
            .addresses()
            .map(|(id, address)| (id, address.to_string()))
            .collect();
        let node = self.nodes.get(&id).ok_or_else(|| no_node(id))?;
        let mut config = node.file.config()?.socket(socket);
        config.peers = peers;
        let handle = RaftNode::<LogOnly<Raw>>::new(config)?.start()?;
        self.live.with(|live| live.insert(id, handle));
        Ok(())
    }
}

impl Appender for &Cluster {
    async fn append(&mut self, batch: &Batch) -> Result<api::Appended, CallError> {
        let entries = frames::split(batch.body.clone()).unwrap_or_default();
        let entries: Vec<Raw> = entries.into_iter().map(Raw).collect();
        let (
            _,
            Appended {
                first, last, term, ..
            },
        ) = Cluster::append(self, &entries).await?;
        Ok(api::Appended { first, last, term })
    }

    async fn settle(&mut self) -> Result<(), CallError> {
        let ready = self.any(true, |handle| async move { handle.wait_ready(ATTEMPT).await });
        ready.await.map(drop)
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| no_socket(&error))
}

fn no_socket(error: &std::io::Error) -> Failure {
    Failure::new(
        Code::Io,
        format!("cannot open a TCP socket on 127.0.0.1: {error}"),
    )
}

fn no_node(id: u64) -> Failure {
    Failure::new(Code::Usage, format!("there is no node {id}")).advise("`status` lists the nodes")
}

fn nobody() -> Failure {
    Failure::new(Code::Stopped, "no node runs").advise("try `start 1`")
}
