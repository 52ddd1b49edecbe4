//! TLS over one TCP connection.
//!
//! Invariants: the TLS state is never held over a wait, so that both directions go on side by side; what is encrypted and
//! not yet with the kernel is at most twice [`PENDING_BYTES`]; a reading or a writing that is given up in the
//! middle loses nothing.

use crate::{
    Carrier, Limits,
    dial::{How, Lost},
    greet::GreetError,
    handshakes::Handshake,
    inbound, reason,
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};
use socket2::{SockRef, TcpKeepalive};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, BufRead, ErrorKind, IoSlice, Write},
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time,
};

/// How much is read at once: what a lane may work on in a turn.
const READ_BYTES: usize = inbound::TURN_BYTES_MAX;
/// How much is encrypted before it is given to the kernel.
const PENDING_BYTES: usize = 128 << 10;
/// How long who ends a connection waits for the other side to end it too: closed with bytes unread, it would be reset, and
/// the other side might not read why.
const LINGER: Duration = Duration::from_millis(300);

/// Where all connections of a node read into: each uses it between two waits.
#[derive(Clone)]
pub(crate) struct Buffer(Rc<RefCell<Box<[u8]>>>);

impl Default for Buffer {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_BYTES].into_boxed_slice())))
    }
}

/// A TCP connection whose both ends are authenticated.
pub(crate) struct Secure {
    reading: RefCell<OwnedReadHalf>,
    writing: OwnedWriteHalf,
    tls: RefCell<Connection>,
    /// How many bytes were encrypted since all there were went to the kernel.
    pending: Cell<usize>,
    buffer: Buffer,
}

/// Why nothing more can be read or written.
#[derive(Debug)]
pub(crate) enum Broken {
    Io(io::Error),
    Tls(rustls::Error),
    /// The other side has ended it, as one does.
    Closed,
    /// It is over, and the other side has not said so.
    Ended,
}

impl Secure {
    /// Secures a connection to the server of this name.
    pub(crate) async fn dial(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        buffer: Buffer,
    ) -> Result<Self, Broken> {
        let tls = ClientConnection::new(config, name).map_err(Broken::Tls)?;
        let secure = Self::new(socket, tls.into(), buffer);
        while !secure.is_ready().await? {
            // What comes with the end of the handshake waits in `tls`.
            secure.fill(|_, bytes| secure.feed(bytes)).await?;
        }
        Ok(secure)
    }

    /// Secures a connection that was accepted, a step at a time, as that is this handshake's turn.
    pub(crate) async fn accept(
        socket: TcpStream,
        config: Arc<ServerConfig>,
        buffer: Buffer,
        handshake: &Handshake,
    ) -> Result<Self, Broken> {
        let tls = ServerConnection::new(config).map_err(Broken::Tls)?;
        let secure = Self::new(socket, tls.into(), buffer);
        while !secure.is_ready().await? {
            // Nothing is to be waited for once it is its turn: others wait for theirs.
            secure.writing.as_ref().peek(&mut [0]).await?;
            handshake.turn().await;
            secure
                .fill(|_, bytes| handshake.step(|| secure.feed(bytes)))
                .await?;
        }
        Ok(secure)
    }

    fn new(socket: TcpStream, mut tls: Connection, buffer: Buffer) -> Self {
        // What may be pending is bounded in `push`.
        tls.set_buffer_limit(None);
        let (reading, writing) = socket.into_split();
        Self {
            reading: RefCell::new(reading),
            writing,
            tls: RefCell::new(tls),
            pending: Cell::new(0),
            buffer,
        }
    }

    /// Sends what the handshake has to say now; true once it is done.
    async fn is_ready(&self) -> Result<bool, Broken> {
        self.flush().await?;
        Ok(!self.tls.borrow().is_handshaking())
    }

