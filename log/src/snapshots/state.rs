//! The state in a snapshot, read from its beginning to its end by whoever may wait for the disk.
//!
//! Invariants: what is given was checked, in its order, and belongs to the very snapshot that was asked for; the end is
//! told only behind a sound end, so that a snapshot that was cut is never taken for a smaller state; what went
//! wrong once is said again at each further read; one piece is in memory at a time.

use crate::words;
use bytes::{Buf, Bytes};
use kontiki_wire::ClusterId;
use kontiki_wire::snapshot::{
    PIECE_BYTES_MAX, PIECE_HEAD_BYTES, Pieces, SNAPSHOT_END_BYTES, SNAPSHOT_FIXED_BYTES, SnapshotError,
    SnapshotHeader, Taken,
};
use std::io::{Error, ErrorKind, Read, Result};

/// A reader of the state in a snapshot.
pub(super) struct State {
    from: Box<dyn Read + Send>,
    /// The file, for the operator.
    name: String,
    cluster: ClusterId,
    /// The CRC of its header.
    sum: u32,
    pieces: Option<Pieces>,
    /// What is left of the last piece.
    piece: Bytes,
    ended: bool,
    failed: Option<(ErrorKind, String)>,
}

impl State {
    pub(super) fn new(from: Box<dyn Read + Send>, name: String, cluster: ClusterId, sum: u32) -> Self {
        Self {
            from,
            name,
            cluster,
            sum,
            pieces: None,
            piece: Bytes::new(),
            ended: false,
            failed: None,
        }
    }

    fn damaged(&self, error: &SnapshotError) -> Error {
        let what = words::damaged_snapshot(&self.name, &error.to_string());
        Error::new(ErrorKind::InvalidData, what)
    }

    /// Exactly so many bytes more, behind those that are in `bytes`.
    fn more(&mut self, bytes: &mut Vec<u8>, length: usize) -> Result<()> {
        let start = bytes.len();
        bytes.resize(length.max(start), 0);
        let read = self.from.read_exact(bytes.get_mut(start..).unwrap_or_default());
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.damaged(&SnapshotError::End),
            kind => Error::new(kind, format!("{} cannot be read: {error}", self.name)),
        })
    }

    fn header(&mut self) -> Result<Pieces> {
        let mut bytes = Vec::new();
        self.more(&mut bytes, SNAPSHOT_FIXED_BYTES)?;
        let length = SnapshotHeader::len_of(&bytes).ok_or_else(|| self.damaged(&SnapshotError::Header))?;
        self.more(&mut bytes, length)?;
        let found = SnapshotHeader::read(&bytes.into()).map_err(|error| self.damaged(&error))?;
        if found.1 != self.sum || found.0.maker.cluster != self.cluster {
            return Err(self.damaged(&SnapshotError::Header));
        }
        Ok(Pieces::new(self.cluster, self.sum))
    }

    /// The next piece; nothing at the end.
    fn next(&mut self) -> Result<Bytes> {
        let mut pieces = match self.pieces {
            Some(pieces) => pieces,
            None => self.header()?,
        };
        let mut bytes = Vec::new();
        self.more(&mut bytes, PIECE_HEAD_BYTES)?;
        let length = match bytes.as_slice().get_u32_le() {
            u32::MAX => SNAPSHOT_END_BYTES,
            length if length as usize <= PIECE_BYTES_MAX => PIECE_HEAD_BYTES + length as usize,
            _ => return Err(self.damaged(&pieces.damaged())),
        };
        self.more(&mut bytes, length)?;
        let taken = pieces.take(&bytes.into()).map_err(|error| self.damaged(&error))?;
        let piece = match taken {
            Some(Taken::Piece(piece)) => piece,
            Some(Taken::End) if self.from.read(&mut [0])? == 0 => {
                self.ended = true;
                Bytes::new()
            }
            _ => return Err(self.damaged(&SnapshotError::End)),
        };
        self.pieces = Some(pieces);
        Ok(piece)
    }
}

impl Read for State {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if let Some((kind, what)) = &self.failed {
            return Err(Error::new(*kind, what.clone()));
        }
        while self.piece.is_empty() && !self.ended {
            match self.next() {
                Ok(piece) => self.piece = piece,
                Err(error) => {
                    self.failed = Some((error.kind(), error.to_string()));
                    return Err(error);
                }
            }
        }
        let length = into.len().min(self.piece.len());
        if let Some(into) = into.get_mut(..length) {
            self.piece.copy_to_slice(into);
        }
        Ok(length)
    }
}
