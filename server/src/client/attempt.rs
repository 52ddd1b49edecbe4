//! Attempts at endpoints: one, or several beside each other of which the first answer counts.

use super::{Answer, Call, CallError, connection::Connection, endpoint::Endpoint};
use http_body_util::BodyExt;
use std::{panic::resume_unwind, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// How long an endpoint has to answer before the next is asked as well, where that is wanted.
const HEDGE: Duration = Duration::from_millis(200);

/// The client waits so much longer than it tells the node to, so that the node's answer, which knows more, wins.
const GRACE: Duration = Duration::from_millis(500);

/// An answer, and the connection that can take the next request.
pub(super) type Answered = (Answer, Connection);

/// Asks one endpoint, over `connection` if that still lives.
pub(super) async fn attempt(
    endpoint: Endpoint,
    connection: Option<Connection>,
    call: Call,
    budget: Duration,
) -> Result<Answered, CallError> {
    let request = call.request(&endpoint, budget)?;
    let connecting = timeout_at(Instant::now() + budget, connected(&endpoint, connection));
    let mut connection = connecting
        .await
        .unwrap_or_else(|_| Err(CallError::unreachable(&endpoint, &"no connection in time")))?;
    // The time for the answer counts from here: connecting must not turn into an unknown outcome.
    let answer = timeout(budget + GRACE, connection.send(&endpoint, request)).await;
    let answer = answer.unwrap_or_else(|_| Err(CallError::unknown(&endpoint, &"no answer in time")))?;
    match answer.status().is_success() {
        true => Ok((answer, connection)),
        false => Err(refusal(&endpoint, answer, budget).await),
    }
}

/// A connection that can take a request: the one at hand if it still lives.
async fn connected(endpoint: &Endpoint, at_hand: Option<Connection>) -> Result<Connection, CallError> {
    if let Some(mut connection) = at_hand
        && connection.ready(endpoint).await.is_ok()
    {
        return Ok(connection);
    }
    let mut connection = Connection::open(endpoint).await?;
    connection.ready(endpoint).await?;
    Ok(connection)
}

async fn refusal(endpoint: &Endpoint, answer: Answer, budget: Duration) -> CallError {
    let status = answer.status().as_u16();
    let body = timeout(budget + GRACE, answer.into_body().collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    CallError::refused(endpoint, status, &body)
}

/// Attempts under way, by the number of their endpoint.
#[derive(Default)]
pub(super) struct Attempts {
    under_way: JoinSet<(usize, Result<Answered, CallError>)>,
    /// When the next endpoint is asked although none of these has ended.
    hedge: Option<Instant>,
}

impl Attempts {
    /// Begins one. If it is `hedged`, it does not keep the next from beginning for long.
    pub(super) fn begin(
        &mut self,
        at: usize,
        hedged: bool,
        attempt: impl Future<Output = Result<Answered, CallError>> + Send + 'static,
    ) {
        self.hedge = hedged.then(|| Instant::now() + HEDGE);
        self.under_way.spawn(async move { (at, attempt.await) });
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next that ends; `None` if another may begin, because none is under way or it takes too long.
    pub(super) async fn next(&mut self) -> Option<(usize, Result<Answered, CallError>)> {
        let hedge = self.hedge;
        let late = async {
            match hedge {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = self.under_way.join_next() => match ended? {
                Ok(ended) => Some(ended),
                // None is cancelled before it is dropped with all others.
                Err(panicked) => resume_unwind(panicked.into_panic()),
            },
            () = late => {
                self.hedge = None;
                None
            }
        }
    }
}
