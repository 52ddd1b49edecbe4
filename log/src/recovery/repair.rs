//! What is changed when a log is opened: the end is cut, spares are made ready, indexes that lack are written.
//!
//! Invariant: each step can be interrupted and done again.

use super::{End, Opening};
use crate::api::LogError;
use crate::blocking::{clear, open, perform, read, remove, sync_directory, unless_full, write};
use crate::disk::{Disk, Op};
use crate::layout::{FOLDER, SECTOR, align, segment_name};
use crate::log::Active;
use crate::room::Spare;
use crate::scan::Segment;
use std::collections::VecDeque;

impl<D: Disk> Opening<'_, D> {
    /// Cuts what is torn, and makes certain of the last frame.
    pub(super) fn repair_end(&mut self, segment: &Segment, end: &End) -> Result<Active, LogError> {
        let file = segment.file;
        if let Some(header) = end.last.as_ref().filter(|_| end.is_cut) {
            // First of all, for it says what the rest is: zeros in a sector whose header knows of records there would look like
            // rot the next time. And a mark is there before anything else of the damage goes.
            let sector = header.encode(self.identity.cluster);
            write(self.disk, file, header.offset, vec![sector])?;
        }
        for (_, from, to) in end.dirty.iter().filter(|(number, ..)| *number == segment.number) {
            clear(self.disk, file, *from, *to)?;
        }
        if let Some(header) = self.header.take() {
            write(self.disk, file, 0, vec![header.encode()])?;
        }
        // The first frame was written with the header of the segment.
        let offset = end.last.as_ref().map_or(0, |f| f.offset);
        let from = if offset <= SECTOR { 0 } else { offset };
        let bytes = read(self.disk, file, from, end.offset - from)?;
        let buffers = match &end.last {
            // Only its header changes, and that is one sector: the frame is as it was or as it is to be.
            Some(header) if end.is_cut => {
                let start = (offset - from) as usize;
                let body = bytes.slice(start + header.header_len as usize..);
                vec![bytes.slice(..start), header.encode(self.identity.cluster), body]
            }
            _ => vec![bytes],
        };
        write(self.disk, file, from, buffers)?;
        let Segment {
            number, bytes, was, ..
        } = *segment;
        Ok(Active {
            number,
            file,
            bytes,
            offset: align(end.offset),
            was,
            salt: segment.salt.unwrap_or_default(),
            next_salt: self.next_salt,
        })
    }

    /// Makes the segments behind the last ready for use. Those of another length than is wanted now are removed,
    /// the last first, so that there is never a gap.
    pub(super) fn repair_spares(
        &mut self,
        mut spares: Vec<Segment>,
        end: &End,
    ) -> Result<VecDeque<Spare>, LogError> {
        let fitting = spares
            .iter()
            .take_while(|s| s.bytes == self.options.segment_bytes)
            .count();
        for odd in spares.drain(fitting..).rev() {
            perform(self.disk, Op::Close { file: odd.file })?;
            remove(self.disk, odd.name())?;
            sync_directory(self.disk, FOLDER)?;
        }
        for spare in &spares {
            for (_, from, to) in end.dirty.iter().filter(|(number, ..)| *number == spare.number) {
                clear(self.disk, spare.file, *from, *to)?;
            }
        }
        let spare = |s: Segment| Spare {
            number: s.number,
            file: s.file,
            bytes: s.bytes,
            was: s.was,
        };
        Ok(spares.into_iter().map(spare).collect())
    }

    /// Removes what was never finished, but for what is gone on with, and gives full segments the indexes they lack.
    pub(super) fn repair_rest(&mut self, begun: Option<&str>) -> Result<(), LogError> {
        for name in std::mem::take(&mut self.unfinished) {
            if begun == Some(name.as_str()) {
                continue;
            }
            // Where there is no room for a removal it is made way for when its name is needed.
            unless_full(remove(self.disk, name).and_then(|()| sync_directory(self.disk, FOLDER)))?;
        }
        for (number, offset, index) in std::mem::take(&mut self.indexes) {
            let (file, _) = open(self.disk, segment_name(number))?;
            unless_full(write(self.disk, file, offset, vec![index]))?;
            perform(self.disk, Op::Close { file })?;
        }
        Ok(())
    }
}
