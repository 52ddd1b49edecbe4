//! The way of an answer from a node to whoever waits for it.
//!
//! To wake a task on a thread that sleeps is a call to the system, and where that thread shares a core with the node's, the
//! core changes hands with each. So of those who are answered together only the first is woken from here: it wakes the
//! others when it takes its answer, on its own thread, where that is cheap as a rule. What it has not done by the time the node's
//! thread looks again ([`Rest`]), that does. Invariants: whoever waits is woken when its answer is there or will never be; nobody
//! waits for another's being polled.

use kontiki_node::{Reply, Token};
use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Gives one answer. Dropping it tells that there will be none.
#[derive(Debug)]
pub(crate) struct Teller(Option<Arc<Slot>>);

/// Waits for one answer. Dropping it gives the answer up.
#[derive(Debug)]
pub(crate) struct Listener(Option<Arc<Slot>>);

/// Those who were answered together with another, and whom that is to wake. Dropping it wakes those it has not.
#[derive(Debug)]
pub(crate) struct Rest(Arc<Slot>);

/// In place of a name: the one who waits has given up.
const GIVEN_UP: u64 = u64::MAX;

#[derive(Debug)]
struct Slot {
    state: Mutex<State>,
    /// The token by which the node knows whoever waits, where it is to hear of it if that gives up: zero as long as it has none.
    name: AtomicU64,
}

/// What whoever gives an answer up leaves behind.
#[derive(Debug)]
pub(crate) enum Left {
    /// The answer, which was there.
    Answer(Reply),
    /// The node still has to be told, by this name.
    Waiting(Token),
    /// Nothing: the node will find out, or has ended.
    Nothing,
}

#[derive(Debug)]
enum State {
    /// There is no answer yet; this is who waits for it.
    Asked(Option<Waker>),
    /// The answer, and whom to wake when it is taken.
    Told(Reply, Vec<Waker>),
    /// It was taken or given up, or there will be none.
    Over,
}

/// An answer that was given, as long as nobody has taken it.
#[derive(Debug)]
pub(crate) struct Given(Weak<Slot>);

impl Given {
    /// Whether it was taken, or nobody waits for it any more.
    pub(crate) fn is_gone(&self) -> bool {
        let slot = self.0.upgrade();
        slot.is_none_or(|slot| !matches!(*slot.lock(), State::Told(..)))
    }

    /// Gives another answer in its place, if it is still there; gives back the one that was.
    pub(crate) fn replace(&self, by: Reply) -> Option<Reply> {
        match &mut *self.0.upgrade()?.lock() {
            State::Told(reply, _) => Some(mem::replace(reply, by)),
            State::Asked(_) | State::Over => None,
        }
    }
}

/// Both ends.
pub(crate) fn answer() -> (Teller, Listener) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State::Asked(None)),
        name: AtomicU64::new(0),
    });
    (Teller(Some(slot.clone())), Listener(Some(slot)))
}

/// Gives several answers; those that nobody waits for any more go to `unheard`.
#[must_use = "the others are woken when it is dropped"]
pub(crate) fn tell_all(
    answers: impl Iterator<Item = (Teller, Reply)>,
    mut unheard: impl FnMut(Reply),
) -> Option<Rest> {
    let mut first: Option<(Arc<Slot>, Waker)> = None;
    let mut others: Vec<Waker> = Vec::new();
    for (mut teller, reply) in answers {
        let Some(slot) = teller.0.take() else { continue };
        let waker = match slot.tell(State::Told(reply, Vec::new())) {
            Ok(Some(waker)) => waker,
            Ok(None) => continue,
            Err(State::Told(reply, _)) => {
                unheard(reply);
                continue;
            }
            Err(_) => continue,
        };
        match &first {
            None => first = Some((slot, waker)),
            // One who waits for several is woken once.
            Some((_, first)) if others.last().unwrap_or(first).will_wake(&waker) => {}
            Some(_) => others.push(waker),
        }
    }
    let (slot, waker) = first?;
    let rest = (!others.is_empty()).then(|| slot.carry(others));
    waker.wake();
    rest
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it whole: nothing is half done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the waiting; who is to be woken for that. If nobody waits, the state comes back.
    fn tell(&self, state: State) -> Result<Option<Waker>, State> {
        let mut now = self.lock();
        match &mut *now {
            State::Asked(waker) => {
                let waker = waker.take();
                *now = state;
                Ok(waker)
            }
            State::Told(..) | State::Over => Err(state),
        }
    }

    /// Lets whoever takes this answer wake others.
    fn carry(self: Arc<Self>, others: Vec<Waker>) -> Rest {
        if let State::Told(_, carried) = &mut *self.lock() {
            *carried = others;
            return Rest(self.clone());
        }
        // It was taken already.
        wake(others);
        Rest(self)
    }

    /// Whatever is there, for good.
    fn take(&self) -> Option<(Reply, Vec<Waker>)> {
        match mem::replace(&mut *self.lock(), State::Over) {
            State::Told(reply, others) => Some((reply, others)),
            State::Asked(_) | State::Over => None,
        }
    }
}

