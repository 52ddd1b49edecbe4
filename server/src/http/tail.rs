//! `GET /v1/tail`: entries from an index on, for as long as the client listens.

use super::{
    App, FIRST_INDEX,
    media::Wanted,
    query::Query,
    stream::{self, PIECE_BYTES, Sink, Streamed},
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue},
};
use futures_core::Stream;
use kontiki::{Consistency, Entry, Raw, Tail};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub(super) async fn tail(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Streamed {
    let query = Query::parse(query.as_deref(), &["from", "timeout"])?;
    let from = query.index("from")?;
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
    tokio::spawn(follow(app.handle.tail(from), sink));
    Ok(response)
}

async fn follow(mut tail: Tail<Raw>, sink: Sink) {
    loop {
        let gathered = tokio::select! {
            gathered = poll_fn(|context| gather(&mut tail, context)) => gathered,
            () = sink.closed() => return,
        };
        if !sink.put(&gathered.entries).await {
            return;
        }
        if let Some(why) = gathered.end {
            sink.cut_off(why).await;
            return;
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
