//! Commands and endpoints that do not behave: they hang, say nothing, know no leader, or break off.

use crate::{
    cluster::Cluster,
    scratch::{Process, kontiki, printed, run_with, said},
};
use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::{TcpListener, TcpStream},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
};

/// The head of the answer to a tail; pieces follow.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\
                      kontiki-first-index: 1\r\ntransfer-encoding: chunked\r\n\r\n";

/// The status of a node that knows a leader.
const STATUS: &[u8] = br#"{"node":1,"role":"follower","term":1,"leader":2,"first":1,"commit":1,"last":1,"cluster":"","raft_index":1,
    "raft_commit":1,"voters":[],"peers":[],"stopped":null}"#;

/// An endpoint that does this with each connection, which it is given with its number; and where it is.
fn endpoint(mut answer: impl FnMut(usize, TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            answer(number, stream.unwrap());
        }
    });
    address
}

/// An endpoint that takes requests and answers nothing, as the kernel does for a process that is frozen.
fn frozen() -> String {
    let mut connections = Vec::new();
    endpoint(move |_, stream| connections.push(stream))
}

/// A node that is cut off: it tells that it knows no leader, and answers nothing else.
fn cut_off() -> String {
    let status = String::from_utf8_lossy(STATUS).replace("\"leader\":2", "\"leader\":null");
    let mut connections = Vec::new();
    endpoint(move |_, mut stream| {
        let _ = until_other_than_status(&mut stream, status.as_bytes());
        connections.push(stream);
    })
}

/// Answers requests for the status until another request has come; `None` if none came.
fn until_other_than_status(stream: &mut TcpStream, status: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let line = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        if !line.starts_with("GET /v1/status") {
            return Some(());
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", status.len());
        stream.write_all(&[head.as_bytes(), status].concat()).ok()?;
    }
}

/// Takes the request for a tail and begins to answer; `None` if none came.
fn begin_tail(stream: &mut TcpStream) -> Option<()> {
    until_other_than_status(stream, STATUS)?;
    stream.write_all(HEAD).ok()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn heartbeat(committed: u64, leader: bool) -> Vec<u8> {
    chunk(&[&[0xff; 4][..], &committed.to_le_bytes(), &[u8::from(leader)]].concat())
}

/// A command that asks a fake endpoint first, and then the nodes.
fn asking(cluster: &Cluster, first: &str, args: &[&str]) -> Command {
    let mut command = kontiki();
    command.args(args).args(["--endpoint", first]);
    for id in 1..=3 {
        command.args(["--endpoint", &cluster.endpoint(id)]);
    }
    command
}

fn tail(mut command: Command) -> (Process, Lines<BufReader<ChildStdout>>) {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tail = Process(command.spawn().unwrap());
    let lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    (tail, lines)
}

/// Runs commands that ask such an endpoint first. An attempt may take 15 minutes, which the test has not.
fn serves_beside(first: fn() -> String) {
    let cluster = Cluster::start();
    cluster.leader();
    let run = |args: &[&str]| {
        let args = [args, &["--timeout", "1h"]].concat();
        let output = run_with(&mut asking(&cluster, &first(), &args), b"three");
        assert!(output.status.success(), "{}", said(&output));
        printed(&output)
    };
    assert_eq!(run(&["append", "one"]), "1\n");
    assert_eq!(run(&["append", "--no-session", "two"]), "2\n");
    assert_eq!(run(&["append", "--lines", "-"]), "");
    assert_eq!(run(&["read", ".."]), "one\ntwo\nthree\n");
    let (_tail, mut lines) = tail(asking(&cluster, &first(), &["tail", "--timeout", "1h"]));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    let status = run_with(&mut asking(&cluster, &first(), &["status", "--json"]), b"");
    assert_eq!(printed(&status).lines().count(), 4);
}

#[test]
fn first_endpoint_that_hangs_costs_a_moment() {
    serves_beside(frozen);
}

#[test]
fn first_endpoint_that_is_cut_off_costs_a_moment() {
    serves_beside(cut_off);
}

#[test]
fn tail_leaves_a_node_that_falls_silent() {
    let cluster = Cluster::start();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    let mut connections = Vec::new();
    let silent = endpoint(move |_, mut stream| {
        if begin_tail(&mut stream).is_some() {
            stream.write_all(&heartbeat(1, true)).unwrap();
        }
        connections.push(stream);
    });
    let (_tail, mut lines) = tail(asking(
        &cluster,
        &silent,
        &["tail", "--from", "1", "--timeout", "9s"],
    ));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
}

#[test]
fn tail_leaves_a_node_that_knows_no_leader() {
    let cluster = Cluster::start();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    let cut_off = endpoint(|_, mut stream| {
        let begun = begin_tail(&mut stream).is_some();
        // It is not silent, until it is left.
        while begun && stream.write_all(&heartbeat(0, false)).is_ok() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let (_tail, mut lines) = tail(asking(
        &cluster,
        &cut_off,
        &["tail", "--from", "1", "--timeout", "1h"],
    ));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
}

/// As a proxy does that cuts off what is quiet, or nodes that are restarted one after the other.
#[test]
fn tail_goes_on_however_often_a_quiet_answer_is_cut_off() {
    let cut = endpoint(|number, mut stream| {
        begin_tail(&mut stream).unwrap();
        stream.write_all(&heartbeat(0, true)).unwrap();
        // With a pause before each, that takes longer than `--timeout`.
        if number == 35 {
            stream.write_all(&chunk(b"\x05\0\0\0hello")).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let mut command = kontiki();
    command.args(["tail", "--from", "1", "--timeout", "3s", "--endpoint", &cut]);
    let (_tail, mut lines) = tail(command);
    assert_eq!(lines.next().unwrap().unwrap(), "hello");
}

#[test]
fn tail_that_is_kept_from_entries_that_are_there_gives_up() {
    let cut = endpoint(|_, mut stream| {
        begin_tail(&mut stream).unwrap();
        stream.write_all(&heartbeat(1, true)).unwrap();
    });
    let mut command = kontiki();
    command.args(["tail", "--from", "1", "--timeout", "3s", "--endpoint", &cut]);
    let output = run_with(&mut command, b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot read entry 1"), "{}", said(&output));
}

#[test]
fn tail_asks_for_heartbeats_in_its_time() {
    for (timeout, heartbeat) in [("1s", "1000ms"), ("30s", "10000ms"), ("1h", "60000ms")] {
        let (sender, asked) = mpsc::channel();
        let node = endpoint(move |_, stream| {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            sender.send(line).unwrap();
        });
        let mut command = kontiki();
        command.args(["tail", "--from", "7", "--timeout", timeout, "--endpoint", &node]);
        let (_tail, _lines) = tail(command);
        let asked = asked.recv().unwrap();
        assert!(
            asked.starts_with(&format!("GET /v1/tail?from=7&heartbeat={heartbeat}&timeout=")),
            "{asked}"
        );
    }
}
