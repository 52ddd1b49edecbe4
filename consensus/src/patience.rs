//! How long a follower waits for its leader before it stands: paper §5.2, with ranks in place of pure chance.
//!
//! Of those who heard the same leader the one with the smallest node id stands first, hardly later than the shortest
//! election timeout, and the others in their order behind it: whoever stands first is mostly alone. Ranks only make that
//! likely. A first one that is down changes nothing for the next, and one whose log is behind has that stand at once, for a
//! pre-vote that is refused puts off no timer but its own; and where no leader is known, as after a failed election, the wait
//! is drawn from the whole range.
//!
//! That the leader's process is gone can be told by others than the timer ([`Event::PeerGone`](crate::Event::PeerGone)).
//! Invariants: such a hint only makes a follower ask for pre-votes earlier, and no longer withhold its own; it is void as
//! soon as the leader is heard, and obeyed once an election timeout for the same leader; where leases are on it is ignored,
//! for a lease counts on votes that are withheld. Without it nobody stands before the shortest election timeout is over.

use crate::{Configuration, Consensus, Duration, NodeId, Time, role::State};
use alloc::sync::Arc;

/// How often refused pre-votes are asked for again at once, until a leader is heard again.
const TRIES_MAX: u8 = 5;
/// The longest distance between two who were told at the same time that their leader is gone.
const STAGGER_MAX: Duration = Duration::from_millis(15);

/// How long is waited behind one leader: asked for with each message of it, and the same for as long as the
/// configuration is.
#[derive(Debug)]
pub(crate) struct Wait {
    leader: Option<NodeId>,
    configuration: Arc<Configuration>,
    from: Duration,
    to: Duration,
}

impl Consensus {
    /// Waits anew: by rank behind a known leader, else by chance alone.
    pub(crate) fn restart_election_timer(&mut self, now: Time) {
        self.restart_election_timer_behind(now, self.leader());
    }

    #[inline]
    fn restart_election_timer_behind(&mut self, now: Time, leader: Option<NodeId>) {
        let (from, to) = match &self.wait {
            Some(wait)
                if wait.leader == leader && Arc::ptr_eq(&wait.configuration, self.log.configuration()) =>
            {
                (wait.from, wait.to)
            }
            _ => self.wait_anew(leader),
        };
        self.election_deadline = now.after(self.random.between(from, to));
    }

    /// From when on, and until when, this server stands behind `leader`.
    #[inline(never)]
    fn wait_anew(&mut self, leader: Option<NodeId>) -> (Duration, Duration) {
        let (min, max) = (self.config.election_timeout_min, self.config.election_timeout_max);
        let (from, to) = match leader.and_then(|leader| self.rank_without(leader)) {
            None => (min, max),
            Some((rank, others)) => {
                let slot = max.0.saturating_sub(min.0) / others;
                let begin = min.0.saturating_add(slot.saturating_mul(rank));
                // The others heard the leader a moment earlier or later: the first gives them that moment.
                let margin = slot.min(min.0) / 32;
                match rank {
                    0 => (Duration(begin + margin), Duration(begin + 2 * margin)),
                    _ => (Duration(begin), Duration(begin.saturating_add(slot / 2))),
                }
            }
        };
        self.wait = Some(Wait {
            leader,
            configuration: self.log.configuration().clone(),
            from,
            to,
        });
        (from, to)
    }

    /// The place of this server among the voters but for this one, and how many these are. None if it is no voter.
    fn rank_without(&self, leader: NodeId) -> Option<(u64, u64)> {
        let own = self.config.node;
        let voters = &self.log.configuration().voters;
        let mut others = voters.iter().filter(|n| **n != leader);
        let rank = others.clone().position(|n| *n == own)?;
        others.next()?;
        Some((rank as u64, 1 + others.count() as u64))
    }

    /// Whether a leader was heard from so lately that votes are refused (dissertation §4.2.3).
    pub(crate) fn hears_a_leader(&self, now: Time) -> bool {
        match &self.state {
            State::Leader(_) => true,
            _ => self
                .heard_at
                .is_some_and(|at| now < at.after(self.config.election_timeout_min)),
        }
    }

    /// A leader was heard.
    #[inline]
    pub(crate) fn heard(&mut self, now: Time, leader: NodeId) {
        self.heard_at = Some(now);
        self.tries = 0;
        self.waited_once_more = false;
        self.restart_election_timer_behind(now, Some(leader));
    }

    /// The process of this peer seems to be gone: if it leads, ask at once whether another would be elected.
    pub(crate) fn on_peer_gone(&mut self, now: Time, peer: NodeId) {
        let follows = matches!(&self.state, State::Follower(follower) if follower.leader == Some(peer));
        let lately = self
            .hinted
            .is_some_and(|(of, at)| of == peer && now < at.after(self.config.election_timeout_min));
        if !follows || lately || self.config.lease_drift_ppm.is_some() {
            return;
        }
        self.hinted = Some((peer, now));
        self.heard_at = None;
        if let Some((rank, _)) = self.rank_without(peer) {
            let wait = Duration(self.stagger().0.saturating_mul(rank));
            self.election_deadline = self.election_deadline.min(now.after(wait));
        }
    }

    /// A pre-vote was refused, maybe by one who will grant it in a moment: who heard the leader a little later, or has not
    /// been told yet that it is gone.
    pub(crate) fn ask_again(&mut self, now: Time) {
        if matches!(self.state, State::PreCandidate(_)) && self.tries < TRIES_MAX {
            let stagger = self.stagger();
            let wait = self.random.between(Duration(stagger.0 / 2), stagger);
            self.election_deadline = self.election_deadline.min(now.after(wait));
        }
    }

    /// Another asks whose log is behind this one, and no leader is heard: so this server need not wait for its rank.
    pub(crate) fn stand_instead(&mut self, now: Time) {
        if matches!(self.state, State::Follower(_)) {
            let wait = self.random.between(Duration(0), self.stagger());
            self.election_deadline = self.election_deadline.min(now.after(wait));
        }
    }

    fn stagger(&self) -> Duration {
        Duration(self.config.heartbeat_interval.0 / 4).min(STAGGER_MAX)
    }
}
