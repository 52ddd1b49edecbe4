//! What the simulator's command line says: which words are known, and what is refused.
//!
//! Invariant: a flag that a command does not take is refused, never passed over.

use kontiki_sim::linearizability::STEPS_PER_KEY;
use kontiki_sim::outlets::Outlets;
use kontiki_sim::trace::Detail;
use std::collections::BTreeMap;
use std::ops::Range;

/// How it is used.
pub(crate) const USAGE: &str = "\
Runs the shipped driver, log and wire code on simulated time, disks and networks.

  kontiki-sim run --seeds FROM..TO [--jobs N]   run many seeds; stops at the first that fails
  kontiki-sim replay --seed N [--full]          run one seed again, with the end of its trace or all of it
  kontiki-sim replay --seed N --trace-hash      print nothing but the hash of its trace
  kontiki-sim check --history FILE [--steps N]  judge a history, with at most N steps for each key (1000000)
  kontiki-sim rates                             print which faults come how often

run and replay also take
  --history FILE    write what the clients did to the keys of the machine and were told, as JSON lines
  --trace FILE      write every transition of every node and every message, as JSON lines
With more than one seed the name of such a file must contain {seed}: every run has a file of its own.

Exit codes: 0 all is well; 1 a property does not hold; 2 the words are not understood, or the history cannot be judged.";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run many seeds.
    Run {
        seeds: Range<u64>,
        jobs: usize,
        outlets: Outlets,
    },
    /// Run one again.
    Replay {
        seed: u64,
        detail: Detail,
        outlets: Outlets,
    },
    /// The same, for nothing but the hash.
    TraceHash { seed: u64, outlets: Outlets },
    /// Judge a history.
    Check { history: String, steps: u64 },
    /// Print the tables of faults.
    Rates,
    /// Print how it is used.
    Help,
}

/// Which flags a command takes: those with a value, and those without.
type Known = (&'static [&'static str], &'static [&'static str]);

const RUN: Known = (&["--seeds", "--jobs", "--history", "--trace"], &[]);
const REPLAY: Known = (&["--seed", "--history", "--trace"], &["--full", "--trace-hash"]);
const CHECK: Known = (&["--history", "--steps"], &[]);
const NONE: Known = (&[], &[]);

/// What these words ask for.
///
/// # Errors
/// In words, if they are not understood.
pub(crate) fn parse(words: &[String]) -> Result<Command, String> {
    let Some((command, rest)) = words.split_first() else {
        return Err("nothing to do".to_owned());
    };
    let flags = |known: Known| Flags::parse(command, rest, known);
    match command.as_str() {
        "run" => flags(RUN)?.run(),
        "replay" => flags(REPLAY)?.replay(),
        "check" => flags(CHECK)?.check(),
        "rates" => flags(NONE).map(|_| Command::Rates),
        "help" | "--help" | "-h" => flags(NONE).map(|_| Command::Help),
        other => Err(format!("{other:?} is no command")),
    }
}

/// The flags of one command; those without a value have an empty one.
#[derive(Debug)]
struct Flags<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Flags<'a> {
    fn parse(command: &str, words: &'a [String], (valued, bare): Known) -> Result<Self, String> {
        let mut flags = BTreeMap::new();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = if valued.contains(&word) {
                let value = words.next().filter(|value| !value.starts_with("--"));
                value.ok_or_else(|| format!("{word} takes a value"))?
            } else if bare.contains(&word) {
                ""
            } else {
                return Err(format!("{command} does not take {word:?}"));
            };
            if flags.insert(word, value).is_some() {
                return Err(format!("{word} is given twice"));
            }
        }
        Ok(Self(flags))
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let number = |text: &str| {
            text.parse()
                .map_err(|_| format!("{name} takes a number, not {text:?}"))
        };
        self.value(name).map(number).transpose()
    }

    fn outlets(&self, seeds: &Range<u64>) -> Result<Outlets, String> {
        let owned = |name| self.value(name).map(str::to_owned);
        Outlets::new(owned("--history"), owned("--trace"), seeds)
    }

    fn run(&self) -> Result<Command, String> {
        let seeds = range(self.value("--seeds").ok_or("run needs --seeds FROM..TO")?)?;
        let jobs = self.number("--jobs")?.unwrap_or(1).clamp(1, 256) as usize;
        let outlets = self.outlets(&seeds)?;
        Ok(Command::Run { seeds, jobs, outlets })
    }

    fn replay(&self) -> Result<Command, String> {
        let seed = self.number("--seed")?.ok_or("replay needs --seed N")?;
        let outlets = self.outlets(&(seed..seed.saturating_add(1)))?;
        let (full, hash) = (self.value("--full"), self.value("--trace-hash"));
        match (full, hash) {
            (Some(_), Some(_)) => Err("--full and --trace-hash exclude each other".to_owned()),
            (None, Some(_)) => Ok(Command::TraceHash { seed, outlets }),
            (full, None) => {
                let detail = full.map_or(Detail::Last(400), |_| Detail::Print);
                Ok(Command::Replay {
                    seed,
                    detail,
                    outlets,
                })
            }
        }
    }

    fn check(&self) -> Result<Command, String> {
        let history = self.value("--history").ok_or("check needs --history FILE")?;
        Ok(Command::Check {
            history: history.to_owned(),
            steps: self.number("--steps")?.unwrap_or(STEPS_PER_KEY),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Command, String> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_usage_shows_is_understood() {
        for text in [
            "run --seeds 0..9 --jobs 2",
            "run --seeds 3..4 --history h --trace t",
            "run --seeds 0..9 --history h{seed} --trace t{seed}",
            "replay --seed 1 --full",
            "replay --seed 1 --trace-hash --trace t",
            "replay --history h --seed 1",
            "check --history h",
            "check --history h --steps 5",
            "rates",
            "help",
        ] {
            assert!(parsed(text).is_ok(), "{text}: {:?}", parsed(text));
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        for (text, named) in [
            ("", "nothing"),
            ("walk", "walk"),
            ("run", "--seeds"),
            ("run --seeds 0..9 --fast", "--fast"),
            ("run --seeds 0..9 9", "9"),
            ("run --seeds 0..9 --full", "--full"),
            ("run --seeds 9..9", "9..9"),
            ("run --seeds 0..9 --jobs", "--jobs"),
            ("run --seeds --jobs 2", "--seeds"),
            ("run --seeds 0..9 --jobs two", "two"),
            ("run --seeds 0..9 --seeds 0..8", "twice"),
            ("run --seeds 0..9 --history h", "{seed}"),
            ("run --seeds 0..9 --trace t", "{seed}"),
            ("replay --seeds 0..9", "--seeds"),
            ("replay --seed 1 --full --trace-hash", "exclude"),
            ("check", "--history"),
            ("check --history h --seed 4", "--seed"),
            ("rates --full", "--full"),
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
