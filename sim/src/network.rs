//! The network between the nodes: it delays, loses, repeats, reorders and cuts.
//!
//! It never looks into a packet. Invariant: what is under way on a link is bounded; a packet beyond
//! the bound is refused, and the sender is told.

use crate::random::{Ppm, Random};
use kontiki_consensus::{Duration, Time};

/// How a network behaves.
#[derive(Clone, Copy, Debug)]
pub struct NetworkProfile {
    /// The mean time a packet takes.
    pub delay: Duration,
    /// How often a packet takes as long as `straggle`.
    pub stragglers: Ppm,
    /// How long that is, at most.
    pub straggle: Duration,
    /// How often a packet is lost.
    pub loss: Ppm,
    /// How often the sender is told of a loss.
    pub told: Ppm,
    /// How often a packet arrives twice.
    pub duplicates: Ppm,
    /// Whether packets may overtake each other.
    pub reorders: bool,
    /// How many packets may be under way on a link.
    pub queue: u32,
}

impl NetworkProfile {
    /// A network without faults.
    pub const HEALTHY: Self = Self {
        delay: Duration(300_000),
        stragglers: Ppm(0),
        straggle: Duration(0),
        loss: Ppm(0),
        told: Ppm(0),
        duplicates: Ppm(0),
        reorders: false,
        queue: 4096,
    };
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives then; and once more, if it is duplicated.
    Arrives(Time, Option<Time>),
    /// It is lost without a word.
    Lost,
    /// It is lost, and the sender learns of it.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cut: bool,
    under_way: u32,
    last_arrival: Time,
}

/// All links, one for each direction.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    links: Vec<Link>,
    profile: NetworkProfile,
    random: Random,
}

impl Network {
    /// A network between so many nodes.
    #[must_use]
    pub fn new(nodes: usize, random: Random, profile: NetworkProfile) -> Self {
        Self {
            nodes,
            links: vec![Link::default(); nodes * nodes],
            profile,
            random,
        }
    }

    /// Takes a packet, and says what becomes of it.
    pub fn send(&mut self, now: Time, from: usize, to: usize) -> Fate {
        let profile = self.profile;
        let random = &mut self.random;
        let link = &mut self.links[from * self.nodes + to];
        if link.under_way >= profile.queue {
            return Fate::Refused;
        }
        if link.cut || random.chance(profile.loss) {
            return if random.chance(profile.told) {
                Fate::Refused
            } else {
                Fate::Lost
            };
        }
        let mut arrival = || {
            let delay = if random.chance(profile.stragglers) {
                Duration(random.below(profile.straggle.0))
            } else {
                random.around(profile.delay)
            };
            now.after(delay)
        };
        let at = if profile.reorders {
            arrival()
        } else {
            arrival().max(link.last_arrival)
        };
        link.last_arrival = link.last_arrival.max(at);
        let again = arrival();
        let again = random.chance(profile.duplicates).then_some(again);
        link.under_way += 1 + u32::from(again.is_some());
        Fate::Arrives(at, again)
    }

    /// A packet has come to the end of its link; false if the link was cut meanwhile and the packet is lost.
    pub fn arrive(&mut self, from: usize, to: usize) -> bool {
        let link = &mut self.links[from * self.nodes + to];
        link.under_way = link.under_way.saturating_sub(1);
        !link.cut
    }

    /// Cuts one direction between two nodes, or mends it.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.links[from * self.nodes + to].cut = cut;
    }

    /// Whether one direction between two nodes is cut.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].cut
    }

    /// Mends every link.
    pub fn mend(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut = false);
    }

    /// Behaves from now on like this.
    pub fn set_profile(&mut self, profile: NetworkProfile) {
        self.profile = profile;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(profile: NetworkProfile) -> Network {
        Network::new(2, Random::new(3), profile)
    }

    #[test]
    fn a_healthy_network_delivers_everything_in_order() {
        let mut network = network(NetworkProfile::HEALTHY);
        let mut last = Time::ZERO;
        for n in 0..100 {
            let Fate::Arrives(at, None) = network.send(Time(n * 1000), 0, 1) else {
                panic!("lost or repeated")
            };
            assert!(at >= last);
            last = at;
        }
    }

    #[test]
    fn a_cut_is_one_way_and_loses_what_is_under_way() {
        let mut network = network(NetworkProfile::HEALTHY);
        assert!(matches!(network.send(Time(0), 0, 1), Fate::Arrives(..)));
        network.set_cut(0, 1, true);
        assert!(!network.arrive(0, 1));
        assert_eq!(network.send(Time(0), 0, 1), Fate::Lost);
        assert!(matches!(network.send(Time(0), 1, 0), Fate::Arrives(..)));
        network.mend();
        assert!(matches!(network.send(Time(0), 0, 1), Fate::Arrives(..)));
    }

    #[test]
    fn a_full_link_refuses_and_takes_more_once_something_arrives() {
        let mut network = network(NetworkProfile {
            queue: 2,
            ..NetworkProfile::HEALTHY
        });
        assert!(matches!(network.send(Time(0), 0, 1), Fate::Arrives(..)));
        assert!(matches!(network.send(Time(0), 0, 1), Fate::Arrives(..)));
        assert_eq!(network.send(Time(0), 0, 1), Fate::Refused);
        network.arrive(0, 1);
        assert!(matches!(network.send(Time(0), 0, 1), Fate::Arrives(..)));
    }

    #[test]
    fn loss_and_duplication_happen_about_as_often_as_they_should() {
        let profile = NetworkProfile {
            loss: Ppm::percent(20),
            duplicates: Ppm::percent(50),
            ..NetworkProfile::HEALTHY
        };
        let mut network = network(NetworkProfile {
            queue: u32::MAX,
            ..profile
        });
        let fates: Vec<Fate> = (0..1000).map(|_| network.send(Time(0), 0, 1)).collect();
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        let twice = fates
            .iter()
            .filter(|f| matches!(f, Fate::Arrives(_, Some(_))))
            .count();
        assert!((150..250).contains(&lost), "{lost} lost");
        assert!((350..450).contains(&twice), "{twice} twice");
    }
}
