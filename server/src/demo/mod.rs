//! `kontiki demo`: a whole cluster in this process, and a prompt to play with it.
//!
//! Entries and tables go to standard output, everything else to standard error, so that a script can drive it.

mod cluster;
mod command;
mod follow;
mod place;

use crate::{
    append::append_lines,
    cli::DemoArgs,
    failure::{Failure, Stop},
    input::Input,
    interrupts::Interrupts,
    output::{Data, entries, printable, reader_gone, say, table},
    range::EntryRange,
    status::cell,
};
use cluster::{Cluster, State};
use command::{Command, HELP};
use follow::Follower;
use kontiki::{Code, Raw};
use place::Place;
use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    pin::pin,
    thread,
};
use tokio::{sync::mpsc, task::spawn_blocking};

const PROMPT: &str = "kontiki> ";

/// `tail` begins with the last so many entries.
const TAIL_ENTRIES: u64 = 10;

/// Runs the demo.
pub(crate) async fn run(args: &DemoArgs) -> Result<(), Stop> {
    let mut interrupts = Interrupts::listen()?;
    let place = prepare(args.clone(), &mut interrupts).await?;
    let mut session = tokio::select! {
        session = Session::open(&place) => session?,
        _ = interrupts.next() => return Err(Stop::Said(Code::Interrupted)),
    };
    let ended = session.obey(&mut interrupts).await;
    interrupts.through(session.cluster.stop()).await?;
    drop(interrupts);
    if place.kept {
        say!("The cluster is kept in {}.", place.dir.display());
    }
    ended
}

/// Finds or makes the cluster, which takes a moment. A signal meanwhile ends the demo, but only once what was begun is there
/// to be removed.
async fn prepare(args: DemoArgs, interrupts: &mut Interrupts) -> Result<Place, Stop> {
    let preparing = spawn_blocking(move || Place::prepare(&args));
    let prepared = interrupts.through(preparing).await;
    let place = prepared.map_err(|error| Failure::new(Code::Io, format!("cannot start: {error}")))??;
    match interrupts.any() {
        true => Err(Stop::Said(Code::Interrupted)),
        false => Ok(place),
    }
}

struct Session {
    cluster: Cluster,
    follower: Option<Follower>,
    /// The end of the log as far as this session knows.
    last: u64,
    prompt: &'static str,
}

impl Session {
    async fn open(place: &Place) -> Result<Self, Stop> {
        let cluster = Cluster::start(place)?;
        let status = cluster.ready().await?;
        greet(place, &cluster, &status);
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let prompt = if terminal { PROMPT } else { "" };
        Ok(Self {
            cluster,
            follower: None,
            last: status.commit,
            prompt,
        })
    }

