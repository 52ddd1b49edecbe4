//! A node in a process of its own, with clients in that same process: how a program that embeds Kontiki has it.
//!
//! The process is this program again. It is asked through its standard input, one line a question, answers with one
//! line each, and ends with its input.

mod clients;

use crate::{
    Failed,
    entries::{self, Proof},
    load::{Figures, Stretch, Timed, closed_loop, paced},
    machine,
    options::Options,
    process::{PATIENCE, Process, free_ports, tried_again},
};
use clients::{STALE, probe, readers};
pub(crate) use clients::{appenders, measured};
use kontiki::{Carrier, ClusterKey, Config, Consistency, Handle, LogOnly, RaftNode, Raw, Role};
use std::{
    io::{self, Write as _},
    path::Path,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

/// What a node is told when its process starts.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) carrier: Carrier,
    /// Where reads with a lease are measured.
    pub(crate) lease_drift_ppm: Option<u32>,
    /// A state machine in place of the plain log.
    pub(crate) machine: Option<machine::Shape>,
}

impl Settings {
    /// Those of the library.
    pub(crate) fn defaults(options: &Options) -> Result<Self, Failed> {
        let config = Config::new(1, "", ClusterKey::generate()?, [(1, "127.0.0.1:1")]);
        Ok(Self {
            heartbeat: config.heartbeat_interval,
            election_min: config.election_timeout_min,
            election_max: config.election_timeout_max,
            retention_bytes: None,
            carrier: options.carrier,
            lease_drift_ppm: None,
            machine: None,
        })
    }

    fn words(&self) -> [String; 7] {
        let millis = |time: Duration| time.as_millis().to_string();
        [
            millis(self.heartbeat),
            millis(self.election_min),
            millis(self.election_max),
            self.retention_bytes.unwrap_or(0).to_string(),
            self.carrier.to_string(),
            self.lease_drift_ppm.unwrap_or(0).to_string(),
            self.machine.map_or("plain".into(), |shape| shape.to_string()),
        ]
    }
}

/// Nodes as processes of their own; the clients are in the leader's.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Process>,
    words: Vec<Vec<String>>,
    /// Place of the leader among them.
    pub(crate) leader: usize,
    /// Clients that have appended so far.
    clients: u32,
    /// Entries that were acknowledged so far.
    pub(crate) acknowledged: u64,
    /// Entries of which nobody knows whether they were appended.
    pub(crate) unknown: u64,
}

impl Cluster {
    /// Makes a cluster in a directory and starts it; waits until it has a leader.
    pub(crate) fn start(dir: &Path, nodes: usize, settings: Settings) -> Result<Self, Failed> {
        let mut tries = 0;
        tried_again(|| {
            tries += 1;
            Self::start_in(&dir.join(format!("try{tries}")), nodes, settings)
        })
    }

    fn start_in(dir: &Path, nodes: usize, settings: Settings) -> Result<Self, Failed> {
        std::fs::create_dir_all(dir)?;
        let key = ClusterKey::generate()?;
        key.save(dir.join("cluster.key"))?;
        let addresses: Vec<String> = free_ports(nodes)?
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let mut words: Vec<Vec<String>> = Vec::new();
        for id in (1..).take(nodes) {
            let node_dir = dir.join(format!("n{id}"));
            Config::new(id, node_dir, key.clone(), (1..).zip(addresses.iter().cloned())).bootstrap()?;
            let place = [id.to_string(), dir.display().to_string(), addresses.join(",")];
            words.push(
                ["node".to_owned()]
                    .into_iter()
                    .chain(place)
                    .chain(settings.words())
                    .collect(),
            );
        }
        let mut cluster = Self {
            nodes: words
                .iter()
                .map(|words| Process::own(words))
                .collect::<Result<_, _>>()?,
            words,
            leader: 0,
            clients: 0,
            acknowledged: 0,
            unknown: 0,
        };
        cluster.find_leader()?;
        Ok(cluster)
    }

    /// Waits until all nodes name the same leader, and it thinks so too: one that was silent may still believe it leads.
    pub(crate) fn find_leader(&mut self) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let statuses = (0..self.nodes.len())
                .map(|n| self.status(n))
                .collect::<Result<Vec<_>, _>>()?;
            let place = |status: &Status| status.leader.checked_sub(1);
            let agreed = statuses.iter().all(|status| status.leader == statuses[0].leader);
            if let Some(leader) = place(&statuses[0]).filter(|n| agreed && statuses[*n].leads) {
                self.leader = leader;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("no node leads".into())
    }

    pub(crate) fn status(&mut self, n: usize) -> Result<Status, Failed> {
        self.nodes[n].ask("status", Duration::ZERO)?.parse()
    }

