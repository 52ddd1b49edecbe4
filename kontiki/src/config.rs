//! Settings of a node: every default is the safe one, and every mistake is named with the field, its value and what is allowed.
//!
//! Invariant: the limits of log, driver and transport are all derived here, from a few sizes, so that what one part lets
//! in the next can carry: entry ≤ batch ≤ packet ≤ queue, batch ≤ segment.

mod check;

use crate::{ClusterKey, Error, SnapshotPolicy, local::LocalNetwork, random};
use kontiki_consensus::{Config as Raft, Configuration, Duration as Nanos, GroupId, Incarnation, NodeId};
use kontiki_log::{LogOptions, OsDisk, Salts};
use kontiki_node::{CompareConfig, SnapshotConfig, driver::DriverConfig};
use kontiki_transport::{Carrier, Limits, Socket};
use kontiki_wire::{Identity, SessionLimits, codec::PacketBytesMax, lives::Lives};
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What a record and the frame around it take beyond the entries, generously.
const OVERHEAD_BYTES: usize = 64 << 10;
/// What consensus puts into one message, about.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What may be on its way to a follower and not yet on its disk, at least.
const WINDOW_BYTES_MIN: usize = 8 << 20;
/// The largest batch that can be configured: packets have 32-bit lengths.
const BATCH_BYTES_LIMIT: usize = 256 << 20;

/// Length of a file of the log where nobody is to wait for large ones.
const SMALL_SEGMENT_BYTES: u64 = 16 << 20;

// The largest packet of the largest batch still has a length.
const _: () = assert!(packet_bytes_max(BATCH_BYTES_LIMIT) < u32::MAX as usize);

