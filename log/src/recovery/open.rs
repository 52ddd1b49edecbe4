//! The steps of opening a log, in their order: first all that can be refused, then what is changed.

use super::Opening;
use crate::api::{LogError, LogOptions, Recovered};
use crate::disk::Disk;
use crate::layout::{self, new_name};
use crate::lives::{self, LivesFile, Start};
use crate::log::{Log, Segments};
use crate::room::Room;
use crate::salts::Salts;
use crate::snapshots;
use kontiki_consensus::{NodeId, Restored};
use kontiki_wire::ClusterId;

impl<D: Disk> Log<D> {
    /// Opens the log of a node and recovers what it held, without beginning a life. What nobody can guess comes from `chance`.
    ///
    /// # Errors
    /// [`LogError::Wrong`] if it is none, of another node or cluster, or of a newer version; [`LogError::Damaged`] if
    /// something that was acknowledged is not sound; [`LogError::Disk`] if the disk refuses. Nothing is changed then,
    /// but for repairs that a crash had made necessary.
    pub fn open(
        disk: D,
        cluster: ClusterId,
        node: NodeId,
        options: LogOptions,
        chance: Salts,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_for(disk, cluster, node, options, chance, None)
    }

    /// The same for a node that is started: its next life has begun, durably, when this returns.
    ///
    /// # Errors
    /// As [`Log::open`]; [`LogError::Wrong`] as well if the directory is elsewhere than it was, or another node has refused it.
    pub fn start(
        disk: D,
        cluster: ClusterId,
        node: NodeId,
        options: LogOptions,
        chance: Salts,
        start: &Start,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_for(disk, cluster, node, options, chance, Some(start))
    }

    fn open_for(
        mut disk: D,
        cluster: ClusterId,
        node: NodeId,
        options: LogOptions,
        mut chance: Salts,
        start: Option<&Start>,
    ) -> Result<(Self, Recovered), LogError> {
        layout::check(&options)?;
        let mut opening = Opening::new(&mut disk, cluster, node, &options)?;
        let (last, spares) = opening.replay()?;
        let (last, spares) = opening.begun(last, spares, &mut chance)?;
        let mut end = opening.examine_end(&last, &spares)?;
        opening.check_beginning()?;
        let (snapshots, note) = snapshots::open(opening.disk, cluster)?;
        let newest = opening.check_snapshots(&snapshots)?;
        let (file, mut lives) = lives::examine(opening.disk, opening.identity, start)?;
        let suspect = opening.mark_rot(&last, &mut end, &mut chance)?;
        let active = opening.repair_end(&last, &end)?;
        let spares = opening.repair_spares(spares, &end)?;
        let begun = spares.is_empty().then(|| new_name(active.number + 1));
        opening.repair_rest(begun.as_deref())?;
        let torn_bytes = end.torn_bytes;
        let identity = opening.identity;
        lives::begin(opening.disk, (file, identity), &mut lives, start)?;
        let files = Segments {
            first: opening.numbers.first().copied().unwrap_or_default(),
            active,
            salts: std::mem::take(&mut opening.salts),
            sequence: opening.replay.sequence,
        };
        let segments = std::mem::take(&mut opening.starts);
        let mut replay = opening.replay;
        let incarnation = identity.incarnation;
        let recovered = Recovered {
            incarnation,
            lives,
            restored: Restored {
                snapshot: newest,
                ..replay.restored()
            },
            snapshots: snapshots.files().cloned().collect(),
            note,
            segments,
            torn_bytes,
            suspect,
        };
        let room = Room::new(options.segment_bytes, spares);
        Ok((
            Self::new(
                disk,
                identity,
                options,
                replay.groups,
                files,
                (room, snapshots, LivesFile::new(file, identity)),
                chance,
            ),
            recovered,
        ))
    }
}
