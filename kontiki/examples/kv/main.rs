//! A key-value store on redb, replicated: the state is on disk and far larger than memory may be, and a snapshot of it is
//! read from a version of the database while commands go on being applied.
//!
//! ```text
//! cargo run --example kv                                     three nodes in this process, a small demonstration
//! cargo run --release --example kv -- load [OPTIONS]         three processes under load, killed and started again
//! cargo run --release --example kv -- bench-snapshot [...]   what a snapshot of a large state costs those who append
//! ```
//!
//! `store` is the state machine; `node` is one process of a cluster, `cluster` starts, kills and watches processes, `story`
//! says what befalls them under a long load. `args` names the options.

mod args;
mod bench;
#[allow(dead_code, reason = "another program shares it")]
mod cluster;
mod load;
mod node;
mod store;
mod story;
mod watch;

use args::Args;
use kontiki::{BlockingMachine, Config, Consistency, MachineError, RaftNode};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use store::{Answer, Command, Options, Query, Store, Sums};

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        None => demonstration(),
        Some("node") => node::run(&Args::parse(words)?),
        Some("load") => load::run(Args::parse(words)?),
        Some("bench-snapshot") => bench::run(Args::parse(words)?),
        Some(other) => Err(format!("{other} is not known: load, bench-snapshot or nothing").into()),
    }
}

fn demonstration() -> Result<(), Failed> {
    let dir = std::env::temp_dir().join(format!("kontiki-kv-{}", std::process::id()));
    let nodes: Vec<_> = Config::loopback(3, &dir)?
        .into_iter()
        .map(|config| start(config, &dir))
        .collect::<Result<_, Failed>>()?;
    demonstrate(&nodes)?;
    nodes.iter().try_for_each(|node| node.shutdown())?;
    // The data is of no use to anyone; what cannot be removed stays.
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}

fn start(config: Config, dir: &Path) -> Result<BlockingMachine<Store>, Failed> {
    let path = dir.join(format!("pairs-{}.redb", config.node));
    let store = Store::open(&path, Options::default())?;
    Ok(RaftNode::with_machine(config, store)?.start()?.blocking())
}

fn demonstrate(nodes: &[BlockingMachine<Store>]) -> Result<(), Failed> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let put = |key: &str, value: &str| Command::Put {
        key: bytes(key),
        value: bytes(value),
    };
    let ports = [("port/ssh", "22"), ("port/http", "80"), ("port/raft", "7401")];
    let puts: Vec<_> = ports.iter().map(|(key, value)| put(key, value)).collect();
    let done = nodes[0].apply_all(&puts)?;
    println!(
        "node 1: put {} pairs, the last as entry {}",
        done.len(),
        done[2].index
    );
    let cas = |expect: &str, value: &str| Command::Cas {
        key: bytes("port/http"),
        expect: Some(bytes(expect)),
        value: bytes(value),
    };
    for (expect, value) in [("80", "8080"), ("80", "9090")] {
        let done = nodes[1].apply(cas(expect, value))?;
        let found = done.output.map_err(|found| found.unwrap_or_default());
        let found = found.map_err(|found| String::from_utf8_lossy(&found).into_owned());
        println!("node 2: if it is {expect}, make it {value}: {found:?}");
    }
    let gone = nodes[1].apply(Command::Delete {
        key: bytes("port/ssh"),
    })?;
    assert_eq!(gone.output, Ok(true), "it was there");
    let ask = |query| nodes[2].query(query, Consistency::Linearizable);
    let (port, count) = (
        ask(Query::Get(bytes("port/http")))?,
        ask(Query::Count(bytes("port/")))?,
    );
    println!("node 3: {port:?}, {count:?}");
    assert_eq!(
        port,
        Answer::Value(Some(bytes("8080"))),
        "the second comparison fails"
    );
    assert_eq!(count, Answer::Count(2));
    let sums = sums_at(nodes, done[2].index + 3)?;
    println!("all of them: {:?}", sums[0]);
    assert!(
        sums.iter().all(|one| *one == sums[0]),
        "equal on every node: {sums:?}"
    );
    Ok(())
}

/// The sums of every node once it has applied this entry.
fn sums_at(nodes: &[BlockingMachine<Store>], index: u64) -> Result<Vec<Sums>, Failed> {
    let began = Instant::now();
    let sums = |node: &BlockingMachine<Store>| loop {
        match node.query(Query::Sums, Consistency::Stale { max_lag: None })? {
            Answer::Sums(sums) if sums.index >= index => return Ok(sums),
            _ if began.elapsed() > Duration::from_secs(60) => return Err(Failed::from("a node is behind")),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    nodes.iter().map(sums).collect()
}

impl From<Answer> for Result<Sums, MachineError> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Sums(sums) => Ok(sums),
            other => Err(MachineError::new(format!("no sums: {other:?}"))),
        }
    }
}

#[test]
fn it_runs() {
    demonstration().unwrap();
}
