//! A long load on three processes of the key-value store, which are killed in between (`story`). In the end all hold the
//! same pairs, and everything that was acknowledged.

use crate::{Failed, args::Args, cluster::Cluster, node::Nodes, story::Story};
use std::{fs, time::Instant};

pub(crate) fn run(args: Args) -> Result<(), Failed> {
    let (rounds, entries, dir) = (args.rounds, args.entries, args.dir.clone());
    let began = Instant::now();
    let mut story = Story::begin(Nodes::new(args)?, entries, |cluster, id| {
        cluster.order(id, "load")
    })?;
    let told = story.tell(rounds);
    let cluster = &mut story.cluster;
    let seconds = began.elapsed().as_secs_f64();
    let commit = cluster.most("commit");
    let (taken, restored) = cluster.snapshots();
    cluster.note(&format!(
        "{commit} entries in {seconds:.0} s, {:.0}/s; {taken} snapshots taken, {restored} restored",
        commit as f64 / seconds
    ));
    told?;
    compare(cluster)?;
    cluster.end()?;
    Ok(fs::remove_dir_all(dir)?)
}

/// Asks every node for its sums: they must be equal, what they are when all pairs are looked at, and hold all that was
/// acknowledged.
fn compare(cluster: &mut Cluster<Nodes>) -> Result<(), Failed> {
    let all = cluster.ids();
    for id in &all {
        cluster.order(*id, "check")?;
    }
    cluster.until("the sums of every node", |cluster| {
        all.iter().all(|id| cluster.has_said(*id, "sums"))
    })?;
    let sums: Vec<_> = all.iter().filter_map(|id| cluster.take(*id, "sums")).collect();
    for (id, sums) in all.iter().zip(&sums) {
        cluster.note(&format!("node {id}: {sums:?}"));
    }
    let acked = cluster.most("acked");
    let equal = sums
        .iter()
        .all(|one| Some(one) == sums.first() && one.get("sound") == Some(&1));
    let whole = sums
        .iter()
        .all(|one| one.get("index").is_some_and(|index| *index >= acked));
    match (equal, whole) {
        (true, true) => {}
        (false, _) => return Err("the nodes differ".into()),
        (true, false) => return Err(format!("entry {acked} was acknowledged and is gone").into()),
    }
    cluster.note("equal on all nodes, and nothing that was acknowledged is missing");
    Ok(())
}
