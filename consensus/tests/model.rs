//! Random runs: messages are lost, repeated and overtaken, servers crash, disks are slow; after every
//! step the properties of Figure 3 must hold, and once all is well again the servers must agree.
//!
//! A failing run names its seed: `MODEL_SEED=<seed> cargo test --test model` repeats it alone.

mod common;

use common::{Cluster, SetBack};
use kontiki_consensus::{Duration, Event, NodeId, Role, SuspectMark, Time};

/// By how much one clock may run faster than another, where leases are on: much, so that it matters.
const DRIFT_PPM: u32 = 500_000;

/// Chance that follows from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// The odds of one run: many runs go without a given fault, some have a lot of it.
struct Odds {
    lose: usize,
    repeat: usize,
    overtake: usize,
    crash: usize,
    cut: usize,
    stall: usize,
    compact: bool,
    break_off: usize,
    set_back: usize,
    /// How often a disk that is set back looks sound when it is opened.
    unnoticed: usize,
}

impl Odds {
    fn draw(dice: &mut Dice) -> Self {
        let mut some = |most: usize| if dice.percent(50) { dice.below(most) } else { 0 };
        Self {
            lose: some(40),
            repeat: some(40),
            overtake: some(100),
            crash: some(40),
            cut: some(40),
            stall: some(100),
            compact: some(100) + some(100) > 0,
            break_off: some(90),
            set_back: 0,
            unnoticed: 0,
        }
    }
}

/// What was seen in all runs together, so that none of it stays untried.
#[derive(Default, Debug)]
struct Seen {
    elections: usize,
    crashes: usize,
    commits: u64,
    reads: usize,
    truncations: usize,
    fetches: usize,
    lease_reads: usize,
    purges: usize,
    installs: usize,
    transfers: usize,
    broken_off: usize,
    needless: usize,
    gone: usize,
    set_back: usize,
    marks: usize,
    returns: usize,
    excused: usize,
}

