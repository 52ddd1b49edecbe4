//! What a leader knows of one follower, and how fast it may send to it.
//!
//! `Probe` looks for the place where the logs agree, one message at a time; `Replicate` sends ahead,
//! up to a window of bytes that are not yet on the follower's disk. Invariants: `matched` never goes
//! back and is below `next`; `matched` comes only from what the follower says it has persisted.

use crate::{Duration, Index, NodeId, Round, Time};
use alloc::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    /// Equal to the leader's log and on the follower's disk: Figure 2's `matchIndex`.
    pub(crate) matched: Index,
    /// Equal to the leader's log, on disk or not, as the latest answer said.
    pub(crate) received: Index,
    /// Figure 2's `nextIndex`.
    pub(crate) next: Index,
    pub(crate) mode: Mode,
    /// An answer from disk is awaited, for records that begin here.
    pub(crate) fetching: Option<Index>,
    /// The newest round it has answered.
    pub(crate) round: Round,
    /// The newest round, and the furthest commit, it was told.
    pub(crate) told_round: Round,
    pub(crate) told_commit: Index,
    pub(crate) heard_at: Time,
    /// When `received` last moved, or the first message beyond it was sent: what runs out when one is lost.
    moved_at: Time,
}

#[derive(Debug)]
pub(crate) enum Mode {
    /// One message is under way, if any.
    Probe { sent: Option<Sent> },
    /// The last index and the weight of each message that is not yet on the follower's disk.
    Replicate {
        in_flight: VecDeque<(Index, usize)>,
        bytes: usize,
    },
}

/// A probe that is under way.
#[derive(Debug)]
pub(crate) struct Sent {
    at: Time,
    /// The last record in it, and what they weigh.
    last: Index,
    weight: usize,
}

impl Progress {
    pub(crate) fn new(id: NodeId, next: Index, now: Time) -> Self {
        Self {
            id,
            matched: Index::ZERO,
            received: Index::ZERO,
            next,
            mode: Mode::Probe { sent: None },
            fetching: None,
            round: Round::ZERO,
            told_round: Round::ZERO,
            told_commit: Index::ZERO,
            heard_at: now,
            moved_at: now,
        }
    }

    /// Where to go on once what is under way is taken for lost: a probe is repeated as it was.
    pub(crate) fn first_unheard(&self) -> Index {
        match &self.mode {
            Mode::Probe { .. } => self.next,
            Mode::Replicate { .. } => self.received.next().min(self.next),
        }
    }

    /// Goes back to looking for the place where the logs agree, beginning before `next`.
    pub(crate) fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        // Beyond that, what it said before may no longer be true: it may have restarted.
        self.received = self.received.min(self.next.prev());
        self.mode = Mode::Probe { sent: None };
        self.fetching = None;
    }

    /// What was sent is known to be lost. A probe is not repeated before it is due, or a queue that is
    /// full would be filled again and again; but what it carried counts as not sent.
    pub(crate) fn dropped(&mut self) {
        match &mut self.mode {
            Mode::Probe { sent: Some(sent) } => (sent.last, sent.weight) = (Index::ZERO, 0),
            Mode::Probe { sent: None } => {}
            Mode::Replicate { .. } => self.probe(self.first_unheard()),
        }
    }

    /// Nothing can be sent for now; tries again when a probe would be repeated.
    pub(crate) fn pause(&mut self, now: Time) {
        self.probe(self.next);
        self.sent(Index::ZERO, 0, now);
    }

    /// Whether more may be sent now.
    pub(crate) fn may_send(&self, window_bytes_max: usize) -> bool {
        match &self.mode {
            Mode::Probe { sent } => sent.is_none(),
            Mode::Replicate { bytes, .. } => *bytes < window_bytes_max && self.fetching.is_none(),
        }
    }

    /// Records up to `last`, of this weight, were sent.
    pub(crate) fn sent(&mut self, last: Index, weight: usize, now: Time) {
        match &mut self.mode {
            Mode::Probe { sent } => {
                *sent = Some(Sent {
                    at: now,
                    last,
                    weight,
                })
            }
            Mode::Replicate { in_flight, bytes } => {
                if self.received.next() >= self.next {
                    self.moved_at = now;
                }
                in_flight.push_back((last, weight));
                *bytes += weight;
                self.next = last.next();
            }
        }
    }

    /// The follower answered: `persisted` and `received` of its log equal ours. True if `matched` moved.
    pub(crate) fn acknowledged(
        &mut self,
        round: Round,
        persisted: Index,
        received: Index,
        now: Time,
    ) -> bool {
        self.heard_at = now;
        // A newer round is a newer answer: it may say less, if the follower has restarted meanwhile.
        let received_now = if round > self.round {
            received
        } else {
            self.received.max(received)
        };
        self.round = self.round.max(round);
        if received_now > self.received || persisted > self.matched {
            self.moved_at = now;
        }
        self.received = received_now.max(persisted);
        let moved = persisted > self.matched;
        self.matched = self.matched.max(persisted);
        self.next = self.next.max(self.matched.next());
        moved
    }

    /// Frees the window, and goes over to replication once the probe has found the place.
    pub(crate) fn follow_up(&mut self) {
        match &mut self.mode {
            Mode::Probe { sent } if self.received.next() >= self.next => {
                // The probe itself will be accepted too: what it carries is on its way.
                let ahead = sent.take().filter(|s| s.last > self.received);
                self.next = ahead.as_ref().map_or(self.received, |s| s.last).next();
                self.moved_at = ahead.as_ref().map_or(self.moved_at, |s| s.at);
                self.mode = Mode::Replicate {
                    bytes: ahead.as_ref().map_or(0, |s| s.weight),
                    in_flight: ahead.iter().map(|s| (s.last, s.weight)).collect(),
                };
            }
            Mode::Probe { .. } => {}
            Mode::Replicate { in_flight, bytes } => {
                while let Some((_, weight)) = in_flight.front().filter(|(last, _)| *last <= self.matched) {
                    *bytes -= weight;
                    in_flight.pop_front();
                }
            }
        }
    }

    /// Whether a message under way had this `prev`. If not, a refusal of it is an old story: when one
    /// message is lost, all behind it are refused, and only the first refusal is news.
    pub(crate) fn awaits_answer_at(&self, prev: Index) -> bool {
        match &self.mode {
            Mode::Probe { .. } => prev == self.next.prev(),
            Mode::Replicate { in_flight, .. } => in_flight.iter().any(|(last, _)| *last == prev),
        }
    }

    /// Whether what is under way has been silent for so long that it must be taken for lost.
    pub(crate) fn is_lost(&self, now: Time, patience: Duration) -> bool {
        match &self.mode {
            Mode::Probe { sent } => sent.as_ref().is_some_and(|s| now >= s.at.after(patience)),
            Mode::Replicate { .. } => {
                self.received.next() < self.next && now >= self.moved_at.after(patience)
            }
        }
    }
}
