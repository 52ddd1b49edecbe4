//! How to measure.

use crate::{Failed, load::Stretch, process::Process};
use kontiki::Carrier;
use std::{path::PathBuf, thread, time::Duration};

/// What was asked for on the command line.
pub(crate) struct Options {
    /// Fewer and shorter runs.
    pub(crate) quick: bool,
    pub(crate) json: bool,
    /// A table as `docs/PERFORMANCE.md` has it.
    pub(crate) markdown: bool,
    /// Keep the instructions that are counted.
    pub(crate) keep: bool,
    pin: bool,
    rounds: Option<usize>,
    seconds: Option<u64>,
    /// The subjects that are measured; all if none is named.
    only: Vec<String>,
    clients: Option<u32>,
    /// Appends a second in suite *tail*, in place of a part of what was found possible.
    pub(crate) rate: Option<u32>,
    /// What Kontiki's nodes reach each other by.
    pub(crate) carrier: Carrier,
    /// Where logs are kept.
    pub(crate) dir: PathBuf,
}

impl Options {
    /// The options, and the words that are none; `None` if it makes no sense.
    pub(crate) fn parse(words: Vec<String>) -> Option<(Self, Vec<String>)> {
        let mut options = Self {
            quick: false,
            json: false,
            markdown: false,
            keep: false,
            pin: false,
            rounds: None,
            seconds: None,
            only: Vec::new(),
            clients: None,
            rate: None,
            carrier: Carrier::default(),
            dir: PathBuf::from("."),
        };
        let (mut rest, mut words) = (Vec::new(), words.into_iter());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--markdown" => options.markdown = true,
                "--keep" => options.keep = true,
                "--pin" => options.pin = true,
                "--rounds" => options.rounds = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
                "--seconds" => options.seconds = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
                "--only" => options.only.push(words.next()?),
                "--clients" => options.clients = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
                "--rate" => options.rate = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
                "--carrier" => options.carrier = words.next()?.parse().ok()?,
                "--dir" => options.dir = words.next()?.into(),
                other if other.starts_with("--") => return None,
                _ => rest.push(word),
            }
        }
        Some((options, rest))
    }

    /// Whether a subject is to be measured.
    pub(crate) fn wants(&self, subject: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == subject)
    }

    /// Whether a subject that takes its time is measured.
    pub(crate) fn wants_slow(&self, subject: &str) -> bool {
        self.wants(subject) && (!self.quick || !self.only.is_empty())
    }

    /// With how many clients it is measured: of these, those that were asked for.
    pub(crate) fn clients(&self, all: &[u32]) -> Vec<u32> {
        let wanted = |clients: &u32| self.clients.is_none_or(|only| only == *clients);
        all.iter().copied().filter(wanted).collect()
    }

    /// How many runs of each; `full` of them unless said otherwise, and one if there is no time.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { full })
    }

    /// How long a run is, that takes `full` unless said otherwise, and `quick` if there is no time.
    pub(crate) fn time(&self, full: Duration, quick: Duration) -> Duration {
        let said = self.seconds.map(Duration::from_secs);
        said.unwrap_or(if self.quick { quick } else { full })
    }

    /// How long clients ask in a run.
    pub(crate) fn stretch(&self) -> Stretch {
        let run = self.time(Duration::from_secs(4), Duration::from_millis(700));
        Stretch { warm: run / 4, run }
    }

    /// Puts the leader on the last core and the others on the first, if that was asked for.
    pub(crate) fn pin(&self, servers: &[Process], leader: usize) -> Result<(), Failed> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        if self.pin && cores > 1 {
            for (n, server) in servers.iter().enumerate() {
                server.pin(&[if n == leader { cores - 1 } else { 0 }])?;
            }
        }
        Ok(())
    }

    /// How it is measured, for people.
    pub(crate) fn conditions(&self, stretch: Stretch) -> String {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let pinned = if self.pin {
            "the leader pinned to the last core, the others to the first"
        } else {
            "not pinned"
        };
        format!(
            "{cores} cores, {pinned}, runs of {} ms after {} ms of warming up",
            stretch.run.as_millis(),
            stretch.warm.as_millis()
        )
    }
}