struct Run {
    cluster: Cluster,
    dice: Dice,
    odds: Odds,
    /// A server that forgets nothing.
    keeper: Option<NodeId>,
    crashes: usize,
    gone: usize,
    set_back: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let odds = Odds::draw(&mut dice);
        let voters = if dice.percent(70) { 3 } else { 5 };
        let learners = u64::from(dice.percent(20));
        let (small, little) = (dice.percent(50), dice.percent(50));
        let leases = dice.percent(50);
        let commit_delay = Duration::from_millis([0, 5, 40][dice.below(3)]);
        let mut cluster = Cluster::new(voters, learners, seed, |config| {
            if small {
                (config.window_bytes_max, config.message_bytes_max) = (64, 24);
            }
            if little {
                config.tail_bytes_max = 32;
            }
            config.commit_delay = commit_delay;
            config.lease_drift_ppm = leases.then_some(DRIFT_PPM);
        });
        for server in cluster.servers.values_mut() {
            server.slow = true;
            server.fast_ppm = dice.below(3) as u64 * u64::from(DRIFT_PPM) / 2;
        }
        let keeper = dice.percent(50).then_some(NodeId(voters));
        Self {
            cluster,
            dice,
            odds,
            keeper,
            crashes: 0,
            gone: 0,
            set_back: 0,
        }
    }

    fn any_server(&mut self) -> NodeId {
        NodeId(self.dice.below(self.cluster.servers.len()) as u64 + 1)
    }

    /// One thing happens.
    fn act(&mut self) {
        let node = self.any_server();
        if self.odds.set_back > 0 && self.dice.percent(self.odds.set_back) {
            return self.remember_or_set_back(node);
        }
        match self.dice.below(if self.odds.compact { 130 } else { 100 }) {
            100..108 => self.cluster.take_snapshot(node),
            108..120 if self.keeper != Some(node) => self.purge(node),
            108..123 => self.transfer(),
            123..127 => self.tidy(node),
            127.. => self.stray(node),
            0..50 => self.deliver(),
            50..72 => self.persist(node),
            72..80 => self.propose(),
            80..88 => self.timer(),
            88..90 if self.dice.percent(self.odds.cut) => self.toggle_link(node),
            88..92 => drop(self.cluster.is_up(node).then(|| self.cluster.read(node))),
            92..94 if self.dice.percent(30) => self
                .cluster
                .happen(node, Event::DiskFull(self.crashes.is_multiple_of(2))),
            94..98 if self.dice.percent(self.odds.crash) => self.crash(node),
            _ if !self.cluster.is_up(node) => self.cluster.restart(node, self.crashes.is_multiple_of(2)),
            _ if self.dice.percent(50) => {
                let gone = self.any_server();
                self.cluster.happen(node, Event::PeerGone(gone));
            }
            _ => self.cluster.happen(node, Event::SendDropped(NodeId(1))),
        }
    }

    /// A disk is remembered, or becomes what was remembered of it: as long as those that were never set back, or have
    /// returned, are a majority.
    fn remember_or_set_back(&mut self, node: NodeId) {
        let past = self.cluster.servers[&node].past.len();
        if past == 0 || self.dice.percent(60) {
            return self.cluster.remember(node);
        }
        let voters = self.cluster.checker.voters();
        let doubtful = |n: &NodeId| {
            let disk = &self.cluster.servers[n].disk;
            disk.hard_state.suspect != SuspectMark::ZERO || self.cluster.checker.is_unnoticed(*n)
        };
        let others = voters.iter().filter(|n| **n != node && doubtful(n)).count();
        if voters.contains(&node) && others + 1 > (voters.len() - 1) / 2 {
            return;
        }
        let (mark, kinds) = if self.dice.percent(self.odds.unnoticed) {
            // Lost votes alone are never noticed.
            (SuspectMark::ZERO, 2)
        } else {
            (SuspectMark(self.dice.below(usize::MAX) as u64 + 1), 3)
        };
        let what = [SetBack::Records, SetBack::Both, SetBack::Votes][self.dice.below(kinds)];
        let past = self.dice.below(past);
        self.set_back += 1;
        self.cluster.set_back(node, past, what, mark);
    }

    fn deliver(&mut self) {
        if self.cluster.bag.is_empty() {
            return;
        }
        let place = if self.dice.percent(self.odds.overtake) {
            self.dice.below(self.cluster.bag.len())
        } else {
            0
        };
        let (name, message) = self.cluster.bag.remove(place);
        if self.dice.percent(self.odds.repeat) {
            self.cluster.bag.push((name, message.clone()));
        }
        if self.dice.percent(self.odds.lose) {
            return;
        }
        // Sometimes several events come in before one flush.
        if self.dice.percent(30) {
            self.cluster.step(message.to, Event::Message(message));
        } else {
            self.cluster.arrive(name, message);
        }
    }

    /// The oldest message between the others, or rarely one for the server that is apart.
    fn deliver_apart_from(&mut self, apart: Option<NodeId>) {
        let late = self.dice.percent(4);
        let mut bag = self.cluster.bag.iter();
        let chosen = bag.position(|(_, m)| match apart {
            Some(node) if late => m.to == node,
            Some(node) => m.to != node && m.from != node,
            None => true,
        });
        if let Some(place) = chosen {
            let (name, message) = self.cluster.bag.remove(place);
            self.cluster.arrive(name, message);
        }
    }

    fn persist(&mut self, node: NodeId) {
        if !self.dice.percent(self.odds.stall) || self.dice.percent(20) {
            self.cluster.persist(node);
        }
    }

    /// Whoever takes itself for a leader gets a proposal, a deposed one too.
    fn propose(&mut self) {
        let records = self.dice.below(4) as u64 + 1;
        for node in self.cluster.living() {
            self.cluster.flush(node);
            self.cluster.propose(node, records, 8);
        }
    }

    /// Forgets some of what its snapshot covers.
    fn purge(&mut self, node: NodeId) {
        let Some(life) = &self.cluster.servers[&node].life else {
            return;
        };
        let (base, covered) = (life.base().index.0, life.snapshot().index.0);
        if base < covered {
            let through = if self.dice.percent(70) {
                covered
            } else {
                base + 1 + self.dice.below((covered - base) as usize) as u64
            };
            self.cluster.purge(node, through);
        }
    }

    /// A transfer comes to its end: whole, broken off, or whole and followed by a crash. Or its source dies.
    fn transfer(&mut self) {
        let servers = self.cluster.servers.values();
        let fetching: Vec<NodeId> = servers
            .filter(|s| s.fetching.is_some())
            .map(|s| s.config.node)
            .collect();
        let Some(node) = fetching.get(self.dice.below(fetching.len())).copied() else {
            return;
        };
        let source = self.cluster.servers[&node].fetching.map(|(from, _)| from);
        if let Some(source) = source.filter(|_| self.dice.percent(self.odds.crash)) {
            self.crash(source);
        } else if self.dice.percent(self.odds.break_off) {
            self.cluster.break_transfer(node);
        } else if self.dice.percent(self.odds.crash / 4) {
            self.cluster.stage(node);
            self.crash(node);
        } else {
            self.cluster.transfer(node);
        }
    }

    /// A transfer that was given up long ago arrives all the same.
    fn stray(&mut self, node: NodeId) {
        let source = self.any_server();
        let snapshots = &self.cluster.servers[&source].disk.snapshots;
        let place = self.dice.below(snapshots.len());
        if let Some(snapshot) = snapshots.values().nth(place).cloned() {
            self.cluster.receive(node, &snapshot);
        }
    }

    /// Removes an old snapshot; rarely one that a follower is told of.
    fn tidy(&mut self, node: NodeId) {
        let server = &self.cluster.servers[&node];
        let (Some(life), Some(newest)) = (&server.life, server.disk.newest()) else {
            return;
        };
        let oldest = server.disk.snapshots.keys().next().copied().unwrap_or_default();
        let served = life.snapshot_peers().any(|(_, last)| last.index == oldest);
        if oldest < newest.base.last.index && (!served || self.dice.percent(50)) {
            self.gone += usize::from(served);
            self.cluster.remove_snapshot(node, oldest.0);
        }
    }

    fn toggle_link(&mut self, node: NodeId) {
        let server = self.cluster.server(node);
        server.cut = !server.cut;
    }

    /// Time goes on to some timer, mostly the next one.
    fn timer(&mut self) {
        let due = self.due();
        let place = if self.dice.percent(80) {
            0
        } else {
            self.dice.below(due.len())
        };
        if let Some((_, node)) = due.get(place) {
            self.cluster.timeout(*node);
        }
    }

    /// Who waits for what time, the next one first.
    fn due(&self) -> Vec<(Time, NodeId)> {
        let nodes = self.cluster.servers.keys();
        let mut due: Vec<_> = nodes.filter_map(|n| Some((self.cluster.due(*n)?, *n))).collect();
        due.sort_unstable();
        due
    }

    /// Some of what the disk had still to do may be done all the same.
    fn crash(&mut self, node: NodeId) {
        self.crashes += 1;
        let under_way = self.cluster.servers[&node].writes.len();
        for _ in 0..self.dice.below(under_way + 1) {
            self.cluster.finish_write(node);
        }
        self.cluster.crash(node);
    }

    /// All is well: disks are quick, messages arrive, everyone is up. Then all must agree soon.
    fn heal(&mut self) {
        let nodes: Vec<NodeId> = self.cluster.servers.keys().copied().collect();
        for node in nodes {
            let server = self.cluster.server(node);
            (server.slow, server.cut) = (false, false);
            if !self.cluster.is_up(node) {
                self.cluster.restart(node, true);
            }
            while !self.cluster.servers[&node].writes.is_empty() {
                self.cluster.persist(node);
            }
            self.cluster.happen(node, Event::DiskFull(false));
        }
        let end = self.cluster.now.after(Duration::from_millis(10_000));
        self.cluster.settle();
        let mut proposed = false;
        while self.cluster.now < end {
            if self.cluster.checker.excused {
                return;
            }
            self.next_timer();
            self.cluster.settle();
            for node in self.cluster.living() {
                self.cluster.transfer(node);
            }
            self.cluster.settle();
            let leader = self.cluster.leader();
            proposed = proposed || leader.is_some_and(|l| self.cluster.propose(l, 1, 8));
            self.cluster.settle();
            if proposed && self.cluster.agreement().is_some() && self.all_have_returned() {
                return;
            }
        }
        panic!("the servers do not agree ten seconds after all is well");
    }

    fn all_have_returned(&self) -> bool {
        let mut lives = self.cluster.servers.values().filter_map(|s| s.life.as_ref());
        lives.all(|life| !life.is_suspect() && life.suspects().count() == 0)
    }

    fn next_timer(&mut self) {
        if let Some((_, node)) = self.due().first() {
            self.cluster.timeout(*node);
        }
    }

    fn play(&mut self, steps: usize, seen: &mut Seen) {
        // Some go with a server that is away again and again, and misses what the others forget meanwhile.
        let absent = self.odds.compact.then(|| self.any_server());
        for step in 0..steps {
            if let Some(node) = absent.filter(|_| step % (steps / 8) == 0) {
                self.cluster.server(node).cut = step / (steps / 8) % 3 != 2;
            }
            self.act();
            if self.cluster.checker.excused {
                break;
            }
            // Whoever believes in its lease answers, all the time.
            for node in self.cluster.living() {
                self.cluster.lease_read(node);
            }
        }
        if !self.cluster.checker.excused {
            self.heal();
        }
        seen.elections += self.cluster.checker.elections;
        seen.reads += self.cluster.checker.reads_answered;
        seen.commits += self.cluster.checker.committed().0;
        seen.crashes += self.crashes;
        let told = |what: &str| self.cluster.trace.iter().filter(|l| l.contains(what)).count();
        seen.truncations += told("cut from");
        seen.fetches += told("from disk for");
        seen.lease_reads += self.cluster.checker.lease_reads;
        seen.purges += told("forget up to");
        seen.installs += self.cluster.checker.installs;
        seen.transfers += told("fetches the snapshot");
        seen.broken_off += told("has lost the transfer");
        seen.needless += told("needs no snapshot");
        seen.gone += self.gone;
        seen.set_back += self.set_back;
        seen.marks += self.cluster.checker.marks;
        seen.returns += self.cluster.checker.returns;
        seen.excused += usize::from(self.cluster.checker.excused);
    }
}

