//! One channel: one task that reads, asks the node, and writes what was answered, each in as large pieces as there are.
//!
//! Bounded: no more is read while too many requests or too many of their bytes are under way, or while the client does not
//! take its answers. A frame above [`FRAME_FREE_BYTES`] is reserved before more of it is read, and the answer of a read, by what
//! it may be, before it is asked for; both of what all connections share. Every request that was taken in is answered, unless
//! the client or the node is gone before.

use super::frame::{self, Ask, Asked};
use crate::{
    admission::Reserved,
    http::{App, problem::Refusal},
};
use bytes::{Buf, BytesMut};
use kontiki::{Append, Code, Consistency, Error, Handle, Raw, Read};
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
    time::{Sleep, sleep, timeout},
};

/// Most requests under way.
const UNDER_WAY_MAX: usize = 1024;
/// Bytes of requests under way from which on no more are taken in.
const BYTES_MAX: usize = 8 << 20;
/// One channel may have this part of what all answers may hold, or a single read.
const ANSWERS_SHARE: u64 = 8;
/// A frame up to this size is taken in without a reservation.
const FRAME_FREE_BYTES: usize = 64 << 10;
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
    /// Bytes of the requests under way.
    bytes: usize,
    /// A read that waits for room for its answer: nothing is taken in behind it.
    waiting: Option<Waiting>,
    /// What the reads under way may give.
    reads_bytes: usize,
    out: BytesMut,
    /// What is reserved for the answers in `out`.
    held: Reserved,
    /// What is reserved for the frame that is coming, or is being reserved.
    frame: Reserved,
    reserving: Option<Reserving>,
    /// Runs out if the frame that is coming does not come whole.
    late: Option<Pin<Box<Sleep>>>,
    /// Nothing more is taken in.
    over: bool,
}

type Reserving = Pin<Box<dyn Future<Output = Reserved> + Send>>;

/// A request that waits for its answer.
struct UnderWay {
    number: u64,
    /// Bytes of the request.
    bytes: usize,
    answer: Answer,
    /// For the frame of an append, or the answer of a read.
    reserved: Reserved,
}

/// A read that waits for room for its answer.
struct Waiting {
    number: u64,
    /// Bytes of the request.
    bytes: usize,
    range: (u64, u64),
    consistency: Consistency,
    reserving: Option<Reserving>,
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
            waiting: None,
            reads_bytes: 0,
            out: BytesMut::new(),
            held: Reserved::none(),
            frame: Reserved::none(),
            reserving: None,
            late: None,
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
            self.begin_read(context);
            self.take(context);
            let untaken = self.untaken();
            ready_if_failed(self.write(context))?;
            if untaken && !self.untaken() {
                self.answer(context);
                continue;
            }
            // Room for its answer may be free by now.
            if self.waiting.is_some() && self.begin_read(context) {
                continue;
            }
            if self.over && self.under_way.is_empty() && self.waiting.is_none() && self.out.is_empty() {
                return Pin::new(&mut self.stream).poll_shutdown(context);
            }
            if self.over || !self.has_room() || !self.admits(context) {
                self.late = None;
                return Poll::Pending;
            }
            if self.is_late(context) {
                continue;
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
        self.under_way.len() < UNDER_WAY_MAX
            && self.bytes < BYTES_MAX
            && self.waiting.is_none()
            && !self.untaken()
    }

    /// Looks which answers have come.
    fn answer(&mut self, context: &mut Context<'_>) {
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.retain_mut(|one| {
            let waits = self.untaken() || self.poll_one(one, context).is_pending();
            if !waits {
                self.bytes -= one.bytes;
            }
            waits
        });
        self.under_way = under_way;
    }

    /// Puts the answer of one into `out` once it is there: from then on what is reserved is that.
    fn poll_one(&mut self, one: &mut UnderWay, context: &mut Context<'_>) -> Poll<()> {
        let before = self.out.len();
        ready!(one.poll(context, &mut self.out));
        let mut reserved = std::mem::replace(&mut one.reserved, Reserved::none());
        if matches!(one.answer, Answer::Read(..)) {
            self.reads_bytes -= reserved.bytes();
            reserved.shrink(self.out.len() - before);
            self.held.add(reserved);
        }
        Poll::Ready(())
    }

