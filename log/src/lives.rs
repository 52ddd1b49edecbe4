//! The file `lives`: this node's life and the highest one of each peer, beside the segments.
//!
//! It is made with the log, of fixed length, so that writing it never needs room. Both of its slots are written and synced, one
//! after the other: one is always whole, and neither alone carries what was promised. Invariants: a life is on disk before
//! anything is sent in it; nothing is told as kept before it is; of several that wait to be written the last one counts, for each
//! holds what the ones before it do.

use crate::api::LogError;
use crate::blocking::{
    create as create_file, list, open, perform, read as read_file, remove, sync_directory, write,
};
use crate::disk::{Disk, DiskError, FileId, Op};
use crate::words;
use bytes::Bytes;
use kontiki_wire::lives::{Lives, LivesError, Place, SLOT_BYTES, SLOTS};
use kontiki_wire::{Identity, StartId};

/// Its name.
const NAME: &str = "lives";
const FILE_BYTES: u64 = (SLOTS * SLOT_BYTES) as u64;

/// How a node is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Drawn for this start; not zero.
    pub id: StartId,
    /// Where the directory is, as far as that is known.
    pub place: Option<Place>,
    /// The operator says that the directory was moved: it may be elsewhere than it was.
    pub moved: bool,
}

/// The file while the log is open.
#[derive(Debug)]
pub(crate) struct LivesFile {
    file: FileId,
    own: Identity,
    /// What is being written: its version, the slot, and the bytes.
    writing: Option<(u64, usize, Bytes)>,
    /// There was no room for that, and nothing is under way.
    is_refused: bool,
    /// What is to be written next.
    next: Option<Lives>,
}

impl LivesFile {
    pub(crate) fn new(file: FileId, own: Identity) -> Self {
        Self {
            file,
            own,
            writing: None,
            is_refused: false,
            next: None,
        }
    }

    /// Has it written; gives the operation to begin with, unless another is under way.
    pub(crate) fn keep(&mut self, lives: Lives) -> Option<Op> {
        self.next = Some(lives);
        self.begin()
    }

    /// An operation is done: what to tell as kept, and what to do next.
    pub(crate) fn written(&mut self) -> (Option<u64>, Option<Op>) {
        let Some((version, slot, bytes)) = self.writing.take() else {
            return (None, None);
        };
        if slot + 1 < SLOTS {
            self.writing = Some((version, slot + 1, bytes));
            return (None, self.operation());
        }
        (Some(version), self.begin())
    }

    /// There was no room for what is being written.
    pub(crate) fn refused(&mut self) {
        self.is_refused = true;
    }

    /// What was refused, once more.
    pub(crate) fn again(&mut self) -> Option<Op> {
        std::mem::take(&mut self.is_refused)
            .then(|| self.operation())
            .flatten()
    }

    fn begin(&mut self) -> Option<Op> {
        if self.writing.is_some() {
            return None;
        }
        let lives = self.next.take()?;
        self.writing = Some((lives.version, 0, lives.encode(self.own)));
        self.operation()
    }

    fn operation(&self) -> Option<Op> {
        let (_, slot, bytes) = self.writing.as_ref()?;
        Some(Op::Write {
            file: self.file,
            offset: (slot * SLOT_BYTES) as u64,
            buffers: vec![bytes.clone()],
            sync: true,
        })
    }
}

/// Makes the file of a node that has not lived yet. What an interrupted attempt has left is removed.
pub(crate) fn create(disk: &mut impl Disk, own: Identity) -> Result<(), DiskError> {
    if list(disk, "")?.iter().any(|(name, _)| name == NAME) {
        remove(disk, NAME.to_owned())?;
    }
    let file = create_file(disk, NAME.to_owned(), FILE_BYTES)?;
    write_slots(disk, file, own, &Lives::default())?;
    sync_directory(disk, "")?;
    perform(disk, Op::Close { file }).map(drop)
}

fn write_slots(disk: &mut impl Disk, file: FileId, own: Identity, lives: &Lives) -> Result<(), DiskError> {
    let bytes = lives.encode(own);
    (0..SLOTS).try_for_each(|slot| write(disk, file, (slot * SLOT_BYTES) as u64, vec![bytes.clone()]))
}

/// What the file holds; an error if a node must not be started with it.
pub(crate) fn examine(
    disk: &mut impl Disk,
    own: Identity,
    start: Option<&Start>,
) -> Result<(FileId, Lives), LogError> {
    let (file, lives) = read(disk, own)?;
    if let Some(start) = start {
        check(&disk.name(), own, &lives, start)?;
    }
    Ok((file, lives))
}

