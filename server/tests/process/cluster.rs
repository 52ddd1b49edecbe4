//! A cluster of processes.

use crate::scratch::{Process, Scratch, kontiki, printed, run_with, said, until};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

/// How many port ranges are tried.
const RANGES: usize = 50;

/// Node k has the port `base + k` and the HTTP port `base + 100 + k`.
pub(crate) struct Cluster {
    pub(crate) scratch: Scratch,
    base: u16,
    /// Keeps other tests, in this directory and in others, from the ports of a node that is down for the moment.
    _reserved: File,
    nodes: Vec<Option<Process>>,
}

impl Cluster {
    /// Three nodes, all of them answering, on ports that were free.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with other settings: what stands in the configuration of each node, and what is to stand there.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let started = (0..RANGES).find_map(|_| Self::try_start(some_base(), settings));
        started.expect("a free range of ports")
    }

    /// `None` if another program has one of the ports.
    fn try_start(base: u16, settings: &[(&str, &str)]) -> Option<Self> {
        let mut cluster = Self {
            scratch: Scratch::new(),
            base,
            _reserved: reserve(base)?,
            nodes: Vec::new(),
        };
        let made = kontiki()
            .args(["init", "--base-port", &base.to_string()])
            .args(["--segment-bytes", "9MiB", "--dir"])
            .arg(cluster.dir())
            .output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", said(&made));
        for id in 1..=3 {
            cluster.be_patient(id, settings);
            let node = cluster.spawn(id);
            cluster.nodes.push(Some(node));
        }
        cluster.answering().then_some(cluster)
    }

    /// Lets a node wait longer for its leader, so that a busy machine does not look like a dead one, beside other settings.
    fn be_patient(&self, id: u64, settings: &[(&str, &str)]) {
        let text = fs::read_to_string(self.config(id)).unwrap();
        let times = [
            (
                "# election_timeout_min = \"300ms\"",
                "election_timeout_min = \"1s\"",
            ),
            (
                "# election_timeout_max = \"600ms\"",
                "election_timeout_max = \"2s\"",
            ),
        ];
        let settings = times.iter().chain(settings);
        let patient = settings.fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{text}");
            text.replace(from, to)
        });
        fs::write(self.config(id), patient).unwrap();
    }

    /// Whether every node answers; false if one has ended instead, for want of its port.
    fn answering(&mut self) -> bool {
        until("every node to answer", || {
            let mut serving = 0;
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let log = fs::read_to_string(self.scratch.path(&format!("log{}", at + 1))).unwrap();
                if node.as_mut().and_then(Process::exited).is_some() {
                    assert!(log.contains("in use"), "{log}");
                    return Some(false);
                }
                serving += usize::from(log.contains("serving"));
            }
            // Until then, it may be another cluster that answers.
            let own = serving == self.nodes.len();
            own.then(|| self.status())?
                .iter()
                .all(|node| node["role"] != "unreachable")
                .then_some(true)
        })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.path("cluster")
    }

    pub(crate) fn config(&self, id: u64) -> PathBuf {
        self.dir().join(format!("n{id}.toml"))
    }

    /// Starts a node again that may have only so many descriptors.
    pub(crate) fn restart_with_descriptors(&mut self, id: u64, descriptors: u32) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")])
            .arg(kontiki().get_program());
        let node = self.spawn_by(shell, id, self.log(id));
        self.restarted(id, node);
    }

    fn log(&self, id: u64) -> Stdio {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path(&format!("log{id}")));
        log.unwrap().into()
    }

    fn spawn(&self, id: u64) -> Process {
        self.spawn_with(id, self.log(id))
    }

    fn spawn_with(&self, id: u64, stderr: Stdio) -> Process {
        self.spawn_by(kontiki(), id, stderr)
    }

    fn spawn_by(&self, mut serve: Command, id: u64, stderr: Stdio) -> Process {
        serve
            .env_remove("KONTIKI_LOG")
            .args(["serve", "--config"])
            .arg(self.config(id));
        Process(
            serve
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .unwrap(),
        )
    }

    /// Adds fields to the configuration of every node, for its next start.
    pub(crate) fn configure(&self, fields: &str) {
        for id in 1..=3 {
            let text = fs::read_to_string(self.config(id)).unwrap();
            fs::write(self.config(id), format!("{fields}\n{text}")).unwrap();
        }
    }

    /// Starts a node again.
    pub(crate) fn restart(&mut self, id: u64) {
        let node = self.spawn(id);
        self.restarted(id, node);
    }

    /// The same, with another standard error than a file.
    pub(crate) fn restart_with(&mut self, id: u64, stderr: Stdio) {
        let node = self.spawn_with(id, stderr);
        self.restarted(id, node);
    }

    fn restarted(&mut self, id: u64, node: Process) {
        *self.slot(id) = Some(node);
        until("the node to answer", || {
            let exited = self.slot(id).as_mut().and_then(Process::exited);
            assert_eq!(exited, None, "the node, started again, has ended");
            (self.status()[id as usize - 1]["role"] != "unreachable").then_some(())
        });
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        drop(self.slot(id).take());
    }

    /// Stops a node with a signal, and says how it exited.
    pub(crate) fn stop(&mut self, id: u64, signal: &str) -> i32 {
        let mut node = self.slot(id).take().unwrap();
        node.signal(signal);
        node.wait()
    }

    /// How much time of a core a node has used, in ticks of a hundredth of a second (`proc(5)`).
    pub(crate) fn cpu_ticks(&self, id: u64) -> u64 {
        let process = self.nodes[id as usize - 1].as_ref().unwrap().0.id();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Sends a node a signal.
    pub(crate) fn signal(&self, id: u64, signal: &str) {
        self.nodes[id as usize - 1].as_ref().unwrap().signal(signal);
    }

    /// How many descriptors a node has open.
    pub(crate) fn descriptors(&self, id: u64) -> usize {
        let process = self.nodes[id as usize - 1].as_ref().unwrap().0.id();
        fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
    }

    fn slot(&mut self, id: u64) -> &mut Option<Process> {
        &mut self.nodes[id as usize - 1]
    }

    pub(crate) fn endpoint(&self, id: u64) -> String {
        format!("http://127.0.0.1:{}", self.http_port(id))
    }

    pub(crate) fn http_port(&self, id: u64) -> u16 {
        self.base + 100 + id as u16
    }

    pub(crate) fn peer_port(&self, id: u64) -> u16 {
        self.base + id as u16
    }

    /// A command that asks the nodes in this order.
    pub(crate) fn asking(&self, ids: &[u64], args: &[&str]) -> Command {
        let mut command = kontiki();
        let (verb, rest) = args.split_first().unwrap();
        command.arg(verb);
        for id in ids {
            command.args(["--endpoint", &self.endpoint(*id)]);
        }
        command.args(["--timeout", "60s"]).args(rest);
        command
    }

    /// Runs a command that asks any node.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Output {
        run_with(&mut self.asking(&[1, 2, 3], args), input)
    }

    /// What a node returns for a range.
    pub(crate) fn read_from(&self, id: u64, range: &str) -> Vec<u8> {
        let output = run_with(&mut self.asking(&[id], &["read", range]), b"");
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    }

    /// What every node says of itself, in order.
    pub(crate) fn status(&self) -> Vec<Value> {
        let mut command = kontiki();
        command.args(["status", "--json"]);
        for id in 1..=3 {
            command.args(["--endpoint", &self.endpoint(id)]);
        }
        let lines = printed(&run_with(&mut command, b""));
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The leader, once there is one and all that answer know it.
    pub(crate) fn leader(&self) -> u64 {
        until("a leader", || {
            let mut status = self.status();
            status.retain(|node| node["role"] != "unreachable");
            let leader = status.iter().find(|node| node["role"] == "leader")?["node"].clone();
            let known = status.iter().all(|node| node["leader"] == leader);
            leader.as_u64().filter(|_| known)
        })
    }
}

/// A range of ports for as long as the file lives; `None` if another test has it.
fn reserve(base: u16) -> Option<File> {
    let dir = std::env::temp_dir().join("kontiki-test-ports");
    fs::create_dir_all(&dir).unwrap();
    let file = File::create(dir.join(base.to_string())).unwrap();
    file.try_lock().is_ok().then_some(file)
}

/// A base port below the range of ephemeral ports, another one each time.
fn some_base() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = (std::process::id() % 97) as u16;
    10_000 + (seed * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % 100 * 200
}
