//! What became of the lines: acknowledged, unknown, or not appended.

use crate::{api::Appended, failure::Failure, output::entries};
use kontiki::Code;
use serde::{Serialize, Serializer};
use std::{fmt::Write, ops::RangeInclusive};

/// What became of the lines so far.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    /// How many were sent.
    lines: u64,
    /// How many were acknowledged.
    acknowledged: u64,
    /// Index of the first that was.
    first: Option<u64>,
    /// Index of the last that was.
    last: Option<u64>,
    /// Lines of which it is not known whether they were appended.
    unknown: Vec<Unknown>,
    /// Why it went no further.
    failed: Option<Failed>,
    /// Whether it was interrupted before the end.
    interrupted: bool,
}

/// Lines of which it is not known whether they were appended.
#[derive(Serialize)]
struct Unknown {
    first_line: u64,
    last_line: u64,
    why: String,
}

/// Why it went no further.
#[derive(Serialize)]
struct Failed {
    /// The first line that was certainly not appended; none if the input could not be read.
    line: Option<u64>,
    #[serde(serialize_with = "name")]
    code: Code,
    detail: String,
    advice: Option<String>,
}

fn name<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.name())
}

impl Report {
    /// These lines were acknowledged. They follow all lines before.
    pub(super) fn acknowledge(&mut self, lines: RangeInclusive<u64>, appended: &Appended) {
        self.lines = *lines.end();
        self.acknowledged += lines.end() - lines.start() + 1;
        self.first.get_or_insert(appended.first);
        self.last = Some(appended.last);
    }

    /// It is not known what became of these lines. They follow all lines before.
    pub(super) fn lose_sight(&mut self, lines: RangeInclusive<u64>, why: String) {
        self.lines = *lines.end();
        match self.unknown.last_mut() {
            Some(before) if before.last_line + 1 == *lines.start() => before.last_line = *lines.end(),
            _ => self.unknown.push(Unknown {
                first_line: *lines.start(),
                last_line: *lines.end(),
                why,
            }),
        }
    }

    /// It goes no further; `line` and all after it were certainly not appended.
    pub(super) fn fail(&mut self, line: Option<u64>, failure: Failure) {
        let Failure {
            code,
            text: detail,
            advice,
        } = failure;
        self.failed = Some(Failed {
            line,
            code,
            detail,
            advice,
        });
    }

    /// It was interrupted.
    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Index of the last line that was acknowledged.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.last
    }

    /// Whether it failed for good.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The code that decides how the process exits; `None` if every line was acknowledged. That something is unknown
    /// weighs more than that something is missing.
    pub(crate) fn code(&self) -> Option<Code> {
        if !self.unknown.is_empty() {
            return Some(Code::UnknownOutcome);
        }
        let failed = self.failed.as_ref().map(|failed| failed.code);
        failed.or(self.interrupted.then_some(Code::Interrupted))
    }

    /// The report in words.
    pub(crate) fn told(&self) -> String {
        let mut out = format!("{} acknowledged", entries(self.acknowledged));
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let _ = write!(out, ", first index {first}, last index {last}");
        }
        for Unknown {
            first_line,
            last_line,
            why,
        } in &self.unknown
        {
            let _ = write!(
                out,
                "\nunknown whether lines {first_line}..={last_line} were appended: {why}"
            );
        }
        if let Some(Failed {
            line, detail, advice, ..
        }) = &self.failed
        {
            let from = line
                .map(|line| format!("line {line} and all after it were not appended: "))
                .unwrap_or_default();
            let advice = advice
                .as_ref()
                .map(|advice| format!("\n  {advice}"))
                .unwrap_or_default();
            let _ = write!(out, "\n{from}{detail}{advice}");
        }
        if self.interrupted {
            let _ = write!(out, "\ninterrupted: lines after {} were not sent", self.lines);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_ranges_that_meet_become_one() {
        let mut report = Report::default();
        report.lose_sight(1..=10, "a".into());
        report.lose_sight(11..=20, "b".into());
        report.acknowledge(
            21..=25,
            &Appended {
                first: 7,
                last: 11,
                term: 1,
            },
        );
        report.lose_sight(26..=30, "c".into());
        assert_eq!(
            report.told(),
            "5 entries acknowledged, first index 7, last index 11\n\
             unknown whether lines 1..=20 were appended: a\n\
             unknown whether lines 26..=30 were appended: c"
        );
        assert_eq!(report.code(), Some(Code::UnknownOutcome));
    }

    #[test]
    fn what_is_unknown_decides_the_exit_code_before_what_failed() {
        let mut report = Report::default();
        assert_eq!(report.code(), None);
        report.interrupt();
        assert_eq!(report.code(), Some(Code::Interrupted));
        report.fail(Some(3), Failure::new(Code::TooLarge, "x"));
        assert_eq!(report.code(), Some(Code::TooLarge));
        report.lose_sight(1..=2, String::new());
        assert_eq!(report.code(), Some(Code::UnknownOutcome));
    }

    #[test]
    fn json_has_every_field() {
        let json = serde_json::to_string(&Report::default()).unwrap();
        assert_eq!(
            json,
            r#"{"lines":0,"acknowledged":0,"first":null,"last":null,"unknown":[],"failed":null,"interrupted":false}"#
        );
    }
}
