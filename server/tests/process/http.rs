//! HTTP as other programs use it.

use crate::{
    cluster::Cluster,
    scratch::{printed, run_with},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Status and body of an answer.
pub(crate) fn ask(port: u16, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.0\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..end])
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    (status, answer.split_off(end + 4))
}

pub(crate) fn json((status, body): (u16, Vec<u8>)) -> (u16, Value) {
    (
        status,
        serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body))),
    )
}

const TEXT: &str = "content-type: text/plain\r\n";
const NDJSON: &str = "content-type: application/x-ndjson\r\n";
const OCTETS: &str = "content-type: application/octet-stream\r\n";

#[test]
fn entries_go_in_and_out_in_each_media_type() {
    let cluster = Cluster::start();
    let post = |headers, body| json(ask(cluster.http_port(1), "POST", "/v1/entries", headers, body));
    let (status, first) = post(TEXT, b"one\n");
    assert_eq!(
        (status, &first["first"], &first["last"]),
        (200, &1.into(), &1.into()),
        "{first}"
    );
    let (status, second) = post(NDJSON, b"{\"text\":\"two\"}\n{\"base64\":\"/w==\"}\n");
    assert_eq!(
        (status, &second["first"], &second["last"]),
        (200, &2.into(), &3.into()),
        "{second}"
    );
    let (status, third) = post(OCTETS, b"\x01\0\0\0x\0\0\0\0");
    assert_eq!(
        (status, &third["first"], &third["last"]),
        (200, &4.into(), &5.into()),
        "{third}"
    );

    let get = |target, headers| ask(cluster.http_port(2), "GET", target, headers, b"");
    let (status, framed) = get("/v1/entries?from=3&to=6", "accept: application/octet-stream\r\n");
    assert_eq!(
        (status, framed),
        (200, b"\x01\0\0\0\xff\x01\0\0\0x\0\0\0\0".to_vec())
    );
    let (status, lines) = get("/v1/entries?to=2", "");
    let term = first["term"].as_u64().unwrap();
    let expected = format!("{{\"index\":1,\"term\":{term},\"text\":\"one\\n\"}}\n");
    assert_eq!((status, String::from_utf8(lines).unwrap()), (200, expected));
    assert_eq!(get("/healthz", "").0, 200);
    assert_eq!(get("/v1/entries?from=6", "").1, b"");
}

#[test]
fn an_append_may_depend_on_where_the_log_ends() {
    let cluster = Cluster::start();
    let post = |query: &str| {
        let target = format!("/v1/entries?{query}");
        json(ask(cluster.http_port(1), "POST", &target, TEXT, b"x"))
    };
    assert_eq!(post("expect_index=0").0, 200);
    let (status, problem) = post("expect_index=0");
    assert_eq!(
        (status, &problem["code"], &problem["outcome"]),
        (409, &"mismatch".into(), &"not_applied".into()),
        "{problem}"
    );
    let (status, appended) = post("expect_index=1");
    assert_eq!(status, 200, "{appended}");
    let term = appended["term"].as_u64().unwrap();
    assert_eq!(post(&format!("expect_index=2&expect_term={}", term + 1)).0, 409);
    assert_eq!(post(&format!("expect_index=2&expect_term={term}")).0, 200);
}

#[test]
fn problems_carry_a_code_an_outcome_and_advice() {
    let cluster = Cluster::start();
    let port = cluster.http_port(1);
    let expect = |method, target, headers, body: &[u8], status: u16, code: &str| {
        let (got, problem) = json(ask(port, method, target, headers, body));
        assert_eq!(
            (got, &problem["status"], &problem["code"]),
            (status, &status.into(), &code.into()),
            "{problem}"
        );
        assert_eq!(
            (&problem["outcome"], &problem["retryable"]),
            (&"not_applied".into(), &false.into()),
            "{problem}"
        );
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{problem}"
        );
    };
    expect("POST", "/v1/entries", "", b"x", 415, "unsupported_media_type");
    expect(
        "POST",
        "/v1/entries?expected_index=1",
        TEXT,
        b"x",
        400,
        "bad_request",
    );
    expect("POST", "/v1/entries", OCTETS, b"\x02\0\0\0x", 400, "bad_request");
    expect("POST", "/v1/entries", NDJSON, b"{}", 400, "bad_request");
    expect(
        "POST",
        "/v1/entries",
        TEXT,
        &vec![b'x'; (1 << 20) + 1],
        413,
        "too_large",
    );
    expect(
        "POST",
        "/v1/entries",
        TEXT,
        &vec![b'x'; 9 << 20],
        413,
        "too_large",
    );
    expect("GET", "/v1/entries?from=0", "", b"", 400, "bad_request");
    expect("GET", "/v1/nothing", "", b"", 404, "not_found");
    expect("DELETE", "/v1/entries", "", b"", 405, "method_not_allowed");
    expect(
        "POST",
        "/v1/entries",
        "origin: http://example.com\r\ncontent-type: text/plain\r\n",
        b"x",
        403,
        "forbidden",
    );
}

/// Clients that take nothing must not keep others waiting.
#[test]
fn clients_that_never_read_are_waited_for_alone() {
    let cluster = Cluster::start();
    let lines = b"0123456789abcdef0123456789abcdef\n".repeat(100_000);
    assert!(cluster.run(&["append", "--lines", "-"], &lines).status.success());
    let mute: Vec<TcpStream> = (0..20)
        .map(|at| {
            let mut stream = TcpStream::connect(("127.0.0.1", cluster.http_port(1))).unwrap();
            let target = if at % 2 == 0 { "/v1/entries" } else { "/v1/tail" };
            let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            // The answer has begun.
            stream.peek(&mut [0; 64]).unwrap();
            stream
        })
        .collect();
    assert!(cluster.read_from(1, "..") == lines);
    assert_eq!(
        printed(&run_with(&mut cluster.asking(&[1], &["append", "one more"]), b"")),
        "100001\n"
    );
    drop(mute);
}

#[test]
fn reads_say_how_fresh_they_must_be() {
    let cluster = Cluster::start();
    let read = |id, query: &str| {
        let target = format!("/v1/entries?{query}");
        ask(
            cluster.http_port(id),
            "GET",
            &target,
            "accept: application/octet-stream\r\n",
            b"",
        )
    };
    let post = ask(cluster.http_port(1), "POST", "/v1/entries", TEXT, b"one");
    let last = json(post).1["last"].as_u64().unwrap();
    for id in 1..=3 {
        for query in [
            "consistency=linearizable",
            "consistency=lease",
            "consistency=stale&max_lag=1ms",
            &format!("consistency=at_least&index={last}"),
        ] {
            assert_eq!(read(id, query), (200, b"\x03\0\0\0one".to_vec()), "{query}");
        }
        assert_eq!(read(id, "consistency=at_least&index=9&timeout=50ms").0, 504);
        assert_eq!(read(id, "consistency=at_least").0, 400);
    }
    let index = last.to_string();
    let output = run_with(
        &mut cluster.asking(
            &[2],
            &["read", "..", "--consistency", "at_least", "--index", &index],
        ),
        b"",
    );
    assert_eq!(printed(&output), "one\n");
    let output = run_with(
        &mut cluster.asking(
            &[2],
            &["read", "..", "--consistency", "stale", "--max-lag", "1ms"],
        ),
        b"",
    );
    assert_eq!(printed(&output), "one\n");
}
