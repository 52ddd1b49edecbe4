//! etcd: three processes of the one that is installed, and clients that speak its gRPC.
//!
//! gRPC and not its JSON gateway, which costs the server a second conversion of every request; all clients at the
//! leader, which spares it forwarding. The messages are a few fields of protocol buffers, written and read here.

use crate::{
    Failed,
    load::{Client, Figures, Stretch, closed_loop, paced},
    process::{PATIENCE, Process, free_ports, tried_again},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const HASH: &str = "/etcdserverpb.Maintenance/HashKV";

/// Clients share connections, as many as where etcd's documentation runs its own benchmark.
const CLIENTS_PER_CONNECTION: usize = 10;

/// How many keys are put in turn where there are no clients.
const PACED_KEYS: u32 = 256;

/// Whether it is installed, and which one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("etcd")
        .arg("--version")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.strip_prefix("etcd Version: ")?.to_owned())
}

/// Three members.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Process>,
    commands: Vec<Vec<String>>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) leader: usize,
    runtime: tokio::runtime::Runtime,
    clients: u32,
    acknowledged: u64,
}

impl Etcd {
    /// Starts them in a directory, with their defaults (heartbeat 100 ms, election timeout 1 s), and waits for a leader.
    pub(crate) fn start(dir: &Path) -> Result<Self, Failed> {
        let mut tries = 0;
        tried_again(|| {
            tries += 1;
            Self::start_in(&dir.join(format!("try{tries}")))
        })
    }

