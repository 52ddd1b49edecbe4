//! Three nodes as processes: started, killed, started again, and watched all the while.
//!
//! Nothing here waits for a time to pass where it can wait for something to be seen; what does not come at all ends the run.

use crate::{
    Failed,
    watch::{Process, disk_bytes, mib},
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    ops::RangeInclusive,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

/// The nodes of a cluster.
pub(crate) const THREE: RangeInclusive<u64> = 1..=3;
/// How often a line is printed.
const PRINT_EVERY: Duration = Duration::from_secs(5);
/// How long anything may be waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a node said last: numbers by name.
pub(crate) type Told = BTreeMap<String, u64>;

/// What the processes run.
pub(crate) trait Program {
    /// How a node is started. What it prints is [`Line`]s.
    fn command(&self, node: u64) -> Result<Command, Failed>;

    /// Where a node keeps everything.
    fn home(&self, node: u64) -> PathBuf;
}

pub(crate) struct Cluster<P> {
    pub(crate) program: P,
    nodes: BTreeMap<u64, Member>,
    lines: Receiver<Line>,
    sender: Sender<Line>,
    began: Instant,
    printed: Instant,
    /// The entries when a line was last printed.
    before: u64,
}

/// What is heard of a node: `at` and numbers by name, `stopped` and why, or another word and numbers by name.
pub(crate) struct Line {
    pub(crate) node: u64,
    /// By which of its processes it was said, if by one itself.
    pub(crate) start: Option<u64>,
    pub(crate) text: String,
}

/// What is known of a node, also while it is down.
#[derive(Default)]
struct Member {
    running: Option<(Process, ChildStdin)>,
    /// How often it was started.
    start: u64,
    told: Told,
    /// Lines that are no status, by their first word.
    said: Vec<(String, Told)>,
    /// Snapshots taken and restored in earlier lives.
    taken: u64,
    restored: u64,
    peaks: Peaks,
}

/// The most that was seen: memory and files, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Peaks {
    pub(crate) memory: u64,
    pub(crate) log: u64,
    pub(crate) snapshots: u64,
    pub(crate) others: u64,
}

impl<P: Program> Cluster<P> {
    /// Three nodes, none of which runs yet.
    pub(crate) fn new(program: P) -> Self {
        let (sender, lines) = mpsc::channel();
        Self {
            program,
            nodes: THREE.map(|id| (id, Member::default())).collect(),
            lines,
            sender,
            began: Instant::now(),
            printed: Instant::now(),
            before: 0,
        }
    }

    /// Where others tell what they hear of the nodes.
    pub(crate) fn ear(&self) -> Sender<Line> {
        self.sender.clone()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        THREE.collect()
    }

