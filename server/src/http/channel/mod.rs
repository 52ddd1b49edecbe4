//! `GET /v1/channel`: a connection that carries many requests at once, as frames both ways, after an HTTP upgrade.
//!
//! What a request of its own costs over HTTP/1.1 (a connection for each that is under way, a head both ways, a system call
//! each) is paid once for all that come together.

mod frame;
mod run;

use super::{App, problem::Refusal, query::Query};
use axum::{
    body::Body,
    extract::{RawQuery, Request, State},
    http::{
        HeaderName, StatusCode,
        header::{CONNECTION, UPGRADE},
    },
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use kontiki::Code;
use run::Channel;
use std::sync::Arc;

/// What `Upgrade` names.
const PROTOCOL: &str = "kontiki";

/// Answers 101 and goes on in frames.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let within = Query::parse(query.as_deref(), &["timeout"])?.timeout()?;
    if !names(&request, &UPGRADE, PROTOCOL) || !names(&request, &CONNECTION, "upgrade") {
        let refusal = Refusal::new(Code::BadRequest, "this is asked for with an upgrade to frames");
        return Err(refusal.advise("send `Connection: upgrade` and `Upgrade: kontiki`; see docs/HTTP.md"));
    }
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let stop = app.channels.subscribe();
        match upgraded.await {
            Ok(stream) => Channel::new(TokioIo::new(stream), app, within, stop).run().await,
            Err(error) => tracing::debug!(%error, "a channel was not opened"),
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}

/// Whether a header, a list of words, has this one.
fn names(request: &Request, header: &HeaderName, word: &str) -> bool {
    let values = request.headers().get_all(header).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|given| given.trim().eq_ignore_ascii_case(word))
}
