//! Suite *durable*: three processes, an encrypted network, every entry synced on a majority before it is acknowledged.
//!
//! Subjects take turns: each is started anew, runs all cases, is checked and ended. etcd and the floor are the peers.

use crate::{
    Failed, Options, Outcome,
    bare::Bare,
    etcd::{self, Etcd},
    load::{Figures, Stretch},
    node::{Cluster, Settings},
    process::{Process, RunDir, cpu_of},
    remote::{self, Servers},
    report::{Row, Target, Unit},
};
use kontiki::Carrier;
use std::{path::Path, time::Duration};

const SUITE: &str = "durable";
const ETCD: &str = "etcd";
const FLOOR: &str = "durable floor";
const INSIDE: &str = "inside";
const BOUNDED: &str = "inside, bounded log";

pub(crate) const CLIENTS: [u32; 5] = [1, 16, 64, 256, 1000];
pub(crate) const ENTRY_BYTES: usize = 256;

/// How much of its log is kept by a node whose log is bounded.
const RETENTION_BYTES: u64 = 64 << 20;
/// How many entries are appended to such a log before it is measured: until there are four segments of 64 MiB it has none to write
/// over again.
const ENTRIES_BEFORE: u64 = 800_000;

/// What one case of one run gave.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) figures: Figures,
    /// CPU time of all three servers for each request.
    pub(crate) cpu_nanos: f64,
}

impl Run {
    /// Measures one case, with the CPU time of the servers.
    pub(crate) fn of<S>(
        servers: &mut S,
        processes: fn(&S) -> &Vec<Process>,
        case: impl FnOnce(&mut S) -> Result<Figures, Failed>,
    ) -> Result<Self, Failed> {
        let before = cpu_of(processes(servers))?;
        let figures = case(servers)?;
        let cpu = cpu_of(processes(servers))?.saturating_sub(before);
        Ok(Self {
            figures,
            cpu_nanos: cpu.as_nanos() as f64 / figures.total.max(1) as f64,
        })
    }

    pub(crate) fn value(&self, unit: Unit) -> f64 {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        match unit {
            Unit::P50 => micros(self.figures.p50),
            Unit::P99 => micros(self.figures.p99),
            Unit::P999 => micros(self.figures.p999),
            Unit::P9999 => micros(self.figures.p9999),
            Unit::Longest => micros(self.figures.max) / 1e3,
            Unit::CpuNanosPerEntry => self.cpu_nanos,
            _ => self.figures.per_second,
        }
    }
}

/// All cases of one subject, several times.
pub(crate) type Rounds = Vec<Vec<Run>>;

/// So many clients, in words.
pub(crate) fn of(clients: u32) -> String {
    let s = if clients == 1 { "" } else { "s" };
    format!("{clients} client{s}")
}

/// The pairs of one case.
pub(crate) fn pairs(ours: &Rounds, theirs: &Rounds, case: usize, unit: Unit) -> Vec<(f64, f64)> {
    ours.iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| Some((ours.get(case)?.value(unit), theirs.get(case)?.value(unit))))
        .collect()
}