    pub(crate) fn start(&mut self, id: u64) -> Result<(), Failed> {
        self.note(&format!("node {id} is started"));
        let mut command = self.program.command(id)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (out, orders) = (child.stdout.take(), child.stdin.take());
        let (out, orders) = (out.ok_or("no pipe")?, orders.ok_or("no pipe")?);
        let member = self.nodes.get_mut(&id).ok_or("no such node")?;
        member.start += 1;
        member.running = Some((Process(child), orders));
        let (start, sender) = (member.start, self.sender.clone());
        thread::spawn(move || {
            let ended = Ok("stopped: its process has ended".to_owned());
            let lines = BufReader::new(out).lines().chain([ended]);
            for text in lines.map_while(Result::ok) {
                let line = Line {
                    node: id,
                    start: Some(start),
                    text,
                };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) -> Result<(), Failed> {
        let member = self.nodes.get_mut(&id).ok_or("no such node")?;
        if let Some((mut process, _)) = member.running.take() {
            process.kill()?;
        }
        let told = &mut member.told;
        member.taken += told.remove("taken").unwrap_or(0);
        member.restored += told.remove("restored").unwrap_or(0);
        told.remove("leader");
        told.remove("reading");
        let commit = told.get("commit").copied().unwrap_or(0);
        self.note(&format!("node {id} is killed at entry {commit}"));
        Ok(())
    }

    pub(crate) fn order(&mut self, id: u64, order: &str) -> Result<(), Failed> {
        let member = self.nodes.get_mut(&id).ok_or("no such node")?;
        let (_, orders) = member.running.as_mut().ok_or("the node is down")?;
        Ok(writeln!(orders, "{order}")?)
    }

    /// What a node said of this last; 0 if it never did.
    pub(crate) fn told(&self, id: u64, what: &str) -> u64 {
        let member = self.nodes.get(&id);
        member
            .and_then(|member| member.told.get(what))
            .copied()
            .unwrap_or(0)
    }

    /// The most that any node said of this.
    pub(crate) fn most(&self, what: &str) -> u64 {
        self.nodes
            .keys()
            .map(|id| self.told(*id, what))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn running(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|member| member.running.is_some())
    }

    /// Snapshots taken and restored in all lives of all nodes.
    pub(crate) fn snapshots(&self) -> (u64, u64) {
        let sum = |what: &str, earlier: fn(&Member) -> u64| {
            let all = self.nodes.iter();
            all.map(|(id, member)| earlier(member) + self.told(*id, what))
                .sum()
        };
        (sum("taken", |m| m.taken), sum("restored", |m| m.restored))
    }

    pub(crate) fn leader(&mut self) -> Result<u64, Failed> {
        self.until("a leader", |cluster| cluster.most("leader") == 1)?;
        let leads = self.ids().into_iter().find(|id| self.told(*id, "leader") == 1);
        Ok(leads.ok_or("the leader is gone")?)
    }

    /// A line that a node says once, with the numbers in it.
    pub(crate) fn take(&mut self, id: u64, word: &str) -> Option<Told> {
        let said = &mut self.nodes.get_mut(&id)?.said;
        let at = said.iter().position(|(first, _)| first == word)?;
        Some(said.remove(at).1)
    }

    pub(crate) fn note(&self, what: &str) {
        println!("{:>7.1}s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Watches until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<(), Failed> {
        let began = Instant::now();
        let (mut progress, mut most) = (began, 0);
        while !holds(self) {
            self.listen()?;
            if self.printed.elapsed() > PRINT_EVERY {
                self.print();
            }
            let commit = self.most("commit");
            if commit > most {
                (progress, most) = (Instant::now(), commit);
            }
            if progress.elapsed() > PATIENCE {
                return Err(format!("waited in vain for {what}").into());
            }
        }
        Ok(())
    }

    /// Takes in what the nodes say.
    fn listen(&mut self) -> Result<(), Failed> {
        // That nobody says anything is nothing to worry about yet.
        let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) else {
            return Ok(());
        };
        let member = self.nodes.get_mut(&line.node).ok_or("no such node")?;
        let other = line.start.is_some_and(|start| start != member.start);
        if other || member.running.is_none() {
            return Ok(());
        }
        if let Some(why) = line.text.strip_prefix("stopped") {
            return Err(format!("node {} stopped{why}", line.node).into());
        }
        let (word, rest) = line.text.split_once(' ').unwrap_or((&line.text, ""));
        let numbers = rest.split(' ').filter_map(|part| part.split_once('='));
        let numbers = numbers.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
        let told: Told = numbers.collect();
        match word {
            "at" => member.told.extend(told),
            _ => member.said.push((word.to_owned(), told)),
        }
        Ok(())
    }

    /// One line: how far it is, how fast, and what each node takes.
    fn print(&mut self) {
        let seconds = self.printed.elapsed().as_secs_f64();
        self.printed = Instant::now();
        let commit = self.most("commit");
        let rate = (commit.saturating_sub(self.before)) as f64 / seconds;
        self.before = commit;
        let mut text = format!("entries {commit:>9} {rate:>7.0}/s");
        for id in self.ids() {
            let now = self.measure(id);
            let role = match (self.running(id), self.told(id, "leader")) {
                (false, _) => "down",
                (true, 1) => "leads",
                (true, _) => "",
            };
            let Peaks {
                memory,
                log,
                snapshots,
                others,
            } = now;
            text += &format!(
                " | {id} {role:<5} memory {:>4} log {:>3} snapshots {:>3} others {:>4} MiB",
                mib(memory),
                mib(log),
                mib(snapshots),
                mib(others)
            );
        }
        self.note(&text);
    }

    /// What a node takes now.
    fn measure(&mut self, id: u64) -> Peaks {
        let home = self.program.home(id);
        let Some(member) = self.nodes.get_mut(&id) else {
            return Peaks::default();
        };
        let mut disk = disk_bytes(&home);
        let mut bytes = |name| disk.remove(name).unwrap_or(0);
        let (log, snapshots) = (bytes("log"), bytes("snapshots"));
        let now = Peaks {
            memory: member
                .running
                .as_ref()
                .map_or(0, |(process, _)| process.memory_bytes()),
            log,
            snapshots,
            others: disk.values().sum(),
        };
        member.peaks = member.peaks.with(now);
        now
    }

    /// The most that any node took since this was asked last.
    pub(crate) fn peaks(&mut self) -> Peaks {
        let peaks = self
            .nodes
            .values_mut()
            .map(|member| std::mem::take(&mut member.peaks));
        peaks.fold(Peaks::default(), Peaks::with)
    }

    /// Whether a node has said such a line that nobody has taken yet.
    pub(crate) fn has_said(&self, id: u64, word: &str) -> bool {
        let said = self.nodes.get(&id).map(|member| &member.said);
        said.is_some_and(|said| said.iter().any(|(first, _)| first == word))
    }

    /// Ends every node in order.
    pub(crate) fn end(&mut self) -> Result<(), Failed> {
        for member in self.nodes.values_mut() {
            if let Some((mut process, orders)) = member.running.take() {
                drop(orders);
                process.0.wait()?;
            }
        }
        Ok(())
    }
}

impl Peaks {
    fn with(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            log: self.log.max(other.log),
            snapshots: self.snapshots.max(other.snapshots),
            others: self.others.max(other.others),
        }
    }

    /// Each of them, by name.
    pub(crate) fn all(self) -> [(&'static str, u64); 4] {
        [
            ("memory", self.memory),
            ("log", self.log),
            ("snapshots", self.snapshots),
            ("other files", self.others),
        ]
    }
}
