//! Writing: from the queue to frames, from one segment to the next.

use super::end::End;
use super::{Active, Log, Purpose};
use crate::api::{LogError, LogEvent, SegmentStart};
use crate::batch::{Batch, Part, gather};
use crate::disk::{Disk, Op};
use crate::group::{Groups, apply_frame};
use crate::layout::{PAGE, SECTOR, align, frame_bytes_max, reserve, stride};
use crate::room::Step;
use bytes::Bytes;
use kontiki_consensus::{Base, Body, GroupId, Run, Write};
use kontiki_wire::frame::{FrameHeader, GROUPS_MAX};
use kontiki_wire::record::run_bytes;
use kontiki_wire::segment::{GroupIndex, SegmentHeader, SegmentIndex};
use kontiki_wire::{BASE_BYTES_MAX, ClusterId, Identity, Salt, base_bytes};

/// Where a frame may go.
enum Spot {
    /// Into the segment in use.
    Here,
    /// Into the next one.
    Next,
    /// Nowhere yet.
    Nowhere,
}

impl<D: Disk> Log<D> {
    /// Whether a write follows the one before; then it is where the log ends.
    pub(super) fn check(&mut self, group: GroupId, write: &Write) -> Result<(), LogError> {
        let wrong =
            |what: String| LogError::Wrong(format!("write {} of group {}: {what}", write.id, group.0));
        if !self.ends.contains_key(&group) && self.ends.len() >= GROUPS_MAX {
            return Err(wrong(format!("a log holds at most {GROUPS_MAX} groups")));
        }
        let bytes_max = self.record_bytes_max();
        let known = self.groups.get(&group);
        let end = self.ends.entry(group).or_insert_with(|| End::new(known));
        if let Some(from) = write.truncate {
            if write.runs.is_empty() {
                return Err(wrong(format!(
                    "it removes records from {from} on and puts none in their place"
                )));
            }
            end.remove(from).map_err(wrong)?;
        }
        if let Some(base) = &write.install {
            if write.truncate.is_some() {
                return Err(wrong("it removes records and installs a snapshot".to_owned()));
            }
            end.install(base);
        }
        for run in &write.runs {
            end.add(run).map_err(wrong)?;
            // A configuration stands in the index of its segment once more.
            let share = if matches!(run.body(), Body::Configuration(_)) {
                4
            } else {
                1
            };
            let limit = bytes_max / share;
            // Almost every run is smaller than its largest record may be: only others are looked into.
            let largest = if run_bytes(run) > limit {
                largest_record(run)
            } else {
                0
            };
            if largest > limit {
                return Err(wrong(format!(
                    "a record of {largest} bytes is above the limit of {limit} that follows from the length of a segment: \
                     set segment_bytes at least as high as on the node that took it in"
                )));
            }
        }
        if let Some(base) = &write.purge {
            end.forget(base).map_err(wrong)?;
        }
        // It stands in a frame of each segment and in its index, beside a record of half a segment.
        let fits = |base: &Base| base_bytes(base) <= BASE_BYTES_MAX.min(bytes_max / 16);
        let mut bases = write.install.as_deref().into_iter().chain(write.purge.as_deref());
        if !bases.all(fits) {
            return Err(wrong(
                "its configuration has too many members for segments so short".to_owned(),
            ));
        }
        Ok(())
    }

    /// Writes the next frame, if none is under way and there is something to write and room for it.
    pub(super) fn advance(&mut self) {
        if self.failed || self.under_way.is_some() || self.refused.frame.is_some() {
            return;
        }
        let waiting = self.stuck.take();
        let bytes_max = frame_bytes_max(self.active.bytes.min(self.options.segment_bytes));
        let Some(mut batch) = waiting.or_else(|| gather(&mut self.queue, bytes_max)) else {
            return;
        };
        self.tell_of_bases(&mut batch);
        let mut closes = Vec::new();
        let full = match self.spot(&batch) {
            Spot::Here => None,
            Spot::Next => {
                let full = self.begin_segment(&mut closes);
                self.tell_of_bases(&mut batch);
                full
            }
            Spot::Nowhere => {
                self.stuck = Some(batch);
                return self.make_room();
            }
        };
        self.write_frame(batch);
        if let Some(full) = full {
            self.seal(full);
            // The full one may be among them: what is written into it comes first.
            closes.into_iter().for_each(|op| self.submit(op, Purpose::Close));
            if let Some(cold) = self.files.cold() {
                self.disk.cool(cold);
            }
            self.make_room();
        }
    }

