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

/// Takes a request and answers with the head of a tail.
fn begin_tail(stream: &mut TcpStream) {
    let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
    while !request.next().unwrap().unwrap().is_empty() {}
    stream.write_all(HEAD).unwrap();
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

#[test]
fn first_endpoint_that_hangs_costs_a_moment() {
    let cluster = Cluster::start();
    cluster.leader();
    // An attempt may take 15 minutes, which the test has not.
    let run = |args: &[&str]| {
        let args = [args, &["--timeout", "1h"]].concat();
        let output = run_with(&mut asking(&cluster, &frozen(), &args), b"three");
        assert!(output.status.success(), "{}", said(&output));
        printed(&output)
    };
    assert_eq!(run(&["append", "one"]), "1\n");
    assert_eq!(run(&["append", "--no-session", "two"]), "2\n");
    assert_eq!(run(&["append", "--lines", "-"]), "");
    assert_eq!(run(&["read", ".."]), "one\ntwo\nthree\n");
    let status = run_with(&mut asking(&cluster, &frozen(), &["status", "--json"]), b"");
    let lines: Vec<_> = printed(&status).lines().map(str::to_owned).collect();
    assert!(
        lines.len() == 4 && lines[0].contains("no answer in time"),
        "{lines:?}"
    );
    let (_tail, mut lines) = tail(asking(&cluster, &frozen(), &["tail", "--timeout", "1h"]));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
}

#[test]
fn tail_leaves_a_node_that_falls_silent() {
    let cluster = Cluster::start();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    let mut connections = Vec::new();
    let silent = endpoint(move |_, mut stream| {
        begin_tail(&mut stream);
        stream.write_all(&heartbeat(1, true)).unwrap();
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
        begin_tail(&mut stream);
        // It is not silent, until it is left.
        while stream.write_all(&heartbeat(0, false)).is_ok() {
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
        begin_tail(&mut stream);
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
        begin_tail(&mut stream);
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
