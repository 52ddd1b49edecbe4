//! What a leader knows of one follower, and how fast it may send to it.
//!
//! `Probe` looks for the place where the logs agree, one message at a time; `Replicate` sends ahead,
//! up to a window of bytes that are not yet on the follower's disk; `Snapshot` waits until a follower
//! that lacks what the log no longer holds has fetched it. Invariants: `matched` never goes
//! back but to zero, for a follower that has lost what it acknowledged, and is below `next`; `matched` comes only from what the follower says it has persisted; a follower
//! in `Snapshot` is told of the same one until it has it or it is gone.

use crate::{Duration, Index, LogId, NodeId, Position, Round, Time, suspect::Trust};
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
    /// The round that was the newest when `matched` last moved: who answers a later one knew of that.
    pub(crate) matched_in: Round,
    /// Whether what it says counts.
    pub(crate) trust: Trust,
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
    /// The snapshot it is told of, and when it was last told.
    Snapshot {
        last: LogId,
        position: Position,
        told_at: Option<Time>,
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
            matched_in: Round::ZERO,
            trust: Trust::default(),
            moved_at: now,
        }
    }

    /// It has lost what it had acknowledged: nothing is known to be on its disk, and it is looked for anew before `next`.
    pub(crate) fn forget(&mut self, next: Index) {
        self.matched = Index::ZERO;
        self.probe(next);
    }

    /// What is under way is taken for lost: a probe is repeated as it was, and so is word of a snapshot.
    pub(crate) fn give_up(&mut self) {
        match &mut self.mode {
            Mode::Probe { .. } => self.probe(self.next),
            Mode::Replicate { .. } => self.probe(self.received.next().min(self.next)),
            Mode::Snapshot { told_at, .. } => *told_at = None,
        }
    }

    /// Sees to it that it is in `Snapshot` just as long as what it lacks is not in the log, which begins
    /// after `base`. True if it is to be told of `snapshot` now, as the first or after another.
    pub(crate) fn needs_snapshot(&mut self, base: Index, snapshot: (LogId, Position)) -> bool {
        let behind = self.next <= base;
        match &self.mode {
            Mode::Snapshot { last, .. } if behind && self.matched < last.index => false,
            Mode::Snapshot { .. } if !behind => {
                self.probe(self.next);
                false
            }
            _ => behind && self.offer(snapshot),
        }
    }

    /// Whether it lacks what is not in the log, which begins after `base`, or lacked it when last looked at.
    pub(crate) fn may_need_snapshot(&self, base: Index) -> bool {
        self.next <= base || matches!(self.mode, Mode::Snapshot { .. })
    }

    /// From now on it is told of this snapshot.
    pub(crate) fn offer(&mut self, (last, position): (LogId, Position)) -> bool {
        self.probe(self.next);
        self.mode = Mode::Snapshot {
            last,
            position,
            told_at: None,
        };
        true
    }

    /// The snapshot it is told of.
    pub(crate) fn offered(&self) -> Option<LogId> {
        match &self.mode {
            Mode::Snapshot { last, .. } => Some(*last),
            _ => None,
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
            // That it is told again when that is due is enough for a snapshot too.
            Mode::Probe { sent: None } | Mode::Snapshot { .. } => {}
            Mode::Replicate { .. } => self.give_up(),
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
            Mode::Snapshot { .. } => false,
        }
    }

    /// Whether it was sent all records there are, of a log that begins after `base`.
    pub(crate) fn keeps_up(&self, last: Index, base: Index) -> bool {
        matches!(self.mode, Mode::Replicate { .. }) && self.next > last && self.next > base
    }

    /// Whether it keeps up and was sent and told all there is: what would be done for it comes to nothing.
    pub(crate) fn is_served(&self, last: Index, round: Round, commit: Index) -> bool {
        matches!(self.mode, Mode::Replicate { .. })
            && self.next > last
            && self.told_round >= round
            && self.told_commit >= commit
    }

    /// How many bytes more may be on their way to it.
    pub(crate) fn room(&self, window_bytes_max: usize) -> usize {
        match &self.mode {
            Mode::Replicate { bytes, .. } => window_bytes_max.saturating_sub(*bytes),
            _ => window_bytes_max,
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
            Mode::Snapshot { .. } => {}
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
            Mode::Probe { .. } | Mode::Snapshot { .. } => {}
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
            Mode::Snapshot { .. } => false,
        }
    }

    /// Whether what is under way has been silent for so long that it must be taken for lost.
    pub(crate) fn is_lost(&self, now: Time, patience: Duration) -> bool {
        match &self.mode {
            Mode::Probe { sent } => sent.as_ref().is_some_and(|s| now >= s.at.after(patience)),
            Mode::Replicate { .. } => {
                self.received.next() < self.next && now >= self.moved_at.after(patience)
            }
            Mode::Snapshot { told_at, .. } => told_at.is_some_and(|at| now >= at.after(patience)),
        }
    }
}
