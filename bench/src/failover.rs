//! Suite *failover*: the leader's process is killed, or stopped so that it is silent, while clients append; how long until
//! an append that was begun after that succeeds.
//!
//! Clients and probes are at a node that lives on: in our follower's program, and connected to an etcd follower. A probe
//! is a new append every two milliseconds, which waits for nothing before it.

use crate::{
    Failed, Options, Outcome,
    etcd::{self, Call, Etcd},
    node::{Cluster, Settings},
    process::RunDir,
    report::{Row, Target, Unit},
};
use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

const SUITE: &str = "failover";
const ETCD: &str = "etcd";
const ENTRY_BYTES: usize = 256;
const CLIENTS: u32 = 16;
const PROBE_EVERY: Duration = Duration::from_millis(2);
/// What is appended before the leader goes.
const BEFORE: Duration = Duration::from_millis(700);

/// How the leader goes.
const WAYS: [(&str, Signal); 2] = [("SIGKILL", Signal::KILL), ("SIGSTOP", Signal::STOP)];

/// When an append began and ended, by the clock that all processes share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
}

/// The clock that all processes share.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long after `gone` the first append was acknowledged that began after it.
fn outage(spans: &[Span], gone: Duration) -> Result<Duration, Failed> {
    spans
        .iter()
        .filter(|span| span.began >= gone)
        .map(|span| span.ended - gone)
        .min()
        .ok_or_else(|| "no append succeeded after the leader was gone".into())
}

/// Makes a new append every [`PROBE_EVERY`] for so long, and gives those that succeeded.
pub(crate) async fn probes<F, A>(time: Duration, mut append: F) -> Vec<Span>
where
    F: FnMut() -> A,
    A: Future<Output = Result<(), Failed>> + Send + 'static,
{
    let spans = Arc::new(Mutex::new(Vec::new()));
    let end = now() + time;
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    while now() < end {
        ticks.tick().await;
        let (one, spans, began) = (append(), spans.clone(), now());
        tokio::spawn(async move {
            if one.await.is_ok() {
                let span = Span { began, ended: now() };
                spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
            }
        });
    }
    let spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
    spans.clone()
}

/// Measures each way, with our timeouts and with etcd's.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let trials = options.rounds(if options.quick { 2 } else { 9 });
    let defaults = Settings::defaults(options)?;
    let like_etcd = Settings {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_secs(1),
        election_max: Duration::from_secs(2),
        ..defaults
    };
    let version = etcd::version();
    if version.is_none() {
        eprintln!(
            "{SUITE}: etcd is NOT INSTALLED: its rows are missing (Debian: apt-get install etcd-server)"
        );
    }
    let mut rows = Vec::new();
    for (way, signal) in WAYS {
        let dir = RunDir::new(&options.dir, "bench-failover")?;
        let quick = ours(&dir, "defaults", defaults, signal, trials)?;
        let mut slow = Vec::new();
        let mut theirs = Vec::new();
        let mut cluster = Cluster::start(&dir.path().join("like-etcd"), 3, like_etcd)?;
        let mut etcd = match version {
            Some(_) => Some(Etcd::start(&dir.path().join("etcd"))?),
            None => None,
        };
        for _ in 0..trials {
            slow.push(trial(&mut cluster, signal, Duration::from_secs(5))?);
            if let Some(etcd) = &mut etcd {
                theirs.push(trial_of_etcd(etcd, signal, Duration::from_secs(5))?);
            }
        }
        cluster.end()?;
        rows.extend(rows_of(way, &quick, &slow, &theirs));
    }
    let notes = format!(
        "failover: three processes, {CLIENTS} clients appending {ENTRY_BYTES} B at a node that lives on, and a probe every {} ms there; the time from the
signal to the first answer to a probe that began after it; {trials} times each, the node then started again or woken. Defaults: heartbeat {:?},
election timeout {:?} to {:?}; etcd's: 100 ms, 1 s to 2 s. Checked: all nodes hold the same, in it all that was acknowledged.
",
        PROBE_EVERY.as_millis(),
        defaults.heartbeat,
        defaults.election_min,
        defaults.election_max,
    );
    Ok(Outcome { rows, notes })
}

