//! Operations on snapshots that fail: which of them a node goes on without.
//!
//! Without room, or without a descriptor, there is no snapshot or note this time, and the node goes on: nothing rests on one that
//! was not told of. Whatever else fails ends the log. Invariants: what was given up leaves nothing under the name
//! of a whole snapshot; a file that could not be removed is in nobody's way: it is put aside, or removed, when its name is
//! needed; nothing is tried again and again.

use super::lane::{Action, Lane};
use super::{Snapshots, Task, name};
use crate::api::SnapshotEvent;
use crate::disk::{DiskError, GROWING, Op};
use crate::room::is_full;
use kontiki_consensus::LogId;
use std::io::ErrorKind;

/// How the name of a file ends that had the name of a snapshot and is none.
const ASIDE: &str = "aside";

impl Lane {
    /// What it is busy with has another name.
    pub(super) fn renamed(&mut self, to: &str) {
        if let Some((last, ending)) = &mut self.what {
            for whole in ["snap", "note"] {
                if to == name(*last, whole) {
                    *ending = whole;
                }
            }
        }
    }

    /// Does these before all else.
    fn first<const N: usize>(&mut self, actions: [Action; N]) {
        for action in actions.into_iter().rev() {
            self.queue.push_front(action);
        }
    }

    fn begins_with_create(&self, name: &str) -> bool {
        matches!(self.queue.front(), Some(Action::Create(next)) if next == name)
    }
}

impl Snapshots {
    /// An operation has failed.
    pub(super) fn action_failed(&mut self, task: Task, action: Action, error: DiskError) {
        match (action, error.kind) {
            // There was no room to make what was then given up.
            (Action::Do(Op::Remove { .. }), ErrorKind::NotFound) => {}
            (Action::Create(name), ErrorKind::AlreadyExists) => {
                let remove = Action::Do(Op::Remove { name: name.clone() });
                self.lane(task).first([remove, Action::Create(name)]);
            }
            (Action::Do(Op::Rename { from, to }), ErrorKind::AlreadyExists) if !to.ends_with(ASIDE) => {
                self.put_aside(task, from, to);
            }
            (action, _) if is_full(&error) || is_aside(&action) => self.no_room(task, &action, &error),
            _ => self.failed = Some(error),
        }
    }

    /// A file that is not used has the name that another one is to have.
    fn put_aside(&mut self, task: Task, from: String, to: String) {
        let aside = to.rsplit_once('.').map_or(to.as_str(), |(numbers, _)| numbers);
        let aside = format!("{aside}.{ASIDE}");
        tracing::warn!(
            "{to} is not used and has the name of another one: it becomes {aside}, and may be removed"
        );
        let old = aside.clone();
        self.lane(task).first([
            Action::Do(Op::Remove { name: old }),
            Action::Do(Op::Rename {
                from: to.clone(),
                to: aside,
            }),
            Action::Do(Op::Rename { from, to }),
        ]);
    }

    /// There is no room for what a lane is busy with, or for something that need not be done now.
    fn no_room(&mut self, task: Task, action: &Action, error: &DiskError) {
        tracing::warn!("a snapshot or note is not written, or a file not removed, for lack of room: {error}");
        if task == Task::Serving {
            return self.cannot_serve(action);
        }
        let lane = self.lane(task);
        if let Action::Do(Op::Remove { name }) = action
            && !lane.begins_with_create(name)
        {
            // It stays. A start finds it again, and what is to have its name removes it.
            return;
        }
        let Some((last, ending)) = lane.what.take() else {
            return;
        };
        match action {
            // Without the folder there is nothing in it.
            Action::Do(Op::MakeDirectory { .. }) => lane.queue.clear(),
            Action::Do(Op::SyncDirectory { name }) if name != GROWING => lane.queue.clear(),
            // What has come of it stays.
            Action::Open(_) => lane.queue.retain(Action::must_be_done),
            _ => {
                lane.queue.retain(Action::must_be_done);
                lane.remove(name(last, ending));
            }
        }
        if task != Task::Note {
            self.give_up(task, last, matches!(action, Action::Open(_)), error);
        }
    }

    /// A snapshot is not written or received. `stays` says that what has come of it does.
    fn give_up(&mut self, task: Task, last: LogId, stays: bool, error: &DiskError) {
        let why = format!("there is no room for it: {error}");
        self.lane(task)
            .push([Action::Tell(SnapshotEvent::Refused { last, why })]);
        if !stays {
            self.parts.remove(&last);
        }
        self.naming.remove(&last);
        match task {
            Task::Own => self.writing = None,
            Task::Incoming => self.receiving = None,
            Task::Serving | Task::Note => {}
        }
    }

    /// The file to be served from cannot be opened now: who wants to read is told so, and may ask again.
    fn cannot_serve(&mut self, action: &Action) {
        if !matches!(action, Action::Open(_)) {
            return;
        }
        self.served = None;
        while let Some(Action::Read { token, .. }) = self.serving.queue.front() {
            let token = *token;
            self.serving.queue.pop_front();
            self.events.push(SnapshotEvent::Read { token, found: None });
        }
    }
}

/// Whether it puts something aside.
fn is_aside(action: &Action) -> bool {
    matches!(action, Action::Do(Op::Rename { to, .. }) if to.ends_with(ASIDE))
}
