//! Plays the stories of `tests/scenarios/*.txt` and compares what happens with what they tell.
//!
//! A line that begins with `>` is a command, what follows it is what it brings about; lines that begin
//! with `#`, and empty ones, are the story. `UPDATE_SCENARIOS=1 cargo test --test scenarios` writes down
//! what happens now. The commands stand in [`Stage::command`].

mod common;

use common::{Cluster, image::Image, words};
use kontiki_consensus::{Consensus, Duration, Event, LogId, Message, NodeId};
use std::{fs, path::Path};

struct Stage(Option<Cluster>);

impl Stage {
    /// Carries out a command; gives what happened, line by line.
    fn command(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["cluster", voters, settings @ ..] => self.0 = Some(cluster(number(voters), settings)),
            ["quietly", ..] => {
                self.command(line.trim_start_matches("quietly "));
                return Vec::new();
            }
            ["status"] => return status(self.cluster()),
            other => act(self.cluster(), other),
        }
        std::mem::take(&mut self.cluster().trace)
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.0.as_mut().expect("the first command is `cluster`")
    }
}

fn act(cluster: &mut Cluster, words: &[&str]) {
    match words {
        // Only the clock moves; nobody's timer goes off.
        ["time", by] => cluster.now = cluster.now.after(Duration::from_millis(number(by))),
        ["timeout", at] => cluster.timeout(node(at)),
        ["deliver", which @ ..] => deliver(cluster, which),
        ["settle"] => cluster.settle(),
        ["drop", which @ ..] => {
            for (name, _) in chosen(cluster, which) {
                cluster.trace.push(format!("m{name} is lost"));
            }
        }
        ["repeat", name] => repeat(cluster, name),
        ["cut", at] => cluster.server(node(at)).cut = true,
        ["heal", at] => cluster.server(node(at)).cut = false,
        ["slow", at] => cluster.server(node(at)).slow = true,
        ["fast", at] => cluster.server(node(at)).slow = false,
        ["persist", at] => cluster.persist(node(at)),
        ["propose", at, records] => propose(cluster, node(at), number(records), 8),
        ["propose", at, records, bytes] => {
            propose(cluster, node(at), number(records), number(bytes) as usize)
        }
        ["read", at] => drop(cluster.read(node(at))),
        ["lease-read", at] => lease_read(cluster, node(at)),
        ["snapshot", at] => cluster.take_snapshot(node(at)),
        ["purge", at, through] => cluster.purge(node(at), number(through)),
        ["compact", at] => cluster.compact(node(at)),
        ["disk", at] => finish_write(cluster, node(at)),
        ["transfer", at] => cluster.transfer(node(at)),
        ["break", at] => cluster.break_transfer(node(at)),
        ["gone", at, index] => cluster.remove_snapshot(node(at), number(index)),
        ["full", at] => cluster.happen(node(at), Event::DiskFull(true)),
        ["room", at] => cluster.happen(node(at), Event::DiskFull(false)),
        ["unreachable", from, to] => cluster.happen(node(from), Event::SendDropped(node(to))),
        ["crash", at] => cluster.crash(node(at)),
        ["restart", at] => cluster.restart(node(at), true),
        ["restart", at, "cold"] => cluster.restart(node(at), false),
        ["elect", at] => cluster.elect(node(at).0),
        ["log", at, terms @ ..] => log(cluster, node(at), terms),
        other => panic!("no such command: {other:?}"),
    }
}

fn number(word: &str) -> u64 {
    let digits = word
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .trim_end_matches("ms");
    digits.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn node(word: &str) -> NodeId {
    NodeId(number(word))
}

fn cluster(voters: u64, settings: &[&str]) -> Cluster {
    let setting = |name: &str| {
        settings
            .iter()
            .find_map(|s| s.strip_prefix(name)?.strip_prefix('='))
            .map(number)
    };
    Cluster::new(voters, setting("learners").unwrap_or(0), 1, |config| {
        let size = |name, usual| setting(name).map_or(usual, |n| n as usize);
        config.window_bytes_max = size("window", config.window_bytes_max);
        config.message_bytes_max = size("message", config.message_bytes_max);
        config.tail_bytes_max = size("tail", config.tail_bytes_max);
        config.lease_drift_ppm = setting("lease").map(|ppm| ppm as u32);
    })
}

/// `log n1 1 1 4 [term=7]`: these terms at i1, i2, i3; i1 is the genesis record.
fn log(cluster: &mut Cluster, node: NodeId, words: &[&str]) {
    let (terms, term): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| !w.starts_with("term="));
    let terms: Vec<u64> = terms.into_iter().map(number).collect();
    let genesis = cluster.servers[&node].disk.records[0].clone();
    assert_eq!(terms[0], 1, "the genesis record has term 1");
    let mut image = Image::with_terms(&genesis, &terms[1..]);
    if let Some(term) = term.first() {
        image.hard_state.term.0 = number(term);
    }
    cluster.replace_disk(node, image);
}

