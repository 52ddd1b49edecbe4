//! `POST /v1/entries`: append the entries of the body, all or none.

use super::{
    App,
    media::Given,
    problem::{Json, Refusal},
    query::Query,
    session,
};
use crate::{
    admission::{ADMISSION, Admission, Reserved},
    api::Appended,
};
use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::HeaderMap,
};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use kontiki::{Code, Expect, SessionKey};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// What a body may take beyond the entries in it: JSON escapes and base64 at most double most texts.
const BODY_FACTOR: usize = 2;
const BODY_SLACK: usize = 64 << 10;

/// A body up to this size is read without a reservation: small appends never wait for large ones. A connection has one body.
const BODY_FREE_BYTES: usize = 64 << 10;
/// A body that does not say how long it is reserves so many bytes at a time.
const BODY_STEP_BYTES: usize = 64 << 10;

/// How long the rest of a body that is not read is waited for.
const DISCARD: Duration = Duration::from_secs(5);

pub(super) async fn append(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Appended>, Refusal> {
    let query = Query::parse(query.as_deref(), &["expect_index", "expect_term", "timeout"])?;
    let (expect, within) = (query.expect()?, query.timeout()?);
    let key = session::key(&headers)?;
    let appended = append_body(&app, (expect, within), &headers, key, body).await;
    let appended = appended.map_err(|refusal| match key {
        Some(_) => refusal.keyed(),
        None => refusal,
    })?;
    Ok(Json(Appended {
        first: appended.first,
        last: appended.last,
        term: appended.term,
    }))
}

async fn append_body(
    app: &App,
    (expect, within): (Expect, Option<Duration>),
    headers: &HeaderMap,
    key: Option<SessionKey>,
    body: Body,
) -> Result<kontiki::Appended, Refusal> {
    let given = Given::of(headers)?;
    let limit = app
        .batch_bytes_max
        .saturating_mul(BODY_FACTOR)
        .saturating_add(BODY_SLACK);
    // What is reserved stays so until the append has its answer: until then the node has the bytes.
    let (body, _reserved) = read(&app.admission, body, limit).await?;
    let entries = given.entries(body)?;
    let handle = app.within(within);
    Ok(match key {
        // In the node's own session, if it has one.
        None => handle.append_if(expect, &entries).await?,
        Some(key) => handle.append_in(key, expect, &entries).await?,
    })
}

/// Reads a body of at most `limit` bytes, which are reserved before they are read.
async fn read(
    admission: &Admission,
    mut body: Body,
    limit: usize,
) -> Result<(Bytes, Option<Reserved>), Refusal> {
    let whole = async {
        let said = body.size_hint().upper();
        let said = said.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if said.is_some_and(|bytes| bytes > limit) {
            return Err(too_large(limit));
        }
        let mut reserved = match said {
            Some(bytes) if bytes > BODY_FREE_BYTES => Some(reserve(admission, bytes).await?),
            _ => None,
        };
        let bytes = collect(admission, &mut body, limit, said, &mut reserved).await?;
        Ok((bytes, reserved))
    };
    let read = timeout(admission.body_timeout, whole).await;
    let read = read.unwrap_or_else(|_| Err(too_slow(admission.body_timeout)));
    if read.as_ref().is_err_and(Refusal::is_for_the_body) {
        // If it goes on for too long, the client has to do without the answer.
        let _ = timeout(DISCARD, discard(body)).await;
    }
    read
}

/// Waits for so many bytes, in turn, and not for ever.
async fn reserve(admission: &Admission, bytes: usize) -> Result<Reserved, Refusal> {
    let reserved = timeout(ADMISSION, admission.requests.reserve(bytes)).await;
    reserved.map_err(|_| no_room())
}

/// Reads what comes. Of a body that does not say how long it is, each piece is reserved as it comes.
async fn collect(
    admission: &Admission,
    body: &mut Body,
    limit: usize,
    said: Option<usize>,
    reserved: &mut Option<Reserved>,
) -> Result<Bytes, Refusal> {
    let mut free = match reserved {
        Some(_) => limit,
        None => BODY_FREE_BYTES,
    };
    // Of a body that says how long it is, all is reserved; then nothing is copied as it grows.
    let mut bytes = BytesMut::with_capacity(said.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let broken = |error| Refusal::new(Code::BadRequest, format!("the body broke off: {error}"));
        let Ok(piece) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if bytes.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        if bytes.len() + piece.len() > free {
            // Those who hold a part do not wait for each other.
            let more = admission.requests.try_reserve(piece.len().max(BODY_STEP_BYTES));
            let more = more.ok_or_else(no_room)?;
            free += piece.len().max(BODY_STEP_BYTES);
            match reserved {
                Some(reserved) => reserved.add(more),
                None => *reserved = Some(more),
            }
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

fn too_large(limit: usize) -> Refusal {
    let detail = format!("the body is larger than {limit} bytes");
    Refusal::new(Code::TooLarge, detail).advise("append in smaller batches")
}

fn too_slow(within: Duration) -> Refusal {
    let detail = format!("the body did not come whole within {within:?} (`http_body_timeout`)");
    Refusal::new(Code::RequestTimeout, detail)
}

fn no_room() -> Refusal {
    let detail = "too many bytes of requests are under way (`http_requests_bytes_max`)";
    Refusal::new(Code::Overloaded, detail).again()
}

/// Takes a body without keeping it: a client that is still sending hears no answer if the connection is closed on it,
/// and then does not know that nothing was appended.
async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
