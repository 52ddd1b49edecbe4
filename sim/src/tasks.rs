//! The machines: what a node gives its machine to do, and when that is done.
//!
//! Each works off its tasks one after the other, as a thread of its own would; a process that stands still does
//! nothing. Invariant: what a machine does goes through the shipped applier, and after each task its state is compared.

use crate::checkers::backlog;
use crate::checkers::replicas::QUARANTINE;
use crate::checkers::snapshots;
use crate::ports::Work;
use crate::random::Ppm;
use crate::replica::Process;
use crate::sometimes::Sometimes;
use crate::swarm::MachineKind;
use crate::violation::{Verdict, ensure};
use crate::world::{Event, World};
use kontiki_consensus::{Duration, Position, Role, Time};
use kontiki_node::machine::{Asked, Done, Source, Task, enqueue};
use kontiki_node::{Input, Reply};

/// How much longer than anything else taking over a snapshot takes, at most, when all is well.
const RESTORE: Duration = Duration::from_millis(1_000);

impl World {
    /// What a machine has to do does not take long any more.
    pub(crate) fn hurry(&mut self, node: usize) {
        let (now, life) = (self.now(), self.replicas[node].life);
        self.with(node, |process| {
            process.tasks.iter_mut().for_each(|(due, _)| *due = now.min(*due));
            process
                .sources
                .iter_mut()
                .for_each(|(due, _)| *due = now.min(*due));
        });
        self.queue.schedule(now, Event::Machine { node, life });
    }

    /// A node gives its machine something to do.
    pub(crate) fn give_tasks(&mut self, node: usize, tasks: Vec<Work>) {
        for task in tasks {
            let mut takes = self.random.around(self.swarm.sizes.task);
            if matches!(task, Work::Restore(_)) {
                let longest = if self.stormy {
                    self.swarm.sizes.restore
                } else {
                    RESTORE
                };
                takes = Duration(takes.0 + self.random.below(longest.0));
            }
            let due = self.now().after(takes);
            let life = self.replicas[node].life;
            let Some(process) = self.replicas[node].process.as_mut() else {
                continue;
            };
            let before = process.tasks.back().is_some_and(|(_, last)| last.is_query());
            enqueue(&mut process.tasks, (due, task), |(_, task)| task.is_query());
            let after = process.tasks.back().is_some_and(|(_, last)| last.is_query());
            self.checks
                .counters
                .hit_if(before && after, Sometimes::QueriesOvertaken);
            self.queue.schedule(due, Event::Machine { node, life });
            // One after the other: whatever stands behind another is done no sooner.
            let mut earliest = Time::ZERO;
            for (due, _) in &mut process.tasks {
                if *due < earliest {
                    *due = earliest;
                    self.queue.schedule(*due, Event::Machine { node, life });
                }
                earliest = *due;
            }
        }
    }

    /// Nobody waits for the answers to these queries any more.
    pub(crate) fn withdraw_queries(&mut self, node: usize, queries: Vec<u64>) {
        if queries.is_empty() {
            return;
        }
        let withdrawn = self.with(node, |process| {
            let before = process.tasks.len() + process.asked.len();
            let tasks = &mut process.tasks;
            tasks.retain(
                |(_, work)| !matches!(work, Work::Task(Task::Query { token, .. }) if queries.contains(token)),
            );
            process
                .asked
                .retain(|(_, asked)| !queries.contains(&asked.token()));
            before > process.tasks.len() + process.asked.len()
        });
        self.checks
            .counters
            .hit_if(withdrawn == Some(true), Sometimes::QueryWithdrawn);
    }

    /// Does what is due beside the turns of a node.
    pub(crate) fn work_aside(&mut self, node: usize) -> Verdict {
        self.work_on_sources(node);
        self.work_on_asked(node);
        self.work_on_tasks(node)
    }

    /// A node has pieces of its machine's state read.
    pub(crate) fn give_sources(&mut self, node: usize, sources: Vec<Source>) {
        for source in sources {
            let mut takes = self.random.around(self.swarm.sizes.task);
            if self.stormy && self.random.chance(Ppm::percent(5)) {
                takes = Duration(takes.0 + self.random.below(self.swarm.sizes.restore.0));
            }
            let due = self.now().after(takes);
            let life = self.replicas[node].life;
            self.with(node, |process| {
                // Each is read by itself: one that takes long holds up no other.
                let place = process.sources.partition_point(|(other, _)| *other <= due);
                process.sources.insert(place, (due, source));
            });
            self.queue.schedule(due, Event::Machine { node, life });
        }
    }

