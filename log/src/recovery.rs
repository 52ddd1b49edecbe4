//! Opening a log: what it was is read back, and what a crash left half done is finished or undone.
//!
//! At most one frame was being written when the node went down, and nobody was told that it was there. So
//! damage is a torn write if no later frame stands behind it, and only then (never the first frame of all, which
//! made the log): the frame is cut from its first bad record,
//! and what is left of it is overwritten with zeros. Anywhere else it is a loss, and the log is refused.
//! Segments that are full are not read; their indexes are, and those without a sound one are read and get it.
//!
//! Invariants: nothing is changed before all that can be refused has been looked at; each repair can be
//! interrupted and done again. A process that was killed may have left writes in the system's memory that the device never
//! gets, for a sync of theirs may have failed: so the last frame, of which alone that can be true, is written
//! once more before anything counts on it.

mod open;
mod repair;
mod rot;

use crate::api::{LogError, LogOptions, SegmentStart};
use crate::blocking::{list, open, perform, read, sync_directory};
use crate::create::holds_log;
use crate::disk::{Disk, Op};
use crate::group::{Group, can_follow};
use crate::layout::{self, FOLDER, Named, SECTOR, align, parse, segment_name, stride};
use crate::log::{Place, index_of, segment_header};
use crate::replay::Replay;
use crate::salts::Salts;
use crate::scan::{Behind, Scan, Segment};
use crate::snapshots::Snapshots;
use crate::words;
use bytes::Bytes;
use kontiki_consensus::{GroupId, LogId, NodeId, Position};
use kontiki_wire::frame::{FrameError, FrameHeader};
use kontiki_wire::segment::{SegmentError, SegmentHeader};
use kontiki_wire::{ClusterId, Identity, Salt};
use rot::Damage;
use std::collections::BTreeMap;

/// A log that is being opened.
struct Opening<'a, D> {
    disk: &'a mut D,
    options: &'a LogOptions,
    identity: Identity,
    replay: Replay,
    /// The numbers of all segments.
    numbers: Vec<u64>,
    /// The salt of each that was begun.
    salts: BTreeMap<u64, Salt>,
    /// That of the segment behind the last that was begun.
    next_salt: Salt,
    /// Files that were never finished.
    unfinished: Vec<String>,
    /// How the only group stood when each was begun.
    starts: Vec<SegmentStart>,
    /// Indexes to be written: segment, where, what.
    indexes: Vec<(u64, u64, Bytes)>,
    /// The header that the last segment lacks.
    header: Option<SegmentHeader>,
}

/// The last segment and those behind it, looked at: what is to be done.
struct End {
    /// The last frame, as it is to be; `None` if there is none.
    last: Option<FrameHeader>,
    /// It was cut.
    is_cut: bool,
    /// Where the frame behind it is damaged, if the header of that is sound.
    damage: Option<Damage>,
    /// Where the room for frames ends, in bytes.
    room: u64,
    /// Where it ends, in bytes; where the header of the segment does, if there is none.
    offset: u64,
    /// What is to be overwritten with zeros: segment, from, to.
    dirty: Vec<(u64, u64, u64)>,
    torn_bytes: u64,
}

impl<'a, D: Disk> Opening<'a, D> {
    fn new(
        disk: &'a mut D,
        cluster: ClusterId,
        node: NodeId,
        options: &'a LogOptions,
    ) -> Result<Self, LogError> {
        if !holds_log(disk)? {
            return Err(words::no_log(&disk.name()));
        }
        // A process that was killed may have left names that a loss of power would take back.
        sync_directory(disk, FOLDER)?;
        let (mut numbers, mut unfinished) = (Vec::new(), Vec::new());
        for (name, _) in list(disk, FOLDER)? {
            match parse(&name) {
                Some(Named::Segment(number)) => numbers.push(number),
                Some(Named::New) => unfinished.push(format!("{FOLDER}/{name}")),
                None => {}
            }
        }
        numbers.sort_unstable();
        let replay = Replay::new(cluster, options.tail_bytes_max);
        let identity = Identity {
            cluster,
            node,
            incarnation: Default::default(),
        };
        Ok(Self {
            disk,
            options,
            identity,
            replay,
            numbers,
            salts: BTreeMap::new(),
            next_salt: Salt::default(),
            unfinished,
            starts: Vec::new(),
            indexes: Vec::new(),
            header: None,
        })
    }