/// Settings of one node.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// This node; from 1.
    pub node: u64,
    /// Where it keeps its log. Belongs to this node alone. Made by [`bootstrap`](Self::bootstrap), and never implicitly.
    pub data_dir: PathBuf,
    /// What all nodes of the cluster share.
    pub cluster_key: ClusterKey,
    /// The address of every node of the cluster, this one's too, `host:port`: of its TCP port, or of its UDP port with
    /// [`Carrier::Quic`]. A name is resolved anew each time it is dialed. With QUIC the death of a leader's process is noticed at
    /// once only if TCP gets through to the same port numbers too; without it, and where leases are on, after an election timeout.
    pub peers: BTreeMap<u64, String>,
    /// Where to listen, if not at this node's own address in `peers`.
    pub listen: Option<SocketAddr>,
    /// What the nodes reach each other by; the same on every node: to change it, stop all of them. [`Carrier::Tcp`] unless set.
    pub carrier: Carrier,
    /// How often a leader says that it leads. 1 ms to 10 s; 100 ms unless set.
    pub heartbeat_interval: Duration,
    /// The shortest a node waits for its leader before it asks for an election (paper §5.2). At least twice
    /// `heartbeat_interval`; 300 ms unless set.
    pub election_timeout_min: Duration,
    /// The longest; nodes share out the time between the two in the order of their ids. Above `election_timeout_min`, at
    /// most 10 min; 600 ms unless set.
    pub election_timeout_max: Duration,
    /// How long an append or a read may take unless the caller says so. 1 ms to 1 h; 10 s unless set.
    pub request_timeout: Duration,
    /// The largest entry, in bytes. Up to `batch_bytes_max`; 1 MiB unless set. The same on every node.
    pub entry_bytes_max: usize,
    /// The largest batch of entries that is appended as one, in bytes, with 4 bytes for each. Up to 256 MiB; 4 MiB unless set.
    /// The same on every node.
    pub batch_bytes_max: usize,
    /// How many bytes of appends a node takes in before they are answered; more is refused as overloaded. At least
    /// `batch_bytes_max` and 64 KiB; 64 MiB unless set. As many reads may wait as there would be room for empty appends, each
    /// counted with 256 bytes. Answers to reads that were given and not yet taken from their futures have as much room again: a
    /// read that finds none waits until one is taken or dropped, or until its time is over; and answers of 4 KiB or more that
    /// were not taken for 250 ms become [`Error::Overloaded`] then.
    pub in_flight_bytes_max: usize,
    /// How many bytes of entries one read gives. At least 4 KiB; 4 MiB unless set.
    pub read_bytes_max: usize,
    /// How many bytes of the newest records are kept in memory. At least 64 KiB; 16 MiB unless set.
    pub tail_bytes_max: usize,
    /// Length of a file of the log, in bytes. 1 MiB to 1 GiB, at least twice `batch_bytes_max`; 64 MiB unless set.
    pub segment_bytes: u64,
    /// Whether an append whose answer was lost is sent again by the node, in a session of its own, so that it takes effect once
    /// (dissertation §6.3). On unless set; without, its outcome is unknown.
    pub sessions: bool,
    /// How long a session may be silent before it is forgotten, by the time that passes for the cluster under its leaders. Whole
    /// seconds, 1 s to 1 year; 1 h unless set. What the leader says that opens a session holds for that session; the same for
    /// the other limits of sessions.
    pub session_ttl: Duration,
    /// How many sessions there may be; one more takes the place of the one that was silent for longest. From 1 to 1 million;
    /// 2000 unless set. All together remember at most 512 MiB.
    pub sessions_max: usize,
    /// How many bytes of answers a session remembers, each counted with 64 bytes and what the state machine gave back. 1 KiB to
    /// 1 GiB; 256 KiB unless set. The node's own session has as many appends without an answer at most as such answers without
    /// anything from the machine have room here: 4096 unless set, never above 16384; more wait. Where answers are so large that this forgets one which may still be asked for, a retry of
    /// that append fails as [`Error::SessionStale`].
    pub session_answers_bytes_max: usize,
    /// When snapshots of a state machine are taken. Each node takes its own; a node without a machine takes none.
    pub snapshots: SnapshotPolicy,
    /// How many bytes of the log of a node without a state machine are kept at least; what is older is forgotten, a whole file
    /// of the log at a time, so that disk use stays below this and some three times `segment_bytes`. At least 1 MiB;
    /// `None`, the default, keeps everything. The leader's setting counts: set the same on every node. What is forgotten is written over
    /// again; a log that keeps everything has the disk fill as many new bytes with zeros as it takes in, which costs throughput under
    /// full load.
    pub retention_bytes: Option<u64>,
    /// How old the entries of a log without a state machine are at least when they are forgotten: so much time has passed under
    /// leaders of the cluster, whatever the dates of its nodes are; a change of leader may cost up to a minute of it. At
    /// least 1 s; `None`, the default, keeps everything. Where both are set, what either lets go goes.
    pub retention_age: Option<Duration>,
    /// Turns leases on ([`Consistency::Lease`](crate::Consistency)): by how many millionths one node's clock may run faster than
    /// another's. 1 to 999,999; `None`, the default, has no leases. Wrong answers are possible if a clock does not keep the
    /// bound (one that stops while its machine sleeps does not; on Linux a node's goes on), or if nodes differ in this or in `election_timeout_min`: to
    /// change either, stop all nodes.
    pub lease_drift_ppm: Option<u32>,
    /// The schema of this program's entries or commands: a number of its own, told with each ([`Entry::schema`](crate::Entry),
    /// [`At::schema`](crate::At)), so that a later program can tell them apart. 0 unless set. `docs/EVOLVING.md` shows its use.
    pub schema: u32,
    /// Whether the data directory may be elsewhere than where it was last started: another directory, device or machine. Off
    /// unless set, so that a copy that is older than what the node has promised, or that runs beside the original, does not start.
    /// To be set for one start, after the directory was moved or the newest copy of it was put back, and never for any other copy:
    /// either of these costs acknowledged entries.
    pub moved: bool,
    pub(crate) socket: Option<Socket>,
    pub(crate) memory: Option<Arc<LocalNetwork>>,
}