/// Measures all cases of all subjects.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let program = remote::build_for(options, &["remote", "plain"])?;
    let version = etcd::version();
    if version.is_none() {
        eprintln!(
            "{SUITE}: etcd is NOT INSTALLED: its rows are missing (Debian: apt-get install etcd-server)"
        );
    }
    let (mut inside, mut bounded) = <(Rounds, Rounds)>::default();
    let (mut outside, mut plain) = <(Rounds, Rounds)>::default();
    let (mut etcd, mut floor) = <(Rounds, Rounds)>::default();
    let clients = options.clients(&CLIENTS);
    for _ in 0..options.rounds(3) {
        let dir = RunDir::new(&options.dir, "bench-durable")?;
        let case = Case {
            options,
            clients: &clients,
            stretch: options.stretch(),
        };
        let measure = |subject: &str, all: &mut Rounds, run: &dyn Fn(&Path) -> Result<Vec<Run>, Failed>| {
            if options.wants(subject) {
                all.push(run(&dir.path().join(subject))?);
            }
            Ok::<_, Failed>(())
        };
        measure("inside", &mut inside, &|dir| run_inside(dir, &case, None))?;
        // Until such a log writes its segments over again takes some seconds.
        if options.wants_slow("bounded") {
            measure("bounded", &mut bounded, &|dir| {
                run_inside(dir, &case, Some(RETENTION_BYTES))
            })?;
        }
        if version.is_some() {
            measure("etcd", &mut etcd, &|dir| run_etcd(dir, &case))?;
        }
        measure("remote", &mut outside, &|dir| {
            run_remote(&program, dir, &case, Servers::append)
        })?;
        measure("plain", &mut plain, &|dir| {
            run_remote(&program, dir, &case, Servers::append_plain)
        })?;
        measure("floor", &mut floor, &|_| run_floor(dir.path(), &case))?;
    }
    let shapes = [
        (INSIDE, &inside),
        (BOUNDED, &bounded),
        ("remote", &outside),
        ("remote, plain HTTP", &plain),
    ];
    let mut rows = Vec::new();
    for (n, clients) in clients.iter().enumerate() {
        for (shape, ours) in shapes {
            for (peer, theirs) in [(ETCD, &etcd), (FLOOR, &floor)] {
                if ![INSIDE, BOUNDED].contains(&shape) && peer == FLOOR && !etcd.is_empty() {
                    continue; // Its clients are counted and not connected.
                }
                rows.extend(rows_of(shape, *clients, peer, |unit| {
                    pairs(ours, theirs, n, unit)
                }));
            }
            if etcd.is_empty() && floor.is_empty() {
                rows.extend(rows_alone(shape, *clients, ours, n));
            }
        }
    }
    Ok(Outcome {
        rows,
        notes: notes(options, version.as_deref()),
    })
}

/// What all subjects are measured with.
struct Case<'a> {
    options: &'a Options,
    clients: &'a [u32],
    stretch: Stretch,
}

/// Where no peer was measured.
fn rows_alone(shape: &str, clients: u32, ours: &Rounds, n: usize) -> impl Iterator<Item = Row> {
    let case = format!("{shape}, {}", of(clients));
    UNITS.into_iter().filter_map(move |unit| {
        let runs = ours.iter().filter_map(|round| Some(round.get(n)?.value(unit)));
        Row::alone(SUITE, &case, unit, &runs.collect::<Vec<_>>(), None)
    })
}

const UNITS: [Unit; 5] = [
    Unit::EntriesPerSecond,
    Unit::P50,
    Unit::P99,
    Unit::P999,
    Unit::CpuNanosPerEntry,
];

fn rows_of(
    shape: &'static str,
    clients: u32,
    peer: &'static str,
    pairs: impl Fn(Unit) -> Vec<(f64, f64)>,
) -> impl Iterator<Item = Row> {
    let case = format!("{shape}, {}", of(clients));
    UNITS.into_iter().filter_map(move |unit| {
        let target = target(shape, clients, peer, unit);
        Row::new(SUITE, &case, peer, unit, &pairs(unit), target)
    })
}

fn target(shape: &str, clients: u32, peer: &str, unit: Unit) -> Option<Target> {
    Some(match (shape, clients, peer, unit) {
        (INSIDE, 256 | 1000, ETCD, Unit::EntriesPerSecond) => Target::Ratio(25.0),
        (INSIDE, 256 | 1000, FLOOR, Unit::EntriesPerSecond) => Target::Ratio(0.5),
        (INSIDE, 1, FLOOR, Unit::P50) => Target::Within(1.4),
        (INSIDE, 1, ETCD, Unit::P50) => Target::Within(0.4),
        (INSIDE, 1, FLOOR, Unit::P99) => Target::Within(2.0),
        ("remote", 256 | 1000, ETCD, Unit::EntriesPerSecond) => Target::Ratio(8.0),
        (INSIDE, 256, ETCD, Unit::CpuNanosPerEntry) => Target::Ratio(25.0),
        _ => return None,
    })
}

