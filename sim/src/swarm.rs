//! What a run is like, drawn from its seed: how many nodes, how large, and which faults how often.
//!
//! Every run draws its own odds: many runs without a given fault, some with a lot of it, so that no
//! fault always hides another. The two tables here are what is published (`kontiki-sim rates`).

use crate::checkers::memory::Allowance;
use crate::disk::DiskProfile;
use crate::network::NetworkProfile;
use crate::random::{Ppm, Random};
use kontiki_consensus::Duration;
use kontiki_wire::SessionLimits;

/// A fault that comes at times and ends again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// One node loses its power or its process is killed.
    Crash,
    /// A node loses its power exactly between two operations of its disk.
    CrashAtOperation,
    /// All nodes, or as many as make a majority, lose their power at once.
    CrashMany,
    /// Links are cut: halves, one node, a bridge, a ring, or one direction only.
    Partition,
    /// A disk completes nothing.
    Stall,
    /// A node stands still, as if its process had been stopped.
    Pause,
    /// A leader stands still for about as long as the others wait for it.
    Nap,
    /// A leader and another node lose each other, and a while later all others restart at once.
    Blink,
    /// A disk has no room for new files.
    DiskFull,
    /// A disk fails every write and sync.
    DiskBroken,
    /// A node's date jumps.
    ClockJump,
}

/// How often a fault comes, in the runs that have it.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The fault.
    pub fault: Fault,
    /// What it is called in reports.
    pub name: &'static str,
    /// In how many of a hundred runs it comes at all.
    pub in_runs: u32,
    /// The mean time between two of them lies between these, in ms; each order of magnitude is as likely.
    pub every: (u64, u64),
    /// It lasts between these, in ms.
    pub lasts: (u64, u64),
}

/// How often each fault comes.
pub const RATES: [Rate; 11] = [
    Rate {
        fault: Fault::Crash,
        name: "crash of a node",
        in_runs: 75,
        every: (1_500, 24_000),
        lasts: (20, 5_000),
    },
    Rate {
        fault: Fault::CrashAtOperation,
        name: "crash between two disk operations",
        in_runs: 60,
        every: (2_000, 24_000),
        lasts: (10, 3_000),
    },
    Rate {
        fault: Fault::CrashMany,
        name: "crash of a majority",
        in_runs: 40,
        every: (8_000, 32_000),
        lasts: (20, 3_000),
    },
    Rate {
        fault: Fault::Partition,
        name: "partition",
        in_runs: 70,
        every: (2_000, 24_000),
        lasts: (200, 8_000),
    },
    Rate {
        fault: Fault::Stall,
        name: "stalled disk",
        in_runs: 50,
        every: (2_000, 24_000),
        lasts: (100, 4_000),
    },
    Rate {
        fault: Fault::Pause,
        name: "paused node",
        in_runs: 40,
        every: (4_000, 24_000),
        lasts: (50, 3_000),
    },
    Rate {
        fault: Fault::Nap,
        name: "leader paused for about an election timeout",
        in_runs: 40,
        every: (1_000, 16_000),
        // What the timeouts of a run allow; see `World::nap`.
        lasts: (84, 2_880),
    },
    Rate {
        fault: Fault::Blink,
        name: "all but a leader and one cut off from it restart",
        in_runs: 25,
        every: (4_000, 24_000),
        // See `World::blink`.
        lasts: (0, 20),
    },
    Rate {
        fault: Fault::DiskFull,
        name: "full disk",
        in_runs: 20,
        every: (6_000, 24_000),
        lasts: (500, 8_000),
    },
    Rate {
        fault: Fault::DiskBroken,
        name: "failing disk",
        in_runs: 20,
        every: (8_000, 32_000),
        lasts: (20, 5_000),
    },
    Rate {
        fault: Fault::ClockJump,
        name: "jump of the date",
        in_runs: 30,
        every: (3_000, 24_000),
        lasts: (0, 0),
    },
];

/// How often something goes wrong with each packet or each operation, in the runs that have it.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// What it is called in reports.
    pub name: &'static str,
    /// In how many of a hundred runs it happens at all.
    pub in_runs: u32,
    /// The chance lies between these, in parts of a million; each order of magnitude is as likely.
    pub chance: (u32, u32),
}

const LOSS: Odds = Odds {
    name: "packet lost",
    in_runs: 50,
    chance: (200, 200_000),
};
const TOLD: Odds = Odds {
    name: "sender told of a loss",
    in_runs: 60,
    chance: (10_000, 1_000_000),
};
const DUPLICATES: Odds = Odds {
    name: "packet repeated",
    in_runs: 40,
    chance: (1_000, 300_000),
};
const STRAGGLERS: Odds = Odds {
    name: "packet late by up to 6 s",
    in_runs: 40,
    chance: (1_000, 100_000),
};
const HICCUPS: Odds = Odds {
    name: "disk operation late by up to 1 s",
    in_runs: 30,
    chance: (500, 50_000),
};

