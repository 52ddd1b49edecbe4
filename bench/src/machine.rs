//! A node with a state machine in a process of its own: a state of any size in memory, so that snapshots of it can be measured.
//!
//! The state is pages that a snapshot shares until they are written again, so that taking one copies nothing at once. The
//! process answers the questions of [`node`](crate::node), and those that need a machine.

use crate::{
    Failed,
    load::{Client, Stretch, Timed, closed_loop, paced},
    node::measured,
    process::PATIENCE,
};
use kontiki::{
    Apply, At, Config, Consistency, MachineError, MachineHandle, MetaRows, RaftNode, Role, SnapshotPolicy,
    StateMachine,
};
use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Write as _},
    str::FromStr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What is shared with a snapshot until it is written again, and what one command of a long state writes.
pub(crate) const PAGE_BYTES: usize = 256 << 10;
/// How many commands that fill a state are under way at once.
const FILLERS: u64 = 16;
/// Whatever this node knows; it asks nobody.
const STALE: Consistency = Consistency::Stale { max_lag: None };

/// A machine, and when a node takes snapshots of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) state_bytes: usize,
    /// After so many bytes of commands.
    pub(crate) snapshot_bytes: u64,
    /// How much of the log before a snapshot stays.
    pub(crate) keep_bytes: u64,
}

/// As a word that a process is told.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state_bytes,
            snapshot_bytes,
            keep_bytes,
        } = self;
        write!(f, "{state_bytes}:{snapshot_bytes}:{keep_bytes}")
    }
}

impl FromStr for Shape {
    type Err = Failed;

    fn from_str(word: &str) -> Result<Self, Failed> {
        let numbers: Vec<&str> = word.split(':').collect();
        let [state, snapshot, keep] = numbers[..] else {
            return Err("no shape of a machine".into());
        };
        Ok(Self {
            state_bytes: state.parse()?,
            snapshot_bytes: snapshot.parse()?,
            keep_bytes: keep.parse()?,
        })
    }
}

/// The state.
struct Pages {
    pages: Vec<Arc<Vec<u8>>>,
    /// How many commands were applied.
    applied: u64,
}

impl Pages {
    fn new(bytes: usize) -> Self {
        let page = Arc::new(vec![0; PAGE_BYTES]);
        Self {
            pages: vec![page; bytes.div_ceil(PAGE_BYTES).max(1)],
            applied: 0,
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.pages.iter().for_each(|page| hasher.write(page));
        hasher.finish()
    }
}

impl StateMachine for Pages {
    /// Where, in bytes from the beginning of the state, and what is to stand there; it ends with its page.
    type Command = (u64, String);
    type Output = ();
    /// Whether the hash is wanted.
    type Query = bool;
    /// How many commands were applied, and the hash.
    type Answer = (u64, u64);

    fn apply(&mut self, _: &At, (at, text): (u64, String)) {
        self.applied += 1;
        let pages = self.pages.len();
        let (page, at) = (at as usize / PAGE_BYTES % pages, at as usize % PAGE_BYTES);
        // A page is copied if a snapshot still has it.
        let page = Arc::make_mut(&mut self.pages[page]);
        for (to, from) in page[at..].iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }

    fn query(&self, hashed: bool) -> (u64, u64) {
        (self.applied, if hashed { self.hash() } else { 0 })
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        let head = self.applied.to_le_bytes();
        let pages = self.pages.clone();
        Ok(Some(Box::new(Source { head, pages, at: 0 })))
    }

