//! Lines go in and come out again, whatever is in them and whoever dies meanwhile.

use crate::{
    cluster::Cluster,
    scratch::{Process, kontiki, printed, run_with, said, until},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    ops::RangeInclusive,
    process::Stdio,
    thread,
};

/// Lines that are all different.
fn generated(count: u64) -> Vec<u8> {
    (1..=count)
        .flat_map(|n| format!("line {n:06} {}\n", "x".repeat((n * n % 150) as usize)).into_bytes())
        .collect()
}

#[test]
fn a_file_comes_back_from_every_node_as_it_went_in() {
    let cluster = Cluster::start();
    let file = cluster.scratch.path("lines");
    let lines = generated(10_000);
    fs::write(&file, &lines).unwrap();
    let output = cluster.run(&["append", "--lines", file.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        said(&output),
        "10000 entries acknowledged, first index 1, last index 10000\n"
    );
    assert_eq!(printed(&output), "");
    for id in 1..=3 {
        assert!(
            cluster.read_from(id, "..") == lines,
            "node {id} returns other bytes"
        );
    }
    assert_eq!(cluster.read_from(2, "10001.."), b"");
}

#[test]
fn odd_bytes_survive() {
    let cluster = Cluster::start();
    let odd = b"\r\n\n\xff\xfe\x00\nlast \xc3\xa9\r\n\x0b\x0c\n";
    let output = cluster.run(&["append", "--lines", "-", "--json"], odd);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["acknowledged"], &report["first"], &report["last"]),
        (&5.into(), &1.into(), &5.into())
    );
    assert_eq!(cluster.read_from(3, ".."), odd);

    // A last line without an end is an entry like any other; printed, it gets one.
    assert!(
        cluster
            .run(&["append", "--lines", "-"], b"open end")
            .status
            .success()
    );
    assert_eq!(cluster.read_from(1, "6"), b"open end\n");
    assert!(cluster.run(&["append", "--lines", "-"], b"").status.success());

    let json = printed(&cluster.run(&["read", "--json", "1..=4"], b""));
    let entries: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&entries[0]["text"], &entries[1]["text"]),
        (&"\r".into(), &"".into())
    );
    assert_eq!(
        (&entries[2]["base64"], &entries[2]["text"]),
        (&"//4A".into(), &Value::Null)
    );
    assert_eq!(
        (&entries[3]["index"], &entries[3]["text"]),
        (&4.into(), &"last \u{e9}\r".into())
    );
}

#[test]
fn texts_are_appended_together_and_their_indexes_printed() {
    let cluster = Cluster::start();
    assert_eq!(printed(&cluster.run(&["append", "one", "two"], b"")), "1\n2\n");
    assert_eq!(printed(&cluster.run(&["append", "--", "-3"], b"")), "3\n");
    assert_eq!(printed(&cluster.run(&["read", "2.."], b"")), "two\n-3\n");
    let too_large = cluster.run(&["append", "--lines", "-"], &[b'x'; 2 << 20]);
    assert_eq!(too_large.status.code(), Some(1), "{}", said(&too_large));
    assert!(
        said(&too_large).contains("line 1 and all after it were not appended"),
        "{}",
        said(&too_large)
    );
}

#[test]
fn dash_is_what_standard_input_holds_as_one_entry() {
    let cluster = Cluster::start();
    let input = b"two\nlines\r\n\xff";
    let output = cluster.run(&["append", "one", "-", "three"], input);
    assert_eq!(printed(&output), "1\n2\n3\n", "{}", said(&output));
    assert_eq!(cluster.read_from(1, "2"), [&input[..], b"\n"].concat());
    assert_eq!(printed(&cluster.run(&["append", "-"], b"")), "4\n");
    assert_eq!(cluster.read_from(1, "4"), b"\n");
    let twice = cluster.run(&["append", "-", "-"], b"x");
    assert_eq!(twice.status.code(), Some(2), "{}", said(&twice));
}

#[test]
fn read_beyond_the_end_says_where_the_log_ends() {
    let cluster = Cluster::start();
    let read = |range: &str| {
        let output = cluster.run(&["read", range], b"");
        (output.status.code().unwrap(), printed(&output), said(&output))
    };
    let empty = |words: &str| format!("kontiki: {words}the log is empty\n");
    assert_eq!(read("1"), (1, String::new(), empty("there is no entry 1: ")));
    assert_eq!(read("..5"), (0, String::new(), empty("")));
    assert_eq!(read(".."), (0, String::new(), String::new()));
    assert!(cluster.run(&["append", "one", "two"], b"").status.success());
    let end = |words: &str| format!("kontiki: {words}the log ends at entry 2\n");
    assert_eq!(read("5000"), (1, String::new(), end("there is no entry 5000: ")));
    assert_eq!(read("2..5"), (0, "two\n".into(), end("")));
    assert_eq!(read("4.."), (0, String::new(), end("")));
    assert_eq!(read("4..9"), (0, String::new(), end("")));
    // What is next may be asked for.
    assert_eq!(read("3.."), (0, String::new(), String::new()));
    assert_eq!(read("1..3"), (0, "one\ntwo\n".into(), String::new()));
}

