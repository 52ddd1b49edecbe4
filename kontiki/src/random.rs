//! Chance, from the operating system.

use crate::Error;
use ring::rand::{SecureRandom, SystemRandom};

/// So many bytes that nobody can guess.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::Io("the operating system has no randomness".to_owned()))?;
    Ok(bytes)
}

/// A number that nobody can guess.
pub(crate) fn number() -> Result<u64, Error> {
    Ok(u64::from_le_bytes(bytes()?))
}
