//! The clients in the leader's process: tasks that append or read, one entry after the other.

use crate::{Failed, entries, failover, load::Client};
use kontiki::{Consistency, Handle, Outcome, Raw};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The clients are tasks of one thread, as the rest of the program has the other core.
pub(crate) fn measured<T>(clients: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?
        .block_on(clients)
}

/// A task that appends.
pub(crate) struct Appender {
    handle: Handle<Raw>,
    client: u32,
    number: u32,
    bytes: usize,
}

/// Clients with numbers from `first` on.
pub(crate) fn appenders(handle: &Handle<Raw>, first: u32, clients: u32, bytes: usize) -> Vec<Appender> {
    (first..first + clients)
        .map(|client| Appender {
            handle: handle.clone(),
            client,
            number: 0,
            bytes,
        })
        .collect()
}

impl Client for Appender {
    async fn call(&mut self) -> Result<(), Failed> {
        let entry = entries::entry(self.client, self.number, self.bytes);
        self.number += 1;
        self.handle.append(Raw(entry)).await?;
        Ok(())
    }
}

/// What became of appends while a leader went away.
#[derive(Default)]
struct Tally {
    next_client: AtomicU32,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
}

impl Tally {
    fn client(&self) -> u32 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    async fn append(&self, append: kontiki::Append) -> Result<(), Failed> {
        let counter = match append.await {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) if error.outcome() == Outcome::Unknown => &self.unknown,
            Err(error) => return Err(error.into()),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Err("nobody knows".into())
    }
}

/// How long an append may take while a leader goes away: longer than any election.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// Clients that go on whatever happens, and probes. Gives how many appends were acknowledged, how many are unknown, and
/// when each successful probe began and ended.
pub(super) fn probe(
    handle: &Handle<Raw>,
    clients: u32,
    first: u32,
    bytes: usize,
    time: Duration,
) -> Result<String, Failed> {
    // Those that wait for a leader that is gone are not to hold up the end for long.
    let handle = &handle.with_timeout(PROBE_TIMEOUT);
    let tally = Arc::new(Tally {
        next_client: AtomicU32::new(first),
        ..Tally::default()
    });
    let spans = measured(async {
        let end = Instant::now() + time;
        let running: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(persist(handle.clone(), tally.clone(), bytes, end)))
            .collect();
        let spans = failover::probes(time, || {
            let (tally, append) = (
                tally.clone(),
                handle.append(Raw(entries::entry(tally.client(), 0, bytes))),
            );
            async move { tally.append(append).await }
        });
        let spans = spans.await;
        for client in running {
            client.await?;
        }
        // The last probes are answered, or time out.
        while Arc::strong_count(&tally) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(spans)
    })?;
    let (acknowledged, unknown) = (&tally.acknowledged, &tally.unknown);
    let numbers = [acknowledged, unknown]
        .map(|n| n.load(Ordering::Relaxed).to_string())
        .join(" ");
    let spans = spans
        .iter()
        .map(|span| format!(" {} {}", span.began.as_nanos(), span.ended.as_nanos()));
    Ok(numbers + &spans.collect::<String>())
}

/// Appends one entry after the other, under another name after each failure: what failed may still be appended.
async fn persist(handle: Handle<Raw>, tally: Arc<Tally>, bytes: usize, end: Instant) {
    let (mut client, mut number) = (tally.client(), 0);
    while Instant::now() < end {
        let entry = entries::entry(client, number, bytes);
        number += 1;
        if tally.append(handle.append(Raw(entry))).await.is_err() {
            (client, number) = (tally.client(), 0);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A task that reads an entry at a time, each from somewhere else among the newest.
pub(super) struct Reader {
    handle: Handle<Raw>,
    consistency: Consistency,
    index: u64,
    last: u64,
}

/// Reads that ask nobody, whatever their age.
pub(super) const STALE: Consistency = Consistency::Stale { max_lag: None };

/// How many of the newest entries are read.
const READ_AMONG: u64 = 1000;

pub(super) fn readers(handle: &Handle<Raw>, consistency: Consistency, clients: u64) -> Vec<Reader> {
    let last = handle.status().commit;
    (0..clients)
        .map(|n| Reader {
            handle: handle.clone(),
            consistency,
            index: last - n % READ_AMONG.min(last),
            last,
        })
        .collect()
}

impl Client for Reader {
    async fn call(&mut self) -> Result<(), Failed> {
        let found = self
            .handle
            .read(self.index..=self.index, self.consistency)
            .await?;
        match &found.entries[..] {
            [one] if one.index == self.index => {}
            _ => return Err(format!("entry {} was not there", self.index).into()),
        }
        self.index = if self.index + READ_AMONG <= self.last || self.index <= 1 {
            self.last
        } else {
            self.index - 1
        };
        Ok(())
    }
}
