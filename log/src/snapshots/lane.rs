//! One row of operations on one file: each begins when the one before is done.

use crate::api::SnapshotEvent;
use crate::disk::{FileId, GROWING, Op};
use bytes::Bytes;
use kontiki_consensus::LogId;
use std::collections::VecDeque;

/// How many bytes of what has come before are read at once.
pub(super) const SCAN_BYTES: u64 = 1 << 20;

/// Something to be done, with the lane's file where one is needed.
#[derive(Debug)]
pub(super) enum Action {
    Do(Op),
    Create(String),
    Open(String),
    Write(u64, Vec<Bytes>),
    /// Read what has come before, from here on.
    Scan(u64),
    Read {
        token: u64,
        last: LogId,
        offset: u64,
        bytes: u64,
    },
    Close,
    Tell(SnapshotEvent),
    /// A note has its name for good: those before it are of no more use.
    Noted(LogId),
}

impl Action {
    /// Whether it must be done although what the lane was busy with is given up.
    pub(super) fn must_be_done(&self) -> bool {
        matches!(
            self,
            Self::Do(Op::Remove { .. } | Op::MakeDirectory { .. } | Op::SyncDirectory { .. }) | Self::Close
        )
    }
}

/// What comes next.
pub(super) enum Next {
    Do(Op),
    Tell(SnapshotEvent),
    Noted(LogId),
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Action>,
    /// Under way.
    pub(super) current: Option<Action>,
    pub(super) file: Option<FileId>,
    /// The snapshot it is busy with, and how its name ends now.
    pub(super) what: Option<(LogId, &'static str)>,
}

impl Lane {
    pub(super) fn push<const N: usize>(&mut self, actions: [Action; N]) {
        self.queue.extend(actions);
    }

    /// Whether nothing is to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.current.is_none()
    }

    /// What was to be done with the file is not; the file is closed and removed once it is there.
    pub(super) fn give_up(&mut self, name: String) {
        let creates = |a: &Action| matches!(a, Action::Create(_) | Action::Open(_));
        let is_there = self.file.is_some() || self.current.as_ref().is_some_and(creates);
        self.queue.retain(Action::must_be_done);
        if is_there {
            self.remove(name);
        }
    }

    /// The file is closed, if it is open, and removed.
    pub(super) fn remove(&mut self, name: String) {
        let folder = GROWING.to_owned();
        self.push([
            Action::Close,
            Action::Do(Op::Remove { name }),
            Action::Do(Op::SyncDirectory { name: folder }),
        ]);
    }

    /// Whether what came before a restart is still being looked at.
    pub(super) fn scans(&self) -> bool {
        let scans = |action: &Action| matches!(action, Action::Scan(_));
        self.current.as_ref().is_some_and(scans) || self.queue.iter().any(scans)
    }

    /// Takes the next action, unless one is under way.
    pub(super) fn next(&mut self) -> Next {
        while self.current.is_none()
            && let Some(action) = self.queue.pop_front()
        {
            let op = match action {
                Action::Tell(event) => return Next::Tell(event),
                Action::Noted(last) => return Next::Noted(last),
                Action::Do(ref op) => Some(op.clone()),
                Action::Create(ref name) => Some(Op::Create {
                    name: name.clone(),
                    bytes: 0,
                    within: 0,
                    resumes: false,
                }),
                Action::Open(ref name) => Some(Op::Open { name: name.clone() }),
                Action::Close => self.file.take().map(|file| Op::Close { file }),
                Action::Write(offset, ref buffers) => self.file.map(|file| Op::Write {
                    file,
                    offset,
                    buffers: buffers.clone(),
                    sync: true,
                }),
                Action::Scan(offset) => self.read(offset, SCAN_BYTES),
                Action::Read { offset, bytes, .. } => self.read(offset, bytes),
            };
            if let Some(op) = op {
                self.current = Some(action);
                return Next::Do(op);
            }
        }
        Next::Nothing
    }

    fn read(&self, offset: u64, bytes: u64) -> Option<Op> {
        self.file.map(|file| Op::Read { file, offset, bytes })
    }
}
