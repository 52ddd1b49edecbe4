//! Log lines and panics: formatted where they arise, written to standard error by a thread of its own.
//!
//! Invariant: no thread that logs waits for the reader of standard error. A reader that is too slow loses lines, which are
//! counted ([`lost`]) and told where they are missing.

mod queue;

use crate::failure::Failure;
use kontiki::Code;
use queue::Queue;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io,
    os::fd::AsFd,
    panic::{self, PanicHookInfo},
    sync::OnceLock,
    thread,
    time::Duration,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Bytes of log lines that wait for the reader of standard error, before further ones are lost.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the process waits at its end for its last lines to be written.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);

/// The lines of this process.
static LINES: OnceLock<Queue> = OnceLock::new();

/// Logs what `filter` lets through, or else everything up to `level`, and panics in any case.
///
/// # Errors
/// If standard error cannot be used, or no thread can be started.
pub(crate) fn start(filter: Option<Targets>, level: LevelFilter) -> Result<(), Failure> {
    let lines = LINES.get_or_init(|| Queue::new(QUEUE_BYTES_MAX));
    // A descriptor of its own: behind the lock of the standard library, the writer would hold up every other thread that writes there.
    let descriptor = io::stderr().as_fd().try_clone_to_owned();
    let mut out = File::from(descriptor.map_err(|error| failed("use standard error", &error))?);
    let writer = thread::Builder::new().name("kontiki-log-lines".into());
    let writer = writer.spawn(move || lines.write_to(&mut out));
    writer.map_err(|error| failed("start a thread", &error))?;
    panic::set_hook(Box::new(|panicked| {
        lines.push(told(panicked).as_bytes());
        // The process may be about to end; a thread that has panicked has time.
        lines.flush(LAST_LINES_MAX);
    }));
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(level));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || lines)
        .log_internal_errors(false)
        .with_ansi(false)
        .with_filter(filter);
    // It fails only if there is a subscriber already, and then that one serves.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Code::Io, format!("cannot {what}: {error}"))
}

/// Writes a line that is not a log line behind all others, without waiting for the reader.
pub(crate) fn put(line: &str) {
    if let Some(lines) = LINES.get() {
        lines.push(format!("{line}\n").as_bytes());
    }
}

/// Waits until all lines are written, but not for long.
pub(crate) fn finish() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES_MAX);
    }
}

/// How many lines were lost so far, because standard error was not read.
pub(crate) fn lost() -> u64 {
    LINES.get().map_or(0, Queue::lost)
}

/// A line in the form of the others.
fn line(level: &str, text: &str) -> String {
    let mut line = String::new();
    // A string takes all that is written.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line.push_str(&format!(" {level:>5} kontiki::logging: {text}\n"));
    line
}

fn told(panicked: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let place = panicked.location().map(ToString::to_string).unwrap_or_default();
    let what = panicked.payload_as_str().unwrap_or("no text");
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    let thread = thread.name().unwrap_or("without a name");
    line(
        "ERROR",
        &format!("thread {thread} panicked at {place}: {what}{backtrace}"),
    )
}
