//! What a snapshot of a large state costs those who append: the latency of appends while no snapshot is taken, while one
//! is, and while a follower that was left behind is sent one.
//!
//! The load is the same all the while, far below what the nodes can do, so that it is the snapshot that is measured and not
//! a queue. All three nodes share this machine's disk and cores, and take their snapshots at about the same time.

use crate::{
    Failed,
    args::Args,
    cluster::{Cluster, Told},
    node::Nodes,
    watch::mib,
};
use std::{
    fs,
    time::{Duration, Instant},
};

const QUIET: u64 = 0;
const SNAPSHOT: u64 = 1;
const TRANSFER: u64 = 2;
const NAMES: [&str; 3] = ["no snapshot", "a snapshot is taken", "a snapshot is sent"];

pub(crate) fn run(args: Args) -> Result<(), Failed> {
    let (seconds, dir) = (Duration::from_secs(args.seconds), args.dir.clone());
    let mut cluster = Cluster::new(Nodes::new(args)?);
    let measured = cluster.program.args.words.clone();
    // While it is filled no snapshot is to be taken.
    cluster
        .program
        .args
        .words
        .extend(["--snapshot-entries", "0", "--snapshot-bytes", "1000000000000"].map(str::to_owned));
    fill(&mut cluster)?;
    let filled = cluster.peaks();
    cluster.program.args.words = measured;
    for id in cluster.ids() {
        cluster.kill(id)?;
    }
    for id in cluster.ids() {
        cluster.start(id)?;
    }
    let all = cluster.ids();
    cluster.until("the first snapshots", |cluster| {
        all.iter()
            .all(|id| cluster.told(*id, "taken") > 0 && cluster.told(*id, "reading") == 0)
    })?;
    let leader = cluster.leader()?;
    cluster.order(leader, "measure")?;
    watch(&mut cluster, leader, seconds)?;
    let peaks = cluster.peaks();
    send(&mut cluster, leader)?;
    let sent = cluster.peaks();
    cluster.order(leader, "end")?;
    tell(&mut cluster, leader)?;
    for (what, peaks) in [("filled", filled), ("taken", peaks), ("sent", sent)] {
        let all = peaks
            .all()
            .map(|(name, bytes)| format!("{name} {} MiB", mib(bytes)));
        println!("  at most while it was {what}: {}", all.join(", "));
    }
    cluster.end()?;
    Ok(fs::remove_dir_all(dir)?)
}

/// Lets the leader put every key once.
fn fill(cluster: &mut Cluster<Nodes>) -> Result<(), Failed> {
    for id in cluster.ids() {
        cluster.start(id)?;
    }
    let leader = cluster.leader()?;
    cluster.order(leader, "fill")?;
    let keys = cluster.program.args.keys;
    cluster.until("every key", |cluster| {
        cluster.ids().iter().all(|id| cluster.told(*id, "commit") >= keys)
    })?;
    cluster.note(&format!(
        "{keys} keys with values of {} bytes",
        cluster.program.args.value_bytes
    ));
    Ok(())
}

/// Tells the leader of each change of phase while it lasts.
fn phases(
    cluster: &mut Cluster<Nodes>,
    leader: u64,
    transfer: bool,
    mut done: impl FnMut(&Cluster<Nodes>) -> bool,
) -> Result<(), Failed> {
    let mut told = u64::MAX;
    loop {
        let phase = match (transfer, cluster.most("reading")) {
            (true, _) => TRANSFER,
            (false, 0) => QUIET,
            (false, _) => SNAPSHOT,
        };
        if phase != told {
            told = phase;
            cluster.order(leader, &format!("phase {phase}"))?;
        }
        if done(cluster) {
            return Ok(());
        }
        let before = cluster.most("reading");
        let mut listened = false;
        cluster.until("anything", |cluster| {
            let change = listened || cluster.most("reading") != before;
            listened = true;
            change
        })?;
    }
}

fn watch(cluster: &mut Cluster<Nodes>, leader: u64, time: Duration) -> Result<(), Failed> {
    let began = Instant::now();
    phases(cluster, leader, false, |_| began.elapsed() > time)?;
    let (taken, _) = cluster.snapshots();
    cluster.note(&format!("{taken} snapshots were taken in all"));
    Ok(())
}

/// Leaves a follower behind until the log no longer reaches back to it, and lets it come back.
fn send(cluster: &mut Cluster<Nodes>, leader: u64) -> Result<(), Failed> {
    let follower = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .ok_or("no follower")?;
    let last = cluster.told(follower, "commit");
    cluster.kill(follower)?;
    phases(cluster, leader, false, |cluster| {
        cluster.told(leader, "first") > last + 1 && cluster.most("reading") == 0
    })?;
    let began = Instant::now();
    cluster.start(follower)?;
    phases(cluster, leader, true, |cluster| {
        cluster.told(follower, "restored") > 0
    })?;
    cluster.note(&format!(
        "sent and restored in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn tell(cluster: &mut Cluster<Nodes>, leader: u64) -> Result<(), Failed> {
    let mut ended = false;
    let mut phases: Vec<Told> = Vec::new();
    while !ended {
        let mut listened = false;
        cluster.until("what was measured", |_| std::mem::replace(&mut listened, true))?;
        while let Some(phase) = cluster.take(leader, "phase") {
            phases.push(phase);
        }
        ended = cluster.take(leader, "ended").is_some();
    }
    let of = |phase: u64, what: &str| {
        let told = phases.iter().find(|told| told.get("number") == Some(&phase));
        told.and_then(|told| told.get(what)).copied().unwrap_or(0)
    };
    let quiet = of(QUIET, "p99").max(1);
    for (phase, name) in (0..).zip(NAMES) {
        println!(
            "  {name:<20} {:>7} appends  p50 {:>6} µs  p99 {:>6} µs ({:.2} of that without)  p99.9 {:>6} µs",
            of(phase, "count"),
            of(phase, "p50"),
            of(phase, "p99"),
            of(phase, "p99") as f64 / quiet as f64,
            of(phase, "p999"),
        );
    }
    Ok(())
}
