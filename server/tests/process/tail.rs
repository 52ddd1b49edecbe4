//! Tails over HTTP: heartbeats, by a client that is written by hand from `docs/HTTP.md`.

use crate::{
    cluster::Cluster,
    http::{ask, json},
    scratch::LIMIT,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// A tail that has begun: what follows the head of its answer. HTTP/1.0, so that the body comes without chunks.
fn open(port: u16, query: &str, accept: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!("GET /v1/tail?{query} HTTP/1.0\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    while !line.trim().is_empty() {
        line.clear();
        answer.read_line(&mut line).unwrap();
    }
    answer
}

/// The next line.
fn line(tail: &mut impl BufRead) -> Value {
    let mut line = String::new();
    tail.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("`{line}`"))
}

fn append(cluster: &Cluster, id: u64, text: &str) -> u64 {
    let headers = "content-type: text/plain\r\n";
    let target = "/v1/entries?timeout=60s";
    let (status, appended) = json(ask(
        cluster.http_port(id),
        "POST",
        target,
        headers,
        text.as_bytes(),
    ));
    assert_eq!(status, 200, "{appended}");
    appended["last"].as_u64().unwrap()
}

#[test]
fn tail_with_heartbeats_tells_that_it_is_alive_and_when_its_node_has_lost_the_leader() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let mut lines = open(
        cluster.http_port(leader),
        "from=1&heartbeat=1s",
        "application/x-ndjson",
    );
    let first = line(&mut lines);
    assert_eq!(first["heartbeat"]["leader"], true, "{first}");
    assert_eq!(append(&cluster, leader, "one"), 1);
    let (mut entries, mut committed) = (Vec::new(), 0);
    while entries.is_empty() || committed == 0 {
        let line = line(&mut lines);
        match line["heartbeat"]["committed"].as_u64() {
            Some(index) => committed = index,
            None => entries.push(line["text"].as_str().unwrap().to_owned()),
        }
    }
    assert_eq!((entries, committed), (vec!["one".to_owned()], 1));
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    while line(&mut lines)["heartbeat"]["leader"] != false {}
}

#[test]
fn heartbeat_among_octets_has_a_length_that_no_entry_has() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    assert_eq!(append(&cluster, leader, "one"), 1);
    let mut tail = open(
        cluster.http_port(leader),
        "from=1&heartbeat=1s",
        "application/octet-stream",
    );
    let (mut entries, mut beats) = (0, 0);
    while entries == 0 || beats < 2 {
        let mut length = [0; 4];
        tail.read_exact(&mut length).unwrap();
        if length == [0xff; 4] {
            let mut beat = [0; 9];
            tail.read_exact(&mut beat).unwrap();
            assert_eq!(beat, [1, 0, 0, 0, 0, 0, 0, 0, 1]);
            beats += 1;
        } else {
            let mut entry = [0; 3];
            tail.read_exact(&mut entry).unwrap();
            assert_eq!((length, &entry), ([3, 0, 0, 0], b"one"));
            entries += 1;
        }
    }
    for wrong in ["0", "500ms", "61s", "soon"] {
        let target = format!("/v1/tail?heartbeat={wrong}");
        assert_eq!(
            ask(cluster.http_port(leader), "GET", &target, "", b"").0,
            400,
            "{wrong}"
        );
    }
}

#[test]
fn tail_from_the_last_index_there_is_waits_without_asking_again_and_again() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let mut tail = open(
        cluster.http_port(leader),
        &format!("from={}&heartbeat=1s", u64::MAX),
        "application/x-ndjson",
    );
    append(&cluster, leader, "one");
    let before = cluster.cpu_ticks(leader);
    for _ in 0..4 {
        let line = line(&mut tail);
        assert!(line["heartbeat"].is_object(), "{line}");
    }
    // Three seconds at least. Without a pause they are some 300 ticks of a core, or what a busy machine gives of them.
    let spent = cluster.cpu_ticks(leader) - before;
    assert!(spent < 100, "{spent} ticks");
}
