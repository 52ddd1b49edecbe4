//! A number of bytes that many share: what is to be held is reserved first.
//!
//! Invariants: never more is reserved than the budget has; those who wait are served in their order, so that a large
//! reservation is not passed for ever by small ones; one above the whole budget takes the whole.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are reserved in pieces of this size.
const PIECE_BYTES: usize = 1 << 10;

/// Bytes to be reserved.
#[derive(Debug)]
pub(crate) struct Budget {
    pieces: Arc<Semaphore>,
    pieces_max: u32,
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(Option<OwnedSemaphorePermit>);

impl Budget {
    /// So many bytes, in whole pieces and at least one.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let pieces_max = u32::try_from((bytes_max / PIECE_BYTES).clamp(1, most)).unwrap_or(u32::MAX);
        Self {
            pieces: Arc::new(Semaphore::new(pieces_max as usize)),
            pieces_max,
        }
    }

    fn pieces(&self, bytes: usize) -> u32 {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        pieces.min(self.pieces_max)
    }

    /// Reserves so many bytes once it is its turn and they are free.
    pub(crate) fn reserve(&self, bytes: usize) -> impl Future<Output = Reserved> + Send + use<> {
        let (pieces, count) = (self.pieces.clone(), self.pieces(bytes));
        // It is never closed, so there is always a permit.
        async move { Reserved(pieces.acquire_many_owned(count).await.ok()) }
    }

    /// Reserves so many bytes if they are free and nobody waits.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permit = self.pieces.clone().try_acquire_many_owned(self.pieces(bytes));
        permit.ok().map(|permit| Reserved(Some(permit)))
    }

    /// How many bytes there are.
    pub(crate) fn bytes_max(&self) -> u64 {
        u64::from(self.pieces_max) * PIECE_BYTES as u64
    }

    /// How many bytes are reserved.
    pub(crate) fn held_bytes(&self) -> u64 {
        let free = self.pieces.available_permits() as u64;
        self.bytes_max().saturating_sub(free * PIECE_BYTES as u64)
    }
}

impl Reserved {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// How many bytes these are, at least.
    pub(crate) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |permit| permit.num_permits() * PIECE_BYTES)
    }

    /// Gives back what is not needed for so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let surplus = permit.num_permits().saturating_sub(bytes.div_ceil(PIECE_BYTES));
            drop(permit.split(surplus));
        }
    }

    /// Adds what another has reserved of the same budget.
    pub(crate) fn add(&mut self, mut other: Self) {
        match (&mut self.0, other.0.take()) {
            (Some(permit), Some(other)) => permit.merge(other),
            (permit, other) => *permit = permit.take().or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_is_and_what_is_given_back_is_free() {
        let budget = Budget::new(8 * PIECE_BYTES);
        let mut first = budget.try_reserve(5 * PIECE_BYTES - 1).unwrap();
        assert_eq!(budget.held_bytes(), 5 * PIECE_BYTES as u64);
        assert!(budget.try_reserve(4 * PIECE_BYTES).is_none());
        first.shrink(1);
        assert_eq!(
            (budget.held_bytes(), first.bytes()),
            (PIECE_BYTES as u64, PIECE_BYTES)
        );
        first.shrink(100 * PIECE_BYTES);
        let second = budget.try_reserve(7 * PIECE_BYTES).unwrap();
        assert!(budget.try_reserve(1).is_none());
        first.add(second);
        assert_eq!(budget.held_bytes(), budget.bytes_max());
        drop(first);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn more_than_there_is_takes_the_whole() {
        let budget = Budget::new(8 * PIECE_BYTES);
        let whole = budget.try_reserve(usize::MAX).unwrap();
        assert_eq!(budget.held_bytes(), budget.bytes_max());
        drop(whole);
        assert!(Budget::new(0).try_reserve(usize::MAX).is_some());
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_their_order() {
        let budget = Budget::new(8 * PIECE_BYTES);
        let held = budget.try_reserve(1).unwrap();
        let mut large = Box::pin(budget.reserve(8 * PIECE_BYTES));
        let waits = std::future::poll_fn(|context| std::task::Poll::Ready(large.as_mut().poll(context)));
        assert!(waits.await.is_pending());
        assert!(budget.try_reserve(1).is_none(), "a small one does not pass");
        drop(held);
        drop(large.await);
        assert_eq!(budget.held_bytes(), 0);
    }
}
