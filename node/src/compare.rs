//! Comparing replicas: which of them has gone wrong, and what it may still do.
//!
//! The leader puts a record into the log now and then; what a node has become exactly behind it ([`Compared`]) it tells all
//! others. A difference in the hash over the log breaks Raft: whoever sees it stops. One in what the state machine has
//! answered, or says of its state, is the machine's fault, and a majority of the voters decides whose. Invariants: only what
//! was taken behind the same record is compared; a node applies nothing more once it is known to be wrong, or once nobody
//! can tell who is; then it answers no reads, gives no snapshots away and, if it is wrong, does not lead; it votes and
//! keeps its log as ever, for that is sound; the number of records remembered is bounded.

mod resync;

use crate::{
    driver::Driver,
    machine::Task,
    meta::Mark,
    ports::Ports,
    request::{Failure, Token},
};
use kontiki_consensus::{Configuration, Duration, Event, Index, NodeId, Position, Time};
use kontiki_wire::{Compared, PeerMessage, record::RunBuilder};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the latest records by which nodes compare themselves are remembered.
const RECORDS_MAX: usize = 16;

/// How often replicas compare what they have become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompareConfig {
    /// A leader has them do so so long after the last time, if something was applied since; `None`: never. After the
    /// same time a difference that no majority decides stops applying.
    pub interval: Option<Duration>,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_millis(10_000)),
        }
    }
}

/// What is known of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    #[default]
    Sound,
    /// Another differs, and too few have been heard to tell who is wrong.
    Disputed { index: Index, since: Time },
    /// Nobody can tell who is wrong.
    Halted {
        index: Index,
        why: String,
        /// Others have gone on: it applies up to where it can be compared with them, and answers nothing yet.
        goes_on: bool,
    },
    /// A majority differs from it since this record.
    Quarantined { index: Index, why: String },
}

/// What replicas have told of themselves.
#[derive(Debug, Default)]
pub(crate) struct Compare {
    pub(crate) standing: Standing,
    /// What each node, this one too, was behind each of the latest records.
    told: BTreeMap<Index, BTreeMap<NodeId, Compared>>,
    /// This node's own that nobody has looked at yet, and the last user entry up to each.
    passed: Vec<(Compared, Position)>,
    /// The last user entry up to the last such record that has passed by.
    position: Position,
    /// Before then none is proposed.
    next: Time,
    /// When the others were last asked again.
    asked: Time,
    /// Nodes that differ from this one and a majority.
    differing: BTreeSet<NodeId>,
    syncing: resync::Syncing,
}

impl Compare {
    pub(crate) fn new(config: CompareConfig, now: Time) -> Self {
        Self {
            next: now.after(config.interval.unwrap_or_default()),
            ..Self::default()
        }
    }

    /// A record has passed by.
    pub(crate) fn passed(&mut self, compared: Compared, position: Position) {
        self.passed.push((compared, position));
    }

    /// Whether nothing more may be applied.
    pub(crate) fn holds(&self) -> bool {
        matches!(
            self.standing,
            Standing::Halted { goes_on: false, .. } | Standing::Quarantined { .. }
        )
    }

    /// Whether what the machine says is to be relied on as far as is known.
    pub(crate) fn is_sound(&self) -> bool {
        self.standing == Standing::Sound
    }

    /// Whether something waits for time to pass.
    pub(crate) fn is_busy(&self) -> bool {
        !self.is_sound()
    }

    /// Why it answers nothing, if so.
    pub(crate) fn why(&self) -> Option<&str> {
        match &self.standing {
            Standing::Halted { why, .. } | Standing::Quarantined { why, .. } => Some(why),
            Standing::Sound | Standing::Disputed { .. } => None,
        }
    }

    /// Remembers what a node has told; what it has told before, if that is remembered.
    fn note(&mut self, node: NodeId, compared: Compared) -> Option<Compared> {
        let before = self
            .told
            .entry(compared.index)
            .or_default()
            .insert(node, compared);
        // The one in dispute stays until that is decided: without it nobody could tell any more.
        let disputed = match self.standing {
            Standing::Disputed { index, .. } | Standing::Halted { index, .. } => Some(index),
            Standing::Sound | Standing::Quarantined { .. } => None,
        };
        while self.told.len() > RECORDS_MAX {
            let oldest = self.told.keys().copied().find(|index| Some(*index) != disputed);
            oldest.and_then(|oldest| self.told.remove(&oldest));
        }
        before
    }

    /// What a node was when it was last compared, as far as it is remembered.
    fn latest_of(&self, node: NodeId) -> Option<Compared> {
        self.told.values().rev().find_map(|told| told.get(&node).copied())
    }

    fn of(&self, index: Index, node: NodeId) -> Option<&Compared> {
        self.told.get(&index)?.get(&node)
    }
}

