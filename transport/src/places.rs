//! Places for connections whose other end has not proven who it is.
//!
//! Anybody who reaches the port can connect, and only the greeting tells a peer from a stranger. Invariants: the places are
//! bounded, in total and for each address; a stranger takes none of those that are kept for the addresses of peers; where
//! all are taken a newcomer gets the place of the connection that has kept this node waiting longest, at the address that
//! has most of them. So a connection that says nothing holds its place only while nobody else needs it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
};
use tokio::sync::Notify;

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For connections from the addresses of peers.
    pub(crate) peers_max: usize,
    /// For all others together.
    pub(crate) strangers_max: usize,
    /// For the others from one address.
    pub(crate) per_address_max: usize,
}

/// Whether a connection comes from the address of a peer. It proves nothing: others may be there, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// From an address of a peer.
    Peer,
    /// From anywhere else.
    Elsewhere,
}

/// The places, and what is in them.
#[derive(Debug)]
pub(crate) struct Places {
    bounds: Bounds,
    taken: RefCell<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: BTreeMap<u64, Seat>,
    /// Numbers seats, and the moments from which on this node waits.
    next: u64,
}

#[derive(Debug)]
struct Seat {
    origin: Origin,
    network: IpAddr,
    /// Since when the other side has kept this node waiting. None while it waits for this node.
    waiting_since: Option<u64>,
    lost: Rc<Notify>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Rc<Places>,
    number: u64,
    lost: Rc<Notify>,
}

impl Places {
    pub(crate) fn new(bounds: Bounds) -> Rc<Self> {
        Rc::new(Self {
            bounds,
            taken: RefCell::default(),
        })
    }

    /// A place for a connection from there. None if all are taken and no connection has to make room for it.
    pub(crate) fn take(self: &Rc<Self>, origin: Origin, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut taken = self.taken.borrow_mut();
        if let Some(crowd) = self.crowd(&taken, origin, network) {
            let leaves = taken.leaves(origin, crowd, network)?;
            if let Some(seat) = taken.seats.remove(&leaves) {
                seat.lost.notify_one();
            }
        }
        let number = taken.tick();
        let lost = Rc::new(Notify::new());
        let seat = Seat {
            origin,
            network,
            waiting_since: Some(number),
            lost: lost.clone(),
        };
        taken.seats.insert(number, seat);
        Some(Place {
            places: self.clone(),
            number,
            lost,
        })
    }

    /// Whether so many are taken that an address that may be forged gets none.
    pub(crate) fn is_crowded(&self, origin: Origin) -> bool {
        let taken = self.taken.borrow();
        4 * taken.of(origin).count() >= self.max(origin)
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.taken.borrow().seats.len()
    }

    fn max(&self, origin: Origin) -> usize {
        match origin {
            Origin::Peer => self.bounds.peers_max,
            Origin::Elsewhere => self.bounds.strangers_max,
        }
    }

    /// The network one of whose connections has to go before another comes from this one, if so.
    fn crowd(&self, taken: &Taken, origin: Origin, network: IpAddr) -> Option<IpAddr> {
        let from = |network| taken.of(origin).filter(|(_, s)| s.network == network).count();
        if origin == Origin::Elsewhere && from(network) >= self.bounds.per_address_max {
            return Some(network);
        }
        if taken.of(origin).count() < self.max(origin) {
            return None;
        }
        // Of two with the same number, that of the newcomer.
        let networks = taken.of(origin).map(|(_, seat)| seat.network);
        networks
            .max_by_key(|n| (from(*n), *n == network))
            .or(Some(network))
    }
}

impl Taken {
    fn of(&self, origin: Origin) -> impl Iterator<Item = (u64, &Seat)> {
        let seats = self.seats.iter().map(|(number, seat)| (*number, seat));
        seats.filter(move |(_, seat)| seat.origin == origin)
    }

