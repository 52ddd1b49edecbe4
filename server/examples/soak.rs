//! A long load on three processes of `kontiki serve` that keep only the end of their log: lines go in through
//! `kontiki append --lines`, nodes are killed and left behind in between, and in the end every node must hold the same
//! lines, from the same first entry on, while neither disk nor memory has grown with the log.
//!
//! ```text
//! cargo build --release && cargo run --release -p kontiki-server --example soak -- [--entries 1000000] [--rounds 4]
//!     [--retention-bytes 10485760] [--dir DIR] [--kontiki FILE]
//! ```

#[path = "../../kontiki/examples/kv/cluster.rs"]
#[allow(dead_code, reason = "another program shares it")]
mod cluster;
#[path = "../../kontiki/examples/kv/story.rs"]
mod story;
#[path = "../../kontiki/examples/kv/watch.rs"]
mod watch;

use cluster::{Cluster, Line, Program, THREE};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};
use story::Story;
use watch::{Process, mib};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How often the nodes are asked how they are.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Two files of the log are there even if they are empty; the least that goes with the largest batch.
const SEGMENT_BYTES: &str = "9MiB";
/// HTTP ports stand so far above the others.
const HTTP_PORT_OFFSET: u16 = 100;
/// How many ranges of ports are tried.
const RANGES: u32 = 50;

fn main() -> Result<(), Failed> {
    let serve = Serve::lay_out(Args::parse(std::env::args().skip(1))?)?;
    let (args, endpoints) = (serve.args.clone(), serve.endpoints(THREE));
    let began = Instant::now();
    let asking = serve.clone();
    let mut story = Story::begin(serve, args.entries, |_, _| Ok(()))?;
    let ear = story.cluster.ear();
    thread::spawn(move || asking.ask(&ear));
    let mut appending = append(&args, &endpoints)?;
    let told = story.tell(args.rounds);
    let cluster = &mut story.cluster;
    let (commit, seconds) = (cluster.most("commit"), began.elapsed().as_secs_f64());
    cluster.note(&format!(
        "{commit} entries in {seconds:.0} s, {:.0}/s",
        commit as f64 / seconds
    ));
    told?;
    let exit = appending.0.wait()?;
    cluster.note(&format!(
        "append has ended: {exit}; 5 means that it does not know of some lines"
    ));
    compare(cluster, exit.success())?;
    drop(story);
    Ok(fs::remove_dir_all(args.dir)?)
}

/// What was asked for.
#[derive(Clone)]
struct Args {
    entries: u64,
    rounds: u64,
    retention_bytes: u64,
    dir: PathBuf,
    kontiki: PathBuf,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let own = std::env::current_exe()?;
        let built = own.parent().and_then(|examples| examples.parent());
        let mut args = Self {
            entries: 1_000_000,
            rounds: 4,
            retention_bytes: 10 << 20,
            dir: std::env::current_dir()?.join(format!("soak-{}", std::process::id())),
            kontiki: built.ok_or("no directory")?.join("kontiki"),
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            match word.as_str() {
                "--entries" => args.entries = value.parse()?,
                "--rounds" => args.rounds = value.parse()?,
                "--retention-bytes" => args.retention_bytes = value.parse()?,
                "--dir" => args.dir = value.into(),
                "--kontiki" => args.kontiki = value.into(),
                other => return Err(format!("{other} is not known").into()),
            }
        }
        Ok(args)
    }

    /// The binary, deaf to the environment.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.kontiki);
        command.env_remove("KONTIKI_ENDPOINTS").env_remove("KONTIKI_LOG");
        command
    }
}

/// Three nodes of `kontiki serve`.
#[derive(Clone)]
struct Serve {
    args: Args,
    base_port: u16,
}

impl Program for Serve {
    fn command(&self, node: u64) -> Result<Command, Failed> {
        let mut command = self.args.command();
        let log = self.args.dir.join(format!("log{node}"));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let config = self.args.dir.join(format!("n{node}.toml"));
        command.arg("serve").arg("--config").arg(config).stderr(log);
        Ok(command)
    }

    fn home(&self, node: u64) -> PathBuf {
        self.args.dir.join(format!("n{node}"))
    }
}

impl Serve {
    /// Makes the cluster by `kontiki init`, and has it forget.
    fn lay_out(args: Args) -> Result<Self, Failed> {
        let base_port = free_ports()?;
        let mut init = args.command();
        init.args([
            "init",
            "--segment-bytes",
            SEGMENT_BYTES,
            "--base-port",
            &base_port.to_string(),
        ]);
        let made = init.arg("--dir").arg(&args.dir).output()?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into());
        }
        for node in THREE {
            let path = args.dir.join(format!("n{node}.toml"));
            let text = fs::read_to_string(&path)?;
            let line = format!("retention_bytes = {}\n", args.retention_bytes);
            fs::write(&path, text.replacen("[peers]", &format!("{line}\n[peers]"), 1))?;
        }
        Ok(Self { args, base_port })
    }

    /// The values of `--endpoint` for these nodes.
    fn endpoints(&self, nodes: impl IntoIterator<Item = u64>) -> String {
        let port = |node| u64::from(self.base_port + HTTP_PORT_OFFSET) + node;
        let endpoint = |node| format!("http://127.0.0.1:{}", port(node));
        let endpoints: Vec<_> = nodes.into_iter().map(endpoint).collect();
        endpoints.join(",")
    }

    /// Tells how the nodes are, again and again.
    fn ask(&self, ear: &Sender<Line>) {
        let endpoints = self.endpoints(THREE);
        loop {
            let mut status = self.args.command();
            status.args(["status", "--json", "--timeout", "1s", "--endpoint", &endpoints]);
            // What cannot be asked now is asked again.
            let said = status.output().map(|output| output.stdout).unwrap_or_default();
            let lines = said.lines().map_while(Result::ok);
            if lines
                .filter_map(|line| heard(&line))
                .any(|line| ear.send(line).is_err())
            {
                return;
            }
            thread::sleep(ASK_EVERY);
        }
    }
}