/// What follows from what was told of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// Nothing differs so far.
    Open,
    /// Two logs differ.
    Broken(NodeId),
    /// A majority is like this node.
    Majority,
    /// A majority is like that node, and not like this one.
    Minority(NodeId),
    /// It differs from that node, and others are yet to be heard.
    Disputed,
    /// It differs from that node, all are heard, and there is no majority.
    Split(NodeId),
}

/// Whether two machines have answered the same and are in the same state, as far as they tell.
fn agree(a: &Compared, b: &Compared) -> bool {
    let states = a.digest.zip(b.digest);
    a.output_hash == b.output_hash && states.is_none_or(|(a, b)| a == b)
}

/// What `node` is to think of itself.
fn judge(told: &BTreeMap<NodeId, Compared>, node: NodeId, members: &Configuration) -> Verdict {
    let Some(own) = told.get(&node) else {
        return Verdict::Open;
    };
    if let Some((peer, _)) = told.iter().find(|(_, other)| other.log_hash != own.log_hash) {
        return Verdict::Broken(*peer);
    }
    if members.has_quorum(|n| told.get(&n).is_some_and(|other| agree(own, other))) {
        return Verdict::Majority;
    }
    let mut differing = told.iter().filter(|(_, other)| !agree(own, other));
    let Some((first, _)) = differing.clone().next() else {
        return Verdict::Open;
    };
    let is_majority = |of: &Compared| {
        members.has_quorum(|n| {
            told.get(&n)
                .is_some_and(|other| agree(of, other) && !agree(own, other))
        })
    };
    if let Some((peer, _)) = differing.find(|(_, other)| is_majority(other)) {
        return Verdict::Minority(*peer);
    }
    let voters = members.voters.iter().chain(&members.outgoing);
    if voters.into_iter().all(|n| told.contains_key(n)) {
        Verdict::Split(*first)
    } else {
        Verdict::Disputed
    }
}

/// What a node has become, for people.
fn text(node: NodeId, compared: &Compared) -> String {
    let digest = compared.digest.map_or_else(
        || "no digest".to_owned(),
        |digest| format!("digest {digest:016x}"),
    );
    format!(
        "node {node} has outputs {:016x} and {digest}",
        compared.output_hash
    )
}

impl Driver {
    /// Whether others differed when all compared last, and it was not told who is wrong. Who has taken over another state
    /// since cannot say what it was then: only the next record decides.
    fn is_undecided(&self) -> bool {
        self.compare.told.values().next_back().is_some_and(|told| {
            let verdict = judge(told, self.node(), self.consensus.configuration());
            matches!(verdict, Verdict::Disputed | Verdict::Split(_))
        })
    }

    /// Proposes to compare, if it is time and there is something new, or something undecided, or if another node waits for a
    /// later snapshot than the log has records for: it may be the only one that anybody asks for appends.
    pub(crate) fn propose_compare(&mut self, now: Time) {
        let Some(interval) = self.config.compare.interval else {
            return;
        };
        let halted = self.is_halted();
        let sound = self.compare.is_sound() && self.knows_sessions();
        let news = sound && self.applied.position > self.compare.position;
        let called_for = sound && (self.is_undecided() || self.waits_for_records());
        if now < self.compare.next || !(news || halted || called_for) {
            return;
        }
        // Others may have gone on meanwhile, and this node only hears of it where they compare.
        let admission = if halted {
            self.consensus.admission()
        } else {
            self.admission()
        };
        let Some(admission) = admission else { return };
        if self.consensus.configuration().members().len() < 2 {
            return;
        }
        let mut builder = RunBuilder::new(self.config.identity.cluster, self.config.group, admission);
        if builder.push_compare(self.stamp()).is_ok()
            && let Some(run) = builder.finish()
        {
            self.compare.next = now.after(interval);
            self.consensus.step(now, Event::Propose(run));
        }
    }

    /// Tells the others what this node has become behind the records that have passed by.
    pub(crate) fn see_to_comparisons(&mut self, now: Time, ports: &mut impl Ports) {
        let passed = std::mem::take(&mut self.compare.passed);
        let Some((last, position)) = passed.last().copied() else {
            return;
        };
        self.compare.position = position;
        if let Some(interval) = self.config.compare.interval {
            self.compare.next = now.after(interval);
        }
        // Where it catches up there may be many; the others know of none but the latest.
        for peer in self.consensus.configuration().members() {
            self.tell(peer, last, ports);
        }
        for (compared, _) in passed {
            self.compare.note(self.node(), compared);
            self.judge(now, compared.index, ports);
        }
    }

