//! What a node's own clients append is there once, and what they are told of it is true, whatever happens to the others.

mod common;

use common::{Chance, MS, World};
use kontiki_consensus::{NodeId, Position, Time};
use kontiki_node::{
    Failure, Input, Reply, Request, Token,
    once::{Held, Once},
};
use kontiki_wire::{Codec, Expect, Payload, Refusal, SessionLimits};
use std::collections::BTreeMap;

/// The clients of one node, which stays up.
struct Clients {
    home: NodeId,
    once: Once,
    /// Attempts under way: the world's token and their own.
    under_way: BTreeMap<Token, Token>,
    asked: u64,
    /// Which text was answered how.
    told: BTreeMap<String, Reply>,
    /// Where the log was last said to end.
    end: Position,
    attempts: u64,
}

impl Clients {
    fn append(&mut self, now: u64, patience: u64, comparing: bool) {
        self.asked += 1;
        let expect = match comparing {
            true if self.end == Position::ZERO => Expect::Empty,
            true => Expect::Last {
                position: self.end,
                term: None,
            },
            false => Expect::Any,
        };
        let text = format!("{}", self.asked);
        self.once.append(Held {
            token: Token(self.asked),
            deadline: Time((now + patience) * MS),
            payload: Payload::one(text.into_bytes().into(), Codec::Bytes),
            expect,
        });
    }

    /// One millisecond goes by.
    fn step(&mut self, world: &mut World) {
        let (mut inbox, mut answers) = (Vec::new(), Vec::new());
        self.once.pump(world.time(), false, &mut inbox, &mut answers);
        for input in inbox {
            let Input::Request(Request { token, deadline, ask }) = input else {
                panic!("{input:?}")
            };
            self.attempts += 1;
            let left = deadline.0.saturating_sub(world.time().0) / MS;
            let at = world.ask(self.home, ask, left);
            self.under_way.insert(at, token);
        }
        world.run(1);
        let done = self
            .under_way
            .extract_if(.., |at, _| world.replies.contains_key(at));
        for (at, token) in done {
            let reply = world.replies[&at].clone();
            self.once.answered(world.time(), token, reply, &mut answers);
        }
        for (token, reply) in answers {
            match &reply {
                Reply::Appended { last, .. } => self.end = self.end.max(*last),
                Reply::Failed(Failure::Refused(Refusal::Mismatch { last, .. })) => self.end = *last,
                _ => {}
            }
            let before = self.told.insert(token.0.to_string(), reply);
            assert!(before.is_none(), "{token:?} was answered before: {before:?}");
        }
    }

    /// Everything that was told is true of the log.
    fn check(&self, log: &[String], counts: &mut BTreeMap<&'static str, u64>) {
        assert_eq!(self.told.len() as u64, self.asked, "all were answered");
        for (text, reply) in &self.told {
            let times = log.iter().filter(|entry| *entry == text).count();
            let (what, holds) = match reply {
                Reply::Appended { first, .. } => {
                    let there = log.get(first.0 as usize - 1) == Some(text);
                    ("appended", times == 1 && there)
                }
                Reply::Failed(
                    Failure::Unknown(_) | Failure::Refused(Refusal::SessionExpired | Refusal::SessionStale),
                ) => ("unknown", times <= 1),
                Reply::Failed(Failure::Refused(Refusal::Mismatch { .. })) => ("missed", times == 0),
                Reply::Failed(_) => ("not appended", times == 0),
                other => panic!("{other:?}"),
            };
            assert!(holds, "{text} was told {reply:?} and is there {times} times");
            *counts.entry(what).or_default() += 1;
        }
    }
}

/// Something happens to the others, or to the network.
fn disturb(world: &mut World, chance: &mut Chance, home: NodeId) {
    let names = world.names();
    let other = names[chance.below(names.len() as u64) as usize];
    match chance.below(6) {
        0 if other != home && names.iter().all(|n| world.nodes[n].driver.is_some()) => world.crash(other),
        1 => world.isolate(other),
        2 => {
            let (mut chance, lost) = (Chance::new(chance.below(1 << 30)), 2 + chance.below(5));
            world.lose(move |_, _, _| chance.below(lost) == 0);
        }
        3 => {
            let stuck = &mut world.node(other).stuck;
            *stuck = !*stuck;
        }
        _ => heal(world),
    }
}

fn heal(world: &mut World) {
    world.heal();
    for n in world.names() {
        world.node(n).stuck = false;
        if world.nodes[&n].driver.is_none() {
            world.start(n);
        }
    }
}

#[test]
fn what_is_told_is_true_whatever_happens_to_the_others() {
    let (mut counts, mut attempts, mut asked) = (BTreeMap::new(), 0, 0);
    for seed in 0..24 {
        let (mut world, names) = World::led(3, 500 + seed);
        let home = names[seed as usize % names.len()];
        (world.delay, world.twice) = ((20, 5), 6);
        world.sessions = SessionLimits {
            ttl: if seed % 3 == 0 { 1 } else { 60 },
            ..SessionLimits::default()
        };
        let mut chance = Chance::new(seed);
        let mut clients = Clients {
            home,
            once: Once::new(64),
            under_way: BTreeMap::new(),
            asked: 0,
            told: BTreeMap::new(),
            end: Position::ZERO,
            attempts: 0,
        };
        for _ in 0..12_000 {
            if chance.below(20) == 0 && !(3_000..6_000).contains(&(world.now % 9_000)) {
                let (patience, comparing) = (200 + chance.below(8_000), chance.below(4) == 0);
                clients.append(world.now, patience, comparing);
            }
            if chance.below(300) == 0 {
                disturb(&mut world, &mut chance, home);
            }
            clients.step(&mut world);
        }
        heal(&mut world);
        for _ in 0..9_000 {
            clients.step(&mut world);
        }
        let leader = world.await_leader();
        world.run(500);
        clients.check(&world.log(leader), &mut counts);
        (attempts, asked) = (attempts + clients.attempts, asked + clients.asked);
    }
    for what in ["appended", "unknown", "missed", "not appended"] {
        assert!(counts.get(what).is_some_and(|n| *n > 10), "{what}: {counts:?}");
    }
    assert!(
        attempts > asked + 200,
        "{attempts} attempts of {asked}: nothing is shown"
    );
}
