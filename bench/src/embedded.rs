//! Suite *embedded*: the public API, three nodes in one process, logs and network in memory, beside openraft.

mod open;

use crate::{
    Failed, Options, Outcome,
    durable::{Rounds, Run, of, pairs},
    load::{Figures, Stretch, closed_loop},
    node,
    report::{Row, Target, Unit},
};
use kontiki::{Config, LogOnly, RaftNode, Raw, Role};
use rustix::time::{ClockId, clock_gettime};
use std::{
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

const SUITE: &str = "embedded";
const OPENRAFT: &str = "openraft";
const CLIENTS: [u32; 5] = [1, 64, 256, 1024, 4096];
const ENTRY_BYTES: usize = 256;

/// Measures every case beside openraft.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let run = options.time(Duration::from_millis(1500), Duration::from_millis(500));
    let stretch = Stretch { warm: run / 3, run };
    let (mut ours, mut theirs) = <(Rounds, Rounds)>::default();
    for _ in 0..options.rounds(5) {
        let (mut our_round, mut their_round) = (Vec::new(), Vec::new());
        for clients in options.clients(&CLIENTS) {
            our_round.push(with_cpu(|| kontiki(clients, stretch))?);
            their_round.push(with_cpu(|| open::run(clients, ENTRY_BYTES, stretch))?);
        }
        ours.push(our_round);
        theirs.push(their_round);
    }
    let mut rows = Vec::new();
    for (n, clients) in options.clients(&CLIENTS).iter().enumerate() {
        for unit in [
            Unit::EntriesPerSecond,
            Unit::P50,
            Unit::P99,
            Unit::CpuNanosPerEntry,
        ] {
            let target = match (unit, clients) {
                (Unit::EntriesPerSecond, 1) => Some(Target::Ratio(2.0)),
                (Unit::EntriesPerSecond, _) => Some(Target::Ratio(3.0)),
                _ => None,
            };
            let case = of(*clients);
            rows.extend(Row::new(
                SUITE,
                &case,
                OPENRAFT,
                unit,
                &pairs(&ours, &theirs, n, unit),
                target,
            ));
        }
    }
    let notes = format!(
        "embedded: one process, three nodes, {ENTRY_BYTES} B an entry, closed loop, runs of {} ms, ours and theirs in turn, a new cluster each.
Kontiki: Config::in_memory, the clients tasks of one thread, the nodes' work done by another, or by that one if there is one client.
openraft: logs that are vectors, messages handed over by calls (its stream of appends), batches of up to 4096, no snapshots; nodes
and clients on one runtime with a thread a core, as its own benchmark.
Both keep all entries. CPU is that of the process, clients and all. Checked after each run: all three logs hold every acknowledged entry
once, each client's in order.
",
        run.as_millis()
    );
    Ok(Outcome { rows, notes })
}

fn with_cpu(run: impl FnOnce() -> Result<(Figures, Duration), Failed>) -> Result<Run, Failed> {
    let (figures, cpu) = run()?;
    Ok(Run {
        figures,
        cpu_nanos: cpu.as_nanos() as f64 / figures.total.max(1) as f64,
    })
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A thread for each core, or all on the calling one.
fn runtime(threads: bool) -> Result<Runtime, Failed> {
    let mut builder = if threads {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    Ok(builder.enable_time().build()?)
}

fn kontiki(clients: u32, stretch: Stretch) -> Result<(Figures, Duration), Failed> {
    let handles = Config::in_memory(3)?
        .into_iter()
        .map(|config| RaftNode::<LogOnly<Raw>>::new(config)?.start())
        .collect::<Result<Vec<_>, _>>()?;
    let end = Instant::now() + Duration::from_secs(10);
    let leader = loop {
        if let Some(leader) = handles.iter().find(|handle| handle.status().role == Role::Leader) {
            break leader;
        }
        if Instant::now() > end {
            return Err("no node leads".into());
        }
        thread::sleep(Duration::from_millis(5));
    };
    leader.blocking().wait_ready(Duration::from_secs(10))?;
    let before = cpu();
    let appending = closed_loop(node::appenders(leader, 0, clients, ENTRY_BYTES), stretch);
    let figures = runtime(false)?.block_on(appending)?;
    let cpu = cpu() - before;
    let mut found = Vec::new();
    for handle in &handles {
        found.push(node::check(handle, 0, figures.total)?);
    }
    if found.iter().any(|one| *one != found[0]) || leader.status().commit != figures.total {
        return Err(format!(
            "{} entries were acknowledged, and found was {found:?}",
            figures.total
        )
        .into());
    }
    for handle in handles {
        handle.blocking().shutdown()?;
    }
    Ok((figures, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_append_and_are_checked() {
        let stretch = Stretch {
            warm: Duration::ZERO,
            run: Duration::from_millis(50),
        };
        for run in [kontiki(3, stretch), open::run(3, 64, stretch)] {
            assert!(run.expect("a good run").0.total > 0);
        }
    }
}