    fn restore(&mut self, from: &mut dyn Read, _: &MetaRows) -> Result<(), MachineError> {
        let read = |error: io::Error| MachineError::new(error.to_string());
        let mut head = [0; 8];
        from.read_exact(&mut head).map_err(read)?;
        self.applied = u64::from_le_bytes(head);
        for page in &mut self.pages {
            let mut bytes = vec![0; PAGE_BYTES];
            from.read_exact(&mut bytes).map_err(read)?;
            *page = Arc::new(bytes);
        }
        match from.read(&mut head).map_err(read)? {
            0 => Ok(()),
            _ => Err(MachineError::new("the snapshot is of a longer state")),
        }
    }
}

/// The state of one moment, read in a row.
struct Source {
    head: [u8; 8],
    pages: Vec<Arc<Vec<u8>>>,
    at: usize,
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = match self.at.checked_sub(self.head.len()) {
            None => &self.head[self.at..],
            Some(at) => match self.pages.get(at / PAGE_BYTES) {
                Some(page) => &page[at % PAGE_BYTES..],
                None => &[],
            },
        };
        let bytes = rest.len().min(into.len());
        into[..bytes].copy_from_slice(&rest[..bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

/// The process of a node with such a machine.
pub(crate) fn run(mut config: Config, shape: Shape) -> Result<(), Failed> {
    config.snapshots = SnapshotPolicy::default();
    config.snapshots.bytes = Some(shape.snapshot_bytes);
    config.snapshots.keep_bytes = shape.keep_bytes;
    // A stall is to be seen, and not to be refused.
    config.in_flight_bytes_max = 512 << 20;
    let handle = RaftNode::with_machine(config, Pages::new(shape.state_bytes))?.start()?;
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = answer(&handle, shape, &words).unwrap_or_else(|error| format!("failed {error}"));
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(handle.blocking().shutdown()?)
}

fn answer(handle: &MachineHandle<Pages>, shape: Shape, words: &[&str]) -> Result<String, Failed> {
    match *words {
        ["status"] => {
            let status = handle.status();
            let leads = status.role == Role::Leader;
            let role = if leads { "leads" } else { "follows" };
            let leader = status.leader.unwrap_or(0);
            Ok(format!("{role} {leader} {} {}", status.first, status.commit))
        }
        ["append", clients, first, bytes, warm, run] => {
            let (first, clients, bytes): (u64, u64, _) = (first.parse()?, clients.parse()?, bytes.parse()?);
            let clients = (first..first + clients).map(|client| Writer::new(handle, shape, client, bytes));
            Ok(measured(closed_loop(clients.collect(), Stretch::parse(warm, run)?))?.to_string())
        }
        ["paced", per_second, client, bytes, warm, run] => {
            let mut writer = Writer::new(handle, shape, client.parse()?, bytes.parse()?);
            let paced = paced(per_second.parse()?, Stretch::parse(warm, run)?, || {
                Timed(handle.apply(writer.next()))
            });
            Ok(measured(paced)?.to_string())
        }
        ["fill"] => fill(handle, shape),
        // How many bytes the newest snapshot has.
        ["snapshot"] => Ok(handle.status().snapshot.map_or(0, |s| s.bytes).to_string()),
        ["applied"] => Ok(asked(handle, false)?.0.to_string()),
        ["check", _, last] => check(handle, last.parse()?),
        _ => Err("unknown question".into()),
    }
}

fn asked(handle: &MachineHandle<Pages>, hashed: bool) -> Result<(u64, u64), Failed> {
    Ok(handle.blocking().query(hashed, STALE)?)
}

/// What this node's machine has become once all of that is applied.
fn check(handle: &MachineHandle<Pages>, last: u64) -> Result<String, Failed> {
    let end = Instant::now() + PATIENCE;
    while asked(handle, false)?.0 < last && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    match asked(handle, true)? {
        (applied, hash) if applied == last => Ok(format!("checked {applied} {hash:016x}")),
        (applied, _) => {
            Err(format!("{applied} commands are applied, of {last} that were acknowledged").into())
        }
    }
}

/// Writes each page once, and a few again so that all of a snapshot's distance is gone. Gives how many commands that took.
fn fill(handle: &MachineHandle<Pages>, shape: Shape) -> Result<String, Failed> {
    let pages = shape.state_bytes.div_ceil(PAGE_BYTES) as u64;
    let commands = pages + pages / 16 + FILLERS;
    measured(async {
        let mut running: VecDeque<Apply<()>> = VecDeque::new();
        for page in 0..commands {
            if running.len() as u64 >= FILLERS
                && let Some(first) = running.pop_front()
            {
                first.await?;
            }
            let letter = char::from(b'a' + (page % 26) as u8);
            let text = String::from(letter).repeat(PAGE_BYTES);
            running.push_back(handle.apply((page * PAGE_BYTES as u64, text)));
        }
        for rest in running {
            rest.await?;
        }
        Ok(())
    })?;
    Ok(commands.to_string())
}

/// A task that writes somewhere else each time.
struct Writer {
    handle: MachineHandle<Pages>,
    client: u64,
    number: u64,
    bytes: usize,
    places: u64,
}

impl Writer {
    fn new(handle: &MachineHandle<Pages>, shape: Shape, client: u64, bytes: usize) -> Self {
        Self {
            handle: handle.clone(),
            client,
            number: 0,
            bytes,
            places: (shape.state_bytes / bytes.max(1)).max(1) as u64,
        }
    }

    fn next(&mut self) -> (u64, String) {
        // Knuth's multiplier: spread over all places, the same in each run.
        let place = (self.client << 32 | self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        self.number += 1;
        let text = format!("{:0>bytes$}", self.number, bytes = self.bytes);
        (place % self.places * self.bytes as u64, text)
    }
}

impl Client for Writer {
    async fn call(&mut self) -> Result<(), Failed> {
        let command = self.next();
        self.handle.apply(command).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_state_of_its_moment() {
        let mut one = Pages::new(2 * PAGE_BYTES);
        one.pages[1] = Arc::new(vec![7; PAGE_BYTES]);
        one.applied = 3;
        let before = one.hash();
        let mut source = one.snapshot().expect("it has one").expect("it has one");
        one.pages[0] = Arc::new(vec![8; PAGE_BYTES]);
        let mut other = Pages::new(2 * PAGE_BYTES);
        other
            .restore(&mut source, &MetaRows::default())
            .expect("it is sound");
        assert_eq!((other.applied, other.hash()), (3, before));
        assert_ne!(one.hash(), before);
        let mut longer = one.snapshot().expect("it has one").expect("it has one");
        assert!(
            Pages::new(PAGE_BYTES)
                .restore(&mut longer, &MetaRows::default())
                .is_err()
        );
    }

    #[test]
    fn a_shape_is_the_same_on_the_other_side() {
        let shape = Shape {
            state_bytes: 1,
            snapshot_bytes: 2,
            keep_bytes: 3,
        };
        assert_eq!(shape.to_string().parse::<Shape>().expect("just written"), shape);
        assert!("1:2".parse::<Shape>().is_err());
    }
}
