//! All checkers, and what they compare with: told of every write, message, turn and crash.

use crate::archive::Archive;
use crate::checkers::{
    ages::Ages, appends::Appends, commit_order::CommitOrder, convergence::Standing, durability,
    election_safety::ElectionSafety, hard_states::HardStates, leader_append_only::LeaderAppendOnly,
    leader_completeness, log_matching, memory, memory::Allowance, quorum_contact::QuorumContact,
    replicas::Replicas, snapshots, state_machine_safety, transfers::Transfers,
};
use crate::committed::{Committed, CommittedRecord};
use crate::ledger::Ledger;
use crate::sometimes::{Counters, Sometimes};
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{
    Call, Configuration, Duration, HardState, Index, LogId, Message, NodeId, Position, Restored, Role, Term,
    Time, Write, WriteId,
};
use kontiki_node::Meta;

/// What a node shows of itself after a turn.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// What its clock shows.
    pub now: Time,
    /// Its term and vote.
    pub hard_state: HardState,
    /// Its role.
    pub role: Role,
    /// The last record of its log.
    pub last: LogId,
    /// How far it has committed.
    pub commit: Index,
    /// How far it has applied.
    pub applied: Index,
    /// How many bytes of records it holds in memory.
    pub held_bytes: usize,
    /// The first record it holds in memory.
    pub tail_first: Index,
    /// How far its log is on disk, or covered by the snapshot it goes on from.
    pub persisted: Index,
    /// From where it cut its log in this turn, if it did.
    pub truncated: Option<Index>,
}

/// The checkers of a run.
#[derive(Debug)]
pub struct Checks {
    /// What each node's log must hold; node 1 first.
    pub ledgers: Vec<Ledger>,
    /// The log that all agree on.
    pub committed: Committed,
    /// What became of the clients' appends.
    pub appends: Appends,
    /// The rare paths taken so far.
    pub counters: Counters,
    /// The latest term that any node has ever been in.
    pub latest_term: Term,
    /// What followers are fetching.
    pub transfers: Transfers,
    /// How long somebody has led, and what was there when.
    pub ages: Ages,
    archive: Archive,
    members: Configuration,
    allowance: Allowance,
    election_safety: ElectionSafety,
    append_only: LeaderAppendOnly,
    hard_states: HardStates,
    commit_order: CommitOrder,
    replicas: Replicas,
    contact: QuorumContact,
    leader_patience: Duration,
}

impl Checks {
    /// The checkers of a cluster of these members, whose logs are these at first; a leader may go on for
    /// `leader_patience` without hearing a quorum, and a follower that fetches a snapshot for `transfer_patience` without
    /// asking on.
    #[must_use]
    pub fn new(
        members: Configuration,
        ledgers: Vec<Ledger>,
        allowance: Allowance,
        leader_patience: Duration,
        transfer_patience: Duration,
    ) -> Self {
        let nodes = ledgers.len();
        Self {
            ledgers,
            committed: Committed::default(),
            appends: Appends::default(),
            counters: Counters::default(),
            latest_term: Term::ZERO,
            transfers: Transfers::new(transfer_patience),
            ages: Ages::default(),
            archive: Archive::default(),
            members,
            allowance,
            election_safety: ElectionSafety::default(),
            append_only: LeaderAppendOnly::new(nodes),
            hard_states: HardStates::default(),
            commit_order: CommitOrder::new(nodes),
            replicas: Replicas::default(),
            contact: QuorumContact::default(),
            leader_patience,
        }
    }

    /// What the settings of nodes allow.
    pub(crate) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// A node hands a write to its log.
    ///
    /// # Errors
    /// If a property does not hold.
    pub fn wrote(&mut self, node: NodeId, write: &Write) -> Verdict {
        self.counters
            .hit_if(write.truncate.is_some(), Sometimes::Truncated);
        if let Some(state) = write.hard_state {
            self.hard_states.seen(node, state)?;
        }
        let covered = match &write.install {
            Some(base) => Some(snapshots::covered(node, base, &self.committed)?),
            None => None,
        };
        let ledger = &mut self.ledgers[node.0 as usize - 1];
        ledger.follow(write, covered)?;
        if let Some(base) = &write.purge {
            snapshots::forgets(node, base, ledger, &self.committed)?;
        }
        for run in &write.runs {
            let first = run.first().prev().0 as usize;
            let records = &ledger.written()[first..run.last().0 as usize];
            for (n, record) in records.iter().enumerate() {
                log_matching::written(&self.archive, node, Index(run.first().0 + n as u64), record)?;
            }
            self.archive.add(run, records);
        }
        Ok(())
    }

    /// A node's log reports a write as persisted.
    pub fn persisted(&mut self, node: NodeId, id: WriteId) {
        self.ledgers[node.0 as usize - 1].persisted(id);
    }

    /// A node sends a message to another.
    ///
    /// # Errors
    /// If it says something that is not durable.
    pub fn sends(&mut self, message: &Message) -> Verdict {
        self.hard_states
            .sends(message, &self.ledgers[message.from.0 as usize - 1])
    }

    /// A node takes in what came from another, at this time of its own clock.
    pub fn hears(&mut self, node: NodeId, message: &Message, now: Time) {
        if matches!(message.call, Call::AppendEntriesReply { .. }) {
            self.contact.hears(node, message.from, message.term, now);
            self.transfers.answers(message.from);
        }
    }