impl Config {
    /// The defaults for `node` of the cluster of this key.
    ///
    /// From nothing to a cluster: a key is made once, and copied to every machine. Each node is configured with its own id and
    /// directory and with the addresses of all, and makes its directory once. From then on it is only started.
    ///
    /// ```
    /// use kontiki::{ClusterKey, Config, Error, LogOnly, RaftNode};
    /// use std::path::Path;
    ///
    /// /// What every start of a node does. `first` is its very first one.
    /// fn start(dir: &Path, node: u64, first: bool) -> Result<kontiki::BlockingHandle<String>, Error> {
    ///     let key = ClusterKey::load(dir.join("cluster.key"))?;
    ///     // One node; three have an entry each: (1, "a.example:7400"), (2, "b.example:7400"), (3, "c.example:7400").
    ///     let mut config = Config::new(node, dir.join("data"), key, [(1, "127.0.0.1:0")]);
    ///     config.segment_bytes = 16 << 20;
    ///     if first {
    ///         config.bootstrap()?;
    ///     }
    ///     Ok(RaftNode::<LogOnly<String>>::new(config)?.start()?.blocking())
    /// }
    ///
    /// # fn main() -> Result<(), Error> {
    /// # let dir = std::env::temp_dir().join(format!("kontiki-new-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir).unwrap();
    /// // Once for the whole cluster; readable for its owner only.
    /// ClusterKey::generate()?.save(dir.join("cluster.key"))?;
    ///
    /// let node = start(&dir, 1, true)?;
    /// node.append("hello")?;
    /// node.shutdown()?;
    ///
    /// let node = start(&dir, 1, false)?;
    /// assert_eq!(node.append("again")?.last, 2);
    /// # node.shutdown()?;
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new<A: Into<String>>(
        node: u64,
        data_dir: impl Into<PathBuf>,
        cluster_key: ClusterKey,
        peers: impl IntoIterator<Item = (u64, A)>,
    ) -> Self {
        Self {
            node,
            data_dir: data_dir.into(),
            cluster_key,
            peers: peers
                .into_iter()
                .map(|(id, address)| (id, address.into()))
                .collect(),
            listen: None,
            carrier: Carrier::default(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            request_timeout: Duration::from_secs(10),
            entry_bytes_max: 1 << 20,
            batch_bytes_max: 4 << 20,
            in_flight_bytes_max: 64 << 20,
            read_bytes_max: 4 << 20,
            tail_bytes_max: 16 << 20,
            segment_bytes: 64 << 20,
            sessions: true,
            session_ttl: Duration::from_secs(3600),
            sessions_max: 2000,
            session_answers_bytes_max: 256 << 10,
            snapshots: SnapshotPolicy::default(),
            retention_bytes: None,
            retention_age: None,
            lease_drift_ppm: None,
            schema: 0,
            moved: false,
            socket: None,
            memory: None,
        }
    }

    /// A cluster in this process, without disk and without network: for tests and benches. All is lost with the nodes. What is
    /// asked by a caller who is alone is done by all nodes on that caller's thread, within the call.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no randomness.
    pub fn in_memory(nodes: u64) -> Result<Vec<Self>, Error> {
        let (key, network) = (ClusterKey::generate()?, Arc::new(LocalNetwork::default()));
        let peers: BTreeMap<u64, String> = (1..=nodes).map(|id| (id, format!("memory:{id}"))).collect();
        let config = |node| {
            let mut config = Self::new(
                node,
                PathBuf::from(format!("memory:{node}")),
                key.clone(),
                peers.clone(),
            );
            config.memory = Some(network.clone());
            config.segment_bytes = SMALL_SEGMENT_BYTES;
            config
        };
        Ok((1..=nodes).map(config).collect())
    }

    /// A cluster in this process with real directories and a real network: for trying out. Its ports are free ones of
    /// 127.0.0.1; node k keeps its log in `dir/nk`. What is in `dir` already is used again.
    ///
    /// # Errors
    /// If key or directories cannot be made or read, or no sockets can be had.
    pub fn loopback(nodes: u64, dir: impl AsRef<Path>) -> Result<Vec<Self>, Error> {
        let dir = dir.as_ref();
        make_private(dir).map_err(|error| Error::file("make the directory", dir, &error))?;
        let path = dir.join("cluster.key");
        let found = path.exists();
        let key = if found {
            ClusterKey::load(&path)?
        } else {
            ClusterKey::generate()?
        };
        let bound = |id| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(|socket| (id, socket));
        let no_socket = |error| Error::Io(format!("cannot open a TCP socket on 127.0.0.1: {error}"));
        let sockets: BTreeMap<u64, TcpListener> = (1..=nodes)
            .map(bound)
            .collect::<Result<_, _>>()
            .map_err(no_socket)?;
        let mut peers = BTreeMap::new();
        for (id, socket) in &sockets {
            peers.insert(*id, socket.local_addr().map_err(no_socket)?.to_string());
        }
        let config = |(node, socket)| {
            let dir = dir.join(format!("n{node}"));
            let mut config = Self::new(node, dir, key.clone(), peers.clone()).socket(socket);
            config.segment_bytes = SMALL_SEGMENT_BYTES;
            config
        };
        let configs: Vec<Self> = sockets.into_iter().map(config).collect();
        if !found {
            configs.iter().try_for_each(Self::bootstrap)?;
            key.save(&path)?;
        }
        Ok(configs)
    }

    /// The same on a socket that is bound already, instead of one bound to `listen` or its own address: a
    /// [`TcpListener`], or a [`UdpSocket`](std::net::UdpSocket) for QUIC. `carrier` goes by that.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<Socket>) -> Self {
        let socket = socket.into();
        self.carrier = socket.carrier();
        self.socket = Some(socket);
        self
    }

