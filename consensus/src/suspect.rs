//! Servers that lost what they had promised: they mark themselves, count for nothing, and come back.
//!
//! The paper takes disks for reliable. A disk that flips a bit of the last write, or an older copy of it that is put back,
//! takes acknowledged records and given votes away. A server that learns of such a loss draws a random mark, puts it
//! on disk before anything else leaves it, and says it with every answer. With a mark it gives no vote and no
//! pre-vote, does not stand, and counts for no commit, round of reads or lease; it is fed like any follower, and may be
//! counted to tell whether a quorum is alive.
//!
//! The way back: a leader that hears a mark proposes a record. Once that is committed by a majority of all voters in
//! which this server and every other suspect one count for nothing, the leader says so, and the server drops that
//! mark, and no other, when it holds the record on disk in the record's term or a later one. Then a majority
//! without it has held, after the loss, all it may ever have acknowledged, in a term above all it may have voted in.
//!
//! A loss comes to light where a disk is opened (the log says so), or by proof. A follower proves its own if its leader
//! names as acknowledged what its disk does not hold; a leader proves one of a follower that refuses what it had
//! acknowledged, in answer to a round begun after that acknowledgement had come. A refusal that answers an older round
//! may have been overtaken, and proves nothing. What a server promises between a loss and its mark on disk is not
//! protected by any of this, and lost votes alone are never proven.
//!
//! Invariants: a mark is followed by another, or dropped on a leader's word for that mark, and nothing else changes
//! it; what a leader hears of a mark is believed only if it is newer than what it heard last, which rounds tell.

use crate::{
    Conflict, Consensus, HardState, Index, Loss, NodeId, Note, Round, Standing, SuspectMark, Time, Verdict,
    progress::Progress, role::State,
};

/// How far a leader trusts the acknowledgements of a follower.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// The mark it has; zero if none.
    pub(crate) mark: SuspectMark,
    /// The newest round when that was heard: an answer to no later one that says otherwise may be older.
    since: Round,
    /// The first record proposed after the mark was heard.
    pub(crate) record: Index,
    /// It was told that the record is committed.
    told: bool,
    /// It has lost what it had acknowledged and has not marked itself yet.
    pub(crate) lost: bool,
}

impl Trust {
    /// Whether what it acknowledges counts for a majority.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        self.mark == SuspectMark::ZERO && !self.lost
    }
}

impl Progress {
    /// The standing that the follower is told, where `commit` is the leader's commit index.
    #[inline]
    pub(crate) fn standing(&mut self, commit: Index) -> Standing {
        let trust = &mut self.trust;
        let verdict = if trust.lost {
            Verdict::Lost
        } else if trust.mark != SuspectMark::ZERO && commit >= trust.record {
            trust.told = true;
            Verdict::Cleared(trust.record)
        } else {
            Verdict::None
        };
        Standing {
            matched: self.matched,
            mark: trust.mark,
            verdict,
        }
    }
}

