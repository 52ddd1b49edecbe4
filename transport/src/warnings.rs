//! What is wrong with whom at the moment, each told to the log once and again only when it changes.
//!
//! Invariant: bounded, whoever may knock; a source that has come right is forgotten, so that its next
//! trouble is told again.

use kontiki_consensus::NodeId;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// How many sources of trouble are remembered.
const SOURCES_MAX: usize = 256;

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
    told: RefCell<BTreeMap<Source, String>>,
}

impl Warnings {
    /// Tells the log, unless it was told just this.
    pub(crate) fn tell(&self, source: Source, text: &str) {
        let mut told = self.told.borrow_mut();
        if told.get(&source).is_some_and(|t| t == text)
            || (told.len() >= SOURCES_MAX && !told.contains_key(&source))
        {
            tracing::debug!("{source}: {text}");
            return;
        }
        tracing::warn!("{source}: {text}");
        told.insert(source, text.to_owned());
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
            .map(|(source, text)| format!("{source}: {text}"))
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
        assert_eq!(warnings.all().len(), SOURCES_MAX);
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
