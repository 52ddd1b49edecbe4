//! Snapshots: taken where the log of all nodes is trimmed, fetched by who has fallen behind, and the log forgotten.
//!
//! The state of a plain log is the log, so its snapshot holds what Kontiki itself keeps ([`Meta`]) and no more. A leader
//! proposes where to trim (`retention`); the record that says so takes effect where it is applied, on every node
//! at the same place, so that all have the same first entry. A follower that lacks what its leader has forgotten pulls
//! the leader's snapshot, one chunk at a time, at its own pace, and goes on where it broke off. Where there is a machine each
//! node takes snapshots of it for itself (`take`), and nothing is trimmed by a record.
//! Invariants: nothing is forgotten before the snapshot that covers it is on disk under its name; one chunk is asked for
//! at a time and few bytes are in memory; a snapshot that a follower is told of, and the log behind it, stay
//! as long as its transfer makes progress, so that no transfer is overtaken by the next snapshot; what Kontiki
//! keeps may be of a later record than the snapshot covers: records up to there have no effect on it again.

mod fetch;
mod note;
mod serve;
mod take;

use crate::{clock::is_older, driver::Driver, machine::MetaRows, meta::Meta, ports::Ports};
use bytes::Bytes;
use kontiki_consensus::{Base, Event, Index, LogId, NodeId, Position, Term, Time};
use kontiki_log::{SegmentStart, SnapshotCommand, SnapshotEvent, SnapshotFile};
use kontiki_wire::record::{RunBuilder, TrimPoint};
use kontiki_wire::snapshot::SnapshotHeader;
use std::collections::{BTreeMap, VecDeque};

/// Of how many segments, the newest ones, a note says when they began: by those before nothing is decided that these do not
/// decide first.
const AGES_MAX: usize = 4096;

/// How much of the log is kept, and how snapshots are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotConfig {
    /// At least so many bytes of segments stay on disk, and about as many at most, besides one more segment; `None`
    /// keeps everything. The leader's setting counts.
    pub retain_bytes: Option<u64>,
    /// Entries older than this, in ns of the cluster's clock, may go; `None` keeps everything. Time without a leader does not
    /// make them older, and no date does.
    /// Where both are set, what either lets go goes.
    pub retain_age: Option<u64>,
    /// With a machine: a snapshot is taken once so many bytes of records were applied since the last one, and at least as
    /// many as that one has, so that writing snapshots never costs more than writing the log; `None`: not for that.
    pub snapshot_bytes: Option<u64>,
    /// The same once there are so many entries since.
    pub snapshot_entries: Option<u64>,
    /// The same once the last one is so old, in ns of the cluster's clock, and there is anything new.
    pub snapshot_age: Option<u64>,
    /// So many bytes of the log before a snapshot of a machine stay, in whole files, for followers that are a little
    /// behind; with 0 all of it goes.
    pub keep_bytes: u64,
    /// How many bytes of a machine's state are read and written at once: from 1 to 1 MiB.
    pub piece_bytes: u32,
    /// How many bytes of a snapshot are sent at once: from 1 to 4 MiB.
    pub chunk_bytes: u32,
    /// How many bytes of a snapshot are fetched in a second at most.
    pub bytes_per_second: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            retain_bytes: None,
            retain_age: None,
            snapshot_bytes: Some(64 << 20),
            snapshot_entries: None,
            snapshot_age: None,
            keep_bytes: 64 << 20,
            piece_bytes: 256 << 10,
            chunk_bytes: 256 << 10,
            bytes_per_second: 64 << 20,
        }
    }
}

