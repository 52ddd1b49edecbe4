//! The faults: what each of them does to the world, and how it ends.

use crate::disk::{Damage, Severity};
use crate::random::{Ppm, Random};
use crate::sometimes::Sometimes;
use crate::swarm::{Fault, Plan, RATES};
use crate::violation::{Verdict, ensure};
use crate::world::{Event, World};
use kontiki_consensus::{Duration, NodeId, Role, Time};
use kontiki_node::Input;

impl World {
    /// A process that stood still goes on.
    pub(crate) fn resume(&mut self, node: usize) {
        let now = self.now();
        if self.frozen[node] || self.with(node, |p| p.paused_until > now) != Some(false) {
            return;
        }
        // What came meanwhile comes in at once, and clients may be heard before the other nodes.
        let clients_first = self.random.coin();
        self.with(node, |process| {
            process.turn_due = false;
            process.disk_wake = Time::MAX;
            if clients_first {
                process
                    .inbox
                    .sort_by_key(|input| !matches!(input, Input::Request(_)));
            }
        });
        self.checks.counters.hit(Sometimes::Paused);
        self.schedule_turn(node, now);
        self.pump_disk(node)
    }

    /// Lets the next fault of a plan come after a while.
    pub(crate) fn schedule_fault(&mut self, plan: usize) {
        let every = self.swarm.plans[plan].every;
        let at = self.now().after(self.random.around(every));
        self.queue.schedule(at, Event::Fault(plan));
    }

    /// A fault comes.
    pub(crate) fn fault(&mut self, number: usize) -> Verdict {
        if !self.stormy {
            return Ok(());
        }
        let plan = self.swarm.plans[number];
        let name = RATES
            .iter()
            .find(|r| r.fault == plan.fault)
            .map_or("fault", |r| r.name);
        self.count(name);
        self.trace.event(self.now(), 5, number as u64);
        self.strike(&plan);
        self.schedule_fault(number);
        Ok(())
    }

    fn strike(&mut self, plan: &Plan) {
        let node = self.victim();
        let lasts = Duration(self.random.between(plan.lasts.0.0, plan.lasts.1.0));
        self.log_line(|| format!("{:?} comes to n{} for {lasts:?}", plan.fault, node + 1));
        match plan.fault {
            Fault::Crash => self.crash(node, lasts),
            Fault::CrashAtOperation => self.crash_at_operation(node),
            Fault::CrashMany => self.crash_many(lasts),
            Fault::Partition => self.cut(lasts),
            Fault::Stall => self.stall(node, lasts),
            Fault::Pause => {
                let deaf = self.random.coin();
                let from = if deaf { self.now() } else { Time::MAX };
                self.pause(node, lasts, from);
            }
            Fault::Blink => self.blink(),
            Fault::Nap => self.tire(),
            Fault::DiskFull => {
                self.replicas[node].disk.set_full(true);
                self.queue.schedule(self.now().after(lasts), Event::Room(node));
            }
            Fault::DiskBroken if self.replicas[node].process.is_some() => {
                self.replicas[node].disk.break_writes()
            }
            Fault::DiskBroken => {}
            Fault::ClockJump => self.replicas[node].date_offset = self.random.below(7_200_000_000_000),
        }
    }

    /// Whom a fault hits: often the leader, for that is where most can go wrong.
    fn victim(&mut self) -> usize {
        let anyone = self.random.place(self.swarm.nodes);
        match self.leader() {
            Some(leader) if self.random.coin() => leader.0 as usize - 1,
            _ => anyone,
        }
    }

    // ---- crashes

    /// A node goes down, in one of the ways there are, and is started again after a while.
    fn crash(&mut self, node: usize, down: Duration) {
        self.queue.schedule(self.now().after(down), Event::Start { node });
        if self.replicas[node].process.is_none() && self.openings[node].is_none() {
            return;
        }
        self.take_down(node);
        if self.random.chance(Ppm::percent(25)) {
            self.checks.counters.hit(Sometimes::KilledOnly);
            let disk = &self.replicas[node].disk;
            disk.advance(self.queue.now());
            let damage = disk.kill();
            self.see_damage(node, damage);
        } else {
            self.lose_power(node);
        }
    }

