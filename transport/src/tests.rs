//! Real endpoints on the loopback, each with a sink that keeps what it is told.
//!
//! No test waits for time to pass: each waits for an event, and the whole is bounded by [`run`].

mod exchange;
mod hostile;
mod lanes;
mod presence;
mod refusal;
mod restart;
mod strangers;
mod tcp;

use crate::{Carrier, Limits, NodeCredentials, Options, Sink, Socket, Transport, TransportEvent, bind};
use kontiki_consensus::{Call, GroupId, Incarnation, Message, NodeId, ReadId, Term};
use kontiki_wire::{
    ClusterId, Codec, Expect, Identity, Life, Packet, Payload, PeerMessage, Propose, Session, StartId, codec,
    handshake::Hello,
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    net::SocketAddr,
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::{runtime::LocalOptions, sync::Notify};

const CLUSTER: ClusterId = ClusterId(0xc1);
const SEED: [u8; 32] = [7; 32];
/// Far beyond what any test needs; only a hanging one meets it.
const PATIENCE: Duration = Duration::from_secs(120);

thread_local! {
    /// What the nodes of this thread travel by.
    static CARRIER: Cell<Carrier> = const { Cell::new(Carrier::Quic) };
}

/// Runs a test with each carrier, on a runtime as production has it.
fn run<T: Future<Output = ()>>(test: impl Fn() -> T) {
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        println!("by {carrier:?}");
        run_by(carrier, test());
    }
}

/// Runs a test with one carrier.
fn run_by(carrier: Carrier, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    let bounded = async {
        CARRIER.set(carrier);
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test hangs")
    };
    runtime.block_on(bounded);
}

/// What this test travels by.
fn carrier() -> Carrier {
    CARRIER.get()
}

/// Keeps events until the test asks for them.
#[derive(Default)]
struct Inbox {
    events: RefCell<VecDeque<TransportEvent>>,
    arrived: Notify,
    /// The starts of peers that are refused as soon as they greet.
    unbelieved: RefCell<BTreeSet<StartId>>,
    transport: OnceCell<Weak<Transport>>,
}

impl Sink for Inbox {
    fn deliver(&self, event: TransportEvent) {
        if let TransportEvent::Greeted { peer, life, .. } = &event
            && self.unbelieved.borrow().contains(&life.start)
            && let Some(transport) = self.transport.get().and_then(Weak::upgrade)
        {
            transport.refuse(*peer, life.start, "an old copy was put back");
        }
        self.events.borrow_mut().push_back(event);
    }

    fn settle(&self) {
        self.arrived.notify_one();
    }
}

/// A node of a test.
struct Node {
    identity: Identity,
    start: StartId,
    transport: Rc<Transport>,
    inbox: Rc<Inbox>,
}

/// How a node of a test is made; each field has a default that works.
struct Setup {
    identity: Identity,
    life: Life,
    seed: [u8; 32],
    limits: Limits,
    peers: BTreeMap<NodeId, String>,
    hello: Option<Hello>,
}

fn identity(node: u64) -> Identity {
    Identity {
        cluster: CLUSTER,
        node: NodeId(node),
        incarnation: Incarnation(100 + node),
    }
}

/// The first life of a node.
fn life(node: u64) -> Life {
    Life::default().next(StartId(1000 + node))
}

impl Setup {
    /// Without the timeouts of production: a test machine may pause for longer than any of them.
    fn new(node: u64, peers: &[(u64, SocketAddr)]) -> Self {
        let limits = Limits {
            idle_timeout: 2 * PATIENCE,
            connect_timeout: 2 * PATIENCE,
            ..Limits::default()
        };
        Self {
            identity: identity(node),
            life: life(node),
            seed: SEED,
            limits,
            peers: peers.iter().map(|(n, a)| (NodeId(*n), a.to_string())).collect(),
            hello: None,
        }
    }

    fn options(&self) -> Options {
        Options {
            identity: self.identity,
            life: self.life,
            credentials: NodeCredentials::derive(self.identity.cluster, self.identity.node, &self.seed)
                .unwrap(),
            peers: self.peers.clone(),
            seed: 1,
            limits: self.limits.clone(),
        }
    }

    fn start(self, socket: impl Into<Socket>) -> Node {
        let inbox = Rc::new(Inbox::default());
        let hello = self.hello.unwrap_or_else(|| Hello::of(self.identity, self.life));
        let transport = Transport::start_as(hello, self.options(), socket.into(), inbox.clone()).unwrap();
        let transport = Rc::new(transport);
        inbox.transport.set(Rc::downgrade(&transport)).unwrap();
        Node {
            identity: self.identity,
            start: self.life.start,
            transport,
            inbox,
        }
    }
}

impl Node {
    fn send(&self, to: u64, message: PeerMessage) {
        self.transport.send(&self.packet(to, message));
    }

