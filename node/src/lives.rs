//! Which life of a peer is believed: the highest that this node has heard of, and only once that is on disk.
//!
//! A node that has lost its data directory, or runs from an older copy of it, has forgotten votes and acknowledgements. Nothing in
//! Raft's messages shows that. So each data directory has an incarnation, drawn when it was made, and counts its starts; each start
//! is a *life* with a number and a random id. A peer tells all three when it greets, and each node keeps the highest it has met of
//! each peer (`lives` in the data directory). Refused are: another incarnation, a lower life, the same life by another start, and a
//! life that does not follow from the one known. Who is refused is told, and stops itself.
//!
//! Invariants: nothing that a peer sends is looked at before its life is on disk here; what is known of a peer never falls; a life
//! that was refused once stays refused. Not noticed: a peer that this node has never met, whatever others know of it; a directory
//! that was put back to an earlier state of the last life that anyone has met.

use crate::{
    driver::Driver,
    ports::{Greeting, Ports},
};
use kontiki_consensus::{Incarnation, NodeId};
use kontiki_wire::{
    KnownLife, Life, Packet,
    lives::{Lives, PEERS_MAX, Refused},
};
use std::collections::BTreeMap;

/// What is known of the lives of peers.
#[derive(Debug)]
pub(crate) struct Peers {
    /// As it is to be on disk.
    lives: Lives,
    /// The version that is on disk.
    kept: u64,
    /// The version that tells of the life of each peer.
    since: BTreeMap<NodeId, u64>,
    /// The last refusal of each peer, until it comes in a life that is believed.
    refusals: BTreeMap<NodeId, String>,
    /// This node was refused: it stops, for this reason, once this version is on disk, and takes nothing from a peer until then.
    ending: Option<(u64, String)>,
}

/// What a life that a peer comes in is to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// The one that is known.
    Known,
    /// One that follows from it, or the first that is met.
    Next,
    /// Not to be believed, and why.
    Refused(String),
}

impl Peers {
    /// As a node finds it on its disk.
    pub(crate) fn new(lives: Lives) -> Self {
        Self {
            kept: lives.version,
            lives,
            since: BTreeMap::new(),
            refusals: BTreeMap::new(),
            ending: None,
        }
    }

    /// Whether what this packet says is to be believed.
    pub(crate) fn believes(&self, packet: &Packet) -> bool {
        self.ending.is_none()
            && self
                .known(packet.from)
                .is_some_and(|known| known.start == packet.start)
    }

    /// The life of a peer that is on disk, and is believed.
    fn known(&self, peer: NodeId) -> Option<KnownLife> {
        let known = self.lives.peers.get(&peer)?;
        let is_kept = self.since.get(&peer).is_none_or(|since| *since <= self.kept);
        is_kept.then_some(*known)
    }

    fn judge(&self, incarnation: Incarnation, peer: NodeId, life: &Life) -> Verdict {
        let Some(known) = self.lives.peers.get(&peer) else {
            return if self.lives.peers.len() < PEERS_MAX {
                Verdict::Next
            } else {
                Verdict::Refused(format!(
                    "{PEERS_MAX} other nodes are known here, and no more can be"
                ))
            };
        };
        let (now, before) = (life.number, known.number);
        if incarnation != known.incarnation {
            Verdict::Refused(format!(
                "the data directory of node {peer} was made anew (incarnation {incarnation}, known is {}): it has forgotten \
                 votes and entries. Put the old one back",
                known.incarnation
            ))
        } else if now < before {
            Verdict::Refused(format!(
                "node {peer} comes in life {now} of its data directory, and life {before} is known: an old copy was put \
                 back, or two processes run. Put the newest one back"
            ))
        } else if now == before && life.start == known.start {
            Verdict::Known
        } else if now == before {
            Verdict::Refused(format!(
                "node {peer} comes in life {now} of its data directory twice: two processes run from copies of it, or an \
                 old copy was put back. Keep the one that ran first, or the newest one"
            ))
        } else if life.start_of(before).is_some_and(|start| start != known.start) {
            Verdict::Refused(format!(
                "life {now} of node {peer} does not follow from life {before} that is known: it runs from a copy of its \
                 data directory that is older than that. Put the newest one back"
            ))
        } else {
            Verdict::Next
        }
    }
}

