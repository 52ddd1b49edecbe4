//! The state of a machine as bytes: read piece by piece, whatever it comes from, and as one serde value where it is in memory.
//!
//! Invariants: one piece is in memory at a time; a source that panics, in reading or when it is dropped, costs
//! its snapshot and no more.
//!
//! [`snapshot_of`] encodes it at once, while nothing is applied, so that what is then read is the state of one moment; the
//! pause is that of encoding it and the memory as much again as its encoding: about a second for a GiB. A larger state
//! belongs on disk, with a source that reads from a version of it.

use super::{MachineError, decode, encode, panicked};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    io::{Cursor, ErrorKind, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The longest piece of a state, in bytes.
const PIECE_BYTES_MAX: usize = kontiki_wire::snapshot::PIECE_BYTES_MAX;

/// What a machine in memory gives for [`StateMachine::snapshot`](super::StateMachine::snapshot): the postcard encoding of
/// its state. Applying stands still while it is encoded, and it is in memory until it is written.
///
/// # Errors
/// If serde cannot encode it.
pub fn snapshot_of(state: &impl Serialize) -> Result<Box<dyn Read + Send>, MachineError> {
    Ok(Box::new(Cursor::new(encode(state).map_err(MachineError::new)?)))
}

/// The state that [`snapshot_of`] has encoded, for [`StateMachine::restore`](super::StateMachine::restore).
///
/// # Errors
/// If it cannot be read to its end, or is not the encoding of such a state.
pub fn restored<T: DeserializeOwned>(from: &mut dyn Read) -> Result<T, MachineError> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)
        .map_err(|error| MachineError::new(format!("the snapshot cannot be read: {error}")))?;
    decode(&bytes).map_err(|why| MachineError::new(format!("the snapshot is not one of this state: {why}")))
}

/// What a machine gave to read its state from.
pub struct Source {
    from: Option<Box<dyn Read + Send>>,
    /// The driver's name for it.
    pub(crate) token: u64,
    /// How many bytes are read at once.
    pub(crate) piece_bytes: usize,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(from: Box<dyn Read + Send>) -> Self {
        Self {
            from: Some(from),
            token: 0,
            piece_bytes: PIECE_BYTES_MAX,
        }
    }

    /// Reads the next piece of the state, of as many bytes as the driver wants at once; `None` at its end. It may take
    /// long.
    ///
    /// # Errors
    /// If it cannot be read, or panics. It is of no use then.
    pub fn read(&mut self) -> Result<Option<Bytes>, MachineError> {
        let read = catch_unwind(AssertUnwindSafe(|| self.fill()));
        let bytes = read.unwrap_or_else(|panic| Err(MachineError::new(panicked(&*panic))))?;
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }

    fn fill(&mut self) -> Result<Vec<u8>, MachineError> {
        let mut bytes = vec![0; self.piece_bytes.clamp(1, PIECE_BYTES_MAX)];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty())
            && let Some(from) = &mut self.from
        {
            match from.read(rest) {
                Ok(0) => break,
                Ok(more) => length += more.min(rest.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(MachineError::new(format!("its state cannot be read: {error}"))),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let from = self.from.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(from))) {
            tracing::warn!("the source of a snapshot: {}", panicked(&*panic));
        }
    }
}
