//! What goes between the nodes, and between them and their clients.
//!
//! Invariant: what is sent is encoded as it would be on the wire, and decoded where it arrives.

use crate::clients::Asked;
use crate::hash::Hash;
use crate::network::Fate;
use crate::replica::{CLUSTER, Replica};
use crate::sometimes::Sometimes;
use crate::transitions::{Copy, MessageId};
use crate::violation::{Verdict, Violation};
use crate::world::{Event, World};
use bytes::Bytes;
use kontiki_consensus::{Call, Duration, NodeId, Role, Time};
use kontiki_node::{Ask, Input, Request};
use kontiki_wire::{Packet, PeerMessage, codec};

impl World {
    pub(crate) fn send(&mut self, from: usize, to: NodeId, packet: &Packet, id: MessageId) {
        let now = self.now();
        let Some(place) = usize::try_from(to.0 - 1).ok().filter(|n| *n < self.swarm.nodes) else {
            return;
        };
        let life = self.replicas[from].life;
        let copy = |again| Copy { id, again };
        match self.network.send(now, from, place) {
            Fate::Arrives(at, again) => {
                let bytes = on_the_wire(packet);
                self.trace.event(now, 4, Hash::default().with_bytes(&bytes).0);
                let first = Event::Arrive {
                    from,
                    to: place,
                    bytes: bytes.clone(),
                    copy: copy(false),
                };
                self.queue.schedule(at, first);
                if let Some(at) = again {
                    self.count("packet repeated");
                    self.transitions.repeats(now, id);
                    self.queue.schedule(
                        at,
                        Event::Arrive {
                            from,
                            to: place,
                            bytes,
                            copy: copy(true),
                        },
                    );
                }
            }
            Fate::Lost => {
                self.count("packet lost");
                self.lose(copy(false), "lost", packet);
            }
            Fate::Refused => {
                self.count("packet lost, sender told");
                self.lose(copy(false), "refused", packet);
                let at = now.after(self.random.around(self.swarm.network.delay));
                self.queue.schedule(
                    at,
                    Event::Dropped {
                        node: from,
                        peer: to,
                        life,
                    },
                );
            }
        }
    }

    pub(crate) fn arrive(&mut self, from: usize, to: usize, bytes: &Bytes, copy: Copy) -> Verdict {
        let now = self.now();
        let hears = self.with(to, |p| now < p.deaf_from || p.paused_until <= now);
        let lost = match (self.network.arrive(from, to), hears) {
            (true, Some(true)) => None,
            (true, Some(false)) => Some("deaf"),
            (true, None) => Some("down"),
            (false, _) => Some("cut"),
        };
        if lost.is_some() && !self.transitions.is_on() {
            return Ok(());
        }
        let packet = codec::decode(CLUSTER, bytes.clone()).map_err(|e| Violation {
            property: "what is sent can be decoded",
            what: format!("from n{} to n{}: {e:?}", from + 1, to + 1),
        })?;
        if let Some(why) = lost {
            self.lose(copy, why, &packet);
            return Ok(());
        }
        if !self.greet(to, packet.start) {
            self.lose(copy, "refused", &packet);
            return Ok(());
        }
        let vote =
            matches!(&packet.message, PeerMessage::Raft(m) if matches!(m.call, Call::RequestVote { .. }));
        self.checks
            .counters
            .hit_if(copy.again && vote, Sometimes::VoteRepeated);
        if self.with(to, |p| p.has_room()) == Some(true) {
            self.with(to, |p| p.copies.push(copy));
        } else {
            self.lose(copy, "full", &packet);
        }
        self.give(to, Input::Packet(packet));
        Ok(())
    }

    /// A message comes nowhere.
    fn lose(&self, copy: Copy, why: &'static str, packet: &Packet) {
        self.transitions
            .drops(self.now(), copy, why, (packet.from, packet.to), &packet.message);
    }

    /// What waits for a node is lost.
    pub(crate) fn lose_inbox(&mut self, node: usize, why: &'static str) {
        if let Some(process) = &self.replicas[node].process {
            process
                .messages()
                .for_each(|(copy, packet)| self.lose(copy, why, packet));
        }
        self.with(node, |process| {
            process.copies.clear();
            process.inbox.retain(|input| !matches!(input, Input::Packet(_)));
        });
    }

    pub(crate) fn client_asks(&mut self, client: usize) -> Verdict {
        self.ask_now(client);
        let at = self.now().after(self.clients.think());
        self.queue.schedule(at, Event::Client(client));
        self.clients.overdue(self.now())
    }

    pub(crate) fn ask_now(&mut self, client: usize) {
        if self.clients_ask {
            let (now, leader) = (self.now(), self.any_leader());
            for asked in self.clients.ask(client, now, leader, &mut self.checks) {
                self.request(asked);
            }
        }
    }

    /// Brings a request to its node.
    pub(crate) fn request(&mut self, asked: Asked) {
        let Asked {
            node,
            token,
            ask,
            patience,
        } = asked;
        let (now, place) = (self.now(), node.0 as usize - 1);
        self.trace
            .line(now, || format!("{token:?} asks {node:?}: {}", summary(&ask)));
        let until = self.with(place, |p| (p.inbox.len() < 512).then_some(p.paused_until));
        let until = until.flatten().unwrap_or(Time::MAX);
        // Some ask a node that stands still, and are heard when it goes on.
        if until == Time::MAX || (until > now && self.random.coin()) {
            self.clients.unreachable(token);
            return;
        }
        let grace =
            Duration(2 * self.swarm.sizes.heartbeat_interval.0 + 20 * self.swarm.turn.0 + 100_000_000);
        let Some((deadline, by)) = self.with(place, |p| {
            let deadline = p.clock.shows(now).after(patience);
            let going = until.after(Duration::from_millis(2_000));
            (deadline, p.clock.moment(deadline).after(grace).max(going))
        }) else {
            return;
        };
        self.clients.taken(token, node, by);
        self.give(place, Input::Request(Request { token, deadline, ask }));
    }

    /// A node that says it leads, whom a client may hold for the leader.
    fn any_leader(&mut self) -> Option<NodeId> {
        let leads = |r: &&Replica| {
            let process = r.process.as_ref();
            process.is_some_and(|p| p.driver.consensus().role() == Role::Leader)
        };
        let leaders: Vec<NodeId> = self.replicas.iter().filter(leads).map(|r| r.node).collect();
        self.random.pick(&leaders).copied()
    }

    /// The node that leads the latest term, as far as any node says so.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let processes = self
            .replicas
            .iter()
            .filter_map(|r| r.process.as_ref().map(|p| (r.node, p.driver.consensus())));
        let leaders = processes.filter(|(_, c)| c.role() == Role::Leader);
        leaders.max_by_key(|(_, c)| c.term()).map(|(node, _)| node)
    }
}

/// A request in a line: what it carries is told by its size.
fn summary(ask: &Ask) -> String {
    match ask {
        Ask::Append {
            payload,
            expect,
            session,
        } => {
            format!(
                "append {} entries, {} bytes, if {expect:?}, {session:?}",
                payload.count,
                payload.bytes.len()
            )
        }
        other => format!("{other:?}"),
    }
}

/// A packet as one piece, as a stream would carry it.
fn on_the_wire(packet: &Packet) -> Bytes {
    let mut chunks = Vec::new();
    codec::encode(CLUSTER, packet, &mut chunks);
    chunks.concat().into()
}
