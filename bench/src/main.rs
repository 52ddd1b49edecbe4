//! Kontiki beside its peers and beside the floor of the machine: alternating runs, checked for correctness.
//!
//! One suite a module; each gives rows of the one table that [`report`] prints. The servers of a suite are processes;
//! those that are not etcd's are this program again, told what to be by its first word.

mod allocations;
mod bare;
mod channel;
mod consensus_only;
mod counts;
mod durable;
mod embedded;
mod entries;
mod etcd;
mod failover;
mod histogram;
mod load;
mod machine;
mod node;
mod options;
mod paths;
mod process;
mod reads;
mod recovery;
mod remote;
mod report;
mod tail;

use options::Options;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Why a run gave no figure.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

type Suite = fn(&Options) -> Result<Outcome, Failed>;

/// By name, in the order in which `all` runs them.
const SUITES: [(&str, Suite); 7] = [
    ("core", |options| Ok(consensus_only::run(options)?)),
    ("embedded", embedded::run),
    ("durable", durable::run),
    ("reads", reads::run),
    ("failover", failover::run),
    ("recovery", recovery::run),
    ("tail", tail::run),
];

const USAGE: &str =
    "usage: kontiki-bench <suite> [--quick] [--json] [--markdown] [--pin] [--rounds N] [--seconds N] [--dir DIR]
suites:
  core       consensus only, one thread, three nodes, beside raft-rs, omnipaxos and a memcpy floor
  embedded   the public API, three nodes in one process and in memory, beside openraft
  durable    three processes that sync, clients inside and remote, beside etcd and a bare log without Raft
  reads      linearizable, lease and stale, inside and remote, beside etcd's
  failover   the leader killed or silent under load, beside etcd
  recovery   a start on a long log, a follower far behind, a snapshot taken over, idle nodes
  tail       minutes at 70 % load: the slowest appends
  all        every suite
options:
  --quick      fewer and shorter runs
  --json       one object a line
  --markdown   a table for docs/PERFORMANCE.md: rows with a target, and throughput
  --pin        servers on cores of their own: the leader on the last, the others on the first
  --rounds N   runs of each, ours and theirs in turn
  --seconds N  length of a run of the suites with processes
  --only NAME  this subject alone (may be given again): inside, bounded, remote, plain, etcd, floor (durable and reads)
               (tail: log, machine, etcd)
  --clients N  so many clients alone (embedded, durable and reads)
  --rate N     so many appends a second (tail)
  --carrier C  what Kontiki's nodes reach each other by: quic or tcp
  --dir DIR    where logs are kept while measuring [default: the current directory]
for profilers:
  hot <bytes> <outstanding>   Kontiki's consensus alone
  counts [--keep]             instructions an entry of the hot paths, beside those kept; --keep keeps the new ones";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let child = match words.split_first() {
        Some((role, rest)) if role == "node" => Some(node::run(rest)),
        Some((role, rest)) if role == "bare" => Some(bare::run(rest)),
        Some((role, rest)) if role == "work" => Some(counts::work(rest)),
        _ => None,
    };
    if let Some(ended) = child {
        return ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
    }
    let Some((options, words)) = Options::parse(words) else {
        return misused();
    };
    match words.as_slice() {
        [all] if all == "all" => run(&SUITES, &options),
        [hot, bytes, outstanding] if hot == "hot" => match (bytes.parse(), outstanding.parse()) {
            (Ok(bytes), Ok(outstanding)) => match consensus_only::hot(&options, bytes, outstanding) {
                Ok(text) => {
                    println!("{text}");
                    ExitCode::SUCCESS
                }
                Err(wrong) => failed(&wrong.into()),
            },
            _ => misused(),
        },
        [counts] if counts == "counts" => match counts::run(options.keep) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(wrong) => failed(&wrong),
        },
        [name] => match SUITES.iter().find(|(suite, _)| suite == name) {
            Some(suite) => run(std::slice::from_ref(suite), &options),
            None => misused(),
        },
        _ => misused(),
    }
}

/// Runs suites; prints one table, or all rows as JSON.
fn run(suites: &[(&str, Suite)], options: &Options) -> ExitCode {
    let (mut rows, mut notes) = (Vec::new(), String::new());
    for (_, suite) in suites {
        match suite(options) {
            Ok(outcome) => {
                rows.extend(outcome.rows);
                notes = notes + "\n" + &outcome.notes;
            }
            Err(wrong) => return failed(&wrong),
        }
    }
    let text = if options.json {
        report::json(&rows)
    } else if options.markdown {
        report::markdown(&rows) + &notes
    } else {
        report::table(&rows) + &notes
    };
    println!("{}", text.trim_end());
    ExitCode::SUCCESS
}

fn failed(wrong: &Failed) -> ExitCode {
    eprintln!("a run failed or gave a wrong result, so that none of the figures counts: {wrong}");
    ExitCode::FAILURE
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// What a suite has to say.
pub(crate) struct Outcome {
    pub(crate) rows: Vec<report::Row>,
    /// Conditions, and what is and is not included, for people.
    pub(crate) notes: String,
}
