//! What a node's raft thread and its handles have in common: the queue of requests, the snapshot of its status, and how to
//! tell it to pause or stop.
//!
//! Invariants: every request that was taken is answered exactly once, also when the node stops or its thread panics; the
//! bytes of what was taken and not yet answered never exceed the limit, appends and reads each, so that neither keeps the
//! other out; the thread is woken once for all that waits.

use crate::{
    Error,
    answer::{Left, Listener, Rest, Teller, answer, tell_all},
    local::LocalNode,
    lone::{Asked, Lone},
    readers::{Readers, bytes_of},
    status::Snapshot,
    uptime::Uptime,
};
use kontiki_consensus::{NodeId, Time};
use kontiki_node::{Ask, Failure, Reply};
use kontiki_wire::{ClusterId, Refusal};
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// What a request takes beyond its entries, generously: counted so that many small ones are bounded too.
const REQUEST_BYTES: usize = 256;

/// How long a stopping node may take before it is left to itself.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);

/// Sizes and times that are checked on the caller's thread.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) entry_bytes_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) read_bytes_max: usize,
    pub(crate) request_timeout: Duration,
    /// Whether appends take effect once, in a session of the node.
    pub(crate) sessions: bool,
    /// The schema that is told with each append.
    pub(crate) schema: u32,
}

/// What becomes of the answer to a request. Dropping it gives the answer up; a read or a query is cancelled by that.
#[derive(Debug)]
pub(crate) struct Answer {
    reply: Listener,
    /// Of a read or a query.
    readers: Option<Arc<Readers>>,
    /// That it was asked, where it matters who asks.
    asked: Option<Asked>,
}

impl Answer {
    /// The reply, or `None` if there will be none.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        if self.asked.as_ref().is_some_and(Asked::yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let reply = ready!(self.reply.poll(context));
        if let Some(asked) = self.asked.take() {
            asked.awaited(context.waker());
        }
        if let (Some(readers), Some(reply)) = (self.readers.take(), &reply) {
            readers.takes(bytes_of(reply));
        }
        Poll::Ready(reply)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(readers) = self.readers.take() else {
            return;
        };
        match self.reply.give_up() {
            Left::Answer(reply) => readers.takes(bytes_of(&reply)),
            Left::Waiting(token) => readers.gives_up(token),
            Left::Nothing => {}
        }
    }
}

/// A request on its way to the raft thread.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) ask: Ask,
    pub(crate) deadline: Time,
    pub(crate) waiter: Waiter,
}

/// Whoever waits for an answer. Dropping it tells that there will be none.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) answer: Teller,
    bytes: usize,
    /// Whether the log may have changed when there is no answer.
    pub(crate) is_append: bool,
}

/// What the raft thread is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// Stand still.
    Pause,
    /// Stop, and say goodbye to the peers.
    Stop,
    /// Stop, and say nothing.
    Abort,
}

/// What a node's raft thread and its handles have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) limits: Limits,
    /// Wakes the raft thread.
    pub(crate) signal: Arc<Notify>,
    /// The node within a network of this process, if it is in one, and who asks it.
    local: OnceLock<(Arc<LocalNode>, Lone)>,
    uptime: Uptime,
    queue: Mutex<Queue>,
    appends_bytes: AtomicUsize,
    reads_bytes: AtomicUsize,
    /// Whoever waits for a read or a query.
    pub(crate) readers: Arc<Readers>,
    /// The last entry that anybody was told of.
    seen: AtomicU64,
    status: Mutex<Snapshot>,
    order: Mutex<Order>,
    ordered: Condvar,
    /// Set whenever there is another order than to run.
    attention: AtomicBool,
    /// Why the node stopped; set when nothing is taken any more.
    stopped: watch::Sender<Option<String>>,
    /// The raft thread has ended, and all it owned is closed.
    ended: Mutex<bool>,
    end: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Submission>,
    /// Why nothing is taken any more.
    closed: Option<String>,
    /// Nothing is taken for now.
    paused: bool,
}

