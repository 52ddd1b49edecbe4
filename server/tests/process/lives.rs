//! Copies of a data directory, as an operator makes them with `cp`.

use crate::{
    cluster::Cluster,
    scratch::{kontiki, run_with, said, until},
};
use std::{fs, path::Path, process::Command};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// What `serve` says when it ends by itself.
fn refusal(cluster: &Cluster, id: u64, flags: &[&str]) -> String {
    let output = run_with(
        kontiki()
            .args(["serve", "--config"])
            .arg(cluster.config(id))
            .args(flags),
        b"",
    );
    assert!(!output.status.success());
    said(&output)
}

#[test]
fn an_old_copy_needs_moved_and_is_refused_by_the_others_even_so() {
    let mut cluster = Cluster::start();
    let (dir, old, newest) = (
        cluster.dir().join("n2"),
        cluster.dir().join("old"),
        cluster.dir().join("newest"),
    );
    assert_eq!(cluster.stop(2, "TERM"), 0);
    copy(&dir, &old);
    cluster.restart(2);
    // Both others hear node 2 in its second life: each alone with it is a majority.
    for other in [1, 3] {
        cluster.stop(4 - other, "TERM");
        let output = cluster.run(&["append", "acknowledged"], b"");
        assert!(output.status.success(), "{}", said(&output));
        cluster.restart(4 - other);
    }
    assert_eq!(cluster.stop(2, "TERM"), 0);
    fs::rename(&dir, &newest).unwrap();
    copy(&old, &dir);
    let why = refusal(&cluster, 2, &[]);
    assert!(
        why.contains("is not where node 2 was last started") && why.contains("--moved"),
        "{why}"
    );
    let why = refusal(&cluster, 2, &["--moved"]);
    assert!(
        why.contains("node 2 stopped itself") && why.contains("refuses this node"),
        "{why}"
    );
    until("the others to name it", || {
        let told = said(&cluster.run(&["status"], b""));
        told.contains("refuses node 2: ").then_some(())
    });
    let why = refusal(&cluster, 2, &["--moved"]);
    assert!(why.contains("must not be started any more"), "{why}");
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&newest, &dir).unwrap();
    cluster.restart(2);
    let read = cluster.read_from(2, "1..");
    assert_eq!(String::from_utf8(read).unwrap().lines().count(), 2);
}
