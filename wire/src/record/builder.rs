//! Records on their way into the log: payloads get their headers, one behind the other.

use super::{Codec, InSession, Kind, Payload, RecordHeader, Session, Stamp, TrimPoint, control, header};
use crate::ClusterId;
use bytes::{BufMut, Bytes, BytesMut};
use kontiki_consensus::{Admission, Body, GroupId, Index, Mark, MarkList, Position, Records, Run};

/// A run is cut here unless a single record is larger: memory is freed and sent by the run.
const RUN_BYTES_MAX: usize = 4 << 20;

/// No room for another record: finish this run and begin the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Makes one run out of payloads.
#[derive(Debug)]
pub struct RunBuilder {
    seed: u32,
    group: GroupId,
    at: Admission,
    bytes: BytesMut,
    marks: MarkList,
    entries: u32,
}

impl RunBuilder {
    /// A run that begins where a leader has granted it.
    #[must_use]
    pub fn new(cluster: ClusterId, group: GroupId, at: Admission) -> Self {
        Self::with_capacity(cluster, group, at, 0, 0)
    }

    /// The same with room for so many records, of so many bytes of payload together.
    #[must_use]
    pub fn with_capacity(
        cluster: ClusterId,
        group: GroupId,
        at: Admission,
        records: usize,
        payload_bytes: usize,
    ) -> Self {
        let bytes = payload_bytes.saturating_add(records.saturating_mul(RecordHeader::BYTES));
        Self {
            seed: header::seed(cluster),
            group,
            at,
            bytes: BytesMut::with_capacity(bytes.min(RUN_BYTES_MAX)),
            marks: MarkList::with_capacity(records),
            entries: 0,
        }
    }

    /// Adds a record. What opens a session has the [payload of its limits](super::SessionLimits::payload).
    ///
    /// # Errors
    /// [`Full`] if it does not fit into this run; nothing was added.
    pub fn push(&mut self, payload: &Payload, stamp: Stamp, session: Session) -> Result<(), Full> {
        let (kind, of) = match session {
            Session::None => (Kind::Entries, InSession::default()),
            Session::Open => (Kind::Session, InSession::default()),
            Session::In(of) => (Kind::Entries, of),
        };
        self.add(kind, payload, stamp, of)
    }

    /// Adds a record that trims the log.
    ///
    /// # Errors
    /// [`Full`] if it does not fit into this run; nothing was added.
    pub fn push_trim(&mut self, point: TrimPoint, stamp: Stamp) -> Result<(), Full> {
        self.add(Kind::Trim, &point.payload(), stamp, InSession::default())
    }

    /// Adds a record behind which the replicas compare what they have become.
    ///
    /// # Errors
    /// [`Full`] if it does not fit into this run; nothing was added.
    pub fn push_compare(&mut self, stamp: Stamp) -> Result<(), Full> {
        self.add(
            Kind::Compare,
            &Payload::empty(Codec::Bytes),
            stamp,
            InSession::default(),
        )
    }

    /// Adds a record that says nothing but the cluster's clock.
    ///
    /// # Errors
    /// [`Full`] if it does not fit into this run; nothing was added.
    pub fn push_clock(&mut self, stamp: Stamp) -> Result<(), Full> {
        self.add(
            Kind::Clock,
            &Payload::empty(Codec::Bytes),
            stamp,
            InSession::default(),
        )
    }

    fn add(&mut self, kind: Kind, payload: &Payload, stamp: Stamp, of: InSession) -> Result<(), Full> {
        let whole = self.bytes.len() + RecordHeader::BYTES + payload.bytes.len();
        if !self.marks.is_empty() && whole > RUN_BYTES_MAX {
            return Err(Full);
        }
        let end = u32::try_from(whole).map_err(|_| Full)?;
        let entries = self.entries.checked_add(payload.count).ok_or(Full)?;
        let header = RecordHeader {
            header_len: RecordHeader::BYTES as u16,
            kind,
            codec: payload.codec,
            payload_len: payload.bytes.len() as u32,
            payload_crc: payload.crc,
            index: Index(self.at.index.0 + self.marks.len() as u64),
            term: self.at.term,
            first: Position(self.at.position.0 + u64::from(self.entries)),
            count: payload.count,
            group: self.group,
            session: of.session,
            sequence: of.sequence,
            behind: u32::try_from(of.sequence.saturating_sub(of.settled)).unwrap_or(u32::MAX),
            clock: stamp.clock,
            leader_time: stamp.leader_time,
            schema: payload.schema,
        };
        header.write(self.seed, &mut self.bytes);
        self.bytes.put_slice(&payload.bytes);
        self.entries = entries;
        self.marks.push(Mark { end, entries });
        Ok(())
    }

    /// The run; `None` if nothing was added.
    #[must_use]
    pub fn finish(self) -> Option<Run> {
        let records = Records::gathered(self.bytes.freeze(), self.marks)?;
        Some(Run::new(
            self.at.index,
            self.at.term,
            self.at.position,
            Body::Records(records),
        ))
    }
}

/// Appends the bytes of a run to `out`; records of users are not copied.
pub fn encode_run(cluster: ClusterId, group: GroupId, run: &Run, out: &mut Vec<Bytes>) {
    match run.body() {
        Body::Records(records) => out.push(records.bytes().clone()),
        _ => out.extend(control::encode(cluster, group, run)),
    }
}

/// How many bytes [`encode_run`] gives.
#[must_use]
pub fn run_bytes(run: &Run) -> usize {
    match run.body() {
        Body::Noop => RecordHeader::BYTES,
        Body::Configuration(configuration) => {
            let nodes =
                configuration.voters.len() + configuration.outgoing.len() + configuration.learners.len();
            RecordHeader::BYTES + 16 + nodes * 8
        }
        Body::Records(records) => records.bytes().len(),
    }
}
