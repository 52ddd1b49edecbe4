//! When a node takes snapshots of its machine.

use crate::Error;
use kontiki_node::SnapshotConfig;
use std::time::Duration;

/// When a node with a [`StateMachine`](crate::StateMachine) takes a snapshot of it and forgets the log before (paper §7).
/// Each node does so for itself, whenever one of these says so; where all are `None` the log is kept whole.
///
/// Set what differs from the default: `SnapshotPolicy { entries: Some(1000), ..SnapshotPolicy::default() }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// Once commands of so many bytes were applied since the last one, and at least as many as that one has: so writing
    /// snapshots never costs more than writing the log, however large the state. From 1; 64 MiB unless set.
    pub bytes: Option<u64>,
    /// Once so many commands were applied since the last one. From 1; not unless set.
    pub entries: Option<u64>,
    /// Once the last one is so old, by the time that has passed under leaders of the cluster, and there is anything new. From 1 s; not unless set.
    pub age: Option<Duration>,
    /// So many bytes of the log before a snapshot stay, in whole files, so that a node that was away for a moment is sent
    /// the log and not the whole state; with 0 all of it goes. 64 MiB unless set.
    pub keep_bytes: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            bytes: Some(64 << 20),
            entries: None,
            age: None,
            keep_bytes: 64 << 20,
        }
    }
}

impl SnapshotPolicy {
    /// No snapshots: the log is kept whole.
    #[must_use]
    pub fn none() -> Self {
        Self {
            bytes: None,
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |field, allowed: &str| Err(Error::config(field, 0, allowed));
        if self.bytes == Some(0) {
            return wrong("snapshots.bytes", "from 1, or none");
        }
        if self.entries == Some(0) {
            return wrong("snapshots.entries", "from 1, or none");
        }
        match self.age.filter(|age| *age < Duration::from_secs(1)) {
            Some(age) => Err(Error::config(
                "snapshots.age",
                format!("{age:?}"),
                "from 1 s, or none",
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn settings(&self) -> SnapshotConfig {
        let nanos = |age: Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        SnapshotConfig {
            snapshot_bytes: self.bytes,
            snapshot_entries: self.entries,
            snapshot_age: self.age.map(nanos),
            keep_bytes: self.keep_bytes,
            ..SnapshotConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_would_never_rest_is_refused() {
        let policy = SnapshotPolicy::default;
        policy().check().unwrap();
        SnapshotPolicy::none().check().unwrap();
        let wrong = [
            SnapshotPolicy {
                bytes: Some(0),
                ..policy()
            },
            SnapshotPolicy {
                entries: Some(0),
                ..policy()
            },
            SnapshotPolicy {
                age: Some(Duration::from_millis(9)),
                ..policy()
            },
        ];
        for wrong in wrong {
            assert!(wrong.check().unwrap_err().to_string().contains("snapshots."));
        }
    }
}
