//! Suite *reads*: one entry a read, linearizable, with a lease, and stale, beside etcd's linearizable and serializable reads.

use crate::{
    Failed, Options, Outcome,
    durable::{CLIENTS, ENTRY_BYTES, Rounds, Run, of, pairs},
    etcd::{self, Etcd},
    load::{Figures, Stretch},
    node::{Cluster, Settings},
    process::{Process, RunDir},
    remote::{self, Servers},
    report::{Row, Target, Unit},
};
use std::{path::Path, thread, time::Duration};

const SUITE: &str = "reads";
const ETCD: &str = "etcd";
/// Ours, and whether etcd's beside it are serializable.
const KINDS: [(&str, bool); 3] = [("linearizable", false), ("lease", false), ("stale", true)];
/// With what leases are turned on: generous for the clocks of one machine.
const LEASE_DRIFT_PPM: u32 = 500;
/// How long a cluster is left alone after appends.
const SETTLING: Duration = Duration::from_secs(2);
/// What is there to be read.
const FILL: Stretch = Stretch {
    warm: Duration::ZERO,
    run: Duration::from_millis(200),
};

/// Measures all kinds of reads of all subjects.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let program = remote::build_for(options, &["remote", "plain"])?;
    let version = etcd::version();
    if version.is_none() {
        eprintln!(
            "{SUITE}: etcd is NOT INSTALLED: its rows are missing (Debian: apt-get install etcd-server)"
        );
    }
    let (mut inside, mut outside, mut plain, mut etcd) = <(Rounds, Rounds, Rounds, Rounds)>::default();
    let mut written = Vec::new();
    let run = options.time(Duration::from_secs(3), Duration::from_millis(500));
    let stretch = Stretch { warm: run / 4, run };
    for _ in 0..options.rounds(3) {
        let dir = RunDir::new(&options.dir, "bench-reads")?;
        if options.wants("inside") {
            let (runs, bytes) = run_inside(&dir.path().join("inside"), options, stretch)?;
            inside.push(runs);
            written.push(bytes / (1 << 20) as f64);
        }
        if version.is_some() && options.wants("etcd") {
            etcd.push(run_etcd(&dir.path().join("etcd"), options, stretch)?);
        }
        for (subject, all, read) in [
            ("remote", &mut outside, Servers::read as ReadBy),
            ("plain", &mut plain, Servers::read_plain),
        ] {
            if options.wants(subject) {
                all.push(run_remote(
                    &program,
                    &dir.path().join(subject),
                    options,
                    stretch,
                    read,
                )?);
            }
        }
    }
    let mut rows = rows_of(
        options,
        &[
            ("inside", &inside),
            ("remote", &outside),
            ("remote, plain HTTP", &plain),
        ],
        &etcd,
    );
    let never = Some(Target::Ours(0.0));
    rows.extend(Row::alone(
        SUITE,
        "inside, written to disk while reading",
        Unit::Mebibytes,
        &written,
        never,
    ));
    let notes = format!(
        "reads: three processes, one entry of {ENTRY_BYTES} B a read, closed loop, {}; all at the leader. inside, remote and etcd as in durable.
Kontiki's reads with a lease (drift {LEASE_DRIFT_PPM} ppm) beside etcd's linearizable ones, its stale reads beside etcd's serializable ones: both of these answer from what the node has applied. Every answer was looked at: the entry
asked for was in it.
",
        options.conditions(stretch)
    );
    Ok(Outcome { rows, notes })
}

