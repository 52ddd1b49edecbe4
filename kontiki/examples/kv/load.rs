//! A long load on three processes that are killed in between: one follower stays down until the log no longer reaches back
//! to where it was, a leader is killed, all are killed at once. In the end all hold the same, and neither memory nor disk
//! has grown with the number of entries.

use crate::{
    Failed,
    args::Args,
    cluster::{Cluster, Peaks},
    watch::mib,
};
use std::{thread, time::Duration};

/// How long a node that is killed for a moment stays down.
const MOMENT: Duration = Duration::from_millis(700);
/// How much more may be taken in the second half of the run than in the first, in bytes and as a part.
const SLACK_BYTES: u64 = 32 << 20;
const SLACK_PART: f64 = 0.25;

pub(crate) fn run(args: Args) -> Result<(), Failed> {
    let (rounds, entries) = (args.rounds.max(1), args.entries);
    let mut cluster = Cluster::new(args)?;
    for id in cluster.ids() {
        up(&mut cluster, id)?;
    }
    let mut halves = [Peaks::default(); 2];
    for round in 1..=rounds {
        let mark = entries / (rounds + 1) * round;
        cluster.until("entries", |cluster| cluster.most("commit") >= mark)?;
        trouble(&mut cluster, round)?;
        if round == rounds.div_ceil(2) {
            halves[0] = cluster.peaks();
        }
    }
    finish(&mut cluster, entries)?;
    halves[1] = cluster.peaks();
    cluster.compare()?;
    let (taken, restored) = cluster.snapshots();
    cluster.note(&format!(
        "{} entries, equal on all nodes; {taken} snapshots taken, {restored} restored",
        cluster.most("commit")
    ));
    judge(halves, restored)?;
    cluster.end()
}

/// What happens in one round.
fn trouble(cluster: &mut Cluster, round: u64) -> Result<(), Failed> {
    leave_behind(cluster)?;
    let leader = cluster.leader()?;
    cluster.kill(leader)?;
    cluster.until("another leader", |cluster| cluster.most("leader") == 1)?;
    up(cluster, leader)?;
    if round.is_multiple_of(2) {
        for id in cluster.ids() {
            cluster.kill(id)?;
        }
        thread::sleep(MOMENT);
        for id in cluster.ids() {
            up(cluster, id)?;
        }
        cluster.leader()?;
    }
    Ok(())
}

fn up(cluster: &mut Cluster, id: u64) -> Result<(), Failed> {
    cluster.start(id)?;
    cluster.order(id, "load")
}

/// Keeps a follower down until what it lacks is gone from the log of those who run, then lets it come back.
fn leave_behind(cluster: &mut Cluster) -> Result<(), Failed> {
    let leader = cluster.leader()?;
    let follower = cluster.ids().into_iter().find(|id| *id != leader);
    let follower = follower.ok_or("no follower")?;
    let last = cluster.told(follower, "commit");
    cluster.kill(follower)?;
    let entries = cluster.args.entries;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != follower).collect();
    let gone = |cluster: &Cluster| others.iter().all(|id| cluster.told(*id, "first") > last + 1);
    cluster.until("the log to forget what a follower lacks", |cluster| {
        gone(cluster) || cluster.most("commit") >= entries
    })?;
    let was_gone = gone(cluster);
    cluster.note(&match was_gone {
        true => format!("what node {follower} lacks is gone: the log begins after entry {last}"),
        false => format!("the load has ended before what node {follower} lacks was gone"),
    });
    up(cluster, follower)?;
    let there = cluster.most("commit");
    cluster.until("the follower to come back", |cluster| {
        cluster.told(follower, "commit") >= there
    })?;
    let restored = cluster.told(follower, "restored");
    cluster.note(&format!(
        "node {follower} is back, with {restored} snapshots restored"
    ));
    match (was_gone, restored) {
        (true, 0) => Err("it came back without a snapshot, though the log did not reach back to it".into()),
        _ => Ok(()),
    }
}

/// Waits until every node has everything.
fn finish(cluster: &mut Cluster, entries: u64) -> Result<(), Failed> {
    cluster.until("the last entry", |cluster| cluster.most("commit") >= entries)?;
    let mut still = (0, 0);
    cluster.until("every node to have the same", |cluster| {
        let commit = cluster.most("commit");
        let equal = cluster
            .ids()
            .iter()
            .all(|id| cluster.told(*id, "commit") == commit);
        still = if equal && still.0 == commit {
            (commit, still.1 + 1)
        } else {
            (commit, 0)
        };
        // Records that are on their way when the load ends come later than the last that was told.
        still.1 >= 30
    })
}

fn judge(halves: [Peaks; 2], restored: u64) -> Result<(), Failed> {
    let mut grown = Vec::new();
    for ((name, before), (_, after)) in halves[0].all().into_iter().zip(halves[1].all()) {
        println!(
            "  {name:<9}  at most {:>4} MiB in the first half, {:>4} MiB in the second",
            mib(before),
            mib(after)
        );
        let allowed = before + SLACK_BYTES + (before as f64 * SLACK_PART) as u64;
        grown.extend((after > allowed).then_some(name));
    }
    match (&grown[..], restored) {
        ([], 0) => Err("nothing was ever restored from a snapshot".into()),
        ([], _) => Ok(()),
        _ => Err(format!("it grows with the log: {grown:?}").into()),
    }
}
