//! One simulated node: the shipped driver and log over a simulated disk and clock.
//!
//! Invariant: what a node knows without having written it down dies with it. A crash drops driver,
//! log and inbox; only the disk remains, and the next life begins with `Log::open`.

use crate::crowds::Reading;
use crate::desk::Desk;
use crate::disk::SimDisk;
use crate::machine::{Health, Kept, KeyValue};
use crate::ports::Work;
use crate::swarm::{MachineKind, PAYLOAD_BYTES_MAX, Policy, Sizes};
use crate::transitions::Copy;
use kontiki_consensus::{Config, Configuration, Duration, GroupId, Incarnation, Index, NodeId, Time};
use kontiki_log::{Log, LogError, LogOptions, Recovered, Salts, Start};
use kontiki_node::driver::{Counts, Driver, DriverConfig};
use kontiki_node::machine::{Applier, Asked, Source};
use kontiki_node::{CompareConfig, SnapshotConfig};
use kontiki_node::{Input, MachineError};
use kontiki_wire::{ClusterId, Identity, Packet, SessionLimits, StartId, lives::Lives};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The cluster that is simulated.
pub const CLUSTER: ClusterId = ClusterId(0x6b6f_6e74_696b_692d_7369_6d75_6c61_7465);

/// How much a node may have in its inbox before the network drops packets to it.
const INBOX_MAX: usize = 4096;

/// A node's monotonic clock, which may run fast or slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How much faster than the simulator's, in parts of a million.
    drift: i64,
    /// When the process began, by the simulator's clock.
    began: Time,
}

impl Clock {
    /// What it shows at this moment of simulated time.
    #[must_use]
    pub fn shows(&self, now: Time) -> Time {
        let elapsed = u128::from(now.since(self.began).0);
        Time((elapsed * self.rate() / 1_000_000) as u64)
    }

    /// The moment of simulated time at which it shows this.
    #[must_use]
    pub fn moment(&self, local: Time) -> Time {
        let elapsed = (u128::from(local.0) * 1_000_000).div_ceil(self.rate());
        self.began
            .after(Duration(u64::try_from(elapsed).unwrap_or(u64::MAX)))
    }

    fn rate(&self) -> u128 {
        u128::from((1_000_000 + self.drift).unsigned_abs().max(1))
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// The shipped driver.
    pub driver: Driver,
    /// The shipped log.
    pub log: Log<SimDisk>,
    /// The start that it lives.
    pub start: StartId,
    /// The starts of peers that it has met, and those of them that it refuses.
    pub greeted: BTreeSet<StartId>,
    /// See `greeted`.
    pub refused: BTreeSet<StartId>,
    /// What waits for its next turn.
    pub inbox: Vec<Input>,
    /// What stands between its clients and its driver.
    pub desk: Desk,
    /// Which copies of messages the packets in it are, in their order.
    pub copies: Vec<Copy>,
    /// Its clock.
    pub clock: Clock,
    /// When the simulator looks after it next: for its deadline and for its disk.
    pub wake: Time,
    /// The same for its disk.
    pub disk_wake: Time,
    /// Whether a turn is scheduled.
    pub turn_due: bool,
    /// Its disk has failed a write, and its log has had the time to see it.
    pub disk_failed: bool,
    /// The log has said so.
    pub log_failed: bool,
    /// The segment its log was last seen to write to.
    pub segment: u64,
    /// How many segments its log was last seen to have used again.
    pub recycled: u64,
    /// It stands still until then.
    pub paused_until: Time,
    /// The shipped applier, if there is a machine, and what it has to do, with when that is done.
    pub applier: Option<Applier>,
    /// See `applier`.
    pub tasks: VecDeque<(Time, Work)>,
    /// States of which a piece is being read, and when that is done.
    pub sources: VecDeque<(Time, Source)>,
    /// Queries that are answered beside the machine, and when.
    pub asked: VecDeque<(Time, Asked)>,
    /// What its readers have under way.
    pub reading: Reading,
    /// Its machine began with a snapshot, and has not taken it over yet.
    pub restores_at_start: bool,
    /// It began behind a note.
    pub noted: bool,
    /// What its driver was last seen to have counted.
    pub counts: Counts,
    /// How far its machine was when it began: that was committed, whatever this life has heard of it.
    pub resumed: Index,
    /// The record at which it was last compared with others.
    pub compared: Index,
    /// From then on its packets are lost while it stands still: nobody empties the socket's buffer.
    pub deaf_from: Time,
}

impl Process {
    /// Whether its inbox takes anything.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inbox.len() < INBOX_MAX
    }