    fn packet(&self, to: u64, mut message: PeerMessage) -> Packet {
        if let PeerMessage::Raft(raft) = &mut message {
            (raft.from, raft.to) = (self.identity.node, NodeId(to));
        }
        Packet {
            group: GroupId(0),
            from: self.identity.node,
            start: self.start,
            to: NodeId(to),
            message,
        }
    }

    async fn next(&self) -> TransportEvent {
        loop {
            if let Some(event) = self.inbox.events.borrow_mut().pop_front() {
                return event;
            }
            self.inbox.arrived.notified().await;
        }
    }

    /// Skips events until one is as wanted.
    async fn until<T>(&self, mut wanted: impl FnMut(TransportEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    async fn connected(&self, to: u64) {
        self.until(|e| matches!(e, TransportEvent::Connected(n, _) if n == NodeId(to)).then_some(()))
            .await;
    }

    async fn dropped(&self, to: u64) {
        self.until(|e| (e == TransportEvent::Dropped(NodeId(to))).then_some(()))
            .await;
    }

    async fn packet_in(&self) -> Packet {
        self.until(|e| match e {
            TransportEvent::Packet(packet) => Some(packet),
            _ => None,
        })
        .await
    }

    /// The last error of the connection to a peer, once there is one.
    async fn error_to(&self, to: u64) -> String {
        let link = || self.transport.status().into_iter().find(|l| l.node == NodeId(to));
        poll(|| link().and_then(|l| l.last_error)).await
    }

    /// The same, once it contains `words`.
    async fn error_to_with(&self, to: u64, words: &str) {
        poll(|| {
            let status = self.transport.status().into_iter();
            let mut errors = status
                .filter(|l| l.node == NodeId(to))
                .filter_map(|l| l.last_error);
            errors.any(|error| error.contains(words)).then_some(())
        })
        .await
    }

    /// The first warning that contains `words`.
    async fn warning_with(&self, words: &str) -> String {
        poll(|| self.transport.warnings().into_iter().find(|w| w.contains(words))).await
    }
}

/// Looks again and again until there is something.
async fn poll<T>(look: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A socket of what this test travels by.
fn socket() -> (Socket, SocketAddr) {
    let socket = bind(carrier(), SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Nodes 1 and 2 that know each other.
fn pair(adjust: impl Fn(&mut Setup)) -> (Node, Node) {
    let ((socket1, address1), (socket2, address2)) = (socket(), socket());
    let mut setup1 = Setup::new(1, &[(2, address2)]);
    let mut setup2 = Setup::new(2, &[(1, address1)]);
    adjust(&mut setup1);
    adjust(&mut setup2);
    (setup1.start(socket1), setup2.start(socket2))
}

/// A small message of the urgent lane.
fn urgent(n: u64) -> PeerMessage {
    PeerMessage::Raft(Message {
        from: NodeId::ZERO,
        to: NodeId::ZERO,
        term: Term(1),
        call: Call::ReadIndex { id: ReadId(n) },
    })
}

/// A message of the bulk lane, with so many bytes of payload.
fn bulk(number: u64, bytes: usize) -> PeerMessage {
    let bytes = bytes::Bytes::from(vec![number as u8; bytes]);
    PeerMessage::Propose(Propose {
        origin: 1,
        number,
        settled: 0,
        term: Term(1),
        expect: Expect::Any,
        session: Session::None,
        payload: Payload {
            crc: crc32c::crc32c(&bytes),
            bytes,
            count: 1,
            codec: Codec::Bytes,
            schema: 0,
        },
    })
}

/// What no peer may send on a lane: the bytes, and what is told of them. They come from node 2 and are for node 1.
fn offences() -> Vec<(Vec<u8>, &'static str)> {
    let packet = |change: fn(&mut Packet)| {
        let from = identity(2);
        let mut packet = Packet {
            group: GroupId(0),
            from: from.node,
            start: life(2).start,
            to: NodeId(1),
            message: bulk(1, 10),
        };
        change(&mut packet);
        let mut chunks = Vec::new();
        codec::encode(CLUSTER, &packet, &mut chunks);
        chunks.concat()
    };
    // It is refused before the rest comes.
    let mut too_long = packet(|_| {});
    too_long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    too_long.truncate(12);
    vec![
        (too_long, "4294967295 bytes is above the limit"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "magic"),
        (packet(|p| p.from = NodeId(3)), "a packet from node 3"),
        (packet(|p| p.start = StartId(5)), "start 0000000000000005"),
        (packet(|p| p.to = NodeId(3)), "to node 3"),
    ]
}

/// Which message it is, of those made by [`urgent`] and [`bulk`].
fn number_of(message: &PeerMessage) -> u64 {
    match message {
        PeerMessage::Propose(propose) => propose.number,
        PeerMessage::Raft(Message {
            call: Call::ReadIndex { id },
            ..
        }) => id.0,
        other => panic!("not a message of these tests: {other:?}"),
    }
}