    /// Lets clients in the leader's process append in a closed loop.
    pub(crate) fn append(&mut self, clients: u32, bytes: usize, stretch: Stretch) -> Result<Figures, Failed> {
        let first = self.take_clients(clients);
        let question = format!("append {clients} {first} {bytes} {}", stretch_words(stretch));
        let line = self.nodes[self.leader].ask(&question, stretch.warm + stretch.run)?;
        let figures: Figures = line.parse()?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// Numbers for clients that have none yet.
    pub(crate) fn take_clients(&mut self, clients: u32) -> u32 {
        self.clients += clients;
        self.clients - clients
    }

    /// Lets clients in the leader's process read an entry each in a closed loop.
    pub(crate) fn read(
        &mut self,
        consistency: &str,
        clients: u32,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let question = format!("read {clients} {consistency} {}", stretch_words(stretch));
        let line = self.nodes[self.leader].ask(&question, stretch.warm + stretch.run)?;
        line.parse()
    }

    /// Lets the leader's process append so often a second, whether or not those before are answered.
    pub(crate) fn paced(
        &mut self,
        per_second: f64,
        bytes: usize,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let client = self.take_clients(1);
        let question = format!("paced {per_second} {client} {bytes} {}", stretch_words(stretch));
        let line = self.nodes[self.leader].ask(&question, stretch.warm + stretch.run)?;
        let figures: Figures = line.parse()?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// All nodes hold the same log, and in it what was acknowledged, each client's in order.
    pub(crate) fn check(&mut self) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        let mut last = self.status(self.leader)?.commit;
        // A new leader has still to find out what is committed.
        while last < self.acknowledged && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
            last = self.status(self.leader)?.commit;
        }
        let most = self.acknowledged + self.unknown;
        if last < self.acknowledged || last > most {
            return Err(format!(
                "{} entries were acknowledged, and the log has {last}",
                self.acknowledged
            )
            .into());
        }
        let mut first = 0;
        for n in 0..self.nodes.len() {
            first = first.max(self.status(n)?.first);
        }
        let mut found = Vec::new();
        for node in &mut self.nodes {
            found.push(node.ask(&format!("check {first} {last}"), PATIENCE)?);
        }
        if found.iter().any(|one| *one != found[0]) {
            return Err(format!("the nodes' logs differ: {found:?}").into());
        }
        Ok(())
    }

    /// Starts a node's process again that was killed or told to end.
    pub(crate) fn restart(&mut self, n: usize) -> Result<(), Failed> {
        self.nodes[n].kill();
        self.nodes[n] = Process::own(&self.words[n])?;
        Ok(())
    }

    /// Ends one process, and finds fault if it ended badly.
    pub(crate) fn end_node(&mut self, n: usize) -> Result<(), Failed> {
        self.nodes[n].end()
    }

    /// Ends all processes, and finds fault if one ended badly.
    pub(crate) fn end(mut self) -> Result<(), Failed> {
        self.nodes.iter_mut().try_for_each(Process::end)
    }
}

fn stretch_words(stretch: Stretch) -> String {
    format!("{} {}", stretch.warm.as_millis(), stretch.run.as_millis())
}

/// How a node is.
pub(crate) struct Status {
    pub(crate) leads: bool,
    /// The node it takes for the leader, from 1; 0 if it knows none.
    leader: usize,
    /// The first entry its log still has.
    pub(crate) first: u64,
    pub(crate) commit: u64,
}

impl FromStr for Status {
    type Err = Failed;

    fn from_str(line: &str) -> Result<Self, Failed> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [role, leader, first, commit] = words[..] else {
            return Err("no status".into());
        };
        Ok(Self {
            leads: role == "leads",
            leader: leader.parse()?,
            first: first.parse()?,
            commit: commit.parse()?,
        })
    }
}

/// The process of a node.
pub(crate) fn run(words: &[String]) -> Result<(), Failed> {
    let [
        id,
        dir,
        peers,
        heartbeat,
        min,
        max,
        retention,
        carrier,
        lease,
        machine,
    ] = words
    else {
        return Err("a node is told ten things".into());
    };
    let id: u64 = id.parse()?;
    let dir = Path::new(dir);
    let key = ClusterKey::load(dir.join("cluster.key"))?;
    let peers = (1..).zip(peers.split(',').map(str::to_owned));
    let mut config = Config::new(id, dir.join(format!("n{id}")), key, peers);
    let millis = |word: &str| word.parse().map(Duration::from_millis);
    config.heartbeat_interval = millis(heartbeat)?;
    config.election_timeout_min = millis(min)?;
    config.election_timeout_max = millis(max)?;
    config.retention_bytes = Some(retention.parse()?).filter(|bytes| *bytes > 0);
    config.carrier = carrier.parse()?;
    config.lease_drift_ppm = Some(lease.parse()?).filter(|ppm| *ppm > 0);
    if machine != "plain" {
        return machine::run(config, machine.parse()?);
    }
    if config.retention_bytes.is_some() {
        // A stall is to be seen, and not to be refused.
        config.in_flight_bytes_max = 512 << 20;
    }
    let began = Instant::now();
    let handle = RaftNode::<LogOnly<Raw>>::new(config)?.start()?;
    let opened = began.elapsed();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["opened"] => Ok(opened.as_nanos().to_string()),
            _ => answer(&handle, &words),
        };
        let answer = answer.unwrap_or_else(|error| format!("failed {error}"));
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(handle.blocking().shutdown()?)
}

