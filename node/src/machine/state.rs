//! Snapshots of machines whose state is in memory: the whole state as one serde value.
//!
//! [`snapshot_of`] encodes it at once, while nothing is applied, so that what is then read is the state of one moment; the
//! pause is that of encoding it and the memory as much again as its encoding: about a second for a GiB. A larger state
//! belongs on disk, with a source that reads from a version of it.

use super::{MachineError, decode, encode};
use bytes::Buf;
use serde::{Serialize, de::DeserializeOwned};
use std::io::Read;

/// What a machine in memory gives for [`StateMachine::snapshot`](super::StateMachine::snapshot): the postcard encoding of
/// its state. Applying stands still while it is encoded, and it is in memory until it is written.
///
/// # Errors
/// If serde cannot encode it.
pub fn snapshot_of(state: &impl Serialize) -> Result<Box<dyn Read + Send>, MachineError> {
    Ok(Box::new(encode(state)?.reader()))
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
