//! The queue between the threads that log and the one that writes.
//!
//! Invariants: the queue holds no more bytes than it may; a line that finds no room is lost and counted; where lines are
//! missing a line says how many, as soon as one can be written. Once lines are lost, half of the queue must be free again
//! before others are taken in, so that a reader who is too slow is told of one gap, not of a gap behind every line.

use super::line;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes that a line counts for beside its text.
const OVERHEAD_BYTES: usize = 64;

/// How long to wait where standard error is set not to block, and takes nothing.
const RETRY: Duration = Duration::from_millis(20);

/// Lines on their way.
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write, or to be told.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    lost: AtomicU64,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Lines lost since that was last told.
    lost: u64,
    /// No line is taken in until there is room again.
    full: bool,
    /// A piece is being written.
    writing: bool,
    /// The last piece could not be written.
    broken: bool,
}

/// A unit of writing.
enum Piece {
    Line(Vec<u8>),
    /// So many lines are missing here.
    Lost(u64),
}

impl State {
    fn next(&mut self) -> Option<Piece> {
        let piece = match self.pieces.pop_front() {
            None if self.lost > 0 && !self.broken => Piece::Lost(std::mem::take(&mut self.lost)),
            piece => piece?,
        };
        self.bytes -= piece.bytes();
        Some(piece)
    }
}

impl Piece {
    /// Bytes it counts for in the queue.
    fn bytes(&self) -> usize {
        match self {
            Self::Line(text) => text.len() + OVERHEAD_BYTES,
            Self::Lost(_) => 0,
        }
    }

    fn text(&self) -> Vec<u8> {
        match self {
            Self::Line(text) => text.clone(),
            Self::Lost(count) => {
                let text = format!("{count} log lines are missing here: standard error was not read in time");
                line("WARN", &text).into_bytes()
            }
        }
    }
}

impl Queue {
    /// A queue of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            lost: AtomicU64::new(0),
            bytes_max,
        }
    }

    /// Takes a line in, or loses it. Never waits for the one that writes.
    pub(super) fn push(&self, text: &[u8]) {
        let mut state = self.state();
        let bytes = text.len() + OVERHEAD_BYTES;
        if state.full && state.bytes <= self.bytes_max / 2 {
            state.full = false;
        }
        if state.full || state.bytes + bytes > self.bytes_max {
            state.full = true;
            state.lost += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if state.lost > 0 {
            let lost = std::mem::take(&mut state.lost);
            state.pieces.push_back(Piece::Lost(lost));
        }
        state.bytes += bytes;
        state.pieces.push_back(Piece::Line(text.to_vec()));
        drop(state);
        self.filled.notify_one();
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but no longer than this.
    pub(super) fn flush(&self, within: Duration) {
        let busy = |state: &mut State| state.writing || !state.pieces.is_empty();
        // Whether it came to that makes no difference: the process goes on to end.
        drop(self.emptied.wait_timeout_while(self.state(), within, busy));
    }

    /// Writes for ever.
    pub(super) fn write_to(&self, out: &mut impl Write) {
        loop {
            let piece = self.next();
            let written = write(out, &piece.text());
            self.wrote(&piece, written.is_ok());
        }
    }

    fn next(&self) -> Piece {
        let mut state = self.state();
        loop {
            if let Some(piece) = state.next() {
                state.writing = true;
                return piece;
            }
            self.emptied.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wrote(&self, piece: &Piece, written: bool) {
        let mut state = self.state();
        (state.writing, state.broken) = (false, !written);
        match piece {
            _ if written => {}
            Piece::Lost(count) => state.lost += count,
            Piece::Line(_) => {
                state.lost += 1;
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the layer that formats: it writes a line at a time.
impl Write for &Queue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, also where the other side of standard error has set it not to block.
fn write(out: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => text = &text[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    /// Takes a write only when it is told to, and gives what was written.
    struct Slow {
        may: mpsc::Receiver<io::Result<()>>,
        wrote: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.may.recv().unwrap_or_else(|_| {
                loop {
                    thread::park();
                }
            })?;
            self.wrote
                .send(String::from_utf8(text.to_vec()).unwrap())
                .unwrap();
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Reader {
        may: mpsc::Sender<io::Result<()>>,
        wrote: mpsc::Receiver<String>,
    }

    impl Reader {
        fn read(&self) -> String {
            self.may.send(Ok(())).unwrap();
            self.wrote.recv().unwrap()
        }
    }

    /// A queue of room for so many lines of ten bytes.
    fn queue(lines: usize) -> (Arc<Queue>, Reader) {
        let queue = Arc::new(Queue::new(lines * (10 + OVERHEAD_BYTES)));
        let ((may, allowed), (writes, wrote)) = (mpsc::channel(), mpsc::channel());
        let own = queue.clone();
        thread::spawn(move || {
            own.write_to(&mut Slow {
                may: allowed,
                wrote: writes,
            });
        });
        (queue, Reader { may, wrote })
    }

    fn text(number: usize) -> String {
        format!("line {number:04}\n")
    }

    fn push(queue: &Queue, numbers: std::ops::Range<usize>) {
        numbers.for_each(|number| queue.push(text(number).as_bytes()));
    }

    /// Waits until the last line is being written, and counts no more.
    fn taken(queue: &Queue) {
        let is_taken = |state: &State| state.writing && state.pieces.is_empty();
        while !is_taken(&queue.state()) {
            thread::yield_now();
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_told_where_they_are_missing() {
        let (queue, reader) = queue(4);
        push(&queue, 0..1);
        assert_eq!(reader.read(), text(0));
        push(&queue, 1..2);
        taken(&queue);
        push(&queue, 2..9);
        assert_eq!(
            queue.lost(),
            3,
            "1 is being written, 2 to 5 wait, 6 to 8 found no room"
        );
        (1..6).for_each(|number| assert_eq!(reader.read(), text(number)));
        let told = reader.read();
        assert!(
            told.contains("WARN") && told.contains("3 log lines are missing here"),
            "{told}"
        );
        push(&queue, 9..10);
        assert_eq!(reader.read(), text(9));
        assert_eq!(queue.lost(), 3);
    }

    #[test]
    fn a_slow_reader_is_told_of_one_gap_not_of_many() {
        let (queue, reader) = queue(4);
        push(&queue, 0..1);
        taken(&queue);
        push(&queue, 1..7);
        // One is read, and perhaps the next is being written: there is room for one, and it is not used for a line behind a gap.
        assert_eq!(reader.read(), text(0));
        push(&queue, 7..8);
        (1..5).for_each(|number| assert_eq!(reader.read(), text(number)));
        assert!(reader.read().contains("3 log lines are missing"));
        assert_eq!(queue.lost(), 3);
    }

    #[test]
    fn the_end_waits_for_the_last_line_but_not_for_ever() {
        let (queue, reader) = queue(4);
        push(&queue, 0..1);
        queue.flush(Duration::from_millis(10));
        reader.may.send(Ok(())).unwrap();
        queue.flush(Duration::from_secs(120));
        assert_eq!(reader.wrote.try_recv(), Ok(text(0)));
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_told_once_something_can() {
        let (queue, reader) = queue(4);
        push(&queue, 0..1);
        reader.may.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        queue.flush(Duration::from_secs(120));
        assert_eq!(queue.lost(), 1);
        push(&queue, 1..2);
        assert!(reader.read().contains("1 log lines are missing here"));
        assert_eq!(reader.read(), text(1));
    }
}
