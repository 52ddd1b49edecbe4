//! The machines: what a node gives its machine to do, and when that is done.
//!
//! Each works off its tasks one after the other, as a thread of its own would; a process that stands still does
//! nothing. Invariant: what a machine does goes through the shipped applier, and after each task its state is compared.

use crate::sometimes::Sometimes;
use crate::violation::Verdict;
use crate::world::{Event, World};
use kontiki_node::Input;
use kontiki_node::machine::{Done, Task};

impl World {
    /// A node gives its machine something to do.
    pub(crate) fn give_tasks(&mut self, node: usize, tasks: Vec<Task>) {
        for task in tasks {
            let due = self.now().after(self.random.around(self.swarm.sizes.task));
            let life = self.replicas[node].life;
            if let Some(process) = self.replicas[node].process.as_mut() {
                let due = process.tasks.back().map_or(due, |(before, _)| due.max(*before));
                process.tasks.push_back((due, task));
                self.queue.schedule(due, Event::Machine { node, life });
            }
        }
    }

    /// Does all tasks of a machine that are due.
    pub(crate) fn work_on_tasks(&mut self, node: usize) -> Verdict {
        let now = self.now();
        let id = self.replicas[node].node;
        while let Some(process) = self.replicas[node]
            .process
            .as_mut()
            .filter(|p| p.paused_until <= now)
            && let Some(applier) = process.applier.as_mut()
            && let Some((_, task)) = process.tasks.pop_front_if(|(due, _)| *due <= now)
        {
            let done = applier.run(task);
            self.trace.line(now, || format!("{id:?} has done {done:?}"));
            if let (Done::Applied { runs, .. }, Some(digest)) = (&done, applier.digest())
                && let Some(last) = runs.last()
            {
                self.checks.machine_at(id, last.last(), digest)?;
            }
            self.with(node, |process| process.inbox.push(Input::Machine(done)));
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
        Ok(())
    }

    /// After a turn: compares what the node knows with what others knew at the same record, and sees what is rare.
    pub(crate) fn compare(&mut self, node: usize) -> Verdict {
        let replica = &mut self.replicas[node];
        let Some(process) = replica.process.as_mut() else {
            return Ok(());
        };
        let counts = process.driver.counts();
        let before = std::mem::replace(&mut process.counts, counts);
        let counters = &mut self.checks.counters;
        counters.hit_if(counts.answered > before.answered, Sometimes::RetryAnswered);
        counters.hit_if(counts.joined > before.joined, Sometimes::RetryJoined);
        counters.hit_if(counts.expired > before.expired, Sometimes::SessionEnded);
        counters.hit_if(counts.leased > before.leased, Sometimes::LeaseRead);
        counters.hit_if(counts.recent > before.recent, Sometimes::RecentRead);
        counters.hit_if(counts.awaited > before.awaited, Sometimes::ReadAwaited);
        let meta = process.driver.meta();
        if meta.at().index > process.compared {
            process.compared = meta.at().index;
            self.checks.knows(replica.node, meta)?;
        }
        Ok(())
    }
}