/// The odds of packets and disk operations.
pub const ODDS: [Odds; 5] = [LOSS, TOLD, DUPLICATES, STRAGGLERS, HICCUPS];

/// A fault as one run has it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The fault.
    pub fault: Fault,
    /// The mean time between two of them.
    pub every: Duration,
    /// How long it lasts, from and to.
    pub lasts: (Duration, Duration),
}

/// Sizes and times of the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// See `kontiki_consensus::Config`.
    pub heartbeat_interval: Duration,
    /// See `kontiki_consensus::Config`.
    pub election_timeout_min: Duration,
    /// See `kontiki_consensus::Config`.
    pub election_timeout_max: Duration,
    /// See `kontiki_consensus::Config`.
    pub window_bytes_max: usize,
    /// See `kontiki_consensus::Config`.
    pub message_bytes_max: usize,
    /// See `kontiki_consensus::Config`.
    pub tail_bytes_max: usize,
    /// See `kontiki_consensus::Config`.
    pub commit_delay: Duration,
    /// See `kontiki_consensus::Config`; as much as the clocks of the run differ in rate.
    pub lease_drift_ppm: Option<u32>,
    /// See `kontiki_node::DriverConfig`.
    pub in_flight_bytes_max: usize,
    /// See `kontiki_log::LogOptions`.
    pub segment_bytes: u64,
    /// See `kontiki_node::SnapshotConfig`.
    pub retain_bytes: Option<u64>,
    /// See `kontiki_node::SnapshotConfig`.
    pub retain_age: Option<u64>,
    /// See `kontiki_node::SnapshotConfig`.
    pub chunk_bytes: u32,
    /// See `kontiki_node::CompareConfig`.
    pub compare: Duration,
    /// How long a machine takes over a task, about.
    pub task: Duration,
    /// How long it takes over a snapshot at most.
    pub restore: Duration,
}

/// The largest payload a node takes: what fits into the smallest segment with room to spare.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How many there are.
    pub clients: usize,
    /// The mean time between two requests of a client.
    pub think: Duration,
    /// How large an entry is, at most.
    pub entry_bytes_max: usize,
    /// How often a client asks many things at once.
    pub bursts: Ppm,
    /// How often a request goes to a random node and not to the one the client holds for the leader.
    pub elsewhere: Ppm,
    /// The longest time a client waits.
    pub patience: Duration,
    /// How many clients follow the log.
    pub tails: usize,
    /// How many clients have sessions.
    pub sessions: usize,
    /// How long and how much is remembered of their sessions.
    pub limits: SessionLimits,
    /// Whether each node has the appends of its other clients go through a session of its own.
    pub once: bool,
}

/// The program on top of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineKind {
    /// There is none.
    None,
    /// Its state is gone when its node goes down.
    Memory,
    /// Its state is kept.
    Durable,
}

/// When a node takes a snapshot of its machine; see `kontiki_node::SnapshotConfig`.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Once so many bytes of records were applied.
    pub bytes: Option<u64>,
    /// Once there were so many entries.
    pub entries: Option<u64>,
    /// Once the last is so old, in ns.
    pub age: Option<u64>,
    /// How many bytes of the log before it stay.
    pub keep_bytes: u64,
    /// How many bytes of the state are read at once.
    pub piece_bytes: u32,
}

impl Policy {
    fn draw(random: &mut Random) -> Self {
        Self {
            bytes: random
                .chance(Ppm::percent(60))
                .then(|| random.magnitude(100, 64 << 10)),
            entries: random.chance(Ppm::percent(40)).then(|| random.magnitude(1, 300)),
            age: random
                .chance(Ppm::percent(30))
                .then(|| random.magnitude(50_000_000, 20_000_000_000)),
            keep_bytes: if random.chance(Ppm::percent(75)) {
                0
            } else {
                random.magnitude(1, 300 << 10)
            },
            piece_bytes: random.magnitude(1, 4 << 10) as u32,
        }
    }
}

/// How late a packet may be, in ms: longer than several elections, so that what was said in one term
/// arrives in a later one.
pub const STRAGGLE_MS_MAX: u64 = 6_000;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// How many nodes.
    pub nodes: usize,
    /// Their sizes.
    pub sizes: Sizes,
    /// The network.
    pub network: NetworkProfile,
    /// The disk of each node.
    pub disks: Vec<DiskProfile>,
    /// How much faster each node's clock runs, in parts of a million; may be negative.
    pub clock_drift: Vec<i64>,
    /// How long a node takes over what came in.
    pub turn: Duration,
    /// The faults.
    pub plans: Vec<Plan>,
    /// The clients.
    pub habits: Habits,
    /// The machine of every node.
    pub machine: MachineKind,
    /// When snapshots of it are taken.
    pub policy: Policy,
    /// A machine that goes wrong.
    pub wrong: Option<Wrong>,
}

