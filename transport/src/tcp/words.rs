//! What two nodes say to each other on a connection beside packets: hello, and why it ends.
//!
//! A word is its kind, the length of what follows (two bytes, little-endian), and that. Invariant: no length is believed
//! above what the longest word may have.

use super::secure::Secure;
use crate::{
    dial::Lost,
    reason::{Close, REASON_BYTES_MAX},
};
use kontiki_wire::handshake::HELLO_BYTES_MAX;

const HELLO: u8 = 1;
const CLOSE: u8 = 2;
/// Kind and length.
const HEAD_BYTES: usize = 3;
/// The number of the lane, or why a connection ends, stands before the rest.
const NUMBER_BYTES: usize = 1;
const BODY_BYTES_MAX: usize = NUMBER_BYTES + HELLO_BYTES_MAX;

// A reason is no longer than a hello may be.
const _: () = assert!(NUMBER_BYTES + REASON_BYTES_MAX <= BODY_BYTES_MAX);

/// What was said.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// Hello, for the lane of this number.
    Hello(u8, Vec<u8>),
    /// The connection ends: why, as a number and in words.
    Close(u8, Vec<u8>),
}

/// A hello for a lane.
pub(crate) fn hello(lane: u8, hello: &[u8]) -> Vec<u8> {
    word(HELLO, lane, hello)
}

/// The last word on a connection.
pub(crate) fn close(why: Close, reason: &[u8]) -> Vec<u8> {
    word(CLOSE, why.code(), reason)
}

/// What is said here is never longer than [`BODY_BYTES_MAX`], which has a length in two bytes.
fn word(kind: u8, number: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(NUMBER_BYTES + rest.len()).unwrap_or(u16::MAX);
    let mut word = vec![kind];
    word.extend_from_slice(&length.to_le_bytes());
    word.push(number);
    word.extend_from_slice(rest);
    word
}

/// What has come of the other side's words.
#[derive(Debug, Default)]
pub(crate) struct Words {
    bytes: Vec<u8>,
}

impl Words {
    /// Waits for the next one.
    pub(crate) async fn hear(&mut self, secure: &Secure) -> Result<Word, Lost> {
        loop {
            if let Some(word) = self.next()? {
                return Ok(word);
            }
            let bytes = &mut self.bytes;
            let keep = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok::<(), Lost>(())
            };
            secure.read(keep).await?;
        }
    }

    /// What came behind the words that were taken.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.bytes
    }

    fn next(&mut self) -> Result<Option<Word>, Lost> {
        let [kind, low, high, ..] = self.bytes[..] else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let known = matches!(kind, HELLO | CLOSE);
        if !known || !(NUMBER_BYTES..=BODY_BYTES_MAX).contains(&length) {
            return Err(Lost::otherwise("what it says is not the protocol of Kontiki"));
        }
        if self.bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let behind = self.bytes.split_off(HEAD_BYTES + length);
        let word = std::mem::replace(&mut self.bytes, behind);
        let (number, rest) = (word[HEAD_BYTES], word[HEAD_BYTES + NUMBER_BYTES..].to_vec());
        Ok(Some(if kind == HELLO {
            Word::Hello(number, rest)
        } else {
            Word::Close(number, rest)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Words {
        Words {
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_word_is_taken_once_it_is_whole_and_leaves_what_is_behind() {
        let said = hello(2, b"who");
        for end in 0..said.len() {
            assert_eq!(words(&said[..end]).next(), Ok(None));
        }
        let mut words = words(&[&said[..], &close(Close::Refused, b"no"), b"more"].concat());
        assert_eq!(words.next(), Ok(Some(Word::Hello(2, b"who".to_vec()))));
        let closed = Word::Close(Close::Refused.code(), b"no".to_vec());
        assert_eq!(words.next(), Ok(Some(closed)));
        assert_eq!(words.rest(), b"more");
    }

    #[test]
    fn what_is_no_word_is_refused_before_the_rest_comes() {
        assert!(words(b"GET / HTTP/1.1").next().is_err());
        assert!(words(&[HELLO, 0, 0]).next().is_err(), "no number");
        assert!(words(&[CLOSE, 255, 255]).next().is_err(), "too long");
    }
}
