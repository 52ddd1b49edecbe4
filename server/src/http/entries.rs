//! `GET /v1/entries`: a range of entries, page by page.

use super::{
    App, FIRST_INDEX, LAST_INDEX,
    media::Wanted,
    problem::Refusal,
    query::Query,
    stream::{self, Sink, Streamed},
};
use crate::admission::{ADMISSION, Reserved};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue},
};
use kontiki::{Code, Consistency, Entries, Handle, Raw};
use std::sync::Arc;
use tokio::time::timeout;

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
    let mut reserved = reserve(&app, range.start, range.end).await?;
    let first = handle.read(range, consistency).await?;
    reserved.shrink(bytes_of(&first));
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
    tokio::spawn(pages(app, handle, (first, reserved), end, sink));
    Ok(response)
}

/// Sends the first page and reads the others. What the first read has seen this node has applied, so the rest may be
/// read from it as it is: a second round through the leader would see no more of the range.
async fn pages(
    app: Arc<App>,
    handle: Handle<Raw>,
    (mut page, mut reserved): (Entries<Raw>, Reserved),
    end: u64,
    sink: Sink,
) {
    while let Some(last) = page.entries.last().map(|entry| entry.index) {
        if !sink.put(&page.entries).await || last + 1 >= end {
            return;
        }
        // Given back before more is asked for: those who hold something never wait for each other.
        drop((std::mem::take(&mut page.entries), reserved));
        let bytes = app.answer_bytes(last + 1, end);
        reserved = tokio::select! {
            reserved = app.admission.answers.reserve(bytes) => reserved,
            () = sink.closed() => return,
        };
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
        reserved.shrink(bytes_of(&page));
    }
}

/// Reserves what the first page of a range may take, in turn, and does not wait for ever.
async fn reserve(app: &App, from: u64, to: u64) -> Result<Reserved, Refusal> {
    let reserved = timeout(
        ADMISSION,
        app.admission.answers.reserve(app.answer_bytes(from, to)),
    )
    .await;
    reserved.map_err(|_| {
        let detail = "too many bytes of answers wait for their clients (`http_answers_bytes_max`)";
        Refusal::new(Code::Overloaded, detail).again()
    })
}

/// What a page holds.
fn bytes_of(page: &Entries<Raw>) -> usize {
    page.entries.iter().map(|entry| entry.value.0.len()).sum()
}