/// A machine that goes wrong once.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// The node, from 0.
    pub node: usize,
    /// From this entry on, at the first chance.
    pub entry: u64,
    /// [`STATE`](crate::machine::STATE) or [`OUTPUT`](crate::machine::OUTPUT).
    pub kind: u8,
}

impl Swarm {
    /// The run of this stream.
    pub fn draw(random: &mut Random) -> Self {
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5]).unwrap_or(&3);
        let slow = random.chance(Ppm::percent(30));
        let leases = random.coin();
        let clock_drift = draw_drift(random, nodes, leases);
        let lease_drift_ppm = leases.then(|| drift_bound(&clock_drift));
        let mut swarm = Self {
            nodes,
            sizes: Sizes {
                lease_drift_ppm,
                ..Sizes::draw(random)
            },
            network: draw_network(random),
            disks: (0..nodes).map(|_| draw_disk(random, slow)).collect(),
            clock_drift,
            turn: Duration(random.magnitude(2_000, 500_000)),
            plans: RATES.iter().filter_map(|rate| rate.draw(random)).collect(),
            habits: Habits::draw(random),
            machine: *random
                .pick(&[
                    MachineKind::None,
                    MachineKind::None,
                    MachineKind::Memory,
                    MachineKind::Durable,
                ])
                .unwrap_or(&MachineKind::None),
            policy: Policy::draw(random),
            wrong: None,
        };
        swarm.draw_comparisons(random);
        swarm.habits.draw_once(random);
        if random.chance(Ppm::percent(50)) {
            swarm.sizes.restore = Duration::from_millis(random.magnitude(1_000, 30_000));
        }
        if swarm.sizes.retain_bytes.is_none() && random.coin() {
            swarm.sizes.retain_age = Some(random.magnitude(500_000_000, 20_000_000_000));
        }
        swarm
    }

    /// How often replicas compare themselves, and in some runs one whose machine goes wrong.
    fn draw_comparisons(&mut self, random: &mut Random) {
        self.sizes.compare = Duration::from_millis(random.magnitude(100, 20_000));
        let node = random.below(self.nodes as u64) as usize;
        let entry = random.between(5, 150);
        let kind = random.between(1, 2) as u8;
        // Of four, two could come to be wrong, and then nobody is right.
        let can = self.machine != MachineKind::None && self.nodes % 2 == 1 && self.nodes > 1;
        if can && random.chance(Ppm::percent(40)) {
            self.sizes.compare = Duration::from_millis(random.magnitude(100, 3_000));
            self.wrong = Some(Wrong { node, entry, kind });
        }
    }

    /// The longest election timeout, by the clock of the slowest node.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        let slowest = self.clock_drift.iter().copied().min().unwrap_or(0);
        let rate = (1_000_000 + slowest).unsigned_abs().max(1);
        Duration(self.sizes.election_timeout_max.0 * 1_000_000 / rate + 1_000_000)
    }
}

impl Rate {
    fn draw(&self, random: &mut Random) -> Option<Plan> {
        let every = Duration::from_millis(random.magnitude(self.every.0, self.every.1));
        let lasts = (
            Duration::from_millis(self.lasts.0),
            Duration::from_millis(self.lasts.1),
        );
        random.chance(Ppm::percent(self.in_runs)).then_some(Plan {
            fault: self.fault,
            every,
            lasts,
        })
    }
}

impl Odds {
    fn draw(&self, random: &mut Random) -> Ppm {
        let chance = random.magnitude(u64::from(self.chance.0), u64::from(self.chance.1)) as u32;
        if random.chance(Ppm::percent(self.in_runs)) {
            Ppm(chance)
        } else {
            Ppm(0)
        }
    }
}

impl Sizes {
    fn draw(random: &mut Random) -> Self {
        let heartbeat = random.between(40, 150);
        let timeout = heartbeat * random.between(3, 8);
        Self {
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_timeout_min: Duration::from_millis(timeout),
            election_timeout_max: Duration::from_millis(timeout * 2),
            window_bytes_max: random.magnitude(256, 256 << 10) as usize,
            message_bytes_max: random.magnitude(128, 64 << 10) as usize,
            tail_bytes_max: random.magnitude(256, 1 << 20) as usize,
            // None in a third of the runs.
            commit_delay: Duration::from_millis(heartbeat % 3 * 5),
            lease_drift_ppm: None,
            in_flight_bytes_max: random.magnitude(2 << 10, 1 << 20) as usize,
            segment_bytes: random.magnitude(64 << 10, 256 << 10) & !4095,
            task: Duration(random.magnitude(5_000, 50_000_000)),
            restore: Duration::from_millis(1_000),
            retain_bytes: random.coin().then(|| random.magnitude(1, 300 << 10)),
            retain_age: None,
            chunk_bytes: random.magnitude(16, 64 << 10) as u32,
            compare: Duration(0),
        }
    }
}

