//! Traces of transitions: a run writes one that another program finds to be Raft, and is the same run as without.

mod validator;

use kontiki_sim::outlets::Outlet;
use kontiki_sim::random::Random;
use kontiki_sim::run::{Report, run, run_into};
use kontiki_sim::swarm::Swarm;
use kontiki_sim::trace::Detail;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::rc::Rc;
use validator::judge;

/// Memory that can be written to, and read when the writer is gone.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn traced(seed: u64) -> (Report, Vec<Value>) {
    let memory = Memory::default();
    let outlet = Outlet {
        trace: Some(Box::new(memory.clone())),
        ..Outlet::default()
    };
    let report = run_into(seed, Detail::Hash, outlet);
    let bytes = memory.0.take();
    let lines = serde_json::Deserializer::from_slice(&bytes).into_iter();
    let lines = lines.collect::<Result<Vec<Value>, _>>();
    (report, lines.expect("every line is JSON"))
}

/// Seeds of three nodes or more that forget their log's past: in them most of what there is happens.
fn seeds() -> impl Iterator<Item = u64> {
    (0..200).filter(|seed| {
        let swarm = Swarm::draw(&mut Random::new(*seed).fork(1));
        swarm.nodes >= 3 && swarm.sizes.retain_bytes.is_some()
    })
}

/// The names of all fields in a value, with the way to them.
fn fields(value: &Value, way: &str, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            let way = format!("{way}.{name}");
            fields(value, &way, names);
            names.insert(way);
        }),
        Value::Array(values) => values.iter().for_each(|value| fields(value, way, names)),
        _ => {}
    }
}

/// What a line is about: its event, the type of its message, and what is rare in a write.
fn kind(line: &Value) -> String {
    let message = line["msg"]["type"].as_str().unwrap_or_default();
    let rare = ["truncate", "install", "purge"]
        .into_iter()
        .find(|name| line.get(name).is_some());
    let event = line["event"].as_str().unwrap_or_default();
    format!("{event} {message}{}", rare.unwrap_or_default())
}

/// All events and types of messages, and what is rare in a write.
const EVERYTHING: &[&str] = &[
    "up",
    "down",
    "state",
    "role",
    "write",
    "truncate",
    "install",
    "purge",
    "persisted",
    "send",
    "recv",
    "repeat",
    "drop",
    "request_vote",
    "request_vote_reply",
    "append_entries",
    "append_entries_reply",
    "install_snapshot",
    "read_index",
    "read_index_reply",
    "propose",
    "propose_reply",
    "snapshot_request",
    "snapshot_chunk",
];

#[test]
fn traces_are_raft_and_change_nothing_and_are_documented() {
    let mut seen = BTreeSet::new();
    let mut known: BTreeMap<String, (u32, BTreeSet<String>)> = BTreeMap::new();
    for (n, seed) in seeds().enumerate() {
        if n >= 2 && EVERYTHING.iter().all(|name| seen.contains(*name)) {
            break;
        }
        let (report, lines) = traced(seed);
        assert!(report.violation.is_none(), "{report}");
        if n < 2 {
            assert_eq!(report.hash, run(seed, Detail::Hash).hash, "seed {seed}");
        }
        seen.extend(judge(&lines).unwrap_or_else(|what| panic!("seed {seed}: {what}")));
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line["seq"], json!(n + 1), "seed {seed}");
            let (times, names) = known.entry(kind(line)).or_default();
            *times += 1;
            if *times < 300 {
                fields(line, "", names);
            }
        }
    }
    let never: Vec<_> = EVERYTHING.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(never.is_empty(), "{never:?} never happened");
    let page = include_str!("../../../docs/SIMULATOR.md");
    let mut shown = BTreeSet::new();
    for line in page.lines().filter(|l| l.starts_with("{\"seq\"")) {
        let line: Value = serde_json::from_str(line).expect(line);
        let mut names = BTreeSet::new();
        fields(&line, "", &mut names);
        shown.insert(line["event"].as_str().unwrap_or_default().to_owned());
        shown.extend(line["msg"]["type"].as_str().map(str::to_owned));
        shown.extend(line.as_object().into_iter().flat_map(|o| o.keys().cloned()));
        let (_, known) = known
            .get(&kind(&line))
            .unwrap_or_else(|| panic!("no line is like {line}"));
        let strange: Vec<_> = names.difference(known).collect();
        assert!(strange.is_empty(), "no such fields: {strange:?} in {line}");
    }
    let lacking: Vec<_> = seen.difference(&shown).collect();
    assert!(
        lacking.is_empty(),
        "docs/SIMULATOR.md has no example of {lacking:?}"
    );
}

