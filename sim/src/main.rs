//! The command line of the simulator.

mod arguments;

use arguments::{Command, USAGE, parse};
use kontiki_sim::batch::run_all_into;
use kontiki_sim::linearizability::{History, Verdict, check};
use kontiki_sim::outlets::Outlets;
use kontiki_sim::run::{Report, run_into};
use kontiki_sim::swarm::{ODDS, RATES};
use kontiki_sim::trace::Detail;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Write};
use std::process::ExitCode;

/// The words are not understood, or a history cannot be judged.
const UNDERSTOOD_NOT: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match parse(&words) {
        Ok(command) => execute(command),
        Err(what) => {
            eprintln!("{what}\n\n{USAGE}");
            ExitCode::from(UNDERSTOOD_NOT)
        }
    }
}

fn execute(command: Command) -> ExitCode {
    let good = match command {
        Command::Run { seeds, jobs, outlets } => {
            let summary = run_all_into(seeds, jobs, &outlets);
            show(&summary);
            summary.is_good()
        }
        Command::Replay {
            seed,
            detail,
            outlets,
        } => {
            let report = replay(seed, detail, &outlets);
            show(&report);
            report.violation.is_none()
        }
        Command::TraceHash { seed, outlets } => {
            let report = replay(seed, Detail::Hash, &outlets);
            show(&format!("{:016x}\n", report.hash));
            true
        }
        Command::Check { history, steps } => return judge(&history, steps),
        Command::Rates => {
            show(&rates());
            true
        }
        Command::Help => {
            show(&format!("{USAGE}\n"));
            true
        }
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(seed: u64, detail: Detail, outlets: &Outlets) -> Report {
    match outlets.open(seed) {
        Ok(outlet) => run_into(seed, detail, outlet),
        Err(violation) => Report {
            violation: Some(violation),
            ..Report::empty(seed)
        },
    }
}

/// Judges a history: it is linearizable, or it is not, or it cannot be told.
fn judge(name: &str, steps: u64) -> ExitCode {
    let file = File::open(name).map_err(|e| e.to_string());
    let history = file.and_then(|f| History::read(BufReader::new(f)).map_err(|e| e.to_string()));
    let history = match history {
        Ok(history) => history,
        Err(what) => {
            eprintln!("{name}: {what}");
            return ExitCode::from(UNDERSTOOD_NOT);
        }
    };
    let verdict = check(&history, steps);
    let operations = history.operations().count();
    show(&format!("{name}: {operations} operations: {verdict}\n"));
    match verdict {
        Verdict::Linearizable => ExitCode::SUCCESS,
        Verdict::Violated(_) => ExitCode::FAILURE,
        Verdict::Undecided { .. } => ExitCode::from(UNDERSTOOD_NOT),
    }
}

/// Prints; whoever reads it may have read enough, so that a closed pipe is no failure.
fn show(what: &dyn Display) {
    drop(write!(std::io::stdout(), "{what}"));
}

/// The published tables, as they stand in `docs/SIMULATOR.md`.
fn rates() -> String {
    let mut text =
        "| fault | in runs | mean time between two, in those runs | lasts |\n|---|---|---|---|\n".to_owned();
    for rate in RATES {
        let (every, lasts) = (span(rate.every), span(rate.lasts));
        text += &format!("| {} | {} % | {every} | {lasts} |\n", rate.name, rate.in_runs);
    }
    text += "\n| at each packet or disk operation | in runs | chance, in those runs |\n|---|---|---|\n";
    for odds in ODDS {
        let (from, to) = odds.chance;
        text += &format!(
            "| {} | {} % | {} % to {} % |\n",
            odds.name,
            odds.in_runs,
            percent(from),
            percent(to)
        );
    }
    text
}

fn span((from, to): (u64, u64)) -> String {
    if to == 0 {
        "at once".to_owned()
    } else {
        format!("{} s to {} s", seconds(from), seconds(to))
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn percent(ppm: u32) -> f64 {
    f64::from(ppm) / 10_000.0
}
