//! `POST /v1/entries`: append the entries of the body, all or none.

use super::{
    App,
    media::Given,
    problem::{Json, Refusal},
    query::Query,
    session,
};
use crate::api::Appended;
use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::HeaderMap,
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kontiki::Code;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// What a body may take beyond the entries in it: JSON escapes and base64 at most double most texts.
const BODY_FACTOR: usize = 2;
const BODY_SLACK: usize = 64 << 10;

/// How long the rest of a body that is too large is waited for.
const DISCARD: Duration = Duration::from_secs(5);

pub(super) async fn append(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Appended>, Refusal> {
    let query = Query::parse(query.as_deref(), &["expect_index", "expect_term", "timeout"])?;
    let (expect, within) = (query.expect()?, query.timeout()?);
    let (given, key) = (Given::of(&headers)?, session::key(&headers)?);
    let limit = app
        .batch_bytes_max
        .saturating_mul(BODY_FACTOR)
        .saturating_add(BODY_SLACK);
    let entries = given.entries(read(body, limit).await?)?;
    let handle = app.within(within);
    let appended = match key {
        // In the node's own session, if it has one.
        None => handle.append_if(expect, &entries).await?,
        Some(key) => {
            let appended = handle.append_in(key, expect, &entries).await;
            appended.map_err(|error| Refusal::from(error).keyed())?
        }
    };
    Ok(Json(Appended {
        first: appended.first,
        last: appended.last,
        term: appended.term,
    }))
}

/// Reads a body of at most `limit` bytes.
async fn read(mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(&mut body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            // If it goes on for too long, the client has to do without the answer.
            let _ = timeout(DISCARD, discard(body)).await;
            let detail = format!("the body is larger than {limit} bytes");
            Err(Refusal::new(Code::TooLarge, detail).advise("append in smaller batches"))
        }
        Err(error) => Err(Refusal::new(
            Code::BadRequest,
            format!("the body broke off: {error}"),
        )),
    }
}

/// Takes a body without keeping it: a client that is still sending hears no answer if the connection is closed on it,
/// and then does not know that nothing was appended.
async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
