//! Many runs, on as many threads as are asked for, and what they add up to.
//!
//! Invariant: what a batch reports follows from its seeds alone, but for the time it took.

use crate::outlets::Outlets;
use crate::run::{ENDS, Report, run, run_into};
use crate::sometimes::{Counters, PATHS};
use crate::trace::Detail;
use crate::violation::Violation;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// From how many seeds on every rare path must have been taken.
const SEEDS_FOR_ALL_PATHS: u64 = 200;
/// Every so many seeds one is run twice, to see that it gives the same trace.
const AGAIN_EVERY: u64 = 32;
/// How long one run may take. One that takes longer turns in a circle; it cannot be stopped, only named.
const RUN_TAKES_MAX: Duration = Duration::from_secs(60);
/// How many lines of its trace are shown of a run that failed.
const LINES: usize = 120;

/// What a batch adds up to.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many events there were.
    pub events: u64,
    /// How many simulated milliseconds have passed.
    pub simulated_ms: u64,
    /// How many appends were acknowledged.
    pub acknowledged: u64,
    /// How many requests were answered.
    pub answered: u64,
    /// How many records were committed.
    pub committed: u64,
    /// How many operations on keys the histories hold.
    pub operations: u64,
    /// How often each fault came.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each rare path was taken.
    pub counters: Counters,
    /// How long it took.
    pub took: Duration,
    /// The run that failed, with the smallest seed if there are several.
    pub failure: Option<Report>,
}

impl Summary {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_ms += report.simulated.0 / 1_000_000;
        self.acknowledged += report.acknowledged;
        self.answered += report.answered;
        self.committed += report.committed;
        self.operations += report.operations;
        for (fault, times) in &report.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        self.counters.add(&report.counters);
        let first = self.failure.as_ref().is_none_or(|known| report.seed < known.seed);
        if report.violation.is_some() && first {
            self.failure = Some(report);
        }
    }

    /// The rare paths that a batch of this size should have taken and has not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        if self.seeds < SEEDS_FOR_ALL_PATHS || self.failure.is_some() {
            Vec::new()
        } else {
            self.counters.never()
        }
    }

    /// Whether nothing failed and nothing is missing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failure.is_none() && self.missing().is_empty()
    }
}

/// Runs these seeds on `jobs` threads, until one fails.
#[must_use]
pub fn run_all(seeds: Range<u64>, jobs: usize) -> Summary {
    run_all_into(seeds, jobs, &Outlets::default())
}

/// The same, with what is asked for written to files.
#[must_use]
pub fn run_all_into(seeds: Range<u64>, jobs: usize, outlets: &Outlets) -> Summary {
    let began = Instant::now();
    let work = Arc::new(Work {
        next: AtomicU64::new(seeds.start),
        end: seeds.end,
        over: AtomicBool::new(false),
        outlets: outlets.clone(),
    });
    let (sender, receiver) = mpsc::channel();
    for job in 0..jobs.max(1) {
        let (work, sender) = (Arc::clone(&work), sender.clone());
        thread::spawn(move || work_off(job, &work, &sender));
    }
    drop(sender);
    let mut summary = gather(&receiver);
    summary.failure = summary.failure.take().map(|report| explained(&report));
    summary.took = began.elapsed();
    summary
}

/// What the threads of a batch share.
#[derive(Debug)]
struct Work {
    next: AtomicU64,
    end: u64,
    over: AtomicBool,
    outlets: Outlets,
}

/// What a thread says.
enum Progress {
    Begins { job: usize, seed: u64 },
    Done { job: usize, report: Box<Report> },
}

fn work_off(job: usize, work: &Work, sender: &mpsc::Sender<Progress>) {
    while !work.over.load(Ordering::Relaxed) {
        let seed = work.next.fetch_add(1, Ordering::Relaxed);
        if seed >= work.end || sender.send(Progress::Begins { job, seed }).is_err() {
            return;
        }
        let report = Box::new(run_checked(seed, &work.outlets));
        work.over.fetch_or(report.violation.is_some(), Ordering::Relaxed);
        if sender.send(Progress::Done { job, report }).is_err() {
            return;
        }
    }
}

