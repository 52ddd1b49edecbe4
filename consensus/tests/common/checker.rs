//! The five properties of Figure 3, and what the design promises besides, looked at after each flush.
//!
//! A prefix of a log is known by its hash, so that equal hashes at an index mean equal logs up to it.

use super::{
    Server,
    image::{Image, Snapshot},
};
use kontiki_consensus::{Call, Consensus, Index, Message, NodeId, ReadId, Role, SuspectMark, Term};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Checker {
    voters: Vec<NodeId>,
    leaders: BTreeMap<Term, NodeId>,
    /// How far the log of a leader reached when last looked at, and its hash there.
    led: BTreeMap<NodeId, (Term, Index, u64)>,
    /// The log up to a record of this index and term.
    prefixes: BTreeMap<(Index, Term), u64>,
    /// What was applied first at each index.
    applied: BTreeMap<Index, u64>,
    /// How far was committed, the hash there, and the term of the leader that committed it.
    committed: (Index, u64, Term),
    votes: BTreeMap<(Term, NodeId), NodeId>,
    terms: BTreeMap<NodeId, (Term, Index)>,
    reads: BTreeMap<ReadId, Index>,
    /// The test makes up what other servers say: their disks do not bear it out.
    pub(crate) made_up: bool,
    /// Servers whose disks were set back.
    set_back: BTreeSet<NodeId>,
    /// Those of them that do not know it yet, and whether they have lost votes too.
    unnoticed: BTreeMap<NodeId, bool>,
    /// One of those promised something before its mark was on disk: what follows from that is excused.
    pub(crate) excused: bool,
    /// How often something worth having happened.
    pub(crate) elections: usize,
    pub(crate) reads_answered: usize,
    pub(crate) lease_reads: usize,
    pub(crate) installs: usize,
    pub(crate) marks: usize,
    pub(crate) returns: usize,
    marked: BTreeMap<NodeId, bool>,
}

impl Checker {
    pub(crate) fn new(voters: Vec<NodeId>) -> Self {
        Self {
            voters,
            ..Self::default()
        }
    }

    /// The disk of a server is replaced by an older one.
    pub(crate) fn set_back(&mut self, node: NodeId, votes_too: bool) {
        self.set_back.insert(node);
        *self.unnoticed.entry(node).or_default() |= votes_too;
    }

    /// Whether its disk was set back and it does not know.
    pub(crate) fn is_unnoticed(&self, node: NodeId) -> bool {
        self.unnoticed.contains_key(&node)
    }

    pub(crate) fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// What a server promises that has lost something and does not know it.
    fn promise(&mut self, message: &Message, disk: &Image) {
        let node = message.from;
        if disk.hard_state.suspect != SuspectMark::ZERO {
            self.unnoticed.remove(&node);
        }
        let Some(votes_too) = self.unnoticed.get(&node) else {
            return;
        };
        // What it acknowledges it does hold: as long as it knows of its votes, only a vote for one that lacks what it has
        // lost does harm.
        self.excused |= match message.call {
            Call::AppendEntriesReply { .. } => *votes_too,
            Call::RequestVote { pre, .. } => !pre,
            Call::RequestVoteReply { pre, granted, .. } => granted && !pre,
            _ => false,
        };
    }

    /// How far is committed anywhere.
    pub(crate) fn committed(&self) -> Index {
        self.committed.0
    }

    /// Log Matching: two logs with a record of the same index and term are equal up to it.
    pub(crate) fn learn(&mut self, log: &Image) {
        if self.excused {
            return;
        }
        let base = log.base.last;
        let hash = log
            .chain_at(base.index)
            .expect("a log knows the hash where it begins");
        let known = *self.prefixes.entry((base.index, base.term)).or_insert(hash);
        assert_eq!(known, hash, "Log Matching is broken at the base {base:?}");
        for (record, chain) in log.records.iter().zip(&log.chain).rev().take(64) {
            let known = *self
                .prefixes
                .entry((record.first(), record.term()))
                .or_insert(*chain);
            assert_eq!(known, *chain, "Log Matching is broken at {:?}", record.last_id());
        }
    }

    /// State Machine Safety: no two servers apply different records at an index.
    pub(crate) fn applied(&mut self, log: &Image, to: Index) {
        if self.excused {
            return;
        }
        for index in self.applied.len() as u64 + 1..=to.0 {
            let chain = log.chain_at(Index(index)).expect("what is applied is in the log");
            self.applied.insert(Index(index), chain);
        }
        let here = log.chain_at(to).expect("what is applied is in the log");
        assert_eq!(
            self.applied[&to], here,
            "State Machine Safety is broken at {to:?}"
        );
    }

    /// State Machine Safety: what a snapshot holds is what was applied up to its end.
    pub(crate) fn installed(&mut self, snapshot: &Snapshot) {
        if self.excused {
            return;
        }
        let last = snapshot.base.last.index;
        assert_eq!(
            self.applied.get(&last),
            Some(&snapshot.hash),
            "the snapshot up to {last:?} holds what nobody has applied"
        );
        self.installs += 1;
    }

    /// The test makes up a snapshot, which holds this state.
    pub(crate) fn expect_state(&mut self, index: Index, hash: u64) {
        self.applied.insert(index, hash);
    }

    /// A read under a lease begins and ends at once.
    pub(crate) fn lease_read(&mut self, node: NodeId, index: Index) {
        if self.excused {
            return;
        }
        let committed = self.committed();
        assert!(
            index >= committed,
            "{node:?} answers under a lease at {index:?}, but {committed:?} is committed"
        );
        self.lease_reads += 1;
    }

