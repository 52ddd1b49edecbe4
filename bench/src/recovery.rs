//! Suite *recovery*: a node starts on a long log, a follower catches up, and what a node costs that has nothing to do.

use crate::{
    Failed, Options, Outcome,
    etcd::{self, Etcd},
    load::Stretch,
    machine::{PAGE_BYTES, Shape},
    node::{Cluster, Settings},
    process::{PATIENCE, Process, RunDir},
    remote::{self, Servers},
    report::{Row, Target, Unit},
};
use rustix::fs::{Advice, fadvise};
use std::{
    fs::{self, File},
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const SUITE: &str = "recovery";
const ENTRY_BYTES: usize = 256;
const CLIENTS: u32 = 1000;
/// What an entry takes on disk, at least.
const RECORD_BYTES: u64 = 300;

/// Measures starts, catching up and idleness.
pub(crate) fn run(options: &Options) -> Result<Outcome, Failed> {
    let (log_bytes, behind, state_bytes) = if options.quick {
        (200 << 20, 100_000, 64 << 20)
    } else {
        (2 << 30, 1_000_000, 1 << 30)
    };
    let mut rows = Vec::new();
    rows.extend(starts(options, log_bytes)?);
    rows.extend(catching_up(options, behind)?);
    rows.extend(snapshot(options, state_bytes)?);
    rows.extend(idle(options)?);
    let notes = format!(
        "recovery: a node of a cluster of one starts on a log of about {} MiB, each entry a record of {ENTRY_BYTES} B, with nothing of it in the page cache;
the time until it has opened everything: full segments by their indexes, the last one record by record. Beside it: reading all of the files from their beginning, 1 MiB at a time, nothing of them in the page cache.
catch-up: a follower was away for {behind} entries and starts again; the time until it knows all as committed, of its process's start too.
snapshot: a follower was away while a state of {} MiB was written, and the log before the others' snapshots is gone; the time from its process's start
until its machine has all of it. Beside it: as many bytes over a TCP connection of the loopback into a file, which is synced at the end.
idle: `kontiki serve`, a cluster of three without requests; CPU time of each of its processes, and their resident memory, beside etcd's.
Checked: all nodes hold the same, and exactly what was acknowledged.
",
        log_bytes >> 20,
        state_bytes >> 20
    );
    Ok(Outcome { rows, notes })
}

/// Appends until the log has so many entries.
fn fill(cluster: &mut Cluster, entries: u64) -> Result<(), Failed> {
    let stretch = Stretch {
        warm: Duration::ZERO,
        run: Duration::from_millis(500),
    };
    let until = cluster.acknowledged + entries;
    while cluster.acknowledged < until {
        cluster.append(CLIENTS, ENTRY_BYTES, stretch)?;
    }
    Ok(())
}

fn starts(options: &Options, log_bytes: u64) -> Result<Option<Row>, Failed> {
    let dir = RunDir::new(&options.dir, "bench-recovery")?;
    let mut cluster = Cluster::start(dir.path(), 1, Settings::defaults(options)?)?;
    fill(&mut cluster, log_bytes / RECORD_BYTES)?;
    let mut pairs = Vec::new();
    for _ in 0..options.rounds(3) {
        cluster.end_node(0)?;
        let files = files(dir.path())?;
        let bytes = length(&files)?;
        let rate = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        forget(&files)?;
        cluster.restart(0)?;
        let nanos = cluster.nodes[0].ask("opened", PATIENCE)?.parse()?;
        let ours = rate(bytes, Duration::from_nanos(nanos));
        cluster.find_leader()?;
        cluster.check()?;
        cluster.end_node(0)?;
        // One that was being made ready when the node ended is made anew.
        let files: Vec<PathBuf> = files.into_iter().filter(|file| file.exists()).collect();
        forget(&files)?;
        let began = Instant::now();
        let mut block = vec![0; 1 << 20];
        for path in &files {
            let mut file = File::open(path)?;
            while file.read(&mut block)? > 0 {}
        }
        pairs.push((ours, rate(length(&files)?, began.elapsed())));
    }
    let target = Some(Target::RatioOrOurs(0.7, 1500.0));
    let case = "start on a long log";
    Ok(Row::new(
        SUITE,
        case,
        "disk read",
        Unit::MegabytesPerSecond,
        &pairs,
        target,
    ))
}

/// How long these files are together.
fn length(files: &[PathBuf]) -> Result<u64, Failed> {
    let lengths = files.iter().map(|file| Ok(file.metadata()?.len()));
    lengths.sum()
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Lets go of what the page cache has of these files.
fn forget(files: &[PathBuf]) -> Result<(), Failed> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn catching_up(options: &Options, behind: u64) -> Result<Vec<Row>, Failed> {
    let (mut entries, mut time) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds(3) {
        let dir = RunDir::new(&options.dir, "bench-catch-up")?;
        let mut cluster = Cluster::start(dir.path(), 3, Settings::defaults(options)?)?;
        let away = (cluster.leader + 1) % 3;
        fill(&mut cluster, 1000)?;
        cluster.nodes[away].kill();
        let before = cluster.acknowledged;
        fill(&mut cluster, behind)?;
        let (missed, last) = (cluster.acknowledged - before, cluster.acknowledged);
        let began = Instant::now();
        cluster.restart(away)?;
        while cluster.status(away)?.commit < last {
            if began.elapsed() > PATIENCE * 5 {
                return Err("a follower does not catch up".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let took = began.elapsed().as_secs_f64();
        cluster.find_leader()?;
        cluster.check()?;
        cluster.end()?;
        entries.push(missed as f64 / took);
        time.push(took * 1e3);
    }
    let case = format!("catch-up of {behind} entries");
    let rate = Row::alone(SUITE, &case, Unit::EntriesPerSecond, &entries, None);
    let took = Row::alone(SUITE, &case, Unit::Millis, &time, None);
    Ok(rate.into_iter().chain(took).collect())
}

/// A follower that was away takes over a snapshot.
fn snapshot(options: &Options, state_bytes: usize) -> Result<Vec<Row>, Failed> {
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds(3) {
        let dir = RunDir::new(&options.dir, "bench-snapshot")?;
        let shape = Shape {
            state_bytes,
            snapshot_bytes: state_bytes as u64,
            keep_bytes: 0,
        };
        let settings = Settings {
            machine: Some(shape),
            ..Settings::defaults(options)?
        };
        let mut cluster = Cluster::start(dir.path(), 3, settings)?;
        let (bytes, took) = snapshot_sent(&mut cluster)?;
        cluster.check()?;
        cluster.end()?;
        let floor = copied(&dir.path().join("copy"), bytes)?;
        let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        rates.push((rate(took), rate(floor)));
        times.push((took.as_secs_f64() * 1e3, floor.as_secs_f64() * 1e3));
    }
    let case = format!("snapshot of {} MiB", state_bytes >> 20);
    let row = |unit, pairs: &[_]| Row::new(SUITE, &case, "TCP and file", unit, pairs, None);
    let rows = [row(Unit::MegabytesPerSecond, &rates), row(Unit::Millis, &times)];
    Ok(rows.into_iter().flatten().collect())
}

/// How long the snapshot is, and how long it took from the start of the one that was away.
fn snapshot_sent(cluster: &mut Cluster) -> Result<(u64, Duration), Failed> {
    let away = (cluster.leader + 1) % 3;
    cluster.nodes[away].kill();
    let commands: u64 = cluster.nodes[cluster.leader].ask("fill", PATIENCE * 5)?.parse()?;
    cluster.acknowledged += commands;
    let mut bytes = u64::MAX;
    for n in (0..3).filter(|n| *n != away) {
        bytes = bytes.min(forgotten(cluster, n)?);
    }
    let began = Instant::now();
    cluster.restart(away)?;
    let mut applied = 0;
    while applied < commands {
        if began.elapsed() > PATIENCE * 5 {
            return Err("a follower does not take over a snapshot".into());
        }
        thread::sleep(Duration::from_millis(5));
        applied = cluster.nodes[away].ask("applied", PATIENCE * 5)?.parse()?;
    }
    let took = began.elapsed();
    let taken: u64 = cluster.nodes[away].ask("snapshot", PATIENCE)?.parse()?;
    if taken == 0 {
        return Err("the follower was sent no snapshot".into());
    }
    cluster.find_leader()?;
    Ok((bytes, took))
}

/// Waits until a node has a snapshot and no longer has what was before it. Gives its length.
fn forgotten(cluster: &mut Cluster, n: usize) -> Result<u64, Failed> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE * 5 {
        let bytes: u64 = cluster.nodes[n].ask("snapshot", PATIENCE)?.parse()?;
        if bytes > PAGE_BYTES as u64 && cluster.status(n)?.first > 1 {
            return Ok(bytes);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err("a node takes no snapshot".into())
}

/// What no transfer can be faster than: so many bytes through the loopback into a file that is synced.
fn copied(path: &Path, bytes: u64) -> Result<Duration, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    let sender = thread::spawn(move || -> std::io::Result<()> {
        let mut to = TcpStream::connect(address)?;
        let block = vec![b'.'; PAGE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let step = left.min(PAGE_BYTES as u64);
            to.write_all(&block[..step as usize])?;
            left -= step;
        }
        Ok(())
    });
    let (mut from, _) = listener.accept()?;
    let (mut file, mut block, mut had) = (File::create(path)?, vec![0; PAGE_BYTES], 0);
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            break;
        }
        file.write_all(&block[..read])?;
        had += read as u64;
    }
    file.sync_all()?;
    let took = began.elapsed();
    sender.join().map_err(|_| "the sender of the copy panicked")??;
    if had != bytes {
        return Err("the copy is not whole".into());
    }
    Ok(took)
}

fn idle(options: &Options) -> Result<Vec<Row>, Failed> {
    let time = options.time(Duration::from_secs(20), Duration::from_secs(5));
    let dir = RunDir::new(&options.dir, "bench-idle")?;
    let servers = Servers::start(
        &remote::build()?,
        &dir.path().join("kontiki"),
        options.carrier,
        "",
    )?;
    let ours = idleness(&servers.nodes, time)?;
    drop(servers);
    let theirs = match etcd::version() {
        Some(_) => idleness(&Etcd::start(&dir.path().join("etcd"))?.members, time)?,
        None => {
            eprintln!(
                "{SUITE}: etcd is NOT INSTALLED: nothing beside an idle node (Debian: apt-get install etcd-server)"
            );
            ours.iter().map(|_| (f64::NAN, f64::NAN)).collect()
        }
    };
    let both = || ours.iter().zip(&theirs);
    let cpu: Vec<(f64, f64)> = both().map(|(ours, theirs)| (ours.0, theirs.0)).collect();
    let memory: Vec<(f64, f64)> = both().map(|(ours, theirs)| (ours.1, theirs.1)).collect();
    let row =
        |case, unit, pairs: &[_], most| Row::new(SUITE, case, "etcd", unit, pairs, Some(Target::Ours(most)));
    let cpu = row("idle node", Unit::PercentOfCore, &cpu, 0.5);
    let memory = row("idle node", Unit::Mebibytes, &memory, 15.0);
    Ok(cpu.into_iter().chain(memory).collect())
}

/// Percent of a core and MiB of each process, after it has settled.
fn idleness(processes: &[Process], time: Duration) -> Result<Vec<(f64, f64)>, Failed> {
    thread::sleep(Duration::from_secs(1));
    let before = processes
        .iter()
        .map(Process::cpu)
        .collect::<Result<Vec<_>, _>>()?;
    thread::sleep(time);
    let each = processes.iter().zip(before).map(|(process, before)| {
        let cpu = process.cpu()?.saturating_sub(before);
        let memory = process.resident_bytes()? as f64 / (1 << 20) as f64;
        Ok((cpu.as_secs_f64() / time.as_secs_f64() * 100.0, memory))
    });
    each.collect()
}
