//! What a file in memory holds: the pieces that were written, as they were given, so that a large one is never copied.
//!
//! Invariants: no piece is empty, overlaps another or reaches beyond the end; what no piece covers is zeros. Small pieces are
//! copied, and those that are written one behind the other become one: each would cost more to keep than to copy, and might keep
//! alive a larger piece of memory that it is a part of.

use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Up to this length a piece is copied.
const SMALL_BYTES: usize = 1 << 10;
/// Memory for copies is had in pieces of this length.
const ROOM_BYTES: usize = 64 << 10;

/// The content of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    length: u64,
    /// By where they begin.
    pieces: BTreeMap<u64, Bytes>,
    /// Where the next copies go.
    room: BytesMut,
}

impl Extents {
    /// So many zeros.
    pub(crate) fn zeros(length: u64) -> Self {
        Self {
            length,
            ..Self::default()
        }
    }

    /// How long the file is.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Makes it longer by zeros, if it is shorter than this.
    pub(crate) fn grow(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Puts these one behind the other, in place of what stands there. False, and nothing is written, if they end beyond the end.
    #[must_use]
    pub(crate) fn write(&mut self, offset: u64, buffers: Vec<Bytes>) -> bool {
        let Some(end) = end_of(offset, &buffers).filter(|end| *end <= self.length) else {
            return false;
        };
        self.clear(offset, end);
        let mut at = offset;
        for buffer in buffers {
            if buffer.len() <= SMALL_BYTES {
                self.copy(&buffer);
                continue;
            }
            at = self.put_copies(at);
            at = self.put(at, buffer);
        }
        self.put_copies(at);
        true
    }

    /// What stands there, as far as the file goes.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Bytes {
        let end = offset.saturating_add(bytes).min(self.length);
        if offset >= end {
            return Bytes::new();
        }
        let before = self.pieces.range(..=offset).next_back();
        if let Some((at, piece)) = before
            && end - at <= piece.len() as u64
        {
            return piece.slice((offset - at) as usize..(end - at) as usize);
        }
        let mut read = BytesMut::zeroed((end - offset) as usize);
        let first = before.map_or(offset, |(at, _)| *at);
        for (at, piece) in self.pieces.range(first..end) {
            let (from, to) = (offset.max(*at), end.min(at + piece.len() as u64));
            if from < to {
                let into = &mut read[(from - offset) as usize..(to - offset) as usize];
                into.copy_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
            }
        }
        read.freeze()
    }

    /// Copies a small piece behind those that are to become one with it.
    fn copy(&mut self, small: &[u8]) {
        if self.room.capacity() - self.room.len() < small.len() {
            self.room.reserve(ROOM_BYTES);
        }
        self.room.extend_from_slice(small);
    }

    /// Keeps what was copied as one piece, where there is none; where the next one begins.
    fn put_copies(&mut self, at: u64) -> u64 {
        let copies = self.room.split().freeze();
        self.put(at, copies)
    }

    /// Keeps a piece where there is none; where the next one begins.
    fn put(&mut self, at: u64, piece: Bytes) -> u64 {
        let end = at + piece.len() as u64;
        if !piece.is_empty() {
            self.pieces.insert(at, piece);
        }
        end
    }

    /// Leaves no piece there: of those that reach beyond, the rest stays.
    fn clear(&mut self, start: u64, end: u64) {
        while let Some((at, piece)) = self.pieces.range(..end).next_back() {
            let (at, piece) = (*at, piece.clone());
            let piece_end = at + piece.len() as u64;
            if piece_end <= start {
                return;
            }
            self.pieces.remove(&at);
            if piece_end > end {
                self.put(end, piece.slice((end - at) as usize..));
            }
            if at < start {
                self.put(at, piece.slice(..(start - at) as usize));
                return;
            }
        }
    }
}

/// Where these end that begin there; `None` if no file could be so long.
fn end_of(offset: u64, buffers: &[Bytes]) -> Option<u64> {
    let mut lengths = buffers.iter().map(|buffer| buffer.len() as u64);
    lengths.try_fold(offset, u64::checked_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Short enough that writes meet, long enough for pieces that are not small.
    const LENGTH: usize = 16 << 10;

    fn holds(extents: &Extents, model: &[u8]) {
        assert_eq!(extents.read(0, u64::MAX), model);
        let mut end = 0;
        for (at, piece) in &extents.pieces {
            assert!(*at >= end && !piece.is_empty(), "piece at {at}, behind {end}");
            end = at + piece.len() as u64;
        }
        assert!(end <= extents.length());
    }

    #[test]
    fn a_large_piece_is_neither_copied_when_written_nor_when_read() {
        let mut extents = Extents::zeros(LENGTH as u64);
        let large = Bytes::from(vec![7; 5000]);
        let small = Bytes::from_static(b"small");
        let buffers = vec![small.clone(), small.clone(), large.clone(), small.clone(), small];
        assert!(extents.write(100, buffers));
        assert_eq!(extents.pieces.len(), 3);
        let read = extents.read(120, 4000);
        assert_eq!((read.as_ptr(), read.len()), (large[10..].as_ptr(), 4000));
        // A part of it outlives what is written into its middle.
        assert!(extents.write(1000, vec![Bytes::from_static(b"x")]));
        let read = extents.read(1001, 100);
        assert_eq!(read.as_ptr(), large[891..].as_ptr());
    }

    #[test]
    fn nothing_is_written_beyond_the_end_and_nothing_read() {
        let mut extents = Extents::zeros(8);
        assert!(!extents.write(6, vec![Bytes::from_static(b"xyz")]));
        assert!(!extents.write(u64::MAX, vec![Bytes::from_static(b"xyz")]));
        holds(&extents, &[0; 8]);
        assert!(extents.write(5, vec![Bytes::from_static(b"xyz")]));
        assert!(extents.write(8, Vec::new()));
        holds(&extents, b"\0\0\0\0\0xyz");
        assert!(extents.read(8, 1).is_empty());
        assert!(extents.read(u64::MAX, u64::MAX).is_empty());
        extents.grow(10);
        extents.grow(9);
        holds(&extents, b"\0\0\0\0\0xyz\0\0");
    }

    /// Lengths on both sides of the bound, and none at all.
    fn buffer() -> impl Strategy<Value = Bytes> {
        let length = prop_oneof![0..20usize, 1000..1050usize, 1020..5000usize];
        (length, 1..=u8::MAX).prop_map(|(length, byte)| Bytes::from(vec![byte; length]))
    }

    proptest! {
        #[test]
        fn it_reads_like_memory_of_one_piece(
            writes in prop::collection::vec((0..LENGTH, prop::collection::vec(buffer(), 0..5)), 0..20),
            reads in prop::collection::vec((0..LENGTH, 0..LENGTH), 0..10),
        ) {
            let (mut extents, mut model) = (Extents::zeros(LENGTH as u64), vec![0; LENGTH]);
            for (offset, buffers) in writes {
                let bytes = buffers.concat();
                let place = model.get_mut(offset..offset + bytes.len());
                prop_assert_eq!(extents.write(offset as u64, buffers), place.is_some());
                if let Some(place) = place {
                    place.copy_from_slice(&bytes);
                }
                holds(&extents, &model);
            }
            for (offset, bytes) in reads {
                let end = (offset + bytes).min(LENGTH);
                prop_assert_eq!(&extents.read(offset as u64, bytes as u64)[..], &model[offset..end]);
            }
        }
    }
}
