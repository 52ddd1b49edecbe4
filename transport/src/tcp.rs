//! TLS 1.3 over TCP: three connections a pair of nodes and direction, one for each lane.
//!
//! So no lane waits for another's bytes, whatever is lost or not read, and each has the window of its own connection. The
//! dialer says hello on each, with the number of the lane, and then sends packets; who accepts answers with its hello and
//! then only says why it ends the connection (`words`). Invariants: all three stand, or none is sent on; a connection that
//! the kernel closes for a process that is no more, and whose host then refuses another, is a hint that it has ended
//! (`dial`), and needs nothing beside it, as QUIC does.

mod accept;
pub(crate) mod secure;
pub(crate) mod words;

use crate::{
    NodeCredentials, StartError,
    credentials::server_name,
    dial::Lost,
    greet::{self, GreetError},
    lane::{Drain, Lane},
    peer::Peer,
    reason::{self, Close},
    tls::tls,
    transport::Shared,
};
use bytes::Bytes;
use kontiki_wire::handshake::Agreed;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use secure::{Broken, Buffer, Secure};
use std::{
    net::{self, SocketAddr},
    rc::Rc,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use words::{Word, Words};

/// The lanes, by the numbers they have in a greeting.
pub(crate) const URGENT: u8 = 0;
pub(crate) const BULK: u8 = 1;
pub(crate) const BACKGROUND: u8 = 2;
const LANES: usize = 3;

/// A listener, and how all connections from and to it are secured.
pub(crate) struct Endpoint {
    listener: TcpListener,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    buffer: Buffer,
    /// Whether all connections are to end.
    closing: watch::Sender<bool>,
}

/// A connection for each lane, ready to send on.
pub(crate) struct Outbound(Box<[Secure; LANES]>);

impl Endpoint {
    pub(crate) fn new(credentials: NodeCredentials, listener: net::TcpListener) -> Result<Self, StartError> {
        let (server, client) = tls(credentials).map_err(|e| StartError::Credentials(e.to_string()))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            server: Arc::new(server),
            client: Arc::new(client),
            buffer: Buffer::default(),
            closing: watch::Sender::new(false),
        })
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr, StartError> {
        Ok(self.listener.local_addr()?)
    }

    /// Takes connections until it is closed and all of them have ended.
    pub(crate) async fn accept(&self, shared: &Rc<Shared>) {
        accept::accept(self, shared).await;
    }

    /// Connects to a peer at this address, for all lanes.
    pub(crate) async fn dial(
        &self,
        shared: &Shared,
        peer: &Peer,
        address: SocketAddr,
    ) -> Result<(Outbound, Agreed), GreetError> {
        // One first: if it is refused, it is refused once.
        let (urgent, agreed) = self.dial_lane(shared, peer, address, URGENT).await?;
        let bulk = self.dial_lane(shared, peer, address, BULK);
        let background = self.dial_lane(shared, peer, address, BACKGROUND);
        let ((bulk, _), (background, _)) = tokio::try_join!(bulk, background)?;
        Ok((Outbound(Box::new([urgent, bulk, background])), agreed))
    }

    async fn dial_lane(
        &self,
        shared: &Shared,
        peer: &Peer,
        address: SocketAddr,
        lane: u8,
    ) -> Result<(Secure, Agreed), GreetError> {
        let name = server_name(shared.own.cluster, peer.node);
        let name = ServerName::try_from(name).map_err(|error| Lost::otherwise(error.to_string()))?;
        let socket = TcpStream::connect(address).await.map_err(Broken::from)?;
        peer.reached.set(true);
        secure::tune(&socket, &shared.limits);
        let secure = Secure::dial(socket, self.client.clone(), name, self.buffer.clone()).await?;
        let hello = shared.hello.encode();
        secure.write(&words::hello(lane, &hello)).await?;
        let mut words = Words::default();
        let theirs = match words.hear(&secure).await? {
            Word::Hello(answered, theirs) if answered == lane => theirs,
            Word::Hello(..) => return Err(Lost::otherwise("it answered for another lane").into()),
            Word::Close(code, said) => return Err(reason::closed(code.into(), &said).into()),
        };
        let agreed = greet::check_dialed(&shared.hello, &theirs, peer)
            .and_then(|agreed| greet::check_life(shared, peer, &agreed).map(|()| agreed));
        match agreed {
            Ok(agreed) => Ok((secure, agreed)),
            Err(error) => Err(refuse(&secure, error).await),
        }
    }

    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Outbound {
    /// Sends what the peer's lanes hold until one of the connections is lost.
    pub(crate) async fn serve(&self, peer: &Peer) -> Lost {
        let [urgent, bulk, background] = &*self.0;
        tokio::select! {
            lost = serve_lane(urgent, &peer.urgent) => lost,
            lost = serve_lane(bulk, &peer.bulk) => lost,
            lost = serve_lane(background, &peer.background) => lost,
        }
    }
}

async fn serve_lane(secure: &Secure, lane: &Lane) -> Lost {
    let (mut words, mut stream) = (Words::default(), Stream(secure));
    tokio::select! {
        // What the other side says counts more than that nothing can be sent to it.
        biased;
        heard = words.hear(secure) => match heard {
            Ok(Word::Close(code, said)) => reason::closed(code.into(), &said),
            Ok(Word::Hello(..)) => Lost::otherwise("it greets in the middle of a connection"),
            Err(lost) => lost,
        },
        broken = lane.write_to(&mut stream) => broken.into(),
    }
}

/// One direction of a lane.
struct Stream<'s>(&'s Secure);

impl Drain for Stream<'_> {
    type Error = Broken;

    async fn write(&mut self, batch: &mut [Bytes]) -> Result<(), Broken> {
        for piece in batch {
            self.0.push(piece).await?;
        }
        self.0.flush().await
    }
}

/// Ends a connection whose greeting has failed; the other side learns why, if it is for this one to say.
async fn refuse(secure: &Secure, error: GreetError) -> GreetError {
    if let Some(refusal) = error.refusal() {
        end(secure, error.close(), &refusal).await;
    }
    error
}

/// Says why a connection ends, and ends it. Whether that is heard makes no difference here.
async fn end(secure: &Secure, why: Close, reason: &str) {
    let word = words::close(why, reason::cut(reason));
    if secure.write(&word).await.is_ok() {
        secure.close().await;
    }
}
