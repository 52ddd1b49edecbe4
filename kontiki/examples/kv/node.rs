//! One process of a cluster. It tells how it is in lines on its standard output, takes orders from its standard input, and
//! ends with that.

use crate::{
    Failed,
    args::Args,
    cluster::{Program, THREE},
    store::{Command, Counters, Query, Store, Sums},
};
use kontiki::{ClusterKey, Config, Consistency, Error, MachineHandle, Outcome, RaftNode, Role};
use std::{
    fs, io,
    net::TcpListener,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often a node tells how it is.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The files of its log: small, so that little is kept beside what has to be.
const SEGMENT_BYTES: u64 = 4 << 20;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long a check may take: what was lost in a crash has to be applied again first.
const CHECK_MAX: Duration = Duration::from_secs(120);
/// How long one who appends one command after the other rests before the next.
const PAUSE: Duration = Duration::from_millis(20);

/// What was appended from here.
#[derive(Default)]
struct Tally {
    /// The highest index that was acknowledged.
    acked: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// The number of the next key while the store is filled.
    next: AtomicU64,
    /// What the cluster is doing, as it is told: which of `latencies` counts.
    phase: AtomicU64,
    ending: AtomicBool,
    latencies: Mutex<[Vec<u32>; 3]>,
}

/// A node at work.
#[derive(Clone)]
struct Node {
    args: Args,
    handle: MachineHandle<Store>,
    tally: Arc<Tally>,
}

/// A cluster of such processes.
pub(crate) struct Nodes {
    pub(crate) args: Args,
}

impl Nodes {
    /// Lays them out; none runs yet.
    pub(crate) fn new(mut args: Args) -> Result<Self, Failed> {
        let sockets: Vec<_> = THREE
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<io::Result<_>>()?;
        for (id, socket) in THREE.zip(&sockets) {
            args.peers.insert(id, socket.local_addr()?.to_string());
        }
        let key = ClusterKey::generate()?;
        for id in THREE {
            fs::create_dir_all(home(&args, id))?;
            config(&args, id, key.clone()).bootstrap()?;
        }
        key.save(args.dir.join("cluster.key"))?;
        Ok(Self { args })
    }
}

impl Program for Nodes {
    fn command(&self, node: u64) -> Result<process::Command, Failed> {
        let addresses: Vec<_> = self.args.peers.values().map(String::as_str).collect();
        let mut command = process::Command::new(std::env::current_exe()?);
        command.arg("node").args(&self.args.words);
        command.args(["--node", &node.to_string(), "--peers", &addresses.join(",")]);
        command.arg("--dir").arg(&self.args.dir);
        Ok(command)
    }

    fn home(&self, node: u64) -> PathBuf {
        home(&self.args, node)
    }
}

/// The settings of a node of this cluster.
fn config(args: &Args, node: u64, key: ClusterKey) -> Config {
    let mut config = Config::new(node, home(args, node).join("kontiki"), key, args.peers.clone());
    config.segment_bytes = SEGMENT_BYTES;
    config.batch_bytes_max = BATCH_BYTES_MAX;
    config.entry_bytes_max = BATCH_BYTES_MAX;
    config.snapshots.bytes = Some(args.snapshot_bytes);
    config.snapshots.entries = Some(args.snapshot_entries).filter(|entries| *entries > 0);
    config.snapshots.keep_bytes = args.keep_bytes;
    config
}

/// Where a node keeps everything.
fn home(args: &Args, node: u64) -> PathBuf {
    args.dir.join(format!("node{node}"))
}

/// Runs a node until its standard input ends.
pub(crate) fn run(args: &Args) -> Result<(), Failed> {
    let key = ClusterKey::load(args.dir.join("cluster.key"))?;
    let config = config(args, args.node, key);
    let store = Store::open(&home(args, args.node).join("pairs.redb"), args.store)?;
    let counters = store.counters();
    let node = Node {
        args: args.clone(),
        handle: RaftNode::with_machine(config, store)?.start()?,
        tally: Arc::default(),
    };
    let telling = node.clone();
    thread::spawn(move || telling.tell(&counters));
    for line in io::stdin().lines() {
        node.obey(&line?)?;
    }
    Ok(node.handle.blocking().shutdown()?)
}

impl Node {
    fn tell(&self, counters: &Counters) {
        loop {
            let status = self.handle.status();
            if let Some(why) = &status.stopped {
                println!("stopped itself: {why}");
                return;
            }
            let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let tally = &self.tally;
            println!(
                "at leader={} first={} commit={} last={} acked={} refused={} unknown={} taken={} restored={} reading={}",
                u8::from(status.role == Role::Leader),
                status.first,
                status.commit,
                status.last,
                read(&tally.acked),
                read(&tally.refused),
                read(&tally.unknown),
                read(&counters.taken),
                read(&counters.restored),
                u8::from(counters.reading.load(Ordering::Relaxed)),
            );
            thread::sleep(TELL_EVERY);
        }
    }

    fn obey(&self, line: &str) -> Result<(), Failed> {
        let (order, value) = line.split_once(' ').unwrap_or((line, ""));
        let node = self.clone();
        match order {
            "fill" => drop(thread::spawn(move || node.together(Kind::Fill))),
            "load" => drop(thread::spawn(move || node.together(Kind::Mix))),
            "measure" => drop(thread::spawn(move || node.together(Kind::Single))),
            "phase" => self.tally.phase.store(value.parse()?, Ordering::Relaxed),
            "end" => self.end(),
            "check" => self.check()?,
            _ => return Err(format!("an order that is not known: {line}").into()),
        }
        Ok(())
    }

    /// The sums as they are kept, and as they are when every pair is looked at.
    fn check(&self) -> Result<(), Failed> {
        let ask = |query| -> Result<Sums, Failed> {
            let node = self.handle.with_timeout(CHECK_MAX).blocking();
            let answer = node.query(query, Consistency::Linearizable)?;
            Ok(Result::<Sums, _>::from(answer)?)
        };
        let (kept, made) = (ask(Query::Sums)?, ask(Query::Recount)?);
        let Sums { index, pairs, digest } = kept;
        let sound = u8::from(kept == made);
        println!("sums index={index} pairs={pairs} digest={digest} sound={sound}");
        Ok(())
    }

    /// Tells what was measured.
    fn end(&self) {
        self.tally.ending.store(true, Ordering::Relaxed);
        let mut latencies = self
            .tally
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (phase, latencies) in latencies.iter_mut().enumerate() {
            latencies.sort_unstable();
            let at = |part: f64| {
                let place = (latencies.len() as f64 * part) as usize;
                latencies.get(place).copied().unwrap_or_default()
            };
            let (count, half, most, all) = (latencies.len(), at(0.5), at(0.99), at(0.999));
            println!("phase number={phase} count={count} p50={half} p99={most} p999={all}");
        }
        println!("ended");
    }

    /// Lets all tasks append, until there is enough.
    fn together(&self, kind: Kind) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        for task in 0..self.args.tasks as u64 {
            let node = self.clone();
            local.spawn_local(async move { node.append_on(kind, task).await });
        }
        runtime.block_on(local);
    }

    /// Appends one record after the other. On a follower only the first task does: enough to see that it is taken there.
    async fn append_on(&self, kind: Kind, task: u64) {
        let seed = u64::from(std::process::id()) << 20 ^ task;
        let mut numbers = Numbers(seed);
        loop {
            let status = self.handle.status();
            let enough = match kind {
                Kind::Fill => self.tally.next.load(Ordering::Relaxed) >= self.args.keys,
                Kind::Mix => status.commit >= self.args.entries,
                Kind::Single => self.tally.ending.load(Ordering::Relaxed),
            };
            if enough || status.stopped.is_some() {
                return;
            }
            if status.role != Role::Leader && task > 0 {
                tokio::time::sleep(TELL_EVERY).await;
                continue;
            }
            if let Err(error) = self.append(kind, &mut numbers).await {
                let unknown = error.outcome() != Outcome::NotApplied;
                let tally = &self.tally;
                let count = if unknown { &tally.unknown } else { &tally.refused };
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }

    async fn append(&self, kind: Kind, numbers: &mut Numbers) -> Result<(), Error> {
        let (args, tally) = (&self.args, &self.tally);
        let last = match kind {
            Kind::Single => {
                let (began, phase) = (Instant::now(), tally.phase.load(Ordering::Relaxed));
                let done = self
                    .handle
                    .apply(put(args, numbers.below(args.keys), numbers))
                    .await?;
                self.count(began, phase);
                tokio::time::sleep(PAUSE).await;
                done.index
            }
            Kind::Mix | Kind::Fill => {
                let batch = args.batch as u64;
                let first = match kind {
                    Kind::Fill => tally.next.fetch_add(batch, Ordering::Relaxed),
                    _ => 0,
                };
                let command = |n: u64| match kind {
                    Kind::Fill => put(args, first + n, numbers),
                    _ => any(args, numbers),
                };
                let commands: Vec<_> = (0..batch).map(command).collect();
                let done = self.handle.apply_all(&commands).await?;
                done.last().map_or(0, |last| last.index)
            }
        };
        tally.acked.fetch_max(last, Ordering::Relaxed);
        Ok(())
    }

    /// Counts how long one took, for the later of the phases in which it began and ended.
    fn count(&self, began: Instant, phase: u64) {
        let phase = phase.max(self.tally.phase.load(Ordering::Relaxed));
        let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut latencies = self
            .tally
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(latencies) = latencies.get_mut(phase as usize) {
            latencies.push(micros);
        }
    }
}

/// What is appended.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Every key once, in records of many.
    Fill,
    /// Anything, in records of many.
    Mix,
    /// One command after the other, and how long each takes.
    Single,
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:010}").into_bytes()
}

fn put(args: &Args, number: u64, numbers: &mut Numbers) -> Command {
    let mut value = vec![0; args.value_bytes as usize];
    for word in value.chunks_mut(8) {
        let bytes = numbers.next().to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
    let key = key(number % args.keys);
    Command::Put { key, value }
}

/// Mostly puts; some deletions, some comparisons that hold for keys that are not there.
fn any(args: &Args, numbers: &mut Numbers) -> Command {
    let number = numbers.below(args.keys);
    let key = key(number);
    let mut value = numbers
        .next()
        .to_le_bytes()
        .repeat(args.value_bytes.div_ceil(8) as usize);
    value.truncate(numbers.below(args.value_bytes + 1) as usize);
    match numbers.below(10) {
        0 => Command::Delete { key },
        1 => Command::Cas {
            key,
            expect: None,
            value,
        },
        _ => Command::Put { key, value },
    }
}

/// Numbers without chance, the same for the same seed: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// From 0 on, below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
