//! Following the log: a stream of entries that reads no further ahead than one chunk.

use crate::{Consistency, Entry, Error, Handle, LogEntry, Read, request::Wanted};
use futures_core::Stream;
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How many bytes are read ahead of whoever follows; one entry may be larger.
const CHUNK_BYTES: usize = 256 << 10;

/// How long one read waits for something new; then it is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The entries of the log from an index on. It ends when the node stops or is paused, when an entry cannot be read, or when
/// too many reads wait: the last item is then the error that says why. Dropping it cancels what it waits for. Another tail from [`next_index`](Self::next_index)
/// goes on without a hole.
pub struct Tail<T> {
    handle: Handle<T>,
    next: u64,
    at_hand: VecDeque<Entry<T>>,
    reading: Option<Read<T>>,
    ended: bool,
}

impl<T: LogEntry> Tail<T> {
    pub(crate) fn new(handle: Handle<T>, from: u64) -> Self {
        Self {
            handle,
            next: from,
            at_hand: VecDeque::new(),
            reading: None,
            ended: false,
        }
    }

    /// Index of the entry that comes next; 0 while that is wherever the log begins.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next
    }

    fn read(&self) -> Read<T> {
        let node = self.handle.node.with_timeout(PATIENCE);
        let bytes_max = CHUNK_BYTES.min(node.shared().limits.read_bytes_max);
        let wanted = Wanted::of(self.next.., bytes_max);
        node.read(wanted, Consistency::STALE, true)
    }
}

impl<T> Unpin for Tail<T> {}

impl<T: LogEntry> Stream for Tail<T> {
    type Item = Result<Entry<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.at_hand.pop_front() {
                self.next = entry.index.saturating_add(1);
                return Poll::Ready(Some(Ok(entry)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let mut reading = self.reading.take().unwrap_or_else(|| self.read());
            match Pin::new(&mut reading).poll(context) {
                Poll::Pending => {
                    self.reading = Some(reading);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(read)) => self.at_hand = read.entries.into(),
                // Nothing came for a while.
                Poll::Ready(Err(Error::Timeout)) => {}
                Poll::Ready(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl<T> fmt::Debug for Tail<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
