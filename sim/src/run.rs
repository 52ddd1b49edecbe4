//! One run, from its seed to its report: the storm, then the calm.
//!
//! *Safety*: for at least a minute of simulated time anything may happen. *Liveness*: a random quorum
//! is healed while the rest stays as it is, and must come to agree and take appends within a bound;
//! then all are healed, and all logs must become equal. At the end each log is read back from what
//! is certain to be on its disk.

use crate::checkers::convergence;
use crate::committed::CommittedRecord;
use crate::disk::SimDisk;
use crate::hash::Hash;
use crate::ledger::{Record, records_of};
use crate::linearizability;
use crate::outlets::{Outlet, unwritten};
use crate::replica::{CLUSTER, options};
use crate::sometimes::{Counters, Sometimes};
use crate::swarm::STRAGGLE_MS_MAX;
use crate::trace::{Detail, Trace};
use crate::transitions::Transitions;
use crate::violation::{Verdict, Violation, ensure};
use crate::world::World;
use kontiki_consensus::{Duration, Index, LogId, NodeId, Role, Term, Time};
use kontiki_log::{Fetch, From, Log, LogEvent, Salts};
use std::any::Any;
use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The property of a run that comes to its end at all.
pub const ENDS: &str = "a run comes to an end";
/// How long the storm lasts, at least.
const STORM: Duration = Duration::from_millis(60_000);
/// How many appends a run acknowledges, at least.
const ACKNOWLEDGED_MIN: u64 = 200;
/// How long one attempt to append to a healed quorum may take.
const PROBE_PATIENCE: Duration = Duration::from_millis(5_000);
/// How many bytes one request to a log gives when it is read back.
const READ_BACK_BYTES: usize = 256 << 10;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many events there were.
    pub events: u64,
    /// How much time has passed in it.
    pub simulated: Duration,
    /// How many appends were acknowledged.
    pub acknowledged: u64,
    /// How many requests were answered.
    pub answered: u64,
    /// How many records were committed.
    pub committed: u64,
    /// How many operations on keys the history holds.
    pub operations: u64,
    /// How often each fault came.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each rare path was taken.
    pub counters: Counters,
    /// The hash of all events.
    pub hash: u64,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// The lines of the trace that were kept.
    pub lines: Vec<String>,
}

impl Report {
    /// The report of a run that has not begun.
    #[must_use]
    pub fn empty(seed: u64) -> Self {
        Self {
            seed,
            nodes: 0,
            events: 0,
            simulated: Duration(0),
            acknowledged: 0,
            answered: 0,
            committed: 0,
            operations: 0,
            faults: BTreeMap::new(),
            counters: Counters::default(),
            hash: 0,
            violation: None,
            lines: Vec::new(),
        }
    }
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, detail: Detail) -> Report {
    run_into(seed, detail, Outlet::default())
}

/// Runs a seed, and writes of it what is asked for; of a run that failed, all until then. That does not change the run.
#[must_use]
pub fn run_into(seed: u64, detail: Detail, outlet: Outlet) -> Report {
    let trace = Trace::new(detail);
    let mut report = Report::empty(seed);
    let transitions = outlet.trace.map_or_else(Transitions::default, Transitions::to);
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(seed, trace.clone(), transitions.clone())?);
        world.live()
    }));
    report.violation = match result {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(Violation {
            property: "nothing panics",
            what: panic_text(panic.as_ref()),
        }),
    };
    report.events = trace.events();
    report.hash = trace.hash();
    report.lines = trace.lines();
    if let Some(world) = world {
        world.report(&mut report);
        let history = outlet
            .history
            .map_or(Ok(()), |mut out| world.clients.history().write(&mut out));
        let written = history.map_err(|e| unwritten("the history", &e));
        report.violation = report.violation.or(written.err());
    }
    let written = transitions.finish().map_err(|e| unwritten("the trace", &e));
    report.violation = report.violation.or(written.err());
    report
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
        .to_owned()
}

impl World {
    /// What came of the run, however it ended.
    fn report(&self, report: &mut Report) {
        report.nodes = self.swarm.nodes;
        report.simulated = self.now().since(Time::ZERO);
        report.acknowledged = self.clients.acknowledged();
        report.answered = self.clients.answered_count();
        report.committed = self.checks.committed.last().0;
        report.operations = self.clients.history().operations().count() as u64;
        report.faults = self.faults.clone();
        report.counters = self.checks.counters.clone();
    }

    /// The whole run.
    fn live(&mut self) -> Verdict {
        self.storm()?;
        self.liveness()?;
        self.read_back()?;
        self.read_back_damaged()?;
        self.judge()
    }

