//! Packets out of a stream of bytes: the other end of a lane.
//!
//! Invariants: a length is checked before a byte is allocated for it; a packet has memory of its own, no
//! larger than it is, so that a record kept for long holds on to nothing else; a packet that does not come
//! from the node at the other end, or is not for this one, ends the connection; a stream that never runs
//! dry still lets others have their turn, after a bounded number of bytes.

use crate::{Sink, TransportEvent, transport::Shared};
use bytes::Bytes;
use kontiki_consensus::NodeId;
use kontiki_wire::{
    Identity, Packet, StartId,
    codec::{self, DecodeError, PacketBytesMax},
    handshake::Agreed,
};

/// How many bytes of a lane are worked on before the other lanes have their turn.
pub(crate) const TURN_BYTES_MAX: usize = 128 << 10;

/// How often a lane of snapshots lets the others go first after each piece: what the sender has sent before it may still lie
/// here unread.
const BACKGROUND_YIELDS: usize = 8;

/// Why a lane is not read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// What came is no sound packet.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// What came is not from the node at the other end, or not for this one.
    #[error(
        "a packet from node {from} (start {start}) to node {to} on a connection from node {peer} to node {own}"
    )]
    Misdirected {
        from: NodeId,
        start: StartId,
        to: NodeId,
        peer: NodeId,
        own: NodeId,
    },
}

/// One lane of a peer, as it comes in.
pub(crate) struct Inbound<'s> {
    sink: &'s dyn Sink,
    own: Identity,
    peer: NodeId,
    /// The start with which it has greeted.
    start: StartId,
    assembler: Assembler,
    yields: usize,
}

impl<'s> Inbound<'s> {
    /// A lane of the peer that has proven to be this one.
    pub(crate) fn new(shared: &'s Shared, agreed: &Agreed) -> Self {
        let peer = (agreed.peer.node, agreed.life.start);
        Self::between(&*shared.sink, shared.own, peer, shared.limits.packet_bytes_max)
    }

    fn between(
        sink: &'s dyn Sink,
        own: Identity,
        (peer, start): (NodeId, StartId),
        packet_bytes_max: PacketBytesMax,
    ) -> Self {
        Self {
            sink,
            own,
            peer,
            start,
            assembler: Assembler::new(packet_bytes_max),
            yields: 1,
        }
    }

    /// Delivers the packets that end in these pieces, and lets the other lanes have their turn after each
    /// [`TURN_BYTES_MAX`], however large the pieces are.
    pub(crate) async fn take_in_turns(&mut self, pieces: &[Bytes]) -> Result<(), StreamError> {
        let mut turn_bytes = 0;
        for part in pieces.iter().flat_map(|piece| piece.chunks(TURN_BYTES_MAX)) {
            if turn_bytes + part.len() > TURN_BYTES_MAX {
                self.settle().await;
                turn_bytes = 0;
            }
            self.take(part)?;
            turn_bytes += part.len();
        }
        self.settle().await;
        Ok(())
    }

    /// Delivers the packets that end in this piece.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> Result<(), StreamError> {
        let own = self.own;
        while let Some(frame) = self.assembler.next(&mut piece)? {
            let packet = codec::decode(own.cluster, frame)?;
            check_envelope(&packet, own.node, (self.peer, self.start))?;
            if packet.message.is_background() {
                self.yields = BACKGROUND_YIELDS;
            }
            self.sink.deliver(TransportEvent::Packet(packet));
        }
        Ok(())
    }

    /// Nothing more has come for now: has what was delivered dealt with, and lets others have their turn.
    pub(crate) async fn settle(&self) {
        self.sink.settle();
        for _ in 0..self.yields {
            tokio::task::yield_now().await;
        }
    }
}

fn check_envelope(packet: &Packet, own: NodeId, (peer, start): (NodeId, StartId)) -> Result<(), StreamError> {
    let sound = packet.from == peer && packet.start == start && packet.to == own;
    sound.then_some(()).ok_or(StreamError::Misdirected {
        from: packet.from,
        start: packet.start,
        to: packet.to,
        peer,
        own,
    })
}

/// Puts packets together from the pieces a stream comes in.
#[derive(Debug)]
struct Assembler {
    bytes_max: PacketBytesMax,
    /// The beginning of the packet that is under way.
    start: Vec<u8>,
    /// Its length, once that is known.
    len: Option<usize>,
}

impl Assembler {
    fn new(bytes_max: PacketBytesMax) -> Self {
        Self {
            bytes_max,
            start: Vec::new(),
            len: None,
        }
    }

