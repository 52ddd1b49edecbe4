//! Channels, by a client that is written by hand from `docs/HTTP.md`.

use crate::{
    cluster::Cluster,
    http::{ask, json},
    scratch::until,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread::sleep,
    time::Duration,
};

const UPGRADE: &str = "connection: upgrade\r\nupgrade: kontiki\r\n";

struct Channel(TcpStream);

impl Channel {
    fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = format!("GET /v1/channel?timeout=60s HTTP/1.1\r\nhost: localhost\r\n{UPGRADE}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        Self(stream)
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        self.0.write_all(&frames.concat()).unwrap();
    }

    /// Kind, number and body of the next answer; nothing once the node has closed.
    fn next(&mut self) -> Option<(u8, u64, Vec<u8>)> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            read => read.unwrap(),
        }
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        let body = frame.split_off(9);
        Some((frame[0], u64::from_le_bytes(frame[1..].try_into().unwrap()), body))
    }

    /// So many answers, by their numbers.
    fn answers(&mut self, count: usize) -> BTreeMap<u64, (u8, Vec<u8>)> {
        let answer = |_| {
            let (kind, number, body) = self.next().unwrap();
            (number, (kind, body))
        };
        (0..count).map(answer).collect()
    }
}

fn frame(kind: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(9 + body.len()).unwrap();
    [&length.to_le_bytes()[..], &[kind], &number.to_le_bytes(), body].concat()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// An append: flags, the numbers they announce, and entries.
fn append(number: u64, flags: u8, given: &[u64], entries: &[&str]) -> Vec<u8> {
    let framed = |entry: &&str| [&(entry.len() as u32).to_le_bytes()[..], entry.as_bytes()].concat();
    let entries: Vec<u8> = entries.iter().flat_map(framed).collect();
    frame(1, number, &[&[flags], &numbers(given)[..], &entries].concat())
}

fn read(number: u64, consistency: u8, from: u64, to: u64) -> Vec<u8> {
    frame(2, number, &[&[consistency][..], &numbers(&[from, to])].concat())
}

fn three(body: &[u8]) -> [u64; 3] {
    assert_eq!(body.len(), 24);
    [0, 8, 16].map(|at| u64::from_le_bytes(body[at..at + 8].try_into().unwrap()))
}

fn problem(answer: &(u8, Vec<u8>)) -> Value {
    assert_eq!(answer.0, 3, "{}", String::from_utf8_lossy(&answer.1));
    serde_json::from_slice(&answer.1).unwrap()
}

#[test]
fn many_appends_are_under_way_at_once_and_reads_see_them() {
    let cluster = Cluster::start();
    let count = 3000;
    let mut channel = Channel::open(cluster.http_port(cluster.leader() % 3 + 1));
    let texts: Vec<String> = (0..count).map(|number| format!("entry {number}")).collect();
    let frames = (0..)
        .zip(&texts)
        .map(|(number, text)| append(number, 0, &[], &[text]));
    let frames: Vec<_> = frames.collect();
    // More than are under way at once: some are taken in only when others were answered.
    channel.send(&frames);
    let answers = channel.answers(count);
    let mut places: Vec<u64> = answers
        .values()
        .map(|(kind, body)| {
            assert_eq!(*kind, 1, "{}", String::from_utf8_lossy(body));
            three(body)[0]
        })
        .collect();
    let mut by_place = vec![""; count];
    for (place, text) in places.iter().zip(&texts) {
        by_place[*place as usize - 1] = text;
    }
    places.sort_unstable();
    assert!(
        places.into_iter().eq(1..=count as u64),
        "each has a place of its own"
    );
    assert_eq!(
        cluster.read_from(1, ".."),
        (by_place.join("\n") + "\n").into_bytes()
    );

    for consistency in 0..=2 {
        channel.send(&[read(7, consistency, 2, 4)]);
        let (kind, number, body) = channel.next().unwrap();
        assert_eq!((kind, number), (2, 7), "{}", String::from_utf8_lossy(&body));
        let mut expected = numbers(&[2, count as u64]);
        for text in &by_place[1..3] {
            expected.extend((text.len() as u32).to_le_bytes());
            expected.extend(text.as_bytes());
        }
        assert_eq!(body, expected);
    }
    channel.send(&[append(1, 0, &[], &["a", "b"]), read(2, 0, 0, 2)]);
    channel.0.shutdown(Shutdown::Write).unwrap();
    let answers = channel.answers(2);
    assert_eq!(three(&answers[&1].1)[..2], [count as u64 + 1, count as u64 + 2]);
    assert_eq!(
        answers[&2].1[..8],
        1u64.to_le_bytes(),
        "from where the log begins"
    );
    assert_eq!(channel.next(), None);
}

#[test]
fn each_append_fails_for_itself() {
    let cluster = Cluster::start();
    let mut channel = Channel::open(cluster.http_port(1));
    channel.send(&[append(1, 1, &[0], &["first"])]);
    assert_eq!(three(&channel.answers(1)[&1].1)[0], 1);
    channel.send(&[
        append(10, 1, &[0], &["late"]),
        append(11, 64, &[], &["x"]),
        frame(1, 12, b"\0\x05\0\0\0x"),
        frame(9, 13, b""),
        append(14, 0, &[], &[&"x".repeat((1 << 20) + 1)]),
        append(15, 4, &[99, 1, 0], &["no such session"]),
        append(16, 0, &[], &["second"]),
    ]);
    let answers = channel.answers(7);
    for (number, code, outcome) in [
        (10, "mismatch", "not_applied"),
        (11, "bad_request", "not_applied"),
        (12, "bad_request", "not_applied"),
        (13, "bad_request", "not_applied"),
        (14, "too_large", "not_applied"),
        (15, "session_expired", "unknown"),
    ] {
        let problem = problem(&answers[&number]);
        assert_eq!(
            (&problem["code"], &problem["outcome"]),
            (&code.into(), &outcome.into()),
            "{problem}"
        );
    }
    assert_eq!(three(&answers[&16].1)[0], 2);
}

#[test]
fn a_retry_takes_effect_once_over_channels_too() {
    let cluster = Cluster::start();
    let (_, session) = json(ask(cluster.http_port(2), "POST", "/v1/sessions", "", b""));
    let session: u64 = session["session"].as_str().unwrap().parse().unwrap();
    let first = |id, text| {
        let mut channel = Channel::open(cluster.http_port(id));
        channel.send(&[append(1, 4, &[session, 1, 1], &[text])]);
        let (kind, _, body) = channel.next().unwrap();
        assert_eq!(kind, 1, "{}", String::from_utf8_lossy(&body));
        three(&body)
    };
    let appended = first(1, "one");
    assert_eq!(first(2, "one"), appended);
    assert_eq!(first(3, "another text"), appended);
    assert_eq!(cluster.read_from(1, ".."), b"one\n");
}

#[test]
fn what_is_no_frame_is_named_with_its_place_after_all_before_is_answered() {
    let cluster = Cluster::start();
    let good = append(1, 0, &[], &["one"]);
    for (bad, ended, code) in [
        (&b"\x08\0\0\0"[..], false, "bad_request"),
        (b"\xff\xff\xff\xff", false, "too_large"),
        (b"\x20\0\0\0\x01", true, "bad_request"),
    ] {
        let mut channel = Channel::open(cluster.http_port(1));
        channel.send(&[good.clone(), bad.to_vec()]);
        if ended {
            channel.0.shutdown(Shutdown::Write).unwrap();
        }
        let mut answers = [channel.next().unwrap(), channel.next().unwrap()];
        answers.sort();
        assert_eq!(answers[0].0, 1);
        assert_eq!(answers[1].0, 4);
        let problem: Value = serde_json::from_slice(&answers[1].2).unwrap();
        assert_eq!(problem["code"], code, "{problem}");
        let place = format!("at byte {} ", good.len());
        assert!(problem["detail"].as_str().unwrap().contains(&place), "{problem}");
        assert_eq!(channel.next(), None);
    }
}

#[test]
fn only_an_upgrade_opens_a_channel_and_no_page_of_another_origin_does() {
    let cluster = Cluster::start();
    let open = |headers: &str| {
        let (status, problem) = json(ask(cluster.http_port(1), "GET", "/v1/channel", headers, b""));
        (status, problem["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(open(""), (400, "bad_request".to_owned()));
    assert_eq!(open("connection: upgrade\r\nupgrade: websocket\r\n").0, 400);
    let foreign = format!("{UPGRADE}origin: http://example.com\r\n");
    assert_eq!(open(&foreign), (403, "forbidden".to_owned()));
}

/// What clients hold of a node.
fn held(cluster: &Cluster, id: u64) -> Value {
    json(ask(cluster.http_port(id), "GET", "/v1/status", "", b"")).1["http"].clone()
}

#[test]
fn answers_that_no_client_takes_are_bounded_over_all_channels_and_none_is_lost() {
    let budget = 8u64 << 20;
    let cluster = Cluster::start_with(&[(
        "# http_answers_bytes_max = \"128MiB\"",
        "http_answers_bytes_max = \"8MiB\"",
    )]);
    let entry = "y".repeat(500_000);
    let mut writer = Channel::open(cluster.http_port(1));
    for number in 0..4 {
        writer.send(&[append(number, 0, &[], &[&entry])]);
        assert_eq!(writer.next().unwrap().0, 1);
    }
    let mut channels: Vec<Channel> = (0..12).map(|_| Channel::open(cluster.http_port(1))).collect();
    for channel in &mut channels {
        let reads: Vec<_> = (0..50)
            .map(|number| read(number, 2, number % 4 + 1, number % 4 + 2))
            .collect();
        channel.send(&reads);
    }
    until("answers that wait for their clients", || {
        (held(&cluster, 1)["answers_bytes"].as_u64()? > budget / 8).then_some(())
    });
    // Together they ask for 300 MB. More would be read in this time, if it were not for the limit.
    for _ in 0..20 {
        let held = held(&cluster, 1);
        assert!(held["answers_bytes"].as_u64().unwrap() <= budget, "{held}");
        sleep(Duration::from_millis(20));
    }
    let readers: Vec<_> = channels
        .into_iter()
        .map(|mut channel| {
            std::thread::spawn(move || {
                let answers = channel.answers(50);
                // Two indexes, the entry's length, and the entry.
                assert!(
                    answers
                        .values()
                        .all(|(kind, body)| *kind == 2 && body.len() == 20 + 500_000)
                );
                answers.len()
            })
        })
        .collect();
    let answered: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert_eq!(answered, 600);
    until("nothing to be held", || {
        (held(&cluster, 1)["answers_bytes"] == 0).then_some(())
    });
}

#[test]
fn frames_are_admitted_before_they_are_read_and_have_a_time() {
    let cluster = Cluster::start_with(&[
        ("# http_body_timeout = \"30s\"", "http_body_timeout = \"2s\""),
        (
            "# http_requests_bytes_max = \"64MiB\"",
            "http_requests_bytes_max = \"1MiB\"",
        ),
    ]);
    let large = append(7, 0, &[], &[&"x".repeat(700_000)]);
    let part = &large[..100_000];
    let mut slow: Vec<Channel> = (0..6).map(|_| Channel::open(cluster.http_port(1))).collect();
    for channel in &mut slow {
        channel.send(&[part.to_vec()]);
    }
    // One that goes on has its turn.
    let mut whole = Channel::open(cluster.http_port(1));
    let mut sender = Channel(whole.0.try_clone().unwrap());
    let sender = std::thread::spawn(move || sender.send(&[large]));
    let (kind, number, body) = whole.next().unwrap();
    assert_eq!((kind, number), (1, 7), "{}", String::from_utf8_lossy(&body));
    sender.join().unwrap();
    for channel in &mut slow {
        let (kind, _, body) = channel.next().unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (kind, &problem["code"]),
            (4, &"request_timeout".into()),
            "{problem}"
        );
        let held = held(&cluster, 1);
        assert!(held["requests_bytes"].as_u64().unwrap() <= 1 << 20, "{held}");
    }
    drop((slow, whole));
    until("nothing to be held", || {
        (held(&cluster, 1)["requests_bytes"] == 0).then_some(())
    });
}

#[test]
fn a_node_that_stops_refuses_or_answers_and_closes() {
    let mut cluster = Cluster::start();
    let mut channel = Channel::open(cluster.http_port(1));
    channel.send(&[append(1, 0, &[], &["before"])]);
    assert_eq!(channel.next().unwrap().0, 1);
    assert_eq!(cluster.stop(1, "TERM"), 0);
    assert_eq!(channel.next(), None);
}
