//! Sends batches of lines, one at a time.

use super::report::Report;
use crate::{
    api::{Appended, Outcome},
    client::CallError,
    failure::Failure,
    interrupts::Interrupts,
    lines::Batch,
    output::say,
};
use indicatif::{ProgressBar, ProgressStyle};
use kontiki::Code;
use std::{collections::VecDeque, pin::pin};

/// Where batches go.
pub(crate) trait Appender {
    /// Appends a batch, whole or not at all. Tries again only what certainly had no effect.
    async fn append(&mut self, batch: &Batch) -> Result<Appended, CallError>;
}

/// Sends batches and keeps the report.
pub(super) struct Sender<A> {
    appender: A,
    verbose: bool,
    bar: ProgressBar,
    report: Report,
}

/// How sending a batch ended.
enum Sent {
    Answered(Result<Appended, CallError>),
    /// Interrupted for the second time while the answer was awaited.
    Abandoned,
}

impl<A: Appender> Sender<A> {
    /// A sender for an input of `length` bytes, if that is known; if `verbose`, it tells of each batch.
    pub(super) fn new(appender: A, length: Option<u64>, verbose: bool) -> Self {
        Self {
            appender,
            verbose,
            bar: progress_bar(length),
            report: Report::default(),
        }
    }

    /// Whether more can be sent.
    pub(super) fn is_going(&self) -> bool {
        !self.report.has_failed()
    }

    /// Sends a batch. If a node finds it too large, its halves are sent one after the other.
    pub(super) async fn send(&mut self, batch: Batch, interrupts: &mut Interrupts) {
        let mut queue = VecDeque::from([batch]);
        while let Some(batch) = queue.pop_front().filter(|_| self.is_going() && !interrupts.any()) {
            let error = match self.send_one(&batch, interrupts).await {
                Sent::Answered(Ok(appended)) => {
                    self.acknowledged(&batch, &appended);
                    continue;
                }
                Sent::Abandoned => {
                    return self
                        .report
                        .lose_sight(batch.lines(), "interrupted before the answer".into());
                }
                Sent::Answered(Err(error)) => error,
            };
            match error.outcome {
                Outcome::Unknown => self.lost_sight(&batch, error.failure.text),
                Outcome::NotApplied => {
                    match batch.halves().filter(|_| error.failure.code == Code::TooLarge) {
                        Some((front, back)) => queue = [front, back].into_iter().chain(queue).collect(),
                        None => self.fail(Some(batch.first), error.failure),
                    }
                }
            }
        }
    }

    /// Goes no further; `line` and all after it were certainly not appended.
    pub(super) fn fail(&mut self, line: Option<u64>, failure: Failure) {
        self.report.fail(line, failure);
    }

    /// The report.
    pub(super) fn finish(mut self, interrupted: bool) -> Report {
        self.bar.finish_and_clear();
        if interrupted {
            self.report.interrupt();
        }
        self.report
    }

    async fn send_one(&mut self, batch: &Batch, interrupts: &mut Interrupts) -> Sent {
        let mut answer = pin!(self.appender.append(batch));
        loop {
            let again = interrupts.any();
            tokio::select! {
                answer = &mut answer => return Sent::Answered(answer),
                _ = interrupts.next() => {}
            }
            if again {
                return Sent::Abandoned;
            }
            self.bar
                .suspend(|| say!("waiting for the answer to the last batch; ^C again gives it up"));
        }
    }

    fn acknowledged(&mut self, batch: &Batch, appended: &Appended) {
        self.report.acknowledge(batch.lines(), appended);
        self.bar.inc(batch.input_bytes);
        if self.verbose {
            let Appended { first, last, term } = appended;
            let (from, to) = (batch.first, batch.last());
            self.bar
                .suspend(|| say!("lines {from}..={to} are entries {first}..={last} (term {term})"));
        }
    }

    fn lost_sight(&mut self, batch: &Batch, why: String) {
        self.bar.inc(batch.input_bytes);
        if self.verbose {
            let (from, to) = (batch.first, batch.last());
            self.bar
                .suspend(|| say!("lines {from}..={to} are unknown: {why}"));
        }
        self.report.lose_sight(batch.lines(), why);
    }
}

/// A bar on the terminal, if standard error is one.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