    /// Makes the data directory: with node id, a random incarnation, and the nodes of `peers` as the first members of
    /// the cluster. To be done once for each node, before its first start, and with the same `peers` for all.
    ///
    /// # Errors
    /// If the settings are not allowed, the directory holds something already, or it cannot be written.
    pub fn bootstrap(&self) -> Result<(), Error> {
        self.check()?;
        if self.memory.is_some() {
            let allowed = "a directory; a node in memory makes its log when it starts";
            return Err(Error::config("data_dir", self.data_dir.display(), allowed));
        }
        // Nobody has to be woken: it is waited for.
        let disk = OsDisk::create(&self.data_dir, || {})?;
        kontiki_log::create(
            disk,
            self.identity(Incarnation(random::number()?)),
            &self.members(),
            self.log_options(),
            Salts::new(random::number()?),
        )?;
        Ok(())
    }

    /// What the records say that open sessions; checked to be within range.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        SessionLimits {
            ttl: u32::try_from(self.session_ttl.as_secs()).unwrap_or(u32::MAX),
            sessions_max: number(self.sessions_max),
            answers_bytes_max: number(self.session_answers_bytes_max),
        }
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    pub(crate) fn identity(&self, incarnation: Incarnation) -> Identity {
        Identity {
            cluster: self.cluster_key.cluster(),
            node: self.node_id(),
            incarnation,
        }
    }

    /// The first members of the cluster.
    pub(crate) fn members(&self) -> Configuration {
        Configuration::of_voters(self.peers.keys().copied().map(NodeId))
    }

    pub(crate) fn log_options(&self) -> LogOptions {
        LogOptions {
            segment_bytes: self.segment_bytes,
            tail_bytes_max: self.tail_bytes_max,
        }
    }

    pub(crate) fn driver(&self, incarnation: Incarnation, lives: Lives) -> DriverConfig {
        DriverConfig {
            group: GroupId::default(),
            identity: self.identity(incarnation),
            lives,
            consensus: Raft {
                heartbeat_interval: nanos(self.heartbeat_interval),
                election_timeout_min: nanos(self.election_timeout_min),
                election_timeout_max: nanos(self.election_timeout_max),
                window_bytes_max: self.window_bytes_max(),
                message_bytes_max: MESSAGE_BYTES_MAX,
                tail_bytes_max: self.tail_bytes_max,
                lease_drift_ppm: self.lease_drift_ppm,
                ..Raft::new(self.node_id())
            },
            in_flight_bytes_max: self.in_flight_bytes_max,
            sessions: self.session_limits(),
            snapshots: SnapshotConfig {
                retain_bytes: self.retention_bytes,
                retain_age: self.retention_age.map(|age| nanos(age).0),
                ..self.snapshots.settings()
            },
            payload_bytes_max: self.batch_bytes_max,
            compare: CompareConfig::default(),
        }
    }

    fn window_bytes_max(&self) -> usize {
        WINDOW_BYTES_MIN.max(2 * self.batch_bytes_max)
    }

    pub(crate) fn limits(&self) -> Limits {
        let defaults = Limits::default();
        let packet = packet_bytes_max(self.batch_bytes_max);
        Limits {
            packet_bytes_max: PacketBytesMax(u32::try_from(packet).unwrap_or(u32::MAX)),
            queue_bytes_max: defaults.queue_bytes_max.max(packet + self.window_bytes_max()),
            ..defaults
        }
    }

    /// The socket to use: the one given, or a new one at `listen` or at this node's own address.
    pub(crate) fn bind(&mut self) -> Result<Socket, Error> {
        if let Some(socket) = self.socket.take() {
            return Ok(socket);
        }
        let own = self.peers.get(&self.node).map(String::as_str).unwrap_or_default();
        let address = match self.listen {
            Some(address) => address,
            None => resolve(own)?,
        };
        Ok(kontiki_transport::bind(self.carrier, address)?)
    }
}

