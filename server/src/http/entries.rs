//! `GET /v1/entries`: a range of entries, page by page.

use super::{
    App, FIRST_INDEX, LAST_INDEX,
    media::Wanted,
    query::Query,
    stream::{self, Sink, Streamed},
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue},
};
use kontiki::{Consistency, Entries, Handle, Raw};
use std::sync::Arc;

pub(super) async fn read(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Streamed {
    let query = Query::parse(
        query.as_deref(),
        &["from", "to", "consistency", "max_lag", "index", "timeout"],
    )?;
    let (from, to) = query.range()?;
    let consistency = query.consistency()?;
    let wanted = Wanted::of(&headers)?;
    let handle = app.within(query.timeout()?);
    // The first page is read before anything is answered, so that a failure gets a status of its own.
    let range = from.unwrap_or(0)..to.unwrap_or(u64::MAX);
    let first = handle.read(range, consistency).await?;
    let begin = first.entries.first().map(|entry| entry.index).or(from);
    let end = to.unwrap_or(u64::MAX).min(first.last_index.saturating_add(1));
    let (sink, mut response) = stream::response(wanted);
    response
        .headers_mut()
        .insert(LAST_INDEX, HeaderValue::from(first.last_index));
    let begin = begin.unwrap_or_else(|| first.last_index.saturating_add(1));
    response
        .headers_mut()
        .insert(FIRST_INDEX, HeaderValue::from(begin));
    tokio::spawn(pages(handle, first, end, sink));
    Ok(response)
}

/// Sends the first page and reads the others. What the first read has seen this node has applied, so the rest may be
/// read from it as it is: a second round through the leader would see no more of the range.
async fn pages(handle: Handle<Raw>, mut page: Entries<Raw>, end: u64, sink: Sink) {
    while let Some(last) = page.entries.last().map(|entry| entry.index) {
        if !sink.put(&page.entries).await || last + 1 >= end {
            return;
        }
        page = match handle.read(last + 1..end, Consistency::STALE).await {
            Ok(page) if page.entries.is_empty() => {
                sink.cut_off(format!("entry {} is not there", last + 1)).await;
                return;
            }
            Ok(page) => page,
            Err(error) => {
                sink.cut_off(error.to_string()).await;
                return;
            }
        };
    }
}