/// A tail is printed as it grows.
#[test]
fn a_tail_follows_across_the_death_of_the_node_it_listens_to() {
    let mut cluster = Cluster::start();
    assert!(cluster.run(&["append", "one", "two"], b"").status.success());
    let mut tail = cluster.asking(&[2, 3, 1], &["tail", "--from", "2"]);
    let mut tail = Process(tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    cluster.kill(2);
    // The tail is to be seen across a change of leader, if that was the leader.
    cluster.leader();
    assert!(cluster.run(&["append", "three"], b"").status.success());
    assert_eq!(lines.next().unwrap().unwrap(), "three");
}

#[test]
fn status_tells_of_every_node() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    cluster.kill(leader);
    let next = cluster.leader();
    assert_ne!(next, leader);
    let status = cluster.status();
    let silent = &status[leader as usize - 1];
    assert_eq!(
        (&silent["node"], &silent["role"]),
        (&leader.into(), &"unreachable".into())
    );
    let leading = &status[next as usize - 1];
    assert_eq!((&leading["leader"], &leading["last"]), (&next.into(), &1.into()));
    assert!(leading["term"].as_u64() > Some(0));
    assert_eq!(cluster.stop(next, "TERM"), 0);
}

#[test]
fn the_leader_is_killed_while_its_client_appends() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let order = [leader, follower, follower % 3 + 1];
    end_while_appending(&mut cluster, leader, &order, Cluster::kill);
}

#[test]
fn the_leader_is_stopped_while_its_client_appends() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let order = [leader, follower, follower % 3 + 1];
    end_while_appending(&mut cluster, leader, &order, |cluster, id| {
        assert_eq!(cluster.stop(id, "TERM"), 0);
    });
}

#[test]
fn an_interrupted_append_says_how_far_it_came() {
    let cluster = Cluster::start();
    let mut append = cluster.asking(&[1, 2, 3], &["append", "--lines", "-", "--verbose"]);
    append.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut append = Process(append.spawn().unwrap());
    let mut stdin = append.0.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\nthr").unwrap();
    let mut told = BufReader::new(append.0.stderr.take().unwrap());
    let mut first = String::new();
    told.read_line(&mut first).unwrap();
    assert!(first.starts_with("lines 1..=2 are entries 1..=2 "), "{first}");
    append.signal("INT");
    assert_eq!(append.wait(), 130);
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(
        rest,
        "2 entries acknowledged, first index 1, last index 2\ninterrupted: lines after 2 were not sent\n"
    );
}

#[test]
fn the_leader_is_killed_while_a_client_of_a_follower_appends() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let order = [follower, follower % 3 + 1, leader];
    end_while_appending(&mut cluster, leader, &order, Cluster::kill);
}

/// Ends `victim` in the middle of an append, and checks that every line is there once, and where the client was told.
fn end_while_appending(cluster: &mut Cluster, victim: u64, order: &[u64], end: impl Fn(&mut Cluster, u64)) {
    let lines = generated(40_000);
    let mut append = cluster.asking(order, &["append", "--lines", "-", "--verbose"]);
    append
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut append = Process(append.spawn().unwrap());
    let (mut stdin, input) = (append.0.stdin.take().unwrap(), lines.clone());
    let writer = thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut told = BufReader::new(append.0.stderr.take().unwrap());
    let mut first = String::new();
    told.read_line(&mut first).unwrap();
    end(cluster, victim);
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    let account = Account::read(&(first + &rest));
    writer.join().unwrap();
    let code = append.wait();

    assert_eq!((code, account.unknown.len()), (0, 0), "{}", account.told);
    cluster.restart(victim);
    let log = cluster.read_from(victim, "..");
    assert!(log == lines, "the log is not the file: {}", account.told);
    account.check(&lines, &log);
    for id in 1..=3 {
        assert!(
            cluster.read_from(id, "..") == log,
            "node {id} returns other bytes"
        );
    }
}

/// What a client was told.
struct Account {
    told: String,
    /// Index of the first entry, by the lines of a batch.
    acknowledged: Vec<(RangeInclusive<u64>, u64)>,
    unknown: Vec<RangeInclusive<u64>>,
}

