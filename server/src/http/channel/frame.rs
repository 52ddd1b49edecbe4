//! The frames of a channel, as `docs/HTTP.md` draws them.
//!
//! A length is believed only within a limit. What is wrong within a frame concerns that request alone; a frame whose end is
//! not known ends the channel.

use crate::{
    frames,
    http::{problem::Refusal, query::expect_of},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki::{Appended, Code, Consistency, Entries, Expect, Raw, SessionKey};

/// Before each frame: the length of what follows.
const LENGTH_BYTES: usize = 4;
/// In each frame: kind and number.
const HEAD_BYTES: usize = 9;

const APPEND: u8 = 1;
const READ: u8 = 2;

const APPENDED: u8 = 1;
const ENTRIES: u8 = 2;
const PROBLEM: u8 = 3;
const CLOSING: u8 = 4;

const EXPECT_INDEX: u8 = 1;
const EXPECT_TERM: u8 = 2;
const KEY: u8 = 4;

/// A request: the client's number for it, and what it asks, if that makes sense.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) ask: Result<Ask, Refusal>,
    /// Bytes of the frame.
    pub(super) bytes: usize,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Ask {
    Append {
        expect: Expect,
        key: Option<SessionKey>,
        entries: Vec<Raw>,
    },
    /// A plain append of one entry.
    One(Raw),
    Read {
        from: u64,
        to: u64,
        consistency: Consistency,
    },
}

/// Bytes of the frame that is coming, once its length has come.
pub(super) fn coming(given: &[u8]) -> Option<usize> {
    let length = given.first_chunk::<LENGTH_BYTES>()?;
    Some(LENGTH_BYTES + u32::from_le_bytes(*length) as usize)
}

/// The next request, if all of it has come.
///
/// # Errors
/// Where the next request begins is not to be known: what has come is no frame.
pub(super) fn next(given: &mut BytesMut, length_max: usize) -> Result<Option<Asked>, Refusal> {
    let Some(length) = given.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length < HEAD_BYTES {
        let text = format!("a frame of length {length}; kind and number alone are {HEAD_BYTES} bytes");
        return Err(Refusal::new(Code::BadRequest, text));
    }
    if length > length_max {
        let text = format!("a frame of length {length}; the most is {length_max}");
        return Err(Refusal::new(Code::TooLarge, text).advise("append in smaller batches"));
    }
    let bytes = LENGTH_BYTES + length;
    if given.len() < bytes {
        return Ok(None);
    }
    let mut frame = given.split_to(bytes).freeze();
    frame.advance(LENGTH_BYTES);
    let (kind, number) = (frame.get_u8(), frame.get_u64_le());
    let ask = match kind {
        APPEND => append(frame),
        READ => read(frame),
        other => Err(bad(format!("a frame of kind {other}; 1 is an append, 2 a read"))),
    };
    Ok(Some(Asked { number, ask, bytes }))
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, text)
}

fn append(mut body: Bytes) -> Result<Ask, Refusal> {
    let flags = body.try_get_u8().map_err(|_| bad("an append without flags"))?;
    if flags & !(EXPECT_INDEX | EXPECT_TERM | KEY) != 0 {
        return Err(bad(format!(
            "an append with flags {flags:#04x}; known are 1, 2 and 4"
        )));
    }
    let mut number = |flag: u8, name: &str| -> Result<Option<u64>, Refusal> {
        let missing = |_| bad(format!("an append that ends before its {name}"));
        let given = (flags & flag != 0).then(|| body.try_get_u64_le());
        given.transpose().map_err(missing)
    };
    let (index, term) = (
        number(EXPECT_INDEX, "expected index")?,
        number(EXPECT_TERM, "expected term")?,
    );
    let expect = expect_of(index, term)?;
    let (session, sequence) = (number(KEY, "session")?, number(KEY, "sequence")?);
    let settled = number(KEY, "settled sequence")?;
    let key = match (session, sequence, settled) {
        (Some(session), Some(sequence), Some(settled)) => Some(key(session, sequence, settled)?),
        _ => None,
    };
    let entries = frames::split(body).map_err(|at| {
        bad(format!(
            "the entry at byte {at} of the entries is longer than what follows; each is its length (u32, little-endian) and its bytes"
        ))
    })?;
    let mut entries: Vec<Raw> = entries.into_iter().map(Raw).collect();
    Ok(match (flags, &mut entries[..]) {
        (0, [entry]) => Ask::One(Raw(std::mem::take(&mut entry.0))),
        _ => Ask::Append { expect, key, entries },
    })
}

fn key(session: u64, sequence: u64, settled: u64) -> Result<SessionKey, Refusal> {
    if session == 0 || sequence == 0 {
        return Err(
            bad("sessions and sequences count from 1").advise("open a session with POST /v1/sessions")
        );
    }
    let key = SessionKey::new(session, sequence);
    match settled {
        0 => Ok(key),
        settled if settled <= sequence => Ok(key.settled(settled)),
        _ => Err(bad(format!(
            "settled up to {settled}, beyond the append's own sequence {sequence}"
        ))),
    }
}

fn read(mut body: Bytes) -> Result<Ask, Refusal> {
    let short = |_| bad("a read is its consistency (u8) and two indexes (u64, little-endian)");
    let consistency = body.try_get_u8().map_err(short)?;
    let (from, to) = (
        body.try_get_u64_le().map_err(short)?,
        body.try_get_u64_le().map_err(short)?,
    );
    let consistency = match consistency {
        0 => Consistency::Linearizable,
        1 => Consistency::Lease,
        2 => Consistency::STALE,
        other => {
            let text = format!("a read of consistency {other}; 0 is linearizable, 1 lease, 2 stale");
            return Err(bad(text));
        }
    };
    if !body.is_empty() {
        return Err(bad(format!("a read with {} bytes too many", body.len())));
    }
    if to < from {
        return Err(bad(format!("a read up to {to}, before its beginning {from}")));
    }
    Ok(Ask::Read {
        from,
        to,
        consistency,
    })
}

