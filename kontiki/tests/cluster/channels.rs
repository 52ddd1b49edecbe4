//! A node behind two channels.

use crate::common::{PATIENCE, start};
use kontiki::{ClientRequest, ClientResponse, Config, LogOnly, RaftNode, Role};

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

fn accepted(entries: &[&str], last_index: u64) -> Response {
    ClientResponse::Accepted {
        entries: entries.iter().map(ToString::to_string).collect(),
        last_index,
    }
}

fn rejected(response: &Response) -> &str {
    match response {
        ClientResponse::Rejected { reason } => reason,
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
    assert_eq!(next(), accepted(&[], 1));
    let miss = next();
    assert!(
        rejected(&miss).contains("it ends with entry 1 of term "),
        "{miss:?}"
    );
    assert_eq!(next(), accepted(&[], 3));
    assert_eq!(next(), accepted(&["one", "two"], 3));
    assert!(rejected(&next()).contains("it ends with entry 3"));
    assert_eq!(next(), accepted(&[], 3));
    assert_eq!(next(), accepted(&["three"], 3));
    assert!(rejected(&next()).contains("prev_log_index"));
    assert_eq!(next(), accepted(&[], 3));
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
    assert_eq!(answers, (1..=100).map(|n| accepted(&[], n)).collect::<Vec<_>>());
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
fn what_is_above_the_budget_is_rejected_in_its_turn() {
    let mut config = Config::in_memory(1).unwrap().remove(0);
    config.in_flight_bytes_max = config.batch_bytes_max + (64 << 10);
    let large = "x".repeat(1 << 20);
    let (requests, responses) = RaftNode::<LogOnly<String>>::new(config)
        .unwrap()
        .spinup()
        .unwrap();
    (0..200).for_each(|_| requests.send(append(None, &[&large[..(1 << 20) - 8]])).unwrap());
    requests.send(append(None, &[&large, "too large"])).unwrap();
    requests.send(read(1, 2)).unwrap();
    drop(requests);
    let answers: Vec<Response> = responses.iter().collect();
    assert_eq!(answers.len(), 202);
    let mut last = 0;
    for answer in &answers[..200] {
        match answer {
            ClientResponse::Accepted { last_index, .. } => {
                last += 1;
                assert_eq!(*last_index, last);
            }
            ClientResponse::Rejected { reason } => assert!(reason.starts_with("overloaded: "), "{reason}"),
        }
    }
    assert!(rejected(&answers[200]).starts_with("too_large: "));
    assert!(
        matches!(&answers[201], ClientResponse::Accepted { entries, last_index } if entries.len() == 1 && *last_index == last)
    );
}