    /// A node has taken a turn.
    ///
    /// # Errors
    /// If a property does not hold.
    pub fn turned(&mut self, node: NodeId, view: &View) -> Verdict {
        let ledger = &self.ledgers[node.0 as usize - 1];
        ensure(view.last == ledger.last(), "consensus and log agree", || {
            format!(
                "consensus of {node:?} says its log ends at {:?}, handed over was {:?}",
                view.last,
                ledger.last()
            )
        })?;
        self.hard_states.seen(node, view.hard_state)?;
        self.latest_term = self.latest_term.max(view.hard_state.term);
        self.commit_order.shows(node, view.commit, view.applied, ledger)?;
        memory::holds(node, view.held_bytes, &self.allowance)?;
        memory::keeps(node, view.tail_first, view.persisted)?;
        let leads = (view.role == Role::Leader).then_some(view.hard_state.term);
        self.append_only.turned(node, leads, view.truncated)?;
        self.contact
            .turned(node, leads, view.now, self.leader_patience, &self.members)?;
        if let Some(term) = leads {
            self.elected(node, term)?;
        }
        state_machine_safety::knows(node, view.commit, self.ledger(node), &self.committed)?;
        if let Some(term) = leads.filter(|_| view.commit > self.committed.last()) {
            let record = state_machine_safety::first_at(node, view.commit, self.ledger(node))?;
            leader_completeness::commits(node, term, view.commit, &record)?;
        }
        while self.committed.last() < view.commit {
            self.commit_next(node, view.hard_state.term)?;
        }
        Ok(())
    }

    /// What Kontiki knows at the last record that has passed by on a node.
    ///
    /// # Errors
    /// If another node knew something else there.
    pub fn knows(&mut self, node: NodeId, meta: &Meta) -> Verdict {
        self.replicas.knows(node, meta.at().index, meta.digest())
    }

    /// The state of the machine of a node after the record at `index`.
    ///
    /// # Errors
    /// If that of another was in another state there.
    pub fn machine_at(&mut self, node: NodeId, index: Index, digest: u64) -> Verdict {
        self.replicas.state(node, index, digest)
    }

    /// A node leads a term.
    ///
    /// # Errors
    /// If another has led it, or its log lacks something that was committed before.
    pub fn elected(&mut self, node: NodeId, term: Term) -> Verdict {
        if self.election_safety.leads(term, node)? {
            self.counters
                .hit_if(self.election_safety.terms() > 1, Sometimes::LeaderChanged);
            leader_completeness::elected(node, term, self.ledger(node), &self.committed)?;
        }
        Ok(())
    }

    /// `node` is the first to take the next record for committed.
    fn commit_next(&mut self, node: NodeId, in_term: Term) -> Verdict {
        let index = self.committed.last().next();
        let record = state_machine_safety::first_at(node, index, self.ledger(node))?;
        let ledgers: Vec<&Ledger> = self.ledgers.iter().collect();
        durability::committed(index, &record, &ledgers, &self.members)?;
        self.counters
            .hit_if(record.term < in_term, Sometimes::OlderTermCommitted);
        let archived = self.archive.get(LogId::new(record.term, index));
        let entries = archived.map_or(&[][..], |a| &a.entries);
        let first = self.committed.last_position().next();
        let unknown = self.appends.committed(entries, first)?;
        self.counters.hit_if(unknown, Sometimes::UnknownCommitted);
        self.committed.push(CommittedRecord { record, in_term }, entries);
        let last = self.committed.last_position();
        ensure(last == record.position, "positions are dense", || {
            format!(
                "{index:?} ends at {:?}, by its entries at {last:?}",
                record.position
            )
        })
    }

    /// A node goes down.
    pub fn down(&mut self, node: NodeId) {
        self.append_only.down(node);
        self.contact.down(node);
        self.transfers.down(node);
        self.commit_order.down(node);
        self.hard_states
            .down(node, self.ledgers[node.0 as usize - 1].hard_state());
    }

    fn ledger(&self, node: NodeId) -> &Ledger {
        &self.ledgers[node.0 as usize - 1]
    }

    /// A node has recovered this from its disk.
    ///
    /// # Errors
    /// If something persisted is missing, or something is there that was never written.
    pub fn reopened(&mut self, node: NodeId, found: &Restored) -> Verdict {
        let ledger = &mut self.ledgers[node.0 as usize - 1];
        let (reported, handed_over) = (ledger.durable().len(), ledger.written().len());
        ledger.reopen(found).map_err(|mut violation| {
            violation.what = format!("{node:?}: {}", violation.what);
            violation
        })?;
        let found_records = ledger.durable().len();
        self.counters
            .hit_if(found_records > reported, Sometimes::UnreportedSurvived);
        self.counters
            .hit_if(found_records < handed_over, Sometimes::UnsyncedLost);
        self.hard_states.seen(node, found.hard_state)
    }

    /// How a node stands.
    #[must_use]
    pub fn standing(&self, node: NodeId, commit: Index, applied: Index) -> Standing<'_> {
        Standing {
            node,
            commit,
            applied,
            ledger: self.ledger(node),
        }
    }

    /// The last committed user entry.
    #[must_use]
    pub fn last_position(&self) -> Position {
        self.committed.last_position()
    }
}
