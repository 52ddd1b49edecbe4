//! `GET /v1/tail`: entries from an index on, for as long as the client listens.

use super::{
    App, FIRST_INDEX,
    media::Wanted,
    query::Query,
    stream::{self, PIECE_BYTES, Sink, Streamed},
};
use crate::api::Heartbeat;
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue},
};
use futures_core::Stream;
use kontiki::{Consistency, Entry, Handle, Raw, Tail};
use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often a tail with heartbeats looks whether the node still knows a leader.
const LEADER_CHECK: Duration = Duration::from_secs(1);

pub(super) async fn tail(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Streamed {
    let query = Query::parse(query.as_deref(), &["from", "heartbeat", "timeout"])?;
    let (from, heartbeat) = (query.index("from")?, query.heartbeat()?);
    // A tail has no end, so there is nothing a timeout could bound; it is taken since clients send it with everything.
    query.timeout()?;
    // A failure that would cut the tail off at once gets a status of its own.
    let to = from.map_or(u64::MAX, |from| from.saturating_add(1));
    let begin = app.handle.read(from.unwrap_or(0)..to, Consistency::STALE).await?;
    let first = begin.entries.first().map(|entry| entry.index).or(from);
    let from = first.unwrap_or_else(|| begin.last_index.saturating_add(1));
    let (sink, mut response) = stream::response(Wanted::of(&headers)?);
    response
        .headers_mut()
        .insert(FIRST_INDEX, HeaderValue::from(from));
    let pulse = heartbeat.map(|every| Pulse::new(app.handle.clone(), every));
    let tail = app.handle.tail(from);
    tokio::spawn(follow(app, tail, pulse, sink));
    Ok(response)
}

async fn follow(app: Arc<App>, mut tail: Tail<Raw>, mut pulse: Option<Pulse>, sink: Sink) {
    loop {
        let gathered = tokio::select! {
            biased;
            () = sink.closed() => return,
            gathered = poll_fn(|context| gather(&mut tail, context)) => gathered,
            heartbeat = beat(&mut pulse) => match sink.beat(heartbeat).await {
                true => continue,
                false => return,
            },
        };
        // What a client does not take counts until it is taken.
        let bytes = gathered.entries.iter().map(|entry| entry.value.0.len()).sum();
        let reserved = tokio::select! {
            reserved = app.admission.answers.reserve(bytes) => reserved,
            () = sink.closed() => return,
        };
        if !sink.put(&gathered.entries).await {
            return;
        }
        drop(reserved);
        if let Some(pulse) = &mut pulse {
            pulse.put_entries();
        }
        if let Some(why) = gathered.end {
            sink.cut_off(why).await;
            return;
        }
    }
}

/// The next heartbeat, if any were asked for.
async fn beat(pulse: &mut Option<Pulse>) -> Heartbeat {
    match pulse {
        Some(pulse) => pulse.next().await,
        None => pending().await,
    }
}

/// When a tail says that it is alive: at once, then whenever it has said nothing for so long, and sooner if the node has lost
/// its leader or found one, so that a client of a node that is cut off can go elsewhere.
struct Pulse {
    handle: Handle<Raw>,
    every: Duration,
    /// When the client was last told anything; none before that.
    told: Option<Instant>,
    /// Whether the last heartbeat told of a leader.
    leader: bool,
}

impl Pulse {
    fn new(handle: Handle<Raw>, every: Duration) -> Self {
        Self {
            handle,
            every,
            told: None,
            leader: true,
        }
    }

    /// Entries say it as well as a heartbeat, until the next is due.
    fn put_entries(&mut self) {
        self.told = Some(Instant::now());
    }

    /// Waits until the next is due. Dropped before that, it loses nothing.
    async fn next(&mut self) -> Heartbeat {
        loop {
            let now = Instant::now();
            let status = self.handle.status();
            let heartbeat = Heartbeat {
                committed: status.commit,
                leader: status.leader.is_some(),
            };
            let due = self.told.map(|told| told + self.every);
            let left = due.and_then(|due| due.checked_duration_since(now));
            match left.filter(|left| !left.is_zero()) {
                Some(left) if heartbeat.leader == self.leader => sleep(left.min(LEADER_CHECK)).await,
                _ => {
                    self.told = Some(now);
                    self.leader = heartbeat.leader;
                    return heartbeat;
                }
            }
        }
    }
}

/// What was at hand.
#[derive(Default)]
struct Gathered {
    entries: Vec<Entry<Raw>>,
    /// Why there will be no more.
    end: Option<String>,
}

/// Takes what is at hand, at least one entry or the end, and about as much as makes a piece.
fn gather(tail: &mut Tail<Raw>, context: &mut Context<'_>) -> Poll<Gathered> {
    let mut gathered = Gathered::default();
    let mut bytes = 0;
    while bytes < PIECE_BYTES && gathered.end.is_none() {
        match Pin::new(&mut *tail).poll_next(context) {
            Poll::Pending if gathered.entries.is_empty() => return Poll::Pending,
            Poll::Pending => break,
            Poll::Ready(Some(Ok(entry))) => {
                bytes += entry.value.0.len() + crate::frames::LENGTH_BYTES;
                gathered.entries.push(entry);
            }
            Poll::Ready(Some(Err(error))) => gathered.end = Some(error.to_string()),
            Poll::Ready(None) => gathered.end = Some("the node has stopped".into()),
        }
    }
    Poll::Ready(gathered)
}