/// What a node knows of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Those on disk, by the last record they cover.
    files: BTreeMap<Index, SnapshotFile>,
    /// The log is to be trimmed here.
    wanted: Option<TrimPoint>,
    /// The snapshot that is being written for it.
    taking: Option<(LogId, TrimPoint)>,
    /// There was no room for one: it is tried again after a while.
    again: Option<TrimPoint>,
    /// The log may be forgotten up to here once no transfer needs it.
    forget: Option<(Index, Position)>,
    fetching: Option<fetch::Fetching>,
    serving: serve::Serving,
    own: take::Own,
    notes: note::Notes,
    /// Where segments begin, and the cluster's clock when all before had passed by, for no entry there is younger.
    segments: VecDeque<(SegmentStart, Option<u32>)>,
    /// What this leader has proposed, and when in terms.
    proposed: Option<(Term, Index)>,
    /// What is to be done with the disk as soon as it can be asked.
    todo: Vec<SnapshotCommand>,
}

impl Snapshots {
    /// A record that trims the log was applied.
    pub(crate) fn trim(&mut self, point: TrimPoint) {
        self.wanted = self.wanted.max(Some(point));
    }

    /// Whether something waits for time to pass.
    pub(crate) fn is_busy(&self) -> bool {
        self.fetching.is_some() || self.forget.is_some() || self.again.is_some()
    }
}

/// What stands beside the state in a snapshot.
fn encode_meta(meta: &Meta, date: u64) -> Result<Bytes, String> {
    let rows = meta.all_rows().map_err(|e| e.to_string())?;
    let rows: Vec<(u64, &[u8])> = rows
        .0
        .iter()
        .filter_map(|(key, row)| Some((*key, row.as_deref()?)))
        .collect();
    let bytes = postcard::to_stdvec(&(date, rows)).map_err(|e| e.to_string())?;
    Ok(bytes.into())
}

fn decode_meta(bytes: &[u8]) -> Result<(Meta, u64), String> {
    let (date, rows): (u64, Vec<(u64, Vec<u8>)>) = postcard::from_bytes(bytes).map_err(|e| e.to_string())?;
    let rows = rows.into_iter().map(|(key, row)| (key, Some(row.into())));
    let meta = Meta::of_rows(&MetaRows(rows.collect())).map_err(|e| e.to_string())?;
    Ok((meta, date))
}

/// Index and term of the last record before a segment, and the cluster's clock when that was known to be applied.
type Ages = Vec<(u64, u64, u32)>;

/// What stands behind that in a note: where segments begin, and the cluster's clock then, so that they are as old after a
/// restart as before it.
fn encode_ages(segments: &VecDeque<(SegmentStart, Option<u32>)>) -> Result<Vec<u8>, String> {
    let newest = segments.iter().skip(segments.len().saturating_sub(AGES_MAX));
    let ages: Ages = newest
        .filter_map(|(start, began)| Some((start.last.index.0, start.last.term.0, (*began)?)))
        .collect();
    postcard::to_stdvec(&ages).map_err(|e| e.to_string())
}

/// Nothing if there is nothing that can be read.
fn decode_ages(bytes: &[u8]) -> Ages {
    let behind = postcard::take_from_bytes::<(u64, Vec<(u64, Vec<u8>)>)>(bytes).map(|(_, rest)| rest);
    let ages = behind
        .ok()
        .and_then(|rest| postcard::from_bytes::<Ages>(rest).ok());
    ages.unwrap_or_default()
}

impl Driver {
    /// Goes on with the snapshots that opening the log has found, and where its segments begin. Called once,
    /// before the first turn.
    pub fn restore(
        &mut self,
        now: Time,
        snapshots: Vec<SnapshotFile>,
        note: Option<SnapshotHeader>,
        segments: Vec<SegmentStart>,
    ) {
        let held = self.consensus.snapshot();
        self.snapshots
            .segments
            .extend(segments.into_iter().map(|s| (s, None)));
        for file in snapshots {
            let base = file.header.base.clone();
            self.snapshots.files.insert(base.last.index, file);
            if base.last.index > held.index {
                self.consensus.step(now, Event::SnapshotStaged(base));
            } else if base.last != held {
                self.snapshots.todo.push(SnapshotCommand::Remove(base.last));
                self.snapshots.files.remove(&base.last.index);
            }
        }
        if self.stopped.is_some() {
            return;
        }
        if held != LogId::ZERO {
            if let Err(what) = self.take_state(held) {
                self.stopped = Some(what);
                return;
            }
            self.forget_behind(held);
        }
        if let Some(note) = note.filter(|_| !self.applied.machine) {
            self.take_note(&note);
        }
    }