/// What a line of `kontiki status --json` says of a node that answers.
fn heard(line: &str) -> Option<Line> {
    let status: Value = serde_json::from_str(line).ok()?;
    let node = status["node"].as_u64()?;
    let [first, commit, last] = ["first", "commit", "last"].map(|name| status[name].as_u64());
    let (first, commit, last) = (first?, commit?, last?);
    let leader = u8::from(status["role"] == "leader");
    let text = match status["stopped"].as_str() {
        Some(why) => format!("stopped itself: {why}"),
        None => format!("at leader={leader} first={first} commit={commit} last={last}"),
    };
    let start = None;
    Some(Line { node, start, text })
}

/// A base port whose neighbours are free at this moment.
fn free_ports() -> Result<u16, Failed> {
    let free = |base: u16| {
        let udp = THREE
            .into_iter()
            .all(|node| UdpSocket::bind(("127.0.0.1", base + node as u16)).is_ok());
        let http = |node| base + HTTP_PORT_OFFSET + node as u16;
        udp && THREE
            .into_iter()
            .all(|node| TcpListener::bind(("127.0.0.1", http(node))).is_ok())
    };
    let first = std::process::id();
    let bases = (0..RANGES).map(|n| 10_000 + ((first + n) % 100) as u16 * 200);
    Ok(bases
        .into_iter()
        .find(|base| free(*base))
        .ok_or("no free range of ports")?)
}

/// Line `number` of all that are appended.
fn line(number: u64) -> String {
    format!(
        "line {number:010} {:>40}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

/// Begins to append all lines.
fn append(args: &Args, endpoints: &str) -> Result<Process, Failed> {
    let mut command = args.command();
    command.args([
        "append",
        "--lines",
        "-",
        "--timeout",
        "2m",
        "--endpoint",
        endpoints,
    ]);
    let said = File::create(args.dir.join("append"))?;
    let mut child: Child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()?;
    let input = child.stdin.take().ok_or("no pipe")?;
    let mut input = BufWriter::with_capacity(1 << 20, input);
    // A few more than are waited for: some may be lost with a leader.
    let entries = args.entries + args.entries / 10;
    thread::spawn(move || -> io::Result<()> {
        for number in 1..=entries {
            writeln!(input, "{}", line(number))?;
        }
        input.flush()
    });
    Ok(Process(child))
}

/// What a node gives when everything it holds is read.
#[derive(PartialEq, Debug)]
struct Held {
    first: u64,
    entries: u64,
    bytes: u64,
    hash: u64,
    last_line: u64,
}

/// Reads everything from every node, and compares. `whole` says that no line may be missing.
fn compare(cluster: &mut Cluster<Serve>, whole: bool) -> Result<(), Failed> {
    let mut all = Vec::new();
    for node in cluster.ids() {
        let held = read(&cluster.program, node, cluster.told(node, "first"), whole)?;
        cluster.note(&format!("node {node}: {held:?}, {} MiB", mib(held.bytes)));
        all.push(held);
    }
    if all.iter().any(|held| Some(held) != all.first()) {
        return Err("the nodes differ".into());
    }
    cluster.note("equal on all nodes");
    Ok(())
}

fn read(serve: &Serve, node: u64, first: u64, whole: bool) -> Result<Held, Failed> {
    let mut command = serve.args.command();
    command.args([
        "read",
        &format!("{first}.."),
        "--endpoint",
        &serve.endpoints([node]),
    ]);
    let mut child = Process(command.stdout(Stdio::piped()).spawn()?);
    let out = child.0.stdout.take().ok_or("no pipe")?;
    let mut held = Held {
        first,
        entries: 0,
        bytes: 0,
        hash: 0xcbf2_9ce4_8422_2325,
        last_line: 0,
    };
    for text in BufReader::with_capacity(1 << 20, out).lines() {
        held.take(&text?, whole)?;
    }
    match child.0.wait()? {
        exit if exit.success() => Ok(held),
        exit => Err(format!("node {node} cannot be read: {exit}").into()),
    }
}

impl Held {
    /// Takes in the next line, which must be one that was appended, and come after the one before.
    fn take(&mut self, text: &str, whole: bool) -> Result<(), Failed> {
        let number = text
            .get(5..15)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let follows = if whole && self.entries > 0 {
            number == self.last_line + 1
        } else {
            number > self.last_line
        };
        if text != line(number) || !follows {
            return Err(format!("after line {} there is {text:?}", self.last_line).into());
        }
        self.last_line = number;
        self.entries += 1;
        self.bytes += text.len() as u64 + 1;
        self.hash = text.bytes().chain([b'\n']).fold(self.hash, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(())
    }
}
