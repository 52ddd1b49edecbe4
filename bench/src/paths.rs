//! Hot paths of the wire format, each as a step that can be repeated: for `counts` and for criterion.

use bytes::Bytes;
use kontiki_consensus::{Admission, GroupId, Index, Position, Run, Term};
use kontiki_wire::{
    ClusterId, Codec, Payload, Session, Stamp,
    record::{RunBuilder, decode_prefix, encode_run},
};

pub(crate) const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const GROUP: GroupId = GroupId(0);

/// A run of records with an entry each, as a leader seals it: payload and its checksum, header and its checksum.
pub(crate) fn encoded(len: usize, records: usize) -> Result<Run, &'static str> {
    let at = Admission {
        index: Index(1),
        term: Term(1),
        position: Position(1),
    };
    let entry = Bytes::from(vec![5; len]);
    let mut builder = RunBuilder::with_capacity(CLUSTER, GROUP, at, records, records * len);
    for _ in 0..records {
        let payload = Payload::one(entry.clone(), Codec::Bytes);
        let pushed = builder.push(&payload, Stamp::default(), Session::None);
        pushed.map_err(|_| "a run is full")?;
    }
    builder.finish().ok_or("nothing was encoded")
}

/// The bytes of such a run.
pub(crate) fn sealed(len: usize, records: usize) -> Result<Bytes, &'static str> {
    let mut bytes = Vec::new();
    encode_run(CLUSTER, GROUP, &encoded(len, records)?, &mut bytes);
    Ok(bytes.concat().into())
}

/// What a start does with the records of each frame that it reads, and a follower with those of each message.
pub(crate) fn scanned(bytes: &Bytes) -> Result<Vec<Run>, &'static str> {
    let (runs, read, error) = decode_prefix(CLUSTER, GROUP, bytes.clone());
    if error.is_some() || read != bytes.len() {
        return Err("sound records were refused");
    }
    Ok(runs)
}
