//! Signals that ask the process to end.
//!
//! A thread of its own receives them. A command notices one by asking for it ([`Interrupts::next`]), and drops [`Interrupts`]
//! when only its last words are left. One that does not notice, or does not end after that, waits for a reader of standard
//! output or standard error that does not read: that thread ends the process.

use crate::failure::Failure;
use kontiki::Code;
use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

/// How soon a command has to notice a signal, and to end once it listens to them no more.
const NOTICE_MAX: Duration = Duration::from_secs(2);

/// SIGINT and SIGTERM, counted.
pub(crate) struct Interrupts {
    names: mpsc::UnboundedReceiver<&'static str>,
    noticed: Arc<AtomicUsize>,
}

impl Interrupts {
    /// From now on, SIGINT and SIGTERM no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::receive().map_err(|error| Failure::new(Code::Io, format!("cannot listen for signals: {error}")))
    }

    fn receive() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // They are received from here on, not from when the thread comes to run.
        let both = {
            let _inside = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
        };
        let [interrupt, terminate] = both;
        let (interrupt, terminate) = (interrupt?, terminate?);
        let (sender, names) = mpsc::unbounded_channel();
        let noticed = Arc::<AtomicUsize>::default();
        let seen = noticed.clone();
        thread::Builder::new()
            .name("kontiki-signals".into())
            .spawn(move || runtime.block_on(forward(interrupt, terminate, &sender, &seen)))?;
        Ok(Self { names, noticed })
    }

    /// Waits for the next one and says which.
    pub(crate) async fn next(&mut self) -> &'static str {
        match self.names.recv().await {
            Some(name) => {
                self.noticed.fetch_add(1, Ordering::Relaxed);
                name
            }
            // The thread that receives them never ends.
            None => std::future::pending().await,
        }
    }

    /// Does work that is to be finished whatever is received meanwhile.
    pub(crate) async fn through<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = self.next() => {}
            }
        }
    }

    /// Whether there was any.
    pub(crate) fn any(&self) -> bool {
        self.noticed.load(Ordering::Relaxed) > 0
    }
}

/// Hands signals on, and ends the process if one is not noticed in time.
async fn forward(
    mut interrupt: Signal,
    mut terminate: Signal,
    names: &mpsc::UnboundedSender<&'static str>,
    noticed: &AtomicUsize,
) {
    let mut received = 0;
    loop {
        let is_over = names.is_closed();
        let is_late = || received > 0 && (is_over || received > noticed.load(Ordering::Relaxed));
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            () = names.closed(), if !is_over => continue,
            () = sleep(NOTICE_MAX), if is_late() => {
                if is_late() {
                    std::process::exit(Code::Interrupted.exit_code().into());
                }
                continue;
            }
        };
        received += 1;
        // A command that is over takes no more of them.
        let _ = names.send(name);
    }
}