    fn forget_behind(&mut self, held: LogId) {
        let position = self.snapshot().map(|file| file.header.base.position);
        self.snapshots.forget = self.forget_point(held, position.unwrap_or_default());
    }

    /// More was applied: counts towards the next snapshot of the machine.
    pub(crate) fn count_applied(&mut self, bytes: usize) {
        let second = self.second();
        self.snapshots.own.applied(bytes as u64, second);
    }

    /// The state becomes that of a snapshot on disk.
    fn take_state(&mut self, last: LogId) -> Result<(), String> {
        let file = self.snapshots.files.get(&last.index);
        let Some(file) = file.filter(|f| f.header.base.last == last).cloned() else {
            return Err(format!("the snapshot up to record {} is not on disk", last.index));
        };
        let header = &file.header;
        let (meta, date) = decode_meta(&header.meta)
            .map_err(|e| format!("the snapshot up to record {} cannot be read: {e}", last.index))?;
        let second = meta.sessions.clock();
        self.date = self.date.max(date);
        self.clock.see(second);
        let position = header.base.position;
        if !self.applied.machine {
            self.reads.forget_replay();
            self.applied.install(last, position, meta);
        } else if self.applied.goes_on_behind(self.consensus.base().index) {
            let at = self.applied.at.index;
            self.applied.aim_at(last.index);
            self.begin_counting(position, self.bytes_between(last.index, at), second);
        } else {
            self.await_restore(file)
                .map_err(|e| format!("the snapshot up to record {} is not sound: {e}", last.index))?;
        }
        Ok(())
    }

    /// The log begins after a snapshot now: its state takes the place of this node's.
    pub(crate) fn install_snapshot(&mut self, now: Time, last: LogId, ports: &mut impl Ports) {
        match self.take_state(last) {
            Ok(()) => {
                self.snapshots.wanted = None;
                self.hand_over(ports);
                self.serve_waiting(ports);
                self.remove_older(now);
            }
            Err(what) => self.stop(what, ports),
        }
    }

    /// Another node's snapshot is not needed.
    pub(crate) fn drop_snapshot(&mut self, last: LogId) {
        self.end_fetching(last);
        if self.consensus.snapshot() != last {
            self.snapshots
                .files
                .retain(|_, file| file.header.base.last != last);
            self.snapshots.todo.push(SnapshotCommand::Remove(last));
        }
    }

    /// Does what snapshots need done: takes one where the log is to be trimmed, forgets what one covers.
    pub(crate) fn see_to_snapshots(&mut self, now: Time, ports: &mut impl Ports) {
        if self.snapshots.taking.is_none() {
            self.take_snapshot(now, ports);
        }
        self.take_of_machine(now, ports);
        self.ask_for_chunk(now, ports);
        self.forget_log(now);
        for command in std::mem::take(&mut self.snapshots.todo) {
            ports.snapshot(self.config.group, command);
        }
    }

    fn take_snapshot(&mut self, now: Time, ports: &mut impl Ports) {
        let applied = self.applied.at.index;
        let Some(point) = self.snapshots.wanted.take_if(|point| point.index <= applied) else {
            return;
        };
        // If it is forgotten already there is nothing to do.
        let Some(base) = self.consensus.base_at(point.index, point.position) else {
            return;
        };
        if self.snapshots.files.contains_key(&point.index) {
            return self.snapshot_taken(now, &base);
        }
        match encode_meta(&self.applied.meta, self.date) {
            Ok(meta) => {
                self.snapshots.taking = Some((base.last, point));
                let header = SnapshotHeader {
                    maker: self.config.identity,
                    group: self.config.group,
                    base,
                    meta,
                };
                let commands = [SnapshotCommand::Begin(header), SnapshotCommand::End];
                self.snapshots.todo.extend(commands);
            }
            Err(what) => self.stop(format!("a snapshot cannot be made: {what}"), ports),
        }
    }