    /// Obeys commands until there are no more. From a pipe, the first failure decides the exit code.
    async fn obey(&mut self, interrupts: &mut Interrupts) -> Result<(), Stop> {
        let mut lines = read_lines();
        let mut failed = None;
        let mut gone = pin!(reader_gone());
        while !interrupts.any() {
            self.show_prompt();
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = interrupts.next() => break,
                () = &mut gone => return Err(Stop::ReaderGone),
            };
            let Some(line) = line else { break };
            match self.line(&line?, interrupts).await {
                Ok(Next::Line) => {}
                Ok(Next::End) => break,
                Err(Stop::Failed(failure)) => {
                    say!("{failure}");
                    failed = failed.or(Some(failure.code));
                }
                Err(Stop::Said(code)) => failed = failed.or(Some(code)),
                Err(Stop::ReaderGone) => return Err(Stop::ReaderGone),
            }
        }
        if interrupts.any() {
            self.follower = None;
        }
        self.stop_following().await;
        match failed.filter(|_| self.prompt.is_empty()) {
            _ if interrupts.any() => Err(Stop::Said(Code::Interrupted)),
            Some(code) => Err(Stop::Said(code)),
            None => Ok(()),
        }
    }

    fn show_prompt(&self) {
        let mut out = io::stdout().lock();
        // If the terminal is gone, so is its input, and that ends the session.
        let _ = write!(out, "{}", self.prompt).and_then(|()| out.flush());
    }

    async fn line(&mut self, line: &[u8], interrupts: &mut Interrupts) -> Result<Next, Stop> {
        let command = command::parse(line).map_err(|what| Failure::new(Code::Usage, what))?;
        match command {
            Command::Quit => return Ok(Next::End),
            Command::AppendFile(path) => self.append_file(&path, interrupts).await?,
            command => tokio::select! {
                done = self.quick(command) => done?,
                _ = interrupts.next() => {}
            },
        }
        Ok(Next::Line)
    }

    /// Commands that are over soon.
    async fn quick(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Append(text) => self.append(text).await?,
            Command::Read(range, at) => self.read(range, at).await?,
            Command::Tail => self.tail().await,
            Command::Status => self.status()?,
            Command::Kill(id) => self.kill(id).await?,
            Command::Pause(id) => {
                self.cluster.pause(id)?;
                self.cluster.settle().await;
                say!("Node {id} is frozen; `start {id}` unfreezes it.");
            }
            Command::Start(id) => {
                self.cluster.revive(id)?;
                say!("Node {id} runs again.");
            }
            Command::Help => say!("{HELP}"),
            Command::Nothing | Command::AppendFile(_) | Command::Quit => {}
        }
        Ok(())
    }

    async fn append(&mut self, text: Vec<u8>) -> Result<(), Failure> {
        let appended = self.cluster.append(&[Raw(text.into())]).await;
        let (node, appended) = appended.map_err(|error| error.into_append_failure())?;
        self.last = self.last.max(appended.last);
        say!("Entry {}, through node {node}.", appended.last);
        Ok(())
    }

    async fn append_file(&mut self, path: &Path, interrupts: &mut Interrupts) -> Result<(), Stop> {
        let report = append_lines(&self.cluster, Input::open(path)?, false, interrupts).await;
        self.last = self.last.max(report.last_index().unwrap_or(0));
        say!("{}", report.told());
        report.code().map_or(Ok(()), |code| Err(Stop::Said(code)))
    }

    /// Prints a range page by page. The first page fixes the end.
    async fn read(&mut self, range: EntryRange, at: Option<u64>) -> Result<(), Stop> {
        let mut data = Data::new();
        let from = range.from.unwrap_or(1);
        let (mut next, mut end) = (from, range.to.unwrap_or(u64::MAX));
        let (mut nodes, mut last) = (Vec::new(), u64::MAX);
        while next < end {
            let (node, page) = self.cluster.read(next, end, at).await?;
            last = last.min(page.last_index);
            end = end.min(page.last_index.saturating_add(1));
            for entry in &page.entries {
                data.bytes(format!("{}\t{}\n", entry.index, printable(&entry.value.0)).as_bytes())?;
                next = entry.index + 1;
            }
            nodes.push(node);
            if page.entries.is_empty() {
                break;
            }
        }
        data.flush()?;
        nodes.dedup();
        let beyond = range.to.unwrap_or(from) > last.saturating_add(1);
        let log_end = beyond.then(|| format!(" The log ends at entry {last}."));
        let (read, nodes) = (entries(next - from), list(&nodes));
        say!("{read}, from node {nodes}.{}", log_end.unwrap_or_default());
        Ok(())
    }

    async fn tail(&mut self) {
        if self.follower.is_some() {
            self.stop_following().await;
            return say!("No longer following.");
        }
        let from = (self.last + 1).saturating_sub(TAIL_ENTRIES).max(1);
        say!("Following from entry {from}; `tail` again to stop.");
        self.follower = Some(Follower::start(self.cluster.live().clone(), from, self.prompt));
    }

    async fn stop_following(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.stop(self.last).await;
        }
    }

    fn status(&self) -> Result<(), Stop> {
        let rows: Vec<[String; 6]> = self
            .cluster
            .states()
            .into_iter()
            .map(|(id, state)| row(id, state))
            .collect();
        let mut data = Data::new();
        data.bytes(table(["node", "role", "term", "leader", "commit", "last"], &rows).as_bytes())?;
        data.flush()
    }

    async fn kill(&mut self, id: u64) -> Result<(), Failure> {
        let led = self.leads(id);
        self.cluster.kill(id).await?;
        self.cluster.settle().await;
        let news = match (led, self.cluster.has_majority()) {
            (_, false) => ", and those that are left are no majority: nothing can be appended now",
            (true, true) => "; it was the leader, so the others elected a new one",
            (false, true) => "",
        };
        say!("Node {id} is dead{news}. `start {id}` starts it again from its directory.");
        Ok(())
    }

    fn leads(&self, id: u64) -> bool {
        let mut states = self.cluster.states().into_iter();
        states.any(|(node, state)| matches!(state, State::Running(status) if node == id && status.leader == Some(id)))
    }
}

/// What comes after a command.
enum Next {
    Line,
    End,
}

fn row(id: u64, state: State) -> [String; 6] {
    let down = |role: &str| {
        [
            id.to_string(),
            role.into(),
            cell(None),
            cell(None),
            cell(None),
            cell(None),
        ]
    };
    match state {
        State::Paused => down("paused"),
        State::Killed => down("killed"),
        State::Running(status) => {
            let numbers = [
                Some(status.term),
                status.leader,
                Some(status.commit),
                Some(status.last),
            ]
            .map(cell);
            let [term, leader, commit, last] = numbers;
            [
                id.to_string(),
                status.role.to_string(),
                term,
                leader,
                commit,
                last,
            ]
        }
    }
}

fn list(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", then ")
    }
}

/// Says what was made, where, and what to try.
fn greet(place: &Place, cluster: &Cluster, status: &kontiki::Status) {
    let (dir, nodes) = (place.dir.display(), place.nodes);
    say!(
        "A cluster of {nodes} nodes in this process: each has a log of its own on disk, and they talk TLS.\n"
    );
    for (id, address) in cluster.addresses() {
        say!("  node {id}  {address}  {dir}/n{id}");
    }
    let leader = status
        .leader
        .map(|id| format!("Node {id} leads in term {}. ", status.term))
        .unwrap_or_default();
    let log = match status.commit {
        0 => "The log is empty.".to_owned(),
        last => format!("The log holds {}.", entries(last)),
    };
    say!("\n{leader}{log}");
    if !place.kept {
        say!("The directory is temporary and removed at the end; --data-dir DIR keeps one.");
    }
    let victim = status.leader.unwrap_or(1);
    say!(
        "\nTry: append hello | append-file PATH | read .. | status | kill {victim} | append still here | start {victim}"
    );
    say!("`help` lists all commands, `quit` ends.\n");
}

/// Lines of standard input, without their ends, read on a thread of its own: a read may never return.
fn read_lines() -> mpsc::Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            let line =
                line.map_err(|error| Failure::new(Code::Io, format!("cannot read standard input: {error}")));
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
