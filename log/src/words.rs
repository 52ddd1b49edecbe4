//! What the operator is told: which file, where, what, and what to do next.

use crate::api::LogError;
use crate::disk::DiskError;
use kontiki_consensus::Index;
use kontiki_wire::{Identity, lives::Refused};

/// What to do about damage. A log that lost what it acknowledged must not take part again, and a member cannot be replaced yet.
const REPLACE: &str = "What stood there was acknowledged, so this node must not go on without it. Leave the directory as it is, \
    look after the device (kernel log, SMART), and either put back a copy of the whole directory that was taken \
    while the node was stopped after that write, or give this node up and leave it down: the others go on for as long as \
    they are a majority. The members of a cluster are fixed, so what brings the lost copy back is a new cluster (`kontiki init`) into \
    which the entries of this one are copied (`kontiki read .. --endpoint OLD | kontiki append --lines - --endpoint NEW`, \
    where no entry holds a newline)";

/// What to do about damage that a read has met.
const DAMAGED_RANGE: &str = "Reads of what stands there fail at this node, and it stops once a follower needs it. The other nodes \
    hold it too: read it there, and look after the device (kernel log, SMART) before more is lost. This is told once for each place \
    in the life of a process";

/// Something that was acknowledged is damaged.
pub(crate) fn damaged(file: &str, offset: u64, index: Option<Index>, what: &str) -> LogError {
    let record = index.map_or_else(String::new, |i| format!(", at Raft index {i}"));
    LogError::Damaged(format!(
        "{file} is damaged at byte {offset}{record}: {what}. {REPLACE}."
    ))
}

/// The same, met by a read while the node runs: what it holds elsewhere is sound, and others may hold this.
pub(crate) fn damaged_range(file: &str, offset: u64, index: Option<Index>, what: &str) -> String {
    let record = index.map_or_else(String::new, |i| format!(", at Raft index {i}"));
    format!("{file} is damaged at byte {offset}{record}: {what}. {DAMAGED_RANGE}",)
}

/// What a read cannot have from the device.
pub(crate) fn unreadable(error: &DiskError) -> String {
    format!("{error}. {DAMAGED_RANGE}")
}

/// There is no log.
pub(crate) fn no_log(directory: &str) -> LogError {
    LogError::Wrong(format!(
        "{directory} holds no log: it is empty, or making one in it was interrupted. If this node is new, make its \
         directory first (`kontiki init`). If it has run before, this is not its directory: is it mounted, and is the path \
         right? Starting with an empty one would let the node forget what it has promised"
    ))
}

/// Another node's or cluster's.
pub(crate) fn foreign(file: &str, theirs: Identity, ours: Identity) -> LogError {
    LogError::Wrong(format!(
        "{file} belongs to node {} of cluster {}, and this is node {} of cluster {}: is the path of the data directory \
         right, and the cluster.key? Nothing was changed",
        theirs.node, theirs.cluster, ours.node, ours.cluster
    ))
}

/// Of this node, but of another directory of it.
pub(crate) fn mixed(file: &str, theirs: Identity, ours: Identity) -> LogError {
    LogError::Wrong(format!(
        "{file} comes from another data directory of node {} (incarnation {} and not {}): two directories were \
         mixed. Put back the one or the other whole. Nothing was changed",
        ours.node, theirs.incarnation, ours.incarnation
    ))
}

/// The directory is elsewhere than it was.
pub(crate) fn moved(directory: &str, own: Identity, what: &str) -> LogError {
    LogError::Wrong(format!(
        "{directory} is not where node {} was last started: {what}. An older copy forgets what the node has promised since, \
         and two copies that run at once contradict each other: either costs acknowledged entries. If this is the \
         newest state of the node, and the node runs nowhere else, start it once with `--moved` (in a program: \
         `Config::moved`). Otherwise put the newest directory back. Nothing was changed",
        own.node
    ))
}

/// Another node has refused the directory.
pub(crate) fn refused(directory: &str, own: Identity, refused: &Refused) -> LogError {
    LogError::Wrong(format!(
        "{directory} must not be started any more: node {} refuses node {} with it, saying: {}. Put back the directory \
         that the node has run with last, if there is one; if that is lost, leave the node down. Nothing was changed",
        refused.by, own.node, refused.why
    ))
}

/// A whole file is missing.
pub(crate) fn missing(file: &str, next: &str) -> LogError {
    LogError::Damaged(format!("{file} is missing, although {next} is there. {REPLACE}."))
}

/// The log begins after a snapshot, and there is none.
pub(crate) fn no_snapshot(directory: &str, base: Index) -> LogError {
    LogError::Damaged(format!(
        "{directory}: the log begins after record {base}, and no sound snapshot of what was before is there. {REPLACE}."
    ))
}

/// A snapshot that the state is to be taken from is not sound.
pub(crate) fn damaged_snapshot(file: &str, what: &str) -> String {
    format!("{file} is damaged: {what}. {REPLACE}.")
}

/// Written by a newer version.
pub(crate) fn newer(file: &str, offset: u64, what: &str) -> LogError {
    LogError::Wrong(format!(
        "{file}, byte {offset}: {what}. Start it with the program that wrote it, or a newer one; nothing was changed."
    ))
}