/// Takes out of the bag what is meant by `m7 m9`, `n1->n2`, or by nothing: all there is now.
fn chosen(cluster: &mut Cluster, which: &[&str]) -> Vec<(u64, Message)> {
    let picked = |(name, message): &(u64, Message)| {
        which.is_empty()
            || which.iter().any(|w| match w.split_once("->") {
                Some((from, to)) => message.from == node(from) && message.to == node(to),
                None => *name == number(w),
            })
    };
    let mut names: Vec<u64> = cluster
        .bag
        .iter()
        .filter(|m| picked(m))
        .map(|(name, _)| *name)
        .collect();
    if names.is_empty() {
        cluster.trace.push("nothing is under way".into());
    }
    // Messages that are named arrive in the order they are named.
    names.sort_by_key(|name| which.iter().position(|w| !w.contains("->") && number(w) == *name));
    names
        .into_iter()
        .filter_map(|name| Some((name, cluster.take(name)?)))
        .collect()
}

fn deliver(cluster: &mut Cluster, which: &[&str]) {
    for (name, message) in chosen(cluster, which) {
        cluster.arrive(name, message);
    }
}

/// A copy of a message, under the same name.
fn repeat(cluster: &mut Cluster, name: &str) {
    let copy = cluster.bag.iter().find(|(n, _)| *n == number(name)).cloned();
    cluster
        .bag
        .push(copy.unwrap_or_else(|| panic!("no such message: {name}")));
}

fn propose(cluster: &mut Cluster, node: NodeId, records: u64, bytes: usize) {
    if !cluster.propose(node, records, bytes) {
        cluster.trace.push(format!("{node:?} admits nothing"));
    }
}

/// The disk has done its oldest write; the server does not hear of it.
fn finish_write(cluster: &mut Cluster, node: NodeId) {
    if let Some(id) = cluster.finish_write(node) {
        cluster
            .trace
            .push(format!("{node:?} has {id:?} on disk and does not know"));
    }
}

fn lease_read(cluster: &mut Cluster, node: NodeId) {
    let line = match cluster.lease_read(node) {
        Some(index) => format!("{node:?} answers under its lease at {index:?}"),
        None => format!("{node:?} has no lease"),
    };
    cluster.trace.push(line);
}

fn status(cluster: &Cluster) -> Vec<String> {
    let lines = cluster.servers.values().map(|server| {
        let node = server.config.node;
        server.life.as_ref().map_or(format!("{node:?} is down"), |life| {
            let terms: Vec<String> = server
                .memory
                .records
                .iter()
                .map(|r| r.term().to_string())
                .collect();
            let base = match server.memory.base.last {
                LogId::ZERO => String::new(),
                base => format!(" base={base:?}"),
            };
            format!("{}{base} log={}", summary(node, life), terms.join(" "))
        })
    });
    lines.collect()
}

fn summary(node: NodeId, life: &Consensus) -> String {
    let role = words::role(life.role());
    let (term, commit, persisted) = (life.term(), life.commit(), life.persisted());
    format!("{node:?} {role} {term:?} commit={commit:?} persisted={persisted:?}")
}

/// Plays a story and gives it back as it went.
fn play(story: &str) -> String {
    let mut stage = Stage(None);
    let mut told = String::new();
    for line in story.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            told.push_str(line);
            told.push('\n');
            // Shown only if the test fails: how far the story came.
            println!("{line}");
            for happened in stage.command(command) {
                println!("    {happened}");
                told.push_str("    ");
                told.push_str(&happened);
                told.push('\n');
            }
        } else if line.is_empty() || line.starts_with('#') {
            told.push_str(line);
            told.push('\n');
        }
    }
    told
}

fn check(path: &Path) -> Option<String> {
    let written = fs::read_to_string(path).expect("a story can be read");
    let played = play(&written);
    if played == written {
        return None;
    }
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        fs::write(path, played).expect("a story can be written");
        return None;
    }
    let pairs = written.lines().zip(played.lines()).enumerate();
    let first = pairs.into_iter().find(|(_, (w, p))| w != p);
    Some(match first {
        Some((n, (w, p))) => format!("{}:{}\n  told:     {w}\n  happened: {p}", path.display(), n + 1),
        None => format!("{}: one of the two is longer", path.display()),
    })
}

#[test]
fn every_story_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = fs::read_dir(folder).expect("the folder of the stories");
    let mut paths: Vec<_> = files.map(|f| f.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "stories are missing: {paths:?}");
    let wrong: Vec<String> = paths.iter().filter_map(|p| check(p)).collect();
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE_SCENARIOS=1 writes down what happens now",
        wrong.join("\n")
    );
}
