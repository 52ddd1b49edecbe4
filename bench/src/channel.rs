//! Clients of `kontiki serve` that share a channel (`docs/HTTP.md`): a connection that carries frames both ways.
//!
//! Each client still has one request under way at a time. One task serves all of a connection, and writes what all that
//! were answered at once ask next in one piece.

use crate::{
    Failed,
    entries::ENTRY_BYTES_MIN,
    load::{Clients, Seen},
};
use bytes::{Buf, BufMut, BytesMut};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Kind and number.
const HEAD_BYTES: usize = 9;
const APPEND: u8 = 1;
const READ: u8 = 2;

/// What clients of a channel ask.
pub(crate) enum Asks {
    /// Appends, each client of its own numbers, entries of so many bytes.
    Appends(usize),
    /// Reads of one entry, with this consistency.
    Reads(u8),
}

/// A connection, and the clients on it.
pub(crate) struct Channel {
    stream: TcpStream,
    asks: Asks,
    clients: Vec<One>,
    sent: BytesMut,
    received: BytesMut,
}

struct One {
    /// Who it is, of all clients; or which entry it reads.
    name: u64,
    number: u32,
    began: Instant,
}

impl Channel {
    /// A connection for clients of these names.
    pub(crate) async fn open(
        address: SocketAddr,
        asks: Asks,
        names: impl Iterator<Item = u64>,
    ) -> Result<Self, Failed> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /v1/channel HTTP/1.1\r\nHost: {address}\r\nConnection: upgrade\r\nUpgrade: kontiki\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut received = BytesMut::with_capacity(1 << 16);
        let end = loop {
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Err("a server has closed a connection".into());
            }
        };
        if !received.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("no channel: {}", String::from_utf8_lossy(&received)).into());
        }
        received.advance(end);
        let one = |name| One {
            name,
            number: 0,
            began: Instant::now(),
        };
        Ok(Self {
            stream,
            asks,
            clients: names.map(one).collect(),
            sent: BytesMut::new(),
            received,
        })
    }

    /// Writes down what a client asks next.
    fn next(&mut self, at: usize, now: Instant) -> Result<(), Failed> {
        let client = &mut self.clients[at];
        client.began = now;
        match self.asks {
            Asks::Appends(bytes) => {
                let bytes = bytes.max(ENTRY_BYTES_MIN);
                self.sent.put_u32_le(u32::try_from(HEAD_BYTES + 5 + bytes)?);
                self.sent.put_u8(APPEND);
                self.sent.put_u64_le(at as u64);
                self.sent.put_u8(0);
                self.sent.put_u32_le(u32::try_from(bytes)?);
                self.sent.put_u32_le(u32::try_from(client.name)?);
                self.sent.put_u32_le(client.number);
                self.sent.put_bytes(b'.', bytes - ENTRY_BYTES_MIN);
                client.number += 1;
            }
            Asks::Reads(consistency) => {
                self.sent.put_u32_le(u32::try_from(HEAD_BYTES + 17)?);
                self.sent.put_u8(READ);
                self.sent.put_u64_le(at as u64);
                self.sent.put_u8(consistency);
                self.sent.put_u64_le(client.name);
                self.sent.put_u64_le(client.name + 1);
            }
        }
        Ok(())
    }

    /// The next answer, if it is there: whose it is.
    fn answer(&mut self) -> Result<Option<usize>, Failed> {
        let Some(length) = self.received.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if self.received.len() < 4 + length {
            return Ok(None);
        }
        self.received.advance(4);
        let (kind, at) = (self.received.try_get_u8()?, self.received.try_get_u64_le()?);
        let body = &self.received[..length - HEAD_BYTES];
        let expected = match self.asks {
            Asks::Appends(_) => kind == APPEND && body.len() == 24,
            // Two indexes, and a length and something behind it.
            Asks::Reads(_) => kind == READ && body.len() > 20,
        };
        if !expected {
            return Err(format!("kind {kind}: {}", String::from_utf8_lossy(body)).into());
        }
        self.received.advance(length - HEAD_BYTES);
        Ok(Some(usize::try_from(at)?))
    }
}

impl Clients for Channel {
    async fn ask(mut self, seen: &mut Seen) -> Result<(), Failed> {
        let mut asking = self.clients.len();
        for at in 0..asking {
            self.next(at, Instant::now())?;
        }
        while asking > 0 {
            self.stream.write_all(&self.sent).await?;
            self.sent.clear();
            self.received.reserve(1 << 12);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("a server has closed a connection".into());
            }
            while let Some(at) = self.answer()? {
                let client = self.clients.get(at).ok_or("an answer to nobody")?;
                match seen.answered(client.began) {
                    Some(now) => self.next(at, now)?,
                    None => asking -= 1,
                }
            }
        }
        Ok(())
    }
}
