//! Three replicas of any kind on one thread: messages are handed over as they are, in order, none is lost.
//!
//! All kinds go through the same loop: a replica takes in everything that waits for it, then takes one
//! turn, in which it may decide, write to its log in memory and send. Time does not pass.

use super::entries::{Fingerprint, Source};
use std::mem::take;

/// One replica, with its log.
pub(crate) trait Replica: Sized {
    type Message;

    /// What the peer is called in the table.
    const NAME: &'static str;

    /// Three replicas of which none leads yet.
    fn three(outstanding: usize) -> [Self; 3];

    /// Asks the first replica to become the leader.
    fn campaign(&mut self);

    /// Whether it leads and takes proposals.
    fn leads(&self) -> bool;

    /// Proposes `n` entries at once.
    fn propose(&mut self, source: &mut Source, n: usize);

    fn receive(&mut self, message: Self::Message);

    /// Does everything that follows from what was received and proposed.
    fn turn(&mut self, send: impl FnMut(Self::Message));

    /// Which replica a message is for.
    fn addressee(message: &Self::Message) -> usize;

    /// How many of the proposed entries this replica knows to be committed and has in its log.
    fn committed(&self) -> u64;

    /// For a leader: tells followers how far is committed, if it has not done so.
    fn announce(&mut self);

    /// Adds the committed entries that were not trimmed yet.
    fn read(&self, fingerprint: &mut Fingerprint);

    /// Drops the committed entries from the log, as a compaction would; may send.
    fn trim(&mut self);
}

/// What is measured: three replicas, or the floor.
pub(crate) trait Subject: Sized {
    /// Ready to take entries.
    fn new(outstanding: usize) -> Result<Self, String>;

    /// Appends `n` entries and returns once they are committed.
    fn append(&mut self, source: &mut Source, n: usize) -> Result<(), String>;

    /// Lets every replica learn what is committed.
    fn announce(&mut self) -> Result<(), String>;

    /// Adds what is in the log of replica `n` to its fingerprint.
    fn read(&self, n: usize, fingerprint: &mut Fingerprint);

    /// Drops what is in the logs.
    fn trim(&mut self) -> Result<(), String>;
}

pub(crate) struct Cluster<R: Replica> {
    replicas: [R; 3],
    inboxes: [Vec<R::Message>; 3],
    proposed: u64,
}

impl<R: Replica> Cluster<R> {
    /// One turn of a replica, and its messages into the inboxes.
    fn turn(&mut self, n: usize) {
        let inboxes = &mut self.inboxes;
        self.replicas[n].turn(|message| inboxes[R::addressee(&message)].push(message));
    }

    /// Hands messages over until there are none.
    fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for n in 0..self.replicas.len() {
                if self.inboxes[n].is_empty() {
                    continue;
                }
                quiet = false;
                let mut inbox = take(&mut self.inboxes[n]);
                for message in inbox.drain(..) {
                    self.replicas[n].receive(message);
                }
                self.inboxes[n] = inbox;
                self.turn(n);
            }
        }
    }
}

impl<R: Replica> Subject for Cluster<R> {
    fn new(outstanding: usize) -> Result<Self, String> {
        let replicas = R::three(outstanding);
        let mut cluster = Self {
            replicas,
            inboxes: Default::default(),
            proposed: 0,
        };
        cluster.replicas[0].campaign();
        cluster.turn(0);
        cluster.settle();
        if cluster.replicas[0].leads() {
            Ok(cluster)
        } else {
            Err(format!("{}: no leader", R::NAME))
        }
    }

    // A function of its own, so that profilers can begin and end at it.
    #[inline(never)]
    fn append(&mut self, source: &mut Source, n: usize) -> Result<(), String> {
        self.replicas[0].propose(source, n);
        self.proposed += n as u64;
        self.turn(0);
        self.settle();
        let committed = self.replicas[0].committed();
        if committed == self.proposed {
            Ok(())
        } else {
            Err(format!(
                "{}: {committed} entries of {} are committed",
                R::NAME,
                self.proposed
            ))
        }
    }

    fn announce(&mut self) -> Result<(), String> {
        self.replicas[0].announce();
        self.turn(0);
        self.settle();
        let committed = self.replicas.each_ref().map(R::committed);
        if committed == [self.proposed; 3] {
            Ok(())
        } else {
            Err(format!(
                "{}: {committed:?} entries of {} are committed",
                R::NAME,
                self.proposed
            ))
        }
    }

    fn read(&self, n: usize, fingerprint: &mut Fingerprint) {
        self.replicas[n].read(fingerprint);
    }

    fn trim(&mut self) -> Result<(), String> {
        for n in 0..self.replicas.len() {
            self.replicas[n].trim();
            self.turn(n);
        }
        self.settle();
        Ok(())
    }
}
