//! Group commit: writes that wait become one frame.
//!
//! A frame does to each group, in this order: term and vote, truncation, records. Writes are therefore
//! joined as long as that is also the order they came in: a write of term, vote or truncation behind one
//! of records begins a frame of its own. Invariant: nothing overtakes; a write is named as done by the
//! frame that holds the last of it.

use kontiki_consensus::{GroupId, HardState, Index, Run, Write, WriteId};
use kontiki_wire::frame::{FrameHeader, FramePart, GROUPS_MAX};
use kontiki_wire::record::run_bytes;
use kontiki_wire::{ClusterId, record};
use std::collections::VecDeque;

/// What one frame does to one group.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) group: GroupId,
    pub(crate) hard_state: Option<HardState>,
    pub(crate) truncate: Option<Index>,
    pub(crate) runs: Vec<Run>,
    pub(crate) bytes: usize,
    /// The last write that is done once the frame is on disk.
    pub(crate) done: Option<WriteId>,
}

/// What one frame does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) parts: Vec<Part>,
    pub(crate) bytes: usize,
}

/// Takes as much off the queue as one frame may hold; `None` if nothing waits.
pub(crate) fn gather(queue: &mut VecDeque<(GroupId, Write)>, bytes_max: usize) -> Option<Batch> {
    let mut batch = Batch::default();
    while let Some((group, write)) = queue.front_mut() {
        let Some(part) = batch.part_for(*group, write) else {
            break;
        };
        part.hard_state = write.hard_state.take().or(part.hard_state);
        part.truncate = write.truncate.take().or(part.truncate);
        if !batch.take_runs(*group, &mut write.runs, bytes_max) {
            batch
                .parts
                .pop_if(|p| p.hard_state.is_none() && p.runs.is_empty());
            break;
        }
        batch.done(*group, write.id);
        queue.pop_front();
    }
    (!batch.parts.is_empty()).then_some(batch)
}

impl Batch {
    /// The part that can take this write in; `None` if the write must wait for the next frame.
    fn part_for(&mut self, group: GroupId, write: &Write) -> Option<&mut Part> {
        let plain = write.hard_state.is_none() && write.truncate.is_none();
        // What is removed and what replaces it stand in one frame: the first record always has room in an empty one.
        if write.truncate.is_some() && self.bytes > 0 {
            return None;
        }
        if let Some(n) = self.parts.iter().position(|p| p.group == group) {
            let fits = |part: &&mut Part| plain || (part.runs.is_empty() && part.truncate.is_none());
            return self.parts.get_mut(n).filter(fits);
        }
        (self.parts.len() < GROUPS_MAX).then(|| {
            self.parts.push(Part {
                group,
                hard_state: None,
                truncate: None,
                runs: Vec::new(),
                bytes: 0,
                done: None,
            });
            self.parts.last_mut()
        })?
    }

    /// Takes runs as far as there is room, at least a record if there is none yet; false if some are left.
    fn take_runs(&mut self, group: GroupId, runs: &mut Vec<Run>, bytes_max: usize) -> bool {
        let Some(part) = self.parts.iter_mut().find(|p| p.group == group) else {
            return false;
        };
        let mut taken = 0;
        while let Some(run) = runs.get_mut(taken) {
            let room = bytes_max.saturating_sub(self.bytes);
            let head = run.fitting(room);
            let bytes = run_bytes(&head);
            if bytes > room && self.bytes > 0 {
                break;
            }
            self.bytes += bytes;
            part.bytes += bytes;
            let rest = run.slice(head.last().next(), run.last());
            part.runs.push(head);
            match rest {
                Some(rest) => *run = rest,
                None => taken += 1,
            }
        }
        runs.drain(..taken);
        runs.is_empty()
    }

    fn done(&mut self, group: GroupId, id: WriteId) {
        if let Some(part) = self.parts.iter_mut().find(|p| p.group == group) {
            part.done = Some(id);
        }
    }

    /// Whether it holds records: what holds none may use the room kept for terms and votes.
    pub(crate) fn has_records(&self) -> bool {
        self.bytes > 0
    }

    /// The header of its frame.
    pub(crate) fn header(&self, segment: u64, offset: u64, sequence: u64) -> FrameHeader {
        let part = |p: &Part| FramePart {
            group: p.group,
            hard_state: p.hard_state,
            truncate: p.truncate,
            first: p.runs.first().map_or(Index::ZERO, Run::first),
            count: p.runs.iter().map(Run::len).sum::<usize>() as u32,
            bytes: p.bytes as u32,
        };
        FrameHeader {
            header_len: FrameHeader::len_of(self.parts.len()) as u16,
            segment,
            offset,
            sequence,
            parts: self.parts.iter().map(part).collect(),
        }
    }

    /// Appends the bytes of its records.
    pub(crate) fn encode_body(&self, cluster: ClusterId, out: &mut Vec<bytes::Bytes>) {
        for part in &self.parts {
            for run in &part.runs {
                record::encode_run(cluster, part.group, run, out);
            }
        }
    }
}
