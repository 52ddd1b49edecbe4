//! OmniPaxos in its best mode: the leader's batch is what is proposed at once, followers do not wait for
//! batches of their own; its own storage in memory.

use super::cluster::Replica;
use super::entries::{Fingerprint, Source};
use bytes::{BufMut, Bytes, BytesMut};
use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot};
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;
use std::sync::Arc;

/// How an entry holds its bytes. Which is faster depends on how many are proposed at once.
pub(crate) trait Payload: Entry {
    /// Makes `n` of them and gives them to `take`, one after the other.
    fn several(source: &mut Source, n: usize, take: impl FnMut(Self));

    fn bytes(&self) -> &[u8];
}

/// All that are proposed at once share one piece of memory: best where there are many.
#[derive(Clone, Debug)]
pub(crate) struct Together(Bytes);

/// Each has memory of its own: best where there is only one.
#[derive(Clone, Debug)]
pub(crate) struct Apart(Arc<[u8]>);

impl Entry for Together {
    type Snapshot = NoSnapshot;
}

impl Entry for Apart {
    type Snapshot = NoSnapshot;
}

impl Payload for Together {
    fn several(source: &mut Source, n: usize, mut take: impl FnMut(Self)) {
        let mut bytes = BytesMut::with_capacity(n * source.entry_len());
        for _ in 0..n {
            bytes.put_slice(source.next());
            take(Self(bytes.split().freeze()));
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Payload for Apart {
    fn several(source: &mut Source, n: usize, mut take: impl FnMut(Self)) {
        for _ in 0..n {
            take(Self(source.next().into()));
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(crate) struct Omni<P: Payload> {
    node: OmniPaxos<P, MemoryStorage<P>>,
    leads: bool,
    outgoing: Vec<Message<P>>,
}

impl<P: Payload> Replica for Omni<P> {
    type Message = Message<P>;

    const NAME: &'static str = "omnipaxos";

    fn three(outstanding: usize) -> [Self; 3] {
        [1, 2, 3].map(|pid| {
            let cluster = ClusterConfig {
                configuration_id: 1,
                nodes: vec![1, 2, 3],
                ..ClusterConfig::default()
            };
            let server = ServerConfig {
                pid,
                batch_size: if pid == 1 { outstanding } else { 1 },
                ..ServerConfig::default()
            };
            let node = cluster.build_for_server(server, MemoryStorage::default());
            Self {
                node: node.expect("the configuration is valid"),
                leads: false,
                outgoing: Vec::new(),
            }
        })
    }

    fn campaign(&mut self) {
        self.node.try_become_leader();
        self.leads = true;
    }

    fn leads(&self) -> bool {
        self.leads && self.node.get_current_leader() == Some((1, true))
    }

    fn propose(&mut self, source: &mut Source, n: usize) {
        P::several(source, n, |entry| {
            assert!(self.node.append(entry).is_ok(), "no reconfiguration is under way");
        });
    }

    fn receive(&mut self, message: Self::Message) {
        self.node.handle_incoming(message);
    }

    fn turn(&mut self, send: impl FnMut(Self::Message)) {
        self.node.take_outgoing_messages(&mut self.outgoing);
        self.outgoing.drain(..).for_each(send);
    }

    fn addressee(message: &Self::Message) -> usize {
        message.get_receiver() as usize - 1
    }

    fn committed(&self) -> u64 {
        self.node.get_decided_idx() as u64
    }

    fn announce(&mut self) {}

    fn read(&self, fingerprint: &mut Fingerprint) {
        let trimmed = self.node.get_compacted_idx();
        for entry in self.node.read_decided_suffix(trimmed).into_iter().flatten() {
            if let LogEntry::Decided(entry) = entry {
                fingerprint.add(entry.bytes());
            }
        }
    }

    fn trim(&mut self) {
        if self.leads {
            self.node.trim(None).expect("all have accepted it");
        }
    }
}