    /// Another node's snapshot, which is on disk and covers only what is committed here, is this node's newest.
    pub(crate) fn adopt_snapshot(&mut self, now: Time, file: SnapshotFile) {
        let base = file.header.base.clone();
        self.snapshots.files.insert(base.last.index, file);
        self.snapshot_taken(now, &base);
    }

    /// A snapshot that was fetched is of no use after all.
    pub(crate) fn forget_snapshot(&mut self, last: LogId) {
        if self
            .snapshots
            .files
            .get(&last.index)
            .is_none_or(|file| file.header.base.last != last)
        {
            self.snapshots.todo.push(SnapshotCommand::Remove(last));
        }
    }

    fn snapshot_taken(&mut self, now: Time, base: &Base) {
        let (last, position) = (base.last, base.position);
        self.consensus.step(now, Event::SnapshotTaken { last, position });
        if let Some(point) = self.forget_point(last, position) {
            self.snapshots.forget = Some(point);
        }
        self.remove_older(now);
    }

    /// Forgets what a snapshot covers, unless a follower fetches an older one: it will need what is behind that.
    fn forget_log(&mut self, now: Time) {
        let Some((through, position)) = self.snapshots.forget else {
            return;
        };
        let held = |peer, last: LogId| last.index < through && self.makes_progress(peer, now);
        if self
            .consensus
            .snapshot_peers()
            .any(|(peer, last)| held(peer, last))
        {
            return;
        }
        self.snapshots.forget = None;
        if through > self.consensus.base().index {
            self.consensus.step(now, Event::Purge { through, position });
            let base = self.consensus.base().index;
            self.snapshots.segments.retain(|(s, _)| s.last.index >= base);
        }
    }

    /// Removes snapshots before the newest, but for those that followers are fetching.
    fn remove_older(&mut self, now: Time) {
        if self.consensus.is_installing() {
            // The newest is not what the log on disk rests on; when it is, this is called again.
            return;
        }
        let newest = self.consensus.snapshot();
        let told: Vec<(NodeId, LogId)> = self.consensus.snapshot_peers().collect();
        let is_fetched = |last: LogId| {
            let mut peers = told.iter().filter(|(_, told)| *told == last);
            peers.any(|(peer, _)| self.makes_progress(*peer, now))
        };
        let lasts = self.snapshots.files.values().map(|file| file.header.base.last);
        let old: Vec<LogId> = lasts
            .filter(|last| {
                last.index < newest.index
                    && !is_fetched(*last)
                    && !self.is_offered(*last, now)
                    && !self.snapshots.own.needs(*last)
            })
            .collect();
        for last in old {
            self.snapshots.files.remove(&last.index);
            self.snapshots.todo.push(SnapshotCommand::Remove(last));
            self.consensus.step(now, Event::SnapshotGone(last));
        }
    }

    /// The log tells something about snapshots.
    pub(crate) fn take_snapshot_event(&mut self, now: Time, event: SnapshotEvent, ports: &mut impl Ports) {
        match event {
            SnapshotEvent::Written(file) => {
                let base = file.header.base.clone();
                self.snapshots.taking.take_if(|(last, _)| *last == base.last);
                self.own_written(base.last);
                self.snapshots.files.insert(base.last.index, file);
                self.snapshot_taken(now, &base);
            }
            SnapshotEvent::Staged(file) if self.resync_staged(&file) => {}
            SnapshotEvent::Staged(file) => {
                let base = file.header.base.clone();
                self.snapshots.files.insert(base.last.index, file);
                self.fetched_whole(base.last);
                self.consensus.step(now, Event::SnapshotStaged(base));
            }
            SnapshotEvent::Refused { last, why } => {
                if self.own_refused(now, last, &why) {
                    return;
                }
                tracing::warn!(index = %last.index, "no snapshot: {why}");
                match self.snapshots.taking.take_if(|(taking, _)| *taking == last) {
                    Some((_, point)) => self.snapshots.again = Some(point),
                    None => {
                        self.fetched_whole(last);
                        self.consensus.step(now, Event::SnapshotFailed(last));
                    }
                }
            }
            SnapshotEvent::Receiving { last, at, header } => self.receiving(last, at, header),
            SnapshotEvent::Read { token, found } => self.read_for_peer(token, found, ports),
            SnapshotEvent::Ready { last } => self.read_own(last, ports),
            SnapshotEvent::Removed { .. } => {}
        }
    }

