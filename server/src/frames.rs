//! Entries as bytes, one after the other: the length of an entry (`u32`, little-endian), then the entry.
//!
//! The same framing goes both ways over HTTP (`application/octet-stream`). It is the only framing that carries any
//! bytes unchanged and needs no escaping.

use crate::api::Heartbeat;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before each entry.
pub(crate) const LENGTH_BYTES: usize = 4;

/// In place of a length: no entry, but a heartbeat of [`HEARTBEAT_BYTES`] follows. Only a tail that was asked for them has any.
pub(crate) const HEARTBEAT: u32 = u32::MAX;

/// Bytes behind [`HEARTBEAT`]: the last committed entry (`u64`), and 1 if a leader is known, else 0 (`u8`).
pub(crate) const HEARTBEAT_BYTES: usize = 9;

/// Appends one framed entry to `out`. An entry whose length does not fit is refused, with its length.
pub(crate) fn put(out: &mut BytesMut, entry: &[u8]) -> Result<(), usize> {
    let length = u32::try_from(entry.len())
        .ok()
        .filter(|length| *length != HEARTBEAT);
    let length = length.ok_or(entry.len())?;
    out.reserve(LENGTH_BYTES + entry.len());
    out.put_u32_le(length);
    out.put_slice(entry);
    Ok(())
}

/// Appends one heartbeat to `out`.
pub(crate) fn put_heartbeat(out: &mut BytesMut, Heartbeat { committed, leader }: Heartbeat) {
    out.reserve(LENGTH_BYTES + HEARTBEAT_BYTES);
    out.put_u32_le(HEARTBEAT);
    out.put_u64_le(committed);
    out.put_u8(u8::from(leader));
}

/// A unit of a framed body.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// An entry.
    Entry(Bytes),
    /// A heartbeat of a tail.
    Heartbeat(Heartbeat),
}

/// Entries that arrive in pieces, and heartbeats between them.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes in what arrived.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole entry or heartbeat, if it has arrived.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if self.buffer.starts_with(&HEARTBEAT.to_le_bytes()) {
            return self.heartbeat();
        }
        let end = frame_end(&self.buffer)?;
        let mut frame = self.buffer.split_to(end);
        frame.advance(LENGTH_BYTES);
        Some(Frame::Entry(frame.freeze()))
    }

    fn heartbeat(&mut self) -> Option<Frame> {
        let end = LENGTH_BYTES + HEARTBEAT_BYTES;
        let mut beat = (self.buffer.len() >= end).then(|| self.buffer.split_to(end))?;
        beat.advance(LENGTH_BYTES);
        let (committed, leader) = (beat.get_u64_le(), beat.get_u8() != 0);
        Some(Frame::Heartbeat(Heartbeat { committed, leader }))
    }

    /// Whether nothing is left: neither an entry nor a part of one.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Cuts a whole body into its entries without copying them.
///
/// # Errors
/// The offset at which an entry begins that the body does not hold whole.
pub(crate) fn split(mut body: Bytes) -> Result<Vec<Bytes>, usize> {
    let length = body.len();
    let mut entries = Vec::new();
    while !body.is_empty() {
        let end = frame_end(&body).ok_or(length - body.len())?;
        entries.push(body.split_to(end).slice(LENGTH_BYTES..));
    }
    Ok(entries)
}

/// Where the first frame ends, if all of it is there.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk::<LENGTH_BYTES>()?;
    let end = LENGTH_BYTES.checked_add(u32::from_le_bytes(*length) as usize)?;
    (bytes.len() >= end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(entries: &[&[u8]]) -> Bytes {
        let mut out = BytesMut::new();
        for entry in entries {
            put(&mut out, entry).unwrap();
        }
        out.freeze()
    }

    const ODD: [&[u8]; 4] = [b"", b"one\r", b"\xff\x00\n", b"last"];

    #[test]
    fn entries_survive_framing() {
        assert_eq!(split(framed(&ODD)).unwrap(), ODD);
    }

    #[test]
    fn entries_survive_arriving_byte_by_byte() {
        let mut frames = Frames::default();
        let mut got = Vec::new();
        for byte in framed(&ODD) {
            frames.push(&[byte]);
            got.extend(frames.next());
        }
        let odd = ODD.map(|entry| Frame::Entry(Bytes::from_static(entry)));
        assert_eq!(got, odd);
        assert!(frames.is_empty());
    }

    #[test]
    fn a_body_cut_short_names_where_its_last_entry_begins() {
        let whole = framed(&[b"one", b"two"]);
        assert_eq!(split(whole.slice(..whole.len() - 1)), Err(7));
        assert_eq!(split(whole.slice(..9)), Err(7));
    }

    #[test]
    fn a_length_is_believed_only_when_the_bytes_are_there() {
        assert_eq!(split(Bytes::from_static(b"\xff\xff\xff\xffx")), Err(0));
    }
}
