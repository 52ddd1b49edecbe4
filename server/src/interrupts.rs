//! Signals that ask the process to end.

use crate::failure::Failure;
use kontiki::Code;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, counted.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    seen: usize,
}

impl Interrupts {
    /// From now on, SIGINT and SIGTERM no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Code::Io, format!("cannot listen for signals: {error}")))
        };
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self {
            interrupt,
            terminate,
            seen: 0,
        })
    }

    /// Waits for the next one and says which.
    pub(crate) async fn next(&mut self) -> &'static str {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        };
        self.seen += 1;
        name
    }

    /// Whether there was any.
    pub(crate) fn any(&self) -> bool {
        self.seen > 0
    }
}
