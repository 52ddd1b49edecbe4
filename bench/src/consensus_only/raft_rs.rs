//! tikv's raft-rs in its best mode: all that was proposed in one MsgPropose, batched appends, messages of
//! any size, no message only to announce a commit; its own storage in memory.

use super::cluster::Replica;
use super::entries::{Fingerprint, Source};
use bytes::{BufMut, BytesMut};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

pub(crate) struct RaftRs {
    node: RawNode<MemStorage>,
    /// How many entries with data were committed.
    committed: u64,
    /// The last index that was committed.
    index: u64,
}

impl RaftRs {
    fn node(id: u64) -> RawNode<MemStorage> {
        let config = Config {
            id,
            max_size_per_msg: u64::MAX,
            max_inflight_msgs: 4096,
            batch_append: true,
            skip_bcast_commit: true,
            ..Config::default()
        };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        RawNode::new(&config, storage, &logger).expect("the configuration is valid")
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            self.committed += u64::from(!entry.data.is_empty());
            self.index = entry.index;
        }
    }
}

impl Replica for RaftRs {
    type Message = Message;

    const NAME: &'static str = "raft-rs";

    fn three(_: usize) -> [Self; 3] {
        [1, 2, 3].map(|id| Self {
            node: Self::node(id),
            committed: 0,
            index: 0,
        })
    }

    fn campaign(&mut self) {
        self.node.campaign().expect("it may stand");
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn propose(&mut self, source: &mut Source, n: usize) {
        // One piece of memory for all: an allocation each makes it slower.
        let mut bytes = BytesMut::with_capacity(n * source.entry_len());
        let mut entries = Vec::with_capacity(n);
        for _ in 0..n {
            bytes.put_slice(source.next());
            entries.push(Entry {
                data: bytes.split().freeze(),
                ..Entry::default()
            });
        }
        let mut message = Message {
            from: self.node.raft.id,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.node.step(message).expect("it leads");
    }

    fn receive(&mut self, message: Message) {
        self.node.step(message).expect("it is from a peer");
    }

    fn turn(&mut self, mut send: impl FnMut(Message)) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            ready.take_messages().into_iter().for_each(&mut send);
            self.apply(ready.take_committed_entries());
            {
                let mut log = self.node.store().wl();
                log.append(ready.entries()).expect("entries follow on");
                if let Some(state) = ready.hs() {
                    log.set_hardstate(state.clone());
                }
            }
            ready.take_persisted_messages().into_iter().for_each(&mut send);
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.node.store().wl().mut_hard_state().set_commit(commit);
            }
            light.take_messages().into_iter().for_each(&mut send);
            self.apply(light.take_committed_entries());
            self.node.advance_apply();
        }
    }

    fn addressee(message: &Message) -> usize {
        message.to as usize - 1
    }

    fn committed(&self) -> u64 {
        self.committed
    }

    fn announce(&mut self) {
        self.node.ping();
    }

    fn read(&self, fingerprint: &mut Fingerprint) {
        use raft::storage::{GetEntriesContext, Storage};
        let log = self.node.store();
        let first = log.first_index().expect("it is in memory");
        let entries = log.entries(first, self.index + 1, None, GetEntriesContext::empty(false));
        // The first is the one that the last compaction has left as an anchor.
        for entry in entries
            .expect("it is in memory")
            .iter()
            .skip(1)
            .filter(|e| !e.data.is_empty())
        {
            fingerprint.add(&entry.data);
        }
    }

    fn trim(&mut self) {
        self.node
            .store()
            .wl()
            .compact(self.index)
            .expect("it is committed");
    }
}