fn read(disk: &mut impl Disk, own: Identity) -> Result<(FileId, Lives), LogError> {
    let name = format!("{}: {NAME}", disk.name());
    if !list(disk, "")?.iter().any(|(name, _)| name == NAME) {
        return Err(words::missing(&name, "the log"));
    }
    let (file, bytes) = open(disk, NAME.to_owned())?;
    if bytes != FILE_BYTES {
        let what = format!("it has {bytes} bytes and not {FILE_BYTES}");
        return Err(words::damaged(&name, 0, None, &what));
    }
    let content = read_file(disk, file, 0, FILE_BYTES)?;
    let mut newest: Option<Lives> = None;
    for slot in content.chunks(SLOT_BYTES) {
        match Lives::decode(own.cluster, slot) {
            Ok((theirs, _)) if theirs.node != own.node => return Err(words::foreign(&name, theirs, own)),
            Ok((theirs, _)) if theirs.incarnation != own.incarnation => {
                return Err(words::mixed(&name, theirs, own));
            }
            Ok((_, lives)) => {
                let is_newer = newest.as_ref().is_none_or(|n| n.version < lives.version);
                newest = if is_newer { Some(lives) } else { newest };
            }
            Err(LivesError::Unsound) => {}
            Err(newer) => return Err(words::newer(&name, 0, &newer.to_string())),
        }
    }
    let lives = newest.ok_or_else(|| words::damaged(&name, 0, None, "neither of its two copies is sound"))?;
    Ok((file, lives))
}

/// Whether a node may be started with this directory, in this place.
fn check(directory: &str, own: Identity, lives: &Lives, start: &Start) -> Result<(), LogError> {
    if let Some(refused) = &lives.refused {
        return Err(words::refused(directory, own, refused));
    }
    let known = lives.place.zip(start.place).filter(|_| !start.moved);
    match known.and_then(|(before, now)| moved(before, now)) {
        None => Ok(()),
        Some(what) => Err(words::moved(directory, own, what)),
    }
}

/// In what the place is another, if it is. What is not known of either counts as the same; devices are numbered anew at each boot.
fn moved(before: Place, now: Place) -> Option<&'static str> {
    let differ = |a: u64, b: u64| a != 0 && b != 0 && a != b;
    if differ(before.machine, now.machine) {
        Some("it was on another machine")
    } else if differ(before.inode, now.inode) || differ(before.made, now.made) {
        Some("it was another directory: this one is a copy of that, or was restored from a backup")
    } else if before.boot == now.boot && now.boot != 0 && differ(before.device, now.device) {
        Some("it was on another device")
    } else {
        None
    }
}

/// Begins the next life, durably, if the node is started.
pub(crate) fn begin(
    disk: &mut impl Disk,
    (file, own): (FileId, Identity),
    lives: &mut Lives,
    start: Option<&Start>,
) -> Result<(), DiskError> {
    let Some(start) = start else {
        return Ok(());
    };
    lives.version += 1;
    lives.life = lives.life.next(start.id);
    lives.place = start.place.or(lives.place);
    write_slots(disk, file, own, lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(inode: u64, device: u64, machine: u64, boot: u64) -> Place {
        Place {
            inode,
            made: 1,
            device,
            machine,
            boot,
        }
    }

    #[test]
    fn a_place_is_another_by_inode_machine_or_within_one_boot_by_device() {
        let was = place(10, 20, 30, 40);
        let tells = |now| moved(was, now).unwrap_or("");
        assert_eq!(tells(was), "");
        assert!(tells(place(11, 20, 30, 40)).contains("a copy"));
        let same_inode = Place { made: 2, ..was };
        assert!(tells(same_inode).contains("a copy"));
        assert!(tells(place(10, 21, 30, 40)).contains("device"));
        assert_eq!(tells(place(10, 21, 30, 41)), "", "devices are numbered anew");
        assert_eq!(tells(place(10, 21, 30, 0)), "", "of the boot nothing is known");
        assert!(tells(place(10, 20, 31, 40)).contains("machine"));
        assert_eq!(tells(place(10, 20, 0, 40)), "", "of the machine nothing is known");
        assert_eq!(tells(place(10, 20, 30, 41)), "", "the machine was started anew");
    }
}