    fn spot(&self, batch: &Batch) -> Spot {
        let Active { bytes, offset, .. } = self.active;
        let frame = align((FrameHeader::len_of(batch.parts.len()) + batch.body_bytes()) as u64);
        let keep = if self.room.is_ready() || !batch.has_records() {
            0
        } else {
            reserve(bytes)
        };
        if offset + frame + self.index_bytes(batch) + keep <= bytes {
            Spot::Here
        } else if self.room.is_ready() {
            Spot::Next
        } else {
            Spot::Nowhere
        }
    }

    /// Lets a frame tell of every base that the segment in use does not tell of yet: earlier ones may be removed.
    fn tell_of_bases(&self, batch: &mut Batch) {
        for (id, group) in &self.groups {
            if group.has_base() && group.base_in < self.active.number {
                batch.tell_of(*id, &group.base);
            }
        }
    }

    /// How long the index of the segment in use may be once this is written into it.
    fn index_bytes(&self, batch: &Batch) -> u64 {
        let now: usize = self
            .groups
            .values()
            .map(|g| g.summary_bytes(self.active.number))
            .sum();
        let stride = stride(self.active.bytes) as usize;
        let more = |part: &Part| {
            let controls = part
                .runs
                .iter()
                .filter(|r| matches!(r.body(), Body::Configuration(_)));
            // The first may get an entry wherever it stands; of the others at most two a stride.
            GroupIndex::len_of(
                part.runs.len(),
                2 + 2 * (part.bytes / stride),
                part.base.as_ref().map_or(0, |b| base_bytes(&b.base)),
                controls.map(run_bytes).sum(),
            )
        };
        let more: usize = batch.parts.iter().map(more).sum();
        align((SegmentIndex::EMPTY_BYTES + now + more) as u64)
    }

    /// The spare becomes the segment in use; gives the one before it, and what is to be closed for it.
    fn begin_segment(&mut self, closes: &mut Vec<Op>) -> Option<Active> {
        let spare = self.room.take()?;
        let next = Active {
            number: spare.number,
            file: spare.file,
            bytes: spare.bytes,
            offset: 0,
            was: spare.was,
            salt: self.active.next_salt,
            next_salt: self.chance.draw(),
        };
        self.salts.insert(next.number, next.salt);
        for (group, state) in &self.groups {
            let start = SegmentStart {
                last: state.last,
                position: state.last_position,
                bytes: spare.bytes,
            };
            let group = *group;
            self.events.push_back(LogEvent::SegmentBegun { group, start });
        }
        closes.extend(self.files.begin(spare.number, spare.file));
        Some(std::mem::replace(&mut self.active, next))
    }

    pub(super) fn write_frame(&mut self, batch: Batch) {
        let Active {
            number,
            file,
            offset,
            bytes,
            salt,
            ..
        } = self.active;
        let mut buffers = Vec::with_capacity(2 + batch.parts.iter().map(|p| p.runs.len()).sum::<usize>());
        if offset == 0 {
            let place = Place::of(&self.active);
            buffers.push(segment_header(self.identity, place, self.sequence, &self.groups).encode());
        }
        // The header says what is in the body, and stands before it.
        let at = buffers.len();
        buffers.push(Bytes::new());
        let sum = batch.encode_body(self.identity.cluster, salt, &mut buffers);
        let header = batch.header((number, salt), offset.max(SECTOR), self.sequence, sum);
        if let Some(place) = buffers.get_mut(at) {
            *place = header.encode(self.identity.cluster);
        }
        let written: u64 = buffers.iter().map(|b| b.len() as u64).sum();
        buffers.extend(padding(offset, offset + written, bytes));
        self.under_way = Some((batch, header));
        self.submit(
            Op::Write {
                file,
                offset,
                buffers,
                sync: true,
            },
            Purpose::Frame,
        );
    }

    /// Ends a full segment with an index of what stands in it. Nothing waits for it: without it, all is read.
    fn seal(&mut self, full: Active) {
        let index = index_of(
            self.identity.cluster,
            (full.number, full.salt),
            self.sequence,
            full.offset,
            &self.groups,
        );
        let offset = full.bytes - index.len() as u64;
        let op = Op::Write {
            file: full.file,
            offset,
            buffers: vec![index],
            sync: true,
        };
        self.sealing += 1;
        self.submit(op, Purpose::Index);
    }

