//! The file in which a node keeps its own life, and the highest that it knows of each peer.
//!
//! It has two copies of the same content, each a slot of its own, written and synced one after the other: one of them is always
//! whole, and the one that was written last counts. Invariant: a slot is sound as a whole or not at all; its CRC is begun with the
//! cluster's id.

use crate::{ClusterId, EARLIER_STARTS, Identity, KnownLife, Life, StartId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_consensus::{Incarnation, NodeId};
use std::{array, collections::BTreeMap};

/// Length of a slot.
pub const SLOT_BYTES: usize = 8192;
/// How many slots the file has.
pub const SLOTS: usize = 2;
/// How many peers a slot has room for.
pub const PEERS_MAX: usize = (SLOT_BYTES - FIXED_BYTES) / PEER_BYTES;
/// The longest reason that is kept of why a node is refused, in bytes.
pub const REFUSAL_BYTES_MAX: usize = 512;

const MAGIC: [u8; 4] = *b"KTKL";
const SUMMED_FROM: usize = 8;
const VERSION: u16 = 1;
/// Before the peers: head and identity, life, place, refusal.
const FIXED_BYTES: usize = 56 + 16 + 8 * EARLIER_STARTS + 40 + 16 + REFUSAL_BYTES_MAX;
const PEER_BYTES: usize = 32;

/// Where a data directory is. Zero stands for what is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The directory's inode.
    pub inode: u64,
    /// When the directory was made, in ns since 1970: file systems give the inode of a directory that is gone to the next.
    pub made: u64,
    /// The device of its file system. Systems number devices anew when they boot.
    pub device: u64,
    /// The machine.
    pub machine: u64,
    /// This boot of the machine.
    pub boot: u64,
}

/// A peer that refuses this data directory, which must not be started any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The peer.
    pub by: NodeId,
    /// What it says.
    pub why: String,
}

/// What the file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lives {
    /// Rises by one with each time it is written.
    pub version: u64,
    /// The node's own.
    pub life: Life,
    /// Where the directory was when it was last started; `None` before the first start.
    pub place: Option<Place>,
    /// Set once a peer has refused it.
    pub refused: Option<Refused>,
    /// The highest of each peer.
    pub peers: BTreeMap<NodeId, KnownLife>,
}

/// Why a slot is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LivesError {
    /// It was never written, was torn, or is damaged.
    #[error("it is not sound")]
    Unsound,
    /// A newer version wrote it.
    #[error("it has version {0}, which this program does not know")]
    Newer(u16),
}

