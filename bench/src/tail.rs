//! Suite *tail*: minutes at 70 % of what is possible, with a log that forgets its past or a machine that takes
//! snapshots; the slowest appends.

use crate::{
    Failed, Options, Outcome,
    durable::{ENTRY_BYTES, Run},
    etcd::{self, Etcd},
    load::{Figures, Stretch},
    machine::Shape,
    node::{Cluster, Settings},
    process::{PATIENCE, RunDir},
    report::{Row, Unit},
};
use std::{path::Path, time::Duration};

const SUITE: &str = "tail";
const CLIENTS: u32 = 256;
const LOAD: f64 = 0.7;
const RETENTION_BYTES: u64 = 256 << 20;

/// Measures ours, then etcd.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let time = options.time(Duration::from_secs(600), Duration::from_secs(8));
    let dir = RunDir::new(&options.dir, "bench-tail")?;
    let mut cases = Vec::new();
    for (case, title, settings) in [
        ("log", "a log", plain(options)?),
        ("machine", "a machine with snapshots", machine(options)?),
    ] {
        if options.wants(case) {
            cases.push((title, ours(&dir.path().join(case), options, time, settings)?));
        }
    }
    let theirs = match etcd::version() {
        _ if !options.wants("etcd") => None,
        Some(_) => Some(theirs(&dir.path().join("etcd"), options, time)?),
        None => {
            eprintln!(
                "{SUITE}: etcd is NOT INSTALLED: its rows are missing (Debian: apt-get install etcd-server)"
            );
            None
        }
    };
    let load = options
        .rate
        .map_or("70 % load".into(), |rate| format!("{rate} a second"));
    let rows = cases
        .into_iter()
        .flat_map(|(title, ours)| rows_of(&format!("{title} at {load}"), ours, theirs))
        .collect();
    let notes = format!(
        "tail: three processes, {ENTRY_BYTES} B, {}; appends come at their times, whether or not those before are
answered: unless a rate was given, 70 % of what {CLIENTS} clients reach in a closed loop just before, each side of its own. An append is timed from when it was handed over,
or from when it was due if that is more than 5 ms earlier. The log forgets what is beyond {} MiB meanwhile; the machine has a state
of {} MiB in memory, written in random places, and takes a snapshot every {} MiB of commands on every node; etcd makes one every 100000 puts.
Checked: all nodes hold the same, and as many entries as were acknowledged.
",
        options.conditions(Stretch { warm: time / 10, run: time }),
        RETENTION_BYTES >> 20,
        snapshot_bytes(options) >> 20,
        snapshot_bytes(options) >> 20
    );
    Ok(Outcome { rows, notes })
}

/// All that is told of one case.
fn rows_of(case: &str, ours: Figures, theirs: Option<Figures>) -> Vec<Row> {
    let value = |figures: Figures, unit| {
        let run = Run {
            figures,
            cpu_nanos: 0.0,
        };
        run.value(unit)
    };
    let units = [
        Unit::EntriesPerSecond,
        Unit::P50,
        Unit::P99,
        Unit::P999,
        Unit::P9999,
        Unit::Longest,
    ];
    let row = |unit| {
        let ours = value(ours, unit);
        match theirs {
            Some(theirs) => Row::new(SUITE, case, "etcd", unit, &[(ours, value(theirs, unit))], None),
            None => Row::alone(SUITE, case, unit, &[ours], None),
        }
    };
    units.into_iter().filter_map(row).collect()
}

/// A log that forgets.
fn plain(options: &Options) -> Result<Settings, Failed> {
    Ok(Settings {
        retention_bytes: Some(RETENTION_BYTES),
        ..Settings::defaults(options)?
    })
}

/// A machine that takes snapshots.
fn machine(options: &Options) -> Result<Settings, Failed> {
    let bytes = snapshot_bytes(options);
    Ok(Settings {
        machine: Some(Shape {
            // One is never taken before as much was written as the last one has.
            state_bytes: bytes as usize,
            snapshot_bytes: bytes,
            keep_bytes: bytes,
        }),
        ..Settings::defaults(options)?
    })
}

/// How long the state is, and after how many bytes of commands a snapshot is taken: the library's own default, unless there is
/// no time for that much.
fn snapshot_bytes(options: &Options) -> u64 {
    if options.quick { 4 << 20 } else { 64 << 20 }
}

fn probe_stretch(options: &Options) -> Stretch {
    let run = if options.quick { 1 } else { 5 };
    Stretch {
        warm: Duration::from_secs(run) / 2,
        run: Duration::from_secs(run),
    }
}

fn ours(dir: &Path, options: &Options, time: Duration, settings: Settings) -> Result<Figures, Failed> {
    let mut cluster = Cluster::start(dir, 3, settings)?;
    options.pin(&cluster.nodes, cluster.leader)?;
    let most = cluster
        .append(CLIENTS, ENTRY_BYTES, probe_stretch(options))?
        .per_second;
    let rate = options.rate.map_or(most * LOAD, f64::from);
    let stretch = Stretch {
        warm: time / 10,
        run: time,
    };
    let figures = cluster.paced(rate, ENTRY_BYTES, stretch)?;
    for node in cluster.nodes.iter_mut().filter(|_| settings.machine.is_some()) {
        if node.ask("snapshot", PATIENCE)? == "0" {
            eprintln!("{SUITE}: a node took NO SNAPSHOT meanwhile: the run was too short for its load");
        }
    }
    cluster.check()?;
    cluster.end()?;
    Ok(figures)
}

fn theirs(dir: &Path, options: &Options, time: Duration) -> Result<Figures, Failed> {
    let mut etcd = Etcd::start(dir)?;
    options.pin(&etcd.members, etcd.leader)?;
    let most = etcd.put(CLIENTS, ENTRY_BYTES, probe_stretch(options))?.per_second;
    let stretch = Stretch {
        warm: time / 10,
        run: time,
    };
    let figures = etcd.paced(most * LOAD, ENTRY_BYTES, stretch)?;
    etcd.check()?;
    Ok(figures)
}
