//! Processes of the bench: started, talked to line by line, measured from outside, stopped, frozen and killed.
//!
//! Invariant: none outlives the value that stands for it, and no directory outlives its run.

use crate::Failed;
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

/// How long a process may take for anything beyond what it was asked to take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ticks of the clock that counts CPU time: always this on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A directory for one run; removed with all that is in it.
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    pub(crate) fn new(base: &Path, name: &str) -> Result<Self, Failed> {
        let dir = base.join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(Self(fs::canonicalize(dir)?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a program. Its standard output is read line by line.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failed> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().ok_or("no pipe")?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts this program again, with other words.
    pub(crate) fn own(words: &[String]) -> Result<Self, Failed> {
        Self::start(Command::new(std::env::current_exe()?).args(words))
    }

    /// Asks for something, and waits for the line that answers it.
    pub(crate) fn ask(&mut self, question: &str, takes: Duration) -> Result<String, Failed> {
        self.tell(question)?;
        self.answer(question, takes)
    }

    pub(crate) fn tell(&mut self, question: &str) -> Result<(), Failed> {
        let stdin = self.stdin.as_mut().ok_or("the process was told to end")?;
        Ok(stdin.write_all(format!("{question}\n").as_bytes())?)
    }

    /// Waits for the next line.
    pub(crate) fn answer(&mut self, question: &str, takes: Duration) -> Result<String, Failed> {
        let line = self
            .lines
            .recv_timeout(takes + PATIENCE)
            .map_err(|_| format!("process {} does not answer `{question}`", self.child.id()))?;
        match line.strip_prefix("failed ") {
            Some(what) => Err(format!("`{question}`: {what}").into()),
            None => Ok(line),
        }
    }

    /// CPU time it has used so far, all its threads, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration, Failed> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let ticks = |n: usize| {
            fields
                .get(n)
                .and_then(|f| f.parse::<f64>().ok())
                .ok_or("no such field")
        };
        Ok(Duration::from_secs_f64(
            (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        ))
    }

    /// Memory it has resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failed> {
        self.proc_number("status", "VmRSS:").map(|kib| kib << 10)
    }

    /// Bytes it has caused to be written to disk.
    pub(crate) fn written_bytes(&self) -> Result<u64, Failed> {
        self.proc_number("io", "write_bytes:")
    }

    fn proc_number(&self, file: &str, field: &str) -> Result<u64, Failed> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        Ok(number.ok_or_else(|| format!("no {field} in /proc"))?)
    }

    /// Lets all its threads, and those to come, run on these cores only.
    pub(crate) fn pin(&self, cores: &[usize]) -> Result<(), Failed> {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let id = task?.file_name().to_string_lossy().parse()?;
            sched_setaffinity(Pid::from_raw(id), &set)?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let id = i32::try_from(self.child.id())?;
        Ok(kill_process(Pid::from_raw(id).ok_or("no such process")?, signal)?)
    }

    /// Kills it at once, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it by ending its standard input; an error if it ended with one.
    pub(crate) fn end(&mut self) -> Result<(), Failed> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("process {} ended with {status}", self.child.id()).into())
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU time of several.
pub(crate) fn cpu_of<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Result<Duration, Failed> {
    processes.into_iter().map(Process::cpu).sum()
}

/// Free ports of 127.0.0.1, for UDP and TCP. Another program may take one before it is used: then the start fails, and
/// is tried again with others.
pub(crate) fn free_ports(n: usize) -> Result<Vec<u16>, Failed> {
    let mut held = Vec::new();
    while held.len() < n {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            held.push((port, tcp, udp));
        }
    }
    Ok(held.iter().map(|(port, _, _)| *port).collect())
}

/// Tries a start again that may have failed for a port that was taken.
pub(crate) fn tried_again<T>(mut start: impl FnMut() -> Result<T, Failed>) -> Result<T, Failed> {
    let mut last = start();
    for _ in 0..2 {
        if last.is_ok() {
            break;
        }
        last = start();
    }
    last
}