impl Driver {
    /// A peer has greeted: it is believed, now or once its life is on disk, or refused.
    pub(crate) fn greeted(&mut self, greeting: &Greeting, ports: &mut impl Ports) {
        let Greeting {
            peer,
            incarnation,
            life,
        } = *greeting;
        let peers = &mut self.peers;
        match peers.judge(incarnation, peer, &life) {
            Verdict::Known => {}
            Verdict::Next => {
                let known = KnownLife::of(incarnation, &life);
                let before = peers.lives.peers.insert(peer, known);
                peers.lives.version += 1;
                peers.since.insert(peer, peers.lives.version);
                peers.refusals.remove(&peer);
                ports.keep_lives(peers.lives.clone());
                if let Some(before) = before {
                    let why = format!(
                        "node {peer} has begun life {} of its data directory since: if its life {} still runs, two processes \
                         run from copies of that directory",
                        known.number, before.number
                    );
                    ports.refuse(peer, before.start, &why);
                }
            }
            Verdict::Refused(why) => {
                tracing::error!(node = %self.config.identity.node, %peer, "{peer} is refused: {why}");
                ports.refuse(peer, life.start, &why);
                peers.refusals.insert(peer, why);
            }
        }
    }

    /// The lives of this version are on disk.
    pub(crate) fn lives_kept(&mut self, version: u64, ports: &mut impl Ports) {
        let peers = &mut self.peers;
        peers.kept = peers.kept.max(version);
        let kept = peers.kept;
        if let Some((_, reason)) = peers.ending.take_if(|(marked, _)| *marked <= kept) {
            self.stop(reason, ports);
        }
    }

    /// A peer knows a life of this node that this one does not follow from. What this node has forgotten could cost
    /// acknowledged entries: it marks its directory, so that no later start takes it for a newer one, and stops once that is on
    /// disk.
    pub(crate) fn refused_by(&mut self, by: NodeId, why: String, ports: &mut impl Ports) {
        let peers = &mut self.peers;
        if peers.ending.is_some() {
            return;
        }
        peers.lives.version += 1;
        let reason = format!(
            "node {by} refuses this node, saying: {why}. This directory is not started again: put back the one that the node \
             has run with last; if that is lost, leave the node down"
        );
        peers.lives.refused = Some(Refused { by, why });
        peers.ending = Some((peers.lives.version, reason));
        ports.keep_lives(peers.lives.clone());
    }

    /// Whether what a packet says is to be believed: its sender's life is the one that is known, and on disk.
    #[must_use]
    pub fn believes(&self, packet: &Packet) -> bool {
        self.peers.believes(packet)
    }

    /// The life of a peer that this node believes: it is on disk here.
    #[must_use]
    pub fn known_life(&self, peer: NodeId) -> Option<KnownLife> {
        self.peers.known(peer)
    }

    /// Peers whose last life was refused, and why, in words for an operator.
    pub fn refused_peers(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.peers
            .refusals
            .iter()
            .map(|(peer, why)| (*peer, why.as_str()))
    }

    /// Whether a peer has refused this node, so that it has stopped.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.peers.lives.refused.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_wire::StartId;

    const TWO: NodeId = NodeId(2);

    /// The life with this number of a directory whose starts are tens, but for the last.
    fn life(number: u64, last: u64) -> Life {
        let tens = (1..number).fold(Life::default(), |life, n| life.next(StartId(n * 10)));
        tens.next(StartId(last))
    }

    /// What a node that knows life 3 of node 2 makes of another.
    fn judged(incarnation: u64, life: &Life) -> Verdict {
        let known = KnownLife::of(Incarnation(5), &self::life(3, 30));
        let peers = Peers::new(Lives {
            peers: [(TWO, known)].into(),
            ..Lives::default()
        });
        peers.judge(Incarnation(incarnation), TWO, life)
    }

    fn refusal(verdict: Verdict) -> String {
        match verdict {
            Verdict::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_life_is_believed_if_it_is_the_known_one_or_follows_from_it() {
        assert_eq!(judged(5, &life(3, 30)), Verdict::Known);
        assert_eq!(judged(5, &life(4, 40)), Verdict::Next);
        assert_eq!(judged(5, &life(30, 7)), Verdict::Next);
        assert_eq!(judged(5, &life(100, 7)), Verdict::Next, "too long ago to tell");
        let peers = Peers::new(Lives::default());
        assert_eq!(peers.judge(Incarnation(1), TWO, &life(9, 9)), Verdict::Next);
    }

    #[test]
    fn other_lives_are_refused_with_what_is_wrong() {
        assert!(refusal(judged(6, &life(3, 30))).contains("made anew"));
        assert!(
            refusal(judged(5, &life(2, 20))).contains("life 2 of its data directory, and life 3 is known")
        );
        assert!(refusal(judged(5, &life(3, 31))).contains("life 3 of its data directory twice"));
        let forked = life(3, 31).next(StartId(40));
        assert!(refusal(judged(5, &forked)).contains("does not follow from life 3"));
    }

    #[test]
    fn every_refusal_fits_into_what_a_peer_is_told() {
        let long = life(u64::MAX / 2 % 40, 1);
        for why in [
            judged(u64::MAX, &long),
            judged(5, &life(2, 20)),
            judged(5, &life(3, 31)),
        ] {
            let why = refusal(why);
            assert!(why.len() <= 300, "{} bytes: {why}", why.len());
        }
    }
}
