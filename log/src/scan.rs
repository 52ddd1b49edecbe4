//! Reading a segment from its beginning to where its frames end, and what may lie behind.

use crate::api::LogError;
use crate::blocking::{PIECE, read};
use crate::disk::{Disk, DiskError, FileId};
use crate::layout::{SECTOR, align, segment_name, stride};
use crate::replay::{Found, Replay, Torn};
use crate::words;
use bytes::Bytes;
use kontiki_wire::frame::{FrameError, FrameHeader};
use kontiki_wire::segment::{SegmentHeader, SegmentIndex, TRAILER_BYTES};
use kontiki_wire::{ClusterId, Salt};

/// A file with the name of a segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
    pub(crate) header: Option<SegmentHeader>,
    /// The number it had before, if it is used again; zero if there must be zeros behind its frames.
    pub(crate) was: u64,
    /// Its salt, by its header or by that of the segment before it.
    pub(crate) salt: Option<Salt>,
}

/// Where the frames of a segment end.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The end of the last sound frame, in bytes; of the header, if there is none.
    pub(crate) end: u64,
    /// The last frame, as it is to be.
    pub(crate) last: Option<FrameHeader>,
    /// The frame at the end that is not sound, if its header is.
    pub(crate) torn: Option<Torn>,
}

/// What lies behind the end of the frames.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// A frame that was written later than the next one will be.
    pub(crate) later: Option<u64>,
    /// From the first byte that is not zero to behind the last.
    pub(crate) dirty: Option<(u64, u64)>,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        segment_name(self.number)
    }

    /// Applies all frames; stops at the first that is not there or not sound, whose sound part is not applied.
    pub(crate) fn scan(&self, disk: &mut impl Disk, replay: &mut Replay) -> Result<Scan, LogError> {
        let mut pieces = Pieces {
            file: self.file,
            bytes: self.bytes,
            from: 0,
            piece: Bytes::new(),
        };
        let mut scan = Scan {
            end: SECTOR,
            last: None,
            torn: None,
        };
        loop {
            let at = align(scan.end);
            let sector = pieces.get(disk, at, SECTOR)?;
            let header = match FrameHeader::read(replay.cluster, (self.number, self.salt), at, &sector) {
                Ok(header) if header.sequence == replay.sequence => header,
                Ok(_) | Err(FrameError::Absent) => return Ok(scan),
                Err(newer) => return Err(words::newer(&self.name(), at, &newer.to_string())),
            };
            let body = pieces.get(disk, at + u64::from(header.header_len), header.body_len())?;
            match replay.examine(&header, &body, self.was > 0) {
                Found::Sound(contents) => {
                    replay.apply(&header, stride(self.bytes), &contents);
                    scan.end = header.end();
                    scan.last = Some(header);
                }
                Found::Torn(torn) => {
                    scan.torn = Some(torn);
                    return Ok(scan);
                }
                Found::Newer(error) => return Err(words::newer(&self.name(), at, &error.to_string())),
            }
        }
    }

    /// Looks at what lies between two places: frames later than `sequence`, and anything else but zeros.
    pub(crate) fn behind(
        &self,
        disk: &mut impl Disk,
        cluster: ClusterId,
        sequence: u64,
        (from, to): (u64, u64),
    ) -> Result<Behind, DiskError> {
        let mut behind = Behind::default();
        let mut at = from - from % SECTOR;
        while at < to {
            let piece = read(disk, self.file, at, (to - at).min(PIECE))?;
            let skip = from.saturating_sub(at) as usize;
            if let Some((first, last)) = dirty(&piece, skip) {
                let (first, last) = (at + first as u64, at + last as u64);
                behind.dirty = Some((behind.dirty.map_or(first, |(first, _)| first), last));
                behind.later = behind.later.or_else(|| self.later(cluster, sequence, at, &piece));
            }
            at += piece.len() as u64;
        }
        Ok(behind)
    }

    fn later(&self, cluster: ClusterId, sequence: u64, at: u64, piece: &Bytes) -> Option<u64> {
        // Without the salt only what stands behind the header of the segment is certain to be no client's.
        let known = |at: u64| self.salt.is_some() || at == SECTOR;
        let sectors = piece.chunks(SECTOR as usize).enumerate();
        let mut places = sectors
            .map(|(n, sector)| (at + n as u64 * SECTOR, sector))
            .filter(|(at, _)| known(*at));
        let later = |(at, sector): &(u64, &[u8])| match FrameHeader::read(
            cluster,
            (self.number, self.salt),
            *at,
            sector,
        ) {
            Ok(header) => header.sequence > sequence,
            Err(FrameError::Absent) => false,
            Err(FrameError::Unknown { .. }) => true,
        };
        places.find(later).map(|(at, _)| at)
    }

    /// The index at its end, if there is a sound one; with where it begins.
    pub(crate) fn index(
        &self,
        disk: &mut impl Disk,
        cluster: ClusterId,
    ) -> Result<Option<(SegmentIndex, u64)>, DiskError> {
        let trailer = read(
            disk,
            self.file,
            self.bytes - TRAILER_BYTES as u64,
            TRAILER_BYTES as u64,
        )?;
        let length = SegmentIndex::len_of(&trailer).filter(|length| *length <= self.bytes - SECTOR);
        let Some(length) = length else { return Ok(None) };
        let from = self.bytes - length;
        let index = SegmentIndex::read(cluster, &read(disk, self.file, from, length)?);
        Ok(index
            .filter(|i| i.segment == self.number && Some(i.salt) == self.salt && i.end <= from)
            .map(|index| (index, from)))
    }
}

/// From the first byte behind `skip` that is not zero to behind the last, within a piece.
fn dirty(piece: &[u8], skip: usize) -> Option<(usize, usize)> {
    const ZEROS: [u8; SECTOR as usize] = [0; SECTOR as usize];
    let rest = piece.get(skip..)?;
    // Whole sectors at once: almost all of them are zeros.
    let is_dirty = |sector: &&[u8]| ZEROS.get(..sector.len()) != Some(*sector);
    let clean = rest.chunks(ZEROS.len()).take_while(|s| !is_dirty(s)).count() * ZEROS.len();
    let first = clean + rest.get(clean..)?.iter().position(|b| *b != 0)?;
    let clean = rest.rchunks(ZEROS.len()).take_while(|s| !is_dirty(s)).count() * ZEROS.len();
    let last = rest
        .get(..rest.len().saturating_sub(clean))?
        .iter()
        .rposition(|b| *b != 0)?;
    Some((skip + first, skip + last + 1))
}

/// A file, read in large pieces.
struct Pieces {
    file: FileId,
    bytes: u64,
    from: u64,
    piece: Bytes,
}

impl Pieces {
    /// These bytes of the file; fewer at its end.
    fn get(&mut self, disk: &mut impl Disk, at: u64, bytes: u64) -> Result<Bytes, DiskError> {
        let at = at.min(self.bytes);
        let bytes = bytes.min(self.bytes - at);
        let there = self.from + self.piece.len() as u64;
        if at < self.from || at + bytes > there {
            let length = bytes.max(PIECE).min(self.bytes - at);
            (self.from, self.piece) = (at, read(disk, self.file, at, length)?);
        }
        let start = (at - self.from) as usize;
        Ok(self.piece.slice(start..start + bytes as usize))
    }
}
