//! One channel: one task that reads, asks the node, and writes what was answered, each in as large pieces as there are.
//!
//! Bounded: no more is read while too many requests or too many of their bytes are under way, or while the client does not
//! take its answers. Every request that was taken in is answered, unless the client or the node is gone before.

use super::frame::{self, Ask, Asked};
use crate::http::{App, problem::Refusal};
use bytes::{Buf, BytesMut};
use kontiki::{Append, Code, Error, Handle, Raw, Read};
use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::watch,
    time::timeout,
};

/// Most requests under way.
const UNDER_WAY_MAX: usize = 1024;
/// Bytes of requests under way from which on no more are taken in.
const BYTES_MAX: usize = 8 << 20;
/// What a read counts as, for what it may give.
const READ_BYTES: usize = 16 << 10;
/// Bytes of answers that the client has not taken from which on nothing more is done for it.
const UNTAKEN_MAX: usize = 256 << 10;
/// Room that is made for what comes, and the least that makes it worth to ask for more.
const ROOM: usize = 64 << 10;
const ROOM_MIN: usize = 4 << 10;
/// How long a client is waited for that still sends when nothing more is taken in.
const LINGER: Duration = Duration::from_secs(5);
/// What a frame may take beyond the entries in it.
const FRAME_SLACK: usize = 64 << 10;

/// A connection after its upgrade.
pub(super) struct Channel<S> {
    stream: S,
    app: Arc<App>,
    handle: Handle<Raw>,
    /// Resolves when the process stops.
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    length_max: usize,
    /// Bytes of the frames before `given`, to say where a wrong one begins.
    offset: u64,
    given: BytesMut,
    under_way: Vec<UnderWay>,
    /// What those under way count as.
    bytes: usize,
    out: BytesMut,
    /// Nothing more is taken in.
    over: bool,
}

/// A request that waits for its answer.
struct UnderWay {
    number: u64,
    bytes: usize,
    answer: Answer,
}

enum Answer {
    Append(Append),
    /// With a key: whatever became of it, it may be sent again.
    Keyed(Append),
    /// From this index on.
    Read(Read<Raw>, u64),
}