    /// The certificate that the other side has shown.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let tls = self.tls.borrow();
        let leaf = tls.peer_certificates()?.first()?;
        Some(leaf.clone().into_owned())
    }

    /// Encrypts these bytes, and sends what there is too much of.
    pub(crate) async fn push(&self, bytes: &[u8]) -> Result<(), Broken> {
        for part in bytes.chunks(PENDING_BYTES) {
            // Without a limit it takes all.
            self.tls.borrow_mut().writer().write_all(part)?;
            self.pending.set(self.pending.get() + part.len());
            if self.pending.get() >= PENDING_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends these bytes.
    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), Broken> {
        self.push(bytes).await?;
        self.flush().await
    }

    /// Gives what is encrypted to the kernel.
    pub(crate) async fn flush(&self) -> Result<(), Broken> {
        while !self.flush_now()? {
            self.writing.writable().await?;
        }
        self.pending.set(0);
        Ok(())
    }

    /// The same without a wait; false if it is not done.
    fn flush_now(&self) -> Result<bool, Broken> {
        let mut tls = self.tls.borrow_mut();
        while tls.wants_write() {
            match tls.write_tls(&mut Now(&self.writing)) {
                Ok(0) => return Err(Broken::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Waits until something has come, and gives away what that was; it may be nothing but TLS's own.
    pub(crate) async fn read<E: From<Broken>>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.give(&mut take)? {
            // It had come with the end of the handshake.
            return Ok(());
        }
        self.fill(|secure, bytes| {
            secure.feed(bytes)?;
            secure.give(&mut take).map(drop)
        })
        .await
    }

    /// Waits until something has come, and has it worked on until nothing is left of it.
    async fn fill<E: From<Broken>>(
        &self,
        mut work: impl FnMut(&Self, &mut &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // A poll, and no call that tries: only that tells tokio that what did not fill the buffer was all there was, and saves
        // the call that would find nothing.
        poll_fn(|context| {
            let buffer = &mut *self.buffer.0.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            let reading = &mut *self.reading.borrow_mut();
            while let Err(error) = ready!(Pin::new(&mut *reading).poll_read(context, &mut read)) {
                if error.kind() != ErrorKind::Interrupted {
                    return Poll::Ready(Err(Broken::from(error).into()));
                }
            }
            let mut rest = read.filled();
            if rest.is_empty() {
                return Poll::Ready(Err(Broken::Ended.into()));
            }
            while !rest.is_empty() {
                work(self, &mut rest)?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Lets TLS work on some of these bytes, which were read, and takes them off.
    fn feed(&self, rest: &mut &[u8]) -> Result<(), Broken> {
        let mut tls = self.tls.borrow_mut();
        if tls.read_tls(rest)? == 0 {
            // Behind the other side's goodbye, which the next reading tells of.
            *rest = &[];
        }
        if let Err(error) = tls.process_new_packets() {
            drop(tls);
            // The other side is told why, if that can be done at once.
            let _ = self.flush_now();
            return Err(Broken::Tls(error));
        }
        Ok(())
    }

    /// Gives away what is decrypted; false if that is nothing.
    fn give<E: From<Broken>>(&self, take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E> {
        let mut tls = self.tls.borrow_mut();
        let mut reader = tls.reader();
        let mut some = false;
        loop {
            match reader.fill_buf() {
                // What came before the end is for the caller first.
                Ok([]) if some => return Ok(true),
                Ok([]) => return Err(Broken::Closed.into()),
                Ok(piece) => {
                    let count = piece.len();
                    take(piece)?;
                    reader.consume(count);
                    some = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(some),
                Err(error) => return Err(Broken::from(error).into()),
            }
        }
    }

    /// Says goodbye, and waits a moment for the other side's.
    pub(crate) async fn close(&self) {
        self.tls.borrow_mut().send_close_notify();
        if self.flush().await.is_err() {
            return;
        }
        let _ = SockRef::from(self.writing.as_ref()).shutdown(Shutdown::Write);
        let heard = async {
            let skip = |_: &Self, rest: &mut &[u8]| {
                *rest = &[];
                Ok::<(), Broken>(())
            };
            while self.fill(skip).await.is_ok() {}
        };
        let _ = time::timeout(LINGER, heard).await;
    }
}

/// A socket as it is at this moment: what it cannot do now it refuses.
struct Now<'s>(&'s OwnedWriteHalf);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

impl From<Broken> for Lost {
    fn from(broken: Broken) -> Self {
        let (why, how) = match broken {
            Broken::Closed => ("the other side ended the connection".to_owned(), How::Otherwise),
            Broken::Ended => (
                "the other side broke the connection off".to_owned(),
                How::BrokeOff,
            ),
            Broken::Tls(error) => return distrusted(&error),
            Broken::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => (
                    "nobody listens there: is the node running, and is its carrier TCP?".to_owned(),
                    How::NobodyListens,
                ),
                ErrorKind::TimedOut => (Carrier::Tcp.silence(), How::Otherwise),
                _ => (error.to_string(), How::Otherwise),
            },
        };
        Self { why, how }
    }
}

impl From<Broken> for GreetError {
    fn from(broken: Broken) -> Self {
        Self::Lost(broken.into())
    }
}

/// Why one of the two sides does not believe the other.
fn distrusted(error: &rustls::Error) -> Lost {
    match error {
        rustls::Error::AlertReceived(alert) => reason::alerted(u8::from(*alert)),
        rustls::Error::InvalidCertificate(wrong) => {
            let alert = AlertDescription::from(wrong.clone());
            reason::distrusted(u8::from(alert), &error.to_string())
        }
        _ => Lost::otherwise(format!("the TLS connection failed: {error}")),
    }
}

/// What is asked of a socket. What the system does not grant costs speed, or how soon a silent peer is missed.
pub(crate) fn tune(socket: &TcpStream, limits: &Limits) {
    // The system counts in seconds here.
    let sign_of_life = limits.keep_alive_interval.max(Duration::from_secs(1));
    let keep_alive = TcpKeepalive::new()
        .with_time(sign_of_life)
        .with_interval(sign_of_life);
    let system = SockRef::from(socket);
    let granted = [
        socket.set_nodelay(true),
        system.set_tcp_keepalive(&keep_alive),
        #[cfg(target_os = "linux")]
        system.set_tcp_user_timeout(Some(limits.idle_timeout)),
    ];
    for error in granted.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "the system did not grant an option of a TCP connection");
    }
}
