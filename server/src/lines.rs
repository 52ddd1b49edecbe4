//! Cuts a stream of bytes into lines, and lines into batches that are ready to be sent.
//!
//! A line ends at `\n` and at nothing else: `\r` and empty lines are kept, and a last line without `\n` is a line. A
//! batch is bounded in lines and in bytes, but holds at least one line however long that line is.

use crate::{failure::Failure, frames, input::Input};
use bytes::{Bytes, BytesMut};
use kontiki::Code;
use std::ops::RangeInclusive;

/// Lines in a batch, at most. A batch is what becomes *unknown* as a whole, so it is kept small enough to be useful.
const BATCH_LINES_MAX: u64 = 1_000;

/// Bytes of lines in a batch, unless it is a single line.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// An entry above this is refused before it is held in memory; no server accepts one of that size.
pub(crate) const ENTRY_BYTES_MAX: usize = 1 << 30;

/// Some consecutive lines, framed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    /// Number of its first line, from 1.
    pub(crate) first: u64,
    /// How many lines.
    pub(crate) count: u64,
    /// Bytes of the input it came from.
    pub(crate) input_bytes: u64,
    /// The lines, framed.
    pub(crate) body: Bytes,
}

impl Batch {
    /// Number of its last line.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// The numbers of its lines.
    pub(crate) fn lines(&self) -> RangeInclusive<u64> {
        self.first..=self.last()
    }

    /// Cuts it into two; `None` if it is a single line.
    pub(crate) fn halves(&self) -> Option<(Batch, Batch)> {
        let lines = frames::split(self.body.clone())
            .ok()
            .filter(|lines| lines.len() > 1)?;
        let (front, back) = lines.split_at(lines.len() / 2);
        let front = Batch::of(self.first, front)?;
        let back = Batch::of(self.first + front.count, back)?;
        Some((front, back))
    }

    fn of(first: u64, lines: &[Bytes]) -> Option<Batch> {
        let mut body = BytesMut::new();
        for line in lines {
            frames::put(&mut body, line).ok()?;
        }
        let input_bytes = lines.iter().map(|line| line.len() as u64 + 1).sum();
        Some(Batch {
            first,
            count: lines.len() as u64,
            input_bytes,
            body: body.freeze(),
        })
    }
}

fn too_long(line: u64) -> Failure {
    let text =
        format!("line {line} is longer than {ENTRY_BYTES_MAX} bytes; no node takes an entry of that size");
    Failure::new(Code::TooLarge, text)
}

/// Takes in a stream and gives out batches.
#[derive(Default)]
struct Cutter {
    input: BytesMut,
    /// So much of `input` holds no line end.
    scanned: usize,
    ended: bool,
    lines: u64,
}

impl Cutter {
    /// Takes in the next bytes of the stream.
    fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The stream has ended: what is left without a line end is a line.
    fn end(&mut self) {
        self.ended = true;
    }

    /// Whether there is enough for a full batch.
    fn is_full(&self) -> bool {
        self.input.len() - self.scanned >= BATCH_BYTES_MAX
    }

    /// Whether the stream has ended and every line was given out.
    fn is_done(&self) -> bool {
        self.ended && self.input.is_empty()
    }

    /// Whole lines in the order of the stream, as many as a batch holds; `None` if there is no whole line yet.
    fn cut(&mut self) -> Result<Option<Batch>, Failure> {
        let first = self.lines + 1;
        let mut batch = Batch {
            first,
            count: 0,
            input_bytes: 0,
            body: Bytes::new(),
        };
        let mut body = BytesMut::new();
        while batch.count < BATCH_LINES_MAX {
            let Some(length) = self.line_length()? else { break };
            if batch.count > 0 && body.len() + frames::LENGTH_BYTES + length > BATCH_BYTES_MAX {
                break;
            }
            let line = self.take_line(length);
            frames::put(&mut body, &line[..length]).map_err(|_| too_long(self.lines))?;
            batch.count += 1;
            batch.input_bytes += line.len() as u64;
        }
        batch.body = body.freeze();
        Ok((batch.count > 0).then_some(batch))
    }

