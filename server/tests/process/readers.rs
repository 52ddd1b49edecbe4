//! Readers of standard output and standard error that do not read, or have gone.

use crate::{
    cluster::Cluster,
    scratch::{Process, kontiki, said, until},
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe},
    os::unix::ffi::OsStrExt,
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

/// As `head -1` does, where nothing more is appended.
#[test]
fn tail_whose_reader_has_gone_ends_at_once() {
    let cluster = Cluster::start();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    let mut tail = cluster.asking(&[1, 2, 3], &["tail", "--from", "1"]);
    let mut tail = Process(tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut out = BufReader::new(tail.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(out);
    assert_eq!(tail.wait(), 0);
}

#[test]
fn append_that_cannot_say_where_says_that_it_appended() {
    let cluster = Cluster::start();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut append = cluster.asking(&[1, 2, 3], &["append", "one", "two"]);
    let output = append.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = "appended as entries 1..=2, but cannot write to standard output";
    assert!(said(&output).contains(words), "{}", said(&output));
}

#[test]
fn demo_whose_reader_has_gone_ends_at_once() {
    let (reader, writer) = pipe().unwrap();
    let mut demo = kontiki();
    demo.args(["demo", "--nodes", "1"]).stdin(Stdio::piped());
    let mut demo = Process(demo.stdout(writer).stderr(Stdio::piped()).spawn().unwrap());
    let mut told = BufReader::new(demo.0.stderr.take().unwrap()).lines();
    while !told.next().unwrap().unwrap().contains("`help` lists") {}
    drop(reader);
    assert_eq!(demo.wait(), 0);
}

/// A terminal, and where it is seen what is written to it.
fn terminal() -> (File, BufReader<File>) {
    let seen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&seen).unwrap();
    unlockpt(&seen).unwrap();
    let name = ptsname(&seen, Vec::new()).unwrap();
    let path = OsStr::from_bytes(name.to_bytes());
    let terminal = File::options().read(true).write(true).open(path).unwrap();
    (terminal, BufReader::new(seen.into()))
}

#[test]
fn entries_are_escaped_on_a_terminal_and_raw_in_a_pipe() {
    let cluster = Cluster::start();
    let entry = "\x1b[2J two\nlines \u{9b}2J\t\u{202e}caf\u{e9} \\";
    assert!(cluster.run(&["append", entry], b"").status.success());
    assert_eq!(cluster.read_from(1, ".."), format!("{entry}\n").as_bytes());
    for (args, shown) in [
        (&["read", ".."][..], "\\u{1b}[2J two\\nlines \\u{9b}2J\t\\u{202e}caf\u{e9} \\\r\n".to_owned()),
        (
            &["read", "..", "--json"],
            "{\"index\":1,\"term\":T,\"text\":\"\\u001b[2J two\\nlines \\u009b2J\\t\\u202ecaf\u{e9} \\\\\"}\r\n".to_owned(),
        ),
        (&["tail", "--from", "1"], "\\u{1b}[2J two\\nlines \\u{9b}2J\t\\u{202e}caf\u{e9} \\\r\n".to_owned()),
    ] {
        let (terminal, mut seen) = terminal();
        // A tab stays one.
        let mut modes = rustix::termios::tcgetattr(&terminal).unwrap();
        modes.output_modes -= rustix::termios::OutputModes::TABDLY;
        rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &modes).unwrap();
        let mut command = cluster.asking(&[1, 2, 3], args);
        let _command = Process(command.stdout(terminal).stderr(Stdio::null()).spawn().unwrap());
        let mut line = String::new();
        seen.read_line(&mut line).unwrap();
        let term = line.split("\"term\":").nth(1).and_then(|rest| rest.split(',').next());
        assert_eq!(line, shown.replace('T', term.unwrap_or("T")), "{args:?}");
    }
}
