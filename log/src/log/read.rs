//! Reading, as far as it needs the disk.

use super::{Log, Purpose};
use crate::api::{DAMAGES_MAX, LogError, LogEvent};
use crate::disk::{Disk, DiskError, FileId, Op};
use crate::layout::{segment_name, stride};
use crate::reader::{CheckBudget, Damage, Piece, Progress};
use crate::room::is_full;
use crate::words;
use bytes::Bytes;

impl<D: Disk> Log<D> {
    /// Does what a reading needs next: a piece, a file to read it from, or to be answered.
    pub(super) fn read_on(&mut self, number: u64) {
        let Some(reading) = self.readings.get_mut(&number) else {
            return;
        };
        let stride = stride(self.options.segment_bytes);
        let group = self.groups.get(&reading.group);
        if let Some(first) = group.and_then(|g| reading.compacted(g)) {
            return self.answer(number, Err(LogError::Compacted { first }));
        }
        let written = (self.active.number, self.active.offset);
        let Some(piece) = group.and_then(|g| reading.next_piece(g, stride, written)) else {
            if let Some(reading) = self.readings.remove(&number) {
                self.events.push_back(reading.into_answer());
            }
            return;
        };
        let segment = piece.entry.segment;
        if let Some(file) = self.files.begin_read(segment) {
            let op = Op::Read {
                file,
                offset: piece.entry.offset.into(),
                bytes: piece.bytes,
            };
            return self.submit(op, Purpose::Read(number, piece));
        }
        let waiting = self.opening.entry(segment).or_default();
        waiting.push(number);
        if waiting.len() == 1 {
            self.submit(
                Op::Open {
                    name: segment_name(segment),
                },
                Purpose::Open(segment),
            );
        }
    }

    /// A segment was opened, or could not be.
    pub(super) fn opened(&mut self, segment: u64, result: Result<FileId, DiskError>) {
        if let Err(error) = &result
            && is_full(error)
        {
            // Without a descriptor nothing is wrong with the file: who waits for it waits on.
            return self.open_refused(segment, error);
        }
        self.refused.opens.remove(&segment);
        let waiting = self.opening.remove(&segment).unwrap_or_default();
        self.tell_full();
        match result {
            // Nobody reads it any more, and it must not stay open under a number that it loses.
            Ok(file) if segment < self.first + u64::from(self.removing) => {
                self.submit(Op::Close { file }, Purpose::Close);
                waiting.into_iter().for_each(|number| self.read_on(number));
            }
            Ok(file) => {
                for op in self.files.add(segment, file) {
                    self.submit(op, Purpose::Close);
                }
                waiting.into_iter().for_each(|number| self.read_on(number));
            }
            // It was removed meanwhile: what is wanted of it is compacted.
            Err(_) if segment < self.first + u64::from(self.removing) => {
                waiting.into_iter().for_each(|number| self.read_on(number));
            }
            Err(error) => {
                self.tell_damage(segment, 0, words::unreadable(&error));
                waiting
                    .into_iter()
                    .for_each(|number| self.answer(number, Err(error.clone().into())));
            }
        }
    }

    /// Verifies the piece that was read first, if the budget allows; false if nothing was done. The budget is whole again then.
    pub(super) fn check_piece(&mut self) -> bool {
        let next = self.budget.has_room().then(|| self.pieces.pop_front());
        let Some((number, piece, result)) = next.flatten() else {
            self.budget = CheckBudget::default();
            return false;
        };
        self.budget.spend(result.as_ref().map_or(0, Bytes::len));
        self.read(number, piece, result);
        true
    }

    /// A piece was read, or could not be.
    fn read(&mut self, number: u64, piece: Piece, result: Result<Bytes, DiskError>) {
        self.files.end_read(piece.entry.segment);
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(_) if piece.entry.segment < self.first + u64::from(self.removing) => {
                return self.read_on(number);
            }
            Err(error) => {
                let at = u64::from(piece.entry.offset);
                self.tell_damage(piece.entry.segment, at, words::unreadable(&error));
                return self.answer(number, Err(error.into()));
            }
        };
        let Some(reading) = self.readings.get_mut(&number) else {
            return;
        };
        let Some(group) = self.groups.get(&reading.group) else {
            return;
        };
        let salt = self.salts.get(&piece.entry.segment).copied();
        match reading.take((self.identity.cluster, salt), group, piece, &bytes) {
            Progress::GoOn => self.read_on(number),
            Progress::Damaged(Damage {
                segment,
                offset,
                index,
                what,
            }) => {
                let file = format!("{}: {}", self.disk.name(), segment_name(segment));
                self.tell_damage(segment, offset, words::damaged_range(&file, offset, index, &what));
                self.answer(number, Err(words::damaged(&file, offset, index, &what)));
            }
        }
    }

    /// The operator is told of a place once: the node goes on, and its readers do not say so.
    fn tell_damage(&mut self, segment: u64, offset: u64, what: String) {
        if self.damaged.len() < DAMAGES_MAX && self.damaged.insert((segment, offset)) {
            tracing::error!("node {}: {what}", self.identity.node);
            self.events.push_back(LogEvent::Damaged(what.into()));
        }
    }

    fn answer(&mut self, number: u64, result: Result<Vec<kontiki_consensus::Run>, LogError>) {
        if let Some(reading) = self.readings.remove(&number) {
            self.events.push_back(reading.answer(result));
        }
    }
}
