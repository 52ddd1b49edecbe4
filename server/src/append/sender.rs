//! Sends batches of lines, one at a time.
//!
//! Invariant: a batch is sent only once the one before was answered, so lines that are acknowledged stand in the log in
//! their order. Two batches on their way could overtake each other at a change of leader, and one of them could be lost.

use super::report::Report;
use crate::{
    api::{Appended, Outcome},
    client::CallError,
    failure::Failure,
    interrupts::Interrupts,
    lines::Batch,
    output::{is_dumb, say},
};
use indicatif::{ProgressBar, ProgressStyle};
use kontiki::Code;
use std::{collections::VecDeque, pin::pin};

/// Where batches go.
pub(crate) trait Appender {
    /// Appends a batch, whole or not at all, and at most once. Tries again where that is safe.
    async fn append(&mut self, batch: &Batch) -> Result<Appended, CallError>;

    /// Waits for a leader that a majority follows.
    async fn settle(&mut self) -> Result<(), CallError>;
}

/// Sends batches and keeps the report.
pub(super) struct Sender<A> {
    appender: A,
    verbose: bool,
    bar: ProgressBar,
    report: Report,
    /// The fate of the batch before is unknown: its leader may be no more.
    unsettled: bool,
}

impl<A: Appender> Sender<A> {
    /// A sender for an input of `length` bytes, if that is known; if `verbose`, it tells of each batch.
    pub(super) fn new(appender: A, length: Option<u64>, verbose: bool) -> Self {
        Self {
            appender,
            verbose,
            bar: progress_bar(length),
            report: Report::default(),
            unsettled: false,
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
            if !self.settled(&batch, interrupts).await {
                return;
            }
            let answer = patiently(&self.bar, self.appender.append(&batch), interrupts).await;
            let error = match answer {
                Some(Ok(appended)) => {
                    self.acknowledged(&batch, &appended);
                    continue;
                }
                None => {
                    return self
                        .report
                        .lose_sight(batch.lines(), "interrupted before the answer".into());
                }
                Some(Err(error)) => error,
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

    /// After a batch of unknown fate, waits for a leader that a majority follows: what is sent to one that is no more
    /// would be lost sight of as well. False if there is none, or it was interrupted; then `batch` is not sent.
    async fn settled(&mut self, batch: &Batch, interrupts: &mut Interrupts) -> bool {
        if !self.unsettled {
            return true;
        }
        match patiently(&self.bar, self.appender.settle(), interrupts).await {
            Some(Ok(())) => self.unsettled = false,
            Some(Err(error)) => self.fail(Some(batch.first), error.failure),
            None => {}
        }
        !self.unsettled
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
        self.unsettled = true;
    }
}

/// Waits for an answer; `None` if it was interrupted for the second time meanwhile.
async fn patiently<T>(
    bar: &ProgressBar,
    answer: impl Future<Output = T>,
    interrupts: &mut Interrupts,
) -> Option<T> {
    let mut answer = pin!(answer);
    loop {
        let again = interrupts.any();
        tokio::select! {
            answer = &mut answer => return Some(answer),
            _ = interrupts.next() => {}
        }
        if again {
            return None;
        }
        bar.suspend(|| say!("waiting for the answer to the last batch; ^C again gives it up"));
    }
}

/// A bar on the terminal, if standard error is one that can draw it.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    if is_dumb() {
        return ProgressBar::hidden();
    }
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