/// Lets a run go, and says how it went if it fails.
fn go<T>(seed: u64, run: &mut Run, act: impl FnOnce(&mut Run) -> T) -> T {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(run)));
    outcome.unwrap_or_else(|cause| {
        eprintln!(
            "MODEL_SEED={seed} fails; its last steps:\n{}",
            run.cluster.story()
        );
        std::panic::resume_unwind(cause);
    })
}

fn play(seed: u64, seen: &mut Seen) {
    go(seed, &mut Run::new(seed), |run| run.play(800, seen));
}

/// The seeds to be played: one that is named, or so many.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse().ok());
    match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_RUNS").unwrap_or(usual),
    }
}

#[test]
fn figure_3_holds_whatever_happens_and_agreement_follows() {
    let mut seen = Seen::default();
    let seeds = seeds(1_000);
    seeds.clone().for_each(|seed| play(seed, &mut seen));
    println!("{seeds:?}: {seen:?}");
    assert_eq!(seen.marks, 0, "nobody lost anything, and yet one marked itself");
    let rare = [
        seen.elections,
        seen.crashes,
        seen.reads,
        seen.truncations,
        seen.fetches,
        seen.commits as usize,
        seen.lease_reads,
        seen.purges,
        seen.installs,
        seen.transfers,
        seen.broken_off,
        seen.needless,
        seen.gone,
    ];
    // The rarest, transfers that are lost, are seen some forty times in a thousand runs, by chance more or less.
    assert!(
        seeds.end - seeds.start == 1 || rare.iter().all(|n| *n >= 20),
        "some path was hardly taken: {seen:?}"
    );
}

