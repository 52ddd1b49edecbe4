//! One peer: its three lanes, and what is known of it.

use crate::{Limits, admission::Admitted, lane::Lane, resolve::Resolver};
use kontiki_consensus::NodeId;
use kontiki_wire::{ClusterId, Packet, StartId};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use tokio::sync::Notify;

/// For how many purposes a peer may have a connection to this node: one for each lane at most.
pub(crate) const PURPOSES: usize = 3;

/// How many starts of a peer are remembered that are refused, the latest. Of one that is forgotten the owner is asked again.
const REFUSED_STARTS_MAX: usize = 8;

/// How things stand with a peer, for status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Link {
    /// The peer.
    pub node: NodeId,
    /// Its address as configured.
    pub address: String,
    /// What the address resolved to, once it was connected.
    pub remote: Option<SocketAddr>,
    /// Whether packets can be sent to it.
    pub connected: bool,
    /// Since when it has been so.
    pub since: Instant,
    /// Why there is no connection at the moment. None where there is one, or where none has been tried yet.
    pub last_error: Option<String>,
}

/// A node that this one talks to.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) urgent: Lane,
    pub(crate) bulk: Lane,
    /// Parts of snapshots.
    pub(crate) background: Lane,
    /// Told when the peer has shown itself, so that it is dialed without further waiting.
    pub(crate) seen: Notify,
    /// Whether it has answered since it was last dialed.
    pub(crate) reached: Cell<bool>,
    /// Whether a connection stands by whose end the death of its process would be known.
    pub(crate) watched: Cell<bool>,
    /// Looks up its name.
    pub(crate) resolver: Resolver,
    link: RefCell<Link>,
    /// Its starts that the owner refuses, and why.
    refused: RefCell<VecDeque<(StartId, String)>>,
    /// What its name last resolved to.
    addresses: RefCell<Vec<IpAddr>>,
    /// From where it was last connected.
    came_from: Cell<Option<IpAddr>>,
    /// The connections it sends on, by purpose.
    inbound: RefCell<[Option<Admitted>; PURPOSES]>,
    /// The connection to it, if one stands.
    outbound: RefCell<Option<Admitted>>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, address: String, limits: &Limits) -> Self {
        Self {
            node,
            urgent: Lane::new(limits, limits.queue_bytes_max),
            bulk: Lane::new(limits, limits.queue_bytes_max),
            // A peer asks for one part at a time, and that is one packet.
            background: Lane::new(limits, limits.packet_bytes_max.0 as usize),
            seen: Notify::new(),
            reached: Cell::new(false),
            watched: Cell::new(false),
            resolver: Resolver::default(),
            link: RefCell::new(Link {
                node,
                address,
                remote: None,
                connected: false,
                since: Instant::now(),
                last_error: None,
            }),
            refused: RefCell::default(),
            addresses: RefCell::default(),
            came_from: Cell::new(None),
            inbound: RefCell::default(),
            outbound: RefCell::default(),
        }
    }

    /// Queues a packet. False if it was dropped.
    pub(crate) fn push(&self, cluster: ClusterId, packet: &Packet) -> bool {
        let lane = match &packet.message {
            message if message.is_urgent() => &self.urgent,
            message if message.is_background() => &self.background,
            _ => &self.bulk,
        };
        lane.push(cluster, packet)
    }

    /// All lanes.
    pub(crate) fn lanes(&self) -> [&Lane; 3] {
        [&self.urgent, &self.bulk, &self.background]
    }

    /// The owner refuses a start: what stands with it ends, and it is not admitted again.
    pub(crate) fn refuse(&self, start: StartId, why: &str) {
        let mut refused = self.refused.borrow_mut();
        if refused.iter().all(|(known, _)| *known != start) {
            refused.truncate(REFUSED_STARTS_MAX - 1);
            refused.push_front((start, why.to_owned()));
        }
        let (inbound, outbound) = (self.inbound.borrow(), self.outbound.borrow());
        for standing in inbound.iter().flatten().chain(outbound.iter()) {
            standing.refuse(start, why);
        }
    }

    /// Why a start is refused, if it is.
    pub(crate) fn refusal(&self, start: StartId) -> Option<String> {
        let refused = self.refused.borrow();
        let known = refused.iter().find(|(known, _)| *known == start);
        known.map(|(_, why)| why.clone())
    }

    /// There is a connection to this start of it.
    pub(crate) fn stand(&self, start: StartId) -> Admitted {
        let standing = Admitted::new(start);
        *self.outbound.borrow_mut() = Some(standing.clone());
        standing
    }

    /// There is a connection to send on.
    pub(crate) fn up(&self, remote: SocketAddr) {
        self.lanes().into_iter().for_each(Lane::open);
        let mut link = self.link.borrow_mut();
        link.remote = Some(remote);
        link.connected = true;
        link.since = Instant::now();
        link.last_error = None;
    }

    /// There is none (any more).
    pub(crate) fn down(&self, reason: &str) {
        self.lanes().into_iter().for_each(Lane::close);
        self.watched.set(false);
        *self.outbound.borrow_mut() = None;
        let mut link = self.link.borrow_mut();
        if link.connected {
            link.since = Instant::now();
        }
        link.connected = false;
        link.last_error = Some(reason.to_owned());
    }

    pub(crate) fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Since when there is a connection, or none.
    pub(crate) fn since(&self) -> Instant {
        self.link.borrow().since
    }

    pub(crate) fn address(&self) -> String {
        self.link.borrow().address.clone()
    }

    /// Its name resolves to these.
    pub(crate) fn resolved(&self, addresses: &[SocketAddr]) {
        let addresses = addresses.iter().map(|address| address.ip().to_canonical());
        self.addresses.replace(addresses.collect());
    }

    /// Whether this address is its own, by its name or because it has proven to be there.
    pub(crate) fn is_at(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.came_from.get() == Some(address) || self.addresses.borrow().contains(&address)
    }

    /// The peer has connected from there, for this purpose; a former connection for it is told to go.
    pub(crate) fn admit(&self, purpose: usize, from: SocketAddr, start: StartId) -> Admitted {
        self.came_from.set(Some(from.ip().to_canonical()));
        self.seen.notify_one();
        let admitted = Admitted::new(start);
        if let Some(place) = self.inbound.borrow_mut().get_mut(purpose)
            && let Some(former) = place.replace(admitted.clone())
        {
            former.replace();
        }
        admitted
    }

    /// That connection of the peer has ended.
    pub(crate) fn leave(&self, purpose: usize, admitted: &Admitted) {
        if let Some(place) = self.inbound.borrow_mut().get_mut(purpose)
            && place.as_ref().is_some_and(|now| now.is(admitted))
        {
            *place = None;
        }
    }
}