    /// A node has queries answered beside its machine.
    pub(crate) fn give_asked(&mut self, node: usize, asked: Vec<Asked>) {
        for asked in asked {
            let due = self.now().after(self.random.around(self.swarm.sizes.task));
            let life = self.replicas[node].life;
            self.with(node, |process| process.asked.push_back((due, asked)));
            self.queue.schedule(due, Event::Machine { node, life });
        }
    }

    /// Answers all queries that are due.
    fn work_on_asked(&mut self, node: usize) {
        let now = self.now();
        while let Some(process) = self.replicas[node]
            .process
            .as_mut()
            .filter(|p| p.paused_until <= now)
            && let Some((_, asked)) = process.asked.pop_front_if(|(due, _)| *due <= now)
        {
            let done = asked.answer();
            self.trace
                .line(now, || format!("n{} has answered aside: {done:?}", node + 1));
            process.inbox.push(Input::Machine(done));
            self.checks.counters.hit(Sometimes::QueryAside);
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
    }

    /// Reads all pieces of states that are due.
    fn work_on_sources(&mut self, node: usize) {
        let now = self.now();
        while let Some(process) = self.replicas[node]
            .process
            .as_mut()
            .filter(|p| p.paused_until <= now)
            && let Some((_, mut source)) = process.sources.pop_front_if(|(due, _)| *due <= now)
        {
            let piece = source.read();
            self.trace
                .line(now, || format!("n{} has read {piece:?}", node + 1));
            process.inbox.push(Input::State { source, piece });
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
    }

    /// Does all tasks of a machine that are due.
    fn work_on_tasks(&mut self, node: usize) -> Verdict {
        let now = self.now();
        let id = self.replicas[node].node;
        while let Some(process) = self.replicas[node]
            .process
            .as_mut()
            .filter(|p| p.paused_until <= now)
            && let Some(applier) = process.applier.as_mut()
            && let Some((_, task)) = process.tasks.pop_front_if(|(due, _)| *due <= now)
        {
            let waits = process.tasks.iter().any(|(_, task)| !task.is_query());
            let in_row = if task.is_query() && waits {
                process.reading.in_row + 1
            } else {
                0
            };
            process.reading.in_row = in_row;
            backlog::ahead(id, in_row)?;
            let task = match task {
                Work::Task(task) => task,
                Work::Restore(restore) => {
                    let state = process.log.snapshot_state(&restore.file);
                    Task::Restore(restore, state)
                }
            };
            let done = applier.run(task);
            self.trace.line(now, || format!("{id:?} has done {done:?}"));
            let digest = applier.digest();
            let at = match &done {
                Done::Applied { runs, .. } => runs.last().map(|run| run.last()),
                Done::Restored(restore) => {
                    let start = std::mem::take(&mut process.restores_at_start);
                    let counters = &mut self.checks.counters;
                    counters.hit_if(start, Sometimes::MachineRestoredAtStart);
                    counters.hit_if(!start, Sometimes::MachineRestored);
                    Some(restore.last().index)
                }
                _ => None,
            };
            let sound = !self.replicas[node].health.is_wrong();
            if let (Some(at), Some(digest), true) = (at, digest, sound) {
                self.checks.machine_at(id, at, digest)?;
            }
            self.with(node, |process| process.inbox.push(Input::Machine(done)));
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
        Ok(())
    }

    /// After a turn: compares what the node knows with what others knew at the same record, and sees what is rare.
    pub(crate) fn compare(&mut self, node: usize) -> Verdict {
        let (any, many) = self.wrong_machines();
        let replica = &mut self.replicas[node];
        let wrong = replica.health.is_wrong();
        let Some(process) = replica.process.as_mut() else {
            return Ok(());
        };
        let halts = process.driver.counts().halted > process.counts.halted;
        let (first, last) = (process.driver.first(), process.driver.consensus().last_position());
        let counts = process.driver.counts();
        let before = std::mem::replace(&mut process.counts, counts);
        let counters = &mut self.checks.counters;
        counters.hit_if(counts.answered > before.answered, Sometimes::RetryAnswered);
        counters.hit_if(counts.joined > before.joined, Sometimes::RetryJoined);
        counters.hit_if(counts.expired > before.expired, Sometimes::SessionEnded);
        if counts.evicted > before.evicted {
            self.checks.ages.evicted();
        }
        counters.hit_if(counts.leased > before.leased, Sometimes::LeaseRead);
        counters.hit_if(counts.recent > before.recent, Sometimes::RecentRead);
        counters.hit_if(counts.awaited > before.awaited, Sometimes::ReadAwaited);
        counters.hit_if(std::mem::take(&mut process.noted), Sometimes::NoteTaken);
        counters.hit_if(counts.taken > before.taken, Sometimes::MachineSnapshotTaken);
        counters.hit_if(counts.abandoned > before.abandoned, Sometimes::SourceAbandoned);
        counters.hit_if(counts.quarantined > before.quarantined, Sometimes::Quarantined);
        counters.hit_if(counts.halted > before.halted, Sometimes::Disputed);
        counters.hit_if(counts.resynced > before.resynced, Sometimes::Resynced);
        // It may hear of what it has become when another state has taken the place of that.
        let over = replica.health.was_wrong() && process.driver.quarantined().is_none();
        let alarm = counts.quarantined > before.quarantined && !(wrong || many || over);
        let noise = (counts.halted, counts.differing) != (before.halted, before.differing) && !any;
        ensure(!alarm && !noise, QUARANTINE, || {
            format!(
                "{:?}, whose machine is right: {:?}",
                replica.node,
                process.driver.quarantined()
            )
        })?;
        let consensus = process.driver.consensus();
        if !consensus.is_installing() && process.driver.stopped().is_none() {
            snapshots::holds_from(replica.node, process.driver.first(), consensus.base_position())?;
        }
        let meta = process.driver.meta();
        if meta.at().index > process.compared && !wrong {
            process.compared = meta.at().index;
            self.checks.knows(replica.node, meta)?;
        }
        if halts {
            self.endanger_halted(node);
        }
        self.compare_ages(first, last)
    }

    /// After a turn: looks whether anything was forgotten before it was old enough.
    fn compare_ages(&mut self, first: Position, last: Position) -> Verdict {
        let leads = |process: &Process| process.driver.consensus().role() == Role::Leader;
        let leads = self.replicas.iter().filter_map(|r| r.process.as_ref()).any(leads);
        let fastest = self.swarm.clock_drift.iter().copied().max().unwrap_or(0);
        let (now, ages) = (self.now(), &mut self.checks.ages);
        ages.turned(now, leads, fastest);
        ages.ends(last);
        match self.swarm.sizes.retain_age {
            Some(age) if self.swarm.machine == MachineKind::None => {
                let counters = &mut self.checks.counters;
                counters.hit_if(first > Position(1), Sometimes::ForgottenByAge);
                self.checks.ages.begins(first, age)
            }
            _ => Ok(()),
        }
    }

    /// A node that was and is quarantined tells no client anything that its machine or its log says.
    pub(crate) fn check_silent(&self, node: usize) -> Verdict {
        let process = self.replicas[node].process.as_ref();
        if process.is_none_or(|p| p.driver.quarantined().is_none()) {
            return Ok(());
        }
        let says = |reply: &Reply| match reply {
            Reply::Answered { .. } | Reply::Read { .. } => true,
            Reply::Appended { outputs, .. } => outputs.is_some(),
            _ => false,
        };
        let said = self.outgoing.replies.iter().find(|(_, reply)| says(reply));
        ensure(said.is_none(), QUARANTINE, || {
            format!("n{} is quarantined and answers {said:?}", node + 1)
        })
    }

    /// Whether a machine has ever gone wrong, and whether more than one has.
    fn wrong_machines(&mut self) -> (bool, bool) {
        let wrong = self.replicas.iter().filter(|r| r.health.is_wrong()).count();
        self.checks
            .counters
            .hit_if(wrong > 0 && !self.went_wrong, Sometimes::WentWrong);
        // A state may be replaced, or not be there again after a crash, before anybody hears that it was wrong.
        let ever = self.replicas.iter().filter(|r| r.health.was_wrong()).count();
        self.went_wrong |= ever > 0;
        self.many_wrong |= ever > 1;
        (self.went_wrong, self.many_wrong)
    }
}