impl Account {
    fn read(told: &str) -> Self {
        let mut account = Self {
            told: told.to_owned(),
            acknowledged: Vec::new(),
            unknown: Vec::new(),
        };
        for line in told.lines() {
            if let Some(unknown) = line.strip_prefix("unknown whether lines ") {
                account.unknown.push(range(unknown));
            } else if let Some((lines, entries)) = line.split_once(" are entries ") {
                account
                    .acknowledged
                    .push((range(lines.trim_start_matches("lines ")), *range(entries).start()));
            }
        }
        account
    }

    /// Every acknowledged line stands where it was said to stand, and nowhere else; a line of unknown fate stands there
    /// once or not at all; nothing else is there.
    fn check(&self, lines: &[u8], log: &[u8]) {
        let lines: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
        let log: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        let mut times: BTreeMap<&[u8], usize> = BTreeMap::new();
        log.iter().for_each(|entry| *times.entry(entry).or_default() += 1);
        for (batch, first) in &self.acknowledged {
            for (line, index) in batch.clone().zip(*first..) {
                let line = lines[line as usize - 1];
                assert_eq!((log[index as usize - 1], times[line]), (line, 1), "{}", self.told);
            }
        }
        let unknown = self.unknown.iter().flat_map(Clone::clone);
        let arrived = unknown
            .clone()
            .filter(|line| times.contains_key(lines[*line as usize - 1]))
            .count();
        let acknowledged: u64 = self
            .acknowledged
            .iter()
            .map(|(batch, _)| batch.end() - batch.start() + 1)
            .sum();
        assert_eq!(acknowledged as usize + arrived, log.len(), "{}", self.told);
        assert_eq!(
            acknowledged as usize + unknown.count(),
            lines.len(),
            "{}",
            self.told
        );
    }
}

/// `A..=B` at the beginning of a text.
fn range(text: &str) -> RangeInclusive<u64> {
    let (first, rest) = text.split_once("..=").unwrap();
    let last = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    first.parse().unwrap()..=last.parse().unwrap()
}

#[test]
fn without_a_session_what_is_unknown_is_named() {
    let mut cluster = Cluster::start();
    assert!(
        cluster
            .run(&["append", "--no-session", "one", "two"], b"")
            .status
            .success()
    );
    let leader = cluster.leader();
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.kill(id));
    let append = |flags: &[&str]| {
        let endpoint = cluster.endpoint(leader);
        let args = [
            &["append", "three", "--timeout", "2s", "--endpoint", &endpoint],
            flags,
        ]
        .concat();
        run_with(kontiki().args(args), b"")
    };
    let output = append(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("no session was opened"),
        "{}",
        said(&output)
    );
    let code = append(&["--no-session"]).status.code().unwrap();
    assert!(code == 1 || code == 5, "{code}");
}

#[test]
fn without_a_majority_nothing_is_appended_and_nothing_guessed() {
    let mut cluster = Cluster::start();
    assert!(cluster.run(&["append", "one"], b"").status.success());
    let leader = cluster.leader();
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.kill(id));
    let output = run_with(
        &mut cluster.asking(&[leader], &["read", "..", "--consistency", "stale"]),
        b"",
    );
    assert_eq!(printed(&output), "one\n");
    let mut append = kontiki();
    append.args([
        "append",
        "two",
        "--timeout",
        "3s",
        "--endpoint",
        &cluster.endpoint(leader),
    ]);
    let output = run_with(&mut append, b"");
    let code = output.status.code().unwrap();
    assert!(code == 1 || code == 5, "{code}: {}", said(&output));
}

#[test]
fn a_log_with_retention_forgets_its_past_and_says_where_it_begins() {
    let mut cluster = Cluster::start();
    cluster.configure("retention_bytes = \"1MiB\"");
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    // One node hears of nothing until what it misses is gone.
    let late = 3;
    cluster.kill(late);
    let line = [&[b'x'; 60_000][..], b"\n"].concat();
    let output = cluster.run(&["append", "--lines", "-"], &line.repeat(600));
    assert!(output.status.success(), "{}", said(&output));
    cluster.restart(late);
    let first = until("every node to forget the past", || {
        let firsts: Vec<u64> = cluster
            .status()
            .iter()
            .filter_map(|n| n["first"].as_u64())
            .collect();
        (firsts.len() == 3 && firsts.iter().all(|first| *first > 1 && *first == firsts[0])).then(|| firsts[0])
    });
    for id in 1..=3 {
        let lines = cluster.read_from(id, "..");
        assert_eq!(lines.len(), line.len() * (601 - first as usize), "node {id}");
        let mut gone = cluster.asking(&[id], &["read", "1..", "--json"]);
        let gone = run_with(&mut gone, b"");
        assert_eq!(gone.status.code(), Some(1));
        assert!(
            said(&gone).contains(&format!("begins with entry {first}")),
            "{}",
            said(&gone)
        );
    }
}
