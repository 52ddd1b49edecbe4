//! Answers that are one JSON document; errors as `application/problem+json`.

use super::JSON;
use crate::api::{Outcome, Problem};
use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use kontiki::Code;
use serde::Serialize;

/// After so long a client may ask again where too much is under way.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A request that is answered with a problem.
#[derive(Debug)]
pub(super) struct Refusal(Box<Problem>);

impl Refusal {
    /// A request that was refused before it reached the log.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::refused(code, detail)))
    }

    /// The same, saying what to do next.
    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self(Box::new(self.0.advise(advice)))
    }
}

impl Refusal {
    /// The same, for an append that has a key. Its outcome is that of the key: an attempt before, here or at another node, may
    /// have taken effect, whatever this one came to. Only a leader that has looked the key up knows better, and that is
    /// who says that the log does not end as expected. Asking again does no harm.
    pub(super) fn keyed(mut self) -> Self {
        if self.0.code == Code::UnknownOutcome.name() {
            self.0.retryable = true;
            self.0.advice = Some("send it again under the same key, here or to another node".to_owned());
        }
        if self.0.outcome == Outcome::NotApplied && self.0.code != Code::Mismatch.name() {
            self.0.outcome = Outcome::Unknown;
            self.0.attempt = Some(Outcome::NotApplied);
        }
        self
    }
}

impl Refusal {
    /// The same, saying that it may succeed later.
    pub(super) fn again(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Whether a body was refused before all of it was read.
    pub(super) fn is_for_the_body(&self) -> bool {
        [Code::TooLarge, Code::Overloaded]
            .iter()
            .any(|code| self.0.code == code.name())
    }
}

impl Refusal {
    /// The same, saying where in what was sent.
    pub(super) fn at(&self, place: &str) -> Self {
        let mut problem = self.0.clone();
        problem.detail = format!("{place}: {}", problem.detail);
        Self(problem)
    }

    /// The problem as JSON.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
}

impl From<kontiki::Error> for Refusal {
    fn from(error: kontiki::Error) -> Self {
        Self(Box::new(error.into()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, document("application/problem+json", &self.0)).into_response();
        if self.0.code == Code::Overloaded.name() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// An answer that is one JSON document.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        document(JSON, &self.0).into_response()
    }
}

/// The types that are written here have only texts as keys, and no others fail to be written.
fn document(media_type: &'static str, value: &impl Serialize) -> ([(HeaderName, &'static str); 1], Vec<u8>) {
    let body = serde_json::to_vec(value).unwrap_or_default();
    ([(CONTENT_TYPE, media_type)], body)
}
