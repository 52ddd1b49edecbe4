//! The durable floor: three processes, TCP, one write and fdatasync before each acknowledgement, group commit, no Raft.
//!
//! What no log that is safe on a majority can be faster than on this machine: the leader sends what its clients have
//! outstanding to both followers, writes and syncs it itself, and is done once one follower has synced it too. No
//! checksum, no encryption, no elections; a file that is preallocated, filled with zeros and written over again from its
//! beginning, which costs the least to sync. The clients are no tasks but a number.

use crate::{
    Failed,
    histogram::Histogram,
    load::{Figures, Stretch},
    process::Process,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    fs::{File, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const FILE_BYTES: u64 = 64 << 20;

/// The three processes.
pub(crate) struct Bare {
    /// The leader first.
    pub(crate) processes: Vec<Process>,
    acknowledged: u64,
}

impl Bare {
    pub(crate) fn start(dir: &Path) -> Result<Self, Failed> {
        let words = |role: &str, n: u32, rest: &str| {
            let file = dir.join(format!("bare{n}")).display().to_string();
            ["bare".to_owned(), role.to_owned(), file, rest.to_owned()]
        };
        let (mut followers, mut ports) = (Vec::new(), Vec::new());
        for n in [1, 2] {
            let mut follower = Process::own(&words("follower", n, ""))?;
            ports.push(follower.answer("the port", Duration::ZERO)?);
            followers.push(follower);
        }
        let leader = Process::own(&words("leader", 0, &ports.join(",")))?;
        Ok(Self {
            processes: [leader].into_iter().chain(followers).collect(),
            acknowledged: 0,
        })
    }

    pub(crate) fn append(&mut self, clients: u32, bytes: usize, stretch: Stretch) -> Result<Figures, Failed> {
        let question = format!(
            "append {clients} {bytes} {} {}",
            stretch.warm.as_millis(),
            stretch.run.as_millis()
        );
        let line = self.processes[0].ask(&question, stretch.warm + stretch.run)?;
        let figures: Figures = line.parse()?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// All three files hold the same, and as many entries were written as were acknowledged.
    pub(crate) fn check(&mut self) -> Result<(), Failed> {
        let leaders = self.processes[0].ask("end", Duration::ZERO)?;
        for follower in &mut self.processes[1..] {
            let found = follower.ask("end", Duration::ZERO)?;
            if found != leaders || !found.starts_with(&format!("{} ", self.acknowledged)) {
                return Err(format!("the floor's files differ: `{leaders}`, `{found}`").into());
            }
        }
        Ok(())
    }
}

/// One of the processes.
pub(crate) fn run(words: &[String]) -> Result<(), Failed> {
    match words {
        [role, file, _] if role == "follower" => follow(Path::new(file)),
        [role, file, ports] if role == "leader" => lead(Path::new(file), ports),
        _ => Err("it leads or follows".into()),
    }
}

/// What stands before the entries of a batch: how many bytes and how many entries.
fn head(bytes: usize, entries: u32) -> Result<[u8; 8], Failed> {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&u32::try_from(bytes)?.to_le_bytes());
    head[4..].copy_from_slice(&entries.to_le_bytes());
    Ok(head)
}

fn numbers(head: [u8; 8]) -> (usize, u64) {
    let [a, b, c, d, e, f, g, h] = head;
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]).into(),
    )
}