/// A packet holds what a message may, and one batch that was too large for it; and its own head, with a word or two for
/// each run. Twice that leaves room for records smaller than their headers.
const fn packet_bytes_max(batch_bytes_max: usize) -> usize {
    2 * (batch_bytes_max + MESSAGE_BYTES_MAX + OVERHEAD_BYTES)
}

fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn resolve(own: &str) -> Result<SocketAddr, Error> {
    let unknown = |why: String| {
        Error::config(
            "peers",
            format!("{own:?} for this node"),
            format!("an address that resolves ({why})"),
        )
    };
    let mut found = own
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| unknown("it has no address".to_owned()))
}

/// Makes a directory that only its owner can enter, if it is not there.
fn make_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn config() -> Config {
        Config::new(
            1,
            "n1",
            ClusterKey::generate().unwrap(),
            [(1, "127.0.0.1:7401"), (2, "host:7402")],
        )
    }

    #[test]
    fn the_defaults_hold_together_in_every_part() {
        let config = config();
        config.check().unwrap();
        config.limits().check().unwrap();
        config
            .driver(Incarnation(1), Lives::default())
            .consensus
            .check()
            .unwrap();
    }

    #[test]
    fn the_largest_and_smallest_settings_hold_together_in_every_part() {
        for (batch, segment) in [(1, 1 << 20), (BATCH_BYTES_LIMIT, 1 << 30)] {
            let mut config = config();
            (
                config.entry_bytes_max,
                config.batch_bytes_max,
                config.segment_bytes,
            ) = (batch, batch, segment);
            config.in_flight_bytes_max = batch + OVERHEAD_BYTES;
            config.check().unwrap();
            config.limits().check().unwrap();
            config
                .driver(Incarnation(1), Lives::default())
                .consensus
                .check()
                .unwrap();
        }
    }

    #[test]
    fn a_node_in_memory_leaves_no_directory_behind() {
        let config = Config::in_memory(1).unwrap().remove(0);
        let text = config.bootstrap().unwrap_err().to_string();
        assert!(text.starts_with("`data_dir` is memory:1"), "{text}");
        assert!(!config.data_dir.exists());
    }
}
