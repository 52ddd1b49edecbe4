//! The raft thread: receives, decides, writes and sends on one thread, and never waits for any of it.
//!
//! What arrives (packets, requests, completions of the disk, the time) is put into the inbox, and the driver is called for
//! all of it at once: by the transport as soon as it has delivered what a datagram brought, and by this thread's loop for
//! everything else. Invariants: the driver is never called from within itself; callers are answered after the messages of
//! the turn are queued and the status shows what they did; a panic of the driver stops this node, never the host process.

use crate::{
    asking::Asking,
    calls::Calls,
    network::{Network, links},
    pace::Pace,
    reading::Reading,
    shared::{Order, Shared, Submission, Waiter},
    storage::Storage,
    worker::Worker,
};
use kontiki_consensus::{GroupId, NodeId, Note, Time, Write};
use kontiki_log::{Fetch, Log, SnapshotCommand};
use kontiki_node::{
    Ask, Failure, Input, Ports, Reply, Request, Token,
    driver::Driver,
    machine::{Asked, Restore, Source, Task},
    once::{Held, Once},
};
use kontiki_transport::{Sink, TransportEvent};
use kontiki_wire::{Identity, Packet, PeerMessage, Session};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, Sleep, sleep_until},
};

/// How many turns follow one another before the network gets its turn.
const TURNS_MAX: usize = 16;
/// How old the links of the status may be.
const LINKS_AGE: kontiki_consensus::Duration = kontiki_consensus::Duration::from_millis(250);
/// The longest sleep; nothing depends on it.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How a node ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) why: String,
    /// Whether to say goodbye to the peers.
    pub(crate) farewell: bool,
    /// Whether nobody has told it to.
    pub(crate) by_itself: bool,
}

/// A node at work.
pub(crate) struct Replica {
    shared: Arc<Shared>,
    inbox: RefCell<Vec<Input>>,
    core: RefCell<Core>,
    /// When the driver wants to be called, and when the loop is going to do it.
    deadline: Cell<Time>,
    armed: Cell<Time>,
    end: RefCell<Option<End>>,
    ended: Cell<bool>,
}

struct Core {
    driver: Driver,
    outside: Outside,
    /// Both are empty between turns: kept for their memory.
    inbox: Vec<Input>,
    submissions: Vec<Submission>,
    links_seen: Time,
}

/// Everything the driver has to do with.
struct Outside {
    identity: Identity,
    log: Log<Storage>,
    pace: Pace,
    /// Runs the state machine, if there is one.
    worker: Option<Worker>,
    /// Reads its state for snapshots.
    reading: Reading,
    /// Answers queries that a reader of its state is for.
    asking: Asking,
    network: Network,
    calls: Calls,
    /// Where appends take effect once, if they are to.
    once: Once,
    /// The moment of this turn.
    now: Time,
    /// Empty between turns: kept for its memory.
    answers: Vec<(Token, Reply)>,
    replies: Vec<(Waiter, Reply)>,
    dropped: Vec<NodeId>,
}

impl Replica {
    /// A node of these parts, not yet on any network.
    pub(crate) fn new(
        shared: Arc<Shared>,
        identity: Identity,
        driver: Driver,
        mut log: Log<Storage>,
        worker: Option<Worker>,
    ) -> Rc<Self> {
        log.disk_mut().hold_writes();
        let outside = Outside {
            identity,
            log,
            pace: Pace::default(),
            worker,
            reading: Reading::new(shared.signal.clone()),
            asking: Asking::new(shared.signal.clone()),
            network: Network::None,
            calls: Calls::default(),
            once: Once::new(),
            now: Time::ZERO,
            answers: Vec::new(),
            replies: Vec::new(),
            dropped: Vec::new(),
        };
        let core = Core {
            driver,
            outside,
            inbox: Vec::new(),
            submissions: Vec::new(),
            links_seen: Time::ZERO,
        };
        Rc::new(Self {
            shared,
            inbox: RefCell::default(),
            core: RefCell::new(core),
            deadline: Cell::new(Time::ZERO),
            armed: Cell::new(Time::MAX),
            end: RefCell::new(None),
            ended: Cell::new(false),
        })
    }