    /// Puts something into the inbox; false if there is no room.
    pub fn take(&mut self, input: Input) -> bool {
        let room = self.has_room();
        if room {
            self.inbox.push(input);
        }
        room
    }

    /// The messages that wait for its next turn.
    pub fn messages(&self) -> impl Iterator<Item = (Copy, &Packet)> {
        let packets = self.inbox.iter().filter_map(|input| match input {
            Input::Packet(packet) => Some(packet),
            _ => None,
        });
        self.copies.iter().copied().zip(packets)
    }
}

/// A node, up or down.
#[derive(Debug)]
pub struct Replica {
    /// Its name.
    pub node: NodeId,
    /// Its disk.
    pub disk: SimDisk,
    /// Its process, if it is up.
    pub process: Option<Process>,
    /// How often it was started: events for an earlier life are void.
    pub life: u64,
    /// How often it was about to be.
    starts: u64,
    /// It was killed when a name had changed and that was not synced.
    pub was_naming: bool,
    /// Whether it had halted when it went down, if nobody relied on its machine then.
    pub doubts: Option<bool>,
    /// How far its date is off.
    pub date_offset: u64,
    drift: i64,
    sizes: Sizes,
    limits: SessionLimits,
    machine: MachineKind,
    policy: Policy,
    /// Whether each append of its clients is to take effect once.
    once: bool,
    /// What its machine keeps, if it is durable.
    kept: Kept,
    /// What is known of its machine.
    pub health: Arc<Health>,
}

