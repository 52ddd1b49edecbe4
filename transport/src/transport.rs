//! The transport: starting, sending, status, stopping.

use crate::{
    Carrier, Limits, Link, Options, Sink, Socket, StartError,
    carrier::Endpoint,
    dial,
    events::Dropped,
    handshakes::{Handshake, Handshakes},
    peer::Peer,
    places::Origin,
    warnings::Warnings,
};
use kontiki_consensus::NodeId;
use kontiki_wire::{Identity, Packet, StartId, handshake::Hello};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::{task::JoinSet, time};

/// How long a stopping transport waits for its last words to be heard.
const FAREWELL: Duration = Duration::from_millis(300);

/// What the tasks of a transport have in common.
pub(crate) struct Shared {
    pub(crate) own: Identity,
    pub(crate) hello: Hello,
    pub(crate) limits: Limits,
    pub(crate) carrier: Carrier,
    pub(crate) endpoint: Endpoint,
    pub(crate) sink: Rc<dyn Sink>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) dropped: Dropped,
    pub(crate) warnings: Warnings,
    /// Of accepted connections.
    pub(crate) handshakes: Handshakes,
}

impl Shared {
    /// Whether a peer is at this address.
    pub(crate) fn origin(&self, address: IpAddr) -> Origin {
        if self.peers.values().any(|peer| peer.is_at(address)) {
            Origin::Peer
        } else {
            Origin::Elsewhere
        }
    }

    /// Begins the handshake of a connection from there, if there is room for it.
    pub(crate) fn begin_handshake(&self, remote: SocketAddr) -> Option<Handshake> {
        self.handshakes.begin(self.origin(remote.ip()), remote.ip())
    }
}

/// One node's end of the network. Dropping it cuts all connections; [`shutdown`](Self::shutdown) says goodbye.
pub struct Transport {
    shared: Rc<Shared>,
    tasks: RefCell<JoinSet<()>>,
    /// What takes connections; it ends when these have ended.
    accepting: RefCell<JoinSet<()>>,
}

impl Transport {
    /// Starts on `socket`. To be called on a tokio `LocalRuntime` with time and I/O enabled: its tasks are local to
    /// that thread, and the sink is called there.
    ///
    /// # Errors
    /// If socket, credentials or limits cannot be used; the error says which and why.
    pub fn start(options: Options, socket: Socket, sink: Rc<dyn Sink>) -> Result<Self, StartError> {
        let hello = Hello::of(options.identity, options.life);
        Self::start_as(hello, options, socket, sink)
    }

    /// Starts with a hello of the caller's making.
    pub(crate) fn start_as(
        hello: Hello,
        options: Options,
        socket: Socket,
        sink: Rc<dyn Sink>,
    ) -> Result<Self, StartError> {
        let limits = options.limits;
        limits.check().map_err(StartError::Limits)?;
        let carrier = socket.carrier();
        let endpoint = Endpoint::new(options.credentials, &limits, socket)?;
        let own = options.identity;
        let peers = options.peers.into_iter().filter(|(node, _)| *node != own.node);
        let peers = peers.map(|(node, address)| (node, Peer::new(node, address, &limits)));
        let peers: BTreeMap<NodeId, Peer> = peers.collect();
        let shared = Rc::new(Shared {
            own,
            hello,
            carrier,
            endpoint,
            sink,
            dropped: Dropped::default(),
            warnings: Warnings::default(),
            handshakes: Handshakes::new(&limits, peers.len()),
            peers,
            limits,
        });
        let tasks = RefCell::new(Self::spawn(&shared, options.seed));
        let accepting = RefCell::new(JoinSet::new());
        let accepts = shared.clone();
        accepting
            .borrow_mut()
            .spawn_local(async move { accepts.endpoint.accept(&accepts).await });
        Ok(Self {
            shared,
            tasks,
            accepting,
        })
    }

    fn spawn(shared: &Rc<Shared>, seed: u64) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for node in shared.peers.keys() {
            tasks.spawn_local(dial::keep_connected(shared.clone(), *node, seed));
        }
        let shared = shared.clone();
        tasks.spawn_local(async move { shared.dropped.report(&*shared.sink).await });
        tasks
    }

    /// Sends a packet to the peer it is for, some time, maybe: what finds its queue full or no connection is dropped, and
    /// the sink is told a moment later. Never blocks, and never calls the sink itself. Of a part of a snapshot that finds
    /// its queue full nothing is told: who wants it asks again, and what is told makes consensus send its records anew.
    pub fn send(&self, packet: &Packet) {
        let shared = &self.shared;
        let peer = shared.peers.get(&packet.to);
        let is_queued = peer.is_some_and(|peer| peer.push(shared.own.cluster, packet));
        if !is_queued && !packet.message.is_background() {
            shared.dropped.note(packet.to);
        }
    }

    /// The owner does not believe this start of a peer: connections with it end, none is admitted any more, and it is told why.
    /// May be called from within the sink.
    pub fn refuse(&self, node: NodeId, start: StartId, why: &str) {
        if let Some(peer) = self.shared.peers.get(&node) {
            peer.refuse(start, why);
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr, StartError> {
        self.shared.endpoint.local_addr()
    }

    /// How things stand with each peer.
    #[must_use]
    pub fn status(&self) -> Vec<Link> {
        self.shared.peers.values().map(Peer::link).collect()
    }

    /// What is wrong at the moment, with peers and with others that knock, in words for an operator.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.shared.warnings.all()
    }

    /// Whether the death of a peer's process would be known at once.
    #[cfg(test)]
    pub(crate) fn watches(&self, node: NodeId) -> bool {
        self.shared
            .peers
            .get(&node)
            .is_some_and(|peer| peer.watched.get())
    }

    /// How many accepted connections are in the middle of their handshake.
    #[cfg(test)]
    pub(crate) fn handshakes(&self) -> usize {
        self.shared.handshakes.len()
    }

    #[cfg(test)]
    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// How many bytes wait for a peer.
    #[cfg(test)]
    pub(crate) fn queued(&self, node: NodeId) -> usize {
        self.shared
            .peers
            .get(&node)
            .map_or(0, |p| p.lanes().into_iter().map(|lane| lane.bytes()).sum())
    }

    /// Ends all tasks, says goodbye to the peers and waits a moment for that to be heard.
    pub async fn shutdown(&self) {
        let mut tasks = self.tasks.take();
        tasks.shutdown().await;
        for peer in self.shared.peers.values() {
            peer.down("this node was stopped");
        }
        self.shared.endpoint.close();
        let mut accepting = self.accepting.take();
        let heard = async {
            while accepting.join_next().await.is_some() {}
            self.shared.endpoint.closed().await;
        };
        // Who has not heard it by then finds out by itself.
        let _ = time::timeout(FAREWELL, heard).await;
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.endpoint.close();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("own", &self.shared.own)
            .finish_non_exhaustive()
    }
}
