//! Where things stand: names of files, and how the room in a segment is shared out.
//!
//! A segment is `log/NNNNNNNNNNNNNNNN.seg`, its number in 16 decimal digits; while it is being filled with
//! zeros it ends in `.new`. Invariant: the figures here fit together for every length of segment that
//! [`check`] lets pass: a record of half a segment fits into a fresh one beside everything else.

use crate::api::{LogError, LogOptions};
use kontiki_wire::frame::SECTOR as SECTOR_BYTES;

/// The folder of segments.
pub(crate) const FOLDER: &str = "log";
/// What a device writes whole or not at all.
pub(crate) const SECTOR: u64 = SECTOR_BYTES as u64;
/// What a system keeps in memory whole or not at all. A segment is so many of them.
pub(crate) const PAGE: usize = 4096;
/// The longest segment: offsets in it are 32-bit numbers.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// A frame is cut here unless it is one record: a failed write, and a read, concern no more than this.
const FRAME_BYTES_MAX: u64 = 4 << 20;

/// What the name of a file in the folder says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// A segment, with its number.
    Segment(u64),
    /// One that was not yet finished.
    New,
}

/// The name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{FOLDER}/{number:016}.seg")
}

/// Its name while it is being made.
pub(crate) fn new_name(number: u64) -> String {
    format!("{FOLDER}/{number:016}.new")
}

/// What a name in the folder stands for; `None` if it is not one of ours.
pub(crate) fn parse(name: &str) -> Option<Named> {
    let (number, kind) = name.split_once('.')?;
    let is_number = number.len() == 16 && number.bytes().all(|b| b.is_ascii_digit());
    let number = is_number.then(|| number.parse().ok())??;
    match kind {
        "seg" => Some(Named::Segment(number)),
        "new" => Some(Named::New),
        _ => None,
    }
}

/// The next multiple of a sector.
pub(crate) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR)
}

/// How far two records with an entry in the index are apart, about, in bytes.
pub(crate) fn stride(segment_bytes: u64) -> u64 {
    (segment_bytes / 1024).clamp(4 << 10, 64 << 10)
}

/// How much of a segment is kept for terms and votes while there is no other to follow it.
pub(crate) fn reserve(segment_bytes: u64) -> u64 {
    segment_bytes / 8
}

/// How many bytes of records a frame holds, unless it is a single record.
pub(crate) fn frame_bytes_max(segment_bytes: u64) -> usize {
    FRAME_BYTES_MAX.min(segment_bytes / 4) as usize
}

/// Whether a segment can be so long.
pub(crate) fn is_segment_length(bytes: u64) -> bool {
    (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE as u64)
}

/// Whether the options are possible.
pub(crate) fn check(options: &LogOptions) -> Result<(), LogError> {
    let bytes = options.segment_bytes;
    if is_segment_length(bytes) {
        return Ok(());
    }
    Err(LogError::Wrong(format!(
        "segment_bytes is {bytes}: it must be a multiple of 4096 from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        assert_eq!(segment_name(17), "log/0000000000000017.seg");
        assert_eq!(parse("0000000000000017.seg"), Some(Named::Segment(17)));
        assert_eq!(parse("0000000000000018.new"), Some(Named::New));
        for foreign in [
            "17.seg",
            "lock",
            "0000000000000017.seg~",
            "000000000000001x.seg",
            "+000000000000017.seg",
            "",
        ] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_possible_lengths_pass() {
        let check = |segment_bytes| {
            check(&LogOptions {
                segment_bytes,
                tail_bytes_max: 0,
            })
            .is_ok()
        };
        assert!(check(64 << 10) && check(1 << 30) && check(LogOptions::default().segment_bytes));
        assert!(!check(60 << 10) && !check((64 << 10) + 512) && !check(2 << 30));
    }
}