impl Lives {
    /// The bytes of a slot. No more than [`PEERS_MAX`] peers are written.
    #[must_use]
    pub fn encode(&self, own: Identity) -> Bytes {
        let mut out = BytesMut::with_capacity(SLOT_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u16_le(u16::from(self.place.is_some()));
        let peers = self.peers.len().min(PEERS_MAX);
        out.put_u32_le(peers as u32);
        out.put_u128_le(own.cluster.0);
        out.put_u64_le(own.node.0);
        out.put_u64_le(own.incarnation.0);
        out.put_u64_le(self.version);
        out.put_u64_le(self.life.number);
        out.put_u64_le(self.life.start.0);
        for start in self.life.earlier {
            out.put_u64_le(start.0);
        }
        let place = self.place.unwrap_or_default();
        for part in [place.inode, place.made, place.device, place.machine, place.boot] {
            out.put_u64_le(part);
        }
        let (by, why) = match &self.refused {
            Some(refused) => (refused.by, cut(&refused.why)),
            None => (NodeId::ZERO, ""),
        };
        out.put_u64_le(by.0);
        out.put_u64_le(why.len() as u64);
        out.put_slice(why.as_bytes());
        out.put_bytes(0, REFUSAL_BYTES_MAX - why.len());
        for (node, known) in self.peers.iter().take(peers) {
            out.put_u64_le(node.0);
            out.put_u64_le(known.incarnation.0);
            out.put_u64_le(known.number);
            out.put_u64_le(known.start.0);
        }
        out.put_bytes(0, SLOT_BYTES - out.len());
        let sum = checksum(own.cluster, &out);
        out[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// What a slot holds, and whose it is.
    ///
    /// # Errors
    /// If it is not one that was written whole for this cluster.
    pub fn decode(cluster: ClusterId, slot: &[u8]) -> Result<(Identity, Self), LivesError> {
        if slot.len() != SLOT_BYTES || slot[..4] != MAGIC {
            return Err(LivesError::Unsound);
        }
        let mut rest = &slot[4..];
        if rest.get_u32_le() != checksum(cluster, slot) {
            return Err(LivesError::Unsound);
        }
        let version = rest.get_u16_le();
        if version != VERSION {
            return Err(LivesError::Newer(version));
        }
        let (has_place, peers) = (rest.get_u16_le() != 0, rest.get_u32_le() as usize);
        let own = Identity {
            cluster: ClusterId(rest.get_u128_le()),
            node: NodeId(rest.get_u64_le()),
            incarnation: Incarnation(rest.get_u64_le()),
        };
        let version = rest.get_u64_le();
        let life = Life {
            number: rest.get_u64_le(),
            start: StartId(rest.get_u64_le()),
            earlier: array::from_fn(|_| StartId(rest.get_u64_le())),
        };
        let place = Place {
            inode: rest.get_u64_le(),
            made: rest.get_u64_le(),
            device: rest.get_u64_le(),
            machine: rest.get_u64_le(),
            boot: rest.get_u64_le(),
        };
        let refused = read_refused(&mut rest).ok_or(LivesError::Unsound)?;
        if peers > PEERS_MAX {
            return Err(LivesError::Unsound);
        }
        let peers = (0..peers).map(|_| read_peer(&mut rest)).collect();
        let lives = Self {
            version,
            life,
            place: has_place.then_some(place),
            refused,
            peers,
        };
        Ok((own, lives))
    }
}

fn read_peer(rest: &mut &[u8]) -> (NodeId, KnownLife) {
    let node = NodeId(rest.get_u64_le());
    let known = KnownLife {
        incarnation: Incarnation(rest.get_u64_le()),
        number: rest.get_u64_le(),
        start: StartId(rest.get_u64_le()),
    };
    (node, known)
}

/// Who refuses the directory and why, if anyone does; the outer `None` if the length is impossible.
fn read_refused(rest: &mut &[u8]) -> Option<Option<Refused>> {
    let (by, len) = (NodeId(rest.get_u64_le()), rest.get_u64_le());
    let text = rest.split_off(..REFUSAL_BYTES_MAX)?;
    let text = text.get(..usize::try_from(len).ok()?)?;
    let why = String::from_utf8_lossy(text).into_owned();
    Some((by != NodeId::ZERO).then_some(Refused { by, why }))
}

/// As much of a reason as is kept.
fn cut(why: &str) -> &str {
    let end = (0..=REFUSAL_BYTES_MAX.min(why.len())).rfind(|n| why.is_char_boundary(*n));
    &why[..end.unwrap_or_default()]
}

fn checksum(cluster: ClusterId, slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&cluster.0.to_le_bytes()), &slot[SUMMED_FROM..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Identity = Identity {
        cluster: ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        node: NodeId(3),
        incarnation: Incarnation(0x1112_1314_1516_1718),
    };

    fn lives() -> Lives {
        let known = |n| KnownLife {
            incarnation: Incarnation(n),
            number: n + 1,
            start: StartId(n + 2),
        };
        Lives {
            version: 9,
            life: Life::default().next(StartId(5)).next(StartId(6)),
            place: Some(Place {
                inode: 1,
                made: 5,
                device: 2,
                machine: 3,
                boot: 4,
            }),
            refused: Some(Refused {
                by: NodeId(2),
                why: "an old copy".into(),
            }),
            peers: (1..=2).map(|n| (NodeId(n), known(n))).collect(),
        }
    }

    #[test]
    fn a_slot_comes_back() {
        for lives in [lives(), Lives::default()] {
            let slot = lives.encode(OWN);
            assert_eq!(slot.len(), SLOT_BYTES);
            assert_eq!(Lives::decode(OWN.cluster, &slot), Ok((OWN, lives)));
        }
    }

    #[test]
    fn a_slot_holds_as_many_peers_as_it_has_room_for_and_a_reason_that_is_cut() {
        let mut full = lives();
        let known = full.peers[&NodeId(1)];
        full.peers = (1..=PEERS_MAX as u64 + 5).map(|n| (NodeId(n), known)).collect();
        full.refused = Some(Refused {
            by: NodeId(2),
            why: "ü".repeat(REFUSAL_BYTES_MAX),
        });
        let (_, back) = Lives::decode(OWN.cluster, &full.encode(OWN)).unwrap();
        assert_eq!(back.peers.len(), PEERS_MAX);
        assert_eq!(back.refused.unwrap().why, "ü".repeat(REFUSAL_BYTES_MAX / 2));
    }

    #[test]
    fn a_damaged_slot_another_clusters_and_a_newer_one_are_not_read() {
        let slot = lives().encode(OWN);
        for byte in [0, 4, 9, 40, 300, 700, SLOT_BYTES - 1] {
            let mut flipped = slot.to_vec();
            flipped[byte] ^= 1;
            let read = Lives::decode(OWN.cluster, &flipped);
            assert_eq!(read, Err(LivesError::Unsound), "byte {byte}");
        }
        assert_eq!(Lives::decode(ClusterId(1), &slot), Err(LivesError::Unsound));
        let mut newer = slot.to_vec();
        newer[8] = 2;
        let sum = checksum(OWN.cluster, &newer);
        newer[4..8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Lives::decode(OWN.cluster, &newer), Err(LivesError::Newer(2)));
    }
}
