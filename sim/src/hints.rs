//! Hints that a node's process has ended: true ones when it has, late, and not to everyone, and false ones.
//!
//! They have a random stream of their own, so that a seed's other chances do not depend on them. False ones end with the
//! storm, for they may depose a sound leader.

use crate::{
    random::{Ppm, Random},
    sometimes::Sometimes,
    violation::Verdict,
    world::{Event, World},
};
use kontiki_consensus::{Duration, NodeId, Role};
use kontiki_node::Input;

/// What becomes of hints in a run.
#[derive(Debug)]
pub(crate) struct Hints {
    random: Random,
    /// How likely each node is told of a death.
    told: Ppm,
    /// How late it is told, at most.
    late: Duration,
    /// The mean time between two false ones.
    false_every: Option<Duration>,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hint {
    /// A node is told, in this life of it, that this peer has died.
    True(usize, u64, NodeId),
    /// Some nodes are told so of one that may be up.
    False,
}

impl Hints {
    /// The habits of a seed: in half of the runs there are true ones, in half of the runs false ones.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6f62_6974_7561_7279);
        let told = Ppm::percent([0, 0, 50, 100][random.place(4)]);
        let late = Duration::from_millis(random.magnitude(1, 200));
        let often = Duration::from_millis(random.magnitude(100, 8_000));
        let false_every = random.coin().then_some(often);
        Self {
            random,
            told,
            late,
            false_every,
        }
    }
}

impl World {
    /// Lets the next false hint come after a while.
    pub(crate) fn schedule_false_hint(&mut self) {
        if let Some(every) = self.hints.false_every {
            let at = self.now().after(self.hints.random.around(every));
            self.queue.schedule(at, Event::Hint(Hint::False));
        }
    }

    /// The kernel of a node that has died tells the others.
    pub(crate) fn hint_of_death(&mut self, dead: usize) {
        for node in 0..self.swarm.nodes {
            let hints = &mut self.hints;
            if node != dead && hints.random.chance(hints.told) {
                let at = self.queue.now().after(Duration(hints.random.below(hints.late.0)));
                let hint = Hint::True(node, self.replicas[node].life, self.replicas[dead].node);
                self.queue.schedule(at, Event::Hint(hint));
            }
        }
    }

    pub(crate) fn hint(&mut self, hint: Hint) -> Verdict {
        match hint {
            Hint::True(node, life, peer) if self.is_live(node, life) => {
                self.tell_of_end(node, peer, Sometimes::ToldOfDeath);
            }
            Hint::True(..) => {}
            Hint::False if self.stormy => {
                let anyone = self.hints.random.place(self.swarm.nodes);
                let peer = self.leader().unwrap_or(self.replicas[anyone].node);
                for node in 0..self.swarm.nodes {
                    let is_other = self.replicas[node].node != peer;
                    if is_other && self.hints.random.coin() {
                        self.tell_of_end(node, peer, Sometimes::ToldFalsely);
                    }
                }
                self.schedule_false_hint();
            }
            Hint::False => {}
        }
        Ok(())
    }

    fn tell_of_end(&mut self, node: usize, peer: NodeId, path: Sometimes) {
        let follows = self.with(node, |process| {
            let consensus = process.driver.consensus();
            consensus.role() == Role::Follower && consensus.leader() == Some(peer)
        });
        self.checks.counters.hit_if(follows == Some(true), path);
        self.log_line(|| format!("n{} is told that {peer:?} is gone", node + 1));
        self.give(node, Input::PeerGone(peer));
    }
}
