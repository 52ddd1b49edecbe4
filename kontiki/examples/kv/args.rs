//! The options on the command line. What a cluster is started with, its nodes are started with too.

use crate::{Failed, store};
use std::{collections::BTreeMap, path::PathBuf};

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    /// How long the log is to get, in commands.
    pub(crate) entries: u64,
    /// Commands in one record.
    pub(crate) batch: usize,
    /// Records on their way from the leader's program, and those who append one command after the other in `bench-snapshot`.
    pub(crate) tasks: usize,
    /// Different keys.
    pub(crate) keys: u64,
    /// The longest value.
    pub(crate) value_bytes: u64,
    /// A snapshot is taken when the log has grown by so much.
    pub(crate) snapshot_bytes: u64,
    /// A snapshot is taken after so many commands, whatever they take; 0: not for that.
    pub(crate) snapshot_entries: u64,
    /// How much of the log before a snapshot stays.
    pub(crate) keep_bytes: u64,
    /// How often the nodes are killed.
    pub(crate) rounds: u64,
    /// How long `bench-snapshot` measures, in seconds.
    pub(crate) seconds: u64,
    pub(crate) dir: PathBuf,
    pub(crate) store: store::Options,
    /// Only for nodes: which one this is, and where all are.
    pub(crate) node: u64,
    pub(crate) peers: BTreeMap<u64, String>,
    /// All of it as it was given.
    pub(crate) words: Vec<String>,
}

impl Args {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let words: Vec<String> = words.collect();
        let mut args = Self {
            entries: 1_000_000,
            batch: 200,
            tasks: 8,
            keys: 100_000,
            value_bytes: 40,
            snapshot_bytes: 10 << 20,
            snapshot_entries: 0,
            keep_bytes: 4 << 20,
            rounds: 4,
            seconds: 60,
            dir: std::env::current_dir()?.join(format!("kv-{}", std::process::id())),
            store: store::Options::default(),
            node: 0,
            peers: BTreeMap::new(),
            words: words.clone(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            args.set(&word, &value)
                .map_err(|error| format!("{word} {value}: {error}"))?;
        }
        Ok(args)
    }

    fn set(&mut self, word: &str, value: &str) -> Result<(), Failed> {
        match word {
            "--entries" => self.entries = value.parse()?,
            "--batch" => self.batch = value.parse()?,
            "--tasks" => self.tasks = value.parse()?,
            "--keys" => self.keys = value.parse()?,
            "--value-bytes" => self.value_bytes = value.parse()?,
            "--snapshot-bytes" => self.snapshot_bytes = value.parse()?,
            "--snapshot-entries" => self.snapshot_entries = value.parse()?,
            "--keep-bytes" => self.keep_bytes = value.parse()?,
            "--rounds" => self.rounds = value.parse()?,
            "--seconds" => self.seconds = value.parse()?,
            "--dir" => self.dir = value.into(),
            "--sync-every" => self.store.sync_every = value.parse()?,
            "--cache-bytes" => self.store.cache_bytes = value.parse()?,
            "--node" => self.node = value.parse()?,
            "--peers" => self.peers = (1..).zip(value.split(',').map(str::to_owned)).collect(),
            _ => return Err("it is not known".into()),
        }
        Ok(())
    }
}