impl Replica {
    /// A node whose data directory holds nothing but the genesis.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn found(
        node: NodeId,
        disk: SimDisk,
        drift: i64,
        sizes: Sizes,
        (machine, policy, limits, once): (MachineKind, Policy, SessionLimits, bool),
        members: &Configuration,
    ) -> Result<Self, LogError> {
        let identity = Identity {
            cluster: CLUSTER,
            node,
            incarnation: Incarnation(1000 + node.0),
        };
        let salts = Salts::new(disk.draw_secret());
        kontiki_log::create(disk.clone(), identity, members, options(&sizes), salts)?;
        Ok(Self {
            node,
            disk,
            process: None,
            life: 0,
            starts: 0,
            was_naming: false,
            doubts: None,
            date_offset: 0,
            drift,
            sizes,
            limits,
            machine,
            policy,
            once,
            kept: Kept::default(),
            health: Arc::default(),
        })
    }

    /// Whether its machine keeps its state.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.machine == MachineKind::Durable
    }

    /// Recovers the log, as a process does when it begins. The disk's clock tells when that is done.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn open(&mut self) -> Result<(Log<SimDisk>, Recovered), LogError> {
        self.starts += 1;
        let start = Start {
            id: StartId(self.node.0 << 32 | self.starts),
            ..Start::default()
        };
        let (disk, options) = (self.disk.clone(), options(&self.sizes));
        let salts = Salts::new(self.disk.draw_secret());
        Log::start(disk, CLUSTER, self.node, options, salts, &start)
    }

    /// A process begins at `now` with the log it has opened.
    pub fn begin(
        &mut self,
        now: Time,
        log: Log<SimDisk>,
        recovered: Recovered,
        seed: u64,
    ) -> Result<(), MachineError> {
        self.life += 1;
        let Recovered {
            incarnation,
            lives,
            restored,
            snapshots,
            note,
            segments,
            ..
        } = recovered;
        let clock = Clock {
            drift: self.drift,
            began: now,
        };
        let start = lives.life.start;
        let (config, begins) = (self.config(incarnation, lives), clock.shows(now));
        let applier = self.applier(seed)?;
        let mut driver = match &applier {
            Some(applier) => Driver::with_machine(config, restored, applier.meta(), seed, begins),
            None => Driver::new(config, restored, seed, begins),
        };
        driver.restore(begins, snapshots, note, segments);
        let noted = driver.counts().resumed > 0;
        let resumed = driver.applied().0;
        let restores_at_start = driver.restores_snapshot();
        self.process = Some(Process {
            driver,
            segment: log.segment(),
            recycled: 0,
            log,
            start,
            greeted: BTreeSet::new(),
            refused: BTreeSet::new(),
            inbox: Vec::new(),
            desk: Desk::new(self.once.then_some(&self.limits)),
            copies: Vec::new(),
            clock,
            wake: Time::MAX,
            disk_wake: Time::MAX,
            turn_due: false,
            disk_failed: false,
            log_failed: false,
            paused_until: Time::ZERO,
            applier,
            tasks: VecDeque::new(),
            sources: VecDeque::new(),
            asked: VecDeque::new(),
            reading: Reading::default(),
            restores_at_start,
            noted,
            counts: Counts::default(),
            resumed,
            compared: Index::ZERO,
            deaf_from: Time::MAX,
        });
        Ok(())
    }

    /// What runs its machine, if it has one.
    fn applier(&self, seed: u64) -> Result<Option<Applier>, MachineError> {
        Ok(match self.machine {
            MachineKind::None => None,
            MachineKind::Memory => Some(Applier::new(KeyValue::in_memory(seed, self.health.clone()))?),
            MachineKind::Durable => Some(Applier::new(KeyValue::durable(
                self.kept.clone(),
                seed,
                self.health.clone(),
            ))?),
        })
    }

    fn config(&self, incarnation: Incarnation, lives: Lives) -> DriverConfig {
        let sizes = &self.sizes;
        DriverConfig {
            group: GroupId::default(),
            identity: Identity {
                cluster: CLUSTER,
                node: self.node,
                incarnation,
            },
            lives,
            consensus: Config {
                heartbeat_interval: sizes.heartbeat_interval,
                election_timeout_min: sizes.election_timeout_min,
                election_timeout_max: sizes.election_timeout_max,
                window_bytes_max: sizes.window_bytes_max,
                message_bytes_max: sizes.message_bytes_max,
                tail_bytes_max: sizes.tail_bytes_max,
                commit_delay: sizes.commit_delay,
                lease_drift_ppm: sizes.lease_drift_ppm,
                ..Config::new(self.node)
            },
            in_flight_bytes_max: sizes.in_flight_bytes_max,
            snapshots: SnapshotConfig {
                retain_bytes: sizes.retain_bytes,
                retain_age: sizes.retain_age,
                chunk_bytes: sizes.chunk_bytes,
                snapshot_bytes: self.policy.bytes,
                snapshot_entries: self.policy.entries,
                snapshot_age: self.policy.age,
                keep_bytes: self.policy.keep_bytes,
                piece_bytes: self.policy.piece_bytes,
                ..SnapshotConfig::default()
            },
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            compare: CompareConfig {
                interval: Some(sizes.compare),
            },
            sessions: self.limits,
        }
    }
}

/// The log's options.
#[must_use]
pub fn options(sizes: &Sizes) -> LogOptions {
    LogOptions {
        segment_bytes: sizes.segment_bytes,
        tail_bytes_max: sizes.tail_bytes_max,
    }
}
