//! Who waits for which answer.
//!
//! Invariants: a token names one request and is never used for another, so that a late answer finds nobody; it is not zero,
//! and below 2⁶²: the others name attempts of requests.

use crate::shared::Waiter;
use kontiki_node::Token;

/// How many bits of a token name the place; the others count how often it was used.
const PLACE_BITS: u32 = 32;
/// As far as that is counted.
const USED_MAX: u32 = u32::MAX >> 2;

/// Waiters by token. Places are used again, so that a node at work does not allocate for them.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    used: u32,
    waiter: Option<Waiter>,
}

impl Calls {
    pub(crate) fn add(&mut self, waiter: Waiter) -> Token {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                used: 0,
                waiter: None,
            });
            // Bounded by the bytes in flight, which are far fewer than this can count.
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(place) = self.places.get_mut(at as usize) else {
            return Token(u64::MAX);
        };
        place.used = (place.used % USED_MAX) + 1;
        place.waiter = Some(waiter);
        Token(u64::from(place.used) << PLACE_BITS | u64::from(at))
    }

    /// Lets whoever waits give up by this token; false if it has given up already.
    pub(crate) fn name(&self, token: Token) -> bool {
        let place = self.places.get(token.0 as u32 as usize);
        let waiter = place.and_then(|place| place.waiter.as_ref());
        waiter.is_none_or(|waiter| waiter.answer.name(token))
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Waiter> {
        let at = token.0 as u32;
        let place = self.places.get_mut(at as usize)?;
        if u64::from(place.used) != token.0 >> PLACE_BITS {
            return None;
        }
        let waiter = place.waiter.take()?;
        self.free.push(at);
        Some(waiter)
    }

    /// Takes all of them.
    pub(crate) fn drain(&mut self) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        for (at, place) in (0..).zip(&mut self.places) {
            if let Some(waiter) = place.waiter.take() {
                self.free.push(at);
                waiters.push(waiter);
            }
        }
        waiters
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
