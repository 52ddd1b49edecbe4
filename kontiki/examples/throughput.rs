//! How fast a cluster takes appends: three processes on this machine, real directories, TLS between them, every entry
//! synced on a majority before it is acknowledged. The appends come from tasks inside the leader's program.
//!
//! ```text
//! cargo run --release -p kontiki --example throughput -- [--seconds 10] [--tasks 256] [--bytes 100] [--dir DIR] [--typed] [--no-sessions]
//! ```
//!
//! Beside its figures stands the floor: a bare write of 4 KiB over part of a preallocated file, and fdatasync, on the same
//! disk and in the same run. `--typed` appends a serde type instead of bytes, which shows what encoding and its check cost;
//! `--no-sessions` appends outside of sessions, which shows what taking effect once costs.

use kontiki::{ClusterKey, Config, Handle, LogEntry, LogOnly, RaftNode, Raw, Role};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const FLOOR_FILE_BYTES: u64 = 64 << 20;
const FLOOR_WRITE_BYTES: usize = 4 << 10;

/// What a child says once it leads, and once it has measured.
const LEADS: &str = "leads";
const DONE: &str = "done";

fn main() -> Result<(), Failed> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.node {
        Some(_) if args.typed => node::<Event>(&args),
        Some(_) => node::<Raw>(&args),
        None => cluster(&args),
    }
}

/// What was asked for on the command line.
#[derive(Clone, Debug)]
struct Args {
    seconds: u64,
    tasks: usize,
    bytes: usize,
    dir: PathBuf,
    typed: bool,
    no_sessions: bool,
    /// Only for children: which node this is, and where all are.
    node: Option<u64>,
    peers: BTreeMap<u64, String>,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let dir = std::env::current_dir()?.join(format!("throughput-{}", std::process::id()));
        let mut args = Self {
            seconds: 10,
            tasks: 256,
            bytes: 100,
            dir,
            typed: false,
            no_sessions: false,
            node: None,
            peers: BTreeMap::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--seconds" => args.seconds = value()?.parse()?,
                "--tasks" => args.tasks = value()?.parse()?,
                "--bytes" => args.bytes = value()?.parse()?,
                "--dir" => args.dir = value()?.into(),
                "--typed" => args.typed = true,
                "--no-sessions" => args.no_sessions = true,
                "--node" => args.node = Some(value()?.parse()?),
                "--peers" => args.peers = (1..).zip(value()?.split(',').map(str::to_owned)).collect(),
                other => return Err(format!("{other} is not known").into()),
            }
        }
        Ok(args)
    }
}

/// Lays out a cluster, runs its nodes as processes, and lets the one that leads measure.
fn cluster(args: &Args) -> Result<(), Failed> {
    let sockets = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<io::Result<Vec<_>>>()?;
    let addresses = sockets
        .iter()
        .map(|s| Ok(s.local_addr()?.to_string()))
        .collect::<io::Result<Vec<String>>>()?;
    let peers: BTreeMap<u64, String> = (1..).zip(addresses.iter().cloned()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).create(&args.dir)?;
    let key = ClusterKey::generate()?;
    key.save(args.dir.join("cluster.key"))?;
    for id in peers.keys() {
        Config::new(*id, args.dir.join(format!("n{id}")), key.clone(), peers.clone()).bootstrap()?;
    }
    drop(sockets);
    let (lines, told) = mpsc::channel();
    let mut children = peers
        .keys()
        .map(|id| spawn(*id, args, &addresses.join(","), &lines))
        .collect::<Result<Vec<_>, _>>()?;
    drop(lines);
    let measured = conduct(&mut children, &told);
    for child in &mut children {
        drop(child.stdin.take());
        child.wait()?;
    }
    fs::remove_dir_all(&args.dir)?;
    measured
}

fn spawn(id: u64, args: &Args, peers: &str, lines: &mpsc::Sender<(u64, String)>) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--node", &id.to_string(), "--peers", peers])
        .arg("--dir")
        .arg(&args.dir);
    command.args([
        "--seconds",
        &args.seconds.to_string(),
        "--tasks",
        &args.tasks.to_string(),
    ]);
    command
        .args(["--bytes", &args.bytes.to_string()])
        .args(args.typed.then_some("--typed"))
        .args(args.no_sessions.then_some("--no-sessions"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (out, lines) = (child.stdout.take().ok_or("no pipe")?, lines.clone());
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if lines.send((id, line)).is_err() {
                return;
            }
        }
    });
    Ok(child)
}

/// Lets the first node that leads measure, and shows what it says.
fn conduct(children: &mut [Child], told: &mpsc::Receiver<(u64, String)>) -> Result<(), Failed> {
    let mut chosen = None;
    for (id, line) in told {
        match (line.as_str(), chosen) {
            (LEADS, None) => {
                chosen = Some(id);
                let child = children
                    .get_mut(id as usize - 1)
                    .and_then(|child| child.stdin.as_mut());
                child.ok_or("no pipe")?.write_all(b"go\n")?;
            }
            (DONE, Some(one)) if one == id => return Ok(()),
            (_, Some(one)) if one == id => println!("{line}"),
            _ => {}
        }
    }
    Err("the nodes ended before anything was measured".into())
}

