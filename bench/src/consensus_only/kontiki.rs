//! Kontiki's consensus, driven as its driver drives it: all that was proposed is sealed as one run, every
//! write is reported as soon as it is in the log, and flushing goes on until nothing more follows.
//!
//! A record holds one entry: its bytes are copied into the run. Headers and checksums of records belong
//! to the wire format and are not made here.

use super::cluster::Replica;
use super::entries::{Fingerprint, Source};
use bytes::{BufMut, BytesMut};
use kontiki_consensus::{
    Body, Config, Configuration, Consensus, Event, HardState, Index, LogId, Mark, MarkList, Message, NodeId,
    Output, Position, Records, Restored, Role, Run, Runs, Term, TermStart, Time,
};

pub(crate) struct Kontiki {
    consensus: Consensus,
    outputs: Vec<Output>,
    now: Time,
    /// What is on its disk.
    log: Vec<Runs>,
    /// How many user entries were committed up to the last commit.
    committed: u64,
}

impl Kontiki {
    fn restored() -> Restored {
        let first = LogId::new(Term(1), Index(1));
        Restored {
            base: LogId::ZERO,
            base_position: Position::ZERO,
            snapshot: None,
            hard_state: HardState {
                term: Term(1),
                vote: None,
                ..HardState::default()
            },
            terms: vec![TermStart {
                term: Term(1),
                index: first.index,
                position_before: Position::ZERO,
            }],
            last: first,
            last_position: Position::ZERO,
            configurations: vec![(first.index, Configuration::of_voters([1, 2, 3].map(NodeId)))],
            tail: Vec::new(),
        }
    }

    fn dispatch(&mut self, output: Output, send: &mut impl FnMut(Message)) {
        match output {
            Output::Persist(write) => {
                assert!(write.truncate.is_none(), "nothing here is ever in doubt");
                self.log.push(write.runs);
                self.consensus.step(self.now, Event::Persisted(write.id));
            }
            Output::Send(message) => send(message),
            Output::Commit(index) => {
                let position = self.consensus.position_at(index).expect("it was just appended");
                self.committed = position.0;
            }
            Output::Note(_) => {}
            other => panic!("not called for here: {other:?}"),
        }
    }
}

impl Replica for Kontiki {
    type Message = Message;

    const NAME: &'static str = "kontiki";

    fn three(_: usize) -> [Self; 3] {
        [1, 2, 3].map(|node| Self {
            consensus: Consensus::new(Config::new(NodeId(node)), Self::restored(), node, Time::ZERO),
            outputs: Vec::new(),
            now: Time::ZERO,
            log: Vec::new(),
            committed: 0,
        })
    }

    fn campaign(&mut self) {
        // From here on time stands still: its followers' timers have not gone off, and never do.
        self.consensus.step(self.consensus.deadline(), Event::Timeout);
        self.now = Time::ZERO;
    }

    fn leads(&self) -> bool {
        self.consensus.role() == Role::Leader && self.consensus.admission().is_some()
    }

    fn propose(&mut self, source: &mut Source, n: usize) {
        let place = self.consensus.admission().expect("it leads");
        let mut bytes = BytesMut::with_capacity(n * source.entry_len());
        let mut marks = MarkList::with_capacity(n);
        for entries in 1..=n as u32 {
            bytes.put_slice(source.next());
            marks.push(Mark {
                end: bytes.len() as u32,
                entries,
            });
        }
        let records = Records::gathered(bytes.freeze(), marks).expect("marks rise to the end");
        let run = Run::new(place.index, place.term, place.position, Body::Records(records));
        self.consensus.step(self.now, Event::Propose(run));
    }

    fn receive(&mut self, message: Message) {
        self.consensus.step(self.now, Event::Message(message));
    }

    fn turn(&mut self, mut send: impl FnMut(Message)) {
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            self.consensus.flush(self.now, &mut outputs);
            if outputs.is_empty() {
                break;
            }
            for output in outputs.drain(..) {
                self.dispatch(output, &mut send);
            }
        }
        self.outputs = outputs;
    }

    fn addressee(message: &Message) -> usize {
        message.to.0 as usize - 1
    }

    fn committed(&self) -> u64 {
        self.committed
    }

    fn announce(&mut self) {
        // As much time passes for it as it may wait for records to go with what is committed.
        self.now = self.consensus.deadline();
        self.consensus.step(self.now, Event::Timeout);
    }

    fn read(&self, fingerprint: &mut Fingerprint) {
        for run in self.log.iter().flatten() {
            let Body::Records(records) = run.body() else {
                continue;
            };
            for n in 0..records.len() {
                let (bytes, before, _) = records.record(n).expect("within the run");
                if run.first_position().0 + before <= self.committed {
                    fingerprint.add(&bytes);
                }
            }
        }
    }

    fn trim(&mut self) {
        self.log.clear();
    }
}
