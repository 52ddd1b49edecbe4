//! `POST /v1/entries`: append the entries of the body, all or none.

use super::{
    App,
    media::Given,
    problem::{Json, Refusal},
    query::Query,
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
use std::sync::Arc;

/// What a body may take beyond the entries in it: JSON escapes and base64 at most double most texts.
const BODY_FACTOR: usize = 2;
const BODY_SLACK: usize = 64 << 10;

pub(super) async fn append(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Appended>, Refusal> {
    let query = Query::parse(query.as_deref(), &["expect_index", "expect_term", "timeout"])?;
    let (expect, timeout) = (query.expect()?, query.timeout()?);
    let given = Given::of(&headers)?;
    let limit = app
        .batch_bytes_max
        .saturating_mul(BODY_FACTOR)
        .saturating_add(BODY_SLACK);
    let entries = given.entries(read(body, limit).await?)?;
    let handle = timeout.map_or_else(|| app.handle.clone(), |timeout| app.handle.with_timeout(timeout));
    let appended = handle.append_if(expect, &entries).await?;
    Ok(Json(Appended {
        first: appended.first,
        last: appended.last,
        term: appended.term,
    }))
}

/// Reads a body of at most `limit` bytes.
async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {limit} bytes");
            Err(Refusal::new(Code::TooLarge, detail).advise("append in smaller batches"))
        }
        Err(error) => Err(Refusal::new(
            Code::BadRequest,
            format!("the body broke off: {error}"),
        )),
    }
}