/// Where an append stands.
pub(super) fn put_appended(out: &mut BytesMut, number: u64, appended: &Appended) {
    head(out, APPENDED, number, 24);
    out.put_u64_le(appended.first);
    out.put_u64_le(appended.last);
    out.put_u64_le(appended.term);
}

/// What was read from index `from` on.
pub(super) fn put_entries(out: &mut BytesMut, number: u64, from: u64, read: &Entries<Raw>) {
    let framed = |entry: &kontiki::Entry<Raw>| frames::LENGTH_BYTES + entry.value.0.len();
    let length: usize = read.entries.iter().map(framed).sum();
    let first = match read.entries.first() {
        Some(entry) => entry.index,
        None if from == 0 => read.last_index.saturating_add(1),
        None => from,
    };
    head(out, ENTRIES, number, 16 + length);
    out.put_u64_le(first);
    out.put_u64_le(read.last_index);
    for entry in &read.entries {
        // Longer than a length can say no entry is.
        let _ = frames::put(out, &entry.value.0);
    }
}

/// A request that failed.
pub(super) fn put_problem(out: &mut BytesMut, number: u64, refusal: &Refusal) {
    put_json(out, PROBLEM, number, refusal);
}

/// Why the channel ends; nothing follows.
pub(super) fn put_closing(out: &mut BytesMut, refusal: &Refusal) {
    put_json(out, CLOSING, 0, refusal);
}

fn put_json(out: &mut BytesMut, kind: u8, number: u64, refusal: &Refusal) {
    let json = refusal.json();
    head(out, kind, number, json.len());
    out.put_slice(&json);
}

/// Lengths here are those of a read at most, which `read_bytes_max` bounds far below what a length can say.
fn head(out: &mut BytesMut, kind: u8, number: u64, body: usize) {
    out.put_u32_le(u32::try_from(HEAD_BYTES + body).unwrap_or(u32::MAX));
    out.put_u8(kind);
    out.put_u64_le(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: u8, body: &[u8]) -> Result<Ask, Refusal> {
        let mut bytes = BytesMut::new();
        head(&mut bytes, kind, 7, body.len());
        bytes.put_slice(body);
        let whole = bytes.clone();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(next(&mut part, 1000).unwrap().is_none(), "{cut}");
            assert_eq!(part.len(), cut, "nothing is taken of a part");
        }
        let asked = next(&mut bytes, 1000).unwrap().unwrap();
        assert!(bytes.is_empty());
        assert_eq!(asked.number, 7);
        asked.ask
    }

    fn numbers(flags: u8, numbers: &[u64], entries: &[u8]) -> Vec<u8> {
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        [flags]
            .into_iter()
            .chain(numbers)
            .chain(entries.iter().copied())
            .collect()
    }

    const ENTRY: &[u8] = b"\x01\0\0\0x";

    #[test]
    fn appends_are_read_with_what_their_flags_say() {
        assert!(matches!(asked(APPEND, &numbers(0, &[], ENTRY)), Ok(Ask::One(Raw(entry))) if entry == "x"));
        let Ok(Ask::Append { expect, key, entries }) = asked(APPEND, &numbers(7, &[5, 2, 17, 9, 4], ENTRY))
        else {
            panic!()
        };
        assert_eq!(
            expect,
            Expect::Last {
                index: 5,
                term: Some(2)
            }
        );
        assert_eq!(key, Some(SessionKey::new(17, 9).settled(4)));
        assert_eq!(entries.len(), 1);
        let Ok(Ask::Append { expect, key, .. }) = asked(APPEND, &numbers(5, &[0, 17, 9, 0], &[])) else {
            panic!()
        };
        assert_eq!((expect, key), (Expect::Empty, Some(SessionKey::new(17, 9))));
    }

    #[test]
    fn what_makes_no_sense_is_the_matter_of_that_request() {
        for body in [
            vec![],
            numbers(8, &[], ENTRY),
            numbers(1, &[], b"short"),
            numbers(2, &[1], ENTRY),
            numbers(3, &[0, 1], ENTRY),
            numbers(4, &[0, 1, 1], ENTRY),
            numbers(4, &[1, 0, 0], ENTRY),
            numbers(4, &[1, 1, 2], ENTRY),
            numbers(0, &[], b"\x02\0\0\0x"),
        ] {
            assert!(asked(APPEND, &body).is_err(), "{body:?}");
        }
        assert!(asked(READ, &numbers(0, &[1, 2], &[])).is_ok());
        for body in [
            numbers(3, &[1, 2], &[]),
            numbers(0, &[1], &[]),
            numbers(0, &[2, 1], &[]),
            numbers(0, &[1, 2], b"x"),
        ] {
            assert!(asked(READ, &body).is_err(), "{body:?}");
        }
        assert!(asked(9, &[]).is_err());
    }

    #[test]
    fn what_is_no_frame_ends_the_channel() {
        for bytes in [&b"\x08\0\0\0"[..], b"\xff\xff\xff\xff", b"GET / HTTP/1.1"] {
            assert!(next(&mut BytesMut::from(bytes), 1000).is_err(), "{bytes:?}");
        }
    }
}
