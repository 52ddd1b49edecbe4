//! HTTP: what `serve` answers. The interface is described in `docs/HTTP.md`.
//!
//! Every handler is a thin layer over [`Handle`]; nothing is decided here.

mod append;
mod entries;
mod guard;
mod media;
mod problem;
mod query;
mod stream;
mod tail;

pub(crate) use media::{JSON, NDJSON, OCTETS};

use crate::api::NodeStatus;
use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use kontiki::{Code, Handle, Raw};
use problem::{Json, Refusal};
use std::sync::Arc;

/// The header of a read that names the end of the log it saw.
pub(crate) const LAST_INDEX: HeaderName = HeaderName::from_static("kontiki-last-index");

/// What the handlers share.
pub(crate) struct App {
    /// The node.
    pub(crate) handle: Handle<Raw>,
    /// Largest batch of entries, for bounding request bodies.
    pub(crate) batch_bytes_max: usize,
}

/// All routes.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/entries", get(entries::read).post(append::append))
        .route("/v1/tail", get(tail::tail))
        .route("/v1/status", get(status))
        .route("/healthz", get(health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(guard::same_origin))
        .with_state(Arc::new(app))
}

async fn status(State(app): State<Arc<App>>) -> Json<NodeStatus> {
    Json(app.handle.status().into())
}

/// Whether the process lives and its node has not stopped itself; says nothing about the rest of the cluster.
async fn health(State(app): State<Arc<App>>) -> Response {
    match app.handle.status().stopped {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {why}\n")).into_response(),
    }
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no {}", uri.path()))
        .advise("see docs/HTTP.md for what there is")
}

async fn method_not_allowed(uri: Uri) -> Refusal {
    Refusal::new(
        Code::MethodNotAllowed,
        format!("{} takes another method", uri.path()),
    )
}
