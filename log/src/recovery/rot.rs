//! Whether damage at the end of the log is a write that was torn, or one that had been synced and rotted.
//!
//! Of a torn write whole pieces are missing, and stand as they were before. What lacks a single bit was damaged later, and then
//! the frame may have been acknowledged, and a vote in it given. The node marks itself suspect (`consensus`): the mark takes the
//! place of the damage, in the one sector that begins the frame, so that either the damage is there, with what it tells, or the
//! mark. Everything else is taken for torn, as ever: a rotten sector of which more is wrong, or that reads as zeros, cannot be told from
//! one that was not written.

use super::{End, Opening};
use crate::api::LogError;
use crate::blocking::read;
use crate::disk::Disk;
use crate::layout::{SECTOR, align, stride};
use crate::replay::{Content, Torn};
use crate::salts::Salts;
use crate::scan::Segment;
use kontiki_consensus::{GroupId, HardState, SuspectMark};
use kontiki_wire::BodySum;
use kontiki_wire::frame::{FrameHeader, FramePart};
use kontiki_wire::record::is_one_bit_off;

/// A frame whose header is sound and whose body is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    /// Where its first bad record begins.
    pub(super) at: u64,
    /// Where the frame ends.
    pub(super) end: u64,
}

impl Damage {
    pub(super) fn of(torn: &Torn) -> Self {
        Self {
            at: torn.at,
            end: torn.kept.end() + torn.lost,
        }
    }
}

impl<D: Disk> Opening<'_, D> {
    /// If the damage at the end was no torn write, the last frame becomes one that marks the node. Gives what was found.
    pub(super) fn mark_rot(
        &mut self,
        segment: &Segment,
        end: &mut End,
        chance: &mut Salts,
    ) -> Result<Option<String>, LogError> {
        // Over what another segment held, a piece that is missing may look like anything.
        let rotten = segment.was == 0
            && match end.damage {
                Some(damage) => self.is_body_rotten(segment, damage)?,
                None => self.is_header_rotten(segment, end)?,
            };
        if !rotten {
            return Ok(None);
        }
        let at = end.damage.map_or(align(end.offset), |damage| damage.at);
        let mark = chance.mark();
        self.put_mark(segment, end, mark);
        Ok(Some(format!(
            "{} is damaged at byte {at}, in its last write, and no torn write explains that: it may have been acknowledged",
            self.file(segment.number)
        )))
    }

    /// Whether the first bad record is sound but for one bit.
    fn is_body_rotten(&mut self, segment: &Segment, damage: Damage) -> Result<bool, LogError> {
        let to = damage.end.min(segment.bytes);
        let record = read(self.disk, segment.file, damage.at, to.saturating_sub(damage.at))?;
        // In a long record a bit that would do is found by chance too: then no sector is missing.
        let begins = (align(damage.at) - damage.at).min(record.len() as u64) as usize;
        let mut whole = record
            .get(begins..)
            .unwrap_or_default()
            .chunks_exact(SECTOR as usize);
        let lacks_sector = whole.any(|sector| sector.iter().all(|byte| *byte == 0));
        Ok(!lacks_sector && is_one_bit_off(self.identity.cluster, &record))
    }

    /// Whether the frame that comes next stands there but for one bit of its header.
    fn is_header_rotten(&mut self, segment: &Segment, end: &End) -> Result<bool, LogError> {
        let at = align(end.offset);
        if at + SECTOR > end.room {
            return Ok(false);
        }
        let mut sector = read(self.disk, segment.file, at, SECTOR)?.to_vec();
        if !FrameHeader::is_nearly(&sector) {
            return Ok(false);
        }
        let (cluster, place) = (self.identity.cluster, (segment.number, segment.salt));
        let next = self.replay.sequence;
        let mut is_next_with = |bit: usize| {
            let turn = |sector: &mut Vec<u8>| {
                if let Some(byte) = sector.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            };
            // A piece that is missing is zeros.
            if sector.get(bit / 8) == Some(&0) {
                return false;
            }
            turn(&mut sector);
            let header = FrameHeader::read(cluster, place, at, &sector);
            turn(&mut sector);
            header.is_ok_and(|header| header.sequence == next)
        };
        Ok((0..SECTOR as usize * 8).any(&mut is_next_with))
    }

    /// The last frame gives the node its mark: the one that is cut, or one in the place of what is lost altogether.
    fn put_mark(&mut self, segment: &Segment, end: &mut End, mark: SuspectMark) {
        let group = GroupId::default();
        let state = HardState {
            suspect: mark,
            ..self.replay.groups.entry(group).or_default().hard_state
        };
        let part = FramePart {
            group,
            hard_state: Some(state),
            ..FramePart::default()
        };
        match end.last.as_mut().filter(|_| end.is_cut) {
            Some(cut) => {
                match cut.parts.iter_mut().find(|part| part.group == group) {
                    Some(part) => part.hard_state = Some(state),
                    // There is room in its header, for it has lost a part.
                    None => cut.parts.push(part),
                }
                self.replay.groups.entry(group).or_default().hard_state = state;
            }
            None => {
                let salt = segment.salt.unwrap_or_default();
                let frame = FrameHeader {
                    header_len: FrameHeader::len_of(1) as u16,
                    segment: segment.number,
                    salt,
                    offset: align(end.offset),
                    sequence: self.replay.sequence,
                    body_sum: BodySum::new(salt).finish(),
                    parts: vec![part],
                };
                self.replay
                    .apply(&frame, stride(segment.bytes), &[Content::default()]);
                end.offset = frame.end();
                end.last = Some(frame);
            }
        }
        end.is_cut = true;
        for (_, from, _) in end.dirty.iter_mut().filter(|(n, ..)| *n == segment.number) {
            *from = (*from).max(end.offset);
        }
        end.dirty.retain(|(_, from, to)| from < to);
    }
}
