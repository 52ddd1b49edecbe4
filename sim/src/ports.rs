//! The simulator's side of the seam: where a node's outputs go.
//!
//! Invariant: the checkers see each output before anything comes of it.

use crate::checkers::transfers::Gone;
use crate::checks::Checks;
use crate::crowds::{Reading, bytes_of};
use crate::disk::SimDisk;
use crate::sometimes::Sometimes;
use crate::trace::Trace;
use crate::transitions::{MessageId, Transitions};
use crate::violation::{Verdict, Violation};
use kontiki_consensus::{Call, GroupId, Index, NodeId, Note, Role, Term, Time, Write};
use kontiki_log::{Fetch, From, Log, SnapshotCommand};
use kontiki_node::machine::{Asked, Restore, Source, Task};
use kontiki_node::{PIECE_BYTES_MAX, Ports, Reply, Token};
use kontiki_wire::{PeerMessage, ProposeAnswer, StartId, lives::Lives};
use std::collections::BTreeMap;

/// What a node has said in one turn.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// To its peers, with the names that the messages get at the end of the turn.
    pub messages: Vec<(NodeId, PeerMessage, MessageId)>,
    /// To its clients.
    pub replies: Vec<(Token, Reply)>,
    /// To its machine.
    pub tasks: Vec<Work>,
    /// States of which a piece is to be read.
    pub sources: Vec<Source>,
    /// Queries to be answered beside the machine.
    pub asked: Vec<Asked>,
    /// Queries that need not be answered any more.
    pub withdrawn: Vec<u64>,
    /// Whose answers nobody waits for any more, as the node was told in this turn.
    pub cancelled: Vec<Token>,
    /// From where it cut its log.
    pub truncated: Option<Index>,
    /// What it did away with.
    pub gone: Gone,
    /// Starts of peers that it refuses.
    pub refusals: Vec<(NodeId, StartId, String)>,
    /// The first thing that must not have been.
    violation: Option<Violation>,
    /// How often the ports were called in this turn.
    calls: u32,
}

/// What a machine is to do.
#[derive(Debug)]
pub enum Work {
    /// This.
    Task(Task),
    /// To take over a snapshot, whose file is opened when its turn has come.
    Restore(Restore),
}

/// How often a turn may call its ports: some hundred times what is usual.
const CALLS_MAX: u32 = 100_000;

impl Outgoing {
    /// Counts a call. A turn that never ends can only be left by a panic, which the run reports.
    fn count(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_MAX, "a turn goes on without end");
    }

    /// Takes note of what a checker says.
    fn note(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    /// What the checkers said during the turn.
    ///
    /// # Errors
    /// The first violation.
    pub fn verdict(&mut self) -> Verdict {
        self.calls = 0;
        self.violation.take().map_or(Ok(()), Err)
    }
}

/// How far each node has sent records to each peer, and who stood in which term: to see what is rare.
#[derive(Debug, Default)]
pub struct Watch {
    sent: BTreeMap<(NodeId, NodeId), (Term, Index)>,
    candidates: BTreeMap<Term, NodeId>,
}

impl Watch {
    fn sees(&mut self, checks: &mut Checks, from: NodeId, to: NodeId, message: &PeerMessage) {
        let counters = &mut checks.counters;
        match message {
            PeerMessage::Raft(message) => match &message.call {
                Call::AppendEntries { runs, .. } => {
                    if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
                        let sent = self.sent.insert((from, to), (message.term, last.last()));
                        let again =
                            sent.is_some_and(|(term, index)| term == message.term && first.first() <= index);
                        counters.hit_if(again, Sometimes::Resent);
                    }
                }
                Call::RequestVote { pre: false, .. } => {
                    let first = *self.candidates.entry(message.term).or_insert(from);
                    counters.hit_if(first != from, Sometimes::SplitVote);
                }
                Call::ReadIndex { .. } => counters.hit(Sometimes::ReadForwarded),
                _ => {}
            },
            PeerMessage::ProposeReply(reply) => counters.hit(match reply.answer {
                ProposeAnswer::Assigned { .. } => Sometimes::Assigned,
                ProposeAnswer::Refused(_) => Sometimes::ForwardRefused,
            }),
            PeerMessage::Propose(_) | PeerMessage::SnapshotRequest(_) | PeerMessage::SnapshotChunk(_) => {}
            PeerMessage::Compared(_) | PeerMessage::Resync(_) => {}
        }
    }
}

/// The ports of a node during one turn.
#[derive(Debug)]
pub struct SimPorts<'a> {
    /// The node.
    pub node: NodeId,
    /// The moment.
    pub now: Time,
    /// Its log.
    pub log: &'a mut Log<SimDisk>,
    /// What its readers have under way.
    pub reading: &'a mut Reading,
    /// All checkers.
    pub checks: &'a mut Checks,
    /// What is rare.
    pub watch: &'a mut Watch,
    /// What it says.
    pub outgoing: &'a mut Outgoing,
    /// The trace of the run.
    pub trace: &'a Trace,
    /// What is written of it for others to judge.
    pub transitions: &'a Transitions,
}

