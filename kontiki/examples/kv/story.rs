//! What befalls three nodes under a long load: one follower stays down until the log no longer reaches back to where it
//! was, a leader is killed, all are killed at once. In the end neither memory nor disk has grown with the number of entries.

use crate::{
    Failed,
    cluster::{Cluster, Peaks, Program},
    watch::mib,
};
use std::{thread, time::Duration};

/// How long a node that is killed for a moment stays down.
const MOMENT: Duration = Duration::from_millis(700);
/// So often in a row nothing has changed before all is said to be done.
const STILL: u32 = 30;
/// How much more may be taken in the second half of the run than in the first, in bytes and as a part.
const SLACK_BYTES: u64 = 32 << 20;
const SLACK_PART: f64 = 0.25;

/// A story, told while somebody appends.
pub(crate) struct Story<P> {
    pub(crate) cluster: Cluster<P>,
    /// How long the log gets.
    pub(crate) entries: u64,
    /// What is to happen once a node is started.
    pub(crate) after_start: fn(&mut Cluster<P>, u64) -> Result<(), Failed>,
    /// How often a follower came back to a log that no longer reached back to it.
    left_behind: u64,
}

impl<P: Program> Story<P> {
    /// Starts every node.
    pub(crate) fn begin(
        program: P,
        entries: u64,
        after_start: fn(&mut Cluster<P>, u64) -> Result<(), Failed>,
    ) -> Result<Self, Failed> {
        let mut story = Self {
            cluster: Cluster::new(program),
            entries,
            after_start,
            left_behind: 0,
        };
        for id in story.cluster.ids() {
            story.up(id)?;
        }
        Ok(story)
    }

    /// Tells so many rounds of it, and says what was taken of memory and disk.
    pub(crate) fn tell(&mut self, rounds: u64) -> Result<(), Failed> {
        let mut halves = [Peaks::default(); 2];
        for round in 1..=rounds {
            let mark = self.entries / (rounds + 1) * round;
            self.cluster
                .until("entries", |cluster| cluster.most("commit") >= mark)?;
            self.trouble(round)?;
            if round == rounds.div_ceil(2) {
                halves[0] = self.cluster.peaks();
            }
        }
        self.finish()?;
        halves[1] = self.cluster.peaks();
        judge(halves, self.left_behind)
    }

    /// What happens in one round.
    fn trouble(&mut self, round: u64) -> Result<(), Failed> {
        self.leave_behind()?;
        let leader = self.cluster.leader()?;
        self.cluster.kill(leader)?;
        self.cluster
            .until("another leader", |cluster| cluster.most("leader") == 1)?;
        self.up(leader)?;
        if round.is_multiple_of(2) {
            for id in self.cluster.ids() {
                self.cluster.kill(id)?;
            }
            thread::sleep(MOMENT);
            for id in self.cluster.ids() {
                self.up(id)?;
            }
            self.cluster.leader()?;
        }
        Ok(())
    }

    fn up(&mut self, id: u64) -> Result<(), Failed> {
        self.cluster.start(id)?;
        (self.after_start)(&mut self.cluster, id)
    }

    /// Keeps a follower down until what it lacks is gone from the log of those who run, then lets it come back.
    fn leave_behind(&mut self) -> Result<(), Failed> {
        let leader = self.cluster.leader()?;
        let mut followers = self.cluster.ids().into_iter().filter(|id| *id != leader);
        let follower = followers.next_back().ok_or("no follower")?;
        let there = self.cluster.most("commit");
        self.cluster.until("a follower that is not behind", |cluster| {
            cluster.told(follower, "commit") >= there
        })?;
        let last = self.cluster.told(follower, "last");
        self.cluster.kill(follower)?;
        let entries = self.entries;
        let mut others = self.cluster.ids();
        others.retain(|id| *id != follower);
        let gone = |cluster: &Cluster<P>| others.iter().all(|id| cluster.told(*id, "first") > last + 1);
        self.cluster
            .until("the log to forget what a follower lacks", |cluster| {
                gone(cluster) || cluster.most("commit") >= entries
            })?;
        let was_gone = gone(&self.cluster);
        self.cluster.note(&match was_gone {
            true => format!("what node {follower} lacks is gone: it has entries up to {last}"),
            false => format!("the load has ended before what node {follower} lacks was gone"),
        });
        self.up(follower)?;
        let there = self.cluster.most("commit");
        self.cluster.until("the follower to come back", |cluster| {
            cluster.told(follower, "commit") >= there
        })?;
        let first = self.cluster.told(follower, "first");
        self.cluster.note(&format!(
            "node {follower} is back, its log begins with entry {first}"
        ));
        self.left_behind += u64::from(was_gone);
        match was_gone && first <= last + 1 {
            true => Err("it came back without a snapshot, though no log reached back to it".into()),
            false => Ok(()),
        }
    }

    /// Waits until every node has everything.
    fn finish(&mut self) -> Result<(), Failed> {
        let entries = self.entries;
        self.cluster
            .until("the last entry", |cluster| cluster.most("commit") >= entries)?;
        let mut still = (0, 0);
        self.cluster.until("every node to have the same", |cluster| {
            let commit = cluster.most("commit");
            let equal = cluster
                .ids()
                .iter()
                .all(|id| cluster.told(*id, "commit") == commit);
            still = if equal && still.0 == commit {
                (commit, still.1 + 1)
            } else {
                (commit, 0)
            };
            // Records that are on their way when the load ends come later than the last that was told.
            still.1 >= STILL
        })
    }
}

fn judge(halves: [Peaks; 2], left_behind: u64) -> Result<(), Failed> {
    let mut grown = Vec::new();
    for ((name, before), (_, after)) in halves[0].all().into_iter().zip(halves[1].all()) {
        println!(
            "  {name:<11}  at most {:>4} MiB in the first half, {:>4} MiB in the second",
            mib(before),
            mib(after)
        );
        let allowed = before + SLACK_BYTES + (before as f64 * SLACK_PART) as u64;
        grown.extend((after > allowed).then_some(name));
    }
    match (&grown[..], left_behind) {
        ([], 0) => Err("no follower was ever left behind".into()),
        ([], _) => Ok(()),
        _ => Err(format!("it grows with the log: {grown:?}").into()),
    }
}
