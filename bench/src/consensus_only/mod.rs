//! Suite *core*: what a decision costs, without disk, network, threads and encoding.
//!
//! Each subject takes entries in a closed loop: so many are proposed at once, all are committed, then the
//! next. After every stretch the clock is stopped, and the logs of all three replicas are compared with
//! what was proposed; then they are trimmed, with the clock running. A figure whose run was not right is none.

mod cluster;
mod entries;
mod floor;
mod kontiki;
mod omni;
mod raft_rs;

use crate::report::{Row, Spread, Target, Unit};
use crate::{Options, Outcome, allocations};
use cluster::{Cluster, Subject};
use entries::{Fingerprint, Source};
use rustix::thread::sched_getaffinity;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

const SUITE: &str = "core";
/// How many entries go between two looks at the logs, at most.
const STRETCH_ENTRIES: usize = 32 << 10;
const FLOOR: &str = "memcpy floor";
const OMNI: &str = "omnipaxos";
const RAFT: &str = "raft-rs";

/// A size of entries and how many are outstanding.
#[derive(Clone, Copy)]
struct Case {
    entry_len: usize,
    outstanding: usize,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let depths = |entry_len| {
            [1, 64, 1024].map(|outstanding| Self {
                entry_len,
                outstanding,
            })
        };
        [16, 256].into_iter().flat_map(depths)
    }

    fn name(self) -> String {
        format!("{} B, {} outstanding", self.entry_len, self.outstanding)
    }

    /// What is aimed for in entries a second.
    fn target(self, peer: &str) -> Option<Target> {
        let ratio = match (self.entry_len, self.outstanding, peer) {
            (256, 1024, FLOOR) => 0.45,
            (256, 1024, RAFT) => 4.0,
            (_, 1024 | 1, OMNI) => 2.5,
            _ => return None,
        };
        Some(Target::Ratio(ratio))
    }
}

/// What one run has cost.
#[derive(Clone, Copy)]
struct Cost {
    entries: f64,
    cpu_ns: f64,
    wall_ns: f64,
    allocations: f64,
}

impl Cost {
    fn of(self, unit: Unit) -> f64 {
        match unit {
            Unit::CpuNanosPerEntry => self.cpu_ns / self.entries,
            Unit::AllocationsPerEntry => self.allocations / self.entries,
            _ => self.entries * 1e9 / self.wall_ns,
        }
    }
}

type Measure = fn(Case, &Plan) -> Result<Cost, String>;

/// The clocks and the counter, at one moment.
struct Reading {
    wall: Instant,
    cpu: Duration,
    allocations: u64,
}

impl Reading {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Self {
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            allocations: allocations::of_this_thread(),
            wall: Instant::now(),
        }
    }
}

/// How long the runs are.
struct Plan {
    rounds: usize,
    /// Of the clock that runs, per run.
    run: Duration,
}

impl Plan {
    fn of(options: &Options) -> Self {
        if options.quick {
            Self {
                rounds: 5,
                run: Duration::from_millis(40),
            }
        } else {
            Self {
                rounds: 11,
                run: Duration::from_millis(150),
            }
        }
    }
}

/// Measures every case beside every peer.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    let plan = Plan::of(options);
    let (mut rows, mut disturbance) = (Vec::new(), Vec::new());
    for case in Case::all() {
        let ours = measure::<Cluster<kontiki::Kontiki>>;
        let theirs: [(&'static str, Measure); 3] = [
            (RAFT, measure::<Cluster<raft_rs::RaftRs>>),
            (OMNI, omni_at_its_best(case)),
            (FLOOR, measure::<floor::Floor>),
        ];
        let mut pairs: [Vec<(Cost, Cost)>; 3] = Default::default();
        for _ in 0..plan.rounds {
            for ((_, theirs), pairs) in theirs.iter().zip(&mut pairs) {
                pairs.push((ours(case, &plan)?, theirs(case, &plan)?));
            }
        }
        for ((peer, _), pairs) in theirs.iter().zip(&pairs) {
            disturbance.extend(
                pairs
                    .iter()
                    .flat_map(|(a, b)| [a, b])
                    .map(|c| c.wall_ns / c.cpu_ns),
            );
            rows.extend(rows_of(case, peer, pairs));
        }
    }
    let notes = notes(&plan, Spread::of(disturbance.into_iter()));
    Ok(Outcome { rows, notes })
}

fn omni_at_its_best(case: Case) -> Measure {
    if case.outstanding == 1 {
        measure::<Cluster<omni::Omni<omni::Apart>>>
    } else {
        measure::<Cluster<omni::Omni<omni::Together>>>
    }
}

