//! What strangers may hold of a node over HTTP, and that it ends.

use crate::{
    cluster::Cluster,
    http::{ask, json},
    scratch::{LIMIT, until},
};
use serde_json::Value;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

/// A connection on which this was sent, if the node has taken it.
fn connect(port: u16, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // The node may have closed it already.
    let _ = stream.write_all(sent);
    stream
}

/// All that comes until the node closes the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

/// What clients hold of a node.
fn held(cluster: &Cluster, id: u64) -> Value {
    json(ask(cluster.http_port(id), "GET", "/v1/status", "", b"")).1["http"].clone()
}

fn append(cluster: &Cluster, id: u64) -> (u16, Value) {
    let headers = "content-type: text/plain\r\n";
    let target = "/v1/entries?timeout=60s";
    json(ask(cluster.http_port(id), "POST", target, headers, b"x"))
}

#[test]
fn connections_on_which_no_request_comes_are_closed() {
    let settings = [("# http_idle_timeout = \"60s\"", "http_idle_timeout = \"1s\"")];
    let cluster = Cluster::start_with(&settings);
    let port = cluster.http_port(1);
    let mut silent: Vec<TcpStream> = (0..40)
        .map(|at| match at % 4 {
            0 => connect(port, b""),
            1 => connect(port, b"GET /v1/st"),
            2 => connect(port, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-more: "),
            // After an answer, too.
            _ => connect(port, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        })
        .collect();
    for (at, stream) in silent.iter_mut().enumerate() {
        let answered = rest(stream).starts_with("HTTP/1.1 200 ");
        assert_eq!(answered, at % 4 == 3, "{at}");
    }
    until("their places to be free", || {
        (held(&cluster, 1)["connections"] == 1).then_some(())
    });
}

#[test]
fn bodies_are_admitted_before_they_are_read_and_have_a_time() {
    let cluster = Cluster::start_with(&[
        ("# http_body_timeout = \"30s\"", "http_body_timeout = \"2s\""),
        (
            "# http_requests_bytes_max = \"64MiB\"",
            "http_requests_bytes_max = \"1MiB\"",
        ),
    ]);
    let port = cluster.http_port(1);
    let head = "POST /v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n";
    let part = vec![b'x'; 300_000];
    let mut slow: Vec<TcpStream> = (0..12)
        .map(|at| {
            let mut stream = match at % 2 {
                0 => connect(port, format!("{head}content-length: 700000\r\n\r\n").as_bytes()),
                // It does not say how long it is.
                _ => connect(
                    port,
                    format!("{head}transfer-encoding: chunked\r\n\r\nf4240\r\n").as_bytes(),
                ),
            };
            stream
                .set_write_timeout(Some(std::time::Duration::from_millis(100)))
                .unwrap();
            let _ = stream.write_all(&part);
            stream
        })
        .collect();
    // Small ones do not wait for them.
    assert_eq!(append(&cluster, 1).0, 200);
    let bytes = |held: &Value| held["requests_bytes"].as_u64().unwrap();
    until("all to be refused", || {
        let held = held(&cluster, 1);
        assert!(bytes(&held) <= 1 << 20, "{held}");
        (bytes(&held) == 0 && held["connections"] == 1).then_some(())
    });
    let answers: Vec<String> = slow.iter_mut().map(rest).collect();
    let with = |status: &str| answers.iter().filter(|answer| answer.contains(status)).count();
    assert!(with(" 408 ") >= 1, "{answers:?}");
    assert_eq!(with(" 200 "), 0, "{answers:?}");
    assert_eq!(append(&cluster, 1).0, 200);
}

#[test]
fn connections_have_a_limit_and_the_one_too_many_is_told() {
    let settings = [("# http_connections_max = 1024", "http_connections_max = 8")];
    let cluster = Cluster::start_with(&settings);
    let port = cluster.http_port(1);
    let tail = b"GET /v1/tail HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // All that this address may have, once the connections of before are gone.
    let mut tails: Vec<TcpStream> = Vec::new();
    until("six places", || {
        let mut stream = connect(port, tail);
        let mut head = [0; 12];
        if stream.read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 200" {
            tails.push(stream);
        }
        (tails.len() == 6).then_some(())
    });
    let refused = rest(&mut connect(port, tail));
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\"") && refused.contains("\"outcome\":\"not_applied\""));
    drop(tails);
    until("a place", || {
        // While there is none, the answer is a problem.
        let held = held(&cluster, 1);
        assert_eq!(held["connections_max"].as_u64()?, 8, "{held}");
        assert!(held["connections_refused"].as_u64()? > 0, "{held}");
        Some(())
    });
}

#[test]
fn clients_leave_descriptors_to_the_log_and_the_peers() {
    let mut cluster = Cluster::start();
    cluster.kill(1);
    cluster.restart_with_descriptors(1, 64);
    let port = cluster.http_port(1);
    let tails: Vec<TcpStream> = (0..100)
        .map(|_| connect(port, b"GET /v1/tail HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .collect();
    assert_eq!(append(&cluster, 2).0, 200);
    let descriptors = cluster.descriptors(1);
    assert!(descriptors <= 60, "{descriptors} of 64");
    // Each is larger than what fits a file of the log beside another: the log goes on to make files.
    let entry = vec![b'y'; 900_000];
    for _ in 0..25 {
        let headers = "content-type: text/plain\r\n";
        let target = "/v1/entries?timeout=60s";
        let (status, answer) = json(ask(cluster.http_port(2), "POST", target, headers, &entry));
        assert_eq!(status, 200, "{answer}");
    }
    drop(tails);
    until("the node to answer and to have it all", || {
        let status = cluster.status();
        assert_ne!(status[0]["role"], "fatal", "{status:?}");
        (status[0]["commit"] == 26).then_some(())
    });
}
