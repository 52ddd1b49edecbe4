//! The first thing two nodes tell each other: who they are, and what they can do.
//!
//! Each side sends a [`Hello`] and checks the other's with [`Hello::agree`]. Invariants: the layout up to
//! the identity stays in every version, so that nodes of versions that do not overlap still learn why;
//! a hello may be longer than this version knows, and what is behind is skipped; a feature that the other
//! side requires and this side does not have is refused.

use crate::{ClusterId, EARLIER_STARTS, Identity, Life, StartId};
use bytes::{Buf, BufMut};
use kontiki_consensus::{Incarnation, NodeId};
use std::fmt;

/// The first bytes of every hello.
const MAGIC: [u8; 4] = *b"KTKH";
/// Where the checksummed part begins.
const SUMMED_FROM: usize = 8;
/// The longest hello that is read.
pub const HELLO_BYTES_MAX: usize = 1024;

/// The versions of the peer protocol that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// A range of versions, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// The newest version that both know.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a node says of itself when a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The versions of the protocol it speaks.
    pub versions: Versions,
    /// Features the other side must have, one bit each. None is defined yet.
    pub required: u64,
    /// Features it has itself, one bit each. None is defined yet.
    pub features: u64,
    /// Who it is.
    pub identity: Identity,
    /// Which life it lives.
    pub life: Life,
}

/// What two nodes have agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The version they speak.
    pub version: u16,
    /// The features both have.
    pub features: u64,
    /// Who the other one is.
    pub peer: Identity,
    /// Which life it lives.
    pub life: Life,
}

/// Why two nodes do not talk to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The bytes are not a hello.
    #[error("its greeting is not one of a Kontiki node, or was damaged")]
    NotAHello,
    /// Their versions do not overlap.
    #[error("it speaks versions {theirs} of the peer protocol, this node {ours}: upgrade the older one")]
    Versions {
        /// Its versions.
        theirs: Versions,
        /// Our own.
        ours: Versions,
    },
    /// It insists on something this version does not have.
    #[error("it requires features {missing:#x} that this version does not have: upgrade this node")]
    Features {
        /// What is missing.
        missing: u64,
    },
    /// It belongs to another cluster.
    #[error("it belongs to cluster {theirs}, this node to {ours}: do both use the same cluster.key?")]
    Cluster {
        /// Its cluster.
        theirs: ClusterId,
        /// Our own.
        ours: ClusterId,
    },
    /// It has another name than it should, or our own.
    #[error(
        "it says that it is node {theirs} where node {expected} should be: is its address right in the configuration?"
    )]
    Node {
        /// Who it says it is.
        theirs: NodeId,
        /// Who it should be.
        expected: NodeId,
    },
    /// It has our own name.
    #[error("it says that it is node {0}, which is this node: two nodes have the same id")]
    Namesake(NodeId),
}

impl Hello {
    /// Length of a hello of this version.
    pub const BYTES: usize = 80 + 8 * EARLIER_STARTS;

    /// The hello of this version of the program.
    #[must_use]
    pub fn of(identity: Identity, life: Life) -> Self {
        Self {
            versions: VERSIONS,
            required: 0,
            features: 0,
            identity,
            life,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        let mut rest = &mut bytes[SUMMED_FROM..];
        rest.put_u16_le(Self::BYTES as u16);
        rest.put_u16_le(self.versions.min);
        rest.put_u16_le(self.versions.max);
        rest.put_u16_le(0);
        rest.put_u64_le(self.required);
        rest.put_u64_le(self.features);
        rest.put_u128_le(self.identity.cluster.0);
        rest.put_u64_le(self.identity.node.0);
        rest.put_u64_le(self.identity.incarnation.0);
        rest.put_u64_le(self.life.number);
        rest.put_u64_le(self.life.start.0);
        for start in self.life.earlier {
            rest.put_u64_le(start.0);
        }
        let sum = crc32c::crc32c(&bytes[SUMMED_FROM..]);
        bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// A hello from its bytes; one of a later version may be longer.
    ///
    /// # Errors
    /// If they are not a hello. Versions are not compared here.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        if bytes.len() < Self::BYTES || bytes.len() > HELLO_BYTES_MAX || bytes[..4] != MAGIC {
            return Err(HandshakeError::NotAHello);
        }
        let mut rest = &bytes[4..];
        let sum = rest.get_u32_le();
        let len = rest.get_u16_le() as usize;
        if len != bytes.len() || sum != crc32c::crc32c(&bytes[SUMMED_FROM..]) {
            return Err(HandshakeError::NotAHello);
        }
        let versions = Versions {
            min: rest.get_u16_le(),
            max: rest.get_u16_le(),
        };
        rest.advance(2);
        Ok(Self {
            versions,
            required: rest.get_u64_le(),
            features: rest.get_u64_le(),
            identity: Identity {
                cluster: ClusterId(rest.get_u128_le()),
                node: NodeId(rest.get_u64_le()),
                incarnation: Incarnation(rest.get_u64_le()),
            },
            life: Life {
                number: rest.get_u64_le(),
                start: StartId(rest.get_u64_le()),
                earlier: std::array::from_fn(|_| StartId(rest.get_u64_le())),
            },
        })
    }

    /// Whether the one who says `theirs` may talk to us, and how; `expected` is who it should be, if that is known.
    ///
    /// # Errors
    /// The first reason why not, in words for the operator of this node.
    pub fn agree(&self, theirs: &Self, expected: Option<NodeId>) -> Result<Agreed, HandshakeError> {
        let (ours, peer) = (self.identity, theirs.identity);
        let missing = theirs.required & !self.features;
        let expected = expected.unwrap_or(peer.node);
        let version = self.versions.common(theirs.versions);
        match version {
            _ if peer.cluster != ours.cluster => Err(HandshakeError::Cluster {
                theirs: peer.cluster,
                ours: ours.cluster,
            }),
            _ if peer.node == ours.node => Err(HandshakeError::Namesake(ours.node)),
            _ if peer.node != expected => Err(HandshakeError::Node {
                theirs: peer.node,
                expected,
            }),
            None => Err(HandshakeError::Versions {
                theirs: theirs.versions,
                ours: self.versions,
            }),
            Some(_) if missing != 0 => Err(HandshakeError::Features { missing }),
            Some(version) => Ok(Agreed {
                version,
                features: self.features & theirs.features,
                peer,
                life: theirs.life,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
