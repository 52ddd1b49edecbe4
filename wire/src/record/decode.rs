//! Runs from bytes, checked: at the door of a peer and when read from disk.
//!
//! Invariant: what comes out is sound to the last byte (checksums, group, form) and consecutive.

use super::{Kind, RecordError, RecordHeader, SessionLimits, TrimPoint, control, entries_in};
use crate::ClusterId;
use bytes::Bytes;
use kontiki_consensus::{Body, GroupId, Index, Mark, MarkList, Position, Records, Run};

/// Consecutive runs from exactly these bytes; they share their memory.
///
/// # Errors
/// If anything in them is not sound.
pub fn decode_runs(cluster: ClusterId, group: GroupId, bytes: Bytes) -> Result<Vec<Run>, RecordError> {
    let (runs, _, error) = decode_prefix(cluster, group, bytes);
    error.map_or(Ok(runs), Err)
}

/// The runs of the longest sound beginning, its length in bytes, and why it ends before the end, if it does.
#[must_use]
pub fn decode_prefix(
    cluster: ClusterId,
    group: GroupId,
    bytes: Bytes,
) -> (Vec<Run>, usize, Option<RecordError>) {
    let mut decoder = Decoder {
        cluster,
        group,
        bytes,
        at: 0,
        next: None,
        pending: None,
        runs: Vec::new(),
    };
    let error = decoder.decode().err();
    decoder.seal();
    (decoder.runs, decoder.at, error)
}

/// Records of users that may still be followed by others of the same term.
struct Pending {
    first: RecordHeader,
    /// Where the first begins.
    from: usize,
    marks: MarkList,
}

struct Decoder {
    cluster: ClusterId,
    group: GroupId,
    bytes: Bytes,
    /// Up to here all is sound.
    at: usize,
    /// Index and position the next record must have.
    next: Option<(Index, Position)>,
    pending: Option<Pending>,
    runs: Vec<Run>,
}

impl Decoder {
    fn decode(&mut self) -> Result<(), RecordError> {
        while self.at < self.bytes.len() {
            let header = RecordHeader::read(self.cluster, &self.bytes[self.at..])?;
            let payload = self.check(&header)?;
            let end = self.at + header.record_len();
            match header.kind {
                Kind::Entries | Kind::Session | Kind::Trim | Kind::Compare | Kind::Clock => {
                    self.add(&header, end)
                }
                kind => {
                    let form = RecordError::Form { index: header.index };
                    let body = control::decode(kind, &payload).ok_or(form)?;
                    self.seal();
                    self.runs
                        .push(Run::new(header.index, header.term, header.first, body));
                }
            }
            self.next = Some((
                header.index.next(),
                Position(header.first.0.saturating_add(header.count.into())),
            ));
            self.at = end;
        }
        Ok(())
    }

    /// Checks all of a record whose header is sound; gives its payload.
    fn check(&self, header: &RecordHeader) -> Result<Bytes, RecordError> {
        let (index, needs, has) = (header.index, header.record_len(), self.bytes.len() - self.at);
        if needs > has {
            return Err(RecordError::Cut { needs, has });
        }
        if header.group != self.group {
            return Err(RecordError::Group {
                index,
                group: header.group.0,
            });
        }
        let follows = self.next.is_none_or(|next| next == (index, header.first));
        let in_term = self.last_term().is_none_or(|term| term <= header.term);
        if !follows || !in_term || index == Index::ZERO {
            return Err(RecordError::Place { index });
        }
        let from = self.at + header.header_len as usize;
        let payload = self.bytes.slice(from..from + header.payload_len as usize);
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Err(RecordError::Payload { index });
        }
        let formed = match header.kind {
            Kind::Entries => header.count > 0 && entries_in(&payload, header.count).is_some(),
            Kind::Session => header.count == 0 && SessionLimits::of(&payload).is_some(),
            Kind::Trim => header.count == 0 && TrimPoint::of(&payload).is_some(),
            Kind::Compare | Kind::Clock => header.count == 0 && payload.is_empty(),
            _ => header.count == 0,
        };
        if formed {
            Ok(payload)
        } else {
            Err(RecordError::Form { index })
        }
    }

    fn last_term(&self) -> Option<kontiki_consensus::Term> {
        let pending = self.pending.as_ref().map(|p| p.first.term);
        pending.or_else(|| self.runs.last().map(Run::term))
    }

    /// Adds a record of users that ends at `end` to the run it belongs to.
    fn add(&mut self, header: &RecordHeader, end: usize) {
        let joins = |pending: &Pending| {
            let entries = pending.marks.last().map_or(0, |m| m.entries);
            pending.first.term == header.term
                && end - pending.from <= u32::MAX as usize
                && entries.checked_add(header.count).is_some()
        };
        if !self.pending.as_ref().is_some_and(joins) {
            self.seal();
        }
        let at = self.at;
        let pending = self.pending.get_or_insert_with(|| Pending {
            first: *header,
            from: at,
            marks: MarkList::default(),
        });
        let entries = pending.marks.last().map_or(0, |m| m.entries) + header.count;
        pending.marks.push(Mark {
            end: (end - pending.from) as u32,
            entries,
        });
    }

    /// Nothing more joins the records that were gathered.
    fn seal(&mut self) {
        let Some(Pending { first, from, marks }) = self.pending.take() else {
            return;
        };
        let end = marks.last().map_or(from, |m| from + m.end as usize);
        let records = Records::gathered(self.bytes.slice(from..end), marks);
        let run = records.map(|r| Run::new(first.index, first.term, first.first, Body::Records(r)));
        self.runs.extend(run);
    }
}
