//! HTTP: what `serve` answers. The interface is described in `docs/HTTP.md`.
//!
//! Every handler is a thin layer over [`Handle`]; nothing is decided here.

mod append;
mod channel;
mod entries;
mod guard;
mod media;
mod problem;
mod query;
mod session;
mod stream;
mod tail;

pub(crate) use media::{JSON, NDJSON, OCTETS};
pub(crate) use session::{KEY, SETTLED};

use crate::{admission::Admission, api::NodeStatus};
use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::{HeaderName, StatusCode, Uri, header::CONNECTION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kontiki::{Code, Handle, Raw};
use problem::{Json, Refusal};
use query::Query;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The header of a read that names the first entry it gives, or would give if there were one.
pub(crate) const FIRST_INDEX: HeaderName = HeaderName::from_static("kontiki-first-index");

/// The header of a read that names the end of the log it saw.
pub(crate) const LAST_INDEX: HeaderName = HeaderName::from_static("kontiki-last-index");

/// What the handlers share.
pub(crate) struct App {
    /// The node.
    pub(crate) handle: Handle<Raw>,
    /// Where HTTP is served, as the configuration names it: `host:port`.
    pub(crate) http: String,
    /// Largest batch of entries, for bounding request bodies.
    pub(crate) batch_bytes_max: usize,
    /// Largest entry, and most bytes of entries that one read gives, for bounding answers.
    pub(crate) entry_bytes_max: usize,
    pub(crate) read_bytes_max: usize,
    /// Set once the process is to stop.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Told to all channels when they are to take in no more; each listens while it lives.
    pub(crate) channels: watch::Sender<bool>,
    /// What clients may hold.
    pub(crate) admission: Arc<Admission>,
}

impl App {
    /// The node, and how long a call may take if that is said.
    fn within(&self, within: Option<Duration>) -> Handle<Raw> {
        within.map_or_else(|| self.handle.clone(), |within| self.handle.with_timeout(within))
    }
}

impl App {
    /// How many bytes of entries a read of this range may give: at least one entry, whatever the limit of a read is.
    fn answer_bytes(&self, from: u64, to: u64) -> usize {
        let entries = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let most = self.read_bytes_max.max(self.entry_bytes_max);
        entries.saturating_mul(self.entry_bytes_max).min(most)
    }
}

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let app = Arc::new(app);
    Router::new()
        .route("/v1/entries", get(entries::read).post(append::append))
        .route("/v1/sessions", post(session::open))
        .route("/v1/tail", get(tail::tail))
        .route("/v1/channel", get(channel::open))
        .route("/v1/status", get(status))
        .route("/healthz", get(health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), turn_away))
        .layer(middleware::from_fn_with_state(app.clone(), guard::same_origin))
        .with_state(app)
}

/// Refuses what comes when the process is about to stop. To a client that is busy, a connection that closes just when it
/// sends would leave open what became of its append; a refusal sends it to another node.
async fn turn_away(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !app.stopping.load(Ordering::Relaxed) {
        return next.run(request).await;
    }
    let refusal: Refusal = kontiki::Error::Stopped("it is being shut down".into()).into();
    let refusal = match request.headers().contains_key(KEY) {
        true => refusal.keyed(),
        false => refusal,
    };
    ([(CONNECTION, "close")], refusal).into_response()
}

async fn status(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<NodeStatus>, Refusal> {
    only_timeout(query.as_deref())?;
    Ok(Json(NodeStatus {
        http: Some(app.admission.status()),
        ..app.handle.status().into()
    }))
}

/// What is answered at once takes a timeout like everything else, and no other parameter.
fn only_timeout(query: Option<&str>) -> Result<(), Refusal> {
    Query::parse(query, &["timeout"])?.timeout().map(drop)
}

/// Whether the process lives and its node has not stopped itself; says nothing about the rest of the cluster.
async fn health(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    only_timeout(query.as_deref())?;
    Ok(match app.handle.status().stopped {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {why}\n")).into_response(),
    })
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