    /// Length of the next line without its end, if the line is whole.
    fn line_length(&mut self) -> Result<Option<usize>, Failure> {
        let fresh = &self.input[self.scanned..];
        let end = fresh
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| self.scanned + at);
        self.scanned = end.unwrap_or(self.input.len());
        if self.scanned > ENTRY_BYTES_MAX {
            return Err(too_long(self.lines + 1));
        }
        let rest = (self.ended && !self.input.is_empty()).then_some(self.input.len());
        Ok(end.or(rest))
    }

    /// Takes the next line, with its end if it has one.
    fn take_line(&mut self, length: usize) -> BytesMut {
        self.lines += 1;
        self.scanned = 0;
        let with_end = (length + 1).min(self.input.len());
        self.input.split_to(with_end)
    }
}

/// The lines of an input, in batches.
pub(crate) struct Batches {
    input: Input,
    cutter: Cutter,
}

impl Batches {
    /// The lines of `input`.
    pub(crate) fn new(input: Input) -> Self {
        Self {
            input,
            cutter: Cutter::default(),
        }
    }

    /// The next batch; `None` at the end. What is at hand is not held back to fill a batch. Dropping the future loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        loop {
            while !self.cutter.is_full() && !self.cutter.ended && self.input.is_ready() {
                self.take_in().await?;
            }
            if let Some(batch) = self.cutter.cut()? {
                return Ok(Some(batch));
            }
            if self.cutter.is_done() {
                return Ok(None);
            }
            self.take_in().await?;
        }
    }

    async fn take_in(&mut self) -> Result<(), Failure> {
        match self.input.next().await? {
            Some(piece) => self.cutter.push(&piece),
            None => self.cutter.end(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(cutter: &mut Cutter) -> Vec<Batch> {
        std::iter::from_fn(|| cutter.cut().unwrap()).collect()
    }

    fn lines(batches: &[Batch]) -> Vec<Bytes> {
        batches
            .iter()
            .flat_map(|batch| frames::split(batch.body.clone()).unwrap())
            .collect()
    }

    fn cut_whole(input: &[u8]) -> Vec<Batch> {
        let mut cutter = Cutter::default();
        cutter.push(input);
        cutter.end();
        let batches = batches(&mut cutter);
        assert!(cutter.is_done());
        batches
    }

    #[test]
    fn lines_end_at_newline_and_at_nothing_else() {
        let got = lines(&cut_whole(b"a\r\n\n\xff\x0b\x0c\xc2\x85b\n\n\r"));
        assert_eq!(got, [&b"a\r"[..], b"", b"\xff\x0b\x0c\xc2\x85b", b"", b"\r"]);
    }

    #[test]
    fn no_line_is_made_up_at_the_end() {
        assert!(cut_whole(b"").is_empty());
        assert_eq!(lines(&cut_whole(b"a\n")), [&b"a"[..]]);
        assert_eq!(lines(&cut_whole(b"\n")), [&b""[..]]);
        assert_eq!(lines(&cut_whole(b"a")), [&b"a"[..]]);
    }

    #[test]
    fn pieces_make_no_difference() {
        let mut cutter = Cutter::default();
        let mut got = Vec::new();
        for byte in b"one\n\ntwo\r\nthree" {
            cutter.push(&[*byte]);
            got.extend(batches(&mut cutter));
        }
        assert!(!cutter.is_done());
        cutter.end();
        got.extend(batches(&mut cutter));
        assert_eq!(lines(&got), [&b"one"[..], b"", b"two\r", b"three"]);
        assert_eq!(
            got.iter().map(|batch| batch.first).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(got.iter().map(|batch| batch.input_bytes).sum::<u64>(), 15);
    }

    #[test]
    fn a_batch_is_bounded_in_lines() {
        let got = cut_whole(&b"\n".repeat(2_500));
        assert_eq!(
            got.iter()
                .map(|batch| (batch.first, batch.last()))
                .collect::<Vec<_>>(),
            [(1, 1_000), (1_001, 2_000), (2_001, 2_500)]
        );
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_unless_it_is_one_line() {
        let long = [vec![b'x'; BATCH_BYTES_MAX * 2], b"\na\nb\n".to_vec()].concat();
        let got = cut_whole(&long);
        assert_eq!(got.iter().map(|batch| batch.count).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(got[0].body.len(), BATCH_BYTES_MAX * 2 + frames::LENGTH_BYTES);
    }

    #[test]
    fn halves_keep_every_line_in_order() {
        let whole = cut_whole(b"a\nbb\nccc\n").remove(0);
        let (front, back) = whole.halves().unwrap();
        assert_eq!((front.first, front.last(), back.first, back.last()), (1, 1, 2, 3));
        assert_eq!(lines(&[front.clone(), back]), [&b"a"[..], b"bb", b"ccc"]);
        assert_eq!(front.halves(), None);
    }
}
