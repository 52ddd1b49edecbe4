//! Sessions over HTTP: a retry takes effect once and is answered like the first, wherever it is sent.

use crate::{
    cluster::Cluster,
    http::{ask, json},
    scratch::until,
};
use serde_json::Value;
use std::{thread, time::Duration};

/// Opens a session at a node.
fn open(cluster: &Cluster, id: u64) -> Value {
    let (status, session) = json(ask(cluster.http_port(id), "POST", "/v1/sessions", "", b""));
    assert_eq!(status, 201, "{session}");
    session
}

/// Appends a text at a node, with these headers beside its type.
fn append(cluster: &Cluster, id: u64, headers: &str, text: &str) -> (u16, Value) {
    let headers = format!("content-type: text/plain\r\n{headers}");
    json(ask(
        cluster.http_port(id),
        "POST",
        "/v1/entries?timeout=60s",
        &headers,
        text.as_bytes(),
    ))
}

fn key(session: &Value, sequence: u64) -> String {
    format!(
        "idempotency-key: {}:{sequence}\r\n",
        session["session"].as_str().unwrap()
    )
}

#[test]
fn a_retry_is_answered_like_the_first_at_every_node_and_after_all_were_restarted() {
    let mut cluster = Cluster::start();
    let session = open(&cluster, 2);
    assert_eq!(session["ttl_seconds"], 3600);
    let (status, first) = append(&cluster, 1, &key(&session, 1), "one");
    assert_eq!(
        (status, &first["first"], &first["last"]),
        (200, &1.into(), &1.into()),
        "{first}"
    );
    let (status, plain) = append(&cluster, 1, "", "two");
    assert_eq!((status, &plain["first"]), (200, &2.into()), "{plain}");
    for id in 1..=3 {
        assert_eq!(
            append(&cluster, id, &key(&session, 1), "one"),
            (200, first.clone())
        );
    }
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.leader();
    for id in 1..=3 {
        assert_eq!(
            append(&cluster, id, &key(&session, 1), "one"),
            (200, first.clone())
        );
        assert_eq!(cluster.read_from(id, ".."), b"one\ntwo\n");
    }
    let (status, next) = append(&cluster, 3, &key(&session, 2), "three");
    assert_eq!((status, &next["first"]), (200, &3.into()), "{next}");
}

#[test]
fn outcome_under_a_key_is_that_of_the_key_whatever_the_last_attempt_came_to() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let session = open(&cluster, leader);
    let attempt = |timeout: &str, headers: &str| {
        let headers = format!("content-type: text/plain\r\n{headers}");
        let target = format!("/v1/entries?timeout={timeout}");
        let port = cluster.http_port(leader);
        json(ask(port, "POST", &target, &headers, b"one"))
    };
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.signal(*id, "STOP"));
    // Long enough for a slow machine to place it in the log.
    let (_, first) = attempt("3s", &key(&session, 1));
    assert_eq!(first["outcome"], "unknown", "{first}");
    // Until it has noticed that it leads nobody any more, it may be waited for; then it is refused.
    until("an attempt that is refused", || {
        let (_, problem) = attempt("100ms", &key(&session, 1));
        assert_eq!(problem["outcome"], "unknown", "{problem}");
        (problem["attempt"] == "not_applied").then_some(())
    });
    let (_, plain) = attempt("100ms", "");
    assert_eq!(
        (&plain["outcome"], plain.get("attempt")),
        (&"not_applied".into(), None),
        "{plain}"
    );
    others.iter().for_each(|id| cluster.signal(*id, "CONT"));
    let (status, appended) = append(&cluster, leader, &key(&session, 1), "one");
    assert_eq!((status, &appended["first"]), (200, &1.into()), "{appended}");
    assert_eq!(cluster.read_from(leader, ".."), b"one\n");
}

#[test]
fn a_key_of_another_form_is_refused_with_the_form_it_must_have() {
    let cluster = Cluster::start();
    let session = open(&cluster, 1);
    let refused = |headers: &str| {
        let (status, problem) = append(&cluster, 1, headers, "x");
        assert_eq!(
            (status, &problem["code"]),
            (400, &"bad_request".into()),
            "{problem}"
        );
        assert_eq!(problem["outcome"], "not_applied");
        let advice = problem["advice"].as_str().unwrap();
        assert!(advice.contains("POST /v1/sessions"), "{advice}");
    };
    refused("idempotency-key: 8e03978e-40d5-43e8-bc93-6894a57f9324\r\n");
    refused("idempotency-key: 17\r\n");
    refused("idempotency-key: 17:0\r\n");
    refused("kontiki-settled: 1\r\n");
    refused(&format!("{}kontiki-settled: 2\r\n", key(&session, 1)));
    assert_eq!(cluster.read_from(1, ".."), b"");
}

#[test]
fn what_is_no_longer_remembered_is_an_error_and_never_appended_again() {
    let cluster = Cluster::start();
    let session = open(&cluster, 1);
    let settled = |sequence: u64| format!("{}kontiki-settled: {sequence}\r\n", key(&session, sequence));
    assert_eq!(append(&cluster, 1, &settled(1), "one").0, 200);
    assert_eq!(append(&cluster, 1, &settled(2), "two").0, 200);
    refused(&cluster, &key(&session, 1), 409, "session_stale");
    refused(&cluster, "idempotency-key: 999999:1\r\n", 410, "session_expired");
    assert_eq!(cluster.read_from(1, ".."), b"one\ntwo\n");
}

/// A retry that comes too late.
fn refused(cluster: &Cluster, headers: &str, status: u16, code: &str) {
    let (got, problem) = append(cluster, 2, headers, "again");
    assert_eq!((got, &problem["code"]), (status, &code.into()), "{problem}");
    assert_eq!(
        (&problem["outcome"], &problem["retryable"]),
        (&"unknown".into(), &false.into()),
        "{problem}"
    );
}

#[test]
fn what_was_appended_in_a_session_that_has_expired_is_never_appended_again() {
    let cluster = Cluster::start_with(&[("# session_ttl = \"3600s\"", "session_ttl = \"1s\"")]);
    // On a machine that stands still a session may be over before it is used.
    let session = until("an append within a session's time", || {
        let session = open(&cluster, 1);
        assert_eq!(session["ttl_seconds"], 1);
        let (status, answer) = append(&cluster, 1, &key(&session, 1), "one");
        assert!(status == 200 || answer["code"] == "session_expired", "{answer}");
        (status == 200).then_some(session)
    });
    // The clock of the cluster goes by whole seconds.
    thread::sleep(Duration::from_millis(3100));
    assert_eq!(append(&cluster, 3, "", "meanwhile").0, 200);
    refused(&cluster, &key(&session, 1), 410, "session_expired");
    refused(&cluster, &key(&session, 2), 410, "session_expired");
    assert_eq!(cluster.read_from(1, ".."), b"one\nmeanwhile\n");
}