    /// The next whole packet. `None` once `piece` is used up.
    fn next(&mut self, piece: &mut &[u8]) -> Result<Option<bytes::Bytes>, DecodeError> {
        while self.len.is_none() {
            if piece.is_empty() {
                return Ok(None);
            }
            self.learn_length(piece)?;
        }
        let len = self.len.unwrap_or_default();
        self.take(piece, len - self.start.len());
        if self.start.len() < len {
            return Ok(None);
        }
        self.len = None;
        Ok(Some(std::mem::take(&mut self.start).into()))
    }

    /// Looks for the length, in place if the piece shows it, else in just the bytes that are needed.
    fn learn_length(&mut self, piece: &mut &[u8]) -> Result<(), DecodeError> {
        if self.start.is_empty() {
            self.len = codec::packet_len(piece, self.bytes_max)?;
        }
        if self.len.is_none() {
            self.take(piece, 1);
            self.len = codec::packet_len(&self.start, self.bytes_max)?;
        }
        if let Some(len) = self.len {
            self.start.reserve_exact(len - self.start.len());
        }
        Ok(())
    }

    /// Takes at most `count` bytes.
    fn take(&mut self, piece: &mut &[u8], count: usize) {
        let count = count.min(piece.len());
        self.start.extend_from_slice(&piece[..count]);
        *piece = &piece[count..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_consensus::{Call, GroupId, Incarnation, Message, ReadId, Term};
    use kontiki_wire::{ClusterId, PeerMessage};
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};

    fn packet_bytes(id: u64) -> Vec<u8> {
        let message = Message {
            from: NodeId(1),
            to: NodeId(2),
            term: Term(1),
            call: Call::ReadIndex { id: ReadId(id) },
        };
        let packet = Packet {
            group: GroupId(0),
            from: NodeId(1),
            start: StartId(1),
            to: NodeId(2),
            message: PeerMessage::Raft(message),
        };
        let mut chunks = Vec::new();
        codec::encode(ClusterId(1), &packet, &mut chunks);
        chunks.concat()
    }

    proptest! {
        #[test]
        fn packets_come_out_whole_however_the_stream_is_cut(
            cuts in proptest::collection::vec(1usize..100, 1..40),
            count in 1u64..10,
        ) {
            let packets: Vec<Vec<u8>> = (0..count).map(packet_bytes).collect();
            let stream = packets.concat();
            let mut stream = stream.as_slice();
            let mut assembler = Assembler::new(PacketBytesMax::default());
            let mut out = Vec::new();
            for cut in cuts.iter().cycle() {
                let mut piece;
                (piece, stream) = stream.split_at((*cut).min(stream.len()));
                while let Some(packet) = assembler.next(&mut piece).unwrap() {
                    out.push(packet.to_vec());
                }
                if stream.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(out, packets);
        }
    }

    /// How many packets came in each turn.
    #[derive(Default)]
    struct Turns {
        now: Cell<usize>,
        ended: RefCell<Vec<usize>>,
    }

    impl Sink for Turns {
        fn deliver(&self, _: TransportEvent) {
            self.now.set(self.now.get() + 1);
        }

        fn settle(&self) {
            self.ended.borrow_mut().push(self.now.take());
        }
    }

    fn identity(node: u64) -> Identity {
        Identity {
            cluster: ClusterId(1),
            node: NodeId(node),
            incarnation: Incarnation(1),
        }
    }

    #[test]
    fn a_piece_of_many_turns_lets_the_others_go_first_after_each() {
        let packet = packet_bytes(1);
        let per_turn = TURN_BYTES_MAX / packet.len();
        let piece = Bytes::from(packet.repeat(10 * per_turn));
        let turns = Turns::default();
        let mut inbound = Inbound::between(
            &turns,
            identity(2),
            (NodeId(1), StartId(1)),
            PacketBytesMax::default(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let taken = runtime.block_on(inbound.take_in_turns(&[piece.slice(..100), piece.slice(100..)]));
        taken.unwrap();
        let ended = turns.ended.borrow();
        assert_eq!(ended.iter().sum::<usize>(), 10 * per_turn);
        assert!(
            ended.iter().all(|packets| *packets <= per_turn + 1),
            "more than {per_turn} packets in a turn: {ended:?}"
        );
    }

    #[test]
    fn nothing_is_allocated_for_a_length_above_the_limit() {
        let mut assembler = Assembler::new(PacketBytesMax(100));
        let mut long = packet_bytes(1);
        long[8..12].copy_from_slice(&101u32.to_le_bytes());
        for byte in &long[..11] {
            assert_eq!(assembler.next(&mut [*byte].as_slice()), Ok(None));
        }
        let refused = assembler.next(&mut &long[11..12]);
        assert!(matches!(refused, Err(DecodeError::TooLarge { .. })));
        assert!(assembler.start.capacity() < 100);
    }
}