/// The number of the first line for which this holds.
fn place(lines: &[Value], holds: impl Fn(&Value) -> bool) -> usize {
    lines.iter().position(holds).expect("there is such a line")
}

#[test]
fn what_is_not_raft_is_refused() {
    let seed = seeds().next().expect("there is one");
    let (_, mut good) = traced(seed);
    assert!(judge(&good).is_ok());
    let mut forged = good.clone();
    forge_a_term(&mut forged);
    let error = judge(&forged).expect_err("it is forged");
    assert!(error.starts_with("another record is committed"), "{error}");
    good.truncate(8_000);
    let refused = |what: &str, change: &dyn Fn(&mut Vec<Value>)| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = judge(&bad).expect_err(what);
        assert!(error.starts_with(what), "{what}: {error}");
    };
    let recv = place(&good, |l| l["event"] == "recv");
    let late = place(&good, |l| {
        l["event"] == "state" && l["term"].as_u64() > Some(1) && l["commit"].as_u64() > Some(3)
    });
    let leader = place(&good, |l| l["event"] == "state" && l["role"] == "leader");
    let vote = place(&good, |l| {
        l["event"] == "send" && l["msg"]["granted"] == true && l["msg"]["pre"] == false
    });
    let records = place(&good, |l| {
        l["event"] == "write" && l["records"][0]["kind"] == "user"
    });

    refused("it was never sent", &|lines| {
        lines.remove(place(lines, |l| l["event"] == "send"));
    });
    refused("it was never sent", &|lines| lines[recv]["id"] = json!(NEVER));
    refused("it is not what was sent", &|lines| {
        lines[recv]["msg"]["term"] = json!(99)
    });
    refused("there are no more copies", &|lines| {
        let again = lines[recv].clone();
        lines.insert(recv + 1, again);
        for (n, line) in lines.iter_mut().enumerate().skip(recv + 1) {
            line["seq"] = json!(1_000_000 + n);
        }
    });
    refused("seq does not rise", &|lines| lines.swap(recv, recv + 1));
    refused("the term falls", &|lines| lines[late]["term"] = json!(0));
    refused("the vote changes", &|lines| {
        let voted = place(lines, |l| l["event"] == "state" && l["vote"] != 0);
        let (node, term) = (lines[voted]["node"].clone(), lines[voted]["term"].clone());
        let again = place(&lines[voted + 1..], |l| {
            l["event"] == "state" && l["node"] == node && l["term"] == term
        });
        lines[voted + 1 + again]["vote"] = json!(77);
    });
    refused("the commit index falls", &|lines| {
        lines[late]["commit"] = json!(0)
    });
    refused("more is committed", &|lines| lines[late]["commit"] = json!(NEVER));
    refused("another node leads", &|lines| {
        let (mut other, term) = (lines[late].clone(), lines[leader]["term"].clone());
        other["event"] = json!("role");
        other["role"] = json!("leader");
        // One that is up: it has just said something.
        let is_other = |l: &&Value| l["event"] == "state" && l["node"] != lines[leader]["node"];
        other["node"] = lines.iter().rfind(is_other).expect("there is another")["node"].clone();
        other["term"] = term;
        other["seq"] = json!(NEVER);
        other["us"] = lines[lines.len() - 1]["us"].clone();
        other.as_object_mut().map(|o| o.remove("turn"));
        lines.push(other);
    });
    refused("the vote is not on disk", &|lines| {
        let to = lines[vote]["msg"]["to"].as_u64().map(|n| n + 1);
        lines[vote]["msg"]["to"] = json!(to);
    });
    refused("there is a gap", &|lines| {
        let first = lines[records]["records"][0]["first"].as_u64().map(|n| n + 1);
        lines[records]["records"][0]["first"] = json!(first);
    });
    refused("its log ends elsewhere", &|lines| {
        lines[records]["records"] = json!([]);
    });
    refused("something is null", &|lines| lines[recv]["id"] = Value::Null);
    refused("a number is too large", &|lines| {
        lines[recv]["us"] = json!(1_u64 << 31)
    });
}

/// A number that no line has.
const NEVER: u64 = 2_000_000_000;

/// On one node, a record that others have committed is of another term, with which the terms still rise.
fn forge_a_term(lines: &mut [Value]) {
    let forged = place(lines, |l| {
        l["event"] == "write" && l["records"][0]["kind"] == "noop" && l["records"][1].is_object()
    });
    let noop = &mut lines[forged]["records"][0];
    let term = noop["term"].as_u64().map(|t| t - 1);
    noop["term"] = json!(term);
}
