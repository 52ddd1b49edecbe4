//! The body of an answer, as it arrives: entries (or the JSON of them), and heartbeats between those of a tail.

use crate::{
    api::Heartbeat,
    frames::{Frame, Frames},
    json_lines,
};
use bytes::{Bytes, BytesMut};

/// Bytes that arrived and were not taken yet.
pub(crate) enum Pieces {
    /// Entries between their lengths.
    Framed(Frames),
    /// Lines of JSON.
    Lines(BytesMut),
}

/// A part of a body.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// An entry, or the JSON of it.
    Entry(Bytes),
    /// A heartbeat.
    Heartbeat(Heartbeat),
}

impl Pieces {
    /// Of a body of lines of JSON, or of one of framed entries.
    pub(crate) fn new(json: bool) -> Self {
        match json {
            true => Self::Lines(BytesMut::new()),
            false => Self::Framed(Frames::default()),
        }
    }

    /// Takes in what arrived.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Framed(frames) => frames.push(piece),
            Self::Lines(buffer) => buffer.extend_from_slice(piece),
        }
    }

    /// The next whole piece.
    pub(crate) fn next(&mut self) -> Option<Piece> {
        match self {
            Self::Framed(frames) => frames.next().map(|frame| match frame {
                Frame::Entry(entry) => Piece::Entry(entry),
                Frame::Heartbeat(heartbeat) => Piece::Heartbeat(heartbeat),
            }),
            Self::Lines(buffer) => {
                let end = buffer.iter().position(|byte| *byte == b'\n')?;
                let line = buffer.split_to(end + 1).freeze().slice(..end);
                Some(match json_lines::heartbeat(&line) {
                    Some(heartbeat) => Piece::Heartbeat(heartbeat),
                    None => Piece::Entry(line),
                })
            }
        }
    }

    /// Whether nothing is left, not even a part of something.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Framed(frames) => frames.is_empty(),
            Self::Lines(buffer) => buffer.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;

    const BEAT: Heartbeat = Heartbeat {
        committed: 7,
        leader: true,
    };

    /// What is found in a body that arrives byte by byte.
    fn found(json: bool, body: &[u8]) -> Vec<Piece> {
        let mut pieces = Pieces::new(json);
        let mut found = Vec::new();
        for byte in body {
            pieces.push(&[*byte]);
            found.extend(pieces.next());
        }
        assert!(pieces.is_empty());
        found
    }

    #[test]
    fn heartbeats_are_told_from_entries() {
        let mut body = BytesMut::new();
        frames::put(&mut body, b"{\"heartbeat\"").unwrap();
        frames::put_heartbeat(&mut body, BEAT);
        frames::put(&mut body, b"").unwrap();
        let entry = |bytes: &'static [u8]| Piece::Entry(Bytes::from_static(bytes));
        assert_eq!(
            found(false, &body),
            [entry(b"{\"heartbeat\""), Piece::Heartbeat(BEAT), entry(b"")]
        );

        let mut body = Vec::new();
        json_lines::put(
            &mut body,
            7,
            1,
            b"{\"heartbeat\":{\"committed\":1,\"leader\":false}}",
        )
        .unwrap();
        let line = Bytes::copy_from_slice(body.strip_suffix(b"\n").unwrap());
        json_lines::put_heartbeat(&mut body, BEAT).unwrap();
        assert_eq!(found(true, &body), [Piece::Entry(line), Piece::Heartbeat(BEAT)]);
    }
}
