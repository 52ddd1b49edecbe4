//! The lives of a node: it opens its log, begins, and goes down.
//!
//! Invariant: the checkers compare what recovery found before the process begins.

use crate::checkers::replicas::QUARANTINE;
use crate::ports::Work;
use crate::replica::Process;
use crate::sometimes::Sometimes;
use crate::violation::{Verdict, Violation, ensure};
use crate::world::{Event, Opening, World, cannot_open};
use kontiki_consensus::{Duration, Index, Role};
use kontiki_node::machine::Task;

impl World {
    /// A node opens its log. The power may fail while it does.
    pub(crate) fn start(&mut self, node: usize) -> Verdict {
        if self.frozen[node] || self.openings[node].is_some() || self.replicas[node].process.is_some() {
            return Ok(());
        }
        let now = self.now();
        let disk = self.replicas[node].disk.clone();
        disk.advance(now);
        self.endanger_recovery(&disk);
        let result = self.replicas[node].open();
        if disk.power_is_lost() {
            self.checks.counters.hit(Sometimes::CrashInRecovery);
            self.lose_power(node);
            self.queue
                .schedule(now.after(Duration::from_millis(50)), Event::Start { node });
            return Ok(());
        }
        disk.keep_power();
        let id = self.replicas[node].node;
        let (log, recovered) = result.map_err(|e| cannot_open(id, &e.to_string()))?;
        self.trace
            .line(now, || format!("{id:?} has recovered {recovered:?}"));
        self.checks
            .counters
            .hit_if(recovered.torn_bytes > 0, Sometimes::TornTailCut);
        ensure(
            recovered.suspect.is_none(),
            "a torn write is not taken for one that rotted",
            || format!("{id:?}: {:?}", recovered.suspect),
        )?;
        self.checks.reopened(id, &recovered.restored)?;
        self.opened += 1;
        self.openings[node] = Some(Opening {
            number: self.opened,
            log,
            recovered,
        });
        self.queue.schedule(
            disk.now(),
            Event::Begin {
                node,
                opening: self.opened,
            },
        );
        Ok(())
    }

    /// A node whose durable machine nobody could or would rely on when it went down answers nothing when it comes back: a
    /// restart is no verdict.
    fn check_verdict(&mut self, node: usize, silent: bool) -> Verdict {
        let doubts = self.replicas[node].doubts.take();
        let halted = doubts.filter(|_| self.replicas[node].is_durable());
        self.checks
            .counters
            .hit_if(halted == Some(true), Sometimes::HaltedStart);
        ensure(silent || halted.is_none(), QUARANTINE, || {
            format!(
                "n{} answered nothing when it went down, and answers when it comes back",
                node + 1
            )
        })
    }

    /// The process begins, unless it crashed while it opened its log.
    pub(crate) fn begin(&mut self, node: usize, opening: u64) -> Verdict {
        let now = self.now();
        let Some(Opening { log, recovered, .. }) = self.openings[node].take_if(|o| o.number == opening)
        else {
            return Ok(());
        };
        let seed = self.random.draw();
        let id = self.replicas[node].node;
        self.greetings
            .begins(id, recovered.incarnation, recovered.lives.life);
        self.replicas[node]
            .begin(now, log, recovered, seed)
            .map_err(|error| Violation {
                property: "a machine can always go on",
                what: format!("{id:?}: {error}"),
            })?;
        let silent = self.with(node, |p| p.driver.quarantined().is_some());
        self.check_verdict(node, silent == Some(true))?;
        self.checks
            .counters
            .hit_if(silent == Some(true), Sometimes::WrongStart);
        let resumed = self.with(node, |p| p.resumed).unwrap_or_default();
        self.checks
            .counters
            .hit_if(resumed > Index::ZERO, Sometimes::MachineResumed);
        ensure(
            resumed <= self.checks.committed.last(),
            "a machine applies what is committed",
            || {
                format!(
                    "{id:?} goes on behind {resumed:?}, {:?} is committed",
                    self.checks.committed.last()
                )
            },
        )?;
        self.trace.event(now, 1, node as u64);
        self.trace.line(now, || format!("n{} is up", node + 1));
        let replica = &self.replicas[node];
        if let Some(process) = &replica.process {
            self.transitions.up(now, id, replica.life, process);
        }
        self.endanger_names(node);
        self.schedule_turn(node, now);
        self.pump_disk(node);
        Ok(())
    }

    /// Whether a node is in this life.
    pub(crate) fn is_live(&self, node: usize, life: u64) -> bool {
        let replica = &self.replicas[node];
        replica.life == life && replica.process.is_some()
    }

    /// The process is gone, whatever it was doing.
    pub(crate) fn take_down(&mut self, node: usize) {
        let (now, id) = (self.now(), self.replicas[node].node);
        self.trace.event(now, 2, node as u64);
        self.trace.line(now, || format!("{id:?} goes down"));
        self.lose_inbox(node, "down");
        let process = self.replicas[node].process.take();
        let doubts = process.as_ref().and_then(doubt);
        self.replicas[node].doubts = doubts;
        // One that was still opening its log has never been up.
        if process.is_some() {
            self.transitions.down(now, id);
        }
        let restores = process.as_ref().is_some_and(|p| p.driver.restores_snapshot());
        self.checks
            .counters
            .hit_if(restores, Sometimes::CrashBeforeRestore);
        let led = process.is_some_and(|p| p.driver.consensus().role() == Role::Leader);
        self.checks.counters.hit_if(led, Sometimes::LeaderCrashed);
        self.openings[node] = None;
        self.hint_of_death(node);
        self.clients.down(id);
        self.checks.down(id);
        let none_up = self.replicas.iter().all(|r| r.process.is_none());
        self.checks.counters.hit_if(none_up, Sometimes::AllDown);
    }
}

/// Whether a node that answers nothing had stopped because nobody could tell who is wrong. Nothing if it answers, or if its
/// machine has still to be told.
fn doubt(process: &Process) -> Option<bool> {
    let tells = |task: &Work| matches!(task, Work::Task(Task::Mark(_)));
    let told = !process.tasks.iter().any(|(_, task)| tells(task));
    let silent = process.driver.stopped().is_none() && process.driver.quarantined().is_some();
    (told && silent).then(|| process.driver.is_halted())
}
