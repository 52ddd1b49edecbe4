//! The next segment, made before it is needed.
//!
//! One is kept ahead, so that a full segment is followed without a wait, and so that a disk without room
//! is known while there still is some. One that a process could not finish the next one goes on with, so that a node
//! that never lives for long gets on too. A segment is made under another name and gets its own once it is
//! filled with zeros and synced; once the folder is synced too it is ready. So a file with the name of a
//! segment always has its whole length. If there is no room that is told once, and tried again when it is
//! asked for by [`Log::retry_room`](crate::Log::retry_room): there is no clock here, and each attempt fills
//! the disk to its last byte for a moment.
//!
//! A segment that is no longer needed becomes a spare too, under the number behind the last (`sweep`): then nothing is
//! filled, and nothing of that is in the way of appends. Its old content stays until it is written over; what tells
//! it from the new is the number of the segment, which every frame names. Invariants: at most [`SPARES_MAX`]
//! are ready, and none is taken while another is being made, whose number it would have to have; while there
//! is no room none is: its own is to be freed.

use crate::disk::{DiskError, FileId, Op};
use crate::layout::{FOLDER, new_name, segment_name};
use std::collections::VecDeque;
use std::io::ErrorKind;

/// How many segments wait at most: the one that must, and one more that was used before.
const SPARES_MAX: usize = 2;

/// A segment that waits for its first frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    pub(crate) number: u64,
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
    /// The number it had before, if it was used; zero if it holds zeros.
    pub(crate) was: u64,
}

/// What becomes of a segment that is no longer needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It becomes the spare of this number.
    Spare(u64),
    /// It is removed.
    Gone,
    /// That is known once the spare is made that is being made.
    Open,
}

#[derive(Clone, Copy, Debug)]
enum Making {
    Nothing,
    Filling {
        number: u64,
    },
    Naming(Spare),
    Syncing(Spare),
    /// There was no room for the file.
    Refused,
    /// There was none for its name, or for making that durable.
    Unnamed(Spare),
    Unsynced(Spare),
    /// Its name is taken back, so that another sync covers one that was given after the one that failed.
    Renaming(Spare),
    /// A segment that is no longer needed is given the number behind the last.
    Recycling,
    /// A file is in the way, left by an attempt that could not tidy up.
    Clearing {
        number: u64,
    },
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Do this next.
    Next(Op),
    /// A segment is ready.
    Ready,
    /// There is no room for one.
    Full,
    /// The disk failed.
    Failed(DiskError),
}

/// The segments ahead.
#[derive(Debug)]
pub(crate) struct Room {
    segment_bytes: u64,
    ready: VecDeque<Spare>,
    making: Making,
}

impl Room {
    pub(crate) fn new(segment_bytes: u64, ready: VecDeque<Spare>) -> Self {
        Self {
            segment_bytes,
            ready,
            making: Making::Nothing,
        }
    }

    /// Whether a segment is ready.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next segment.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.ready.pop_front()
    }

    /// What becomes of a segment of so many bytes that is no longer needed, while `active` is in use.
    pub(crate) fn fate(&self, active: u64, bytes: u64) -> Fate {
        let number = self.ready.back().map_or(active, |s| s.number) + 1;
        match self.making {
            _ if bytes != self.segment_bytes || self.ready.len() >= SPARES_MAX => Fate::Gone,
            Making::Nothing => Fate::Spare(number),
            Making::Refused | Making::Unnamed(_) | Making::Unsynced(_) => Fate::Gone,
            _ => Fate::Open,
        }
    }

    /// It begins to become one.
    pub(crate) fn begin_recycling(&mut self) {
        self.making = Making::Recycling;
    }

    /// It is ready, or cannot be.
    pub(crate) fn recycled(&mut self, spare: Option<Spare>) {
        self.making = Making::Nothing;
        self.ready.extend(spare);
    }

    /// The operation that makes segment `number`, the one behind the one in use, which has room for so many bytes; if none is
    /// ready or being made.
    pub(crate) fn want(&mut self, number: u64, left: u64) -> Option<Op> {
        let idle = matches!(self.making, Making::Nothing);
        (idle && self.ready.is_empty()).then(|| self.fill(number, left))
    }

    /// The same, after there was no room.
    pub(crate) fn retry(&mut self, number: u64) -> Option<Op> {
        match self.making {
            Making::Refused => Some(self.fill(number, 0)),
            Making::Unnamed(spare) => Some(self.name(spare)),
            Making::Unsynced(spare) => {
                self.making = Making::Renaming(spare);
                Some(Op::Rename {
                    from: segment_name(spare.number),
                    to: new_name(spare.number),
                })
            }
            _ => None,
        }
    }

    fn name(&mut self, spare: Spare) -> Op {
        self.making = Making::Naming(spare);
        Op::Rename {
            from: new_name(spare.number),
            to: segment_name(spare.number),
        }
    }

    fn fill(&mut self, number: u64, within: u64) -> Op {
        self.making = Making::Filling { number };
        Op::Create {
            name: new_name(number),
            bytes: self.segment_bytes,
            within,
            resumes: true,
        }
    }

    /// A file was filled, or could not be.
    pub(crate) fn filled(&mut self, result: Result<FileId, DiskError>) -> Step {
        let Making::Filling { number } = self.making else {
            return Step::Full;
        };
        let error = match result {
            Ok(file) => {
                return Step::Next(self.name(Spare {
                    number,
                    file,
                    bytes: self.segment_bytes,
                    was: 0,
                }));
            }
            Err(error) => error,
        };
        match error.kind {
            _ if is_full(&error) => {
                self.making = Making::Refused;
                Step::Full
            }
            ErrorKind::AlreadyExists => {
                self.making = Making::Clearing { number };
                Step::Next(Op::Remove {
                    name: new_name(number),
                })
            }
            _ => Step::Failed(error),
        }
    }

    /// A step after that was done, or failed.
    pub(crate) fn stepped(&mut self, result: Result<(), DiskError>) -> Step {
        if let Err(error) = result {
            return self.refused(error);
        }
        match self.making {
            Making::Renaming(spare) => Step::Next(self.name(spare)),
            Making::Naming(spare) => {
                self.making = Making::Syncing(spare);
                Step::Next(Op::SyncDirectory {
                    name: FOLDER.to_owned(),
                })
            }
            Making::Syncing(spare) => {
                self.making = Making::Nothing;
                self.ready.push_back(spare);
                Step::Ready
            }
            Making::Clearing { number } => Step::Next(self.fill(number, 0)),
            Making::Nothing
            | Making::Recycling
            | Making::Filling { .. }
            | Making::Refused
            | Making::Unnamed(_)
            | Making::Unsynced(_) => Step::Full,
        }
    }

    /// Some file systems need room for names, too.
    fn refused(&mut self, error: DiskError) -> Step {
        let retry = match self.making {
            Making::Naming(spare) => Making::Unnamed(spare),
            Making::Syncing(spare) | Making::Renaming(spare) => Making::Unsynced(spare),
            Making::Clearing { .. } => Making::Refused,
            _ => return Step::Failed(error),
        };
        if !is_full(&error) {
            return Step::Failed(error);
        }
        self.making = retry;
        Step::Full
    }
}

/// Whether it failed for lack of room.
pub(crate) fn is_full(error: &DiskError) -> bool {
    matches!(error.kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
