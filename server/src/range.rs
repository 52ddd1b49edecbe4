//! Ranges of entries as people write them: `FROM..TO`, `FROM..=TO`, `FROM..`, `..TO`, `..`, or one index.
//!
//! As in Rust, `FROM..TO` ends before `TO` and `FROM..=TO` with it. Indexes count from 1.

use std::str::FromStr;

/// A range of indexes: `from` is in it, `to` is not; without `to` it goes on to the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryRange {
    /// The first index, at least 1; without it the range begins where the log does.
    pub(crate) from: Option<u64>,
    /// The index after the last.
    pub(crate) to: Option<u64>,
}

impl FromStr for EntryRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = match text.split_once("..") {
            None => {
                let only = index(text)?;
                (Some(only), Some(after(only)?))
            }
            Some((from, to)) => (end(from)?, upper(to)?),
        };
        let range = Self { from, to };
        match range {
            Self { from: Some(0), .. } => Err("entries are counted from 1".into()),
            Self {
                from: Some(from),
                to: Some(to),
            } if to < from => Err(format!("ends at {to}, before it begins at {from}")),
            _ => Ok(range),
        }
    }
}

fn upper(text: &str) -> Result<Option<u64>, String> {
    match text.strip_prefix('=') {
        Some(last) => after(index(last)?).map(Some),
        None => end(text),
    }
}

fn end(text: &str) -> Result<Option<u64>, String> {
    if text.trim().is_empty() {
        Ok(None)
    } else {
        index(text).map(Some)
    }
}

fn index(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| {
        format!("`{text}` is not an index; write FROM..TO (TO not included), FROM..=TO, FROM.. or ..")
    })
}

fn after(index: u64) -> Result<u64, String> {
    index
        .checked_add(1)
        .ok_or_else(|| format!("{index} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<u64>, Option<u64>) {
        let range: EntryRange = text.parse().unwrap();
        (range.from, range.to)
    }

    #[test]
    fn either_end_may_be_left_out() {
        assert_eq!(parsed("3..9"), (Some(3), Some(9)));
        assert_eq!(parsed("3..=9"), (Some(3), Some(10)));
        assert_eq!(parsed("3.."), (Some(3), None));
        assert_eq!(parsed("..9"), (None, Some(9)));
        assert_eq!(parsed("..=9"), (None, Some(10)));
        assert_eq!(parsed(".."), (None, None));
        assert_eq!(parsed("5"), (Some(5), Some(6)));
        assert_eq!(parsed("4..4"), (Some(4), Some(4)));
    }

    #[test]
    fn what_is_no_range_is_explained() {
        for text in [
            "",
            "x..y",
            "1..-2",
            "0..3",
            "0",
            "9..3",
            "1...3",
            "1..=",
            "18446744073709551615",
            "99999999999999999999",
        ] {
            assert!(text.parse::<EntryRange>().is_err(), "{text:?}");
        }
    }
}
