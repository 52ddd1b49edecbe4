//! The HTTP client of the commands: asks one endpoint after the other, and knows when that is safe.
//!
//! Invariants: a request is sent to another endpoint only if the one before certainly had no effect, or if asking twice
//! does no harm (reads, and appends that have a key); what an attempt leaves in doubt stays in doubt, whatever a later one is
//! told. One connection is kept and used again. An endpoint that has not answered yet may hang, or be cut off from its cluster: it is
//! asked for its status before anything else, and the next one soon as well. So only that question is ever asked twice for
//! nothing, however busy the nodes are.

mod attempt;
mod connection;
mod endpoint;
mod error;

pub(crate) use endpoint::Endpoint;
pub(crate) use error::CallError;

use crate::{
    api::{NodeStatus, Outcome},
    http,
};
use attempt::{Attempts, attempt};
use bytes::Bytes;
use connection::Connection;
use error::Refusals;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use kontiki::Code;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// An answer's head and body.
pub(crate) type Answer = Response<Incoming>;

/// How long to wait after every endpoint was tried in vain.
const PAUSE: Duration = Duration::from_millis(100);

/// An attempt gets at least this long, even if the other endpoints then get less.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The method.
    pub(crate) method: Method,
    /// Path and query; `timeout` is added.
    pub(crate) target: String,
    /// Media type of `body`.
    pub(crate) content_type: &'static str,
    /// Media type wanted.
    pub(crate) accept: &'static str,
    /// The body.
    pub(crate) body: Bytes,
    /// Whether asking twice does no harm.
    pub(crate) repeatable: bool,
    /// Which append of which session it is, if it is one.
    pub(crate) key: Option<Key>,
}

/// An append of a session: it takes effect once, however often it is sent. Those before it are no longer asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// The session.
    pub(crate) session: String,
    /// Its number there.
    pub(crate) sequence: u64,
}

impl Call {
    /// A `GET`.
    pub(crate) fn get(target: String, accept: &'static str) -> Self {
        let content_type = "";
        Self {
            method: Method::GET,
            target,
            content_type,
            accept,
            body: Bytes::new(),
            repeatable: true,
            key: None,
        }
    }

    /// Opens a session. One that nobody heard of is forgotten after some time.
    pub(crate) fn open_session() -> Self {
        Self {
            method: Method::POST,
            ..Self::get("/v1/sessions".into(), http::JSON)
        }
    }

    /// An append of framed entries.
    pub(crate) fn append(body: Bytes) -> Self {
        Self {
            method: Method::POST,
            target: "/v1/entries".into(),
            content_type: http::OCTETS,
            accept: http::JSON,
            body,
            repeatable: false,
            key: None,
        }
    }

    /// The same as an append of a session.
    pub(crate) fn keyed(self, key: Key) -> Self {
        Self {
            repeatable: true,
            key: Some(key),
            ..self
        }
    }

    /// Whether to ask again after this.
    fn may_follow(&self, error: &CallError) -> bool {
        match self.repeatable {
            true => error.retryable || error.failure.code == Code::UnknownOutcome,
            false => error.retryable && error.outcome == Outcome::NotApplied,
        }
    }

    /// What became of an append that failed like this at last, if an attempt before may have taken effect, or none.
    fn told(&self, error: CallError, doubt: bool) -> CallError {
        let outcome = match error.failure.code {
            _ if self.key.is_some() && doubt => Outcome::Unknown,
            // What a session has forgotten can only have been an attempt before.
            Code::SessionExpired if self.key.is_some() => Outcome::NotApplied,
            _ => error.outcome,
        };
        CallError { outcome, ..error }
    }

    fn request(&self, endpoint: &Endpoint, budget: Duration) -> Result<Request<Full<Bytes>>, CallError> {
        let glue = if self.target.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}{glue}timeout={}ms", self.target, budget.as_millis()))
            .header(HOST, &endpoint.authority)
            .header(ACCEPT, self.accept);
        if !self.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        if let Some(Key { session, sequence }) = &self.key {
            request = request
                .header(http::KEY, format!("{session}:{sequence}"))
                .header(http::SETTLED, *sequence);
        }
        let body = Full::new(self.body.clone());
        request
            .body(body)
            .map_err(|error| CallError::unreachable(endpoint, &error))
    }
}

