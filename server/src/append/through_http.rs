//! Appends through HTTP, to whichever endpoint answers, each batch once.
//!
//! Invariants: a number of the session is used for one batch; batches go one after the other, so that whatever was before is
//! settled.

use super::sender::Appender;
use crate::{
    api::{Appended, Outcome, Session},
    cli::AppendArgs,
    client::{Call, CallError, Client, Key},
    failure::Failure,
    http::OCTETS,
    lines::Batch,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use kontiki::Code;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Appends to whichever endpoint takes it.
pub(super) struct HttpAppender {
    client: Client,
    within: Duration,
    in_session: bool,
    /// The session, if one is open, and the number last used in it.
    key: Option<Key>,
}

impl HttpAppender {
    /// As the command line says.
    pub(super) fn new(args: &AppendArgs) -> Self {
        Self {
            client: Client::new(&args.client.endpoints),
            within: args.client.timeout(),
            in_session: !args.no_session,
            key: None,
        }
    }

    /// Appends framed entries, all or none, and at most once.
    pub(super) async fn append_body(&mut self, body: Bytes) -> Result<Appended, CallError> {
        let (call, deadline) = (Call::append(body), Instant::now() + self.within);
        if !self.in_session {
            return self.client.call_json(&call, self.within).await;
        }
        loop {
            let call = call.clone().keyed(self.next_key(left(deadline)).await?);
            match self.client.call_json(&call, left(deadline)).await {
                Err(error) if error.failure.code == Code::SessionExpired => {
                    self.key = None;
                    if error.outcome == Outcome::Unknown || left(deadline).is_zero() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// The key of the next append; opens a session if there is none.
    async fn next_key(&mut self, within: Duration) -> Result<Key, CallError> {
        let key = match self.key.take() {
            Some(key) => key,
            None => {
                let opened = self
                    .client
                    .call_json::<Session>(&Call::open_session(), within)
                    .await;
                let Session { session, .. } = opened.map_err(not_opened)?;
                Key { session, sequence: 0 }
            }
        };
        let sequence = key.sequence + 1;
        Ok(self.key.insert(Key { sequence, ..key }).clone())
    }
}

/// Whatever became of the session: nothing was appended.
fn not_opened(error: CallError) -> CallError {
    let CallError {
        failure, retryable, ..
    } = error;
    let unknown = failure.code == Code::UnknownOutcome;
    CallError {
        outcome: Outcome::NotApplied,
        retryable,
        failure: Failure {
            code: if unknown { Code::Timeout } else { failure.code },
            text: format!("no session was opened: {}", failure.text),
            advice: failure.advice.filter(|_| !unknown),
        },
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Appender for HttpAppender {
    async fn append(&mut self, batch: &Batch) -> Result<Appended, CallError> {
        self.append_body(batch.body.clone()).await
    }

    async fn settle(&mut self) -> Result<(), CallError> {
        // No entry stands there, but a majority must confirm that.
        let target = format!("/v1/entries?from={}", u64::MAX);
        let answer = self.client.call(&Call::get(target, OCTETS), self.within).await?;
        // The empty body is taken so that the connection can be used again; if it fails, another is opened.
        drop(timeout(self.within, answer.into_body().collect()).await);
        Ok(())
    }
}
