//! `kontiki serve`: one node and its HTTP, until a signal says stop or the node stops itself.

use crate::{
    admission::{Admission, Connections, listen},
    cli::ServeArgs,
    config_file::ConfigFile,
    failure::{Failure, Stop},
    http::{self, App},
    interrupts::Interrupts,
};
use kontiki::{Code, Handle, LogOnly, RaftNode, Raw};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// After a signal, answers under way get this long before the node is stopped under them, and again after.
const DRAIN: Duration = Duration::from_secs(1);

/// For so long after a signal, new requests are refused before connections are closed.
const TURN_AWAY: Duration = Duration::from_millis(100);

/// Runs a node.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Stop> {
    let file = ConfigFile::load(&args.config)?;
    let mut config = file.config()?;
    config.moved = args.moved;
    let listener = bind(&file.http, &args.config)?;
    let (batch_bytes_max, entry_bytes_max) = (config.batch_bytes_max, config.entry_bytes_max);
    let read_bytes_max = config.read_bytes_max;
    let handle = RaftNode::<LogOnly<Raw>>::new(config)?.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let served = runtime.block_on(serve(
        &file,
        listener,
        App {
            handle,
            http: file.http.clone(),
            batch_bytes_max,
            entry_bytes_max,
            read_bytes_max,
            stopping: Arc::default(),
            channels: watch::Sender::new(false),
            admission: Arc::new(Admission::new(&file.limits)),
        },
    ));
    runtime.shutdown_background();
    Ok(served?)
}

/// Binds HTTP, on a loopback address only: it has no TLS.
fn bind(http: &str, file: &Path) -> Result<TcpListener, Failure> {
    let config = |text: String| Failure::new(Code::Config, format!("{}: {text}", file.display()));
    let resolved = http.to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved
        .map_err(|error| config(format!("`http` is \"{http}\", which is no address: {error}")))?
        .collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        let text = format!(
            "`http` is \"{http}\" ({open}), but HTTP has no TLS and no users, so it is served on this machine only"
        );
        return Err(config(text)
            .advise("take 127.0.0.1, and a proxy with TLS in front of it if others must reach it"));
    }
    let listener = TcpListener::bind(&addresses[..]).map_err(|error| taken(http, &error))?;
    let ready = listener.set_nonblocking(true);
    ready.map_err(|error| taken(http, &error))?;
    Ok(listener)
}

fn taken(http: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Code::Io, format!("cannot serve HTTP on {http}: {error}"));
    match error.kind() {
        ErrorKind::AddrInUse => {
            failure.advise("another program (perhaps this node, already running) has the port; stop it, or change `http` in the file")
        }
        _ => failure,
    }
}

async fn serve(file: &ConfigFile, listener: TcpListener, app: App) -> Result<(), Failure> {
    let (handle, stopping, channels) = (app.handle.clone(), app.stopping.clone(), app.channels.clone());
    let io = |error| Failure::new(Code::Io, format!("cannot serve HTTP on {}: {error}", file.http));
    let address = listener.local_addr().map_err(io)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
    let mut interrupts = Interrupts::listen()?;
    let (admission, connections) = (app.admission.clone(), Connections::new(false));
    tokio::spawn(listen(
        listener,
        http::router(app),
        admission,
        connections.clone(),
    ));
    let cluster = handle.status().cluster;
    tracing::info!(node = file.node, %cluster, http = %format_args!("http://{address}"), "serving");
    let ended = tokio::select! {
        name = interrupts.next() => { tracing::info!(signal = name, "stopping"); Ok(()) }
        why = handle.stopped() => Err(Failure::new(Code::Stopped, format!("node {} stopped itself: {why}", file.node))),
    };
    stopping.store(true, Ordering::Relaxed);
    let end = async {
        sleep(TURN_AWAY).await;
        connections.send_replace(true);
        channels.send_replace(true);
        drain(&connections, &channels, &handle).await;
    };
    interrupts.through(end).await;
    ended
}

/// Lets answers under way finish, stops the node, and lets what that resolved be told.
async fn drain(connections: &Connections, channels: &watch::Sender<bool>, handle: &Handle<Raw>) {
    let all = async || {
        channels.closed().await;
        connections.closed().await;
    };
    let _ = timeout(DRAIN, all()).await;
    if let Err(error) = handle.shutdown().await {
        tracing::warn!(%error, "the node did not stop cleanly; nothing acknowledged is lost");
    }
    // The node has answered all there was. What is left then ends with the runtime.
    let _ = timeout(DRAIN, all()).await;
}