impl Consensus {
    /// Whether this server lost something it had promised and has not been cleared.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.hard_state.suspect != SuspectMark::ZERO
    }

    /// The mark of this server; zero if it is not suspect.
    #[must_use]
    pub fn suspect(&self) -> SuspectMark {
        self.hard_state.suspect
    }

    /// For a leader: the followers that count for nothing, with their marks and the record that must be committed without
    /// each; a mark of zero if a follower's loss is proven and it has not marked itself yet.
    pub fn suspects(&self) -> impl Iterator<Item = (NodeId, SuspectMark, Index)> + '_ {
        let peers = match &self.state {
            State::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        let suspect = peers.iter().filter(|p| !p.trust.counts());
        suspect.map(|p| (p.id, p.trust.mark, p.trust.record))
    }

    /// For a leader: whether the voters that are not suspect are no majority. Then nothing can be committed.
    #[must_use]
    pub fn lacks_sound_majority(&self) -> bool {
        let State::Leader(leader) = &self.state else {
            return false;
        };
        let sound = |n: NodeId| leader.peers.iter().all(|p| p.id != n || p.trust.counts());
        !self.log.configuration().has_quorum(sound)
    }

    /// Takes in the standing of this server, as the leader of this term tells it in this round.
    pub(crate) fn heed(&mut self, round: Round, standing: Standing) {
        let (own, persisted) = (self.hard_state.suspect, self.writes.persisted());
        // A mark that the leader has not heard of is newer than what it speaks of.
        let concerned = own == standing.mark || own == SuspectMark::ZERO;
        // While the log is being replaced, what it held stays on disk until all that is covered by the snapshot does.
        let shorter = standing.matched > persisted && self.installing.is_none();
        // The word of an earlier round may have been overtaken by a mark, its record and the return.
        let overtaken = matches!(&self.state, State::Follower(follower) if round < follower.round);
        match standing.verdict {
            _ if concerned && shorter => self.mark_itself(Loss::Shorter {
                matched: standing.matched,
                persisted,
            }),
            Verdict::Lost if concerned && !overtaken => self.mark_itself(Loss::Proven),
            Verdict::Cleared(record) if self.is_suspect() && own == standing.mark => {
                self.drop_mark_behind(record);
            }
            // A mark is dropped only where the record is on disk: this server had one and lost it.
            Verdict::Cleared(record)
                if own == SuspectMark::ZERO && record > persisted && self.installing.is_none() =>
            {
                self.mark_itself(Loss::Mark { record, persisted });
            }
            _ => {}
        }
    }

    fn mark_itself(&mut self, loss: Loss) {
        let mark = self.random.mark();
        self.set_hard_state(HardState {
            suspect: mark,
            ..self.hard_state
        });
        // The messages in the outbox were made without the mark.
        self.outbox.clear();
        if let State::Follower(follower) = &mut self.state {
            follower.owes_reply = true;
        }
        self.note(Note::Marked { mark, loss });
    }

    /// Drops the mark, if a record of the current term is on disk here.
    fn drop_mark_behind(&mut self, record: Index) {
        let covered = record <= self.log.base().index;
        let holds = covered || self.log.term_at(record) == Some(self.hard_state.term);
        if !holds || record > self.writes.persisted() || self.installing.is_some() {
            return;
        }
        let mark = self.hard_state.suspect;
        self.set_hard_state(HardState {
            suspect: SuspectMark::ZERO,
            ..self.hard_state
        });
        if let State::Follower(follower) = &mut self.state {
            follower.owes_reply = true;
        }
        self.note(Note::Unmarked { mark, record });
    }

    /// Takes in which mark an answer to AppendEntries carries. False if it is to be ignored: it is older than what is known of
    /// the follower, or comes from one that has lost something and does not know it.
    pub(crate) fn heed_mark(
        &mut self,
        now: Time,
        from: NodeId,
        (round, persisted, received, conflict): (Round, Index, Index, Option<Conflict>),
        mark: SuspectMark,
    ) -> bool {
        let State::Leader(leader) = &mut self.state else {
            return false;
        };
        let Some(peer) = leader.peer(from) else {
            return false;
        };
        peer.heard_at = now;
        if mark == peer.trust.mark {
            return !peer.trust.lost;
        }
        if round <= peer.trust.since {
            return false;
        }
        let told = peer.trust.told && !peer.trust.lost;
        let holds_record = persisted >= peer.trust.record;
        let next = conflict.map_or(received.next(), |c| self.next_after(c));
        let next = next.min(self.log.last().index.next());
        if mark != SuspectMark::ZERO {
            self.hear_of_mark(from, mark, next);
            true
        } else if told {
            // Until it says that it holds the record it counts for nothing: it may have lost its mark instead.
            if holds_record {
                self.hear_of_return(from, persisted);
            }
            true
        } else {
            // A mark is dropped on this leader's word alone: this one was lost.
            self.loss_is_proven(from, next);
            false
        }
    }

    /// A follower is suspect: a record is due that is committed without it, on an idle cluster too.
    fn hear_of_mark(&mut self, from: NodeId, mark: SuspectMark, next: Index) {
        let record = self.append_noop();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let since = leader.round;
        let Some(peer) = leader.peer(from) else { return };
        peer.forget(next);
        peer.trust = Trust {
            mark,
            since,
            record,
            ..Trust::default()
        };
        let waits = self.lacks_sound_majority();
        self.note(Note::PeerMarked {
            peer: from,
            mark,
            record,
            waits,
        });
    }

    /// A follower has dropped its mark. It counts with what it acknowledges now: what it acknowledged under the mark it may have
    /// lost without any proof.
    fn hear_of_return(&mut self, from: NodeId, persisted: Index) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let since = leader.round;
        let Some(peer) = leader.peer(from) else { return };
        peer.matched = peer.matched.min(persisted);
        peer.trust = Trust {
            since,
            ..Trust::default()
        };
        self.note(Note::PeerUnmarked { peer: from });
        self.advance_commit();
    }

    /// A follower lacks what it had acknowledged to this leader: it is told so, and fed.
    pub(crate) fn loss_is_proven(&mut self, from: NodeId, next: Index) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(peer) = leader.peer(from) else { return };
        if peer.trust.lost {
            return;
        }
        let matched = peer.matched;
        peer.trust.lost = true;
        peer.forget(next);
        self.note(Note::LossProven { peer: from, matched });
    }
}
