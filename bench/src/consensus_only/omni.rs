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

/// An entry whose bytes are shared by those who hold it: with bytes of its own it is slower.
#[derive(Clone, Debug)]
pub(crate) struct Payload(Bytes);

impl Entry for Payload {
    type Snapshot = NoSnapshot;
}

pub(crate) struct Omni {
    node: OmniPaxos<Payload, MemoryStorage<Payload>>,
    leads: bool,
}

impl Replica for Omni {
    type Message = Message<Payload>;

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
        let mut bytes = BytesMut::with_capacity(n * source.entry_len());
        for _ in 0..n {
            bytes.put_slice(source.next());
            let entry = Payload(bytes.split().freeze());
            assert!(self.node.append(entry).is_ok(), "no reconfiguration is under way");
        }
    }

    fn receive(&mut self, message: Self::Message) {
        self.node.handle_incoming(message);
    }

    fn turn(&mut self, post: &mut Vec<Self::Message>) {
        self.node.take_outgoing_messages(post);
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
                fingerprint.add(&entry.0);
            }
        }
    }

    fn trim(&mut self) {
        if self.leads {
            self.node.trim(None).expect("all have accepted it");
        }
    }
}
