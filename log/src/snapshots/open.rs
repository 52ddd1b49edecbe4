//! Looking at the snapshots of a node when it starts.

use super::{Snapshots, parse};
use crate::api::{LogError, SnapshotFile};
use crate::blocking::{list, open as open_file, perform, read, remove, sync_directory, unless_full};
use crate::disk::{Disk, DiskError, GROWING, Op};
use kontiki_consensus::LogId;
use kontiki_wire::ClusterId;
use kontiki_wire::snapshot::{SNAPSHOT_FIXED_BYTES, SnapshotError, SnapshotHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The snapshots of a data directory. What was being written is removed; what was being received stays. One that is
/// not sound is left alone and told to the operator: whether it is needed, the log knows. It is put aside when another one is to
/// have its name.
pub(crate) fn open(
    disk: &mut impl Disk,
    cluster: ClusterId,
) -> Result<(Snapshots, Option<SnapshotHeader>), LogError> {
    let mut notes = Vec::new();
    let has_folder = list(disk, "")?.iter().any(|(name, _)| name == GROWING);
    let (mut files, mut parts) = (BTreeMap::new(), BTreeSet::new());
    if has_folder {
        // A process that was killed may have left names that a loss of power would take back.
        sync_directory(disk, "")?;
        sync_directory(disk, GROWING)?;
        for (file, bytes) in list(disk, GROWING)? {
            let name = format!("{GROWING}/{file}");
            match parse(&file) {
                Some((_, "new" | "note.new")) => {
                    let removed = remove(disk, name).and_then(|()| sync_directory(disk, GROWING));
                    // What is to have its name removes it then.
                    unless_full(removed)?;
                }
                Some((last, "part")) => drop(parts.insert(last)),
                Some((last, "snap")) => match header(disk, &name, bytes, cluster, last)? {
                    Ok((header, sum)) => drop(files.insert(last, SnapshotFile { header, sum, bytes })),
                    Err(error) => tracing::error!("{}: {name} is not used: {error}", disk.name()),
                },
                Some((last, "note")) => notes.push((last, name, bytes)),
                _ => {}
            }
        }
    }
    let mut snapshots = Snapshots::new(cluster, has_folder, files, parts);
    let note = newest_note(disk, cluster, notes, &mut snapshots.noted)?;
    Ok((snapshots, note))
}

/// The newest note that is sound. Others are of no use; they go when the next one is kept.
fn newest_note(
    disk: &mut impl Disk,
    cluster: ClusterId,
    mut notes: Vec<(LogId, String, u64)>,
    noted: &mut Vec<LogId>,
) -> Result<Option<SnapshotHeader>, LogError> {
    notes.sort_by_key(|(last, ..)| last.index);
    noted.extend(notes.iter().map(|(last, ..)| *last));
    for (last, name, bytes) in notes.into_iter().rev() {
        match header(disk, &name, bytes, cluster, last)? {
            Ok((header, _)) => return Ok(Some(Arc::unwrap_or_clone(header))),
            Err(error) => tracing::warn!("{}: {name} is not used: {error}", disk.name()),
        }
    }
    Ok(None)
}

fn header(
    disk: &mut impl Disk,
    name: &str,
    bytes: u64,
    cluster: ClusterId,
    last: LogId,
) -> Result<Result<(Arc<SnapshotHeader>, u32), SnapshotError>, DiskError> {
    let (file, _) = open_file(disk, name.to_owned())?;
    let start = read(disk, file, 0, bytes.min(SNAPSHOT_FIXED_BYTES as u64))?;
    let length = SnapshotHeader::len_of(&start).filter(|length| *length as u64 <= bytes);
    let found = match length {
        Some(length) => SnapshotHeader::read(&read(disk, file, 0, length as u64)?),
        None => Err(SnapshotError::Header),
    };
    perform(disk, Op::Close { file })?;
    Ok(found.and_then(|(header, sum)| {
        let ours = header.maker.cluster == cluster && header.base.last == last;
        ours.then(|| (Arc::new(header), sum)).ok_or(SnapshotError::Header)
    }))
}