    /// Joins a network.
    pub(crate) fn connect(&self, network: Network) {
        self.core.borrow_mut().outside.network = network;
    }

    /// What the transport tells its events to.
    pub(crate) fn door(self: &Rc<Self>) -> Rc<dyn Sink> {
        Rc::new(Door(Rc::downgrade(self)))
    }

    /// Lives until it is told to stop or stops itself.
    pub(crate) async fn live(&self) -> End {
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            self.run();
            if let Some(end) = self.end.take() {
                self.ended.set(true);
                return end;
            }
            if self.holds_write() {
                // What the turn has sent goes out first: the disks of the others are to work beside this one.
                yield_now().await;
                let Outside { log, pace, .. } = &mut self.core.borrow_mut().outside;
                log.disk_mut().carry_out(pace);
                continue;
            }
            let deadline = self.deadline.get();
            // A deadline that has moved away leaves the timer as it is: it rings too early now and then.
            if deadline < self.armed.get() {
                self.armed.set(deadline);
                timer
                    .as_mut()
                    .reset(Instant::now() + self.shared.until(deadline).min(SLEEP_MAX));
            }
            let armed = self.armed.get() < Time::MAX;
            if woken(&self.shared.signal, armed.then_some(timer.as_mut())).await {
                self.armed.set(Time::MAX);
            }
        }
    }

    /// Answers everyone who still waits, and leaves the network.
    pub(crate) async fn leave(&self, end: &End) {
        let network = {
            let mut core = self.core.borrow_mut();
            let Core { driver, outside, .. } = &mut *core;
            driver.shutdown(outside);
            self.answer(outside);
            self.answer_all(outside, &end.why);
            std::mem::take(&mut outside.network)
        };
        self.shared.close(&end.why, end.by_itself);
        if let (Network::Quic(transport), true) = (network, end.farewell) {
            transport.shutdown().await;
        }
    }

    /// Does what there is to do. Called on the raft thread, and never from within itself.
    fn run(&self) {
        if self.ended.get() || self.end.borrow().is_some() {
            return;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if self.obey() {
                self.turns();
            }
        }));
        if let Err(panic) = ran {
            self.fail(format!("the raft thread panicked: {}", panic_text(&*panic)));
        }
    }

    /// Whether the loop has to look: to end, or to set its timer anew.
    fn wants_loop(&self) -> bool {
        self.end.borrow().is_some() || self.deadline.get() < self.armed.get() || self.holds_write()
    }

    fn holds_write(&self) -> bool {
        self.core.borrow_mut().outside.log.disk_mut().holds_write()
    }

    /// It was told to stop.
    fn stop(&self, why: &str, farewell: bool) {
        self.end.borrow_mut().get_or_insert_with(|| End {
            why: why.to_owned(),
            farewell,
            by_itself: false,
        });
    }

    /// It cannot go on.
    fn fail(&self, why: String) {
        self.end.borrow_mut().get_or_insert(End {
            why,
            farewell: true,
            by_itself: true,
        });
    }

    /// Carries out an order; false if that is to stop.
    fn obey(&self) -> bool {
        loop {
            match self.shared.current_order() {
                Order::Run => return true,
                Order::Pause => self.pause(),
                Order::Stop => self.stop("the node was shut down", true),
                Order::Abort => self.stop("the node was aborted", false),
            }
            if self.end.borrow().is_some() {
                return false;
            }
        }
    }

    /// Stands still, as if the process were stopped; nobody is left waiting for that.
    fn pause(&self) {
        let mut core = self.core.borrow_mut();
        self.accept(&mut core);
        core.inbox.retain(|input| !matches!(input, Input::Request(_)));
        self.answer_all(&mut core.outside, "the node is paused");
        drop(core);
        self.shared.wait_while_paused();
    }

    /// Turns until there is nothing more to do.
    fn turns(&self) {
        let mut core = self.core.borrow_mut();
        for _ in 0..TURNS_MAX {
            self.gather(&mut core);
            let now = self.shared.now();
            let Core { outside, inbox, .. } = &mut *core;
            outside.now = now;
            outside.once.pump(now, inbox, &mut outside.answers);
            outside.settle();
            self.deadline
                .set(self.deadline.get().min(outside.once.deadline()));
            let idle = inbox.is_empty() && outside.replies.is_empty();
            if idle && now < self.deadline.get() {
                return self.publish(now, &mut core);
            }
            let Core {
                driver,
                outside,
                inbox,
                ..
            } = &mut *core;
            let deadline = driver.turn(now, wall(), inbox, outside);
            self.deadline.set(deadline.min(outside.once.deadline()));
            if !outside.replies.is_empty() {
                // Whoever is answered sees what it did in the status.
                self.publish(now, &mut core);
                self.answer(&mut core.outside);
            }
            if let Some(why) = core.driver.stopped() {
                self.fail(why.to_owned());
                return self.publish(now, &mut core);
            }
        }
        self.publish(self.shared.now(), &mut core);
        // There may be more, but others are to have their turn first.
        self.shared.signal.notify_one();
    }

    /// Puts everything that has happened into the inbox of the driver.
    fn gather(&self, core: &mut Core) {
        core.inbox.append(&mut self.inbox.borrow_mut());
        self.accept(core);
        if let Network::Local(link) = &core.outside.network {
            core.inbox.extend(link.receive().into_iter().map(Input::Packet));
        }
        core.inbox
            .extend(core.outside.dropped.drain(..).map(Input::SendDropped));
        if let Some(worker) = &core.outside.worker {
            core.inbox.extend(worker.done().into_iter().map(Input::Machine));
        }
        let answers = core.outside.asking.done().into_iter();
        core.inbox.extend(answers.map(Input::Machine));
        let pieces = core.outside.reading.done().into_iter();
        core.inbox
            .extend(pieces.map(|(source, piece)| Input::State { source, piece }));
        while let Some(event) = core.outside.log.poll() {
            core.inbox.push(Input::Log(event));
        }
    }

    /// Takes in what clients have asked.
    fn accept(&self, core: &mut Core) {
        self.shared.take(&mut core.submissions);
        for Submission {
            ask,
            deadline,
            waiter,
        } in core.submissions.drain(..)
        {
            let token = core.outside.calls.add(waiter);
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
                    core.outside.once.append(held);
                }
                ask => core.inbox.push(Input::Request(Request { token, deadline, ask })),
            }
        }
    }

    /// Tells those who were answered in this turn.
    fn answer(&self, outside: &mut Outside) {
        for (waiter, reply) in outside.replies.drain(..) {
            self.shared.answer(waiter, reply);
        }
    }

    /// Tells everyone who waits that this node will not answer.
    fn answer_all(&self, outside: &mut Outside, why: &str) {
        tracing::debug!(why, waiting = outside.calls.len(), "answering everyone who waits");
        for (token, failure) in outside.once.give_up() {
            outside.answers.push((token, Reply::Failed(failure)));
        }
        outside.settle();
        self.answer(outside);
        for waiter in outside.calls.drain() {
            let failure = if waiter.is_append {
                Failure::Unknown("the node stopped or paused before it was answered")
            } else {
                Failure::Stopped
            };
            self.shared.answer(waiter, Reply::Failed(failure));
        }
    }

    fn publish(&self, now: Time, core: &mut Core) {
        let mut status = self.shared.status();
        status.see(&core.driver);
        if core.links_seen == Time::ZERO || now.since(core.links_seen) > LINKS_AGE {
            core.links_seen = now;
            let members = core.driver.consensus().configuration().members();
            status.see_links(links(&core.outside.network, &members, core.outside.identity.node));
        }
    }
}