/// Asks endpoints in turn.
pub(crate) struct Client {
    endpoints: Vec<Endpoint>,
    at: usize,
    connection: Option<Connection>,
}

impl Client {
    /// A client that begins with the first endpoint.
    pub(crate) fn new(endpoints: &[Endpoint]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            at: 0,
            connection: None,
        }
    }

    /// The endpoint in use.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at]
    }

    /// Asks until an endpoint answers, the answer is final, or `within` is over.
    pub(crate) async fn call(&mut self, call: &Call, within: Duration) -> Result<Answer, CallError> {
        self.call_until(call, Instant::now() + within, &mut false).await
    }

    /// The same until a moment; `doubt` says whether an attempt before may have had an effect, and whether one has now.
    async fn call_until(
        &mut self,
        call: &Call,
        deadline: Instant,
        doubt: &mut bool,
    ) -> Result<Answer, CallError> {
        if self.connection.is_none() && self.has_others() {
            self.turn_to_a_sound_one(deadline).await;
        }
        let mut refusals = Refusals::default();
        loop {
            let round = self.round(call, false, deadline, doubt, &mut refusals);
            if let Some(result) = round.await {
                return result;
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(call.told(refusals.summary(), *doubt));
            }
            sleep(PAUSE).await;
        }
    }

    /// Turns to the next endpoint that answers and whose node knows a leader; to one that answers, if there is none. If none
    /// answers, the call finds out why.
    async fn turn_to_a_sound_one(&mut self, deadline: Instant) {
        let call = Call::get("/v1/status".into(), http::JSON);
        for _ in 0..self.endpoints.len() {
            let (mut doubt, mut refusals) = (false, Refusals::default());
            let round = self.round(&call, true, deadline, &mut doubt, &mut refusals);
            let Some(Ok(answer)) = round.await else { return };
            let left = deadline.saturating_duration_since(Instant::now());
            match document::<NodeStatus>(self.endpoint(), answer, left).await {
                Ok(status) if status.leader.is_none() => self.next_endpoint(),
                _ => return,
            }
        }
    }

    /// Asks each endpoint once, beginning with the one in use. `None` if none of them has a final answer. If it is `hedged`, the
    /// next one is asked as well while one does not answer.
    async fn round(
        &mut self,
        call: &Call,
        hedged: bool,
        deadline: Instant,
        doubt: &mut bool,
        refusals: &mut Refusals,
    ) -> Option<Result<Answer, CallError>> {
        let (first, count) = (self.at, self.endpoints.len());
        let mut attempts = Attempts::default();
        let mut begun = 0;
        loop {
            if begun < count && (begun == 0 || Instant::now() + PAUSE < deadline) {
                let at = (first + begun) % count;
                let (endpoint, budget) = (self.endpoints[at].clone(), share(deadline, count - begun));
                begun += 1;
                let connection = self.connection.take();
                let attempt = attempt(endpoint, connection, call.clone(), budget);
                attempts.begin(at, hedged && begun < count, attempt);
            }
            let (at, error) = match attempts.next().await {
                None if attempts.is_empty() => return None,
                None => continue,
                Some((at, Ok((answer, connection)))) => {
                    (self.at, self.connection) = (at, Some(connection));
                    return Some(Ok(answer));
                }
                Some((at, Err(error))) => (at, error),
            };
            *doubt |= error.outcome == Outcome::Unknown && call.may_follow(&error);
            if !call.may_follow(&error) {
                self.at = at;
                self.next_endpoint();
                return Some(Err(call.told(error, *doubt || !attempts.is_empty())));
            }
            refusals.add(at, error);
        }
    }

    /// The same, for an answer that is one JSON document.
    pub(crate) async fn call_json<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        within: Duration,
    ) -> Result<T, CallError> {
        let (deadline, mut doubt) = (Instant::now() + within, false);
        loop {
            let answer = self.call_until(call, deadline, &mut doubt).await?;
            match document(self.endpoint(), answer, within).await {
                Err(_) if call.key.is_some() && Instant::now() + PAUSE < deadline => doubt = true,
                result => return result,
            }
            self.next_endpoint();
        }
    }

    /// Asks the endpoint in use, once, for one JSON document.
    pub(crate) async fn once_json<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        within: Duration,
    ) -> Result<T, CallError> {
        let endpoint = self.endpoint().clone();
        let (answer, connection) = attempt(endpoint, self.connection.take(), call.clone(), within).await?;
        self.connection = Some(connection);
        document(self.endpoint(), answer, within).await
    }

    /// Whether there is another endpoint than the one in use.
    pub(crate) fn has_others(&self) -> bool {
        self.endpoints.len() > 1
    }

    /// Leaves the endpoint in use, as after an answer that broke off.
    pub(crate) fn next_endpoint(&mut self) {
        self.at = (self.at + 1) % self.endpoints.len();
        self.connection = None;
    }
}

