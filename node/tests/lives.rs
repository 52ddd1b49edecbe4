//! Which lives of its peers a driver believes, from the outside.

use kontiki_consensus::{
    Call, Config, Configuration, GroupId, Incarnation, LogId, Message, NodeId, Note, Restored, Term, Time,
    Write,
};
use kontiki_log::{Fetch, LogEvent, SnapshotCommand};
use kontiki_node::{
    CompareConfig, Driver, DriverConfig, Greeting, Input, Ports, Reply, SnapshotConfig, Token,
    machine::{Asked, Restore, Source, Task},
};
use kontiki_wire::{
    ClusterId, Identity, Life, Packet, PeerMessage, SessionLimits, StartId,
    lives::{Lives, Refused},
};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// What the driver wanted done.
#[derive(Default)]
struct Wanted {
    lives: Vec<Lives>,
    refused: Vec<(NodeId, StartId, String)>,
    messages: Vec<PeerMessage>,
}

impl Ports for Wanted {
    fn persist(&mut self, _: GroupId, _: Write) {}
    fn fetch(&mut self, _: GroupId, fetch: Fetch) {
        panic!("{fetch:?}");
    }
    fn snapshot(&mut self, _: GroupId, command: SnapshotCommand) {
        panic!("{command:?}");
    }
    fn retry_room(&mut self) {}
    fn send(&mut self, _: GroupId, _: NodeId, message: PeerMessage) {
        self.messages.push(message);
    }
    fn work(&mut self, _: GroupId, task: Task) {
        panic!("{task:?}");
    }
    fn restore(&mut self, _: GroupId, restore: Restore) {
        panic!("{restore:?}");
    }
    fn read_state(&mut self, _: GroupId, source: Source) {
        panic!("{source:?}");
    }
    fn query(&mut self, _: GroupId, asked: Asked) {
        panic!("{asked:?}");
    }
    fn withdraw_queries(&mut self, _: GroupId, queries: &[u64]) {
        panic!("{queries:?}");
    }
    fn answers_held(&mut self, _: usize) -> usize {
        0
    }
    fn keep_lives(&mut self, lives: Lives) {
        self.lives.push(lives);
    }
    fn refuse(&mut self, peer: NodeId, start: StartId, why: &str) {
        self.refused.push((peer, start, why.to_owned()));
    }
    fn reply(&mut self, _: Token, _: Reply) {}
    fn note(&mut self, _: GroupId, _: &Note) {}
}

/// Node 1 of three, which has just started.
struct Node {
    driver: Driver,
    wanted: Wanted,
    now: u64,
}

impl Node {
    fn new(lives: Lives) -> Self {
        let config = DriverConfig {
            group: GroupId::default(),
            identity: Identity {
                cluster: ClusterId(5),
                node: ONE,
                incarnation: Incarnation(1),
            },
            lives,
            consensus: Config::new(ONE),
            in_flight_bytes_max: 1 << 20,
            payload_bytes_max: 4 << 10,
            sessions: SessionLimits::default(),
            compare: CompareConfig { interval: None },
            snapshots: SnapshotConfig::default(),
        };
        let members = Configuration::of_voters([ONE, TWO, NodeId(3)]);
        let restored = Restored {
            configurations: vec![(kontiki_consensus::Index::ZERO, members)],
            ..Restored::default()
        };
        let driver = Driver::new(config, restored, 1, Time::ZERO);
        let (wanted, now) = (Wanted::default(), 0);
        Self { driver, wanted, now }
    }

    fn take(&mut self, input: Input) {
        self.now += 1;
        self.driver
            .turn(Time(self.now), 0, &mut vec![input], &mut self.wanted);
    }

    /// Node 2 greets in this life.
    fn greet(&mut self, incarnation: u64, life: Life) {
        self.take(Input::Greeted(Box::new(Greeting {
            peer: TWO,
            incarnation: Incarnation(incarnation),
            life,
        })));
    }

