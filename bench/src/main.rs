//! Kontiki beside its peers and beside the floor of the machine: alternating runs, checked for correctness.
//!
//! One suite a module; each gives rows of the one table that [`report`] prints.

mod allocations;
mod consensus_only;
mod report;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const USAGE: &str = "usage: kontiki-bench <suite> [--quick] [--json]
suites:
  core   consensus only, one thread, three nodes, beside raft-rs, omnipaxos and a memcpy floor
  all    every suite
for profilers:
  hot <bytes> <outstanding>   Kontiki's consensus alone";

/// How to measure.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Fewer and shorter runs.
    pub(crate) quick: bool,
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let before = words.len();
        words.retain(|w| w != name);
        words.len() < before
    };
    let (quick, json) = (flag("--quick"), flag("--json"));
    let options = Options { quick };
    let done = match words.as_slice() {
        [suite] if suite == "core" || suite == "all" => consensus_only::run(options).map(|o| o.text(json)),
        [hot, bytes, outstanding] if hot == "hot" => match (bytes.parse(), outstanding.parse()) {
            (Ok(bytes), Ok(outstanding)) => consensus_only::hot(options, bytes, outstanding),
            _ => return misused(),
        },
        _ => return misused(),
    };
    match done {
        Ok(text) => println!("{}", text.trim_end()),
        Err(wrong) => {
            eprintln!("a run gave a wrong result, so that none of the figures counts: {wrong}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
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

impl Outcome {
    fn text(&self, json: bool) -> String {
        if json {
            report::json(&self.rows)
        } else {
            report::table(&self.rows) + "\n" + &self.notes
        }
    }
}
