//! What a node does in its turns, whoever gives it one: gathers what has happened, lets the driver decide, carries that out.
//!
//! Packets, requests, completions of the disk and the time are put into the inbox, and the driver is called for all of it at
//! once. Invariants: the driver is never called from within itself; callers are answered after the messages of the turn are
//! queued and the status shows what they did; a panic of the driver stops this node, never the thread that gave the turn.

use crate::{
    answer::Rest,
    asking::Asking,
    calls::Calls,
    network::Network,
    pace::Pace,
    readers::Readers,
    reading::Reading,
    shared::{Order, Shared, Submission, Waiter},
    storage::Storage,
    suspect,
    worker::Worker,
};
use kontiki_consensus::{GroupId, NodeId, Note, Time, Write};
use kontiki_log::{Fetch, Log, SnapshotCommand};
use kontiki_node::{
    Ask, Failure, Input, Ports, Reply, Request, RoleChange, Token,
    driver::Driver,
    machine::{Asked, Restore, Source, Task},
    once::{Held, Once},
    session::open_max,
};
use kontiki_wire::{Identity, Packet, PeerMessage, Session, SessionLimits, StartId, lives::Lives};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// How many turns follow one another before others are to have theirs.
const TURNS_MAX: usize = 16;
/// How old the links of the status may be.
const LINKS_AGE: kontiki_consensus::Duration = kontiki_consensus::Duration::from_millis(250);

/// How a node ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) why: String,
    /// Whether to say goodbye to the peers.
    pub(crate) farewell: bool,
    /// Whether nobody has told it to.
    pub(crate) by_itself: bool,
}

impl End {
    /// What it has done it with is there no more.
    pub(crate) fn gone() -> Self {
        Self {
            why: "the node has ended".to_owned(),
            farewell: false,
            by_itself: false,
        }
    }
}

/// What the raft thread does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ends.
    End(End),
    /// Carries out the write that is held back.
    Write,
    /// Wakes the rest of those who were answered.
    Wake,
    /// Sleeps, until this moment if there is one.
    Sleep {
        /// When to look, at the latest.
        until: Option<Time>,
        /// Whether that is earlier than it was.
        earlier: bool,
    },
}

/// A node at work on a network.
pub(crate) struct Core<N> {
    shared: Arc<Shared>,
    driver: Driver,
    outside: Outside<N>,
    /// Both are empty between turns: kept for their memory.
    inbox: Vec<Input>,
    submissions: Vec<Submission>,
    links_seen: Time,
    /// When the driver wants to be called, and when the raft thread is going to do it.
    deadline: Time,
    armed: Time,
    end: Option<End>,
    /// Those who were answered last and are still to be woken, if those who were woken have not done it.
    rest: Option<Rest>,
}

/// Everything the driver has to do with.
struct Outside<N> {
    identity: Identity,
    start: StartId,
    log: Log<Storage>,
    pace: Pace,
    /// Runs the state machine, if there is one.
    worker: Option<Worker>,
    /// Reads its state for snapshots.
    reading: Reading,
    /// Answers queries that a reader of its state is for.
    asking: Asking,
    network: N,
    calls: Calls,
    /// Where appends take effect once, if they are to.
    once: Once,
    readers: Arc<Readers>,
    /// Why this node is suspect, if it is.
    suspect: Option<String>,
    /// The moment of this turn.
    now: Time,
    /// Empty between turns: kept for its memory.
    answers: Vec<(Token, Reply)>,
    replies: Vec<(Waiter, Reply)>,
    dropped: Vec<NodeId>,
}

impl<N: Network> Core<N> {
    /// A node of these parts.
    pub(crate) fn new(
        shared: Arc<Shared>,
        (identity, start): (Identity, StartId),
        driver: Driver,
        mut log: Log<Storage>,
        worker: Option<Worker>,
        network: N,
        limits: SessionLimits,
    ) -> Self {
        log.disk_mut().hold_writes();
        let outside = Outside {
            identity,
            start,
            log,
            pace: Pace::default(),
            worker,
            reading: Reading::new(shared.signal.clone()),
            asking: Asking::new(shared.signal.clone()),
            network,
            suspect: None,
            calls: Calls::default(),
            once: Once::new(open_max(&limits)),
            readers: shared.readers.clone(),
            now: Time::ZERO,
            answers: Vec::new(),
            replies: Vec::new(),
            dropped: Vec::new(),
        };
        let mut core = Self {
            shared,
            driver,
            outside,
            inbox: Vec::new(),
            submissions: Vec::new(),
            links_seen: Time::ZERO,
            deadline: Time::ZERO,
            armed: Time::MAX,
            end: None,
            rest: None,
        };
        // Whoever asks before the first turn is told what was recovered.
        core.publish(core.shared.now());
        core
    }

