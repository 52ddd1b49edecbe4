//! Rare paths that a batch of runs must have taken: a simulator that never gets somewhere proves
//! nothing about it. A batch in which one of these stays at zero fails, and names it.

macro_rules! paths {
    ($($name:ident = $text:literal,)*) => {
        /// A rare path.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Sometimes {
            $(#[doc = $text] $name,)*
        }

        /// All of them, with what they are called in reports.
        pub const PATHS: &[(Sometimes, &str)] = &[$((Sometimes::$name, $text),)*];
    };
}

paths! {
    LeaderChanged = "another leader was elected",
    LeaderCrashed = "a leader crashed",
    SteppedDown = "a leader stepped down",
    SplitVote = "two candidates stood in one term",
    VoteRepeated = "a vote request arrived twice",
    Truncated = "a log was cut back",
    OlderTermCommitted = "a leader committed records of an earlier term",
    TornWrite = "a power loss tore a write",
    TornTailCut = "recovery cut off a torn tail",
    UnreportedSurvived = "a write survived a crash before it was reported",
    UnsyncedLost = "a power loss took records that were not synced",
    KilledOnly = "a process was killed and its page cache survived",
    NameLost = "a power loss undid a change of names",
    CrashInCreate = "a crash came while a file was being made",
    CrashInRecovery = "a crash came during recovery",
    CrashAtOperation = "a crash came exactly between two disk operations",
    KilledNaming = "a process was killed when a name had changed and that was not synced",
    AllDown = "all nodes were down at once",
    SegmentBegun = "a log went on in a new segment",
    SegmentRecycled = "a segment that nobody needed any more was used again",
    StalledLeader = "the disk of a leader stood still longer than an election timeout",
    DiskWasFull = "a disk had no room for a new segment",
    DiskFailed = "a node stopped itself because its disk failed a write",
    ReadByFollower = "a lagging follower was served from disk",
    Resent = "records were sent again after a loss",
    Backtracked = "replication went back to where the logs agree",
    SendDropped = "a sender was told that a message was dropped",
    ToldOfDeath = "a follower was told that its leader had died",
    ToldFalsely = "a follower was told falsely that its leader had died",
    ImpostorRefused = "a process was refused that ran under a node's id from another directory",
    OneWayCut = "a link was cut in one direction only",
    Paused = "a node stood still and went on",
    Assigned = "a forwarded append was given its place",
    ForwardRefused = "a forwarded append was refused",
    Unknown = "the fate of an append stayed unknown",
    UnknownCommitted = "an append of unknown fate was committed after all",
    Superseded = "an append was superseded by another leader's record",
    NoLeader = "an append found no leader in time",
    Mismatched = "a compare-and-append missed",
    Compared = "a compare-and-append hit",
    Holds = "a precondition was checked and held",
    Overloaded = "a leader refused an append because too much was in flight",
    ReadTimedOut = "a read could not be confirmed in time",
    ReadForwarded = "a follower asked its leader for a read index",
    StaleBehind = "a stale read saw less than a linearizable one would have",
    LeaseRead = "a leader answered a read under its lease, without a round",
    RecentRead = "a read of bounded age was served after an earlier round",
    ReadAwaited = "a read waited for the entry it had to see",
    TailWaited = "a tail waited for an entry and got it",
    LeaderUndisputed = "nodes came back to a healed quorum and its leader, which had the latest term",
    DamageTold = "a flipped bit on a disk was told",
    DamageCutOff = "a flipped bit at the end of a log was cut off as a torn write would be",
    BatchAppended = "several entries were appended as one record",
    RetryAnswered = "a retry was answered from what is remembered of its session",
    RetryJoined = "a retry joined the append it repeats while that was in flight",
    SessionEnded = "a session expired or made room",
    SessionExpired = "a client was told that its session is not known",
    SessionDoubt = "an append of a session was given up in doubt",
    OnceDoubt = "an append through the session of a node was given up because that session is gone",
    Replayed = "records to be applied were read back from disk",
    ForgottenByAge = "a log was trimmed because of its age alone",
    Forgotten = "a log was trimmed and what was before was forgotten",
    SnapshotInstalled = "a follower began anew after a leader's snapshot",
    SnapshotFailed = "the transfer of a snapshot was broken off",
    ReadCompacted = "a read was told that its entries are gone",
    NoteTaken = "a start went on behind a note, and not through the whole log",
    WentWrong = "a machine went wrong",
    Quarantined = "a node whose machine had gone wrong was quarantined",
    Disputed = "applying stopped because nobody could tell which machine was wrong",
    Resynced = "a quarantined node took over the state of another",
    WrongStart = "a node was quarantined again when it started",
    HaltedStart = "a node that had stopped applying had still when it started",
    QueryAside = "a query was answered beside a machine that went on applying",
    ReadsInMasses = "as many reads of clients were with a log as may be",
    QueriesInMasses = "as many queries were with a machine as may be",
    QueriesOvertaken = "a command passed queries that waited for the machine",
    QueryWithdrawn = "a query that nobody waited for any more was taken back from the machine",
    GivenUp = "clients gave up before they were answered",
    RoomMade = "a read waited until earlier answers were taken",
    MachineResumed = "a durable machine went on where it was",
    MachineSnapshotTaken = "a snapshot of a machine was taken",
    MachineRestored = "a machine took over another node's snapshot",
    MachineRestoredAtStart = "a machine went on from a snapshot after a start",
    CrashBeforeRestore = "a crash came when a log began after a snapshot that its machine had not taken over",
    SourceAbandoned = "a snapshot was given up because its source failed or there was no room",
}

/// How often each path was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    counts: Vec<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: vec![0; PATHS.len()],
        }
    }
}

impl Counters {
    /// A path was taken.
    pub fn hit(&mut self, path: Sometimes) {
        self.counts[path as usize] += 1;
    }

    /// A path was taken if this is so.
    pub fn hit_if(&mut self, taken: bool, path: Sometimes) {
        self.counts[path as usize] += u64::from(taken);
    }

    /// How often.
    #[must_use]
    pub fn of(&self, path: Sometimes) -> u64 {
        self.counts[path as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(mine, theirs)| *mine += theirs);
    }

    /// What was never taken.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        PATHS
            .iter()
            .filter(|(path, _)| self.of(*path) == 0)
            .map(|(_, text)| *text)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_taken_is_named() {
        let mut counters = Counters::default();
        assert_eq!(counters.never().len(), PATHS.len());
        PATHS.iter().skip(1).for_each(|(path, _)| counters.hit(*path));
        assert_eq!(counters.never(), [PATHS[0].1]);
    }
}
