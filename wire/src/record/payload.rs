//! The entries of one append, encoded and summed by the client's thread.
//!
//! Invariant: one entry is its bytes; several are a table of their ends and then the bytes, so that any
//! of them is found without looking at the others.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of an end in the table of several entries.
const END_BYTES: usize = 4;

/// The entries of one append, encoded and summed, before index and term are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// One entry: its bytes. Several: the end offset of each (u32, little-endian), then all of them.
    pub bytes: Bytes,
    /// How many entries; at least one, except for an append that only checks its precondition.
    pub count: u32,
    /// CRC-32C of `bytes`.
    pub crc: u32,
    /// How each entry is encoded.
    pub codec: Codec,
    /// The application's schema of the entries; zero unless the application says.
    pub schema: u32,
}

/// How entries are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Codec {
    /// As they came.
    #[default]
    Bytes = 1,
    /// With postcard.
    Postcard = 2,
}

impl Codec {
    /// The codec of this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Bytes),
            2 => Some(Self::Postcard),
            _ => None,
        }
    }
}

impl Payload {
    /// A single entry.
    #[must_use]
    pub fn one(entry: Bytes, codec: Codec) -> Self {
        Self {
            crc: crc32c::crc32c(&entry),
            bytes: entry,
            count: 1,
            codec,
            schema: 0,
        }
    }

    /// Nothing: an append that only checks its precondition.
    #[must_use]
    pub fn empty(codec: Codec) -> Self {
        Self {
            bytes: Bytes::new(),
            count: 0,
            crc: crc32c::crc32c(&[]),
            codec,
            schema: 0,
        }
    }

    /// Entries that are appended together. `None` if they and their table are above 4 GiB.
    #[must_use]
    pub fn several<E: AsRef<[u8]>>(entries: &[E], codec: Codec) -> Option<Self> {
        match entries {
            [] => return Some(Self::empty(codec)),
            [entry] => return Some(Self::one(Bytes::copy_from_slice(entry.as_ref()), codec)),
            _ => {}
        }
        let length: usize = entries.iter().map(|e| e.as_ref().len()).sum();
        let whole = length.checked_add(entries.len().checked_mul(END_BYTES)?)?;
        u32::try_from(whole).ok()?;
        let mut bytes = BytesMut::with_capacity(whole);
        let mut end = 0;
        for entry in entries {
            end += entry.as_ref().len() as u32;
            bytes.put_u32_le(end);
        }
        for entry in entries {
            bytes.put_slice(entry.as_ref());
        }
        let bytes = bytes.freeze();
        Some(Self {
            crc: crc32c::crc32c(&bytes),
            bytes,
            count: u32::try_from(entries.len()).ok()?,
            codec,
            schema: 0,
        })
    }
}

/// The entries of a payload.
#[derive(Clone, Debug)]
pub struct Entries {
    ends: Bytes,
    data: Bytes,
    from: u32,
    left: u32,
}

/// The entries of a payload that holds `count` of them; `None` if it is not of that form. Shares its memory.
#[must_use]
pub fn entries_in(payload: &Bytes, count: u32) -> Option<Entries> {
    match count {
        0 => payload
            .is_empty()
            .then(|| Entries::over(Bytes::new(), Bytes::new(), 0)),
        1 => Some(Entries::over(Bytes::new(), payload.clone(), 1)),
        _ => {
            let table = (count as usize).checked_mul(END_BYTES)?;
            let (ends, data) = payload.split_at_checked(table)?;
            is_table(ends, data.len())
                .then(|| Entries::over(payload.slice(..table), payload.slice(table..), count))
        }
    }
}

/// Whether the ends rise, and the last is the end of the data.
fn is_table(ends: &[u8], data: usize) -> bool {
    let mut before = 0;
    let rise = ends.chunks_exact(END_BYTES).all(|end| {
        let end = (&end[..]).get_u32_le();
        let rises = end >= before;
        before = end;
        rises
    });
    rise && before as usize == data
}

impl Entries {
    fn over(ends: Bytes, data: Bytes, count: u32) -> Self {
        Self {
            ends,
            data,
            from: 0,
            left: count,
        }
    }
}

impl Iterator for Entries {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        // A single entry has no table.
        let end = self.ends.try_get_u32_le().unwrap_or(self.data.len() as u32);
        let entry = self.data.slice(self.from as usize..end as usize);
        self.from = end;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Entries {}