impl UnderWay {
    /// Puts the answer into `out` once it is there.
    fn poll(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<()> {
        let number = self.number;
        let done = match &mut self.answer {
            Answer::Append(append) => ready!(Pin::new(append).poll(context))
                .map(|appended| frame::put_appended(out, number, &appended))
                .map_err(Refusal::from),
            Answer::Keyed(append) => ready!(Pin::new(append).poll(context))
                .map(|appended| frame::put_appended(out, number, &appended))
                .map_err(|error| Refusal::from(error).keyed()),
            Answer::Read(read, from) => ready!(Pin::new(read).poll(context))
                .map(|read| frame::put_entries(out, number, *from, &read))
                .map_err(Refusal::from),
        };
        if let Err(refusal) = done {
            frame::put_problem(out, number, &refusal);
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(
        stream: S,
        app: Arc<App>,
        within: Option<Duration>,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            stream,
            handle: app.within(within),
            length_max: app.batch_bytes_max.saturating_mul(2).saturating_add(FRAME_SLACK),
            app,
            stop: Box::pin(async move { drop(stop.wait_for(|stop| *stop).await) }),
            offset: 0,
            given: BytesMut::new(),
            under_way: Vec::new(),
            bytes: 0,
            out: BytesMut::new(),
            over: false,
        }
    }

    /// Until the client ends it, or the process stops and all that was taken in is answered.
    pub(super) async fn run(mut self) {
        // What is wrong with the connection its client sees, too.
        if std::future::poll_fn(|context| self.poll(context)).await.is_ok() {
            // Closed on a client that is still sending, the connection would take the last answers with it.
            let _ = timeout(LINGER, self.discard()).await;
        }
    }

    async fn discard(&mut self) {
        while let Ok(1..) = self.stream.read_buf(&mut self.given).await {
            self.given.clear();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.over && self.stop.as_mut().poll(context).is_ready() {
            self.over = true;
        }
        self.answer(context);
        loop {
            self.take(context);
            let untaken = self.untaken();
            ready_if_failed(self.write(context))?;
            if untaken && !self.untaken() {
                self.answer(context);
                continue;
            }
            if self.over && self.under_way.is_empty() && self.out.is_empty() {
                return Pin::new(&mut self.stream).poll_shutdown(context);
            }
            if self.over || !self.has_room() {
                return Poll::Pending;
            }
            if ready!(self.read(context))? == 0 {
                self.end();
            }
        }
    }

    fn untaken(&self) -> bool {
        self.out.len() >= UNTAKEN_MAX
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < UNDER_WAY_MAX && self.bytes < BYTES_MAX && !self.untaken()
    }

    /// Looks which answers have come.
    fn answer(&mut self, context: &mut Context<'_>) {
        let (out, bytes) = (&mut self.out, &mut self.bytes);
        self.under_way.retain_mut(|one| {
            let waits = out.len() >= UNTAKEN_MAX || one.poll(context, out).is_pending();
            if !waits {
                *bytes -= one.bytes;
            }
            waits
        });
    }

    /// Takes in the requests that have come whole.
    fn take(&mut self, context: &mut Context<'_>) {
        while !self.over && self.has_room() {
            match frame::next(&mut self.given, self.length_max) {
                Ok(Some(asked)) => {
                    self.offset += asked.bytes as u64;
                    self.begin(asked, context);
                }
                Ok(None) => return,
                Err(refusal) => self.close(&refusal),
            }
        }
    }

    fn begin(&mut self, asked: Asked, context: &mut Context<'_>) {
        let Asked { number, ask, bytes } = asked;
        let stopping = self.app.stopping.load(Ordering::Relaxed);
        let answer = match ask {
            Err(refusal) => return frame::put_problem(&mut self.out, number, &refusal),
            Ok(_) if stopping => {
                let refusal = Error::Stopped("it is being shut down".into()).into();
                return frame::put_problem(&mut self.out, number, &refusal);
            }
            Ok(Ask::One(entry)) => Answer::Append(self.handle.append(entry)),
            Ok(Ask::Append { expect, key, entries }) => match key {
                None => Answer::Append(self.handle.append_if(expect, &entries)),
                Some(key) => Answer::Keyed(self.handle.append_in(key, expect, &entries)),
            },
            Ok(Ask::Read {
                from,
                to,
                consistency,
            }) => Answer::Read(self.handle.read(from..to, consistency), from),
        };
        let bytes = match answer {
            Answer::Read(..) => READ_BYTES,
            _ => bytes,
        };
        let mut one = UnderWay {
            number,
            bytes,
            answer,
        };
        if one.poll(context, &mut self.out).is_pending() {
            self.bytes += bytes;
            self.under_way.push(one);
        }
    }

    /// The client sends no more.
    fn end(&mut self) {
        self.over = true;
        if !self.given.is_empty() {
            self.close(&Refusal::new(Code::BadRequest, "the frame is not whole"));
        }
    }

    /// Tells why nothing more is taken in, and from where on.
    fn close(&mut self, refusal: &Refusal) {
        self.over = true;
        let refusal = refusal.at(&format!("at byte {} after the upgrade", self.offset));
        frame::put_closing(&mut self.out, &refusal);
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.given.capacity() - self.given.len() < ROOM_MIN {
            self.given.reserve(ROOM);
        }
        pin!(self.stream.read_buf(&mut self.given)).poll(context)
    }

    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// What is still to be written is written later; only a failure matters.
fn ready_if_failed(written: Poll<io::Result<()>>) -> io::Result<()> {
    match written {
        Poll::Ready(written) => written,
        Poll::Pending => Ok(()),
    }
}