    fn tell(&self, peer: NodeId, compared: Compared, ports: &mut impl Ports) {
        if peer != self.node() {
            ports.send(self.config.group, peer, PeerMessage::Compared(compared));
        }
    }

    /// Another node tells what it has become.
    pub(crate) fn take_compared(
        &mut self,
        now: Time,
        from: NodeId,
        compared: Compared,
        ports: &mut impl Ports,
    ) {
        if !self.consensus.configuration().contains(from) {
            return;
        }
        let again = self.compare.note(from, compared).is_some();
        let Some(own) = self.compare.of(compared.index, self.node()).copied() else {
            self.see_overtaken(compared, ports);
            return self.tell_later(from, compared, ports);
        };
        // Who differs must know why, and who asks again has not heard.
        let differs = own.log_hash != compared.log_hash || !agree(&own, &compared);
        if (differs || again) && !compared.is_answer {
            let answer = Compared {
                is_answer: true,
                ..own
            };
            self.tell(from, answer, ports);
        }
        self.judge(now, compared.index, ports);
    }

    /// Another asks for a record that this node has forgotten: it hears what this node has become since, and can be compared
    /// with it there.
    fn tell_later(&mut self, to: NodeId, theirs: Compared, ports: &mut impl Ports) {
        let latest = self
            .compare
            .latest_of(self.node())
            .filter(|own| own.index > theirs.index);
        if let Some(own) = latest.filter(|_| !theirs.is_answer) {
            let answer = Compared {
                is_answer: true,
                ..own
            };
            self.tell(to, answer, ports);
        }
    }

    /// Where this node waits for somebody to decide, and others have gone on: they may not know any more what they were at
    /// its record, and it is compared with them at theirs.
    fn see_overtaken(&mut self, theirs: Compared, ports: &mut impl Ports) {
        if let Standing::Halted { index, goes_on, .. } = &mut self.compare.standing
            && theirs.index > *index
        {
            *goes_on = true;
            self.hand_over(ports);
        }
    }

    fn judge(&mut self, now: Time, index: Index, ports: &mut impl Ports) {
        let node = self.node();
        let Some(told) = self.compare.told.get(&index) else {
            return;
        };
        let verdict = judge(told, node, self.consensus.configuration());
        let (Some(own), of) = (told.get(&node).copied(), |peer| told.get(&peer).copied()) else {
            return;
        };
        match verdict {
            Verdict::Open => {}
            Verdict::Broken(peer) => {
                let theirs = of(peer).unwrap_or(own).log_hash;
                let what = format!(
                    "Raft is broken: up to record {index} the log of node {node} has the hash {:016x}, that of node \
                     {peer} {theirs:016x}",
                    own.log_hash
                );
                self.stop(what, ports);
            }
            Verdict::Majority => self.agreed(index, own, ports),
            Verdict::Minority(peer) => {
                let why = format!(
                    "its state machine differs from a majority's at record {index}: {}, {}",
                    text(node, &own),
                    text(peer, &of(peer).unwrap_or(own))
                );
                self.quarantine(now, index, why, ports);
            }
            Verdict::Disputed => {
                if self.compare.is_sound() {
                    tracing::warn!(%index, "replicas differ, and too few have told to say which is wrong");
                    self.compare.standing = Standing::Disputed { index, since: now };
                    self.mark(Mark::Disputed { own, halted: false }, ports);
                }
            }
            Verdict::Split(peer) => {
                let theirs = of(peer).unwrap_or(own);
                self.halt(index, (own, peer, theirs), ports);
            }
        }
    }

    /// A majority is like this node: whoever is not is wrong.
    fn agreed(&mut self, index: Index, own: Compared, ports: &mut impl Ports) {
        for (peer, other) in self.compare.told.get(&index).into_iter().flatten() {
            if agree(&own, other) {
                self.compare.differing.remove(peer);
            } else if self.compare.differing.insert(*peer) {
                self.counts.differing += 1;
                tracing::error!(
                    %index, "the state machine of node {peer} differs from a majority's: {}, {}",
                    text(*peer, other), text(self.config.identity.node, &own)
                );
            }
        }
        match &self.compare.standing {
            Standing::Disputed { index: at, .. } | Standing::Halted { index: at, .. } if index >= *at => {
                self.be_sound(ports);
                self.hand_over(ports);
            }
            _ => {}
        }
    }

    /// A majority differs from this node: it answers nothing more and does not lead.
    fn quarantine(&mut self, now: Time, index: Index, why: String, ports: &mut impl Ports) {
        if matches!(self.compare.standing, Standing::Quarantined { .. }) {
            return;
        }
        tracing::error!("node {} is quarantined: {why}", self.node());
        self.counts.quarantined += 1;
        self.compare.standing = Standing::Quarantined { index, why };
        self.refuse_tails(ports);
        self.applied.forget_outputs();
        self.abandon_own();
        self.consensus.step(now, Event::MayLead(false));
        self.mark(Mark::Quarantined(index), ports);
    }

