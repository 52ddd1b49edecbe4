//! What callers who are alone are promised, and what becomes of the others.

use super::*;
use crate::{
    Append, Appended, BlockingHandle, Config, Error, Handle, LogOnly, RaftNode, Role,
    memory::Broken,
    node::{open_local, shared_of},
    owner::Node,
    replica::Replica,
    shared::{Order, Shared},
    turns::Next,
};
use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes on a machine that works at all.
const PATIENCE: Duration = Duration::from_secs(60);

impl LocalNode {
    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

/// A node whose raft thread never runs: only callers give it turns, and the test in place of that thread.
struct Still {
    handle: Handle<String>,
    shared: Arc<Shared>,
    node: Arc<LocalNode>,
    replica: Rc<Replica<Arc<LocalNode>>>,
}

struct Cluster {
    network: Arc<LocalNetwork>,
    /// The leader is the first.
    nodes: Vec<Still>,
}

fn still(config: Config, network: &Arc<LocalNetwork>) -> Still {
    let shared = shared_of(&config);
    let replica = open_local(config, None, &shared, network).unwrap();
    let node = lock(&network.nodes)[&shared.node].clone();
    let handle = Handle::of(Node::new(shared.clone(), thread::spawn(|| {})));
    Still {
        handle,
        shared,
        node,
        replica,
    }
}

/// Three nodes with a leader, in which the caller with the waker that does nothing is alone.
fn cluster() -> Cluster {
    let configs = Config::in_memory(3).unwrap();
    let network = configs[0].memory.clone().unwrap();
    let mut nodes: Vec<Still> = configs.into_iter().map(|c| still(c, &network)).collect();
    let began = Instant::now();
    let leads = |node: &Still| node.handle.status().role == Role::Leader;
    while !nodes.iter().any(leads) {
        assert!(began.elapsed() < PATIENCE, "no node leads");
        thread::sleep(Duration::from_millis(5));
        nodes.iter().for_each(|node| node.node.carry());
    }
    let leader = nodes.iter().position(leads).unwrap();
    nodes.swap(0, leader);
    let cluster = Cluster { network, nodes };
    for at in 0..3 {
        for _ in 0..2 {
            let mut append = cluster.append(at);
            cluster.finish(&mut append).unwrap();
        }
    }
    cluster
}

impl Cluster {
    fn append(&self, at: usize) -> Append {
        self.nodes[at].handle.append("x".to_owned())
    }

    /// Gives turns as the raft threads would, until there is an answer.
    fn finish(&self, append: &mut Append) -> Result<Appended, Error> {
        let began = Instant::now();
        loop {
            if let Poll::Ready(result) = polled(append) {
                return result;
            }
            assert!(began.elapsed() < PATIENCE, "no answer");
            self.nodes.iter().for_each(|node| node.node.carry());
            thread::yield_now();
        }
    }

    fn last(&self, at: usize) -> u64 {
        self.nodes[at].handle.status().last
    }
}

/// Polls with the waker that does nothing; again if only others were to have their turn.
fn polled(append: &mut Append) -> Poll<Result<Appended, Error>> {
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = || Pin::new(&mut *append).poll(&mut context);
    match poll() {
        Poll::Pending => poll(),
        ready => ready,
    }
}

fn is_answered(mut append: Append) -> bool {
    matches!(polled(&mut append), Poll::Ready(Ok(_)))
}

#[test]
fn a_caller_who_is_alone_needs_no_raft_thread() {
    let cluster = cluster();
    for at in 0..3 {
        let before = cluster.last(at);
        for n in 1..=200 {
            assert!(is_answered(cluster.append(at)), "append {n} at node {at}");
            assert_eq!(cluster.last(at), before + n);
        }
    }
}

#[derive(Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_raft_thread_wakes_those_whom_one_answered_with_them_does_not() {
    let cluster = cluster();
    let leader = &cluster.nodes[0].node;
    // Its raft thread sleeps, and not for too long.
    assert!(matches!(leader.with(Core::next), Some(Next::Sleep { .. })));
    assert_eq!(leader.with(Core::wants_loop), Some(false));
    // What is asked meanwhile is answered in one turn.
    let held = lock(&leader.core);
    let counts = [(); 3].map(|()| Arc::<Count>::default());
    let mut appends = [(); 3].map(|()| cluster.append(0));
    for (append, count) in appends.iter_mut().zip(&counts) {
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(append).poll(&mut context).is_pending());
    }
    drop(held);
    let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
    leader.carry();
    assert_eq!(woken(), [1, 0, 0]);
    assert_eq!(leader.with(Core::wants_loop), Some(true));
    assert!(matches!(leader.with(Core::next), Some(Next::Wake)));
    leader.with(Core::wake_rest);
    assert_eq!(woken(), [1, 1, 1]);
    assert!(matches!(leader.with(Core::next), Some(Next::Sleep { .. })));
}