/// How long an attempt may take when so many endpoints, this one counted, are still to be tried.
fn share(deadline: Instant, untried: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    let share = left / u32::try_from(untried).unwrap_or(u32::MAX);
    share.max(ATTEMPT_MIN).min(left)
}

/// Reads an answer that is one JSON document.
async fn document<T: DeserializeOwned>(
    endpoint: &Endpoint,
    answer: Answer,
    within: Duration,
) -> Result<T, CallError> {
    let body = match timeout(within, answer.into_body().collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(CallError::unknown(endpoint, &error)),
        Err(_) => return Err(CallError::unknown(endpoint, &"its answer stopped half way")),
    };
    serde_json::from_slice(&body).map_err(|error| CallError::unknown(endpoint, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Problem;

    #[test]
    fn an_attempt_gets_its_share_of_the_time() {
        let deadline = Instant::now() + Duration::from_secs(30);
        let near = |share: Duration, seconds: u64| {
            share.abs_diff(Duration::from_secs(seconds)) < Duration::from_secs(1)
        };
        assert!(near(share(deadline, 3), 10));
        assert!(near(share(deadline, 1), 30));
        assert_eq!(share(Instant::now() - Duration::from_secs(1), 2), Duration::ZERO);
    }

    #[test]
    fn only_what_has_a_key_is_sent_again_after_an_unknown_outcome_and_stays_in_doubt() {
        let endpoint: Endpoint = "http://127.0.0.1:1".parse().unwrap();
        let refused = |code, outcome| {
            let problem = Problem {
                outcome,
                ..Problem::refused(code, "x")
            };
            CallError::refused(&endpoint, 500, &serde_json::to_vec(&problem).unwrap())
        };
        let plain = Call::append(Bytes::new());
        let key = Key {
            session: "7".into(),
            sequence: 1,
        };
        let keyed = plain.clone().keyed(key);
        let unknown = refused(Code::UnknownOutcome, Outcome::Unknown);
        assert!(keyed.may_follow(&unknown) && !plain.may_follow(&unknown));
        assert!(Call::open_session().may_follow(&unknown));
        let broken = CallError::unknown(&endpoint, &"broken");
        assert!(keyed.may_follow(&broken) && !plain.may_follow(&broken));
        let expired = refused(Code::SessionExpired, Outcome::Unknown);
        assert!(!keyed.may_follow(&expired));
        let outcome = |doubt| keyed.told(expired.clone(), doubt).outcome;
        assert_eq!(
            (outcome(false), outcome(true)),
            (Outcome::NotApplied, Outcome::Unknown)
        );
        let nobody = CallError::unreachable(&endpoint, &"refused");
        assert_eq!(keyed.told(nobody.clone(), true).outcome, Outcome::Unknown);
        assert_eq!(keyed.told(nobody, false).outcome, Outcome::NotApplied);
    }
}
