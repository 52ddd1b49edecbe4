//! Which names stand for which files, now and after a loss of power.
//!
//! Invariant: a change of names is on the platter only once the directory it was made in is synced;
//! until then each change survives a loss of power or does not, independently of the others.

use super::Severity;
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    File(usize),
    Directory,
}

#[derive(Clone, Debug)]
enum Change {
    Link {
        name: String,
        target: Target,
    },
    Rename {
        from: String,
        to: String,
        target: Target,
    },
    Unlink {
        name: String,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    seen: BTreeMap<String, Target>,
    durable: BTreeMap<String, Target>,
    unsynced: Vec<Change>,
}

/// The directory a name stands in.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Change {
    fn directory(&self) -> &str {
        match self {
            Self::Link { name, .. } | Self::Unlink { name } => parent(name),
            Self::Rename { to, .. } => parent(to),
        }
    }

    fn apply(self, names: &mut BTreeMap<String, Target>) {
        match self {
            Self::Link { name, target } => {
                names.insert(name, target);
            }
            Self::Rename { from, to, target } => {
                names.remove(&from);
                names.insert(to, target);
            }
            Self::Unlink { name } => {
                names.remove(&name);
            }
        }
    }
}

impl Names {
    pub(super) fn get(&self, name: &str) -> Option<Target> {
        self.seen.get(name).copied()
    }

    pub(super) fn has_directory(&self, name: &str) -> bool {
        name.is_empty() || self.get(name) == Some(Target::Directory)
    }

    /// Whether a name may be given to something new: it is free, and its directory is there.
    pub(super) fn is_free(&self, name: &str) -> bool {
        self.get(name).is_none() && self.has_directory(parent(name))
    }

    pub(super) fn link(&mut self, name: &str, target: Target) {
        self.change(Change::Link {
            name: name.to_owned(),
            target,
        });
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, target: Target) {
        self.change(Change::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            target,
        });
    }

    pub(super) fn unlink(&mut self, name: &str) {
        self.change(Change::Unlink {
            name: name.to_owned(),
        });
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.seen);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self, directory: &str) {
        for change in self.unsynced.extract_if(.., |c| c.directory() == directory) {
            change.apply(&mut self.durable);
        }
    }

    /// The names in a directory, in order.
    pub(super) fn list(&self, directory: &str) -> Vec<(String, Target)> {
        let inside = |name: &str| !name.is_empty() && parent(name) == directory;
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        self.seen
            .iter()
            .filter(|(n, _)| inside(n))
            .map(|(n, t)| (short(n), *t))
            .collect()
    }

    /// The files that a name leads to, now or after a loss of power.
    pub(super) fn files(&self) -> BTreeSet<usize> {
        let waiting = self.unsynced.iter().filter_map(|change| match change {
            Change::Link { target, .. } | Change::Rename { target, .. } => Some(*target),
            Change::Unlink { .. } => None,
        });
        let named = self
            .seen
            .values()
            .chain(self.durable.values())
            .copied()
            .chain(waiting);
        named
            .filter_map(|t| {
                if let Target::File(inode) = t {
                    Some(inode)
                } else {
                    None
                }
            })
            .collect()
    }

    /// The power fails. Returns whether a change was lost.
    pub(super) fn lose_power(&mut self, severity: Severity, random: &mut Random) -> bool {
        let mut lost = false;
        for change in self.unsynced.drain(..) {
            let survives = match severity {
                Severity::LoseAll => false,
                Severity::KeepAll => true,
                Severity::Torn => random.coin(),
            };
            lost |= !survives;
            if survives {
                change.apply(&mut self.durable);
            }
        }
        self.seen = self.durable.clone();
        lost
    }

    /// What a loss of power with everything unsynced lost would leave.
    pub(super) fn platter(&self) -> Self {
        Self {
            seen: self.durable.clone(),
            durable: self.durable.clone(),
            unsynced: Vec::new(),
        }
    }
}