    /// What was not synced is at the mercy of the disk.
    pub(crate) fn lose_power(&mut self, node: usize) {
        let severities = [
            Severity::LoseAll,
            Severity::LoseAll,
            Severity::KeepAll,
            Severity::Torn,
            Severity::Torn,
        ];
        let severity = *self.random.pick(&severities).unwrap_or(&Severity::Torn);
        let disk = &self.replicas[node].disk;
        disk.advance(self.queue.now());
        let damage = disk.crash(severity);
        self.see_damage(node, damage);
    }

    fn see_damage(&mut self, node: usize, damage: Damage) {
        self.log_line(|| format!("n{} has lost {damage:?}", node + 1));
        let counters = &mut self.checks.counters;
        counters.hit_if(damage.torn_write, Sometimes::TornWrite);
        counters.hit_if(damage.in_create, Sometimes::CrashInCreate);
        counters.hit_if(damage.lost_name, Sometimes::NameLost);
    }

    fn crash_at_operation(&mut self, node: usize) {
        let disk = &self.replicas[node].disk;
        if self.random.chance(Ppm::percent(25)) {
            let directories = ["log/", "log/", "snapshots/"];
            disk.kill_when_named(self.random.pick(&directories).copied().unwrap_or_default());
        } else {
            disk.fail_power_after(self.random.magnitude(1, 64) - 1);
        }
    }

    /// A node whose power has failed between two operations goes down, and is started again after a while. One that was
    /// killed when a name had changed loses its power later: right after it has begun the next segment, or at any time.
    pub(crate) fn check_power(&mut self, node: usize) {
        if self.replicas[node].disk.power_is_lost() {
            let killed = self.replicas[node].disk.is_killed();
            self.checks.counters.hit(Sometimes::CrashAtOperation);
            self.take_down(node);
            if killed {
                self.checks.counters.hit(Sometimes::KilledNaming);
                let damage = self.replicas[node].disk.kill();
                self.see_damage(node, damage);
                self.replicas[node].was_naming = true;
            } else {
                self.lose_power(node);
            }
            let down = Duration::from_millis(self.random.magnitude(10, 3_000));
            self.queue.schedule(self.now().after(down), Event::Start { node });
        }
    }

    /// A node goes on that was killed when a name had changed.
    pub(crate) fn endanger_names(&mut self, node: usize) {
        if self.replicas[node].was_naming && self.stormy && self.random.coin() {
            self.replicas[node].was_naming = false;
            let operations = self.random.magnitude(1, 4_000);
            self.replicas[node].disk.fail_power_after(operations);
        }
    }

    /// A node has begun a segment.
    pub(crate) fn endanger_segment(&mut self, node: usize) {
        if std::mem::take(&mut self.replicas[node].was_naming) && self.stormy {
            let operations = self.random.magnitude(1, 16) - 1;
            self.replicas[node].disk.fail_power_after(operations);
        }
    }

    /// A node with a durable machine has stopped applying because nobody can tell who is wrong: its power often fails soon.
    pub(crate) fn endanger_halted(&mut self, node: usize) {
        if self.replicas[node].is_durable() && self.stormy && self.random.chance(Ppm::percent(75)) {
            let operations = self.random.below(3);
            self.replicas[node].disk.fail_power_after(operations);
        }
    }

    /// A node that stopped itself must have had to: its disk failed. It is repaired and started again.
    pub(crate) fn check_stopped(&mut self, node: usize) -> Verdict {
        let replica = &self.replicas[node];
        let Some(process) = &replica.process else {
            return Ok(());
        };
        let (failed, said, stopped) = (process.disk_failed, process.log_failed, process.driver.stopped());
        ensure(
            failed == said && said == stopped.is_some(),
            "a node stops itself if and only if its disk fails",
            || {
                format!(
                    "{:?}: its disk failed: {failed}, its log says so: {said}, it stopped: {stopped:?}",
                    replica.node
                )
            },
        )?;
        if failed {
            self.checks.counters.hit(Sometimes::DiskFailed);
            self.take_down(node);
            self.lose_power(node);
            let down = Duration::from_millis(self.random.magnitude(20, 5_000));
            self.queue.schedule(self.now().after(down), Event::Start { node });
        }
        Ok(())
    }

    /// In some runs the power also fails while a log is being opened.
    pub(crate) fn endanger_recovery(&mut self, disk: &crate::disk::SimDisk) {
        let planned = self
            .swarm
            .plans
            .iter()
            .any(|p| p.fault == Fault::CrashAtOperation);
        if planned && self.stormy && self.random.chance(Ppm::percent(25)) {
            disk.fail_power_after(self.random.magnitude(1, 32) - 1);
        }
    }

