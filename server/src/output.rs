//! Standard output carries data and nothing else; whatever is said to a person goes to standard error.

use crate::failure::{Failure, Stop};
use kontiki::Code;
use serde::Serialize;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Says a line on standard error. If nobody listens, that is no reason to fail.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
pub(crate) use say;

/// Standard output, buffered.
pub(crate) struct Data {
    out: BufWriter<StdoutLock<'static>>,
}

impl Data {
    /// Takes standard output for this thread.
    pub(crate) fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.out.write_all(bytes).map_err(stop)
    }

    /// Writes an entry as a line.
    pub(crate) fn line(&mut self, entry: &[u8]) -> Result<(), Stop> {
        self.bytes(entry)?;
        self.bytes(b"\n")
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        serde_json::to_writer(&mut self.out, value).map_err(|error| stop(error.into()))?;
        self.bytes(b"\n")
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
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\t' {
                out.extend(c.escape_default())
            } else {
                out.push(c)
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
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
            .map(|(cell, width)| format!("{cell:width$}"));
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
