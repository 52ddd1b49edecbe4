//! What is wrong with whom at the moment, each told to the log once and again only when it changes.
//!
//! Invariants: bounded, whoever may knock, and strangers leave the room for peers; a source that has come right is forgotten, so
//! that its next trouble is told again, and a stranger after a while in any case.

use kontiki_consensus::NodeId;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// How many strangers are remembered. Peers are always: two warnings each at most.
const STRANGERS_MAX: usize = 256;
/// For how long: then the trouble of a stranger is told again, and another one has its place.
const STRANGER_TTL: Duration = Duration::from_secs(600);

/// Whom a warning is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    /// A peer that this node dials.
    To(NodeId),
    /// A peer that dials this node.
    From(NodeId),
    /// Someone that dials this node and has not proven who it is.
    Stranger(SocketAddr),
    /// The same, where each attempt comes from another port.
    Host(IpAddr),
}

impl Source {
    fn is_stranger(self) -> bool {
        matches!(self, Self::Stranger(_) | Self::Host(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(node) => write!(f, "connection to node {node}"),
            Self::From(node) => write!(f, "connection from node {node}"),
            Self::Stranger(address) => write!(f, "connection from {address}"),
            Self::Host(address) => write!(f, "connection from {address}"),
        }
    }
}

/// The warnings that hold.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    told: RefCell<BTreeMap<Source, Told>>,
}

/// What was told last of a source, and when.
#[derive(Debug)]
struct Told {
    text: String,
    at: Instant,
}

impl Warnings {
    /// Tells the log, unless it was told just this. Of a peer there is always room to tell.
    pub(crate) fn tell(&self, source: Source, text: &str) {
        self.tell_at(Instant::now(), source, text);
    }

    fn tell_at(&self, now: Instant, source: Source, text: &str) {
        let mut told = self.told.borrow_mut();
        if source.is_stranger() {
            told.retain(|source, told| !source.is_stranger() || now < told.at + STRANGER_TTL);
        }
        let is_known = told.get(&source).is_some_and(|told| told.text == text);
        let strangers = || told.keys().filter(|source| source.is_stranger()).count();
        if is_known || (source.is_stranger() && !told.contains_key(&source) && strangers() >= STRANGERS_MAX) {
            tracing::debug!("{source}: {text}");
            return;
        }
        tracing::warn!("{source}: {text}");
        let text = text.to_owned();
        told.insert(source, Told { text, at: now });
    }

    /// Whether something is wrong with this one, as far as was told.
    pub(crate) fn holds(&self, source: Source) -> bool {
        self.told.borrow().contains_key(&source)
    }

    /// All is well with this one.
    pub(crate) fn clear(&self, source: Source) {
        self.told.borrow_mut().remove(&source);
    }

    /// Every warning that holds, in words.
    pub(crate) fn all(&self) -> Vec<String> {
        let told = self.told.borrow();
        told.iter()
            .map(|(source, told)| format!("{source}: {}", told.text))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let warnings = Warnings::default();
        for port in 0..2000 {
            warnings.tell(Source::Stranger(([127, 0, 0, 1], port).into()), "no");
        }
        assert_eq!(warnings.all().len(), STRANGERS_MAX);
    }

    #[test]
    fn a_peer_is_told_of_however_many_strangers_knock_and_they_are_forgotten() {
        let (warnings, start) = (Warnings::default(), Instant::now());
        let host = |n: u32| Source::Host(std::net::Ipv4Addr::from_bits(n).into());
        for n in 0..1000 {
            warnings.tell_at(start, host(n), "no");
        }
        warnings.tell_at(start, Source::From(NodeId(2)), "its data directory was made anew");
        let peers = || {
            warnings
                .all()
                .into_iter()
                .filter(|w| w.contains("node 2"))
                .count()
        };
        assert_eq!((warnings.all().len(), peers()), (STRANGERS_MAX + 1, 1));
        warnings.tell_at(start + STRANGER_TTL, host(5000), "no");
        assert_eq!((warnings.all().len(), peers()), (2, 1), "the peer stays");
    }

    #[test]
    fn the_latest_trouble_stands_until_it_is_over() {
        let warnings = Warnings::default();
        let two = Source::To(NodeId(2));
        warnings.tell(two, "no answer");
        warnings.tell(two, "another cluster");
        assert_eq!(warnings.all(), ["connection to node 2: another cluster"]);
        warnings.clear(two);
        assert!(warnings.all().is_empty());
    }
}