    /// What leaves a server rests on its disk: the gate.
    pub(crate) fn sent(&mut self, message: &Message, disk: &Image) {
        let Message { from, to, term, call } = message;
        let pre = matches!(
            call,
            Call::RequestVote { pre: true, .. } | Call::RequestVoteReply { pre: true, .. }
        );
        assert!(
            pre || disk.hard_state.term == *term,
            "{message:?} left before its term was on disk"
        );
        self.promise(message, disk);
        if self.excused {
            return;
        }
        match call {
            Call::RequestVote { pre: false, .. } => self.voted(*term, *from, *from, disk),
            Call::RequestVoteReply {
                pre: false,
                granted: true,
                ..
            } => self.voted(*term, *from, *to, disk),
            Call::AppendEntriesReply { persisted, .. } => {
                assert!(
                    *persisted <= disk.last().index,
                    "{message:?} left before its records were on disk"
                );
            }
            Call::InstallSnapshot { last, .. } => {
                let here = disk.snapshots.contains_key(&last.index) || disk.staged.contains_key(&last.index);
                assert!(here, "{message:?} left, but there is no such snapshot");
            }
            _ => {}
        }
    }

    fn voted(&mut self, term: Term, voter: NodeId, candidate: NodeId, disk: &Image) {
        assert_eq!(
            disk.hard_state.vote,
            Some(candidate),
            "a vote of {voter:?} left before it was on disk"
        );
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        assert_eq!(first, candidate, "{voter:?} voted twice in {term:?}");
    }

    pub(crate) fn read_begins(&mut self, id: ReadId) {
        self.reads.insert(id, self.committed());
    }

    /// A read sees everything that was committed before it began.
    pub(crate) fn read_ready(&mut self, id: ReadId, index: Index) {
        if self.excused {
            return;
        }
        let least = self.reads.remove(&id).expect("a read is answered once");
        assert!(
            index >= least,
            "{id:?} is answered at {index:?}, but {least:?} was committed before it began"
        );
        self.reads_answered += 1;
    }

    /// A server died: a term that its disk never saw is forgotten, and so is how far is committed.
    pub(crate) fn died(&mut self, node: NodeId, disk: &Image) {
        self.led.remove(&node);
        self.terms.insert(node, (disk.hard_state.term, Index::ZERO));
    }

    /// Everything that can be seen of a server after a flush.
    pub(crate) fn look(&mut self, node: NodeId, servers: &BTreeMap<NodeId, Server>) {
        if self.excused {
            return;
        }
        let server = &servers[&node];
        let Some(life) = &server.life else { return };
        let log = &server.memory;
        assert_eq!(
            life.last(),
            log.last(),
            "{node:?} holds another log than it has written"
        );
        assert_eq!(
            life.base(),
            log.base.last,
            "{node:?} has purged otherwise than it has written"
        );
        let (term, commit) = self
            .terms
            .insert(node, (life.term(), life.commit()))
            .unwrap_or_default();
        assert!(life.term() >= term, "the term of {node:?} went back");
        assert!(life.commit() >= commit, "the commit index of {node:?} went back");
        assert!(
            life.persisted() <= server.disk.last().index,
            "{node:?} takes for persisted what is not"
        );
        self.look_at_mark(node, life, log);
        if life.role() != Role::Leader {
            self.led.remove(&node);
            return;
        }
        self.look_at_leader(node, life.term(), log);
        if life.commit() > self.committed() {
            self.commit(life.commit(), life.term(), log, servers);
        }
    }

    /// A suspect server neither stands nor leads, and says so on its disk.
    fn look_at_mark(&mut self, node: NodeId, life: &Consensus, log: &Image) {
        assert_eq!(
            life.suspect(),
            log.hard_state.suspect,
            "{node:?} has another mark"
        );
        let follows = matches!(life.role(), Role::Follower | Role::Learner);
        assert!(follows || !life.is_suspect(), "{node:?} is suspect and stands");
        match self.marked.insert(node, life.is_suspect()) {
            Some(false) | None => self.marks += usize::from(life.is_suspect()),
            Some(true) => self.returns += usize::from(!life.is_suspect()),
        }
    }

    fn look_at_leader(&mut self, node: NodeId, term: Term, log: &Image) {
        if !self.leaders.contains_key(&term) {
            self.elections += 1;
        }
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "Election Safety is broken in {term:?}");
        let end = log.last().index;
        let hash = log.chain_at(end).unwrap_or_default();
        if let Some((led, to, before)) = self.led.insert(node, (term, end, hash)) {
            let kept = led != term || log.holds(to, before);
            assert!(kept, "Leader Append-Only is broken by {node:?}");
        }
        let (index, hash, committed_in) = self.committed;
        let complete = term < committed_in || log.holds(index, hash);
        assert!(
            complete,
            "Leader Completeness is broken: {node:?} lacks {index:?}"
        );
    }

    /// What a leader commits is on the disks of a majority at that moment.
    fn commit(&mut self, index: Index, term: Term, log: &Image, servers: &BTreeMap<NodeId, Server>) {
        let hash = log.chain_at(index).expect("what is committed is in the log");
        let holding = self
            .voters
            .iter()
            // An acknowledgement counts that was true when it was given, before the disk was set back.
            .filter(|n| servers[n].disk.holds(index, hash) || self.set_back.contains(n))
            .count();
        assert!(
            self.made_up || holding > self.voters.len() / 2,
            "{index:?} was committed in {term:?} with {holding} of {} disks holding it",
            self.voters.len()
        );
        self.committed = (index, hash, term);
    }
}