    /// Does what there is to do. True if it is told to stand still: everyone who waits is answered then, and whoever can wait
    /// does so until there is another order.
    #[must_use]
    pub(crate) fn run(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let order = self.shared.current_order();
        let ran = catch_unwind(AssertUnwindSafe(|| match order {
            Order::Run => self.turns(),
            Order::Pause => self.stand_still(),
            Order::Stop => self.stop("the node was shut down", true),
            Order::Abort => self.stop("the node was aborted", false),
        }));
        if let Err(panic) = ran {
            self.fail(format!("a turn of the node panicked: {}", panic_text(&*panic)));
        }
        order == Order::Pause && self.end.is_none()
    }

    /// What the raft thread does when nothing is left to do here.
    pub(crate) fn next(&mut self) -> Next {
        if let Some(end) = &self.end {
            return Next::End(end.clone());
        }
        if self.holds_write() {
            return Next::Write;
        }
        if self.rest.is_some() {
            return Next::Wake;
        }
        // A deadline that has moved away leaves the timer as it is: it rings too early now and then.
        let earlier = self.deadline < self.armed;
        self.armed = self.armed.min(self.deadline);
        let until = (self.armed < Time::MAX).then_some(self.armed);
        Next::Sleep { until, earlier }
    }

    /// The timer of the raft thread has rung.
    pub(crate) fn rang(&mut self) {
        self.armed = Time::MAX;
    }

    /// Wakes the rest of those who were answered, as far as the others have not.
    pub(crate) fn wake_rest(&mut self) {
        self.rest = None;
    }

    /// Carries out the write that is held back. Nobody is left waiting for that.
    pub(crate) fn write(&mut self) {
        self.wake_rest();
        let Outside { log, pace, .. } = &mut self.outside;
        log.disk_mut().carry_out(pace);
    }

    /// Whether it is not to go on.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the raft thread has to look: to end, to write, or to set its timer anew.
    pub(crate) fn wants_loop(&mut self) -> bool {
        self.has_ended() || self.deadline < self.armed || self.rest.is_some() || self.holds_write()
    }

    /// Answers everyone who still waits, for good.
    pub(crate) fn leave(&mut self, end: &End) {
        self.driver.shutdown(&mut self.outside);
        // Of a node that was refused it is the mark on its directory.
        self.outside.log.disk_mut().hand_over();
        self.answer();
        self.answer_all(&end.why);
        self.wake_rest();
    }

    /// The network it is in.
    pub(crate) fn network(&mut self) -> &mut N {
        &mut self.outside.network
    }

    fn holds_write(&mut self) -> bool {
        self.outside.log.disk_mut().holds_write()
    }

    /// It was told to stop.
    fn stop(&mut self, why: &str, farewell: bool) {
        self.end.get_or_insert_with(|| End {
            why: why.to_owned(),
            farewell,
            by_itself: false,
        });
    }

    /// It cannot go on.
    fn fail(&mut self, why: String) {
        self.end.get_or_insert(End {
            why,
            farewell: true,
            by_itself: true,
        });
    }

    /// Behaves as if the process were stopped, but that nobody is left waiting for it.
    fn stand_still(&mut self) {
        self.accept();
        self.inbox.retain(|input| !matches!(input, Input::Request(_)));
        self.answer_all("the node is paused");
        self.wake_rest();
    }

