//! Takes connections in, and serves HTTP/1.1 on each until it ends, does not go on, or the process stops.
//!
//! Invariants: a failed `accept` ends nothing, and is not tried again without a pause; a connection that finds no place is told
//! so and closed, and those that are being told have a limit of their own.

use super::{Admission, socket::Socket};
use crate::api::Problem;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use kontiki::Code;
use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};

/// The head of a request, and what is read or written of a body at once.
const BUFFER_BYTES: usize = 64 << 10;

/// How long to wait after the system gave no connection, for want of descriptors or memory: others may give theirs back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often this is told while it lasts.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// So many connections without a place are told at once, or one for four places if those are fewer, each for so long; others
/// are closed without a word.
const REFUSALS_MAX: usize = 16;
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// All connections: told when the process stops; each listens while it lives.
pub(crate) type Connections = watch::Sender<bool>;

/// Serves on each connection that comes, until the process stops.
pub(crate) async fn listen(
    listener: TcpListener,
    router: Router,
    admission: Arc<Admission>,
    connections: Connections,
) {
    let mut stop = connections.subscribe();
    let refusals = Arc::new(Semaphore::new(
        (admission.places.all_max() / 4).clamp(1, REFUSALS_MAX),
    ));
    let mut warned: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            // The client's doing.
            Err(error) if is_of_one(&error) => continue,
            Err(error) => {
                if warned.is_none_or(|before| before.elapsed() >= ACCEPT_WARNING_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "the system gives no more HTTP connections; they wait");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match admission.places.take(address) {
            Some(place) => {
                let socket = Socket::new(stream, admission.write_timeout, place);
                let stop = connections.subscribe();
                tokio::spawn(serve(socket, router.clone(), admission.idle_timeout, stop));
            }
            None => refuse(stream, address, &refusals),
        }
    }
}

/// Whether an error of `accept` is that of the connection that was to be taken.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

async fn serve(socket: Socket, router: Router, idle_timeout: Duration, mut stop: watch::Receiver<bool>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .max_buf_size(BUFFER_BYTES);
    let connection = http
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    // How a connection ended its client knows, too.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Waits until the process stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Tells a client that there is no place, if not too many are being told.
fn refuse(stream: TcpStream, address: IpAddr, refusals: &Arc<Semaphore>) {
    tracing::debug!(%address, "no place for a connection");
    let Ok(permit) = refusals.clone().try_acquire_owned() else {
        return;
    };
    tokio::spawn(async move {
        // A client that is slow to hear it has to do without.
        let _ = timeout(REFUSAL_TIME, tell(stream)).await;
        drop(permit);
    });
}

async fn tell(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&no_place()).await?;
    stream.shutdown().await?;
    // Closed with something unread, the connection would take the answer with it.
    let mut unread = [0; 1 << 10];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

fn no_place() -> Vec<u8> {
    let problem = Problem {
        retryable: true,
        ..Problem::refused(Code::Overloaded, "too many HTTP connections at this node already")
    };
    let problem = problem
        .advise("ask another node, or later; `http_connections_max` in the configuration is the limit");
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}