    /// A segment was begun.
    pub(crate) fn segment_begun(&mut self, start: SegmentStart) {
        self.snapshots.segments.push_back((start, None));
        self.see_ages();
        if !self.applied.machine {
            self.keep_note(start.bytes);
        }
    }

    /// More records have passed by: what is before a segment that begins there is no younger than they are.
    pub(crate) fn see_ages(&mut self) {
        let Meta { at, sessions, .. } = &self.applied.meta;
        let young = self.snapshots.segments.iter_mut().rev();
        // All before one that is known are known, or never will be.
        for (start, began) in young.take_while(|(_, began)| began.is_none()) {
            if start.last.index <= at.index {
                *began = Some(sessions.clock());
            }
        }
    }

    /// Proposes to trim the log, if it holds more than is to be kept.
    pub(crate) fn retain(&mut self, now: Time) {
        if let Some(point) = self.snapshots.again.take() {
            self.snapshots.trim(point);
        }
        let config = self.config.snapshots;
        if config.retain_bytes.is_none() && config.retain_age.is_none() {
            return;
        }
        let (Some(admission), Some(point)) = (self.admission(), self.trim_point()) else {
            return;
        };
        let under_way = self
            .snapshots
            .proposed
            .is_some_and(|(term, index)| term == admission.term && index > self.applied.meta.trimmed().index);
        if under_way || self.applied.machine || !self.knows_sessions() {
            return;
        }
        let mut builder = RunBuilder::new(self.config.identity.cluster, self.config.group, admission);
        let stamp = self.stamp();
        if builder.push_trim(point, stamp).is_ok()
            && let Some(run) = builder.finish()
        {
            self.snapshots.proposed = Some((admission.term, point.index));
            self.consensus.step(now, Event::Propose(run));
        }
    }

    /// Whether there is something in the log that may go, or be taken a snapshot of, once it is old enough.
    pub(crate) fn has_segments_to_age(&self) -> bool {
        let (config, snapshots) = (&self.config.snapshots, &self.snapshots);
        if self.applied.machine {
            config.snapshot_age.is_some() && snapshots.own.has_news(self.applied.position)
        } else {
            config.retain_age.is_some() && snapshots.segments.len() > 1
        }
    }

    /// Where to trim: at the beginning of a segment, as late as what is to be kept allows.
    fn trim_point(&self) -> Option<TrimPoint> {
        let config = self.config.snapshots;
        let (mut kept, second) = (0, self.second());
        let mut found = None;
        for (start, began) in self.snapshots.segments.iter().rev() {
            kept += start.bytes;
            let many = config.retain_bytes.is_some_and(|bytes| kept >= bytes);
            let old = config
                .retain_age
                .is_some_and(|age| began.is_some_and(|began| is_older(began, second, age)));
            if many || old {
                found = Some(start);
                break;
            }
        }
        let point = found.map(|start| (start.last, start.position))?;
        // It may have been cut off since, or not be committed yet.
        let holds = self.consensus.term_at(point.0.index) == Some(point.0.term);
        let fits = holds && point.0.index <= self.applied.at.index;
        (fits && point.0.index > self.applied.meta.trimmed().index).then_some(TrimPoint {
            index: point.0.index,
            position: point.1,
        })
    }

    /// The first entry that the log holds: of a plain log the same on every node that has applied as much; with a
    /// machine each node forgets for itself.
    #[must_use]
    pub fn first(&self) -> Position {
        let forgotten = if self.applied.machine {
            self.consensus.base_position()
        } else {
            self.applied.meta.trimmed().position
        };
        forgotten.next()
    }
}