    fn file(&self, number: u64) -> String {
        format!("{}: {}", self.disk.name(), segment_name(number))
    }

    /// Opens a segment and looks at its header.
    fn load(&mut self, number: u64) -> Result<Segment, LogError> {
        let (file, bytes) = open(self.disk, segment_name(number))?;
        let name = self.file(number);
        if !layout::is_segment_length(bytes) {
            let what = format!("it has {bytes} bytes, which no segment has");
            return Err(words::damaged(
                &name,
                bytes,
                Some(self.replay.next_index()),
                &what,
            ));
        }
        let header = match SegmentHeader::read(&read(self.disk, file, 0, SECTOR)?) {
            Ok(header) => Some(header),
            Err(SegmentError::Absent) => None,
            Err(newer) => return Err(words::newer(&name, 0, &newer.to_string())),
        };
        if let Some(header) = &header {
            self.admit(number, bytes, header)?;
        }
        // A file that is used again holds what it held before until it is begun.
        let is_old = header.as_ref().is_some_and(|h| h.segment < number);
        let groups = header.iter().filter(|_| !is_old).flat_map(|h| &h.groups);
        let start = groups
            .filter(|g| g.group == GroupId::default())
            .map(|g| SegmentStart {
                last: g.last,
                position: g.last_position,
                bytes,
            });
        self.starts.extend(start);
        let was = header
            .as_ref()
            .map_or(0, |h| if is_old { h.segment } else { h.was });
        let header = header.filter(|_| !is_old);
        if let Some(header) = &header {
            self.salts.insert(number, header.salt);
            self.next_salt = header.next_salt;
        }
        Ok(Segment {
            number,
            file,
            bytes,
            salt: header.as_ref().map(|h| h.salt),
            header,
            was,
        })
    }

    /// Whether a segment is one of this log.
    fn admit(&mut self, number: u64, bytes: u64, header: &SegmentHeader) -> Result<(), LogError> {
        let (name, theirs, ours) = (self.file(number), header.identity, self.identity);
        if theirs.cluster != ours.cluster || theirs.node != ours.node {
            return Err(words::foreign(&name, theirs, ours));
        }
        if self.numbers.first() == Some(&number) {
            self.identity.incarnation = theirs.incarnation;
        } else if theirs.incarnation != ours.incarnation {
            return Err(words::mixed(&name, theirs, ours));
        }
        let what = match header {
            h if h.segment > number => format!("it was made as segment {}", h.segment),
            h if h.bytes != bytes => format!("it has {bytes} bytes and was made with {}", h.bytes),
            _ => return Ok(()),
        };
        Err(words::damaged(&name, 0, Some(self.replay.next_index()), &what))
    }

    /// Applies all full segments; gives the last one and those behind it, which have no header.
    fn replay(&mut self) -> Result<(Segment, Vec<Segment>), LogError> {
        let numbers = self.numbers.clone();
        if let Some((before, after)) = numbers.windows(2).find_map(gap) {
            return Err(words::missing(&self.file(before + 1), &segment_name(after)));
        }
        let first = numbers.first().copied().unwrap_or_default();
        let mut last = self.load(first)?;
        let Some(header) = &last.header else {
            return Err(self.bad_header(first));
        };
        self.replay.begin(header);
        let mut behind: Vec<Segment> = Vec::new();
        for number in numbers.into_iter().skip(1) {
            let next = self.load(number)?;
            match (&next.header, behind.first()) {
                // Only the first of them can hold frames, for it was begun before the others.
                (None, None) => behind.push(Segment {
                    salt: Some(self.next_salt),
                    ..next
                }),
                (None, Some(_)) => behind.push(next),
                (Some(_), Some(damaged)) => return Err(self.bad_header(damaged.number)),
                (Some(header), None) => {
                    self.replay_full(&last, header.first_sequence)?;
                    self.check_start(header)?;
                    perform(self.disk, Op::Close { file: last.file })?;
                    last = next;
                }
            }
        }
        Ok((last, behind))
    }

    /// Whether all that is missing before the first segment is covered by a snapshot.
    fn check_beginning(&self) -> Result<(), LogError> {
        if self.replay.groups.values().all(Group::is_whole) {
            return Ok(());
        }
        let first = self.numbers.first().copied().unwrap_or_default();
        Err(words::missing(
            &self.file(first.saturating_sub(1)),
            &segment_name(first),
        ))
    }