impl Teller {
    /// The answer, once it is given.
    pub(crate) fn given(&self) -> Given {
        Given(self.0.as_ref().map_or_else(Weak::new, Arc::downgrade))
    }

    /// The node knows whoever waits by this token from now on; false if that has given up already.
    pub(crate) fn name(&self, token: Token) -> bool {
        let slot = self.0.as_ref();
        slot.is_none_or(|slot| slot.name.swap(token.0, Ordering::AcqRel) != GIVEN_UP)
    }
}

impl Listener {
    /// Gives the answer up.
    pub(crate) fn give_up(&mut self) -> Left {
        let Some(slot) = self.0.take() else {
            return Left::Nothing;
        };
        // A lock of its own statement: what is left is looked at without it.
        let before = mem::replace(&mut *slot.lock(), State::Over);
        match before {
            State::Told(reply, others) => {
                wake(others);
                Left::Answer(reply)
            }
            State::Asked(_) => match slot.name.swap(GIVEN_UP, Ordering::AcqRel) {
                0 => Left::Nothing,
                token => Left::Waiting(Token(token)),
            },
            State::Over => Left::Nothing,
        }
    }

    /// The answer, or `None` if there will be none.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        let Some(slot) = &self.0 else {
            return Poll::Ready(None);
        };
        if let State::Asked(waiting) = &mut *slot.lock() {
            match waiting {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waiting = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(self.take())
    }

    /// The answer, if it is there.
    pub(crate) fn take(&mut self) -> Option<Reply> {
        let (reply, others) = self.0.take()?.take()?;
        wake(others);
        Some(reply)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.take();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let waker = self.0.take().and_then(|slot| slot.tell(State::Over).ok());
        wake(waker.flatten());
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let others = match &mut *self.0.lock() {
            State::Told(_, others) => mem::take(others),
            State::Asked(_) | State::Over => Vec::new(),
        };
        wake(others);
    }
}