fn rows_of(options: &Options, shapes: &[(&str, &Rounds)], etcd: &Rounds) -> Vec<Row> {
    let mut rows = Vec::new();
    let all = options.clients(&CLIENTS);
    let cases = KINDS
        .iter()
        .flat_map(|kind| all.iter().map(move |clients| (kind.0, *clients)));
    for (n, (kind, clients)) in cases.enumerate() {
        for (shape, ours) in shapes {
            let case = format!("{shape}, {kind}, {}", of(clients));
            for unit in [Unit::ReadsPerSecond, Unit::P50, Unit::P99] {
                let target = match (*shape, kind, clients, unit) {
                    ("inside" | "remote", "linearizable", 256, Unit::ReadsPerSecond) => {
                        Some(Target::Ratio(25.0))
                    }
                    _ => None,
                };
                if etcd.is_empty() {
                    let runs: Vec<f64> = ours
                        .iter()
                        .filter_map(|round| Some(round.get(n)?.value(unit)))
                        .collect();
                    rows.extend(Row::alone(SUITE, &case, unit, &runs, None));
                } else {
                    rows.extend(Row::new(
                        SUITE,
                        &case,
                        ETCD,
                        unit,
                        &pairs(ours, etcd, n, unit),
                        target,
                    ));
                }
            }
        }
    }
    rows
}

fn run_inside(dir: &Path, options: &Options, stretch: Stretch) -> Result<(Vec<Run>, f64), Failed> {
    let settings = Settings {
        lease_drift_ppm: Some(LEASE_DRIFT_PPM),
        ..Settings::defaults(options)?
    };
    let mut cluster = Cluster::start(dir, 3, settings)?;
    options.pin(&cluster.nodes, cluster.leader)?;
    cluster.append(64, ENTRY_BYTES, FILL)?;
    cluster.check()?;
    // A file of the log may still be made ready for what is to come.
    thread::sleep(SETTLING);
    let written = |cluster: &Cluster| {
        cluster
            .nodes
            .iter()
            .map(Process::written_bytes)
            .sum::<Result<u64, _>>()
    };
    let (mut runs, before) = (Vec::new(), written(&cluster)?);
    for (kind, _) in KINDS {
        for clients in options.clients(&CLIENTS) {
            let read = |cluster: &mut Cluster| cluster.read(kind, clients, stretch);
            runs.push(Run::of(&mut cluster, |cluster| &cluster.nodes, read)?);
        }
    }
    let written = written(&cluster)? - before;
    cluster.check()?;
    cluster.end()?;
    Ok((runs, written as f64))
}

/// How clients of servers read.
type ReadBy = fn(&mut Servers, &str, u32, Stretch) -> Result<Figures, Failed>;

fn run_remote(
    program: &Path,
    dir: &Path,
    options: &Options,
    stretch: Stretch,
    read_by: ReadBy,
) -> Result<Vec<Run>, Failed> {
    let settings = format!("lease_drift_ppm = {LEASE_DRIFT_PPM}");
    let mut servers = Servers::start(program, dir, options.carrier, &settings)?;
    options.pin(&servers.nodes, servers.leader)?;
    servers.append(64, ENTRY_BYTES, FILL)?;
    let mut runs = Vec::new();
    for (kind, _) in KINDS {
        for clients in options.clients(&CLIENTS) {
            let read = |servers: &mut Servers| read_by(servers, kind, clients, stretch);
            runs.push(Run::of(&mut servers, |servers| &servers.nodes, read)?);
        }
    }
    servers.check()?;
    Ok(runs)
}

fn run_etcd(dir: &Path, options: &Options, stretch: Stretch) -> Result<Vec<Run>, Failed> {
    let mut etcd = Etcd::start(dir)?;
    options.pin(&etcd.members, etcd.leader)?;
    etcd.put(64, ENTRY_BYTES, FILL)?;
    let mut read = |serializable| -> Result<Vec<Run>, Failed> {
        let case = |clients| {
            let read = |etcd: &mut Etcd| etcd.range(serializable, clients, stretch);
            Run::of(&mut etcd, |etcd| &etcd.members, read)
        };
        options.clients(&CLIENTS).into_iter().map(case).collect()
    };
    let (linearizable, serializable) = (read(false)?, read(true)?);
    // etcd has no leases for reads: the same stand beside both of ours.
    let runs = KINDS
        .iter()
        .flat_map(|kind| if kind.1 { &serializable } else { &linearizable })
        .copied()
        .collect();
    etcd.check()?;
    Ok(runs)
}
