//! The command line of the simulator.

use kontiki_sim::batch::run_all;
use kontiki_sim::run::run;
use kontiki_sim::swarm::{ODDS, RATES};
use kontiki_sim::trace::Detail;
use std::fmt::Display;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;

const USAGE: &str = "\
Runs the shipped driver, log and wire code on simulated time, disks and networks.

  kontiki-sim run --seeds FROM..TO [--jobs N]   run many seeds; stops at the first that fails
  kontiki-sim replay --seed N [--full]          run one seed again, with the end of its trace or all of it
  kontiki-sim replay --seed N --trace-hash      print nothing but the hash of its trace
  kontiki-sim rates                             print which faults come how often";

enum Command {
    Run { seeds: Range<u64>, jobs: usize },
    Replay { seed: u64, detail: Detail },
    TraceHash { seed: u64 },
    Rates,
    Help,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match parse(&words) {
        Ok(command) => execute(command),
        Err(what) => {
            eprintln!("{what}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: &[String]) -> Result<Command, String> {
    let has = |flag: &str| words.iter().any(|w| w == flag);
    let option = |name: &str| words.windows(2).find(|w| w[0] == name).map(|w| w[1].as_str());
    let number = |name: &str, text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{name} takes a number, not {text:?}"))
    };
    let known = [
        "run",
        "replay",
        "rates",
        "help",
        "--seeds",
        "--jobs",
        "--seed",
        "--full",
        "--trace-hash",
        "--help",
    ];
    let stray = words
        .iter()
        .find(|w| !known.contains(&w.as_str()) && !w.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(word) = stray {
        return Err(format!("{word:?} is not known"));
    }
    match words.first().map(String::as_str) {
        Some("run") => {
            let seeds = range(option("--seeds").ok_or("run needs --seeds FROM..TO")?)?;
            let jobs = option("--jobs").map_or(Ok(1), |text| number("--jobs", text))?;
            Ok(Command::Run {
                seeds,
                jobs: jobs.clamp(1, 256) as usize,
            })
        }
        Some("replay") => {
            let seed = number("--seed", option("--seed").ok_or("replay needs --seed N")?)?;
            let detail = if has("--full") {
                Detail::Print
            } else {
                Detail::Last(400)
            };
            Ok(if has("--trace-hash") {
                Command::TraceHash { seed }
            } else {
                Command::Replay { seed, detail }
            })
        }
        Some("rates") => Ok(Command::Rates),
        Some("help" | "--help") => Ok(Command::Help),
        _ => Err("nothing to do".to_owned()),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed
        .filter(|r: &Range<u64>| r.start < r.end)
        .ok_or_else(|| format!("--seeds takes FROM..TO, not {text:?}"))
}

fn execute(command: Command) -> ExitCode {
    let good = match command {
        Command::Run { seeds, jobs } => {
            let summary = run_all(seeds, jobs);
            show(&summary);
            summary.is_good()
        }
        Command::Replay { seed, detail } => {
            let report = run(seed, detail);
            show(&report);
            report.violation.is_none()
        }
        Command::TraceHash { seed } => {
            show(&format!("{:016x}\n", run(seed, Detail::Hash).hash));
            true
        }
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
