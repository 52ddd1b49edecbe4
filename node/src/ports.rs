//! The seam between a replica and the world: production and simulation differ only behind it.
//!
//! Submitting never blocks and never fails; what comes of it is told by a later [`Input`].

use crate::{
    machine::{Asked, Done, MachineError, Restore, Source, Task},
    request::{Reply, Request, Token},
    roles::RoleChange,
};
use bytes::Bytes;
use kontiki_consensus::{GroupId, Incarnation, NodeId, Note, Write};
use kontiki_log::{Fetch, LogEvent, SnapshotCommand};
use kontiki_wire::{Life, Packet, PeerMessage, StartId, lives::Lives};

/// Where a replica's outputs go.
pub trait Ports {
    /// Make this durable; then [`LogEvent::Persisted`].
    fn persist(&mut self, group: GroupId, write: Write);
    /// Read records; then [`LogEvent::Fetched`].
    fn fetch(&mut self, group: GroupId, fetch: Fetch);
    /// Do this with snapshots; what comes of it is told by [`LogEvent::Snapshot`].
    fn snapshot(&mut self, group: GroupId, command: SnapshotCommand);
    /// The disk was said to be full: look again whether it still is; then [`LogEvent::DiskFull`] if it is not.
    fn retry_room(&mut self);
    /// Send to a peer. If its queue is full the message is dropped: then [`Input::SendDropped`].
    fn send(&mut self, group: GroupId, to: NodeId, message: PeerMessage);
    /// Have the [`Applier`](crate::machine::Applier) do this, after all earlier tasks; then [`Input::Machine`]. A driver
    /// without a machine never asks for it.
    fn work(&mut self, group: GroupId, task: Task);
    /// Have the applier take over the state of this snapshot ([`Task::Restore`]), after all earlier tasks and before all
    /// later ones; what it reads is the log's [`snapshot_state`](kontiki_log::Log::snapshot_state). Then [`Input::Machine`].
    fn restore(&mut self, group: GroupId, restore: Restore);
    /// Have the next piece of a machine's state read ([`Source::read`]), aside, for it may take long; then [`Input::State`].
    fn read_state(&mut self, group: GroupId, source: Source);
    /// Have a query answered aside ([`Asked::answer`](crate::machine::Asked::answer)), in no particular order; then
    /// [`Input::Machine`].
    fn query(&mut self, group: GroupId, asked: Asked);
    /// Nobody waits for the answers to these queries any more: those that are not yet begun need not be answered.
    fn withdraw_queries(&mut self, group: GroupId, queries: &[u64]);
    /// How many bytes of answers to reads and queries were given and not yet taken by those who asked. If these are more than
    /// `most`, then [`Input::AnswersTaken`] once one of them is taken.
    fn answers_held(&mut self, most: usize) -> usize;
    /// Make durable what is known of lives; then [`LogEvent::LivesKept`].
    fn keep_lives(&mut self, lives: Lives);
    /// End every connection with this start of a peer, admit none any more, and tell it why.
    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str);
    /// Answer a client. Each token is answered exactly once, unless it is cancelled before.
    fn reply(&mut self, token: Token, reply: Reply);
    /// Something worth telling.
    fn note(&mut self, group: GroupId, note: &Note);
    /// This node's role, term or leader is another, and why.
    fn role_changed(&mut self, group: GroupId, change: &RoleChange) {
        let _ = (group, change);
    }
}

/// The life in which a peer comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// The peer.
    pub peer: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// The life of that.
    pub life: Life,
}

/// What reaches a replica.
#[derive(Debug)]
pub enum Input {
    /// A peer's message; the transport has verified sender and cluster, and that it comes from the start that it says.
    Packet(Packet),
    /// A peer has greeted: before the first packet from a start of it, and as often as it connects.
    Greeted(Box<Greeting>),
    /// This peer refuses the life of this node.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// What it says.
        why: String,
    },
    /// The log has something to say.
    Log(LogEvent),
    /// The machine has done a task.
    Machine(Done),
    /// A piece of the machine's state was read.
    State {
        /// From here.
        source: Source,
        /// The piece, `None` at the end, or why there is none.
        piece: Result<Option<Bytes>, MachineError>,
    },
    /// A message to this peer was dropped, or its connection was lost.
    SendDropped(NodeId),
    /// The process of this peer seems to have ended. A hint: it may be false.
    PeerGone(NodeId),
    /// A client asks.
    Request(Request),
    /// Nobody waits for the answers to these any more. Reads and queries are not answered then; appends go on.
    Cancel(Vec<Token>),
    /// Answers were taken, see [`Ports::answers_held`].
    AnswersTaken,
}