    /// The newest snapshot of what the log holds or rests on. If the log begins after a base, there must be one.
    fn check_snapshots(&self, snapshots: &Snapshots) -> Result<Option<(LogId, Position)>, LogError> {
        let none = Group::default();
        let group = self.replay.groups.get(&GroupId::default()).unwrap_or(&none);
        let bases = snapshots.files().map(|file| &file.header.base);
        let held = bases.filter(|base| group.holds(base.last));
        let newest = held
            .max_by_key(|base| base.last.index)
            .map(|b| (b.last, b.position));
        if newest.is_none() && group.has_base() {
            return Err(words::no_snapshot(&self.disk.name(), group.base.last.index));
        }
        Ok(newest)
    }

    /// If the first segment without a header has a frame where its first one belongs, only the header is lost, or
    /// was torn: that segment is the last. Its header is known from what stands before it.
    fn begun(
        &mut self,
        last: Segment,
        mut behind: Vec<Segment>,
        chance: &mut Salts,
    ) -> Result<(Segment, Vec<Segment>), LogError> {
        let Some(next) = behind.first() else {
            return Ok((last, behind));
        };
        let sector = read(self.disk, next.file, SECTOR, SECTOR)?;
        let frame = match FrameHeader::read(self.identity.cluster, (next.number, next.salt), SECTOR, &sector)
        {
            Ok(frame) => frame,
            Err(FrameError::Absent) => return Ok((last, behind)),
            Err(newer) => return Err(words::newer(&self.file(next.number), SECTOR, &newer.to_string())),
        };
        // It was written after all before it was acknowledged.
        self.replay_full(&last, frame.sequence)?;
        perform(self.disk, Op::Close { file: last.file })?;
        let next = behind.remove(0);
        let bytes = next.bytes;
        self.next_salt = chance.draw();
        self.salts.insert(next.number, frame.salt);
        let place = Place {
            number: next.number,
            bytes,
            was: next.was,
            salt: frame.salt,
            next_salt: self.next_salt,
        };
        let header = segment_header(self.identity, place, frame.sequence, &self.replay.groups);
        self.header = Some(header);
        let group = self.replay.groups.get(&GroupId::default());
        self.starts.extend(group.map(|g| SegmentStart {
            last: g.last,
            position: g.last_position,
            bytes,
        }));
        Ok((next, behind))
    }

    fn bad_header(&self, number: u64) -> LogError {
        let what = "its header is not sound";
        words::damaged(&self.file(number), 0, Some(self.replay.next_index()), what)
    }

    /// Applies a segment that is followed by another, which begins with frame `next`: everything in it was acknowledged.
    fn replay_full(&mut self, segment: &Segment, next: u64) -> Result<(), LogError> {
        let cluster = self.identity.cluster;
        let index = segment.index(self.disk, cluster)?.map(|(index, _)| index);
        let index = index.filter(|i| i.next_sequence == next);
        match index.filter(|i| can_follow(&self.replay.groups, cluster, i)) {
            Some(index) => {
                for group in &index.groups {
                    let known = self.replay.groups.entry(group.group).or_default();
                    known.restore(cluster, segment.number, group);
                }
                self.replay.skip(index.next_sequence);
                Ok(())
            }
            None => self.scan_full(segment, next),
        }
    }

    /// Whether a segment begins where the one before it ends.
    fn check_start(&self, next: &SegmentHeader) -> Result<(), LogError> {
        let starts = |start: &kontiki_wire::segment::GroupStart| {
            self.replay
                .groups
                .get(&start.group)
                .is_some_and(|g| g.start(start.group) == *start)
        };
        if next.groups.iter().all(starts) && next.groups.len() == self.replay.groups.len() {
            return Ok(());
        }
        let what = "it does not go on where the segment before it ends";
        Err(words::damaged(
            &self.file(next.segment),
            0,
            Some(self.replay.next_index()),
            what,
        ))
    }

