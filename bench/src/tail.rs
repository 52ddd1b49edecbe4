//! Suite *tail*: minutes at 70 % of what is possible, with a log that forgets its past; the slowest appends.

use crate::{
    Failed, Options, Outcome,
    durable::{ENTRY_BYTES, Run},
    etcd::{self, Etcd},
    load::{Figures, Stretch},
    node::{Cluster, Settings},
    process::RunDir,
    report::{Row, Unit},
};
use std::{path::Path, time::Duration};

const SUITE: &str = "tail";
const CLIENTS: u32 = 256;
const LOAD: f64 = 0.7;
const RETENTION_BYTES: u64 = 256 << 20;

/// Measures ours, then etcd.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let time = options.time(Duration::from_secs(600), Duration::from_secs(12));
    let version = etcd::version();
    let dir = RunDir::new(&options.dir, "bench-tail")?;
    let ours = ours(&dir.path().join("kontiki"), options, time)?;
    let theirs = match version {
        Some(_) => Some(theirs(&dir.path().join("etcd"), options, time)?),
        None => {
            eprintln!(
                "{SUITE}: etcd is NOT INSTALLED: its rows are missing (Debian: apt-get install etcd-server)"
            );
            None
        }
    };
    let value = |figures: Figures, unit| {
        let run = Run {
            figures,
            cpu_nanos: 0.0,
        };
        run.value(unit)
    };
    let mut rows = Vec::new();
    for unit in [
        Unit::EntriesPerSecond,
        Unit::P50,
        Unit::P99,
        Unit::P999,
        Unit::P9999,
        Unit::Longest,
    ] {
        let case = "inside, at 70 % load";
        rows.extend(match theirs {
            Some(theirs) => Row::new(
                SUITE,
                case,
                "etcd",
                unit,
                &[(value(ours, unit), value(theirs, unit))],
                None,
            ),
            None => Row::alone(SUITE, case, unit, &[value(ours, unit)], None),
        });
    }
    let notes = format!(
        "tail: three processes, {ENTRY_BYTES} B, {}; appends come at their times, whether or not those before are
answered: 70 % of what {CLIENTS} clients reach in a closed loop just before, each side of its own. An append is timed from when it was handed over,
or from when it was due if that is more than 5 ms earlier. Kontiki forgets its log beyond {} MiB meanwhile; etcd makes a snapshot every 100000 puts.
Checked: all nodes hold the same, and as many entries as were acknowledged.
",
        options.conditions(Stretch { warm: time / 10, run: time }),
        RETENTION_BYTES >> 20
    );
    Ok(Outcome { rows, notes })
}

fn probe_stretch(options: &Options) -> Stretch {
    let run = if options.quick { 1 } else { 5 };
    Stretch {
        warm: Duration::from_secs(run) / 2,
        run: Duration::from_secs(run),
    }
}

fn ours(dir: &Path, options: &Options, time: Duration) -> Result<Figures, Failed> {
    let settings = Settings {
        retention_bytes: Some(RETENTION_BYTES),
        ..Settings::defaults()?
    };
    let mut cluster = Cluster::start(dir, 3, settings)?;
    options.pin(&cluster.nodes, cluster.leader)?;
    let most = cluster
        .append(CLIENTS, ENTRY_BYTES, probe_stretch(options))?
        .per_second;
    let stretch = Stretch {
        warm: time / 10,
        run: time,
    };
    let figures = cluster.paced(most * LOAD, ENTRY_BYTES, stretch)?;
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
