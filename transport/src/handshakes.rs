//! Handshakes of those who have dialed this node: how many at a time, and how much of the thread they may have.
//!
//! A handshake costs memory and CPU before the other side has proven anything, on the thread that receives, decides and
//! sends. Invariants: the number under way is bounded (`places`); at most one step of a handshake is taken between two turns of
//! everything else; after a step the next one waits for a multiple of the time it took, so that handshakes have a bounded
//! share of the thread, and those from the addresses of peers a share of their own.

use crate::{
    Limits,
    places::{Bounds, Origin, Place, Places},
};
use std::{cell::Cell, net::IpAddr, rc::Rc, time::Duration};
use tokio::{
    sync::Mutex,
    task,
    time::{self, Instant},
};

/// How many handshakes from the addresses of peers may be under way, for each peer: a peer makes three connections at once, and its
/// former attempts may not have ended yet.
const HANDSHAKES_PER_PEER_MAX: usize = 32;
/// After a step from the address of a peer the next one waits as long as that took: these have at most half of the thread.
const PEERS_REST: u32 = 1;
/// After a step from elsewhere the next one waits four times as long: these have at most a fifth.
const STRANGERS_REST: u32 = 4;
/// A step that seems to have taken longer was interrupted by the system.
const STEP_MAX: Duration = Duration::from_millis(5);

/// All handshakes.
#[derive(Debug)]
pub(crate) struct Handshakes {
    places: Rc<Places>,
    peers: Rc<Pace>,
    strangers: Rc<Pace>,
}

/// One that is under way; it is over when dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    place: Place,
    pace: Rc<Pace>,
}

/// When steps may be taken.
#[derive(Debug)]
struct Pace {
    rest: u32,
    line: Mutex<()>,
    /// Before this no step begins.
    rested: Cell<Option<Instant>>,
}

impl Handshakes {
    /// For a node with so many peers.
    pub(crate) fn new(limits: &Limits, peers: usize) -> Self {
        Self {
            places: Places::new(Bounds {
                peers_max: HANDSHAKES_PER_PEER_MAX * peers,
                strangers_max: limits.handshakes_max,
                per_address_max: limits.handshakes_per_address_max,
            }),
            peers: Rc::new(Pace::new(PEERS_REST)),
            strangers: Rc::new(Pace::new(STRANGERS_REST)),
        }
    }

    /// Begins one. None if there is no room for it.
    pub(crate) fn begin(&self, origin: Origin, address: IpAddr) -> Option<Handshake> {
        let place = self.places.take(origin, address)?;
        let pace = match origin {
            Origin::Peer => &self.peers,
            Origin::Elsewhere => &self.strangers,
        };
        let pace = pace.clone();
        Some(Handshake { place, pace })
    }

    /// Whether so many are under way that an address that may be forged begins none.
    pub(crate) fn are_crowded(&self, origin: Origin) -> bool {
        self.places.is_crowded(origin)
    }

    /// How many are under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

impl Handshake {
    /// Waits until the next step may be taken.
    pub(crate) async fn turn(&self) {
        self.place.asks();
        self.pace.turn().await;
    }

    /// Takes a step, once it is its turn.
    pub(crate) fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let taken = step();
        self.pace.spent(began.elapsed());
        self.place.answered();
        taken
    }

    /// Waits until it has to make room for another.
    pub(crate) async fn lost(&self) {
        self.place.lost().await;
    }
}

impl Pace {
    fn new(rest: u32) -> Self {
        Self {
            rest,
            line: Mutex::default(),
            rested: Cell::new(None),
        }
    }

    async fn turn(&self) {
        let _first_in_line = self.line.lock().await;
        // All else that is ready goes before it.
        task::yield_now().await;
        if let Some(rested) = self.rested.get()
            && rested > Instant::now()
        {
            time::sleep_until(rested).await;
        }
    }

    fn spent(&self, time: Duration) {
        self.rested.set(Some(Instant::now() + self.rest_after(time)));
    }

    fn rest_after(&self, step: Duration) -> Duration {
        step.min(STEP_MAX) * self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, net::Ipv4Addr};
    use tokio::task::LocalSet;

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// Runs this on one thread, with timers.
    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn everything_else_has_a_turn_between_two_steps() {
        run(async {
            let handshakes = Handshakes::new(&Limits::default(), 2);
            let (rounds, steps) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
            let others = task::spawn_local({
                let rounds = rounds.clone();
                async move {
                    loop {
                        rounds.set(rounds.get() + 1);
                        task::yield_now().await;
                    }
                }
            });
            let mut under_way = task::JoinSet::new();
            for n in 0..16 {
                let handshake = handshakes.begin(Origin::Peer, host(n)).unwrap();
                let (rounds, steps) = (rounds.clone(), steps.clone());
                under_way.spawn_local(async move {
                    for _ in 0..4 {
                        handshake.turn().await;
                        handshake.step(|| steps.borrow_mut().push(rounds.get()));
                    }
                });
            }
            while under_way.join_next().await.is_some() {}
            others.abort();
            let steps = steps.borrow();
            assert_eq!(steps.len(), 64);
            assert!(steps.windows(2).all(|two| two[0] < two[1]), "{steps:?}");
        });
    }

    #[test]
    fn handshakes_have_a_bounded_share_of_the_thread() {
        let (short, long) = (Duration::from_micros(300), Duration::from_secs(1));
        let (peers, strangers) = (Pace::new(PEERS_REST), Pace::new(STRANGERS_REST));
        assert_eq!(peers.rest_after(short), short);
        assert_eq!(strangers.rest_after(short), 4 * short);
        assert_eq!(
            strangers.rest_after(long),
            4 * STEP_MAX,
            "what the system has taken"
        );
    }

    #[test]
    fn a_step_waits_until_the_one_before_is_paid_for() {
        run(async {
            let handshakes = Handshakes::new(&Limits::default(), 2);
            let stranger = handshakes.begin(Origin::Elsewhere, host(1)).unwrap();
            stranger.turn().await;
            stranger.step(|| ());
            let rested = Instant::now() + Duration::from_millis(3);
            stranger.pace.rested.set(Some(rested));
            stranger.turn().await;
            assert!(Instant::now() >= rested);
        });
    }
}
