//! Readers of standard output and standard error that do not read, or have gone.

use crate::{
    cluster::Cluster,
    scratch::{Process, until},
};
use std::{
    io::{PipeReader, PipeWriter, Write, pipe},
    process::Stdio,
    thread,
};

/// A pipe that is full, and stays so for as long as its reader does not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // It fills up whatever becomes free, and ends with the reader.
    thread::spawn(move || while filler.write_all(b"....\n").is_ok() {});
    (reader, writer)
}

#[test]
fn a_node_whose_standard_error_is_stuck_serves_and_stops() {
    let mut cluster = Cluster::start();
    for id in 1..=3 {
        cluster.kill(id);
    }
    let stuck: Vec<_> = (1..=3)
        .map(|id| {
            let (reader, writer) = full_pipe();
            cluster.restart_with(id, writer.into());
            reader
        })
        .collect();
    let leader = cluster.leader();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    // A change of leader, and a peer that goes and comes, are logged by the threads that matter.
    assert_eq!(cluster.stop(leader, "TERM"), 0);
    cluster.leader();
    cluster.restart_with(leader, Stdio::null());
    assert!(cluster.run(&["append", "two"], b"").status.success());
    for id in 1..=3 {
        assert_eq!(cluster.read_from(id, ".."), b"one\ntwo\n");
    }
    for id in 1..=3 {
        assert_eq!(cluster.stop(id, "TERM"), 0);
    }
    drop(stuck);
}

#[test]
fn log_lines_that_nobody_reads_are_counted() {
    let mut cluster = Cluster::start();
    let lost = |cluster: &Cluster, id: usize| cluster.status()[id - 1]["log_lines_lost"].as_u64();
    assert_eq!(lost(&cluster, 1), Some(0));
    cluster.kill(1);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    cluster.restart_with(1, writer.into());
    until("a line to be lost", || lost(&cluster, 1).filter(|lost| *lost > 0));
}

#[test]
fn a_command_whose_standard_error_is_stuck_ends_when_it_is_told_to() {
    let cluster = Cluster::start();
    let (reader, writer) = full_pipe();
    let mut append = cluster.asking(&[1, 2, 3], &["append", "--lines", "-", "--verbose"]);
    let append = append.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(writer);
    let mut append = Process(append.spawn().unwrap());
    let mut stdin = append.0.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    // Now it has something to say.
    until("the line to be appended", || {
        (cluster.read_from(1, "..") == b"one\n").then_some(())
    });
    append.signal("TERM");
    assert_eq!(append.wait(), 130);
    drop(reader);
}
