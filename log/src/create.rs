//! Making a data directory: an explicit act, once in a node's life.
//!
//! The first segment, with the genesis configuration as record 1 in term 0, is written under another name
//! and gets its own when all of it is on disk. That one rename is what makes the log: before it there is
//! none, whatever else is there, and making it can be begun anew; after it the log is whole.

use crate::api::{LogError, LogOptions};
use crate::batch::gather;
use crate::blocking::{create as create_file, list, perform, remove, rename, sync_directory, write};
use crate::disk::{Disk, Op};
use crate::group::Groups;
use crate::layout::{self, FOLDER, Named, SECTOR, new_name, parse, segment_name};
use crate::lives;
use crate::log::{Place, segment_header};
use crate::salts::Salts;
use kontiki_consensus::{Body, Configuration, GroupId, Index, Position, Run, Term, Write, WriteId};
use kontiki_wire::Identity;
use std::collections::VecDeque;
use std::sync::Arc;

/// The first segment and the first frame.
const FIRST: u64 = 1;

/// Makes the log of a node in an empty data directory. It holds the cluster's first configuration as record 1,
/// the same on every node. What an interrupted attempt has left is removed. What nobody can guess comes from `salts`.
///
/// # Errors
/// [`LogError::Wrong`] if there is a log already, or the options or members are impossible; [`LogError::Disk`] if the
/// disk refuses: nothing that counts as a log is left then.
pub fn create(
    mut disk: impl Disk,
    identity: Identity,
    members: &Configuration,
    options: LogOptions,
    salts: Salts,
) -> Result<(), LogError> {
    layout::check(&options)?;
    let disk = &mut disk;
    if members.voters.is_empty() {
        return Err(LogError::Wrong("a cluster needs at least one voter".to_owned()));
    }
    if holds_log(disk)? {
        return Err(LogError::Wrong(format!(
            "{} holds a log already. It was left as it is: start the node with it, or choose another directory",
            disk.name()
        )));
    }
    lives::create(disk, identity)?;
    perform(
        disk,
        Op::MakeDirectory {
            name: FOLDER.to_owned(),
        },
    )?;
    sync_directory(disk, "")?;
    for (name, _) in list(disk, FOLDER)? {
        if parse(&name) == Some(Named::New) {
            remove(disk, format!("{FOLDER}/{name}"))?;
        }
    }
    let file = create_file(disk, new_name(FIRST), options.segment_bytes)?;
    write(
        disk,
        file,
        0,
        first_write(identity, members, options.segment_bytes, salts),
    )?;
    sync_directory(disk, FOLDER)?;
    rename(disk, new_name(FIRST), segment_name(FIRST))?;
    sync_directory(disk, FOLDER)?;
    perform(disk, Op::Close { file })?;
    Ok(())
}

/// Whether a data directory holds a log: whether [`create`] was finished in it once.
///
/// # Errors
/// If the disk cannot tell.
pub fn holds_log(disk: &mut impl Disk) -> Result<bool, LogError> {
    if !list(disk, "")?.iter().any(|(name, _)| name == FOLDER) {
        return Ok(false);
    }
    let names = list(disk, FOLDER)?;
    Ok(names
        .iter()
        .any(|(name, _)| matches!(parse(name), Some(Named::Segment(_)))))
}

/// The header of the first segment and the frame with the genesis record.
fn first_write(
    identity: Identity,
    members: &Configuration,
    segment_bytes: u64,
    mut salts: Salts,
) -> Vec<bytes::Bytes> {
    let body = Body::Configuration(Arc::new(members.clone()));
    let write = Write {
        id: WriteId::ZERO,
        hard_state: None,
        truncate: None,
        install: None,
        purge: None,
        runs: Run::new(Index(1), Term::ZERO, Position(1), body).into(),
    };
    let mut queue = VecDeque::from([(GroupId::default(), write)]);
    let batch = gather(&mut queue, usize::MAX).unwrap_or_default();
    let groups = Groups::from([(GroupId::default(), Default::default())]);
    let place = Place {
        number: FIRST,
        bytes: segment_bytes,
        was: 0,
        salt: salts.draw(),
        next_salt: salts.draw(),
    };
    let mut body = Vec::new();
    let sum = batch.encode_body(identity.cluster, place.salt, &mut body);
    let header = batch.header((FIRST, place.salt), SECTOR, FIRST, sum);
    let mut buffers = vec![
        segment_header(identity, place, FIRST, &groups).encode(),
        header.encode(identity.cluster),
    ];
    buffers.append(&mut body);
    buffers
}
