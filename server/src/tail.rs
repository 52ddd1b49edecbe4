//! `kontiki tail`: prints entries as they are appended.
//!
//! That a log is quiet is no failure; that a node is silent is one. The node is therefore asked for heartbeats. Without any it
//! is left, as it is when it says for some time that it knows no leader: it may be cut off and miss what is appended. Whatever
//! happens, the next answer is asked for from the entry after the last one printed.

use crate::{
    api::{Heartbeat, NodeStatus},
    cli::TailArgs,
    client::{Call, Client},
    failure::{Failure, Stop},
    http::{JSON, NDJSON, OCTETS},
    output::{Data, say},
    pieces::{Piece, Pieces},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kontiki::Code;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Without `--from`, a tail begins with the last so many entries.
const TAIL_ENTRIES: u64 = 10;

/// How long to wait before asking again after an answer ended.
const PAUSE: Duration = Duration::from_millis(100);

/// The most and the fewest heartbeats that a node can be asked for.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// After so many heartbeats that did not come, a node is silent.
const HEARTBEATS_MISSED: u32 = 3;

/// For so long a node may know no leader. An election is over sooner.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);

/// Prints entries as they are appended, for ever.
pub(crate) async fn tail(args: &TailArgs) -> Result<(), Stop> {
    let mut client = Client::new(&args.client.endpoints);
    let within = args.client.timeout();
    let from = match args.from {
        Some(from) => from,
        None => near_end(&mut client, within).await?,
    };
    say!("kontiki: following from entry {from}; ^C ends it");
    let heartbeat = (within / HEARTBEATS_MISSED).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
    let mut follower = Follower {
        client,
        within,
        heartbeat,
        json: args.client.json,
        data: Data::new(),
        next: from,
        current: Instant::now(),
        is_well: true,
    };
    loop {
        let left = follower.follow().await?;
        follower.go_elsewhere(left).await?;
    }
}

/// Where a tail begins that shows the last entries there are.
async fn near_end(client: &mut Client, within: Duration) -> Result<u64, Stop> {
    let call = Call::get("/v1/status".into(), JSON);
    let status = client.call_json::<NodeStatus>(&call, within).await;
    let status = status.map_err(|error| error.failure)?;
    Ok((status.commit + 1).saturating_sub(TAIL_ENTRIES).max(status.first))
}

/// Why a node is followed no longer.
enum Left {
    /// No heartbeat came.
    Silent,
    /// It knows no leader.
    Leaderless,
    /// Its answer ended.
    Ended(String),
}

/// Prints entries from consecutive answers.
struct Follower {
    client: Client,
    within: Duration,
    heartbeat: Duration,
    json: bool,
    data: Data,
    /// Index of the entry to print next.
    next: u64,
    /// When all was printed that the node knew to be committed, or an entry was.
    current: Instant,
    /// Whether the last trouble is over, so that another is worth a word.
    is_well: bool,
}

impl Follower {
    /// Follows a node until it has to be left.
    async fn follow(&mut self) -> Result<Left, Stop> {
        let accept = if self.json { NDJSON } else { OCTETS };
        let (from, heartbeat) = (self.next, self.heartbeat.as_millis());
        let call = Call::get(format!("/v1/tail?from={from}&heartbeat={heartbeat}ms"), accept);
        let answer = self.client.call(&call, self.within).await;
        self.print(answer.map_err(|error| error.failure)?.into_body())
            .await
    }

    /// Prints what a body holds.
    async fn print(&mut self, mut body: Incoming) -> Result<Left, Stop> {
        let mut pieces = Pieces::new(self.json);
        let mut leaderless: Option<Instant> = None;
        loop {
            let silent = Instant::now() + self.heartbeat * HEARTBEATS_MISSED;
            let leave = leaderless.filter(|_| self.client.has_others());
            let leave = leave.map_or(silent, |since| silent.min(since + LEADERLESS_MAX));
            let piece = match timeout_at(leave, body.frame()).await {
                Err(_) if leave < silent => return Ok(Left::Leaderless),
                Err(_) => return Ok(Left::Silent),
                Ok(None) => return Ok(Left::Ended("its answer ended".into())),
                Ok(Some(Err(error))) => return Ok(Left::Ended(format!("its answer broke off: {error}"))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            pieces.push(&piece);
            while let Some(piece) = pieces.next() {
                match piece {
                    Piece::Entry(entry) => self.entry(&entry)?,
                    Piece::Heartbeat(heartbeat) => {
                        self.hear(heartbeat);
                        let since = leaderless.unwrap_or_else(Instant::now);
                        leaderless = (!heartbeat.leader).then_some(since);
                    }
                }
            }
            self.data.flush()?;
        }
    }

    fn entry(&mut self, entry: &[u8]) -> Result<(), Stop> {
        self.data.entry(entry, self.json)?;
        self.next += 1;
        (self.current, self.is_well) = (Instant::now(), true);
        Ok(())
    }

    fn hear(&mut self, Heartbeat { committed, leader }: Heartbeat) {
        if committed < self.next {
            self.current = Instant::now();
        }
        self.is_well |= leader;
    }

    /// Turns to another endpoint. In vain for too long is only what keeps entries back that are there.
    async fn go_elsewhere(&mut self, left: Left) -> Result<(), Stop> {
        let (why, endpoint) = (left.told(), self.client.endpoint().clone());
        if self.current.elapsed() > self.within && matches!(left, Left::Ended(_)) {
            let text = format!("cannot read entry {} from {endpoint}: {why}", self.next);
            return Err(Failure::new(Code::Timeout, text).into());
        }
        self.client.next_endpoint();
        if std::mem::take(&mut self.is_well) {
            say!("kontiki: leaving {endpoint} at entry {}: {why}", self.next);
        }
        sleep(PAUSE).await;
        Ok(())
    }
}

impl Left {
    fn told(&self) -> &str {
        match self {
            Self::Silent => "it is silent",
            Self::Leaderless => "it knows no leader",
            Self::Ended(why) => why,
        }
    }
}
