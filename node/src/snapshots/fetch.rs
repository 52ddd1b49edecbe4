//! At a follower: a snapshot is pulled, chunk by chunk.
//!
//! Invariants: at most one chunk is asked for; the next is asked for once the one before is on disk, and not before
//! the rate allows; who gives no answer is asked again, and given up after a while, with all that has come kept.

use crate::{driver::Driver, ports::Ports};
use kontiki_consensus::{Event, LogId, NodeId, Time};
use kontiki_log::SnapshotCommand;
use kontiki_wire::{PeerMessage, SnapshotChunk, SnapshotRequest};

/// How often one chunk is asked for before the transfer is given up.
const ATTEMPTS_MAX: u32 = 8;

/// A snapshot being fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching {
    from: NodeId,
    last: LogId,
    state: State,
    /// The rate allows the next chunk from here on.
    next_at: Time,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The disk is busy with what has come.
    Storing,
    /// So much has come, of the one with this header; the next is to be asked for.
    Wanting { at: u64, header: u32 },
    /// It was asked for, so often, the last time then.
    Asked {
        at: u64,
        header: u32,
        attempts: u32,
        since: Time,
    },
}

impl Driver {
    /// A leader's snapshot is to be fetched, in place of any other.
    pub(crate) fn fetch_snapshot(&mut self, now: Time, from: NodeId, last: LogId) {
        self.snapshots.fetching = Some(Fetching {
            from,
            last,
            state: State::Storing,
            next_at: now,
        });
        self.snapshots.todo.push(SnapshotCommand::Receive(last));
    }

    /// It is fetched no more; what has come is of no use.
    pub(super) fn end_fetching(&mut self, last: LogId) {
        if self.snapshots.fetching.take_if(|f| f.last == last).is_some() {
            self.snapshots.todo.push(SnapshotCommand::StopReceiving);
        }
    }

    /// There is no more to be fetched of it.
    pub(crate) fn fetched_whole(&mut self, last: LogId) {
        self.snapshots.fetching.take_if(|f| f.last == last);
    }

    /// The disk tells how much has come.
    pub(super) fn receiving(&mut self, last: LogId, at: u64, header: u32) {
        if let Some(fetching) = self.snapshots.fetching.as_mut().filter(|f| f.last == last) {
            fetching.state = State::Wanting { at, header };
        }
    }

    /// When the next chunk is to be asked for, if only the rate holds it up: waiting for the next look around instead would
    /// let through a small part of what it allows.
    pub(crate) fn chunk_due(&self) -> Time {
        match &self.snapshots.fetching {
            Some(fetching) if matches!(fetching.state, State::Wanting { .. }) => fetching.next_at,
            _ => Time::MAX,
        }
    }

    /// Asks for the next chunk, if it is time; or again for one that has not come.
    pub(crate) fn ask_for_chunk(&mut self, now: Time, ports: &mut impl Ports) {
        let patience = kontiki_consensus::Duration(self.patience().0.saturating_mul(2));
        let bytes_max = self.config.snapshots.chunk_bytes.clamp(1, 4 << 20);
        let Some(fetching) = &mut self.snapshots.fetching else {
            return;
        };
        let (at, header, attempts) = match fetching.state {
            State::Wanting { at, header } if now >= fetching.next_at => (at, header, 1),
            State::Asked {
                at,
                header,
                attempts,
                since,
            } if now >= since.after(patience) => (at, header, attempts + 1),
            _ => return,
        };
        let (from, last) = (fetching.from, fetching.last);
        if attempts > ATTEMPTS_MAX {
            return self.give_up_fetching(now, last);
        }
        fetching.state = State::Asked {
            at,
            header,
            attempts,
            since: now,
        };
        let request = SnapshotRequest {
            last,
            offset: at,
            header,
            bytes_max,
        };
        ports.send(self.config.group, from, PeerMessage::SnapshotRequest(request));
    }

    /// The transfer is broken off: it goes on when the leader tells of the snapshot again.
    fn give_up_fetching(&mut self, now: Time, last: LogId) {
        self.end_fetching(last);
        self.consensus.step(now, Event::SnapshotFailed(last));
    }

    /// A part of the snapshot comes.
    pub(crate) fn take_chunk(&mut self, now: Time, from: NodeId, chunk: SnapshotChunk) {
        let rate = self.config.snapshots.bytes_per_second.max(1);
        let fetching = self.snapshots.fetching.as_mut();
        let Some(fetching) = fetching.filter(|f| f.last == chunk.last && f.from == from) else {
            return;
        };
        let State::Asked { at, .. } = fetching.state else {
            return;
        };
        if chunk.total == 0 {
            return self.give_up_fetching(now, chunk.last);
        }
        // From the beginning: the leader has another one of this name.
        if chunk.bytes.is_empty() || (chunk.offset != at && chunk.offset != 0) {
            return;
        }
        fetching.state = State::Storing;
        let nanos = u128::from(chunk.bytes.len() as u64) * 1_000_000_000 / u128::from(rate);
        let pause = kontiki_consensus::Duration(u64::try_from(nanos).unwrap_or(u64::MAX));
        fetching.next_at = fetching.next_at.max(now).after(pause);
        self.snapshots.todo.push(SnapshotCommand::Received {
            last: chunk.last,
            offset: chunk.offset,
            bytes: chunk.bytes,
        });
    }
}