#[test]
fn reads_are_carried_through_like_appends() {
    let cluster = cluster();
    for Still { handle, .. } in &cluster.nodes {
        for _ in 0..3 {
            let mut read = pin!(handle.read(1..3, crate::Consistency::Linearizable));
            let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(read) = polled else {
                panic!("no answer")
            };
            assert_eq!(read.unwrap().entries.len(), 2);
        }
    }
}

#[test]
fn whoever_waits_for_what_is_to_come_is_nobody_who_asks() {
    let cluster = cluster();
    let mut tail = pin!(cluster.nodes[0].handle.tail(100));
    let polled = futures_core::Stream::poll_next(tail.as_mut(), &mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    cluster.nodes[0].node.carry();
    assert!(is_answered(cluster.append(0)));
}

#[test]
fn nodes_whose_lock_is_held_are_woken_instead() {
    let cluster = cluster();
    let [leader, first, second] = [0, 1, 2].map(|at| &cluster.nodes[at].node);
    let wakes = [leader.wakes(), first.wakes(), second.wakes()];
    let held = lock(&first.core);
    assert!(is_answered(cluster.append(0)), "one of three is not needed");
    assert_eq!(first.wakes(), wakes[1] + 1);
    let held_too = lock(&second.core);
    let mut append = cluster.append(0);
    assert!(polled(&mut append).is_pending());
    assert!(second.wakes() > wakes[2]);
    // Their raft threads have been woken; what they do ends in a wake of the leader's.
    drop((held, held_too));
    second.carry();
    assert!(matches!(polled(&mut append), Poll::Ready(Ok(_))));
    cluster.finish(&mut cluster.append(0)).unwrap();
    cluster.finish(&mut cluster.append(0)).unwrap();
    let (held, before) = (lock(&leader.core), leader.wakes());
    let mut append = cluster.append(0);
    assert!(polled(&mut append).is_pending());
    assert_eq!(leader.wakes(), before + 1);
    drop(held);
    leader.carry();
    assert!(matches!(polled(&mut append), Poll::Ready(Ok(_))));
}

#[test]
fn what_is_beyond_the_bound_is_left_to_the_raft_threads() {
    let cluster = cluster();
    let wakes = |at: usize| cluster.nodes[at].node.wakes();
    let [leader, first] = [0, 1].map(|at| cluster.nodes[at].node.clone());
    let before = [wakes(0), wakes(1)];
    let mut due = VecDeque::new();
    for _ in 0..TURNS_MAX {
        due.push_back(leader.clone());
    }
    due.push_back(first);
    // As `carry` does it: the leader's turns use the bound up.
    carry_through(due);
    assert_eq!(wakes(1), before[1] + 1);
    assert!(wakes(0) >= before[0]);
}

#[test]
fn a_raft_thread_that_would_sleep_too_long_is_woken() {
    let cluster = cluster();
    let leader = &cluster.nodes[0].node;
    // Its timer has rung, and is not set anew: it has looked before the turn that the caller gives.
    leader.with(Core::rang);
    let before = leader.wakes();
    assert!(is_answered(cluster.append(0)));
    assert!(leader.wakes() > before, "its timer is to be set");
    let Some(crate::turns::Next::Sleep { until, earlier }) = leader.with(Core::next) else {
        panic!("it has nothing else to do")
    };
    assert!(until.is_some() && earlier);
}

#[test]
fn several_callers_are_left_to_the_raft_threads() {
    struct Other;
    impl Wake for Other {
        fn wake(self: Arc<Self>) {}
    }
    let cluster = cluster();
    let (other, noop) = (Waker::from(Arc::new(Other)), Waker::noop().clone());
    for n in 0..6 {
        let mut append = cluster.append(0);
        let waker = if n % 2 == 0 { &other } else { &noop };
        let first = Pin::new(&mut append).poll(&mut Context::from_waker(waker));
        // Only the first of them cannot be told from who was alone before.
        assert_eq!(first.is_ready(), n == 0, "append {n}");
        let mut answered = first.is_ready();
        while !answered {
            cluster.nodes[0].node.carry();
            answered = Pin::new(&mut append)
                .poll(&mut Context::from_waker(waker))
                .is_ready();
        }
    }
}

#[test]
fn requests_made_at_once_are_left_to_the_raft_threads() {
    let cluster = cluster();
    let mut appends: Vec<Append> = (0..10).map(|_| cluster.append(0)).collect();
    let ready = appends.iter_mut().map(|append| polled(append).is_ready());
    assert_eq!(
        ready.filter(|ready| *ready).count(),
        1,
        "the first cannot know of those to come"
    );
    for append in &mut appends[1..] {
        cluster.finish(append).unwrap();
    }
    let mut appends: Vec<Append> = (0..10).map(|_| cluster.append(0)).collect();
    assert!(appends.iter_mut().all(|append| polled(append).is_pending()));
    for append in &mut appends {
        cluster.finish(append).unwrap();
    }
}

#[test]
fn one_raft_thread_does_the_work_of_all_nodes() {
    let cluster = cluster();
    for at in 0..3 {
        let mut appends: Vec<Append> = (0..10).map(|_| cluster.append(at)).collect();
        appends.iter_mut().for_each(|append| drop(polled(append)));
        assert!(!Place::run(&cluster.nodes[at].node));
        // The first was carried through.
        assert!(appends[1..].iter_mut().all(|append| polled(append).is_ready()));
    }
}

#[test]
fn those_who_were_answered_are_woken_however_much_the_raft_thread_has_to_do() {
    let cluster = cluster();
    let leader = &cluster.nodes[0].node;
    let held = lock(&leader.core);
    let counts = [(); 3].map(|()| Arc::<Count>::default());
    let mut appends = [(); 3].map(|()| cluster.append(0));
    for (append, count) in appends.iter_mut().zip(&counts) {
        let waker = Waker::from(count.clone());
        assert!(
            Pin::new(append)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    drop(held);
    let due = (0..3 * TURNS_MAX)
        .map(|n| cluster.nodes[n % 3].node.clone())
        .collect();
    assert!(!carry_on(leader, due));
    assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [1, 1, 1]);
}

#[test]
fn a_raft_thread_whose_node_is_not_to_go_on_wakes_those_it_owes_a_look() {
    for order in [Order::Pause, Order::Stop] {
        let cluster = cluster();
        let node = &cluster.nodes[1];
        node.shared.order(order);
        let before = cluster.nodes[0].node.wakes();
        let due = VecDeque::from([cluster.nodes[0].node.clone()]);
        assert_eq!(carry_on(&node.node, due), order == Order::Pause);
        assert_eq!(cluster.nodes[0].node.wakes(), before + 1);
    }
}

#[test]
fn a_raft_thread_sees_to_its_own_node_however_much_the_others_have_to_do() {
    let cluster = cluster();
    let [own, busy] = [1, 0].map(|at| cluster.nodes[at].node.clone());
    cluster.nodes[1].shared.order(Order::Abort);
    let due = (0..10 * TURNS_MAX).map(|_| busy.clone()).collect();
    assert!(!carry_on(&own, due));
    assert!(matches!(own.with(Core::next), Some(Next::End(_))));
}

#[test]
fn an_append_whose_future_is_dropped_goes_on() {
    let cluster = cluster();
    let before = cluster.last(0);
    for _ in 0..3 {
        drop(cluster.append(0));
    }
    assert_eq!(cluster.last(0), before + 3);
    assert!(is_answered(cluster.append(0)));
}

/// Asks again, and gives turns, from within the turn in which it is answered.
struct Again {
    handle: Handle<String>,
    nodes: Vec<Arc<LocalNode>>,
    asked: Mutex<Option<Append>>,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.nodes.iter().for_each(LocalNode::carry);
        *lock(&self.asked) = Some(self.handle.append("again".to_owned()));
    }
}

#[test]
fn whoever_is_answered_within_a_turn_may_ask_again_from_there() {
    let cluster = cluster();
    // The one who asks again is alone, at the leader or at another.
    for at in [0, 1] {
        let again = Arc::new(Again {
            handle: cluster.nodes[at].handle.clone(),
            nodes: cluster.nodes.iter().map(|node| node.node.clone()).collect(),
            asked: Mutex::default(),
        });
        let held = lock(&cluster.nodes[0].node.core);
        let mut append = cluster.append(0);
        let waker = Waker::from(again.clone());
        let polled = Pin::new(&mut append).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(held);
        let before = cluster.nodes[0].node.wakes();
        cluster.nodes[0].node.carry();
        cluster.finish(&mut append).unwrap();
        let mut second = lock(&again.asked).take().expect("it has asked again");
        assert!(
            cluster.nodes[0].node.wakes() > before,
            "what it asked is owed a look"
        );
        cluster.finish(&mut second).unwrap();
        cluster.finish(&mut cluster.append(0)).unwrap();
        cluster.finish(&mut cluster.append(0)).unwrap();
    }
}

#[test]
fn a_node_that_is_paused_is_passed_by() {
    let cluster = cluster();
    let before = cluster.last(1);
    cluster.nodes[1].shared.order(Order::Pause);
    assert!(is_answered(cluster.append(0)));
    cluster.nodes[2].shared.order(Order::Pause);
    let mut append = cluster.append(0);
    assert!(polled(&mut append).is_pending());
    assert_eq!(cluster.last(1), before);
    cluster.nodes[1].shared.order(Order::Run);
    cluster.finish(&mut append).unwrap();
    cluster.nodes[0].shared.order(Order::Pause);
    assert!(matches!(
        polled(&mut cluster.append(0)),
        Poll::Ready(Err(Error::Stopped(_)))
    ));
}

#[test]
fn whoever_waits_is_answered_when_the_node_is_paused() {
    let cluster = cluster();
    let held = lock(&cluster.nodes[0].node.core);
    let mut append = cluster.append(0);
    assert!(polled(&mut append).is_pending());
    drop(held);
    cluster.nodes[0].shared.order(Order::Pause);
    cluster.nodes[0].node.carry();
    assert!(matches!(polled(&mut append), Poll::Ready(Err(_))));
}

#[test]
fn a_node_that_breaks_within_a_callers_turn_stops_and_the_caller_does_not() {
    for how in [Broken::Panics, Broken::Fails] {
        let cluster = cluster();
        let disk = |at: usize| lock(&cluster.network.disks)[&cluster.nodes[at].shared.node].clone();
        disk(1).break_it(how);
        assert!(is_answered(cluster.append(0)), "the others are enough");
        let next = cluster.nodes[1].node.with(Core::next);
        assert!(
            matches!(&next, Some(crate::turns::Next::End(end)) if end.by_itself && end.farewell),
            "{next:?}"
        );
        disk(0).break_it(how);
        let before = cluster.nodes[0].node.wakes();
        let mut append = cluster.append(0);
        assert!(
            cluster.nodes[0].node.wakes() > before,
            "its raft thread has to end it"
        );
        let leader = &cluster.nodes[0];
        let Some(crate::turns::Next::End(end)) = leader.node.with(Core::next) else {
            panic!("it goes on")
        };
        crate::blocking::block_on(leader.replica.leave(&end));
        let result = cluster.finish(&mut append);
        assert!(
            matches!(result, Err(Error::Unknown(_) | Error::Stopped(_))),
            "{result:?}"
        );
        assert_eq!(leader.handle.status().role, Role::Fatal);
        assert!(matches!(
            polled(&mut cluster.append(0)),
            Poll::Ready(Err(Error::Stopped(_)))
        ));
    }
}

#[test]
fn a_node_that_has_left_leaves_nothing_with_those_who_hold_on_to_it() {
    let cluster = cluster();
    let end = crate::turns::End::gone();
    crate::blocking::block_on(cluster.nodes[1].replica.leave(&end));
    assert!(lock(&cluster.nodes[1].node.core).is_none());
    assert!(!lock(&cluster.network.nodes).contains_key(&cluster.nodes[1].shared.node));
    cluster.nodes[1].node.carry();
    assert!(is_answered(cluster.append(0)));
}

/// Nodes with raft threads; the leader first.
fn started(change: impl Fn(&mut Config)) -> (Arc<LocalNetwork>, Vec<BlockingHandle<String>>) {
    let configs = Config::in_memory(3).unwrap();
    let network = configs[0].memory.clone().unwrap();
    let start = |mut config: Config| {
        change(&mut config);
        let node = RaftNode::<LogOnly<String>>::new(config).unwrap();
        node.start().unwrap().blocking()
    };
    let mut nodes: Vec<_> = configs.into_iter().map(start).collect();
    nodes
        .iter()
        .for_each(|node| drop(node.wait_ready(PATIENCE).unwrap()));
    let leader = nodes.iter().position(|node| node.status().role == Role::Leader);
    nodes.swap(0, leader.unwrap());
    (network, nodes)
}

#[test]
fn calls_that_wait_wake_next_to_nobody() {
    let (network, nodes) = started(|_| {});
    let wakes = || {
        lock(&network.nodes)
            .values()
            .map(|node| node.wakes())
            .sum::<usize>()
    };
    let before = wakes();
    for _ in 0..1000 {
        nodes[0].append("x".to_owned()).unwrap();
    }
    // By threads it would be three for each.
    let woken = wakes() - before;
    assert!(woken < 1000, "{woken} wakes");
}

#[test]
fn no_request_waits_for_a_timer_however_callers_come_and_go() {
    let pause = Duration::from_secs(2);
    let (_, nodes) = started(|config| {
        config.heartbeat_interval = pause;
        config.election_timeout_min = 2 * pause;
        config.election_timeout_max = 2 * pause + Duration::from_millis(300);
        config.request_timeout = PATIENCE;
    });
    // Now one is alone, now it meets others at the same node and at the two that its turns go to.
    let ask = |node: &BlockingHandle<String>, alone: u32| {
        let (node, end) = (node.clone(), Instant::now() + pause / 2);
        thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            for n in 1..u64::MAX {
                let asked = Instant::now();
                node.append("x".to_owned()).unwrap();
                slowest = slowest.max(asked.elapsed());
                if asked > end {
                    break;
                }
                if n.is_multiple_of(50) {
                    thread::sleep(Duration::from_micros(300) * alone);
                }
            }
            slowest
        })
    };
    // What was slow in a round, and whether the machine stood still in it, so that it proves nothing.
    let round = || {
        let witness = Witness::new();
        let callers = [(0, 1), (0, 3), (1, 2), (2, 4)].map(|(at, alone)| ask(&nodes[at], alone));
        let slow = callers
            .map(|caller| caller.join().unwrap())
            .into_iter()
            .any(|slowest| slowest >= pause / 2);
        (slow, witness.longest_wait() >= pause / 16)
    };
    let (began, mut left_alone) = (Instant::now(), 0);
    loop {
        match round() {
            (false, _) => break,
            (true, false) => left_alone += 1,
            (true, true) => assert!(began.elapsed() < PATIENCE, "a machine that always stands still"),
        }
        assert!(left_alone < 3, "something was left alone");
    }
}

/// A thread that has nothing to do but to be woken, and how late that was at worst.
struct Witness {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Duration>,
}

impl Witness {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = over.clone();
            move || {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let slept = Instant::now();
                    thread::sleep(Duration::from_millis(5));
                    longest = longest.max(slept.elapsed());
                }
                longest
            }
        });
        Self { over, thread }
    }

    fn longest_wait(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