    fn crash_many(&mut self, down: Duration) {
        let mut nodes: Vec<usize> = (0..self.swarm.nodes).collect();
        self.random.shuffle(&mut nodes);
        let least = self.swarm.nodes / 2 + 1;
        let many = self.random.between(least as u64, self.swarm.nodes as u64) as usize;
        for node in &nodes[..many] {
            let later = Duration(self.random.below(down.0));
            self.crash(*node, Duration(down.0 / 2 + later.0));
        }
    }

    // ---- disks and processes that stand still

    fn stall(&mut self, node: usize, lasts: Duration) {
        let until = self.now().after(lasts);
        let leads = self.replicas[node]
            .process
            .as_ref()
            .map(|p| p.driver.consensus().role())
            == Some(Role::Leader);
        let long = lasts > self.swarm.election_timeout();
        self.checks
            .counters
            .hit_if(leads && long, Sometimes::StalledLeader);
        self.replicas[node].disk.stall(until);
    }

    /// A process stands still. What arrives meanwhile waits for it, or is lost: then a client's question is
    /// the first it hears, whatever the others have decided since.
    pub(crate) fn pause(&mut self, node: usize, lasts: Duration, deaf_from: Time) {
        let until = self.now().after(lasts);
        let (id, life) = (self.replicas[node].node, self.replicas[node].life);
        let Some(process) = self.replicas[node].process.as_mut() else {
            return;
        };
        process.deaf_from = deaf_from;
        process.paused_until = process.paused_until.max(until);
        self.clients.delay(id, until.after(Duration::from_millis(2_000)));
        self.queue.schedule(until, Event::Resume { node, life });
    }

    /// A leader is about to stand still: once it has said again that it leads, and before the others have answered.
    fn tire(&mut self) {
        let Some(leader) = self.leader() else { return };
        let leader = leader.0 as usize - 1;
        let soon = self.with(leader, |process| process.wake).unwrap_or(Time::MAX);
        let within = 2 * self.swarm.turn.0 + self.swarm.network.delay.0;
        if soon < self.now().after(self.swarm.sizes.heartbeat_interval) {
            let at = soon.max(self.now()).after(Duration(self.random.below(within)));
            self.queue.schedule(at, Event::Nap(leader));
        }
    }

    /// A leader stands still while the others elect another, and goes on before it must doubt that it leads. Mostly it then
    /// finds what was answered to what it sent last, and nothing of what came later.
    pub(crate) fn nap(&mut self, leader: usize) {
        if !self.stormy {
            return;
        }
        let sizes = self.swarm.sizes;
        let shortest = sizes.election_timeout_min.0;
        let longest = if self.random.coin() { 14 } else { 24 };
        let lasts = Duration(self.random.between(shortest / 10 * 7, shortest / 10 * longest));
        let deaf = self.random.chance(Ppm::percent(75));
        let heard = self.now().after(sizes.heartbeat_interval);
        self.pause(leader, lasts, if deaf { heard } else { Time::MAX });
    }

    /// A leader and another node lose each other, and when that node wants to be elected the others have just forgotten
    /// whom they heard.
    fn blink(&mut self) {
        let Some(leader) = self.leader() else { return };
        let leader = leader.0 as usize - 1;
        let other = (leader + 1 + self.random.place(self.swarm.nodes.max(2) - 1)) % self.swarm.nodes;
        if other == leader {
            return;
        }
        self.network.mend();
        self.partition += 1;
        self.network.set_cut(leader, other, true);
        self.network.set_cut(other, leader, true);
        let sizes = self.swarm.sizes;
        let (least, most) = (sizes.election_timeout_min.0, sizes.election_timeout_max.0);
        let wait = Duration(self.random.between(least, 2 * most));
        self.queue
            .schedule(self.now().after(wait), Event::Blink(leader, other));
        self.queue.schedule(
            self.now().after(Duration(wait.0 + 2 * most)),
            Event::Mend(self.partition),
        );
    }

    /// The others go down, and are back in no time. The leader hears of nothing any more until the partition ends.
    pub(crate) fn blink_others(&mut self, leader: usize, other: usize) {
        for node in (0..self.swarm.nodes).filter(|n| *n != leader && *n != other) {
            if self.stormy {
                self.network.set_cut(leader, node, true);
                self.network.set_cut(node, leader, true);
                let down = Duration(self.random.between(100_000, 20_000_000));
                self.crash(node, down);
            }
        }
    }