impl Shared {
    pub(crate) fn new(node: NodeId, cluster: ClusterId, limits: Limits) -> Self {
        let signal: Arc<Notify> = Arc::default();
        Self {
            node,
            cluster,
            limits,
            readers: Arc::new(Readers::new(signal.clone())),
            signal,
            local: OnceLock::new(),
            uptime: Uptime::start(),
            queue: Mutex::default(),
            appends_bytes: AtomicUsize::new(0),
            reads_bytes: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            status: Mutex::new(Snapshot::new()),
            order: Mutex::new(Order::Run),
            ordered: Condvar::new(),
            attention: AtomicBool::new(false),
            stopped: watch::Sender::new(None),
            ended: Mutex::new(false),
            end: Condvar::new(),
        }
    }

    /// The node is in a network of this process.
    pub(crate) fn join(&self, node: Arc<LocalNode>) {
        // It joins once.
        let _ = self.local.set((node, Lone::default()));
    }

    /// Monotonic time since this node was started, the time included for which the machine slept.
    pub(crate) fn now(&self) -> Time {
        self.uptime.now()
    }

    /// How far away a moment is.
    pub(crate) fn until(&self, moment: Time) -> Duration {
        Duration::from_nanos(moment.since(self.now()).0)
    }

    /// Hands a request to the raft thread, or carries it through on this one if it comes from somebody who is alone.
    pub(crate) fn submit(&self, mut ask: Ask, timeout: Duration) -> Result<Answer, Error> {
        if let Ask::Append { payload, .. } = &mut ask {
            payload.schema = self.limits.schema;
        }
        let waits = matches!(ask, Ask::Read { wait: true, .. });
        let (is_append, payload) = match &ask {
            Ask::Append { payload, .. } => (true, payload.bytes.len()),
            Ask::OpenSession => (true, 0),
            Ask::Query { query, .. } => (false, query.len()),
            Ask::Read { .. } => (false, 0),
        };
        let bytes = payload.saturating_add(REQUEST_BYTES);
        self.take_in(is_append, bytes)?;
        let (answer, reply) = answer();
        let deadline = Time(
            self.now()
                .0
                .saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)),
        );
        let waiter = Waiter {
            answer,
            bytes,
            is_append,
        };
        let first = self.enqueue(Submission {
            ask,
            deadline,
            waiter,
        });
        let first = first.inspect_err(|_| self.let_go(is_append, bytes))?;
        // Whoever waits for what is still to come is not one who asks.
        let local = self.local.get().filter(|_| !waits);
        let asked = local.map(|(node, lone)| (node, lone.ask()));
        match &asked {
            _ if !first => {}
            Some((node, asked)) if asked.is_alone() => node.carry(),
            _ => self.signal.notify_one(),
        }
        let asked = asked.map(|(_, asked)| asked);
        let readers = (!is_append).then(|| self.readers.clone());
        Ok(Answer {
            reply,
            readers,
            asked,
        })
    }

    fn in_flight(&self, is_append: bool) -> &AtomicUsize {
        if is_append {
            &self.appends_bytes
        } else {
            &self.reads_bytes
        }
    }

    fn take_in(&self, is_append: bool, bytes: usize) -> Result<(), Error> {
        let room = |before: usize| {
            let after = before.checked_add(bytes)?;
            (after <= self.limits.in_flight_bytes_max).then_some(after)
        };
        let taken = self
            .in_flight(is_append)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        taken.map(drop).map_err(|_| Error::Overloaded)
    }

    fn let_go(&self, is_append: bool, bytes: usize) {
        self.in_flight(is_append).fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Puts a request into the queue. True if it is the first: then the node is to be given a turn.
    fn enqueue(&self, submission: Submission) -> Result<bool, Error> {
        let mut queue = lock(&self.queue);
        if let Some(why) = &queue.closed {
            return Err(Error::Stopped(why.clone()));
        }
        if queue.paused {
            return Err(Error::Stopped("it is paused".to_owned()));
        }
        let first = queue.waiting.is_empty();
        queue.waiting.push(submission);
        Ok(first)
    }

    /// Takes all requests that wait, into the empty `out`.
    pub(crate) fn take(&self, out: &mut Vec<Submission>) {
        std::mem::swap(&mut lock(&self.queue).waiting, out);
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&self, waiter: &Waiter) {
        self.let_go(waiter.is_append, waiter.bytes);
    }

    /// Answers one.
    pub(crate) fn answer(&self, waiter: Waiter, reply: Reply) {
        drop(self.answer_all(&mut vec![(waiter, reply)]));
    }

    /// Answers several, and leaves the list empty; of those who wait, the rest is woken when what this gives is dropped. What
    /// is counted is written once for all: every caller looks there.
    #[must_use = "the rest is woken when it is dropped"]
    pub(crate) fn answer_all(&self, replies: &mut Vec<(Waiter, Reply)>) -> Option<Rest> {
        let (mut appends, mut reads, mut last, mut given) = (0, 0, 0, 0);
        for (waiter, reply) in &*replies {
            if waiter.is_append {
                appends += waiter.bytes;
            } else {
                reads += waiter.bytes;
                let bytes = bytes_of(reply);
                given += bytes;
                self.readers.watch(bytes, || self.now(), || waiter.answer.given());
            }
            last = tells_of(reply).max(last);
        }
        for (is_append, bytes) in [(true, appends), (false, reads)] {
            if bytes > 0 {
                self.let_go(is_append, bytes);
            }
        }
        // Before the answers: whoever has one asks for no less from then on.
        self.seen.fetch_max(last, Ordering::Relaxed);
        self.readers.gives(given);
        let answers = replies.drain(..).map(|(waiter, reply)| (waiter.answer, reply));
        tell_all(answers, |reply| self.readers.takes(bytes_of(&reply)))
    }

    /// Index of the last entry that an answer has told of.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Takes nothing any more, and answers what still waits. Only the first reason counts.
    pub(crate) fn close(&self, why: &str, by_itself: bool) {
        let mut queue = lock(&self.queue);
        queue.closed.get_or_insert_with(|| why.to_owned());
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for submission in waiting {
            let stopped = Failure::Stopped(why.to_owned().into());
            self.answer(submission.waiter, Reply::Failed(stopped));
        }
        lock(&self.status).stop(why, by_itself);
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    /// Why nothing is taken any more.
    pub(crate) fn closed(&self) -> Option<String> {
        self.stopped.borrow().clone()
    }

    /// Waits until nothing is taken any more.
    pub(crate) async fn stopped(&self) -> String {
        let mut stopped = self.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => String::new(),
        }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Snapshot> {
        lock(&self.status)
    }

    /// Tells the raft thread what to do. An order to stop is never taken back.
    pub(crate) fn order(&self, order: Order) {
        let mut current = lock(&self.order);
        if matches!(*current, Order::Run | Order::Pause) {
            *current = order;
        }
        lock(&self.queue).paused = *current == Order::Pause;
        self.attention.store(*current != Order::Run, Ordering::Release);
        drop(current);
        self.ordered.notify_all();
        self.signal.notify_one();
    }

    /// What the raft thread is to do.
    pub(crate) fn current_order(&self) -> Order {
        if self.attention.load(Ordering::Acquire) {
            *lock(&self.order)
        } else {
            Order::Run
        }
    }

    /// Stands still until there is another order than to pause.
    pub(crate) fn wait_while_paused(&self) {
        let order = lock(&self.order);
        // A poisoned lock only means that another thread panicked while it held it.
        drop(self.ordered.wait_while(order, |order| *order == Order::Pause));
    }

    /// The raft thread has ended.
    pub(crate) fn set_ended(&self) {
        *lock(&self.ended) = true;
        self.end.notify_all();
    }

    /// Waits until the raft thread has ended; false if that takes longer than [`STOP_MAX`].
    pub(crate) fn wait_ended(&self) -> bool {
        let ended = lock(&self.ended);
        match self.end.wait_timeout_while(ended, STOP_MAX, |ended| !*ended) {
            Ok((ended, _)) => *ended,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }
}

/// The last entry that whoever has this answer knows of.
fn tells_of(reply: &Reply) -> u64 {
    match reply {
        Reply::Appended { last, .. } | Reply::Read { last, .. } => last.0,
        Reply::Answered { at, .. } => at.0,
        Reply::Failed(Failure::Refused(Refusal::Mismatch { last, .. } | Refusal::Holds { last, .. })) => {
            last.0
        }
        Reply::Failed(_) | Reply::SessionOpened { .. } => 0,
    }
}

/// A panic elsewhere leaves these whole: nothing is half done under the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_wire::{Codec, Expect, Payload, Session};

    fn shared(in_flight_bytes_max: usize) -> Shared {
        let limits = Limits {
            entry_bytes_max: 1000,
            batch_bytes_max: 1000,
            in_flight_bytes_max,
            read_bytes_max: 1000,
            request_timeout: Duration::from_secs(1),
            sessions: true,
            schema: 0,
        };
        Shared::new(NodeId(1), ClusterId(1), limits)
    }

    fn append() -> Ask {
        Ask::Append {
            payload: Payload::one(bytes::Bytes::from_static(b"x"), Codec::Bytes),
            expect: Expect::Any,
            session: Session::None,
        }
    }

    #[test]
    fn more_than_the_limit_is_refused_until_something_is_answered() {
        let shared = shared(2 * (REQUEST_BYTES + 1));
        let submit = || shared.submit(append(), Duration::from_secs(1));
        let first = submit().unwrap();
        let _second = submit().unwrap();
        assert_eq!(submit().unwrap_err(), Error::Overloaded);
        drop(first);
        assert_eq!(
            submit().unwrap_err(),
            Error::Overloaded,
            "dropping the future of an append cancels nothing"
        );
        let mut taken = Vec::new();
        shared.take(&mut taken);
        shared.answer(taken.remove(0).waiter, Reply::Failed(Failure::NoLeader));
        submit().unwrap();
    }

    #[test]
    fn appends_leave_room_for_reads() {
        let shared = shared(REQUEST_BYTES + 1);
        let _append = shared.submit(append(), Duration::from_secs(1)).unwrap();
        let read = || Ask::Read {
            from: kontiki_consensus::Position(1),
            to: kontiki_consensus::Position(2),
            bytes_max: 1,
            consistency: kontiki_node::Consistency::STALE,
            wait: true,
        };
        let _read = shared.submit(read(), Duration::from_secs(1)).unwrap();
        for ask in [append(), read()] {
            let refused = shared.submit(ask, Duration::from_secs(1));
            assert_eq!(refused.unwrap_err(), Error::Overloaded);
        }
    }

    #[test]
    fn what_answers_have_told_of_is_remembered() {
        let shared = shared(10_000);
        let _answer = shared.submit(append(), Duration::from_secs(1)).unwrap();
        let _answer = shared.submit(append(), Duration::from_secs(1)).unwrap();
        let mut taken = Vec::new();
        shared.take(&mut taken);
        let last = |last| kontiki_consensus::Position(last);
        let (runs, term) = (Vec::new(), kontiki_consensus::Term(1));
        let replies = [
            Reply::Failed(Failure::Refused(Refusal::Mismatch { last: last(7), term })),
            Reply::Read { runs, last: last(5) },
        ];
        for (submission, reply) in taken.into_iter().zip(replies) {
            shared.answer(submission.waiter, reply);
        }
        assert_eq!(shared.seen(), 7);
    }

    #[test]
    fn closing_answers_what_waits_and_refuses_the_rest_with_the_reason() {
        let shared = shared(10_000);
        let mut waiting = shared.submit(append(), Duration::from_secs(1)).unwrap();
        shared.close("the disk failed", true);
        assert!(matches!(
            waiting.reply.take(),
            Some(Reply::Failed(Failure::Stopped(why))) if why == "the disk failed"
        ));
        let error = shared.submit(append(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error, Error::Stopped("the disk failed".into()));
        shared.close("shut down", false);
        assert_eq!(shared.closed().as_deref(), Some("the disk failed"));
        assert_eq!(shared.appends_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_order_to_stop_is_never_taken_back() {
        let shared = shared(10_000);
        shared.order(Order::Pause);
        let refused = shared.submit(append(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(refused, Error::Stopped("it is paused".into()));
        shared.order(Order::Run);
        assert_eq!(shared.current_order(), Order::Run);
        shared.order(Order::Abort);
        shared.order(Order::Stop);
        assert_eq!(shared.current_order(), Order::Abort);
    }
}