    /// Has a durable machine keep what speaks against it: it must know it when it starts again.
    fn mark(&self, mark: Mark, ports: &mut impl Ports) {
        if self.applied.machine {
            ports.work(self.config.group, Task::Mark(mark));
        }
    }

    /// It was decided that nothing speaks against this node.
    fn be_sound(&mut self, ports: &mut impl Ports) {
        self.compare.standing = Standing::Sound;
        self.mark(Mark::Sound, ports);
    }

    /// It was in dispute when it went down: so it is, and is compared with the others at the same record.
    pub(crate) fn dispute_again(&mut self, now: Time, own: Compared, halted: bool) {
        let (index, node) = (own.index, self.node());
        let why = format!(
            "replicas differed at record {index}, before this node was started again, and there was no majority to tell \
             which is wrong: {}",
            text(node, &own)
        );
        tracing::error!("node {node} is in dispute: {why}");
        self.compare.standing = if halted {
            Standing::Halted {
                index,
                why,
                goes_on: false,
            }
        } else {
            Standing::Disputed { index, since: now }
        };
        self.compare.note(node, own);
    }

    /// It was quarantined when it went down: so it is.
    pub(crate) fn quarantine_again(&mut self, now: Time, index: Index) {
        let why = format!(
            "its state machine differed from a majority's at record {index}, before this node was started again"
        );
        tracing::error!("node {} is quarantined: {why}", self.node());
        self.compare.standing = Standing::Quarantined { index, why };
        self.consensus.step(now, Event::MayLead(false));
    }

    /// Replicas differ and nobody can tell who is wrong: nothing more is applied.
    fn halt(
        &mut self,
        index: Index,
        (own, peer, theirs): (Compared, NodeId, Compared),
        ports: &mut impl Ports,
    ) {
        if self.compare.holds() {
            return;
        }
        let why = format!(
            "replicas differ at record {index}, and there is no majority to tell which is wrong: {}, {}",
            text(self.node(), &own),
            text(peer, &theirs)
        );
        tracing::error!("applying stops: {why}");
        self.counts.halted += 1;
        self.compare.standing = Standing::Halted {
            index,
            why,
            goes_on: false,
        };
        self.refuse_tails(ports);
        self.mark(Mark::Disputed { own, halted: true }, ports);
    }

    /// Asks those again who have not told, while that is what it depends on; stops applying if it takes too long.
    pub(crate) fn pursue_dispute(&mut self, now: Time, ports: &mut impl Ports) {
        let (index, since) = match self.compare.standing {
            Standing::Disputed { index, since } => (index, Some(since)),
            Standing::Halted { index, .. } => (index, None),
            Standing::Sound | Standing::Quarantined { .. } => return,
        };
        let Some(own) = self.compare.of(index, self.node()).copied() else {
            // It took over another state since. Nobody is sound without a verdict: it is given at the next record.
            return;
        };
        let patience = self.config.compare.interval.unwrap_or_default();
        if since.is_some_and(|since| now >= since.after(patience)) {
            let told = self.compare.told.get(&index).into_iter().flatten();
            let other = told.map(|(n, c)| (*n, *c)).find(|(_, c)| !agree(&own, c));
            if let Some((peer, theirs)) = other {
                return self.halt(index, (own, peer, theirs), ports);
            }
        }
        if now >= self.compare.asked.after(self.patience()) {
            self.compare.asked = now;
            for peer in self.consensus.configuration().members() {
                if self.compare.of(index, peer).is_none() {
                    self.tell(peer, own, ports);
                }
            }
        }
    }

    /// Refuses a client if this node answers nothing; false if it does.
    pub(crate) fn refuses(&self, token: Token, ports: &mut impl Ports) -> bool {
        let Some(why) = self.compare.why() else {
            return false;
        };
        let failure = Failure::Quarantined(why.to_owned());
        ports.reply(token, crate::Reply::Failed(failure));
        true
    }

    /// Why this node answers no reads, if so: its state differs from a majority's, or replicas differ and there is no
    /// majority.
    #[must_use]
    pub fn quarantined(&self) -> Option<&str> {
        self.compare.why()
    }

    /// Whether nothing is known to speak against its state.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.compare.is_sound()
    }

    /// Whether it has stopped applying because replicas differ and nobody can tell which is wrong.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        matches!(self.compare.standing, Standing::Halted { .. })
    }

    /// The nodes whose state machines differ from this one's and a majority's, as far as was told lately.
    #[must_use]
    pub fn differing(&self) -> &BTreeSet<NodeId> {
        &self.compare.differing
    }
}