/// Where the transport delivers. It does not keep the node alive.
struct Door(Weak<Replica>);

impl Sink for Door {
    fn deliver(&self, event: TransportEvent) {
        let Some(replica) = self.0.upgrade() else { return };
        let mut inbox = replica.inbox.borrow_mut();
        match event {
            TransportEvent::Packet(packet) => inbox.push(Input::Packet(packet)),
            TransportEvent::Dropped(peer) => inbox.push(Input::SendDropped(peer)),
            TransportEvent::Gone(peer) => inbox.push(Input::PeerGone(peer)),
            TransportEvent::Connected(peer, _) => {
                tracing::info!(node = %replica.shared.node, %peer, "connected")
            }
            TransportEvent::Disconnected(peer, why) => {
                tracing::info!(node = %replica.shared.node, %peer, why, "disconnected");
            }
        }
    }

    fn settle(&self) {
        if let Some(replica) = self.0.upgrade() {
            replica.run();
            if replica.wants_loop() {
                replica.shared.signal.notify_one();
            }
        }
    }
}

impl Outside {
    /// Finds those whose answers these are. Whoever is not there was answered when the node was paused.
    fn settle(&mut self) {
        for (token, reply) in self.answers.drain(..) {
            if let Some(waiter) = self.calls.remove(token) {
                self.replies.push((waiter, reply));
            }
        }
    }
}