/// Disks are set back: records, votes, or both; noticed at once, or only by what a leader says.
fn play_set_back(seed: u64, unnoticed: usize, seen: &mut Seen) {
    let mut run = Run::new(seed);
    (run.odds.set_back, run.odds.unnoticed) = (3, unnoticed);
    go(seed, &mut run, |run| run.play(800, seen));
}

#[test]
fn nothing_is_lost_with_a_disk_that_is_set_back_and_its_server_returns() {
    let (mut seen, mut seen_late) = (Seen::default(), Seen::default());
    let seeds = seeds(1_000);
    for seed in seeds.clone() {
        play_set_back(seed, 0, &mut seen);
        play_set_back(seed, 100, &mut seen_late);
    }
    println!("{seeds:?}: noticed {seen:?}, unnoticed {seen_late:?}");
    assert_eq!(seen.excused, 0, "what is noticed at once needs no excuse");
    let rare = [seen.set_back, seen.returns, seen_late.marks, seen_late.returns];
    assert!(
        seeds.end - seeds.start == 1 || rare.iter().all(|n| *n >= 20),
        "some path was hardly taken: {seen:?} {seen_late:?}"
    );
}

/// Leaders are deposed without hearing of it: what is under way from and to one server lingers, while the
/// others go on.
fn depose_unheard(run: &mut Run) -> usize {
    for server in run.cluster.servers.values_mut() {
        server.slow = false;
        server.config.lease_drift_ppm = Some(DRIFT_PPM);
    }
    let nodes: Vec<NodeId> = run.cluster.servers.keys().copied().collect();
    nodes.into_iter().for_each(|n| run.cluster.restart(n, true));
    let mut apart = None;
    for _ in 0..300 {
        match run.dice.below(100) {
            0 => apart = Some(run.any_server()),
            1..3 => apart = run.cluster.leader().filter(|_| run.dice.percent(80)),
            3..5 => {
                let node = run.any_server();
                run.cluster.restart(node, true);
            }
            5..80 => run.deliver_apart_from(apart),
            _ => run.next_timer(),
        }
        for node in run.cluster.living() {
            run.cluster.lease_read(node);
        }
    }
    run.cluster.checker.lease_reads
}

#[test]
fn no_lease_answers_from_the_past() {
    let seeds = seeds(1_000);
    let answers: usize = seeds
        .clone()
        .map(|seed| go(seed, &mut Run::new(seed), depose_unheard))
        .sum();
    assert!(
        seeds.end - seeds.start == 1 || answers >= 10_000,
        "leases hardly ran: {answers}"
    );
}

#[test]
fn a_healthy_cluster_keeps_its_leader() {
    let mut cluster = Cluster::new(5, 0, 1, |_| {});
    cluster.elect(1);
    let term = cluster.at(1).term();
    for _ in 0..200 {
        cluster.timeout(NodeId(1));
        cluster.settle();
    }
    assert_eq!((cluster.role(1), cluster.at(1).term()), (Role::Leader, term));
}