    fn storm(&mut self) -> Verdict {
        self.run_until(Time::ZERO.after(STORM))
    }

    /// How long healed nodes have to come to agree.
    fn patience(&self) -> Duration {
        Duration(20 * self.swarm.election_timeout().0 + 5_000_000_000)
    }

    fn liveness(&mut self) -> Verdict {
        let mut nodes: Vec<usize> = (0..self.swarm.nodes).collect();
        self.random.shuffle(&mut nodes);
        // With one of them in doubt a bare majority may not be able to tell which.
        let whole = self.swarm.wrong.is_some();
        let core = if whole {
            nodes.clone()
        } else {
            nodes[..self.swarm.nodes / 2 + 1].to_vec()
        };
        self.clients_ask = false;
        self.log_line(|| {
            format!("the storm is over for {core:?}, counted from 0; the others stay as they are")
        });
        self.calm(&core);
        let healed = self.converge(&core, "a healed quorum");
        if healed.is_err() && self.is_undecidable() {
            // Applying stops for good, and people have to decide; the logs are judged as ever.
            self.log_line(|| "nobody can tell which machine is wrong".to_owned());
            return Ok(());
        }
        healed?;
        self.probe_each(&core)?;
        // What was under way to the others is lost by then, and none of them still waits for an answer.
        let late = Duration::from_millis(STRAGGLE_MS_MAX).0 + self.swarm.election_timeout().0;
        self.run_until(self.now().after(Duration(late)))?;
        let leader = self.undisputed_leader().filter(|_| !whole);
        self.log_line(|| format!("the storm is over for all, and {leader:?} leads"));
        self.calm(&nodes);
        self.converge(&nodes, "all nodes")?;
        self.work_on()?;
        self.see_machines_right()?;
        self.converge(&nodes, "all nodes, at the end")?;
        self.still_leads(leader)
    }

    /// Whether replicas differ, one rightly and one wrongly, and whoever could tell which is so far behind that it
    /// would need a snapshot from its leader, which is one of them.
    fn is_undecidable(&self) -> bool {
        let (mut right, mut wrong, mut behind, mut forgotten) = (false, false, Vec::new(), None);
        for replica in &self.replicas {
            let Some(process) = &replica.process else {
                return false;
            };
            let consensus = process.driver.consensus();
            if process.driver.is_halted() {
                right |= !replica.health.is_wrong();
                wrong |= replica.health.is_wrong();
                if consensus.role() == Role::Leader {
                    forgotten = Some(consensus.base().index);
                }
            } else {
                behind.push(consensus.commit());
            }
        }
        let needy = |forgotten: Index| !behind.is_empty() && behind.iter().all(|commit| *commit < forgotten);
        right && wrong && forgotten.is_some_and(needy)
    }

    /// The leader of the healed quorum and its term, if no node has ever been in a later one.
    fn undisputed_leader(&mut self) -> Option<(NodeId, Term)> {
        let latest = self.checks.latest_term;
        let leads = |r: &crate::replica::Replica| {
            let consensus = r.process.as_ref()?.driver.consensus();
            let leads = consensus.role() == Role::Leader && consensus.term() == latest;
            leads.then_some((r.node, latest))
        };
        let leader = self.replicas.iter().find_map(leads);
        self.checks
            .counters
            .hit_if(leader.is_some(), Sometimes::LeaderUndisputed);
        leader
    }

    /// Who comes back to a healed quorum does not depose the leader it hears (dissertation §9.6, §4.2.3).
    fn still_leads(&self, leader: Option<(NodeId, Term)>) -> Verdict {
        let now = self.checks.latest_term;
        ensure(
            leader.is_none_or(|(_, term)| term == now),
            "a leader that a quorum hears stays",
            || {
                format!(
                    "{leader:?} led a healed quorum, then the others came back, and now the term is {now:?}"
                )
            },
        )
    }

    /// Gives these nodes time until they agree; an error if they do not.
    fn converge(&mut self, nodes: &[usize], what: &str) -> Verdict {
        let until = self.now().after(self.patience());
        while self.now() < until {
            let next = self.now().after(Duration::from_millis(50));
            self.run_until(next)?;
            self.clients.overdue(self.now())?;
            if self.agree(nodes) {
                return Ok(());
            }
        }
        self.standings(nodes, |standings| convergence::must_agree(standings, what))
    }

    fn agree(&self, nodes: &[usize]) -> bool {
        let up = nodes.iter().all(|n| self.replicas[*n].process.is_some());
        up && self.standings(nodes, convergence::agree)
    }

