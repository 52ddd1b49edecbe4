//! Places for connections: so many in total, and so many for each address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    all_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

/// Those that are taken. An address without a place has no row.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            per_address_max,
            taken: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// A place for a connection from this address, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.all_max || own >= self.per_address_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(Place {
            places: self.clone(),
            address,
        })
    }

    /// How many there are.
    pub(super) fn all_max(&self) -> usize {
        self.all_max
    }

    /// How many are taken, and how many connections found none.
    pub(super) fn held(&self) -> (usize, u64) {
        (self.taken().all, self.refused.load(Ordering::Relaxed))
    }

    /// A panic elsewhere leaves it whole.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn one_address_leaves_places_for_others_and_all_together_have_a_limit() {
        let places = Places::new(3, 2);
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        let first = places.take(address(1)).unwrap();
        let _second = places.take(mapped).unwrap();
        assert!(places.take(address(1)).is_none(), "its own limit");
        let _third = places.take(address(2)).unwrap();
        assert!(places.take(address(3)).is_none(), "the limit of all");
        assert_eq!(places.held(), (3, 2));
        drop(first);
        assert!(places.take(address(1)).is_some());
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_has_gone() {
        let places = Places::new(3, 2);
        drop((places.take(address(1)), places.take(address(2))));
        assert!(places.taken().by_address.is_empty());
        assert_eq!(places.held(), (0, 0));
    }
}