    /// Which seat of the crowd a newcomer gets: that of the connection that has kept this node waiting longest. One that waits
    /// for this node makes room only for another network.
    fn leaves(&self, origin: Origin, crowd: IpAddr, newcomer: IpAddr) -> Option<u64> {
        let seats = || self.of(origin).filter(|(_, seat)| seat.network == crowd);
        let longest = seats()
            .filter_map(|(number, seat)| Some((seat.waiting_since?, number)))
            .min();
        let newest = || seats().map(|(number, _)| number).max();
        match longest {
            Some((_, number)) => Some(number),
            None if crowd == newcomer => None,
            None => newest(),
        }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Place {
    /// The connection waits for this node.
    pub(crate) fn asks(&self) {
        self.set(None);
    }

    /// This node waits for the other side, from now on.
    pub(crate) fn answered(&self) {
        let now = self.places.taken.borrow_mut().tick();
        self.set(Some(now));
    }

    fn set(&self, waiting_since: Option<u64>) {
        if let Some(seat) = self.places.taken.borrow_mut().seats.get_mut(&self.number) {
            seat.waiting_since = waiting_since;
        }
    }

    /// Waits until a newcomer has got the place.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().seats.remove(&self.number);
    }
}

/// The address, or of an IPv6 address the network: a host has all of its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Origin::{Elsewhere, Peer};
    use std::net::Ipv4Addr;

    fn places() -> Rc<Places> {
        Places::new(Bounds {
            peers_max: 4,
            strangers_max: 6,
            per_address_max: 3,
        })
    }

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// Which of these have lost their places.
    fn lost(places: &[Place]) -> Vec<usize> {
        let is_lost = |place: &Place| !place.places.taken.borrow().seats.contains_key(&place.number);
        (0..places.len()).filter(|n| is_lost(&places[*n])).collect()
    }

    #[test]
    fn one_address_has_its_bound_and_the_oldest_makes_room() {
        let places = places();
        let held: Vec<_> = (0..5).filter_map(|_| places.take(Elsewhere, host(1))).collect();
        assert_eq!((lost(&held), places.len()), (vec![0, 1], 3));
    }

    #[test]
    fn strangers_of_many_addresses_have_one_bound_and_the_largest_crowd_makes_room() {
        let places = places();
        let hosts = [1, 2, 2, 2, 3, 4, 5, 6];
        let held: Vec<_> = hosts
            .iter()
            .filter_map(|n| places.take(Elsewhere, host(*n)))
            .collect();
        assert_eq!((lost(&held), places.len()), (vec![1, 2], 6));
    }

    #[test]
    fn strangers_take_nothing_that_is_kept_for_peers() {
        let places = places();
        let strangers: Vec<_> = (0..100).filter_map(|n| places.take(Elsewhere, host(n))).collect();
        let peers: Vec<_> = (0..4).filter_map(|n| places.take(Peer, host(100 + n))).collect();
        let more: Vec<_> = (0..100).filter_map(|n| places.take(Elsewhere, host(n))).collect();
        assert_eq!((lost(&peers), peers.len()), (vec![], 4));
        assert_eq!(places.len(), 10);
        drop((strangers, peers, more));
        assert_eq!(places.len(), 0);
    }

    #[test]
    fn who_answers_stays_and_who_keeps_this_node_waiting_goes() {
        let places = places();
        let mut held: Vec<_> = (0..3).filter_map(|_| places.take(Elsewhere, host(1))).collect();
        held[0].answered();
        held[1].asks();
        held.extend(places.take(Elsewhere, host(1)));
        assert_eq!(lost(&held), [2]);
        for place in &held {
            place.asks();
        }
        assert!(
            places.take(Elsewhere, host(1)).is_none(),
            "all wait for this node"
        );
        assert_eq!(lost(&held), [2]);
    }

    #[test]
    fn an_address_whose_connections_all_ask_makes_room_for_another() {
        let places = places();
        let crowd: Vec<_> = (0..4).filter_map(|_| places.take(Peer, host(1))).collect();
        crowd.iter().for_each(Place::asks);
        assert!(places.take(Peer, host(1)).is_none());
        let other = places.take(Peer, host(2));
        assert!(other.is_some());
        assert_eq!(lost(&crowd), [3]);
    }

    #[test]
    fn a_host_is_known_by_its_network() {
        let first: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(network(first), network("2001:db8::ffff:0:0:2".parse().unwrap()));
        assert_ne!(network(first), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()), host(7));
    }
}