/// With no lock held: a waker may ask again from here.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kontiki_node::Failure;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reply() -> Reply {
        Reply::Failed(Failure::NoLeader)
    }

    /// One that waits for some answers.
    struct Task {
        count: Arc<Count>,
        tellers: Vec<Teller>,
        listeners: Vec<Listener>,
    }

    impl Task {
        fn waiting(answers: usize) -> Self {
            let (tellers, listeners) = (0..answers).map(|_| answer()).unzip();
            let mut task = Self {
                count: Arc::default(),
                tellers,
                listeners,
            };
            assert_eq!(task.poll(), 0);
            task
        }

        /// How many of its answers have come with this.
        fn poll(&mut self) -> usize {
            let waker = Waker::from(self.count.clone());
            let mut context = Context::from_waker(&waker);
            let before = self.listeners.len();
            self.listeners
                .retain_mut(|listener| listener.poll(&mut context).is_pending());
            before - self.listeners.len()
        }

        fn woken(&self) -> usize {
            self.count.0.load(Ordering::Relaxed)
        }
    }

    fn told(tasks: &mut [Task]) -> Option<Rest> {
        let tellers = tasks.iter_mut().flat_map(|task| task.tellers.drain(..));
        tell_all(tellers.map(|teller| (teller, reply())), drop)
    }

    fn woken(tasks: &[Task]) -> Vec<usize> {
        tasks.iter().map(Task::woken).collect()
    }

    #[test]
    fn the_first_wakes_the_others_when_it_takes_its_answer() {
        let mut tasks = [Task::waiting(1), Task::waiting(3), Task::waiting(1)];
        let rest = told(&mut tasks);
        assert_eq!(woken(&tasks), [1, 0, 0]);
        assert_eq!(tasks[0].poll(), 1);
        assert_eq!(
            woken(&tasks),
            [1, 1, 1],
            "once each, however many answers it waits for"
        );
        assert_eq!((tasks[1].poll(), tasks[2].poll()), (3, 1));
        drop(rest);
        assert_eq!(woken(&tasks), [1, 1, 1]);
    }

    #[test]
    fn nobody_waits_for_one_who_is_not_polled() {
        let mut tasks = [Task::waiting(1), Task::waiting(1)];
        let rest = told(&mut tasks);
        assert_eq!(woken(&tasks), [1, 0]);
        drop(rest);
        assert_eq!(woken(&tasks), [1, 1]);
        assert_eq!((tasks[0].poll(), woken(&tasks)), (1, vec![1, 1]));
    }

    #[test]
    fn one_who_gives_its_answer_up_wakes_the_others_too() {
        let mut tasks = [Task::waiting(1), Task::waiting(1)];
        let _rest = told(&mut tasks);
        tasks[0].listeners.clear();
        assert_eq!(woken(&tasks), [1, 1]);
    }

    #[test]
    fn who_does_not_wait_is_not_woken_and_carries_nobody() {
        let mut tasks = [Task::waiting(1), Task::waiting(1), Task::waiting(1)];
        tasks[0].listeners.clear();
        let (teller, mut unasked) = answer();
        tasks[0].tellers.push(teller);
        let rest = told(&mut tasks);
        assert_eq!(woken(&tasks), [0, 1, 0]);
        assert!(unasked.take().is_some());
        assert_eq!((tasks[1].poll(), woken(&tasks)), (1, vec![0, 1, 1]));
        drop(rest);
        assert!(told(&mut [Task::waiting(1)]).is_none(), "nobody else");
    }

    #[test]
    fn giving_up_leaves_the_name_or_the_answer_and_each_once() {
        let (teller, mut listener) = answer();
        assert!(matches!(listener.give_up(), Left::Nothing), "not yet known");
        assert!(!teller.name(Token(7)), "it is found given up");
        let mut unheard = 0;
        assert!(tell_all([(teller, reply())].into_iter(), |_| unheard += 1).is_none());
        assert_eq!(unheard, 1);

        let (teller, mut listener) = answer();
        assert!(teller.name(Token(7)));
        assert!(matches!(listener.give_up(), Left::Waiting(Token(7))));
        assert!(matches!(listener.give_up(), Left::Nothing));
        drop(teller);

        let (teller, mut listener) = answer();
        assert!(teller.name(Token(7)));
        drop(tell_all([(teller, reply())].into_iter(), |_| unheard += 1));
        assert!(matches!(listener.give_up(), Left::Answer(_)));
        assert_eq!(unheard, 1);
    }

    #[test]
    fn an_answer_that_is_not_taken_can_be_replaced() {
        let (teller, mut listener) = answer();
        let given = teller.given();
        assert!(
            given.is_gone() && given.replace(reply()).is_none(),
            "it is not there yet"
        );
        drop(tell_all([(teller, reply())].into_iter(), drop));
        assert!(!given.is_gone());
        let replaced = given.replace(Reply::Failed(Failure::Timeout));
        assert!(matches!(replaced, Some(Reply::Failed(Failure::NoLeader))));
        assert!(matches!(listener.take(), Some(Reply::Failed(Failure::Timeout))));
        assert!(given.is_gone() && given.replace(reply()).is_none());
    }

    #[test]
    fn that_there_will_be_no_answer_is_told_too() {
        let mut task = Task::waiting(1);
        task.tellers.clear();
        assert_eq!((task.woken(), task.poll()), (1, 1));
        let (teller, mut listener) = answer();
        drop(teller);
        assert!(listener.take().is_none());
    }
}