    fn start_in(dir: &Path) -> Result<Self, Failed> {
        let ports = free_ports(6)?;
        let url = |n: usize| format!("http://127.0.0.1:{}", ports[n]);
        let all: Vec<String> = (0..3).map(|n| format!("m{n}={}", url(n + 3))).collect();
        let commands: Vec<Vec<String>> = (0..3)
            .map(|n| {
                let options = [
                    ("name", format!("m{n}")),
                    ("data-dir", dir.join(format!("m{n}")).display().to_string()),
                    ("listen-client-urls", url(n)),
                    ("advertise-client-urls", url(n)),
                    ("listen-peer-urls", url(n + 3)),
                    ("initial-advertise-peer-urls", url(n + 3)),
                    ("initial-cluster", all.join(",")),
                    ("quota-backend-bytes", (8_u64 << 30).to_string()),
                    ("logger", "zap".into()),
                    ("log-level", "fatal".into()),
                ];
                options
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}"))
                    .collect()
            })
            .collect();
        let mut etcd = Self {
            members: commands
                .iter()
                .map(|words| spawn(words))
                .collect::<Result<_, _>>()?,
            commands,
            addresses: ports[..3]
                .iter()
                .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
                .collect(),
            leader: 0,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            clients: 0,
            acknowledged: 0,
        };
        etcd.find_leader()?;
        Ok(etcd)
    }

    /// Starts a member again that was killed.
    pub(crate) fn restart(&mut self, n: usize) -> Result<(), Failed> {
        self.members[n].kill();
        self.members[n] = spawn(&self.commands[n])?;
        Ok(())
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// Waits until all members know the same leader.
    pub(crate) fn find_leader(&mut self) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        let mut last: Failed = "no member leads".into();
        while Instant::now() < end {
            match self.runtime.block_on(leader_of(&self.addresses)) {
                Ok(Some(leader)) => {
                    self.leader = leader;
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) => last = error,
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(last)
    }

    /// Lets clients put values of so many bytes in a closed loop, each under a key of its own.
    pub(crate) fn put(&mut self, clients: u32, bytes: usize, stretch: Stretch) -> Result<Figures, Failed> {
        let first = self.clients;
        self.clients += clients;
        let address = self.addresses[self.leader];
        let figures = self.runtime.block_on(async {
            let connections = connections(address, clients as usize).await?;
            let clients = (first..first + clients).zip(connections.iter().cycle());
            let put = clients.map(|(client, connection)| Call {
                connection: connection.clone(),
                path: PUT,
                message: put_request(&key(client), bytes),
            });
            closed_loop(put.collect(), stretch).await
        })?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// Puts so often a second, whether or not those before are answered.
    pub(crate) fn paced(
        &mut self,
        per_second: f64,
        bytes: usize,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let address = self.addresses[self.leader];
        let first = self.clients;
        self.clients += PACED_KEYS;
        let figures = self.runtime.block_on(async {
            let connections = connections(address, PACED_KEYS as usize).await?;
            let mut turn = (first..first + PACED_KEYS)
                .zip(connections.iter().cycle())
                .cycle();
            let put = || {
                let next = turn.next().map(|(client, connection)| Call {
                    connection: connection.clone(),
                    path: PUT,
                    message: put_request(&key(client), bytes),
                });
                let mut put = tokio::spawn(async move {
                    next.ok_or("no connection")?.call().await?;
                    Ok(Instant::now())
                });
                poll_fn(move |context| Pin::new(&mut put).poll(context).map(|put| put?))
            };
            paced(per_second, stretch, put).await
        })?;
        self.acknowledged += figures.total;
        Ok(figures)
    }

    /// Lets clients read a key each in a closed loop; serializable reads are answered without asking the others.
    pub(crate) fn range(
        &mut self,
        serializable: bool,
        clients: u32,
        stretch: Stretch,
    ) -> Result<Figures, Failed> {
        let address = self.addresses[self.leader];
        let among = self.clients.max(1);
        self.runtime.block_on(async {
            let connections = connections(address, clients as usize).await?;
            let clients = (0..clients).zip(connections.iter().cycle());
            let get = clients.map(|(client, connection)| {
                Get(Call {
                    connection: connection.clone(),
                    path: RANGE,
                    message: range_request(&key(client % among), None, serializable),
                })
            });
            closed_loop(get.collect(), stretch).await
        })
    }

    /// All members hold the same, by their own hash at the same revision, and each key was put as often as was answered.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        let acknowledged = self.acknowledged;
        let puts = self.check_equal()?;
        if puts != acknowledged {
            return Err(format!("etcd: {acknowledged} puts were answered, and its keys show {puts}").into());
        }
        Ok(())
    }

    /// All members hold the same; says how many puts its keys show.
    pub(crate) fn check_equal(&self) -> Result<u64, Failed> {
        let addresses = &self.addresses;
        self.runtime.block_on(async {
            let (revision, puts) = contents(addresses[self.leader]).await?;
            let mut hashes = Vec::new();
            for address in addresses {
                hashes.push(hash_at(*address, revision).await?);
            }
            if hashes.iter().any(|hash| *hash != hashes[0]) {
                return Err(format!("etcd: the members differ: {hashes:?}").into());
            }
            Ok(puts)
        })
    }
}

fn spawn(words: &[String]) -> Result<Process, Failed> {
    Process::start(Command::new("etcd").args(words).stderr(Stdio::null()))
}

fn key(client: u32) -> String {
    format!("client-{client:08}")
}

async fn leader_of(addresses: &[SocketAddr]) -> Result<Option<usize>, Failed> {
    let mut leaders = Vec::new();
    let mut ids = Vec::new();
    for address in addresses {
        let mut connection = connect(*address).await?;
        let answer = call(&mut connection, STATUS, Bytes::new()).await?;
        let (mut own, mut leader) = (0, 0);
        for (field, value) in fields(&answer)? {
            match (field, value) {
                (1, Value::Bytes(header)) => own = number_in(&header, 2)?,
                (4, Value::Number(id)) => leader = id,
                _ => {}
            }
        }
        ids.push(own);
        leaders.push(leader);
    }
    let agreed = leaders[0] != 0 && leaders.iter().all(|leader| *leader == leaders[0]);
    Ok(ids.iter().position(|id| agreed && *id == leaders[0]))
}

/// The revision of a member, and how often its keys were put.
async fn contents(address: SocketAddr) -> Result<(u64, u64), Failed> {
    let mut connection = connect(address).await?;
    let message = range_request("client-", Some("client."), false);
    let answer = call(&mut connection, RANGE, message).await?;
    let (mut revision, mut puts) = (0, 0);
    for (field, value) in fields(&answer)? {
        match (field, value) {
            (1, Value::Bytes(header)) => revision = number_in(&header, 3)?,
            (2, Value::Bytes(pair)) => puts += number_in(&pair, 4)?,
            _ => {}
        }
    }
    Ok((revision, puts))
}

/// A member's hash over all keys up to a revision, which it may still have to reach.
async fn hash_at(address: SocketAddr, revision: u64) -> Result<u64, Failed> {
    let mut message = BytesMut::new();
    put_tag(&mut message, 1, revision);
    let message = message.freeze();
    let end = Instant::now() + PATIENCE;
    let mut connection = connect(address).await?;
    loop {
        match call(&mut connection, HASH, message.clone()).await {
            Ok(answer) => return number_in(&answer, 2),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A client that sends the same again and again.
pub(crate) struct Call {
    connection: SendRequest<Bytes>,
    path: &'static str,
    message: Bytes,
}

impl Call {
    /// A put to this address, on a connection of its own.
    pub(crate) async fn put(address: SocketAddr, client: u32, bytes: usize) -> Result<Self, Failed> {
        Ok(Self {
            connection: connect(address).await?,
            path: PUT,
            message: put_request(&key(client), bytes),
        })
    }

    pub(crate) async fn once(&mut self) -> Result<Bytes, Failed> {
        call(&mut self.connection, self.path, self.message.clone()).await
    }
}

impl Clone for Call {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            path: self.path,
            message: self.message.clone(),
        }
    }
}

impl Client for Call {
    async fn call(&mut self) -> Result<(), Failed> {
        self.once().await.map(drop)
    }
}

/// A client that reads a key that is there.
struct Get(Call);

impl Client for Get {
    async fn call(&mut self) -> Result<(), Failed> {
        match number_in(&self.0.once().await?, 4)? {
            1 => Ok(()),
            count => Err(format!("etcd found {count} keys instead of one").into()),
        }
    }
}

async fn connections(address: SocketAddr, clients: usize) -> Result<Vec<SendRequest<Bytes>>, Failed> {
    let mut connections = Vec::new();
    for _ in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
        connections.push(connect(address).await?);
    }
    Ok(connections)
}

/// A connection, kept going by a task of its own.
async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 24)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    tokio::spawn(async move {
        // Whoever uses it is told.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One unary call.
async fn call(connection: &mut SendRequest<Bytes>, path: &str, message: Bytes) -> Result<Bytes, Failed> {
    let request = http::Request::post(format!("http://etcd{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(&message);
    let mut ready = connection.clone().ready().await?;
    let (answer, mut sending) = ready.send_request(request, false)?;
    sending.send_data(framed.freeze(), true)?;
    let answer = answer.await?;
    let (head, mut body) = answer.into_parts();
    let mut received = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        received.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?;
    let headers = trailers.as_ref().unwrap_or(&head.headers);
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if header("grpc-status") != Some("0") {
        let message = header("grpc-message").unwrap_or("no message");
        return Err(format!("etcd refuses {path}: {message}").into());
    }
    if received.len() < 5 {
        return Err("etcd answers without a message".into());
    }
    received.advance(5);
    Ok(received.freeze())
}

fn put_request(key: &str, bytes: usize) -> Bytes {
    let mut message = BytesMut::new();
    put_bytes(&mut message, 1, key.as_bytes());
    put_bytes(&mut message, 2, &vec![b'.'; bytes]);
    message.freeze()
}

fn range_request(key: &str, end: Option<&str>, serializable: bool) -> Bytes {
    let mut message = BytesMut::new();
    put_bytes(&mut message, 1, key.as_bytes());
    if let Some(end) = end {
        put_bytes(&mut message, 2, end.as_bytes());
    }
    if serializable {
        put_tag(&mut message, 7, 1);
    }
    message.freeze()
}

fn put_bytes(message: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_number(message, field << 3 | 2);
    put_number(message, bytes.len() as u64);
    message.put_slice(bytes);
}

fn put_tag(message: &mut BytesMut, field: u64, value: u64) {
    put_number(message, field << 3);
    put_number(message, value);
}

fn put_number(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

/// A value of a field.
#[derive(PartialEq, Debug)]
enum Value {
    Number(u64),
    Bytes(Bytes),
}

/// The fields of a message, in the order they stand there.
fn fields(message: &Bytes) -> Result<Vec<(u64, Value)>, Failed> {
    let mut rest = message.clone();
    let mut fields = Vec::new();
    while rest.has_remaining() {
        let tag = take_number(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(take_number(&mut rest)?),
            1 if rest.len() >= 8 => Value::Number(rest.get_u64_le()),
            5 if rest.len() >= 4 => Value::Number(rest.get_u32_le().into()),
            2 => {
                let len = usize::try_from(take_number(&mut rest)?)?;
                if len > rest.len() {
                    return Err("etcd's message ends early".into());
                }
                Value::Bytes(rest.split_to(len))
            }
            _ => return Err("etcd's message is of another form".into()),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn take_number(rest: &mut Bytes) -> Result<u64, Failed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest.try_get_u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number without end".into())
}

/// A number among the fields of a message; zero is left out in messages.
fn number_in(message: &Bytes, field: u64) -> Result<u64, Failed> {
    let found = fields(message)?.into_iter().find(|(n, _)| *n == field);
    match found {
        Some((_, Value::Number(number))) => Ok(number),
        None => Ok(0),
        Some(_) => Err("etcd's message is of another form".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = BytesMut::new();
        put_bytes(&mut message, 1, b"key");
        put_tag(&mut message, 7, 300);
        put_tag(&mut message, 8, u64::MAX);
        let message = message.freeze();
        assert_eq!(message[..5], [0x0a, 3, b'k', b'e', b'y']);
        assert_eq!(message[5..8], [0x38, 0xac, 0x02]);
        assert_eq!(number_in(&message, 8).expect("it is there"), u64::MAX);
        assert_eq!(number_in(&message, 9).expect("left out"), 0);
        assert!(number_in(&message, 1).is_err());
        assert!(fields(&message.slice(..4)).is_err());
    }
}