impl Habits {
    fn draw(random: &mut Random) -> Self {
        Self {
            clients: random.between(2, 6) as usize,
            think: Duration::from_millis(random.between(100, 500)),
            entry_bytes_max: random.magnitude(16, 4 << 10) as usize,
            bursts: if random.coin() { Ppm::percent(5) } else { Ppm(0) },
            elsewhere: Ppm::percent(random.between(10, 100) as u32),
            patience: Duration::from_millis(random.magnitude(500, 8_000)),
            tails: random.between(0, 2) as usize,
            sessions: random.between(0, 3) as usize,
            limits: SessionLimits {
                ttl: random.magnitude(3, 60) as u32,
                sessions_max: random.between(2, 8) as u32,
                answers_bytes_max: random.magnitude(300, 16 << 10) as u32,
            },
            once: false,
        }
    }

    /// In two of five runs each node has a session, and all that are in use have room; in half of those they expire while
    /// clients still wait.
    fn draw_once(&mut self, random: &mut Random) {
        self.once = random.chance(Ppm::percent(40));
        if self.once {
            self.limits.sessions_max = random.between(9, 14) as u32;
        }
        if self.once && random.coin() {
            self.limits.ttl = random.between(1, 2) as u32;
            self.patience = Duration::from_millis(random.between(3_000, 10_000));
        }
    }
}

fn draw_network(random: &mut Random) -> NetworkProfile {
    NetworkProfile {
        delay: Duration(random.magnitude(50_000, 20_000_000)),
        stragglers: STRAGGLERS.draw(random),
        straggle: Duration::from_millis(random.magnitude(20, STRAGGLE_MS_MAX)),
        loss: LOSS.draw(random),
        told: TOLD.draw(random),
        duplicates: DUPLICATES.draw(random),
        reorders: random.coin(),
        queue: random.magnitude(16, 4096) as u32,
    }
}

fn draw_disk(random: &mut Random, slow: bool) -> DiskProfile {
    let slower = if slow && random.coin() { 20 } else { 1 };
    DiskProfile {
        write: Duration(random.magnitude(10_000, 500_000)),
        sync: Duration(slower * random.magnitude(100_000, 4_000_000)),
        hiccups: HICCUPS.draw(random),
        hiccup: Duration::from_millis(random.magnitude(20, 1_000)),
    }
}

/// By how many millionths one of these clocks runs faster than another, rounded up.
fn drift_bound(drifts: &[i64]) -> u32 {
    let rates = || drifts.iter().map(|drift| (1_000_000 + drift).unsigned_abs());
    let (slowest, fastest) = (rates().min().unwrap_or(1).max(1), rates().max().unwrap_or(1));
    u32::try_from(((fastest - slowest) * 1_000_000).div_ceil(slowest)).unwrap_or(u32::MAX)
}

/// In runs with leases clocks differ more, so that it matters how long a lease runs.
fn draw_drift(random: &mut Random, nodes: usize, leases: bool) -> Vec<i64> {
    let most = match random.below(10) {
        0..=3 => random.magnitude(100, 50_000),
        4..=6 if leases => random.magnitude(50_000, 200_000),
        _ => 0,
    };
    (0..nodes)
        .map(|_| random.between(0, 2 * most) as i64 - most as i64)
        .collect()
}

/// What the nodes of a run may hold in memory.
pub(crate) fn allowance(swarm: &Swarm) -> Allowance {
    Allowance {
        tail: swarm.sizes.tail_bytes_max,
        window: swarm.sizes.window_bytes_max,
        in_flight: swarm.sizes.in_flight_bytes_max,
        append: PAYLOAD_BYTES_MAX + 1024,
        peers: swarm.nodes - 1,
    }
}

/// How long a follower may take to ask for the next part of a snapshot, and make progress: half of what leaders allow.
pub(crate) fn transfer_patience(swarm: &Swarm) -> Duration {
    Duration(4 * swarm.sizes.election_timeout_min.0)
}

/// How long a leader may go on without hearing a quorum: it looks at every heartbeat.
pub(crate) fn leader_patience(swarm: &Swarm) -> Duration {
    Duration(swarm.sizes.election_timeout_max.0 + swarm.sizes.heartbeat_interval.0)
}