    /// Turns until there is nothing more to do.
    fn turns(&mut self) {
        for _ in 0..TURNS_MAX {
            self.gather();
            let now = self.shared.now();
            let is_led = self.driver.consensus().leader().is_some();
            let Self { outside, inbox, .. } = self;
            outside.now = now;
            outside.once.pump(now, is_led, inbox, &mut outside.answers);
            outside.settle();
            self.deadline = self.deadline.min(self.outside.once.deadline());
            let idle = self.inbox.is_empty() && self.outside.replies.is_empty();
            let reads_on = self.outside.log.has_more();
            if idle && now < self.deadline {
                if reads_on {
                    self.shared.signal.notify_one();
                }
                return self.publish(now);
            }
            let Self {
                driver,
                outside,
                inbox,
                ..
            } = self;
            let deadline = driver.turn(now, wall(), inbox, outside);
            self.deadline = deadline.min(self.outside.once.deadline());
            if !self.outside.replies.is_empty() {
                // Whoever is answered sees what it did in the status.
                self.publish(now);
                self.answer();
            }
            if let Some(why) = self.driver.stopped() {
                let why = why.to_owned();
                self.fail(why);
                return self.publish(now);
            }
            if reads_on {
                break;
            }
        }
        self.publish(self.shared.now());
        // There may be more, but others are to have their turn first.
        self.shared.signal.notify_one();
    }

    /// Puts everything that has happened into the inbox of the driver.
    fn gather(&mut self) {
        self.outside.network.receive(&mut self.inbox);
        self.accept();
        self.hear_readers();
        let Self { outside, inbox, .. } = self;
        inbox.extend(outside.dropped.drain(..).map(Input::SendDropped));
        if let Some(worker) = &outside.worker {
            inbox.extend(worker.done().into_iter().map(Input::Machine));
        }
        inbox.extend(outside.asking.done().into_iter().map(Input::Machine));
        let pieces = outside.reading.done().into_iter();
        inbox.extend(pieces.map(|(source, piece)| Input::State { source, piece }));
        while let Some(event) = outside.log.poll() {
            inbox.push(Input::Log(event));
        }
    }

    /// Takes in what clients have asked.
    fn accept(&mut self) {
        self.shared.take(&mut self.submissions);
        for Submission {
            ask,
            deadline,
            waiter,
        } in self.submissions.drain(..)
        {
            let is_append = waiter.is_append;
            let token = self.outside.calls.add(waiter);
            if !is_append && !self.outside.calls.name(token) {
                if let Some(waiter) = self.outside.calls.remove(token) {
                    self.shared.forget(&waiter);
                }
                continue;
            }
            match ask {
                Ask::Append {
                    payload,
                    expect,
                    session: Session::None,
                } if self.shared.limits.sessions => {
                    let held = Held {
                        token,
                        deadline,
                        payload,
                        expect,
                    };
                    self.outside.once.append(held);
                }
                ask => self.inbox.push(Input::Request(Request { token, deadline, ask })),
            }
        }
    }

    /// Takes note of reads that were given up, and of answers to reads that were taken.
    fn hear_readers(&mut self) {
        let readers = &self.shared.readers;
        if !readers.has_news() {
            return;
        }
        let mut given_up = readers.given_up();
        given_up.retain(|token| {
            let waiter = self.outside.calls.remove(*token);
            if let Some(waiter) = &waiter {
                self.shared.forget(waiter);
            }
            waiter.is_some()
        });
        if !given_up.is_empty() {
            self.inbox.push(Input::Cancel(given_up));
        }
        if readers.room_made() {
            self.inbox.push(Input::AnswersTaken);
        }
    }

    /// Tells those who were answered in this turn.
    fn answer(&mut self) {
        self.rest = self.shared.answer_all(&mut self.outside.replies);
    }

    /// Tells everyone who waits that this node will not answer.
    fn answer_all(&mut self, why: &str) {
        let outside = &mut self.outside;
        tracing::debug!(why, waiting = outside.calls.len(), "answering everyone who waits");
        for (token, failure) in outside.once.give_up(why) {
            outside.answers.push((token, Reply::Failed(failure)));
        }
        outside.settle();
        self.answer();
        for waiter in self.outside.calls.drain() {
            let failure = if waiter.is_append {
                Failure::Unknown(format!("the node stopped before it was answered: {why}").into())
            } else {
                Failure::Stopped(why.to_owned().into())
            };
            self.shared.answer(waiter, Reply::Failed(failure));
        }
    }

    /// It begins suspect, for this reason.
    pub(crate) fn begin_suspect(&mut self, why: String) {
        self.outside.suspect = Some(why);
    }

