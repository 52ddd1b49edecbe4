//! A follower whose disk was set back, under a leader that goes on: it says so, is fed by the same leader, and returns.

use crate::{
    cluster::Cluster,
    scratch::{said, until},
};
use std::{fs, path::PathBuf};

/// The only segment of a node's log.
fn segment(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.dir().join(format!("n{id}/log/0000000000000001.seg"))
}

fn append(cluster: &Cluster, entry: &str) {
    let output = cluster.run(&["append", entry], b"");
    assert!(output.status.success(), "{}", said(&output));
}

/// Every node has this many entries, committed.
fn all_have(cluster: &Cluster, entries: u64) {
    until("every node to have all entries", || {
        let all = cluster.status();
        all.iter().all(|node| node["commit"] == entries).then_some(())
    });
}

/// The log of a node, once it says this.
fn says(cluster: &Cluster, id: u64, what: &str) {
    until("a line in the log", || {
        let log = fs::read_to_string(cluster.scratch.path(&format!("log{id}"))).unwrap();
        log.contains(what).then_some(())
    });
}

/// A follower, after three entries that all have, and the term.
fn set_out(cluster: &Cluster) -> (u64, u64, u64) {
    let leader = cluster.leader();
    for entry in ["a", "b", "c"] {
        append(cluster, entry);
    }
    all_have(cluster, 3);
    let term = cluster.status()[leader as usize - 1]["term"].as_u64().unwrap();
    (leader, leader % 3 + 1, term)
}

/// It is fed without a client, is suspect no longer, and its votes and acknowledgements count.
fn returns(cluster: &mut Cluster, (leader, follower, term): (u64, u64, u64), entries: u64) {
    all_have(cluster, entries);
    says(
        cluster,
        follower,
        &format!("node {follower} is suspect no longer"),
    );
    says(cluster, leader, &format!("node {follower} is suspect no longer"));
    let status = cluster.status();
    assert_eq!(status[follower as usize - 1]["suspect"], serde_json::Value::Null);
    let now = &status[leader as usize - 1];
    assert_eq!(
        (now["role"].as_str(), now["term"].as_u64()),
        (Some("leader"), Some(term))
    );
    let third = 6 - leader - follower;
    cluster.kill(third);
    append(cluster, "with its help");
    cluster.restart(third);
    all_have(cluster, entries + 1);
}

#[test]
fn a_follower_whose_log_is_set_back_says_so_and_is_fed_by_the_same_leader() {
    let mut cluster = Cluster::start();
    let (leader, follower, term) = set_out(&cluster);
    let segment = segment(&cluster, follower);
    assert_eq!(cluster.stop(follower, "TERM"), 0);
    let old = fs::read(&segment).unwrap();
    cluster.restart(follower);
    append(&cluster, "d");
    all_have(&cluster, 4);
    assert_eq!(cluster.stop(follower, "TERM"), 0);
    // The blocks of the log alone: a whole directory that is put back comes in a life that is over, and is refused.
    fs::write(&segment, old).unwrap();
    cluster.restart(follower);
    says(
        &cluster,
        follower,
        &format!("node {follower} is suspect, for its log ends at record"),
    );
    says(
        &cluster,
        leader,
        &format!("node {follower} is suspect, for it has lost"),
    );
    returns(&mut cluster, (leader, follower, term), 4);
}

#[test]
fn a_follower_whose_last_write_rots_says_so_and_is_fed_by_the_same_leader() {
    let mut cluster = Cluster::start();
    let (leader, follower, term) = set_out(&cluster);
    append(&cluster, "d");
    all_have(&cluster, 4);
    cluster.kill(follower);
    let segment = segment(&cluster, follower);
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // Not so that it becomes zero: that might be a piece that is missing.
    bytes[last] ^= if bytes[last] == 0x80 { 1 } else { 0x80 };
    fs::write(&segment, bytes).unwrap();
    cluster.restart(follower);
    says(
        &cluster,
        follower,
        "in its last write, and no torn write explains that: it may have been acknowledged",
    );
    says(
        &cluster,
        leader,
        &format!("node {follower} is suspect, for it has lost"),
    );
    returns(&mut cluster, (leader, follower, term), 4);
}