/// Kontiki alone, one case, checked as always: what a profiler is put on. Says what an entry has cost.
pub(crate) fn hot(options: &Options, entry_len: usize, outstanding: usize) -> Result<String, String> {
    let case = Case {
        entry_len,
        outstanding: outstanding.clamp(1, STRETCH_ENTRIES),
    };
    let plan = Plan {
        run: Plan::of(options).run * 10,
        ..Plan::of(options)
    };
    let cost = measure::<Cluster<kontiki::Kontiki>>(case, &plan)?;
    Ok(format!(
        "{}: {:.1} CPU ns and {:.4} allocations an entry, {} entries",
        case.name(),
        cost.of(Unit::CpuNanosPerEntry),
        cost.of(Unit::AllocationsPerEntry),
        cost.entries,
    ))
}

/// Always the same work: Kontiki's consensus alone takes so many entries at once, so often.
pub(crate) fn appends(entry_len: usize, outstanding: usize, rounds: usize) -> Result<(), String> {
    let mut subject = Cluster::<kontiki::Kontiki>::new(outstanding)?;
    let mut source = Source::new(entry_len);
    for round in 1..=rounds {
        subject.append(&mut source, outstanding)?;
        if (round * outstanding).is_multiple_of(STRETCH_ENTRIES) {
            subject.trim()?;
        }
    }
    Ok(())
}

fn rows_of(case: Case, peer: &'static str, pairs: &[(Cost, Cost)]) -> impl Iterator<Item = Row> {
    let units = [
        Unit::EntriesPerSecond,
        Unit::CpuNanosPerEntry,
        Unit::AllocationsPerEntry,
    ];
    units.into_iter().filter_map(move |unit| {
        let target = match unit {
            Unit::EntriesPerSecond => case.target(peer),
            Unit::AllocationsPerEntry if case.outstanding == 1024 && peer == OMNI => Some(Target::Ours(0.05)),
            _ => None,
        };
        let pairs: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (a.of(unit), b.of(unit))).collect();
        Row::new(SUITE, &case.name(), peer, unit, &pairs, target)
    })
}

/// One run: first a stretch to get warm, then stretches until the time is used up.
fn measure<S: Subject>(case: Case, plan: &Plan) -> Result<Cost, String> {
    let mut subject = S::new(case.outstanding)?;
    let mut source = Source::new(case.entry_len);
    let mut proof = Proof::new(case.entry_len);
    stretch(&mut subject, case, &mut source, &mut proof)?;
    let mut total = Cost {
        entries: 0.0,
        cpu_ns: 0.0,
        wall_ns: 0.0,
        allocations: 0.0,
    };
    while total.cpu_ns < plan.run.as_nanos() as f64 {
        let cost = stretch(&mut subject, case, &mut source, &mut proof)?;
        total.entries += cost.entries;
        total.cpu_ns += cost.cpu_ns;
        total.wall_ns += cost.wall_ns;
        total.allocations += cost.allocations;
    }
    Ok(total)
}

/// Entries appended, logs checked with the clock stopped, logs trimmed.
fn stretch<S: Subject>(
    subject: &mut S,
    case: Case,
    source: &mut Source,
    proof: &mut Proof,
) -> Result<Cost, String> {
    let rounds = STRETCH_ENTRIES / case.outstanding;
    let begin = Reading::now();
    for _ in 0..rounds {
        subject.append(source, case.outstanding)?;
    }
    subject.announce()?;
    let checked_from = Reading::now();
    proof.check(subject, rounds * case.outstanding)?;
    let checked_to = Reading::now();
    subject.trim()?;
    let end = Reading::now();
    let wall = checked_from.wall - begin.wall + (end.wall - checked_to.wall);
    let cpu = checked_from.cpu - begin.cpu + (end.cpu - checked_to.cpu);
    let allocations =
        checked_from.allocations - begin.allocations + (end.allocations - checked_to.allocations);
    Ok(Cost {
        entries: (rounds * case.outstanding) as f64,
        cpu_ns: cpu.as_nanos() as f64,
        wall_ns: wall.as_nanos() as f64,
        allocations: allocations as f64,
    })
}

/// What was proposed so far, and what was found in each log.
struct Proof {
    again: Source,
    expected: Fingerprint,
    found: [Fingerprint; 3],
}

impl Proof {
    fn new(entry_len: usize) -> Self {
        Self {
            again: Source::new(entry_len),
            expected: Fingerprint::default(),
            found: Default::default(),
        }
    }

