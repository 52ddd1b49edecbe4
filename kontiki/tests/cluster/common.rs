//! Clusters for tests. Nothing here or in the tests depends on fixed ports or on how fast the machine is.

use kontiki::{BlockingHandle, Config, LogEntry, LogOnly, RaftNode};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Longer than anything takes on a machine that works at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "kontiki-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Slow enough elections that a busy machine does not change leaders.
fn patient(mut config: Config) -> Config {
    config.request_timeout = PATIENCE;
    config
}

pub(crate) fn start<T: LogEntry>(config: Config) -> BlockingHandle<T> {
    RaftNode::<LogOnly<T>>::new(patient(config))
        .unwrap()
        .start()
        .unwrap()
        .blocking()
}

/// Three nodes with directories below `dir`.
pub(crate) fn durable<T: LogEntry>(dir: &Path) -> Vec<BlockingHandle<T>> {
    let nodes: Vec<_> = Config::loopback(3, dir).unwrap().into_iter().map(start).collect();
    ready(&nodes);
    nodes
}

/// Three nodes in memory.
pub(crate) fn in_memory<T: LogEntry>() -> Vec<BlockingHandle<T>> {
    in_memory_with(|_| {})
}

/// Three nodes in memory, with settings of one's own.
pub(crate) fn in_memory_with<T: LogEntry>(change: impl Fn(&mut Config)) -> Vec<BlockingHandle<T>> {
    let configs = Config::in_memory(3).unwrap().into_iter().map(|mut config| {
        change(&mut config);
        start(config)
    });
    let nodes: Vec<_> = configs.collect();
    ready(&nodes);
    nodes
}

fn ready<T: LogEntry>(nodes: &[BlockingHandle<T>]) {
    for node in nodes {
        node.wait_ready(PATIENCE).unwrap();
    }
}

/// Where the leader is among the nodes.
pub(crate) fn leader<T: LogEntry>(nodes: &[BlockingHandle<T>]) -> usize {
    let mut found = None;
    eventually("a leader that knows itself", || {
        found = nodes
            .iter()
            .position(|node| node.status().role == kontiki::Role::Leader);
        found.is_some()
    });
    found.unwrap()
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn shut_down<T: LogEntry>(nodes: &[BlockingHandle<T>]) {
    nodes.iter().for_each(|node| node.shutdown().unwrap());
}
