//! Impostors: processes that run under a node's id from another directory than the node's, as an operator's mistake brings about.
//!
//! One is made anew, or is an older copy of the node's own that was put back or runs beside it. They come only where every other
//! node has believed a life that theirs contradicts, and ask for votes, and for obedience, in terms that no node reaches otherwise:
//! whoever listens is seen at once. Where some node does not know better nobody can tell, and none comes. They have a random stream
//! of their own, so that a seed's other chances do not depend on them.

use crate::disk::SimDisk;
use crate::random::Random;
use crate::replica::CLUSTER;
use crate::sometimes::Sometimes;
use crate::transitions::Copy;
use crate::violation::{Verdict, ensure};
use crate::world::{Event, World};
use kontiki_consensus::{
    Call, Duration, GroupId, Incarnation, Index, LogId, Message, NodeId, Round, Runs, Standing, Term,
};
use kontiki_log::{Log, Salts, Start};
use kontiki_node::{Greeting, Input};
use kontiki_wire::{Life, Packet, PeerMessage, StartId};
use std::collections::BTreeSet;

/// The terms of impostors begin here.
const TERM: Term = Term(1 << 30);
/// How long their packets take, at most.
const DELAY: Duration = Duration::from_millis(50);
/// Their starts begin here, and those of nodes stay below.
const STARTS: u64 = 1 << 60;

/// The impostors of a run.
#[derive(Debug)]
pub(crate) struct Impostors {
    random: Random,
    /// The mean time between two of them.
    every: Option<Duration>,
    /// Older copies of directories: of whom, and what is certain to be on them.
    copies: Vec<(usize, SimDisk)>,
    starts: BTreeSet<StartId>,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Imposture {
    /// The directory of a node is copied.
    Copied,
    /// An impostor comes.
    Comes,
    /// A packet of one arrives.
    Arrives(Box<Packet>),
}

impl Impostors {
    /// The habits of a seed: in half of the runs there are some.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x696d_706f_7374_6f72);
        let often = Duration::from_millis(random.magnitude(500, 10_000));
        let every = random.coin().then_some(often);
        Self {
            random,
            every,
            copies: Vec::new(),
            starts: BTreeSet::new(),
        }
    }
}

impl World {
    /// Lets the next impostor come after a while, and a directory be copied before.
    pub(crate) fn schedule_impostor(&mut self) {
        if let Some(every) = self.impostors.every {
            for imposture in [Imposture::Copied, Imposture::Comes] {
                let at = self.now().after(self.impostors.random.around(every));
                self.queue.schedule(at, Event::Impostor(imposture));
            }
        }
    }

    pub(crate) fn impostor(&mut self, imposture: Imposture) {
        match imposture {
            Imposture::Copied => {
                let node = self.impostors.random.place(self.swarm.nodes);
                let copy = self.replicas[node].disk.image();
                self.impostors.copies.push((node, copy));
            }
            Imposture::Comes if self.stormy => {
                if let Some(greeting) = self.draw_impostor() {
                    self.impose(greeting);
                }
                self.schedule_impostor();
            }
            Imposture::Comes => {}
            Imposture::Arrives(packet) => self.impostor_arrives(*packet),
        }
    }

    /// The life of an impostor, from a directory that was made anew or from an older copy.
    fn draw_impostor(&mut self) -> Option<Greeting> {
        let impostors = &mut self.impostors;
        let id = StartId(STARTS + impostors.starts.len() as u64);
        if impostors.random.coin() {
            let peer = NodeId(1 + impostors.random.place(self.swarm.nodes) as u64);
            return Some(Greeting {
                peer,
                incarnation: Incarnation(impostors.random.draw()),
                life: Life::default().next(id),
            });
        }
        let (node, copy) = impostors.random.pick(&impostors.copies)?;
        let (node, copy) = (*node, copy.image());
        let options = crate::replica::options(&self.swarm.sizes);
        let start = Start {
            id,
            ..Start::default()
        };
        let peer = self.replicas[node].node;
        // One that was copied while its node was being made whole again is no directory yet.
        let (_, found) = Log::start(copy, CLUSTER, peer, options, Salts::new(1), &start).ok()?;
        Some(Greeting {
            peer,
            incarnation: found.incarnation,
            life: found.lives.life,
        })
    }

    /// An impostor speaks to all others, if all of them know better.
    fn impose(&mut self, greeting: Greeting) {
        let Greeting {
            peer: from,
            incarnation,
            life,
        } = greeting;
        let others = self.replicas.iter().map(|r| r.node).filter(|node| *node != from);
        let others: Vec<NodeId> = others.collect();
        if !self.greetings.all_must_refuse(others.iter().copied(), &greeting) {
            return;
        }
        self.log_line(|| format!("an impostor of {from:?} comes with {incarnation:?} and {life:?}"));
        self.count("impostor");
        self.impostors.starts.insert(life.start);
        self.greetings.begins(from, incarnation, life);
        for to in others {
            for call in [request(), heartbeat()] {
                let message = PeerMessage::Raft(Message {
                    from,
                    to,
                    term: TERM,
                    call,
                });
                let packet = Packet {
                    group: GroupId::default(),
                    from,
                    start: life.start,
                    to,
                    message,
                };
                let at = self.now().after(Duration(self.impostors.random.below(DELAY.0)));
                let arrives = Imposture::Arrives(Box::new(packet));
                self.queue.schedule(at, Event::Impostor(arrives));
            }
        }
    }

    fn impostor_arrives(&mut self, packet: Packet) {
        let (now, to) = (self.now(), packet.to.0 as usize - 1);
        let hears = self.with(to, |p| {
            p.has_room() && (now < p.deaf_from || p.paused_until <= now)
        });
        if hears == Some(true) && self.greet(to, packet.start) {
            self.with(to, |p| p.copies.push(Copy::default()));
            self.give(to, Input::Packet(packet));
        }
    }

    /// A node has refused a start that no node runs in any more.
    pub(crate) fn impostor_refused(&mut self, start: StartId) {
        let is_one = self.impostors.starts.contains(&start);
        self.checks.counters.hit_if(is_one, Sometimes::ImpostorRefused);
    }

    /// A node has listened to no impostor.
    pub(crate) fn check_impostors(&self, node: usize) -> Verdict {
        let Some(process) = &self.replicas[node].process else {
            return Ok(());
        };
        let term = process.driver.consensus().term();
        ensure(
            term < TERM,
            "nobody who knows better listens to an impostor",
            || format!("n{} is in {term:?}, which only an impostor has named", node + 1),
        )
    }
}

/// A vote is asked for that even who hears a leader would have to give.
fn request() -> Call {
    Call::RequestVote {
        pre: false,
        transfer: true,
        last: LogId::new(TERM, Index(1 << 30)),
    }
}

fn heartbeat() -> Call {
    Call::AppendEntries {
        prev: LogId::default(),
        commit: Index::ZERO,
        round: Round(1),
        runs: Runs::default(),
        standing: Standing::default(),
    }
}
