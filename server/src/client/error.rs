//! How a call fails, and what that means for an append.

use super::Endpoint;
use crate::{
    api::{Outcome, Problem},
    failure::Failure,
};
use kontiki::Code;
use std::collections::BTreeMap;

/// Why a call failed, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    /// What became of an append.
    pub(crate) outcome: Outcome,
    /// Whether asking again, here or elsewhere, makes sense.
    pub(crate) retryable: bool,
    /// What to say.
    pub(crate) failure: Failure,
}

impl CallError {
    /// Nothing was sent anywhere, and trying again would not change that.
    pub(crate) fn not_applied(failure: Failure) -> Self {
        Self {
            outcome: Outcome::NotApplied,
            retryable: false,
            failure,
        }
    }

    /// Nothing reached the endpoint.
    pub(crate) fn unreachable(endpoint: &Endpoint, why: &dyn std::fmt::Display) -> Self {
        let failure = Failure::new(Code::Unreachable, format!("cannot reach {endpoint}: {why}"));
        Self {
            outcome: Outcome::NotApplied,
            retryable: true,
            failure,
        }
    }

    /// Something may have reached the endpoint, and nothing was heard.
    pub(super) fn unknown(endpoint: &Endpoint, why: &dyn std::fmt::Display) -> Self {
        let text = format!("{endpoint} did not answer: {why}");
        Self {
            outcome: Outcome::Unknown,
            retryable: true,
            failure: Failure::new(Code::UnknownOutcome, text),
        }
    }

    /// The failure of an append: that its outcome is unknown weighs more than why.
    pub(crate) fn into_append_failure(self) -> Failure {
        match self.outcome {
            Outcome::NotApplied => self.failure,
            Outcome::Unknown => Failure {
                code: Code::UnknownOutcome,
                advice: Some(
                    "the entries may have been appended; read the end of the log before trying again".into(),
                ),
                ..self.failure
            },
        }
    }

    /// From an answer that is not a success.
    pub(super) fn refused(endpoint: &Endpoint, status: u16, body: &[u8]) -> Self {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return Self::unknown(
                endpoint,
                &format!("HTTP status {status}, and no word from a node"),
            );
        };
        let code = Code::from_name(&problem.code).unwrap_or(Code::Io);
        let text = format!("{} ({endpoint}, {})", problem.detail, problem.code);
        let failure = Failure {
            code,
            text,
            advice: problem.advice,
        };
        Self {
            // Which attempts there were this client knows itself.
            outcome: problem.attempt.unwrap_or(problem.outcome),
            retryable: problem.retryable,
            failure,
        }
    }
}

impl From<kontiki::Error> for CallError {
    fn from(error: kontiki::Error) -> Self {
        Self {
            outcome: error.outcome().into(),
            retryable: error.is_retryable(),
            failure: error.into(),
        }
    }
}

/// What each endpoint last said against a request that was tried at all of them.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<usize, CallError>);

impl Refusals {
    /// This is what an endpoint said.
    pub(super) fn add(&mut self, endpoint: usize, error: CallError) {
        self.0.insert(endpoint, error);
    }

    /// What to tell: the word of a node, if one was reached; otherwise that none was, and why.
    pub(super) fn summary(self) -> CallError {
        let (unreached, mut answered): (Vec<_>, Vec<_>) = self
            .0
            .into_values()
            .partition(|error| error.failure.code == Code::Unreachable);
        if let Some(error) = answered.pop() {
            return error;
        }
        let texts: Vec<String> = unreached.into_iter().map(|error| error.failure.text).collect();
        let failure = Failure::new(Code::Unreachable, texts.join("\n  ")).advise("are the nodes running?");
        CallError {
            outcome: Outcome::NotApplied,
            retryable: true,
            failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_word_from_a_node_leaves_the_outcome_open() {
        let endpoint: Endpoint = "http://127.0.0.1:1".parse().unwrap();
        let error = CallError::refused(&endpoint, 502, b"<html>");
        assert_eq!(
            (error.outcome, error.failure.code),
            (Outcome::Unknown, Code::UnknownOutcome)
        );
    }

    #[test]
    fn an_answer_of_a_node_says_what_became_of_the_append() {
        let endpoint: Endpoint = "http://127.0.0.1:1".parse().unwrap();
        let problem = Problem::refused(Code::TooLarge, "too much").advise("append less");
        let error = CallError::refused(&endpoint, 413, &serde_json::to_vec(&problem).unwrap());
        assert_eq!((error.outcome, error.retryable), (Outcome::NotApplied, false));
        assert_eq!(error.failure.code, Code::TooLarge);
        assert_eq!(error.failure.advice.as_deref(), Some("append less"));
    }

    #[test]
    fn the_word_of_a_node_counts_more_than_that_others_are_out_of_reach() {
        let endpoint: Endpoint = "http://127.0.0.1:1".parse().unwrap();
        let mut refusals = Refusals::default();
        refusals.add(
            0,
            CallError::refused(
                &endpoint,
                503,
                &serde_json::to_vec(&Problem::refused(Code::Timeout, "slow")).unwrap(),
            ),
        );
        refusals.add(1, CallError::unreachable(&endpoint, &"refused"));
        assert_eq!(refusals.summary().failure.code, Code::Timeout);
    }

    #[test]
    fn every_endpoint_out_of_reach_is_named_once() {
        let mut refusals = Refusals::default();
        for port in [1, 2, 1] {
            let endpoint: Endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
            refusals.add(port, CallError::unreachable(&endpoint, &"refused"));
        }
        let text = refusals.summary().failure.text;
        assert_eq!(
            text,
            "cannot reach http://127.0.0.1:1: refused\n  cannot reach http://127.0.0.1:2: refused"
        );
    }
}