fn follow(path: &Path) -> Result<(), Failed> {
    let mut store = Store::new(path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let (mut leader, _) = listener.accept()?;
    leader.set_nodelay(true)?;
    let mut batch = Vec::new();
    let mut head = [0; 8];
    while leader.read_exact(&mut head).is_ok() {
        let (bytes, entries) = numbers(head);
        batch.resize(bytes, 0);
        leader.read_exact(&mut batch)?;
        store.write(&batch, entries)?;
        leader.write_all(&store.entries.to_le_bytes())?;
    }
    for line in io::stdin().lines() {
        line?;
        println!("{}", store.digest()?);
        io::stdout().flush()?;
    }
    Ok(())
}

fn lead(path: &Path, ports: &str) -> Result<(), Failed> {
    let mut store = Store::new(path)?;
    let mut followers: Vec<Follower> = Vec::new();
    for port in ports.split(',') {
        let stream = TcpStream::connect(("127.0.0.1", port.parse()?))?;
        stream.set_nodelay(true)?;
        followers.push(Follower { stream, durable: 0 });
    }
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["append", clients, bytes, warm, run] => {
                let stretch = Stretch {
                    warm: Duration::from_millis(warm.parse()?),
                    run: Duration::from_millis(run.parse()?),
                };
                append(
                    &mut store,
                    &mut followers,
                    clients.parse()?,
                    bytes.parse()?,
                    stretch,
                )?
                .to_string()
            }
            _ => {
                until_all_have(&mut followers, &store)?;
                // Without connections they wait for no more, and can be asked.
                followers.clear();
                store.digest()?
            }
        };
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

/// A closed loop: all clients' entries are one batch, and once it is durable twice they have the next.
fn append(
    store: &mut Store,
    followers: &mut [Follower],
    clients: u32,
    bytes: usize,
    stretch: Stretch,
) -> Result<Figures, Failed> {
    let mut latencies = Histogram::new();
    let mut total = 0;
    let from = Instant::now() + stretch.warm;
    let end = from + stretch.run;
    let mut batch = vec![b'.'; 8 + clients as usize * bytes];
    batch[..8].copy_from_slice(&head(clients as usize * bytes, clients)?);
    let mut began = Instant::now();
    while began < end {
        for (n, entry) in (store.entries..).zip(batch[8..].chunks_exact_mut(bytes)) {
            entry[..8].copy_from_slice(&n.to_le_bytes());
        }
        for follower in &mut *followers {
            follower.stream.write_all(&batch)?;
        }
        store.write(&batch[8..], clients.into())?;
        until_one_has(followers, store.entries)?;
        total += u64::from(clients);
        let now = Instant::now();
        if now >= from && now <= end {
            latencies.record_all(now - began, clients);
        }
        began = now;
    }
    Ok(Figures::of(&latencies, total, stretch.run))
}

/// Waits until one of the followers has so many entries on its disk.
fn until_one_has(followers: &mut [Follower], entries: u64) -> Result<(), Failed> {
    while followers.iter().all(|follower| follower.durable < entries) {
        let mut waits: Vec<PollFd<'_>> = followers
            .iter()
            .map(|follower| PollFd::new(&follower.stream, PollFlags::IN))
            .collect();
        poll(&mut waits, None)?;
        let ready: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
        for (follower, _) in followers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            follower.answer()?;
        }
    }
    Ok(())
}

/// A connection that is closed while answers are on their way takes with it what was not yet read at the other end.
fn until_all_have(followers: &mut [Follower], store: &Store) -> Result<(), Failed> {
    for follower in followers {
        while follower.durable < store.entries {
            follower.answer()?;
        }
    }
    Ok(())
}

/// A follower, as the leader has it.
struct Follower {
    stream: TcpStream,
    /// How many entries it has on its disk.
    durable: u64,
}

impl Follower {
    fn answer(&mut self) -> Result<(), Failed> {
        let mut answer = [0; 8];
        self.stream.read_exact(&mut answer)?;
        self.durable = u64::from_le_bytes(answer);
        Ok(())
    }
}

/// The file.
struct Store {
    file: File,
    at: u64,
    entries: u64,
}

impl Store {
    fn new(path: &Path) -> Result<Self, Failed> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self {
            file,
            at: 0,
            entries: 0,
        })
    }

    fn write(&mut self, batch: &[u8], entries: u64) -> Result<(), Failed> {
        if self.at + batch.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(batch, self.at)?;
        self.file.sync_data()?;
        self.at += batch.len() as u64;
        self.entries += entries;
        Ok(())
    }

    /// How many entries were written, and a hash over the file.
    fn digest(&self) -> Result<String, Failed> {
        let (mut hasher, mut block) = (DefaultHasher::new(), vec![0; 1 << 20]);
        for at in (0..FILE_BYTES).step_by(block.len()) {
            self.file.read_exact_at(&mut block, at)?;
            hasher.write(&block);
        }
        Ok(format!("{} {:016x}", self.entries, hasher.finish()))
    }
}