    /// The frame under way is on disk.
    pub(super) fn frame_done(&mut self) {
        let Some((batch, header)) = self.under_way.take().filter(|_| !self.failed) else {
            return;
        };
        let contents = batch.parts.iter().map(Part::content);
        self.refused.retries = false;
        apply_frame(&mut self.groups, &header, stride(self.active.bytes), contents);
        self.active.offset = align(header.end());
        self.sequence += 1;
        let done = batch.parts.iter().filter_map(|p| Some((p.group, p.done?)));
        self.events
            .extend(done.map(|(group, id)| LogEvent::Persisted { group, id }));
        self.tell_full();
        self.advance();
        if batch.parts.iter().any(|p| p.base.is_some()) {
            self.sweep();
        }
    }

    /// Begins to make the next segment, if none is ready or being made.
    pub(super) fn make_room(&mut self) {
        if self.failed {
            return;
        }
        let left = self.active.bytes.saturating_sub(self.active.offset);
        if let Some(op) = self.room.want(self.active.number + 1, left) {
            self.submit(op, Purpose::Create);
        }
    }

    pub(super) fn room_step(&mut self, step: Step) {
        if self.failed {
            return;
        }
        let made = !matches!(step, Step::Next(_));
        self.refused.spare = match step {
            Step::Next(op @ Op::Create { .. }) => return self.submit(op, Purpose::Create),
            Step::Next(op) => return self.submit(op, Purpose::MakeRoom),
            Step::Failed(error) => return self.fail(error.into()),
            Step::Full => true,
            Step::Ready => false,
        };
        if self.refused.spare {
            self.close_idle();
        }
        self.tell_full();
        if !self.refused.spare {
            self.advance();
        }
        if made {
            self.sweep();
        }
    }
}

/// The zeros behind a frame that are written with it: up to the end of the page, where the frame begins that page. What is
/// there is free room, and a system that has not the page in memory need not read it first.
fn padding(from: u64, end: u64, bytes: u64) -> Option<Bytes> {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    let page_begin = end - end % PAGE as u64;
    let page_end = (page_begin + PAGE as u64).min(bytes);
    let zeros = ZEROS.get(..usize::try_from(page_end.checked_sub(end)?).ok()?)?;
    (from <= page_begin && end > page_begin).then_some(Bytes::from_static(zeros))
}

/// The largest record of a run, in bytes.
fn largest_record(run: &Run) -> usize {
    match run.body() {
        Body::Records(records) if records.len() > 1 => {
            let lengths = (0..records.len())
                .filter_map(|n| records.record(n))
                .map(|(bytes, ..)| bytes.len());
            lengths.max().unwrap_or(0)
        }
        _ => run_bytes(run),
    }
}

/// Which segment begins, and in what file: what its header says besides the state of the groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// The number its file had before, or zero.
    pub(crate) was: u64,
    pub(crate) salt: Salt,
    pub(crate) next_salt: Salt,
}

impl Place {
    fn of(active: &Active) -> Self {
        let Active {
            number,
            bytes,
            was,
            salt,
            next_salt,
            ..
        } = *active;
        Self {
            number,
            bytes,
            was,
            salt,
            next_salt,
        }
    }
}

/// The header of a segment that begins now.
pub(crate) fn segment_header(
    identity: Identity,
    place: Place,
    first_sequence: u64,
    groups: &Groups,
) -> SegmentHeader {
    let groups = groups.iter().map(|(id, group)| group.start(*id)).collect();
    SegmentHeader {
        identity,
        segment: place.number,
        bytes: place.bytes,
        first_sequence,
        was: place.was,
        salt: place.salt,
        next_salt: place.next_salt,
        groups,
    }
}

/// The index of a segment that is full now.
pub(crate) fn index_of(
    cluster: ClusterId,
    (segment, salt): (u64, Salt),
    next_sequence: u64,
    end: u64,
    groups: &Groups,
) -> Bytes {
    let groups = groups
        .iter()
        .map(|(id, group)| group.summary(cluster, *id, segment))
        .collect();
    SegmentIndex {
        segment,
        salt,
        next_sequence,
        end,
        groups,
    }
    .encode(cluster)
}

#[cfg(test)]
mod tests {
    use super::padding;

    #[test]
    fn a_page_is_filled_up_by_the_frame_that_begins_it() {
        let len = |from, end| padding(from, end, 65_536).map_or(0, |zeros| zeros.len());
        assert_eq!(len(0, 700), 3_396);
        assert_eq!(len(4_096, 4_097), 4_095);
        assert_eq!(len(1_024, 1_500), 0, "another has begun it");
        assert_eq!(len(3_584, 4_500), 3_692);
        assert_eq!(len(3_584, 4_096), 0, "nothing in the next one");
        assert_eq!(len(0, 8_192), 0);
        assert_eq!(len(61_440, 65_000), 536);
    }
}
