//! A node behind two channels.

use crate::common::{PATIENCE, start};
use kontiki::{ClientRequest, ClientResponse, Code, Config, LogOnly, Outcome, RaftNode, Role};

type Response = ClientResponse<String>;

fn append(prev: Option<u64>, entries: &[&str]) -> ClientRequest<String> {
    let entries = entries.iter().map(ToString::to_string).collect();
    ClientRequest::AppendEntries {
        prev_log_index: prev,
        prev_log_term: None,
        entries,
    }
}

fn read(start_index: u64, end_index: u64) -> ClientRequest<String> {
    ClientRequest::IndexRange {
        start_index,
        end_index,
    }
}

/// What was accepted: entries and last index.
fn accepted(response: &Response) -> (Vec<&str>, u64) {
    match response {
        ClientResponse::Accepted {
            entries, last_index, ..
        } => (entries.iter().map(String::as_str).collect(), *last_index),
        other => panic!("{other:?}"),
    }
}

fn rejected(response: &Response) -> &str {
    match response {
        ClientResponse::Rejected { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut configs = Config::in_memory(3).unwrap().into_iter();
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(configs.next().unwrap())
        .unwrap()
        .spinup()
        .unwrap();
    let others: Vec<_> = configs.map(start::<String>).collect();
    others[0].wait_ready(PATIENCE).unwrap();
    let asked = [
        append(None, &["one"]),
        append(Some(0), &["never"]),
        append(Some(1), &["two", "three"]),
        read(1, 3),
        append(Some(7), &[]),
        append(Some(3), &[]),
        read(3, 100),
        ClientRequest::AppendEntries {
            prev_log_index: None,
            prev_log_term: Some(1),
            entries: vec!["never".into()],
        },
        read(9, 3),
    ];
    asked
        .into_iter()
        .for_each(|request| requests.send(request).unwrap());
    let next = || responses.recv_timeout(PATIENCE).unwrap();
    assert_eq!(accepted(&next()), (vec![], 1));
    let miss = next();
    assert!(
        rejected(&miss).contains("it ends with entry 1 of term "),
        "{miss:?}"
    );
    assert_eq!(accepted(&next()), (vec![], 3));
    assert_eq!(accepted(&next()), (vec!["one", "two"], 3));
    assert!(rejected(&next()).contains("it ends with entry 3"));
    assert_eq!(accepted(&next()), (vec![], 3));
    assert_eq!(accepted(&next()), (vec!["three"], 3));
    assert!(rejected(&next()).contains("prev_log_index"));
    assert_eq!(accepted(&next()), (vec![], 3));
    others.iter().for_each(|node| node.shutdown().unwrap());
}

#[test]
fn dropping_the_sender_answers_what_was_asked_and_then_stops_the_node() {
    let config = Config::in_memory(1).unwrap().remove(0);
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(config)
        .unwrap()
        .spinup()
        .unwrap();
    (0..100).for_each(|n| requests.send(append(None, &[&n.to_string()])).unwrap());
    drop(requests);
    let answers: Vec<Response> = responses.iter().collect();
    let last: Vec<u64> = answers.iter().map(|answer| accepted(answer).1).collect();
    assert_eq!(last, (1..=100).collect::<Vec<_>>());
}

#[test]
fn dropping_the_receiver_stops_the_node_at_the_next_answer() {
    let mut configs = Config::in_memory(2).unwrap().into_iter();
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(configs.next().unwrap())
        .unwrap()
        .spinup()
        .unwrap();
    let other = start::<String>(configs.next().unwrap());
    other.wait_ready(PATIENCE).unwrap();
    drop(responses);
    crate::common::eventually("the channel to be closed", || {
        requests.send(append(None, &["x"])).is_err()
    });
    crate::common::eventually("the other to be alone", || {
        let status = other.status();
        status.role != Role::Leader && status.peers.iter().all(|peer| !peer.connected)
    });
    other.shutdown().unwrap();
}

#[test]
fn requests_above_the_budget_wait_in_the_channel_in_order() {
    let mut config = Config::in_memory(1).unwrap().remove(0);
    config.in_flight_bytes_max = config.batch_bytes_max + (64 << 10);
    config.request_timeout = PATIENCE;
    let large = "x".repeat(1 << 20);
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(config)
        .unwrap()
        .spinup()
        .unwrap();
    (0..200).for_each(|_| requests.send(append(None, &[&large[..(1 << 20) - 8]])).unwrap());
    (0..20_000).for_each(|n| requests.send(append(None, &[&n.to_string()])).unwrap());
    requests.send(append(None, &[&large, "too large"])).unwrap();
    requests.send(read(1, 2)).unwrap();
    drop(requests);
    let answers: Vec<Response> = responses.iter().collect();
    assert_eq!(answers.len(), 20_202);
    for (answer, index) in answers[..20_200].iter().zip(1..) {
        assert_eq!(accepted(answer), (vec![], index));
    }
    assert!(rejected(&answers[20_200]).starts_with("too_large: "));
    let (entries, last) = accepted(&answers[20_201]);
    assert_eq!((entries.len(), last), (1, 20_200));
}

#[test]
fn an_answer_carries_the_term_to_expect_and_an_error_to_match_on() {
    let config = Config::in_memory(1).unwrap().remove(0);
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(config)
        .unwrap()
        .spinup()
        .unwrap();
    let ask = |request| {
        requests.send(request).unwrap();
        responses.recv_timeout(PATIENCE).unwrap()
    };
    let expecting = |index, term| ClientRequest::AppendEntries {
        prev_log_index: Some(index),
        prev_log_term: Some(term),
        entries: vec!["two".to_owned()],
    };
    ask(append(None, &["one"]));
    let ClientResponse::Accepted {
        last_index,
        last_term,
        ..
    } = ask(read(1, 2))
    else {
        panic!("a read is accepted");
    };
    let term = last_term.unwrap();
    match ask(expecting(last_index, term + 1)) {
        ClientResponse::Rejected { error, .. } => {
            let (code, outcome) = (error.code(), error.outcome());
            assert_eq!((code, outcome), (Code::Mismatch, Outcome::NotApplied));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(accepted(&ask(expecting(last_index, term))), (vec![], 2));
}