fn answer(handle: &Handle<Raw>, words: &[&str]) -> Result<String, Failed> {
    match *words {
        ["status"] => {
            let status = handle.status();
            let role = if status.role == Role::Leader {
                "leads"
            } else {
                "follows"
            };
            let leader = status.leader.unwrap_or(0);
            Ok(format!("{role} {leader} {} {}", status.first, status.commit))
        }
        ["append", clients, first, bytes, warm, run] => {
            let (first, bytes): (u32, usize) = (first.parse()?, bytes.parse()?);
            let clients = appenders(handle, first, clients.parse()?, bytes);
            Ok(measured(closed_loop(clients, Stretch::parse(warm, run)?))?.to_string())
        }
        ["read", clients, consistency, warm, run] => {
            let consistency = match consistency {
                "linearizable" => Consistency::Linearizable,
                "lease" => Consistency::Lease,
                "stale" => STALE,
                other => return Err(format!("no reads are {other}").into()),
            };
            let clients = readers(handle, consistency, clients.parse()?);
            Ok(measured(closed_loop(clients, Stretch::parse(warm, run)?))?.to_string())
        }
        ["paced", per_second, client, bytes, warm, run] => {
            let (client, bytes): (u32, usize) = (client.parse()?, bytes.parse()?);
            let mut number = 0;
            let append = || {
                let append = handle.append(Raw(entries::entry(client, number, bytes)));
                number += 1;
                Timed(append)
            };
            let paced = paced(per_second.parse()?, Stretch::parse(warm, run)?, append);
            Ok(measured(paced)?.to_string())
        }
        ["probe", clients, first, bytes, time] => {
            let time = Duration::from_millis(time.parse()?);
            probe(handle, clients.parse()?, first.parse()?, bytes.parse()?, time)
        }
        ["check", first, last] => check(handle, first.parse()?, last.parse()?),
        _ => Err("unknown question".into()),
    }
}

/// Reads this node's log from `first` (or where it begins, if that is later) to `last`, once it knows that to be committed.
pub(crate) fn check(handle: &Handle<Raw>, first: u64, last: u64) -> Result<String, Failed> {
    let end = Instant::now() + PATIENCE;
    while handle.status().commit < last {
        if Instant::now() > end {
            return Err(format!("it has {} entries of {last}", handle.status().commit).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let first = handle.status().first.max(first);
    let mut proof = Proof::of_log_from(first);
    let (reader, mut next) = (handle.blocking(), first);
    while next <= last {
        let found = reader.read(next..=last, STALE)?;
        for entry in &found.entries {
            if entry.index != next {
                return Err(format!("entry {} stands where {next} should", entry.index).into());
            }
            proof.add(&entry.value.0)?;
            next += 1;
        }
        if found.entries.is_empty() {
            // Known as committed, and not yet on this node's own disk.
            if Instant::now() > end {
                return Err(format!("nothing at {next}, and {last} is committed").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    let (entries, hash) = proof.finish();
    Ok(format!("checked {first} {entries} {hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the check says about a log of these entries.
    fn checked(entries: &[(u32, u32)]) -> Result<String, String> {
        let config = Config::in_memory(1).expect("randomness").remove(0);
        let handle = RaftNode::<LogOnly<Raw>>::new(config)
            .and_then(|node| node.start())
            .expect("a node");
        handle
            .blocking()
            .wait_ready(Duration::from_secs(10))
            .expect("it leads");
        for (client, number) in entries {
            let entry = entries::entry(*client, *number, 16);
            handle.blocking().append(Raw(entry)).expect("appended");
        }
        let found = check(&handle, 0, entries.len() as u64).map_err(|error| error.to_string());
        handle.blocking().shutdown().expect("it stops");
        found
    }

    #[test]
    fn a_log_with_a_gap_or_a_repetition_is_refused() {
        let sound = checked(&[(0, 0), (1, 0), (0, 1)]).expect("nothing is wrong");
        assert!(sound.starts_with("checked 1 3 "), "{sound}");
        assert_ne!(checked(&[(1, 0), (0, 0), (0, 1)]), Ok(sound));
        assert!(checked(&[(0, 0), (0, 2)]).is_err());
        assert!(checked(&[(0, 0), (0, 0)]).is_err());
    }
}
