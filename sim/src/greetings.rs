//! Greetings: a process is told the life of a peer before the first packet of that, as a transport does, and may refuse it.
//!
//! Here the simulator keeps the life behind each start, what each node has ever believed of each peer, and looks at what a node is
//! about to take in. Invariants: what a node believes of a peer never falls, whatever became of the node itself; nobody refuses the
//! process that a node runs.

use crate::transitions::Copy;
use crate::violation::{Verdict, ensure};
use crate::world::World;
use kontiki_consensus::{Incarnation, NodeId};
use kontiki_log::LogEvent;
use kontiki_node::{Greeting, Input};
use kontiki_wire::{KnownLife, Life, PeerMessage, StartId};
use std::collections::BTreeMap;

/// What is known of lives.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    lives: BTreeMap<StartId, Greeting>,
    /// The highest life that a node (first) has believed of a peer (second).
    believed: BTreeMap<(NodeId, NodeId), KnownLife>,
}

impl Greetings {
    /// A process begins.
    pub(crate) fn begins(&mut self, peer: NodeId, incarnation: Incarnation, life: Life) {
        let greeting = Greeting {
            peer,
            incarnation,
            life,
        };
        self.lives.insert(life.start, greeting);
    }

    /// Whether each of these nodes has believed a life of a peer that this one contradicts.
    pub(crate) fn all_must_refuse(&self, nodes: impl IntoIterator<Item = NodeId>, other: &Greeting) -> bool {
        nodes.into_iter().all(|node| {
            let known = self.believed.get(&(node, other.peer));
            known.is_some_and(|known| contradicts(known, other))
        })
    }
}

/// Whether no process of this life can have come after one of that which is known.
fn contradicts(known: &KnownLife, other: &Greeting) -> bool {
    let then = other.life.start_of(known.number);
    other.incarnation != known.incarnation
        || other.life.number < known.number
        || then.is_some_and(|start| start != known.start)
}

/// Takes out what is about lives: it goes before everything else that waits.
pub(crate) fn lives_first(inbox: &mut Vec<Input>) -> Vec<Input> {
    let of_lives = |input: &mut Input| {
        matches!(
            input,
            Input::Greeted(_) | Input::RefusedBy { .. } | Input::Log(LogEvent::LivesKept(_))
        )
    };
    inbox.extract_if(.., of_lives).collect()
}

impl World {
    /// A packet of this start comes to a node, which is told of that life if it has not met it; false if it has refused it.
    pub(crate) fn greet(&mut self, to: usize, start: StartId) -> bool {
        let Some(greeting) = self.greetings.lives.get(&start).copied() else {
            return false;
        };
        let Some(process) = self.replicas[to].process.as_mut() else {
            return false;
        };
        if process.refused.contains(&start) {
            return false;
        }
        if process.greeted.insert(start) {
            self.give(to, Input::Greeted(Box::new(greeting)));
        }
        true
    }

    /// A node has refused these in its turn: whoever lives such a life is told.
    pub(crate) fn refuse(&mut self, node: usize, refusals: Vec<(NodeId, StartId, String)>) {
        let by = self.replicas[node].node;
        for (peer, start, why) in refusals {
            self.log_line(|| format!("{by:?} refuses {peer:?} in {start}: {why}"));
            self.with(node, |process| process.refused.insert(start));
            let place = peer.0 as usize - 1;
            if self.with(place, |process| process.start == start) == Some(true) {
                self.give(place, Input::RefusedBy { peer: by, why });
            } else {
                self.impostor_refused(start);
            }
        }
    }

    /// What a node believes of its peers after a turn.
    pub(crate) fn check_beliefs(&mut self, node: usize) -> Verdict {
        let replica = &self.replicas[node];
        let Some(process) = &replica.process else {
            return Ok(());
        };
        let by = replica.node;
        for peer in self.replicas.iter().map(|r| r.node).filter(|peer| *peer != by) {
            let Some(now) = process.driver.known_life(peer) else {
                continue;
            };
            let before = self.greetings.believed.insert((by, peer), now).unwrap_or(now);
            let greeting = self.greetings.lives.get(&now.start);
            let follows = greeting.is_some_and(|greeting| !contradicts(&before, greeting));
            ensure(follows, "what is believed of a peer never falls", || {
                format!("{by:?} has believed {before:?} of {peer:?}, and now believes {now:?}")
            })?;
        }
        self.check_impostors(node)
    }

    /// The checkers see what a node takes in, in its turn; a packet of a life that it does not believe is as good as lost.
    pub(crate) fn observe(&mut self, node: usize, inbox: &[Input]) {
        let now = self.now();
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut() else {
            return;
        };
        let clock = process.clock.shows(now);
        let mut copies = process.copies.drain(..);
        for input in inbox {
            match input {
                Input::Packet(packet) => {
                    let copy: Copy = copies.next().unwrap_or_default();
                    let (from, to, message) = (packet.from, packet.to, &packet.message);
                    if !process.driver.believes(packet) {
                        // An impostor is no node of the cluster: a trace shows nothing that it sends.
                        if copy != Copy::default() {
                            self.transitions
                                .drops(now, copy, "unbelieved", (from, to), message);
                        }
                        continue;
                    }
                    self.transitions.receives(now, copy, from, to, message);
                    match message {
                        PeerMessage::Raft(message) => self.checks.hears(replica.node, message, clock),
                        PeerMessage::SnapshotRequest(request) => {
                            let transfers = &mut self.checks.transfers;
                            transfers.asks(replica.node, from, request.last, clock);
                        }
                        _ => {}
                    }
                }
                Input::Log(LogEvent::Persisted { id, .. }) => {
                    self.transitions.persisted(now, replica.node, *id);
                }
                Input::Cancel(tokens) => self.outgoing.cancelled.extend(tokens),
                _ => {}
            }
        }
    }
}
