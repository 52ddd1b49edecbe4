//! Group commit: writes that wait become one frame.
//!
//! A frame does to each group, in this order: term and vote, truncation or installation, records, purge. Writes are
//! therefore joined as long as that is also the order they came in: a write of term, vote or truncation behind one
//! of records begins a frame of its own, and so does an installation. A purge concerns what no write changes any
//! more, and may join any. The records of a group in a frame are of one term, which its header names. Invariant: nothing overtakes; a write is named as done by the
//! frame that holds the last of it.

use crate::group::Content;
use kontiki_consensus::{Base, GroupId, HardState, Index, Run, Runs, Term, Write, WriteId};
use kontiki_wire::frame::{BasePart, FrameHeader, FramePart, GROUPS_MAX};
use kontiki_wire::record::run_bytes;
use kontiki_wire::{BodySum, ClusterId, Salt, base_bytes, encode_base, record};
use std::collections::VecDeque;

/// Where the log of a group is to begin.
#[derive(Clone, Debug)]
pub(crate) struct NewBase {
    /// All of the log goes; if not, what is before the base.
    pub(crate) install: bool,
    pub(crate) base: Box<Base>,
}

/// What one frame does to one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) group: GroupId,
    pub(crate) hard_state: Option<HardState>,
    pub(crate) truncate: Option<Index>,
    pub(crate) base: Option<NewBase>,
    pub(crate) runs: Vec<Run>,
    pub(crate) bytes: usize,
    /// The last write that is done once the frame is on disk.
    pub(crate) done: Option<WriteId>,
}

impl Part {
    /// What it has in the body.
    pub(crate) fn content(&self) -> Content<'_> {
        (self.base.as_ref().map(|b| &*b.base), &self.runs)
    }
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
        if let Some(base) = write.install.take() {
            part.base = Some(NewBase { install: true, base });
        }
        if !batch.take_runs(*group, &mut write.runs, bytes_max) || !batch.take_purge(*group, &mut write.purge)
        {
            batch
                .parts
                .pop_if(|p| p.hard_state.is_none() && p.base.is_none() && p.runs.is_empty());
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
        if (write.truncate.is_some() && self.bytes > 0) || (write.install.is_some() && !self.parts.is_empty())
        {
            return None;
        }
        if let Some(n) = self.parts.iter().position(|p| p.group == group) {
            let fits = |part: &&mut Part| {
                plain || (part.runs.is_empty() && part.truncate.is_none() && part.base.is_none())
            };
            return self.parts.get_mut(n).filter(fits);
        }
        (self.parts.len() < GROUPS_MAX).then(|| {
            self.parts.push(Part {
                group,
                ..Part::default()
            });
            self.parts.last_mut()
        })?
    }

    /// Takes runs of one term as far as there is room, at least a record if there is none yet; false if some are left.
    fn take_runs(&mut self, group: GroupId, runs: &mut Runs, bytes_max: usize) -> bool {
        let Some(part) = self.parts.iter_mut().find(|p| p.group == group) else {
            return false;
        };
        let mut left = std::mem::take(runs).into_iter();
        let mut next = left.next();
        while let Some(run) = next {
            let room = bytes_max.saturating_sub(self.bytes);
            let head = run.fitting(room);
            let bytes = run_bytes(&head);
            let other_term = part.runs.first().is_some_and(|first| first.term() != run.term());
            if other_term || (bytes > room && self.bytes > 0) {
                runs.push(run);
                break;
            }
            self.bytes += bytes;
            part.bytes += bytes;
            let rest = run.slice(head.last().next(), run.last());
            part.runs.push(head);
            next = rest.or_else(|| left.next());
        }
        left.for_each(|run| runs.push(run));
        runs.is_empty()
    }

    /// Takes a purge; false if it must wait for the next frame.
    fn take_purge(&mut self, group: GroupId, purge: &mut Option<Box<Base>>) -> bool {
        let part = self.parts.iter_mut().find(|p| p.group == group);
        let free = part.filter(|p| !p.base.as_ref().is_some_and(|b| b.install));
        if let Some(part) = free
            && let Some(base) = purge.take()
        {
            part.base = Some(NewBase { install: false, base });
        }
        purge.is_none()
    }

    /// Tells of a base once more, unless the batch does so already.
    pub(crate) fn tell_of(&mut self, group: GroupId, base: &Base) {
        let again = || NewBase {
            install: false,
            base: Box::new(base.clone()),
        };
        match self.parts.iter_mut().find(|p| p.group == group) {
            Some(part) => drop(part.base.get_or_insert_with(again)),
            None => self.parts.push(Part {
                group,
                base: Some(again()),
                ..Part::default()
            }),
        }
    }

    /// How many bytes it has in the body of its frame.
    pub(crate) fn body_bytes(&self) -> usize {
        let bases = self.parts.iter().filter_map(|p| p.base.as_ref());
        self.bytes + bases.map(|b| base_bytes(&b.base)).sum::<usize>()
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
    pub(crate) fn header(
        &self,
        (segment, salt): (u64, Salt),
        offset: u64,
        sequence: u64,
        body_sum: u32,
    ) -> FrameHeader {
        let part = |p: &Part| FramePart {
            group: p.group,
            hard_state: p.hard_state,
            truncate: p.truncate,
            base: p.base.as_ref().map(|b| BasePart {
                install: b.install,
                bytes: base_bytes(&b.base) as u16,
            }),
            records_term: p.runs.first().map_or(Term::ZERO, Run::term),
            first: p.runs.first().map_or(Index::ZERO, Run::first),
            count: p.runs.iter().map(Run::len).sum::<usize>() as u32,
            bytes: p.bytes as u32,
        };
        FrameHeader {
            header_len: FrameHeader::len_of(self.parts.len()) as u16,
            segment,
            salt,
            offset,
            sequence,
            body_sum,
            parts: self.parts.iter().map(part).collect(),
        }
    }

    /// Appends the bytes of its body; gives their [`BodySum`].
    pub(crate) fn encode_body(&self, cluster: ClusterId, salt: Salt, out: &mut Vec<bytes::Bytes>) -> u32 {
        let mut sum = BodySum::new(salt);
        for part in &self.parts {
            if let Some(base) = &part.base {
                let block = encode_base(cluster, part.group, &base.base);
                sum.add_base(&block);
                out.push(block);
            }
            let records = out.len();
            for run in &part.runs {
                record::encode_run(cluster, part.group, run, out);
            }
            let records = out.get(records..).unwrap_or_default();
            records.iter().for_each(|bytes| sum.add_records(bytes));
        }
        sum.finish()
    }
}