impl Ports for SimPorts<'_> {
    fn persist(&mut self, group: GroupId, write: Write) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} writes {write:?}", self.node));
        self.transitions.writes(self.now, self.node, &write);
        let verdict = self.checks.wrote(self.node, &write);
        self.outgoing.note(verdict);
        if let Some(base) = &write.purge {
            self.outgoing.gone.log = Some(base.last.index);
        }
        if let Some(from) = write.truncate {
            self.outgoing.truncated = Some(from);
        }
        self.log.persist(group, write);
    }

    fn fetch(&mut self, group: GroupId, fetch: Fetch) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} fetches {fetch:?}", self.node));
        let replay = fetch.bytes_max == PIECE_BYTES_MAX;
        let for_peer = matches!(fetch.from, From::Index(_)) && fetch.bytes_max > 1 && !replay;
        self.checks.counters.hit_if(for_peer, Sometimes::ReadByFollower);
        self.checks.counters.hit_if(replay, Sometimes::Replayed);
        if matches!(fetch.from, From::Position(_)) {
            self.reading.fetches.insert(fetch.token);
        }
        self.log.fetch(group, fetch);
    }

    fn retry_room(&mut self) {
        self.outgoing.count();
        self.log.retry_room();
    }

    fn snapshot(&mut self, _group: GroupId, command: SnapshotCommand) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} has snapshots {command:?}", self.node));
        if let SnapshotCommand::Remove(last) = &command {
            self.outgoing.gone.snapshots.push(*last);
        }
        self.log.snapshot(command);
    }

    fn send(&mut self, _group: GroupId, to: NodeId, message: PeerMessage) {
        self.outgoing.count();
        self.trace.line(self.now, || match &message {
            PeerMessage::Raft(message) => format!("{message:?}"),
            other => format!("{:?}→{to:?} {other:?}", self.node),
        });
        if let PeerMessage::Raft(message) = &message {
            let verdict = self.checks.sends(message);
            self.outgoing.note(verdict);
        }
        self.watch.sees(self.checks, self.node, to, &message);
        self.outgoing.messages.push((to, message, MessageId::default()));
    }

    fn keep_lives(&mut self, lives: Lives) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} keeps {lives:?}", self.node));
        self.log.keep_lives(lives);
    }

    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str) {
        self.outgoing.count();
        self.outgoing.refusals.push((peer, start, why.to_owned()));
    }

    fn work(&mut self, _group: GroupId, task: Task) {
        self.outgoing.count();
        self.trace.line(self.now, || {
            format!("{:?} has its machine do {task:?}", self.node)
        });
        self.outgoing.tasks.push(Work::Task(task));
    }

    fn restore(&mut self, _group: GroupId, restore: Restore) {
        self.outgoing.count();
        self.trace.line(self.now, || {
            format!("{:?} has its machine take over {:?}", self.node, restore.last())
        });
        self.outgoing.tasks.push(Work::Restore(restore));
    }

    fn read_state(&mut self, _group: GroupId, source: Source) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} has {source:?} read", self.node));
        self.outgoing.sources.push(source);
    }

    fn query(&mut self, _group: GroupId, asked: Asked) {
        self.outgoing.count();
        self.trace.line(self.now, || {
            format!("{:?} has {asked:?} answered aside", self.node)
        });
        self.outgoing.asked.push(asked);
    }

    fn withdraw_queries(&mut self, _group: GroupId, queries: &[u64]) {
        self.outgoing.count();
        self.outgoing.withdrawn.extend(queries);
    }

    fn answers_held(&mut self, most: usize) -> usize {
        self.outgoing.count();
        self.reading.wants_room |= self.reading.held > most;
        self.reading.held
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.outgoing.count();
        self.reading.held += bytes_of(&reply);
        self.trace.line(self.now, || {
            format!("{:?} answers {token:?}: {reply:?}", self.node)
        });
        self.outgoing.replies.push((token, reply));
    }

    fn note(&mut self, _group: GroupId, note: &Note) {
        self.outgoing.count();
        self.trace
            .line(self.now, || format!("{:?} notes {note:?}", self.node));
        self.transitions.notes(self.now, self.node, note);
        let counters = &mut self.checks.counters;
        match note {
            Note::SteppedDown(_) => counters.hit(Sometimes::SteppedDown),
            Note::Backtracked { .. } => counters.hit(Sometimes::Backtracked),
            Note::Purged { .. } => counters.hit(Sometimes::Forgotten),
            Note::SnapshotInstalled { .. } => counters.hit(Sometimes::SnapshotInstalled),
            Note::SnapshotFailed { .. } => counters.hit(Sometimes::SnapshotFailed),
            Note::Role {
                role: Role::Leader,
                term,
                ..
            } => {
                let (term, node) = (*term, self.node);
                let verdict = self.checks.elected(node, term);
                self.outgoing.note(verdict);
            }
            _ => {}
        }
    }
}