    // ---- partitions

    /// Cuts links; those of an earlier partition are mended first.
    fn cut(&mut self, lasts: Duration) {
        self.network.mend();
        self.partition += 1;
        let leader = self.leader();
        for (from, to) in draw_cut(&mut self.random, self.swarm.nodes, leader) {
            self.network.set_cut(from, to, true);
        }
        let nodes = 0..self.swarm.nodes;
        let mut pairs = nodes.clone().flat_map(|a| nodes.clone().map(move |b| (a, b)));
        let one_way = pairs.any(|(a, b)| self.network.is_cut(a, b) && !self.network.is_cut(b, a));
        self.checks.counters.hit_if(one_way, Sometimes::OneWayCut);
        self.log_line(|| format!("partition {}: {:?}", self.partition, self.network));
        self.queue
            .schedule(self.now().after(lasts), Event::Mend(self.partition));
    }

    /// A partition ends, unless another has taken its place.
    pub(crate) fn mend(&mut self, partition: u64) {
        if partition == self.partition && self.stormy {
            self.network.mend();
            self.log_line(|| format!("partition {partition} is mended"));
        }
    }

    // ---- the end of the storm

    /// Nothing new goes wrong. `core` is made whole; the others stay as they are, out of reach.
    pub(crate) fn calm(&mut self, core: &[usize]) {
        self.stormy = false;
        self.network.mend();
        self.network.set_profile(crate::network::NetworkProfile::HEALTHY);
        for node in 0..self.swarm.nodes {
            if core.contains(&node) {
                self.revive(node);
            } else {
                self.freeze(node);
            }
        }
    }

    fn freeze(&mut self, node: usize) {
        self.frozen[node] = true;
        let id = self.replicas[node].node;
        self.clients.stands_still(id);
        self.lose_inbox(node, "deaf");
        if let Some(process) = self.replicas[node].process.as_mut() {
            process.paused_until = Time::MAX;
            process.deaf_from = Time::ZERO;
        }
        for other in 0..self.swarm.nodes {
            self.network.set_cut(node, other, true);
            self.network.set_cut(other, node, true);
        }
    }

    /// Ends everything that keeps a node from working.
    pub(crate) fn revive(&mut self, node: usize) {
        let now = self.now();
        self.frozen[node] = false;
        let replica = &mut self.replicas[node];
        replica.disk.heal();
        replica.disk.keep_power();
        let (id, life) = (replica.node, replica.life);
        if let Some(process) = replica.process.as_mut() {
            process.paused_until = process.paused_until.min(now);
            process.disk_wake = Time::MAX;
            self.queue.schedule(now, Event::Resume { node, life });
        }
        self.hurry(node);
        self.clients.goes_on(id, now.after(Duration::from_millis(2_000)));
        self.queue.schedule(now, Event::Start { node });
    }
}

/// The links of a partition: halves, one node alone, a bridge between two halves, a ring, or one direction only.
fn draw_cut(random: &mut Random, nodes: usize, leader: Option<NodeId>) -> Vec<(usize, usize)> {
    let all = || {
        (0..nodes)
            .flat_map(move |a| (0..nodes).map(move |b| (a, b)))
            .filter(|(a, b)| a != b)
    };
    let sides: Vec<bool> = (0..nodes).map(|_| random.coin()).collect();
    let leader = leader.map(|l| l.0 as usize - 1);
    let one = if random.coin() { leader } else { None }.unwrap_or_else(|| random.place(nodes));
    match random.below(7) {
        0 => all().filter(|(a, b)| sides[*a] != sides[*b]).collect(),
        1 => all().filter(|(a, b)| *a == one || *b == one).collect(),
        2 => all().filter(|(a, _)| *a == one).collect(),
        3 => all().filter(|(_, b)| *b == one).collect(),
        4 => all()
            .filter(|(a, b)| *a != one && *b != one && sides[*a] != sides[*b])
            .collect(),
        5 => all()
            .filter(|(a, b)| (a + 1) % nodes != *b && (b + 1) % nodes != *a)
            .collect(),
        _ => all().filter(|_| random.chance(Ppm::percent(40))).collect(),
    }
}