/// Adds up what the threads report, until they are done or one of them is stuck.
fn gather(receiver: &mpsc::Receiver<Progress>) -> Summary {
    let mut summary = Summary::default();
    let mut under_way: BTreeMap<usize, (u64, Instant)> = BTreeMap::new();
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok(Progress::Begins { job, seed }) => {
                under_way.insert(job, (seed, Instant::now()));
            }
            Ok(Progress::Done { job, report }) => {
                under_way.remove(&job);
                summary.add(*report);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return summary,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some((seed, _)) = under_way
            .values()
            .find(|(_, began)| began.elapsed() > RUN_TAKES_MAX)
        {
            summary.add(stuck(*seed));
            return summary;
        }
    }
}

fn stuck(seed: u64) -> Report {
    let what = format!("it has taken more than {RUN_TAKES_MAX:?} of real time");
    Report {
        violation: Some(Violation { property: ENDS, what }),
        ..Report::empty(seed)
    }
}

/// Runs a seed; and some seeds twice, the second time written nowhere, which must give the same trace.
fn run_checked(seed: u64, outlets: &Outlets) -> Report {
    let mut report = match outlets.open(seed) {
        Ok(outlet) => run_into(seed, Detail::Hash, outlet),
        Err(violation) => Report {
            violation: Some(violation),
            ..Report::empty(seed)
        },
    };
    if seed.is_multiple_of(AGAIN_EVERY) && report.violation.is_none() {
        let again = run(seed, Detail::Hash);
        if again.hash != report.hash {
            let what = format!("{:016x} and then {:016x}", report.hash, again.hash);
            report.violation = Some(Violation {
                property: "the same seed gives the same trace",
                what,
            });
        }
    }
    report
}

/// The same run again, this time with the end of its trace.
fn explained(report: &Report) -> Report {
    if report.violation.as_ref().is_some_and(|v| v.property == ENDS) {
        return report.clone();
    }
    let again = run(report.seed, Detail::Last(LINES));
    if again.violation == report.violation {
        again
    } else {
        report.clone()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(f, "{:>12} seeds", self.seeds)?;
        writeln!(f, "{:>12} events", self.events)?;
        writeln!(
            f,
            "{:>12.1} simulated hours",
            self.simulated_ms as f64 / 3_600_000.0
        )?;
        writeln!(f, "{:>12} appends acknowledged", self.acknowledged)?;
        writeln!(f, "{:>12} requests answered", self.answered)?;
        writeln!(f, "{:>12} records committed", self.committed)?;
        writeln!(f, "{:>12} operations on keys", self.operations)?;
        writeln!(
            f,
            "{seconds:>12.1} seconds, {:.1} seeds per second",
            self.seeds as f64 / seconds.max(0.001)
        )?;
        writeln!(f, "\nfaults")?;
        for (fault, times) in &self.faults {
            writeln!(f, "{times:>12} {fault}")?;
        }
        writeln!(f, "\nsometimes")?;
        for (path, text) in PATHS {
            writeln!(f, "{:>12} {text}", self.counters.of(*path))?;
        }
        self.failure
            .as_ref()
            .map_or(Ok(()), |report| write!(f, "\n{report}"))?;
        for path in self.missing() {
            writeln!(f, "\nFAILED: in {} seeds this never happened: {path}", self.seeds)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        let Self {
            seed,
            nodes,
            events,
            hash,
            acknowledged,
            operations,
            ..
        } = self;
        let seconds = self.simulated.0 / 1_000_000_000;
        writeln!(
            f,
            "seed {seed}: {nodes} nodes, {events} events, {seconds} s, {acknowledged} appends acknowledged, {operations} operations on keys, trace {hash:016x}"
        )?;
        match &self.violation {
            Some(violation) => writeln!(
                f,
                "FAILED: {violation}\nthe whole trace: cargo run --release -p kontiki-sim -- replay --seed {seed} --full"
            ),
            None => writeln!(f, "all properties hold"),
        }
    }
}