impl Ports for Outside {
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

    fn snapshot(&mut self, _: GroupId, command: SnapshotCommand) {
        if matches!(command, SnapshotCommand::Begin(_) | SnapshotCommand::Abandon) {
            self.reading.end();
        }
        self.log.snapshot(command);
    }

    fn retry_room(&mut self) {
        self.log.retry_room();
    }

    fn send(&mut self, group: GroupId, to: NodeId, message: PeerMessage) {
        let Identity {
            node: from,
            incarnation,
            ..
        } = self.identity;
        let packet = Packet {
            group,
            from,
            incarnation,
            to,
            message,
        };
        match &self.network {
            Network::Quic(transport) => transport.send(&packet),
            Network::Local(link) => {
                if !link.send(packet) {
                    self.dropped.push(to);
                }
            }
            Network::None => {}
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

    fn note(&mut self, _group: GroupId, note: &Note) {
        let node = self.identity.node;
        match note {
            Note::Role { term, role, leader } => {
                let leader = leader.map_or(0, |leader| leader.0);
                tracing::info!(%node, %term, ?role, leader, "role");
            }
            Note::SteppedDown(why) => tracing::warn!(%node, why, "stepped down"),
            other => tracing::debug!(%node, note = ?other, "note"),
        }
    }
}

/// Waits for the signal, or for the timer if there is one; true if that has rung.
///
/// Where nothing has to be waited for, the network gets its turn all the same: a signal that is there again each time, as
/// when clients ask without a pause, would otherwise keep this thread from every packet and every timer of the transport.
async fn woken(signal: &Notify, mut timer: Option<Pin<&mut Sleep>>) -> bool {
    let mut signal = pin!(signal.notified());
    let mut waited = false;
    let rung = poll_fn(|context| {
        let rung = timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        if rung || signal.as_mut().poll(context).is_ready() {
            return Poll::Ready(rung);
        }
        waited = true;
        Poll::Pending
    })
    .await;
    if !waited {
        yield_now().await;
    }
    rung
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        runtime::{self, LocalOptions},
        task::spawn_local,
    };

    #[test]
    fn the_network_has_its_turn_however_often_clients_ask() {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let turns = Rc::new(Cell::new(0));
        let count = turns.clone();
        runtime.block_on(async move {
            spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    yield_now().await;
                }
            });
            let asks = spawn_local(async {
                let signal = Notify::new();
                for _ in 0..100 {
                    signal.notify_one();
                    assert!(!woken(&signal, None).await);
                }
            });
            asks.await.unwrap();
        });
        assert!(turns.get() >= 50, "{} turns", turns.get());
    }

    #[test]
    fn a_timer_rings_whether_there_is_a_signal_or_not() {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let signal = Notify::new();
            assert!(woken(&signal, Some(pin!(sleep_until(Instant::now())))).await);
            let mut timer = pin!(sleep_until(Instant::now()));
            signal.notify_one();
            while !woken(&signal, Some(timer.as_mut())).await {
                signal.notify_one();
            }
        });
    }
}
