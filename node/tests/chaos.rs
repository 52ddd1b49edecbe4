//! Everything at once, by chance: clients at every node, messages lost, doubled and late, partitions,
//! crashes, slow disks. What clients were told is held against the log that is committed in the end.

mod common;

use common::{Chance, World};
use kontiki_consensus::{NodeId, Position, Term};
use kontiki_node::{Ask, Consistency, Failure, Reply, Token};
use kontiki_wire::{Codec, Expect, Payload, Refusal, Session};
use std::collections::BTreeMap;

/// What a client asked, and how far it knew the log to reach.
enum Question {
    Append { texts: Vec<String>, expect: Expect },
    Read { from: u64, fresh: bool },
}

struct Clients {
    asked: BTreeMap<Token, (Question, u64)>,
    /// How far the log is known to reach by those who were answered.
    floor: u64,
    /// Where an answer said that it ends.
    end: (u64, Term),
    appends: u64,
    /// Positions and texts that were acknowledged, and texts that were said not to be applied.
    there: Vec<(u64, Vec<String>, Expect)>,
    never: Vec<Vec<String>>,
    read: Vec<(u64, Vec<String>)>,
    ends: Vec<(Expect, u64, Term, bool)>,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Clients {
    fn new() -> Self {
        Self {
            asked: BTreeMap::new(),
            floor: 0,
            end: (0, Term::ZERO),
            appends: 0,
            there: Vec::new(),
            never: Vec::new(),
            read: Vec::new(),
            ends: Vec::new(),
            outcomes: BTreeMap::new(),
        }
    }

    fn ask(&mut self, world: &mut World, chance: &mut Chance, n: NodeId) {
        let (question, ask) = if chance.below(3) > 0 {
            self.append(chance)
        } else {
            self.read(chance)
        };
        let token = world.ask(n, ask, 200 + chance.below(3_000));
        self.asked.insert(token, (question, self.floor));
    }

    fn append(&mut self, chance: &mut Chance) -> (Question, Ask) {
        self.appends += 1;
        let count = if chance.below(5) == 0 { chance.below(4) } else { 1 };
        let filling = "-".repeat(chance.below(300) as usize);
        let texts: Vec<String> = (0..count)
            .map(|n| format!("{}.{n}{filling}", self.appends))
            .collect();
        let (position, term) = (Position(self.end.0), self.end.1);
        let expect = match chance.below(8) {
            0 => Expect::Empty,
            1 => Expect::Last { position, term: None },
            2 => Expect::Last {
                position,
                term: Some(term),
            },
            _ => Expect::Any,
        };
        let payload = Payload::several(&texts, Codec::Bytes).unwrap();
        (
            Question::Append { texts, expect },
            Ask::Append {
                payload,
                expect,
                session: Session::None,
            },
        )
    }

    fn read(&mut self, chance: &mut Chance) -> (Question, Ask) {
        let fresh = chance.below(2) == 0;
        let from = 1 + chance.below(self.floor + 2);
        let consistency = if fresh {
            Consistency::Linearizable
        } else {
            Consistency::STALE
        };
        let (to, bytes_max) = (
            Position(from + 1 + chance.below(20)),
            1 + chance.below(1000) as usize,
        );
        let wait = chance.below(4) == 0;
        (
            Question::Read { from, fresh },
            Ask::Read {
                from: Position(from),
                to,
                bytes_max,
                consistency,
                wait,
            },
        )
    }

    fn learn(&mut self, world: &mut World) {
        for (token, reply) in std::mem::take(&mut world.replies) {
            let Some((question, floor)) = self.asked.remove(&token) else {
                continue;
            };
            match question {
                Question::Append { texts, expect } => self.appended(texts, expect, floor, reply),
                Question::Read { from, fresh } => self.has_read(from, fresh, floor, reply),
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    fn appended(&mut self, texts: Vec<String>, expect: Expect, floor: u64, reply: Reply) {
        let what = match &reply {
            Reply::Appended { .. } => "appended",
            Reply::Failed(Failure::Superseded) => "superseded",
            Reply::Failed(Failure::NoLeader) => "no leader",
            Reply::Failed(Failure::Timeout) => "too late",
            Reply::Failed(Failure::Unknown(_)) => "unknown",
            Reply::Failed(Failure::Refused(Refusal::NotLeader { .. })) => "not leader",
            Reply::Failed(Failure::Refused(Refusal::Mismatch { .. })) => "mismatch",
            Reply::Failed(Failure::Refused(Refusal::Holds { .. })) => "holds",
            Reply::Failed(Failure::Refused(Refusal::Overloaded)) => "overloaded",
            other => panic!("an append was answered with {other:?}"),
        };
        self.count(what);
        match reply {
            Reply::Appended {
                first, last, term, ..
            } => {
                assert_eq!(last.0 + 1, first.0 + texts.len() as u64);
                assert!(first.0 > floor, "put where something was acknowledged before");
                self.floor = self.floor.max(last.0);
                self.end = self.end.max((last.0, term));
                self.there.push((first.0, texts, expect));
            }
            Reply::Failed(Failure::Unknown(_)) => {}
            Reply::Failed(Failure::Refused(
                ref r @ (Refusal::Mismatch { last, term } | Refusal::Holds { last, term }),
            )) => {
                assert!(
                    last.0 >= floor,
                    "the log ended at {last}, {floor} was there before"
                );
                self.end = self.end.max((last.0, term));
                self.floor = self.floor.max(last.0);
                self.ends
                    .push((expect, last.0, term, matches!(r, Refusal::Holds { .. })));
                self.never.push(texts);
            }
            _ => self.never.push(texts),
        }
    }

    fn has_read(&mut self, from: u64, fresh: bool, floor: u64, reply: Reply) {
        let Reply::Read { runs, last } = reply else {
            assert!(
                matches!(reply, Reply::Failed(Failure::Timeout)),
                "a read was answered with {reply:?}"
            );
            return self.count("timeout");
        };
        self.count(if fresh { "read" } else { "stale read" });
        assert!(
            !fresh || last.0 >= floor,
            "a read saw up to {last}, {floor} was there before"
        );
        assert!(from > last.0 || runs.iter().any(|r| r.index_of(Position(from)).is_some()));
        if fresh {
            self.floor = self.floor.max(last.0);
        }
        self.read
            .extend(runs.iter().map(|r| (r.first_position().0, common::texts(r))));
    }

    /// Holds all that was said against the log.
    fn check(&self, log: &[String], term_of: impl Fn(u64) -> Term) {
        let at = |position: u64| log.get(position as usize - 1);
        let mut places: BTreeMap<&String, usize> = BTreeMap::new();
        for (n, text) in log.iter().enumerate() {
            assert_eq!(places.insert(text, n), None, "{text} is there twice");
        }
        for (first, texts) in self
            .there
            .iter()
            .map(|(p, t, _)| (p, t))
            .chain(self.read.iter().map(|(p, t)| (p, t)))
        {
            for (n, text) in texts.iter().enumerate() {
                assert_eq!(at(first + n as u64), Some(text), "at {first}+{n}");
            }
        }
        for text in self.never.iter().flatten() {
            assert!(!places.contains_key(text), "{text} was said not to be applied");
        }
        let holds = |expect: &Expect, last: u64, term: Term| match expect {
            Expect::Any => true,
            Expect::Empty => last == 0,
            Expect::Last { position, term: t } => position.0 == last && t.is_none_or(|t| t == term),
        };
        for (first, _, expect) in &self.there {
            assert!(
                holds(expect, first - 1, term_of(first - 1)),
                "{expect:?} was appended at {first}"
            );
        }
        for (expect, last, term, held) in &self.ends {
            assert_eq!(holds(expect, *last, *term), *held);
            assert_eq!(term_of(*last), *term, "the term at {last}");
        }
    }
}

fn misfortune(world: &mut World, chance: &mut Chance) {
    let names = world.names();
    let one = names[chance.below(names.len() as u64) as usize];
    match chance.below(12) {
        0 => world.crash(one),
        1 => world.isolate(one),
        2 => {
            let other = names[chance.below(names.len() as u64) as usize];
            world.cut(one, other);
        }
        3 => world.node(one).stuck = true,
        4 => {
            let mut luck = Chance::new(chance.below(u64::MAX));
            let odds = 2 + chance.below(30);
            world.lose(move |_, _, _| luck.below(odds) == 0);
        }
        5 => {
            let leader = world.leader().unwrap_or(one);
            world.crash(leader);
        }
        6 => {
            let leader = world.leader().unwrap_or(one);
            world.isolate(leader);
        }
        7..=9 => {
            world.heal();
            names.iter().for_each(|n| world.node(*n).stuck = false);
        }
        _ => {
            for n in names {
                if world.nodes[&n].driver.is_none() {
                    world.start(n);
                }
            }
        }
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut chance = Chance::new(seed + 1);
    let nodes = [1, 2, 3, 3, 3, 5][chance.below(6) as usize];
    let mut world = World::new(nodes, seed);
    world.delay = (1 + chance.below(30), 1 + chance.below(20));
    world.twice = chance.below(10);
    world.in_flight_bytes_max = 2_000 + chance.below(60_000) as usize;
    world.tail_bytes_max = chance.below(20_000) as usize;
    let mut clients = Clients::new();
    for _ in 0..400 {
        for _ in 0..chance.below(5) {
            let n = NodeId(1 + chance.below(nodes));
            if world.nodes[&n].driver.is_some() {
                clients.ask(&mut world, &mut chance, n);
            }
        }
        if chance.below(12) == 0 {
            misfortune(&mut world, &mut chance);
        }
        world.run(1 + chance.below(60));
        world.check_in_time();
        clients.learn(&mut world);
    }
    world.heal();
    for n in world.names() {
        world.node(n).stuck = false;
        if world.nodes[&n].driver.is_none() {
            world.start(n);
        }
    }
    let leader = world.await_leader();
    world.run_until("all answers", |w| w.open() == 0);
    clients.learn(&mut world);
    world.run(1_000);
    let log = world.log(leader);
    for n in world.names() {
        assert_eq!(world.log(n), log, "{n} differs");
    }
    let consensus = world.driver(leader).consensus();
    clients.check(&log, |p| consensus.term_of(Position(p)).unwrap_or_default());
    clients.outcomes
}

#[test]
fn what_clients_are_told_is_true() {
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds = std::env::var("KONTIKI_CHAOS_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(60);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        let Ok(of_seed) = result else {
            panic!("seed {seed}")
        };
        for (what, times) in of_seed {
            *outcomes.entry(what).or_default() += times;
        }
    }
    println!("{outcomes:?}");
    for what in [
        "appended",
        "superseded",
        "no leader",
        "unknown",
        "not leader",
        "mismatch",
        "holds",
        "overloaded",
        "read",
        "stale read",
        "timeout",
    ] {
        assert!(outcomes.contains_key(what), "never seen in all of it: {what}");
    }
}