fn rows_of(way: &str, quick: &[f64], slow: &[f64], theirs: &[f64]) -> Vec<Row> {
    let (default, like_etcd) = match way {
        "SIGKILL" => (50.0, 50.0),
        // The shortest timeout of etcd's is 1 s.
        _ => (500.0, 1150.0),
    };
    let mut rows = Vec::new();
    let case = format!("leader {way}, our defaults");
    rows.extend(Row::alone(
        SUITE,
        &case,
        Unit::Millis,
        quick,
        Some(Target::Ours(default)),
    ));
    let case = format!("leader {way}, etcd's timeouts");
    let target = Some(Target::Ours(like_etcd));
    if theirs.is_empty() {
        rows.extend(Row::alone(SUITE, &case, Unit::Millis, slow, target));
    } else {
        let pairs: Vec<(f64, f64)> = slow.iter().copied().zip(theirs.iter().copied()).collect();
        rows.extend(Row::new(SUITE, &case, ETCD, Unit::Millis, &pairs, target));
    }
    rows
}

fn ours(
    dir: &RunDir,
    name: &str,
    settings: Settings,
    signal: Signal,
    trials: usize,
) -> Result<Vec<f64>, Failed> {
    let mut cluster = Cluster::start(&dir.path().join(name), 3, settings)?;
    let all = (0..trials)
        .map(|_| trial(&mut cluster, signal, Duration::from_millis(2500)))
        .collect::<Result<_, _>>()?;
    cluster.end()?;
    Ok(all)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn trial(cluster: &mut Cluster, signal: Signal, after: Duration) -> Result<f64, Failed> {
    cluster.find_leader()?;
    let (leader, witness) = (cluster.leader, (cluster.leader + 1) % 3);
    let time = BEFORE + after;
    // Each failure ends a client and begins another.
    let first = cluster.take_clients(1 << 20);
    let question = format!("probe {CLIENTS} {first} {ENTRY_BYTES} {}", time.as_millis());
    cluster.nodes[witness].tell(&question)?;
    thread::sleep(BEFORE);
    let gone = now();
    cluster.nodes[leader].signal(signal)?;
    let answer = cluster.nodes[witness].answer(&question, time)?;
    if signal == Signal::STOP {
        cluster.nodes[leader].signal(Signal::CONT)?;
    } else {
        cluster.restart(leader)?;
    }
    let mut numbers = Vec::new();
    for word in answer.split_whitespace() {
        numbers.push(word.parse::<u64>()?);
    }
    let [acknowledged, unknown, spans @ ..] = &numbers[..] else {
        return Err("no answer from the node that probed".into());
    };
    cluster.acknowledged += acknowledged;
    cluster.unknown += unknown;
    let spans: Vec<Span> = spans
        .chunks_exact(2)
        .map(|pair| Span {
            began: Duration::from_nanos(pair[0]),
            ended: Duration::from_nanos(pair[1]),
        })
        .collect();
    cluster.find_leader()?;
    cluster.check()?;
    Ok(millis(outage(&spans, gone)?))
}

fn trial_of_etcd(etcd: &mut Etcd, signal: Signal, after: Duration) -> Result<f64, Failed> {
    etcd.find_leader()?;
    let leader = etcd.leader;
    let witness = etcd.addresses[(leader + 1) % 3];
    let id = i32::try_from(etcd.members[leader].id())?;
    let (spans, gone) = etcd.runtime().block_on(async {
        let put = Call::put(witness, u32::MAX, ENTRY_BYTES).await?;
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let mut put = Call::put(witness, u32::MAX - 1 - client, ENTRY_BYTES).await?;
            clients.push(tokio::spawn(async move {
                loop {
                    if put.once().await.is_err() {
                        tokio::time::sleep(PROBE_EVERY).await;
                    }
                }
            }));
        }
        let signalled = tokio::spawn(async move {
            tokio::time::sleep(BEFORE).await;
            let gone = now();
            let leader = rustix::process::Pid::from_raw(id).ok_or("no such process")?;
            rustix::process::kill_process(leader, signal)?;
            Ok::<Duration, Failed>(gone)
        });
        let spans = probes(BEFORE + after, || {
            let mut put = put.clone();
            async move { put.once().await.map(drop) }
        });
        let spans = spans.await;
        clients.iter().for_each(|client| client.abort());
        Ok::<_, Failed>((spans, signalled.await??))
    })?;
    if signal == Signal::STOP {
        etcd.members[leader].signal(Signal::CONT)?;
    } else {
        etcd.restart(leader)?;
    }
    etcd.find_leader()?;
    etcd.check_equal()?;
    Ok(millis(outage(&spans, gone)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_after_the_leader_was_gone_counts() {
        let ms = Duration::from_millis;
        let span = |began, ended| Span {
            began: ms(began),
            ended: ms(ended),
        };
        let spans = [span(90, 101), span(110, 400), span(120, 350)];
        assert_eq!(outage(&spans, ms(100)).expect("two began after"), ms(250));
        assert!(outage(&spans[..1], ms(100)).is_err());
    }
}