    /// How many answers a question of this start of node 2 gets.
    fn answers(&mut self, start: StartId) -> usize {
        let before = self.wanted.messages.len();
        let message = Message {
            from: TWO,
            to: ONE,
            term: Term(1),
            call: Call::RequestVote {
                pre: true,
                transfer: false,
                last: LogId::default(),
            },
        };
        self.take(Input::Packet(Packet {
            group: GroupId::default(),
            from: TWO,
            start,
            to: ONE,
            message: PeerMessage::Raft(message),
        }));
        self.wanted.messages.len() - before
    }

    /// All that it wanted to keep is on disk; gives that.
    fn keep(&mut self) -> Lives {
        let lives = self.wanted.lives.pop().expect("something to keep");
        self.take(Input::Log(LogEvent::LivesKept(lives.version)));
        lives
    }
}

/// The life with this number; its start has it too, times ten.
fn life(number: u64) -> Life {
    (1..=number).fold(Life::default(), |life, n| life.next(StartId(n * 10)))
}

#[test]
fn a_peer_is_heard_once_its_life_is_on_disk_and_not_before() {
    let mut one = Node::new(Lives::default());
    assert_eq!(one.answers(StartId(10)), 0, "it has not greeted");
    one.greet(7, life(1));
    assert_eq!(one.answers(StartId(10)), 0, "its life is not on disk");
    one.take(Input::Log(LogEvent::LivesKept(0)));
    assert_eq!(one.answers(StartId(10)), 0, "what is on disk does not tell of it");
    let kept = one.keep();
    assert_eq!(one.answers(StartId(10)), 1);
    let mut later = Node::new(kept);
    assert_eq!(later.answers(StartId(10)), 1, "it was known before the restart");
}

#[test]
fn a_peer_that_began_another_life_is_heard_in_that_alone() {
    let mut one = Node::new(Lives::default());
    one.greet(7, life(1));
    one.keep();
    one.greet(7, life(2));
    assert_eq!((one.answers(StartId(10)), one.answers(StartId(20))), (0, 0));
    one.keep();
    assert_eq!((one.answers(StartId(10)), one.answers(StartId(20))), (0, 1));
    let (peer, start, why) = one.wanted.refused.pop().expect("the life before ends");
    assert_eq!((peer, start), (TWO, StartId(10)));
    assert!(why.contains("begun life 2"), "{why}");
}

#[test]
fn a_directory_made_anew_an_old_copy_and_a_second_process_are_refused_after_a_restart_too() {
    let mut one = Node::new(Lives::default());
    one.greet(7, life(3));
    let kept = one.keep();
    let twice = life(2).next(StartId(31));
    let cases = [
        (8, life(1), "made anew"),
        (7, life(2), "an old copy was put back"),
        (7, twice, "twice"),
        (7, twice.next(StartId(40)), "does not follow"),
    ];
    for (incarnation, life, words) in cases {
        let mut one = Node::new(kept.clone());
        one.greet(incarnation, life);
        assert_eq!(one.answers(life.start), 0);
        assert!(one.wanted.lives.is_empty(), "what is known stays");
        let (_, start, why) = one.wanted.refused.pop().expect("a refusal");
        assert!(start == life.start && why.contains(words), "{why}");
        let told: Vec<_> = one.driver.refused_peers().collect();
        assert_eq!(told, [(TWO, why.as_str())]);
        assert_eq!(
            one.answers(StartId(30)),
            1,
            "the one that is known is heard as before"
        );
    }
}

#[test]
fn a_node_that_is_refused_stops_and_marks_its_directory() {
    let mut one = Node::new(Lives::default());
    one.take(Input::RefusedBy {
        peer: TWO,
        why: "an old copy was put back".into(),
    });
    assert_eq!(one.driver.stopped(), None, "not before the mark is on disk");
    let marked = one.keep();
    let stopped = one.driver.stopped().expect("it stops").to_owned();
    assert!(
        stopped.contains("node 2 refuses this node, saying: an old copy was put back"),
        "{stopped}"
    );
    let by = Refused {
        by: TWO,
        why: "an old copy was put back".into(),
    };
    assert_eq!(marked.refused, Some(by));
}