/// One node of the cluster. It runs until its standard input ends; told to go, it measures.
fn node<T: Sample>(args: &Args) -> Result<(), Failed> {
    let id = args.node.unwrap_or_default();
    let key = ClusterKey::load(args.dir.join("cluster.key"))?;
    let mut config = Config::new(id, args.dir.join(format!("n{id}")), key, args.peers.clone());
    config.sessions = !args.no_sessions;
    let handle = RaftNode::<LogOnly<T>>::new(config)?.start()?;
    let leading = handle.clone();
    thread::spawn(move || {
        while leading.status().role != Role::Leader {
            thread::sleep(Duration::from_millis(20));
        }
        println!("{LEADS}");
    });
    for line in io::stdin().lines() {
        if line? == "go" {
            measure::<T>(&handle, args)?;
            println!("{DONE}");
        }
    }
    Ok(handle.blocking().shutdown()?)
}

fn measure<T: Sample>(handle: &Handle<T>, args: &Args) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let run = |tasks, time| runtime.block_on(appends(handle, tasks, args.bytes, time));
    let time = Duration::from_secs(args.seconds);
    run(args.tasks, Duration::from_secs(1))?; // What is slower the first time is not what is measured.
    let before = floor(&args.dir)?;
    let alone = run(1, time)?;
    let together = run(args.tasks, time)?;
    let after = floor(&args.dir)?;
    let status = handle.status();
    println!(
        "{} of {} bytes, 3 processes, leader's program appends",
        T::NAME,
        args.bytes
    );
    println!(
        "  write and fdatasync, bare: p50 {} µs before, {} µs after",
        before.as_micros(),
        after.as_micros()
    );
    alone.tell("1 task");
    together.tell(&format!("{} tasks", args.tasks));
    if status.role != Role::Leader {
        println!("  leadership was lost meanwhile: these are not the figures of a leader");
    }
    Ok(())
}

/// What a number of tasks saw.
struct Seen {
    latencies: Vec<Duration>,
    failed: u64,
    time: Duration,
}

impl Seen {
    fn tell(mut self, who: &str) {
        self.latencies.sort_unstable();
        let at = |part: f64| {
            let place = (self.latencies.len() as f64 * part) as usize;
            self.latencies.get(place).copied().unwrap_or_default()
        };
        let rate = self.latencies.len() as f64 / self.time.as_secs_f64();
        let (half, most, failed) = (at(0.5).as_micros(), at(0.99).as_micros(), self.failed);
        println!(
            "  {who:<10} {rate:>9.0} acknowledged/s  p50 {half:>6} µs  p99 {most:>6} µs  failed {failed}"
        );
    }
}

/// Lets so many tasks append, each one entry after the other.
async fn appends<T: Sample>(
    handle: &Handle<T>,
    tasks: usize,
    bytes: usize,
    time: Duration,
) -> Result<Seen, Failed> {
    let began = Instant::now();
    let local = tokio::task::LocalSet::new();
    let running: Vec<_> = (0..tasks as u64)
        .map(|task| local.spawn_local(append_until(handle.clone(), task, bytes, began + time)))
        .collect();
    local.await;
    let mut seen = Seen {
        latencies: Vec::new(),
        failed: 0,
        time: began.elapsed(),
    };
    for task in running {
        let (latencies, failed) = task.await?;
        seen.latencies.extend(latencies);
        seen.failed += failed;
    }
    Ok(seen)
}

async fn append_until<T: Sample>(
    handle: Handle<T>,
    task: u64,
    bytes: usize,
    end: Instant,
) -> (Vec<Duration>, u64) {
    let (mut latencies, mut failed, mut number) = (Vec::new(), 0, task << 32);
    let mut began = Instant::now();
    while began < end {
        match handle.append(T::sample(number, bytes)).await {
            Ok(_) => latencies.push(began.elapsed()),
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        number += 1;
        began = Instant::now();
    }
    (latencies, failed)
}

/// The median of a bare write and fdatasync, by the same pattern as a log: onwards through a file that is all there.
fn floor(dir: &Path) -> Result<Duration, Failed> {
    let path = dir.join("floor");
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FLOOR_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let block = [7; FLOOR_WRITE_BYTES];
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let at = (times.len() * FLOOR_WRITE_BYTES) as u64 % FLOOR_FILE_BYTES;
        let start = Instant::now();
        file.write_all_at(&block, at)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// What is appended.
trait Sample: LogEntry {
    const NAME: &str;

    /// An entry of about so many bytes, different for each number.
    fn sample(number: u64, bytes: usize) -> Self;
}

impl Sample for Raw {
    const NAME: &str = "raw entries";

    fn sample(number: u64, bytes: usize) -> Self {
        let mut entry = vec![b'.'; bytes.max(8)];
        entry[..8].copy_from_slice(&number.to_le_bytes());
        Self(entry.into())
    }
}

/// Something a program might log.
#[derive(Serialize, Deserialize)]
struct Event {
    number: u64,
    account: String,
    amount: i64,
    note: String,
}

impl Sample for Event {
    const NAME: &str = "events (serde)";

    fn sample(number: u64, bytes: usize) -> Self {
        let note = ".".repeat(bytes.saturating_sub(32));
        Self {
            number,
            account: format!("account-{:08}", number % 1000),
            amount: -17,
            note,
        }
    }
}
