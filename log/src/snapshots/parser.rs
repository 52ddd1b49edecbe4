//! A snapshot that comes in any portions: how far it is sound, and whether it is whole.

use bytes::{Buf, Bytes, BytesMut};
use kontiki_wire::ClusterId;
use kontiki_wire::snapshot::{
    PIECE_BYTES_MAX, PIECE_HEAD_BYTES, Pieces, SNAPSHOT_END_BYTES, SNAPSHOT_FIXED_BYTES, SnapshotError,
    SnapshotHeader, Taken,
};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Parser {
    cluster: ClusterId,
    header: Option<(Arc<SnapshotHeader>, u32)>,
    pieces: Option<Pieces>,
    /// What came behind the last whole part.
    rest: BytesMut,
    /// Where that part ends.
    sound: u64,
    ended: bool,
}

impl Parser {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            header: None,
            pieces: None,
            rest: BytesMut::new(),
            sound: 0,
            ended: false,
        }
    }

    /// How much has come.
    pub(super) fn at(&self) -> u64 {
        self.sound + self.rest.len() as u64
    }

    /// The CRC of the header, by which one snapshot is told from another; zero as long as it has not come.
    pub(super) fn header_sum(&self) -> u32 {
        self.header.as_ref().map_or(0, |(_, sum)| *sum)
    }

    /// The header, once all has come.
    pub(super) fn whole(&self) -> Option<Arc<SnapshotHeader>> {
        let header = self.header.as_ref().filter(|_| self.ended);
        header.map(|(header, _)| Arc::clone(header))
    }

    /// What is not known to be sound is to come again.
    pub(super) fn forget_rest(&mut self) {
        self.rest.clear();
    }

    /// Takes in what comes next.
    pub(super) fn feed(&mut self, bytes: &Bytes) -> Result<(), SnapshotError> {
        self.rest.extend_from_slice(bytes);
        while !self.ended && self.rest.len() >= self.needs()? {
            let part = self.rest.split_to(self.needs()?).freeze();
            self.part(&part)?;
            self.sound += part.len() as u64;
        }
        if self.ended && !self.rest.is_empty() {
            self.rest.clear();
            return Err(SnapshotError::End);
        }
        Ok(())
    }

    /// How long the next part is, as far as can be told.
    fn needs(&self) -> Result<usize, SnapshotError> {
        let Some(pieces) = &self.pieces else {
            if self.rest.len() < SNAPSHOT_FIXED_BYTES {
                return Ok(SNAPSHOT_FIXED_BYTES);
            }
            return SnapshotHeader::len_of(&self.rest).ok_or(SnapshotError::Header);
        };
        let Some(mut head) = self.rest.get(..PIECE_HEAD_BYTES) else {
            return Ok(PIECE_HEAD_BYTES);
        };
        match head.get_u32_le() {
            u32::MAX => Ok(SNAPSHOT_END_BYTES),
            length if length as usize <= PIECE_BYTES_MAX => Ok(PIECE_HEAD_BYTES + length as usize),
            _ => Err(pieces.damaged()),
        }
    }

    fn part(&mut self, part: &Bytes) -> Result<(), SnapshotError> {
        let Some(pieces) = &mut self.pieces else {
            let (header, sum) = SnapshotHeader::read(part)?;
            if header.maker.cluster != self.cluster {
                return Err(SnapshotError::Header);
            }
            self.pieces = Some(Pieces::new(self.cluster, sum));
            self.header = Some((Arc::new(header), sum));
            return Ok(());
        };
        match pieces.take(part)? {
            Some(Taken::Piece(_)) => Ok(()),
            Some(Taken::End) => {
                self.ended = true;
                Ok(())
            }
            None => Err(pieces.damaged()),
        }
    }
}