    /// Asks for what waits for room, if there is room now. True if nothing waits any more.
    fn begin_read(&mut self, context: &mut Context<'_>) -> bool {
        let Some(mut waiting) = self.waiting.take() else {
            return true;
        };
        let (from, to) = waiting.range;
        let (bytes, answers) = (self.app.answer_bytes(from, to), &self.app.admission.answers);
        let mine = self.reads_bytes + self.held.bytes();
        let most = usize::try_from(answers.bytes_max() / ANSWERS_SHARE).unwrap_or(usize::MAX);
        let reserved = match &mut waiting.reserving {
            // The client is to take what it has first.
            _ if mine > 0 && mine.saturating_add(bytes) > most => None,
            Some(reserving) => match reserving.as_mut().poll(context) {
                Poll::Ready(reserved) => Some(reserved),
                Poll::Pending => None,
            },
            none => answers.try_reserve(bytes).or_else(|| {
                let reserving = none.insert(Box::pin(answers.reserve(bytes)));
                match reserving.as_mut().poll(context) {
                    Poll::Ready(reserved) => Some(reserved),
                    Poll::Pending => None,
                }
            }),
        };
        let Some(reserved) = reserved else {
            self.waiting = Some(waiting);
            return false;
        };
        self.reads_bytes += reserved.bytes();
        let read = self.handle.read(from..to, waiting.consistency);
        self.ask(
            UnderWay {
                number: waiting.number,
                bytes: waiting.bytes,
                answer: Answer::Read(read, from),
                reserved,
            },
            context,
        );
        true
    }

    /// Whether more may be read: what is coming is small, or reserved.
    fn admits(&mut self, context: &mut Context<'_>) -> bool {
        let coming = frame::coming(&self.given).filter(|bytes| *bytes > FRAME_FREE_BYTES);
        let Some(bytes) = coming.filter(|_| self.frame.bytes() == 0) else {
            return true;
        };
        let requests = &self.app.admission.requests;
        let reserving = self
            .reserving
            .get_or_insert_with(|| Box::pin(requests.reserve(bytes)));
        let Poll::Ready(reserved) = reserving.as_mut().poll(context) else {
            return false;
        };
        (self.frame, self.reserving) = (reserved, None);
        true
    }

    /// Whether the frame that is coming has taken too long; then the channel is over.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.given.is_empty() {
            self.late = None;
            return false;
        }
        let within = self.app.admission.body_timeout;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(within)));
        if late.as_mut().poll(context).is_pending() {
            return false;
        }
        let text = format!("the frame did not come whole within {within:?} (`http_body_timeout`)");
        self.close(&Refusal::new(Code::RequestTimeout, text));
        true
    }

    /// Takes in the requests that have come whole.
    fn take(&mut self, context: &mut Context<'_>) {
        while !self.over && self.has_room() {
            match frame::next(&mut self.given, self.length_max) {
                Ok(Some(asked)) => {
                    self.late = None;
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
        let reserved = std::mem::replace(&mut self.frame, Reserved::none());
        let stopping = self.app.stopping.load(Ordering::Relaxed);
        let answer = match ask {
            Err(refusal) => return frame::put_problem(&mut self.out, number, &refusal),
            Ok(ask) if stopping => {
                let refusal: Refusal = Error::Stopped("it is being shut down".into()).into();
                let refusal = match ask {
                    Ask::Append { key: Some(_), .. } => refusal.keyed(),
                    _ => refusal,
                };
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
            }) => {
                self.waiting = Some(Waiting {
                    number,
                    bytes,
                    range: (from, to),
                    consistency,
                    reserving: None,
                });
                self.begin_read(context);
                return;
            }
        };
        self.ask(
            UnderWay {
                number,
                bytes,
                answer,
                reserved,
            },
            context,
        );
    }

    /// Looks whether the answer is there already.
    fn ask(&mut self, mut one: UnderWay, context: &mut Context<'_>) {
        if self.poll_one(&mut one, context).is_pending() {
            self.bytes += one.bytes;
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
            self.held.shrink(self.out.len());
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