fn run_inside(dir: &Path, with: &Case<'_>, retention_bytes: Option<u64>) -> Result<Vec<Run>, Failed> {
    let settings = Settings {
        retention_bytes,
        ..Settings::defaults(with.options)?
    };
    let mut cluster = Cluster::start(dir, 3, settings)?;
    with.options.pin(&cluster.nodes, cluster.leader)?;
    while retention_bytes.is_some() && cluster.acknowledged < ENTRIES_BEFORE {
        let before = Stretch {
            warm: Duration::ZERO,
            run: Duration::from_secs(1),
        };
        cluster.append(CLIENTS[CLIENTS.len() - 1], ENTRY_BYTES, before)?;
    }
    let case = |clients: &u32| {
        let append = |cluster: &mut Cluster| cluster.append(*clients, ENTRY_BYTES, with.stretch);
        Run::of(&mut cluster, |cluster| &cluster.nodes, append)
    };
    let runs = with.clients.iter().map(case).collect::<Result<_, _>>()?;
    cluster.check()?;
    cluster.end()?;
    Ok(runs)
}

fn run_remote(
    program: &Path,
    dir: &Path,
    with: &Case<'_>,
    append: fn(&mut Servers, u32, usize, Stretch) -> Result<Figures, Failed>,
) -> Result<Vec<Run>, Failed> {
    let mut servers = Servers::start(program, dir, with.options.carrier, "")?;
    with.options.pin(&servers.nodes, servers.leader)?;
    let case = |clients: &u32| {
        let append = |servers: &mut Servers| append(servers, *clients, ENTRY_BYTES, with.stretch);
        Run::of(&mut servers, |servers| &servers.nodes, append)
    };
    let runs = with.clients.iter().map(case).collect::<Result<_, _>>()?;
    servers.check()?;
    Ok(runs)
}

fn run_etcd(dir: &Path, with: &Case<'_>) -> Result<Vec<Run>, Failed> {
    let mut etcd = Etcd::start(dir)?;
    with.options.pin(&etcd.members, etcd.leader)?;
    let case = |clients: &u32| {
        let put = |etcd: &mut Etcd| etcd.put(*clients, ENTRY_BYTES, with.stretch);
        Run::of(&mut etcd, |etcd| &etcd.members, put)
    };
    let runs = with.clients.iter().map(case).collect::<Result<_, _>>()?;
    etcd.check()?;
    Ok(runs)
}

fn run_floor(dir: &Path, with: &Case<'_>) -> Result<Vec<Run>, Failed> {
    let mut bare = Bare::start(dir)?;
    with.options.pin(&bare.processes, 0)?;
    let case = |clients: &u32| {
        let append = |bare: &mut Bare| bare.append(*clients, ENTRY_BYTES, with.stretch);
        Run::of(&mut bare, |bare| &bare.processes, append)
    };
    let runs = with.clients.iter().map(case).collect::<Result<_, _>>()?;
    bare.check()?;
    Ok(runs)
}

fn notes(options: &Options, version: Option<&str>) -> String {
    let etcd = version.map_or("NOT INSTALLED".into(), |version| {
        format!("{version}, its defaults, gRPC, ten clients a connection, each client puts its own key, all at the leader")
    });
    format!(
        "durable: three processes on one machine and one disk, {ENTRY_BYTES} B an entry, closed loop, {}. Each subject anew in each round,
one after the other. inside: the clients are tasks of the leader's program, whose CPU time counts as the server's; bounded log: the
last {} MiB are kept, so that segments are written over again, as the floor's file, and no new ones are filled with zeros;
remote: clients in a process of their own, ten on a channel (frames both ways), as many connections as etcd gets; plain HTTP:
HTTP/1.1, one connection each; all at the leader. Kontiki: {} between the nodes;
etcd: {etcd}, no TLS; floor: TCP, no TLS, no checksums, clients are only counted.
Checked after each run: all three hold the same (ours: every entry that is kept read back, each client's in order; etcd: HashKV and versions
of the keys; floor: the files) and exactly what was acknowledged.
",
        options.conditions(options.stretch()),
        RETENTION_BYTES >> 20,
        match options.carrier {
            Carrier::Quic => "QUIC",
            _ => "TLS over TCP",
        },
    )
}
