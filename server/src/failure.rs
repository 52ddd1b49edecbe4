//! Why a command ends early, and how the process says so.

use kontiki::Code;

/// What went wrong, what to do next, and the code that decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind of failure.
    pub(crate) code: Code,
    /// What went wrong, and where.
    pub(crate) text: String,
    /// What to do next.
    pub(crate) advice: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            advice: None,
        }
    }

    /// The same, saying what to do next.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// A file could not be used; `what` says what for.
    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Code::Io, format!("cannot {what} {}: {error}", path.display()))
    }
}

impl From<kontiki::Error> for Failure {
    fn from(error: kontiki::Error) -> Self {
        let advice = Some(error.advice()).filter(|advice| !advice.is_empty());
        Self {
            code: error.code(),
            text: error.to_string(),
            advice: advice.map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

/// Why a command ends before it is through.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed; this is still to be said.
    Failed(Failure),
    /// Everything was said; only the exit code is left.
    Said(Code),
    /// Whoever read standard output wants no more. Not an error.
    ReaderGone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<kontiki::Error> for Stop {
    fn from(error: kontiki::Error) -> Self {
        Self::Failed(error.into())
    }
}