    fn standings<R>(&self, nodes: &[usize], f: impl FnOnce(&[convergence::Standing<'_>]) -> R) -> R {
        let standings: Vec<_> = nodes
            .iter()
            .map(|n| {
                let replica = &self.replicas[*n];
                let shows = |p: &crate::replica::Process| {
                    let applied = p.driver.applied().0.min(p.driver.meta().at().index);
                    (p.driver.consensus().commit(), applied)
                };
                let (commit, applied) = replica.process.as_ref().map_or((Index::ZERO, Index::ZERO), shows);
                self.checks.standing(replica.node, commit, applied)
            })
            .collect();
        f(&standings)
    }

    /// Each of these nodes must take an append and see it committed.
    fn probe_each(&mut self, nodes: &[usize]) -> Verdict {
        for node in nodes {
            let id = NodeId(*node as u64 + 1);
            let (before, until) = (self.clients.acknowledged(), self.now().after(self.patience()));
            while self.clients.acknowledged() == before && self.now() < until {
                let asked = self
                    .clients
                    .probe(id, self.now(), PROBE_PATIENCE, &mut self.checks);
                self.request(asked);
                self.await_answers(self.now().after(PROBE_PATIENCE))?;
            }
            ensure(
                self.clients.acknowledged() > before,
                convergence::PROPERTY,
                || {
                    format!(
                        "{id:?}, one of a healed quorum, gets no append committed in {:?}",
                        self.patience()
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Lets time pass until no request is open at a node that works, at most until then.
    fn await_answers(&mut self, until: Time) -> Verdict {
        let waiting = self.clients.open_count();
        while self.clients.open_count() >= waiting && self.now() < until {
            let next = self.now().after(Duration::from_millis(10));
            self.run_until(next)?;
        }
        Ok(())
    }

    /// The clients go on until the run has done a fair amount of work.
    fn work_on(&mut self) -> Verdict {
        self.clients_ask = true;
        let until = self.now().after(Duration::from_millis(240_000));
        while self.clients.acknowledged() < ACKNOWLEDGED_MIN && self.now() < until {
            let next = self.now().after(Duration::from_millis(250));
            self.run_until(next)?;
        }
        self.clients_ask = false;
        let done = self.clients.acknowledged();
        ensure(done >= ACKNOWLEDGED_MIN, convergence::PROPERTY, || {
            format!("healthy nodes have acknowledged {done} appends, {ACKNOWLEDGED_MIN} are wanted")
        })
    }

    /// Lets clients go on until no machine is wrong; or all are, for one has given its snapshot to a majority.
    fn see_machines_right(&mut self) -> Verdict {
        let until = self.now().after(Duration::from_millis(60_000));
        let settled = |world: &Self| {
            let wrong = world.replicas.iter().filter(|r| r.health.is_wrong()).count();
            let silent = |r: &crate::replica::Replica| {
                let process = r.process.as_ref();
                process.is_none_or(|p| p.driver.quarantined().is_some())
            };
            (wrong == 0 || wrong == world.swarm.nodes) && !world.replicas.iter().any(silent)
        };
        self.clients_ask = self.swarm.wrong.is_some();
        while !settled(self) && self.now() < until {
            let next = self.now().after(Duration::from_millis(50));
            self.run_until(next)?;
        }
        self.clients_ask = false;
        ensure(settled(self), crate::checkers::replicas::QUARANTINE, || {
            let each = self.replicas.iter().map(|r| {
                let why = r.process.as_ref().and_then(|p| p.driver.quarantined());
                format!(
                    "{:?} is wrong: {}, quarantined: {why:?}",
                    r.node,
                    r.health.is_wrong()
                )
            });
            each.collect::<Vec<_>>().join("; ")
        })
    }

    /// Judges what the clients did to keys and were told.
    fn judge(&self) -> Verdict {
        let verdict = linearizability::check(self.clients.history(), linearizability::STEPS_PER_KEY);
        ensure(verdict.is_linearizable(), "the keys are linearizable", || {
            verdict.to_string()
        })
    }

    /// Reads every log from what is certain to be on its disk: it must hold all that is committed.
    fn read_back(&mut self) -> Verdict {
        // Then there was no end at which all have all.
        let undecidable = self.is_undecidable();
        for replica in &self.replicas {
            let image = replica.disk.image();
            let known = self.checks.committed.records();
            let (records, _) =
                read_all(&image, replica.node, &self.swarm.sizes, known).map_err(|what| Violation {
                    property: "a log can be read back",
                    what: format!("{:?}: {what}", replica.node),
                })?;
            let ledger = &self.checks.ledgers[replica.node.0 as usize - 1];
            let committed = self.checks.committed.records();
            // Who was left behind may hold what others have replaced.
            let process = replica.process.as_ref().filter(|_| undecidable);
            let through = process.map_or(usize::MAX, |p| p.driver.consensus().commit().0 as usize);
            let whole = records.len() >= committed.len().min(through)
                && records
                    .iter()
                    .zip(committed)
                    .take(through)
                    .all(|(on_disk, c)| *on_disk == c.record)
                && records == ledger.durable();
            ensure(whole, "what is acknowledged can be read back from disk", || {
                let lengths = (records.len(), ledger.durable().len(), committed.len());
                format!(
                    "{:?}: (on disk, persisted, committed) are {lengths:?}",
                    replica.node
                )
            })?;
        }
        Ok(())
    }

    /// Reads the logs once more, after a bit has flipped on each disk. That is told, or it costs nothing but what
    /// nothing stands behind: the end of a log cannot be told from a write that was torn.
    fn read_back_damaged(&mut self) -> Verdict {
        for replica in &self.replicas {
            let image = replica.disk.image();
            let known = self.checks.committed.records();
            let sound = read_all(&image, replica.node, &self.swarm.sizes, known);
            let states = sound.map(|(_, states)| states).unwrap_or_default();
            let place = image.rot(&mut self.random);
            let ledger = &self.checks.ledgers[replica.node.0 as usize - 1];
            let read = read_all(&image, replica.node, &self.swarm.sizes, known);
            let counters = &mut self.checks.counters;
            counters.hit_if(read.is_err(), Sometimes::DamageTold);
            let Ok((records, found)) = read else { continue };
            ensure(
                found.iter().all(|(last, hash)| states.get(last) == Some(hash)),
                "damage in a snapshot is told",
                || {
                    format!(
                        "{:?}: a bit flipped at (file, byte) {place:?}, nothing was said, and {states:?} are read as {found:?}",
                        replica.node
                    )
                },
            )?;
            counters.hit_if(records.len() < ledger.durable().len(), Sometimes::DamageCutOff);
            let whole = records.starts_with(ledger.settled());
            ensure(whole, "damage is told, and never taken for the end", || {
                let lengths = (records.len(), ledger.settled().len(), ledger.durable().len());
                format!(
                    "{:?}: a bit flipped at (file, byte) {place:?}, nothing was said, and (read, settled, persisted) are {lengths:?}",
                    replica.node
                )
            })?;
        }
        Ok(())
    }
}

/// A hash over the state in each snapshot.
type States = BTreeMap<LogId, u64>;

/// All records of a log, those that it has forgotten as they are committed, read through a log that is opened on a copy of
/// its disk; and the states in its snapshots.
fn read_all(
    image: &SimDisk,
    node: NodeId,
    sizes: &crate::swarm::Sizes,
    committed: &[CommittedRecord],
) -> Result<(Vec<Record>, States), String> {
    let salts = Salts::new(image.draw_secret());
    let opened = Log::open(image.clone(), CLUSTER, node, options(sizes), salts);
    let (mut log, recovered) = opened.map_err(|e| e.to_string())?;
    let mut states = States::new();
    for file in &recovered.snapshots {
        let mut bytes = Vec::new();
        let read = log.snapshot_state(file).read_to_end(&mut bytes);
        read.map_err(|e| e.to_string())?;
        states.insert(file.header.base.last, Hash::default().with_bytes(&bytes).0);
    }
    let last = recovered.restored.last.index;
    // What is forgotten cannot be read; that it was committed was checked when it was forgotten.
    let forgotten = recovered.restored.base.index.0 as usize;
    let mut records: Vec<Record> = committed.iter().take(forgotten).map(|c| c.record).collect();
    while (records.len() as u64) < last.0 {
        let from = From::Index(Index(records.len() as u64 + 1));
        log.fetch(
            kontiki_consensus::GroupId::default(),
            Fetch {
                token: 1,
                from,
                to: last,
                bytes_max: READ_BACK_BYTES,
            },
        );
        let runs = await_fetched(&mut log, image)?;
        for run in &runs {
            let before = records.last().map(|r| r.chain).unwrap_or_default();
            records.extend(records_of(run, before));
        }
        if runs.is_empty() {
            return Err(format!("nothing at {from:?} of {last:?}"));
        }
    }
    Ok((records, states))
}

fn await_fetched(log: &mut Log<SimDisk>, image: &SimDisk) -> Result<Vec<kontiki_consensus::Run>, String> {
    loop {
        match log.poll() {
            Some(LogEvent::Fetched { runs, .. }) => return runs.map_err(|e| e.to_string()),
            Some(LogEvent::Failed(error)) => return Err(error.to_string()),
            Some(_) => {}
            None => image.advance(image.next_due().ok_or("a read is never answered")?),
        }
    }
}
