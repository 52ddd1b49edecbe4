//! Standard output carries data and nothing else; whatever is said to a person goes to standard error.

use crate::failure::{Failure, Stop};
use kontiki::Code;
use rustix::{
    event::{self, PollFd, PollFlags},
    io::Errno,
};
use serde::Serialize;
use std::{
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
    thread,
};
use tokio::sync::oneshot;

/// Says a line on standard error. If nobody listens, that is no reason to fail. It may quote a node, an entry or a file: what
/// could confuse a terminal is escaped.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let words = $crate::output::harmless(&format!($($words)*), &['\n', '\t']);
        let _ = writeln!(std::io::stderr(), "{words}");
    }};
}
pub(crate) use say;

/// Whether the terminal says of itself that it takes no orders, such as to go back within a line.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Ends when the reader of standard output has gone. Never, where that does not show, as with a file.
pub(crate) async fn reader_gone() {
    let (sender, gone) = oneshot::channel();
    // A thread, which ends with the process: nothing that tokio has watches a descriptor that is written to without it.
    let watch = move || {
        let out = io::stdout();
        // No event is asked for: an error and a hang-up are told in any case.
        while event::poll(&mut [PollFd::new(&out, PollFlags::empty())], None) == Err(Errno::INTR) {}
        // The waiting side may have gone first.
        let _ = sender.send(());
    };
    let watcher = thread::Builder::new().name("kontiki-reader".into());
    if watcher.spawn(watch).is_err() || gone.await.is_err() {
        std::future::pending().await
    }
}

/// Standard output, buffered.
pub(crate) struct Data {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether a person sees it.
    terminal: bool,
}

impl Data {
    /// Takes standard output for this thread.
    pub(crate) fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.out.write_all(bytes).map_err(stop)
    }

    /// Writes an entry, or the JSON of one, as a line: as it is, or made fit for a terminal.
    pub(crate) fn entry(&mut self, entry: &[u8], is_json: bool) -> Result<(), Stop> {
        match (self.terminal, is_json) {
            (false, _) => self.bytes(entry)?,
            (true, false) => self.bytes(printable(entry).as_bytes())?,
            (true, true) => self.bytes(printable_json(entry).as_bytes())?,
        }
        self.bytes(b"\n")
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let line = serde_json::to_vec(value).map_err(|error| stop(error.into()))?;
        self.entry(&line, true)
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.out.flush().map_err(stop)
    }
}

fn stop(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::ReaderGone,
        _ => Failure::new(Code::Io, format!("cannot write to standard output: {error}")).into(),
    }
}

/// An entry for a person's eyes: what could confuse a terminal is escaped, and what is not UTF-8 shown as `\xNN`.
pub(crate) fn printable(entry: &[u8]) -> String {
    let mut out = String::with_capacity(entry.len());
    for chunk in entry.utf8_chunks() {
        out.push_str(&harmless(chunk.valid(), &['\t']));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// A line of JSON for a person's eyes: the same value, without what could confuse a terminal. JSON escapes some of that itself.
fn printable_json(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        if confuses(c) {
            // None of them is outside of the basic plane.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A text in which what could confuse a terminal is escaped, but for the characters that are kept.
pub(crate) fn harmless(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if confuses(c) && !kept.contains(&c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character is an order to the terminal rather than something to see: controls, and what changes the direction or
/// the line of a text.
fn confuses(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// So many entries, in words.
pub(crate) fn entries(count: u64) -> String {
    if count == 1 {
        "1 entry".into()
    } else {
        format!("{count} entries")
    }
}

/// Lays out rows under headings, in columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let headings = headings.map(str::to_owned);
    let all = || std::iter::once(&headings).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|at| all().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for row in all() {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:width$}", harmless(cell, &[])));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_confused() {
        assert_eq!(printable("caf\u{e9}\tx".as_bytes()), "caf\u{e9}\tx");
        assert_eq!(printable(b"a\x1b[2J\r\xff"), "a\\u{1b}[2J\\r\\xff");
        assert_eq!(
            printable("x\u{9b}2J \u{202e}y".as_bytes()),
            "x\\u{9b}2J \\u{202e}y"
        );
        let line = "{\"text\":\"\u{9b}2J\u{7f}\"}";
        let shown = printable_json(line.as_bytes());
        assert_eq!(shown, "{\"text\":\"\\u009b2J\\u007f\"}");
        let [shown, line]: [serde_json::Value; 2] =
            [&*shown, line].map(|json| serde_json::from_str(json).unwrap());
        assert_eq!(shown, line);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["1".into(), "leader".into()], ["10".into(), "-".into()]];
        assert_eq!(
            table(["node", "role"], &rows),
            "node  role\n1     leader\n10    -\n"
        );
    }
}