    fn publish(&mut self, now: Time) {
        let mut status = self.shared.status();
        status.see(&self.driver, self.outside.suspect.as_deref());
        if self.links_seen == Time::ZERO || now.since(self.links_seen) > LINKS_AGE {
            self.links_seen = now;
            let members = self.driver.consensus().configuration().members();
            let mut links = self.outside.network.links(&members);
            for (peer, why) in self.driver.refused_peers() {
                links.entry(peer).or_default().refused = Some(why.to_owned());
            }
            status.see_links(links);
        }
    }
}

impl<N> Outside<N> {
    /// Finds those whose answers these are. Whoever is not there was answered when the node was paused.
    fn settle(&mut self) {
        for (token, reply) in self.answers.drain(..) {
            if let Some(waiter) = self.calls.remove(token) {
                self.replies.push((waiter, reply));
            }
        }
    }
}

impl<N: Network> Ports for Outside<N> {
    fn persist(&mut self, group: GroupId, write: Write) {
        self.log.persist(group, write);
    }

    fn fetch(&mut self, group: GroupId, fetch: Fetch) {
        self.log.fetch(group, fetch);
    }

    fn work(&mut self, _: GroupId, task: Task) {
        // A plain log has no machine: its driver never asks for this.
        if let Some(worker) = &self.worker {
            worker.give(task);
        }
    }

    fn restore(&mut self, group: GroupId, restore: Restore) {
        let state = self.log.snapshot_state(&restore.file);
        self.work(group, Task::Restore(restore, state));
    }

    fn read_state(&mut self, _: GroupId, source: Source) {
        self.reading.read(source);
    }

    fn query(&mut self, _: GroupId, asked: Asked) {
        self.asking.ask(asked);
    }

    fn withdraw_queries(&mut self, _: GroupId, queries: &[u64]) {
        if let Some(worker) = &self.worker {
            worker.withdraw(queries);
        }
        self.asking.withdraw(queries);
    }

    fn answers_held(&mut self, most: usize) -> usize {
        self.readers.held(most, self.now)
    }

    fn snapshot(&mut self, _: GroupId, command: SnapshotCommand) {
        if matches!(command, SnapshotCommand::Begin(_) | SnapshotCommand::Abandon) {
            self.reading.end();
        }
        self.log.snapshot(command);
    }

    fn retry_room(&mut self) {
        self.log.retry_room();
    }

    fn keep_lives(&mut self, lives: Lives) {
        self.log.keep_lives(lives);
    }

    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str) {
        self.network.refuse(peer, start, why);
    }

    fn send(&mut self, group: GroupId, to: NodeId, message: PeerMessage) {
        let packet = Packet {
            group,
            from: self.identity.node,
            start: self.start,
            to,
            message,
        };
        if !self.network.send(packet) {
            self.dropped.push(to);
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        if Once::owns(token) {
            self.once.answered(self.now, token, reply, &mut self.answers);
        } else {
            self.answers.push((token, reply));
        }
        self.settle();
    }

    fn role_changed(&mut self, _group: GroupId, change: &RoleChange) {
        let (node, term, role) = (self.identity.node, change.term, change.role);
        let leader = change.leader.map_or(0, |leader| leader.0);
        tracing::info!(%node, %term, ?role, leader, why = %change, "role");
    }

    fn note(&mut self, _group: GroupId, note: &Note) {
        let node = self.identity.node;
        match note {
            // Told with its cause below.
            Note::Role { .. } | Note::Cause(_) => {}
            Note::SteppedDown(why) => tracing::warn!(%node, why, "stepped down"),
            Note::Marked { loss, .. } => {
                let why = suspect::words(*loss);
                suspect::marked(node, &why);
                self.suspect = Some(why);
            }
            Note::Unmarked { record, .. } => {
                suspect::unmarked(node, *record);
                self.suspect = None;
            }
            Note::LossProven { peer, matched } => suspect::loss_proven(node, *peer, *matched),
            Note::PeerMarked {
                peer, record, waits, ..
            } => suspect::peer_marked(node, *peer, *record, *waits),
            Note::PeerUnmarked { peer } => suspect::peer_unmarked(node, *peer),
            other => tracing::debug!(%node, note = ?other, "note"),
        }
    }
}

/// The date, ns since 1970; zero before that.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