    /// Every log holds the next `n` entries, in order, and nothing else.
    fn check(&mut self, subject: &impl Subject, n: usize) -> Result<(), String> {
        for _ in 0..n {
            self.expected.add(self.again.next());
        }
        for (replica, found) in self.found.iter_mut().enumerate() {
            subject.read(replica, found);
            if (found.entries, found.value()) != (self.expected.entries, self.expected.value()) {
                return Err(format!(
                    "replica {replica} holds {} entries with fingerprint {:016x}, and {} with {:016x} were proposed",
                    found.entries,
                    found.value(),
                    self.expected.entries,
                    self.expected.value()
                ));
            }
        }
        Ok(())
    }
}

fn notes(plan: &Plan, disturbance: Option<Spread>) -> String {
    let cpus = sched_getaffinity(None).map_or(0, |set| set.count());
    let pinned = if cpus == 1 {
        "pinned to one".into()
    } else {
        format!("NOT pinned (may use {cpus})")
    };
    let (median, max) = disturbance.map_or((0.0, 0.0), |d| (d.median, d.max));
    format!(
        "core: one thread, three replicas, messages handed over in memory, a write is done at once, no time passes.
Closed loop: all outstanding entries are proposed at once and committed before the next. {} pairs of runs
of {} ms, ours and theirs in turn; medians; a ratio above 1 means that ours is better.
Every run checked: each replica's log held exactly what was proposed, in order (hash), with the clock stopped.
Cost includes copying each entry once into memory it is sent from (one allocation a batch, for all alike:
an allocation for each entry makes the peers slower, except omnipaxos at 1 outstanding, which has that),
its way into all three logs, and trimming them every {} entries; not: encoding, checksums, reading
entries back for an application (raft-rs gives committed entries whether wanted or not).
entries/s is by the clock on the wall, ns by the CPU time of the thread; wall/CPU median {median:.2}, largest {max:.2}
(above 1: others had the core meanwhile). CPUs: {pinned}.
",
        plan.rounds,
        plan.run.as_millis(),
        STRETCH_ENTRIES,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const BRIEF: Plan = Plan {
        rounds: 1,
        run: Duration::from_nanos(1),
    };

    fn runs<S: Subject>() {
        for outstanding in [1, 64, 1024] {
            let cost = measure::<S>(
                Case {
                    entry_len: 24,
                    outstanding,
                },
                &BRIEF,
            )
            .expect("all is right");
            assert_eq!(cost.entries, STRETCH_ENTRIES as f64);
            assert!(cost.allocations > 0.0 && cost.cpu_ns > 0.0);
        }
    }

    #[test]
    fn every_subject_commits_all_entries_in_order() {
        runs::<Cluster<kontiki::Kontiki>>();
        runs::<Cluster<raft_rs::RaftRs>>();
        runs::<Cluster<omni::Omni<omni::Apart>>>();
        runs::<Cluster<omni::Omni<omni::Together>>>();
        runs::<floor::Floor>();
    }

    /// A log in which something is wrong.
    struct Broken(Vec<Bytes>, fn(&mut Vec<Bytes>));

    impl Broken {
        fn found(damage: fn(&mut Vec<Bytes>)) -> bool {
            let mut source = Source::new(16);
            let mut broken = Self(Vec::new(), damage);
            broken.append(&mut source, 3).expect("it is only kept");
            Proof::new(16).check(&broken, 3).is_err()
        }
    }

    impl Subject for Broken {
        fn new(_: usize) -> Result<Self, String> {
            Err("only made by hand".into())
        }

        fn append(&mut self, source: &mut Source, n: usize) -> Result<(), String> {
            self.0
                .extend((0..n).map(|_| Bytes::copy_from_slice(source.next())));
            (self.1)(&mut self.0);
            Ok(())
        }

        fn announce(&mut self) -> Result<(), String> {
            Ok(())
        }

        fn read(&self, n: usize, fingerprint: &mut Fingerprint) {
            // Only one of the replicas is wrong.
            let sound = |k: u64| Bytes::from([k.to_le_bytes(), [8, 9, 10, 11, 12, 13, 14, 15]].concat());
            let log = if n == 2 {
                self.0.clone()
            } else {
                (0..3).map(sound).collect()
            };
            log.iter().for_each(|entry| fingerprint.add(entry));
        }

        fn trim(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn what_is_lost_doubled_swapped_or_changed_is_found() {
        assert!(!Broken::found(|_| {}));
        assert!(Broken::found(|log| drop(log.pop())));
        assert!(Broken::found(|log| log.push(log[2].clone())));
        assert!(Broken::found(|log| log.swap(0, 1)));
        assert!(Broken::found(|log| log[1] = Bytes::from_static(&[0; 16])));
    }
}