    /// The same for one without an index: it is read, and gets one.
    fn scan_full(&mut self, segment: &Segment, next: u64) -> Result<(), LogError> {
        let scan = segment.scan(self.disk, &mut self.replay)?;
        let name = self.file(segment.number);
        if let Some(torn) = scan.torn {
            return Err(words::damaged(&name, torn.at, Some(torn.index), &torn.what));
        }
        let (sequence, end) = (self.replay.sequence, align(scan.end));
        if sequence != next {
            let what = format!("frame {sequence} should begin here and does not");
            return Err(words::damaged(&name, end, Some(self.replay.next_index()), &what));
        }
        let index = index_of(
            self.identity.cluster,
            (segment.number, segment.salt.unwrap_or_default()),
            sequence,
            end,
            &self.replay.groups,
        );
        if let Some(from) = segment
            .bytes
            .checked_sub(index.len() as u64)
            .filter(|from| *from >= end)
        {
            self.indexes.push((segment.number, from, index));
        }
        Ok(())
    }

    /// Applies the last segment and finds out what is to be repaired in it and behind it.
    fn examine_end(&mut self, last: &Segment, spares: &[Segment]) -> Result<End, LogError> {
        let cluster = self.identity.cluster;
        let index = last.index(self.disk, cluster)?;
        if index.is_some() && spares.is_empty() {
            return Err(words::missing(
                &self.file(last.number + 1),
                "the index of the segment before it",
            ));
        }
        let Scan {
            mut end,
            last: mut frame,
            torn,
        } = last.scan(self.disk, &mut self.replay)?;
        let sequence = self.replay.sequence;
        let next = self.replay.next_index();
        let (at, record, what) = match &torn {
            Some(torn) => (torn.at, torn.index, torn.what.clone()),
            None => (
                align(end),
                next,
                format!("frame {sequence} should begin here and does not"),
            ),
        };
        let (mut is_cut, mut lost, mut torn_bytes) = (false, 0, 0);
        let torn_end = torn.as_ref().map(|t| t.kept.end() + t.lost);
        let damage = torn.as_ref().map(Damage::of);
        if let Some(torn) = torn.filter(|t| !t.kept.parts.is_empty()) {
            self.replay.apply(&torn.kept, stride(last.bytes), &torn.contents);
            (is_cut, lost) = (true, torn.lost);
            (end, frame) = (torn.kept.end(), Some(torn.kept));
        }
        let to = index.as_ref().map_or(last.bytes, |(_, from)| *from);
        let mut behind = last.behind(self.disk, cluster, sequence, (end, to))?;
        if last.was > 0 {
            // Of what stands there only a torn frame, if its header is sound, could be taken for something.
            behind.dirty = torn_end
                .map(|torn_end| (end, torn_end.min(to)))
                .filter(|(from, to)| from < to);
        }
        // The first frame of all was on disk before the log got its name.
        if last.number == 1 && frame.is_none() {
            return Err(words::damaged(&self.file(last.number), at, Some(record), &what));
        }
        if let Some(later) = behind.later {
            let what = format!("{what}, and a later frame stands at byte {later}");
            return Err(words::damaged(&self.file(last.number), at, Some(record), &what));
        }
        let mut dirty: Vec<(u64, u64, u64)> = Vec::new();
        dirty.extend(index.map(|(_, from)| (last.number, from, last.bytes)));
        for (segment, found) in [(last, behind)]
            .into_iter()
            .chain(self.look_at_spares(spares, sequence)?)
        {
            torn_bytes += found.dirty.map_or(0, |(from, to)| to - from);
            dirty.extend(found.dirty.map(|(from, to)| (segment.number, from, to)));
        }
        Ok(End {
            last: frame,
            is_cut,
            damage,
            room: to,
            offset: end,
            dirty,
            torn_bytes: torn_bytes.max(lost),
        })
    }

    /// What lies in segments that have no header: a segment that was being begun, or nothing.
    fn look_at_spares<'s>(
        &mut self,
        spares: &'s [Segment],
        sequence: u64,
    ) -> Result<Vec<(&'s Segment, Behind)>, LogError> {
        let mut all = Vec::new();
        for spare in spares {
            let mut behind = spare.behind(self.disk, self.identity.cluster, sequence, (0, spare.bytes))?;
            if behind.later.is_some() {
                return Err(self.bad_header(spare.number));
            }
            // What a file held before is no frame of this segment, and is written over as it is.
            behind.dirty = behind.dirty.filter(|_| spare.was == 0);
            all.push((spare, behind));
        }
        Ok(all)
    }
}

/// Two numbers that do not follow each other.
fn gap(pair: &[u64]) -> Option<(u64, u64)> {
    match pair {
        [before, after] if before + 1 != *after => Some((*before, *after)),
        _ => None,
    }
}
