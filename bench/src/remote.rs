//! Kontiki as a server: three processes of `kontiki serve`, and clients that speak its HTTP.
//!
//! The program is built from this tree first, so that it is never another one that is measured. Ten clients share a
//! channel; or, over plain HTTP/1.1, which carries one request at a time, each has a connection of its own.

use crate::{
    Failed,
    channel::{Asks, Channel},
    entries::{self, Proof},
    load::{Client, Figures, Stretch, closed_loop},
    options::Options,
    process::{PATIENCE, Process, free_ports, tried_again},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki::Carrier;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// As etcd gets them.
const CLIENTS_A_CONNECTION: usize = 10;

/// Builds the program, if one of these subjects is to be measured, and says where it is.
pub(crate) fn build_for(options: &Options, subjects: &[&str]) -> Result<PathBuf, Failed> {
    if subjects.iter().any(|subject| options.wants(subject)) {
        build()
    } else {
        Ok(PathBuf::new())
    }
}

/// Builds the program, and says where it is.
pub(crate) fn build() -> Result<PathBuf, Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "-q",
            "-p",
            "kontiki-server",
            "--bin",
            "kontiki",
        ])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .status()?;
    if !built.success() {
        return Err("`kontiki` cannot be built".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release").join("kontiki"))
}

/// Three servers.
pub(crate) struct Servers {
    pub(crate) nodes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    pub(crate) leader: usize,
    runtime: tokio::runtime::Runtime,
    clients: u32,
    acknowledged: u64,
}

impl Servers {
    /// Starts them in a directory, with their defaults and these lines of configuration, and waits for a leader.
    pub(crate) fn start(
        program: &Path,
        dir: &Path,
        carrier: Carrier,
        settings: &str,
    ) -> Result<Self, Failed> {
        let settings = format!("carrier = \"{carrier}\"\n{settings}");
        let mut tries = 0;
        tried_again(|| {
            tries += 1;
            Self::start_in(program, &dir.join(format!("try{tries}")), &settings)
        })
    }

    fn start_in(program: &Path, dir: &Path, settings: &str) -> Result<Self, Failed> {
        let base = base_port()?;
        let made = Command::new(program)
            .args(["init", "--base-port", &base.to_string(), "--dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !made.success() {
            return Err("`kontiki init` failed".into());
        }
        let nodes = (1..=3)
            .map(|n| {
                let config = fs::canonicalize(dir.join(format!("n{n}.toml")))?;
                // In front: a table may stand at the end.
                fs::write(&config, format!("{settings}\n{}", fs::read_to_string(&config)?))?;
                let mut serve = Command::new(program);
                Process::start(serve.args(["serve", "--log", "error", "--config"]).arg(config))
            })
            .collect::<Result<_, Failed>>()?;
        let mut servers = Self {
            nodes,
            addresses: (1..=3)
                .map(|n| SocketAddr::from(([127, 0, 0, 1], base + 100 + n)))
                .collect(),
            leader: 0,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            clients: 0,
            acknowledged: 0,
        };
        servers.find_leader()?;
        Ok(servers)
    }

    /// Waits until all servers answer and one of them leads. Two would do for a leader: but the third may have ended because its
    /// port was taken.
    fn find_leader(&mut self) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let statuses = self
                .addresses
                .iter()
                .map(|address| self.runtime.block_on(status(*address)));
            let statuses: Vec<_> = statuses.collect();
            let leads = |text: &String| text.contains("\"role\":\"leader\"");
            let leader = statuses
                .iter()
                .position(|status| status.as_ref().is_ok_and(leads));
            if let Some(leader) = leader.filter(|_| statuses.iter().all(Result::is_ok)) {
                self.leader = leader;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("no server leads, or not all of them answer".into())
    }

    /// Lets clients append in a closed loop, ten on a channel to the leader.
    pub(crate) fn append(&mut self, clients: u32, bytes: usize, stretch: Stretch) -> Result<Figures, Failed> {
        let first = self.clients;
        self.clients += clients;
        let names: Vec<u64> = (first..first + clients).map(u64::from).collect();
        let figures = self.channels(&names, || Asks::Appends(bytes), stretch)?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// Lets clients read one entry each in a closed loop, ten on a channel to the leader.
    pub(crate) fn read(
        &mut self,
        consistency: &str,
        clients: u32,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let last = self.acknowledged;
        let names: Vec<u64> = (0..u64::from(clients)).map(|n| last - n % last.max(1)).collect();
        let kind = match consistency {
            "linearizable" => 0,
            "lease" => 1,
            _ => 2,
        };
        self.channels(&names, || Asks::Reads(kind), stretch)
    }

    fn channels(
        &mut self,
        names: &[u64],
        asks: impl Fn() -> Asks,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let address = self.addresses[self.leader];
        self.runtime.block_on(async {
            let mut channels = Vec::new();
            for names in names.chunks(CLIENTS_A_CONNECTION) {
                channels.push(Channel::open(address, asks(), names.iter().copied()).await?);
            }
            closed_loop(channels, stretch).await
        })
    }

    /// Lets clients append in a closed loop, each on a connection of its own to the leader.
    pub(crate) fn append_plain(
        &mut self,
        clients: u32,
        bytes: usize,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let first = self.clients;
        self.clients += clients;
        let address = self.addresses[self.leader];
        let figures = self.runtime.block_on(async {
            let mut appenders = Vec::new();
            for client in first..first + clients {
                appenders.push(Appender {
                    connection: Connection::open(address).await?,
                    client,
                    number: 0,
                    bytes,
                });
            }
            closed_loop(appenders, stretch).await
        })?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// Lets clients read one entry each in a closed loop, each on a connection of its own.
    pub(crate) fn read_plain(
        &mut self,
        consistency: &str,
        clients: u32,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let (address, last) = (self.addresses[self.leader], self.acknowledged);
        self.runtime.block_on(async {
            let mut readers = Vec::new();
            for n in 0..u64::from(clients) {
                let from = last - n % last.max(1);
                readers.push(Reader {
                    connection: Connection::open(address).await?,
                    path: format!(
                        "/v1/entries?from={from}&to={}&consistency={consistency}",
                        from + 1
                    ),
                });
            }
            closed_loop(readers, stretch).await
        })
    }

    /// All nodes hold the same log, and in it what was acknowledged, each client's in order.
    pub(crate) fn check(&mut self) -> Result<(), Failed> {
        let mut found = Vec::new();
        for address in &self.addresses {
            found.push(self.runtime.block_on(digest(*address, self.acknowledged))?);
        }
        if found.iter().any(|one| *one != found[0]) {
            return Err(format!("the servers' logs differ: {found:?}").into());
        }
        Ok(())
    }
}

/// A port that is free with all those that `kontiki init` counts from it.
fn base_port() -> Result<u16, Failed> {
    for _ in 0..100 {
        let base = free_ports(1)?[0];
        let free = |port: u16| std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok();
        let open = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if base < 65_000 && (1..=3).all(|n| free(base + n) && open(base + 100 + n)) {
            return Ok(base);
        }
    }
    Err("no ports are free".into())
}

async fn status(address: SocketAddr) -> Result<String, Failed> {
    let mut connection = Connection::open(address).await?;
    let body = connection.request("GET", "/v1/status", &[]).await?;
    Ok(String::from_utf8(body.to_vec())?)
}

/// Reads a node's log, once it has all entries.
async fn digest(address: SocketAddr, last: u64) -> Result<(u64, u64), Failed> {
    let end = Instant::now() + PATIENCE;
    let mut connection = Connection::open(address).await?;
    let mut proof = Proof::default();
    let mut next = 1;
    while next <= last {
        let to = (last + 1).min(next + 10_000);
        let path = format!("/v1/entries?from={next}&to={to}&consistency=stale");
        let mut body = connection.request("GET", &path, &[]).await?;
        if body.is_empty() {
            if Instant::now() > end {
                return Err(format!("a server has {} entries of {last}", next - 1).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while body.has_remaining() {
            let len = body.try_get_u32_le()? as usize;
            if len > body.len() {
                return Err("an answer ends in the middle of an entry".into());
            }
            proof.add(&body.split_to(len))?;
            next += 1;
        }
    }
    let after = format!("/v1/entries?from={}&consistency=stale", last + 1);
    if !connection.request("GET", &after, &[]).await?.is_empty() {
        return Err("a server has more entries than were acknowledged".into());
    }
    Ok(proof.finish())
}

/// A client that appends.
struct Appender {
    connection: Connection,
    client: u32,
    number: u32,
    bytes: usize,
}

impl Client for Appender {
    async fn call(&mut self) -> Result<(), Failed> {
        let entry = entries::entry(self.client, self.number, self.bytes);
        self.number += 1;
        let mut body = BytesMut::with_capacity(entry.len() + 4);
        body.put_u32_le(u32::try_from(entry.len())?);
        body.put_slice(&entry);
        self.connection
            .request("POST", "/v1/entries", &body)
            .await
            .map(drop)
    }
}

/// A client that reads the same entry again and again.
struct Reader {
    connection: Connection,
    path: String,
}

impl Client for Reader {
    async fn call(&mut self) -> Result<(), Failed> {
        let body = self.connection.request("GET", &self.path, &[]).await?;
        if body.len() < 4 {
            return Err("an entry was not there".into());
        }
        Ok(())
    }
}

/// A connection that carries one request after the other.
struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    sent: BytesMut,
    received: BytesMut,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, Failed> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address,
            sent: BytesMut::new(),
            received: BytesMut::new(),
        })
    }

    /// One request; gives the body of its answer.
    async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Bytes, Failed> {
        self.sent.clear();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/octet-stream\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.sent.put_slice(head.as_bytes());
        self.sent.put_slice(body);
        self.stream.write_all(&self.sent).await?;
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head.to_vec())?.to_ascii_lowercase();
        let length = header(&head, "content-length").map(str::parse).transpose()?;
        let body = match length {
            Some(length) => self.exactly(length).await?,
            None if header(&head, "transfer-encoding") == Some("chunked") => self.chunks().await?,
            None => return Err("an answer without an end".into()),
        };
        if head.starts_with("http/1.1 200") {
            Ok(body)
        } else {
            Err(format!("{path}: {}", String::from_utf8_lossy(&body)).into())
        }
    }

    async fn chunks(&mut self) -> Result<Bytes, Failed> {
        let mut body = BytesMut::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let length = usize::from_str_radix(std::str::from_utf8(&line)?.trim(), 16)?;
            let chunk = self.exactly(length + 2).await?;
            if length == 0 {
                return Ok(body.freeze());
            }
            body.put_slice(&chunk[..length]);
        }
    }

    /// What comes before this mark, which is taken too.
    async fn until(&mut self, mark: &[u8]) -> Result<Bytes, Failed> {
        loop {
            if let Some(at) = self
                .received
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(self.received.split_to(at + mark.len()).freeze());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, bytes: usize) -> Result<Bytes, Failed> {
        while self.received.len() < bytes {
            self.more().await?;
        }
        Ok(self.received.split_to(bytes).freeze())
    }

    async fn more(&mut self) -> Result<(), Failed> {
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err("a server has closed a connection".into());
        }
        Ok(())
    }
}

/// The value of a header in a head in small letters.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}
