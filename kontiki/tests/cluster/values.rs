//! Values of a program that are hard to carry: nested deeply, of unstable order, or of a type that postcard cannot decode.

use crate::common::{PATIENCE, Scratch, durable, eventually, in_memory_with, shut_down};
use kontiki::{At, Code, Config, Consistency, LogOnly, Outcome, RaftNode, Raw, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

#[derive(Serialize, Deserialize, Debug)]
enum Chain {
    End,
    Link(Box<Chain>),
}

impl Chain {
    fn of(links: usize) -> Self {
        (0..links).fold(Self::End, |chain, _| Self::Link(Box::new(chain)))
    }

    /// Takes it apart without recursion.
    fn links(mut self) -> u64 {
        let mut links = 0;
        while let Self::Link(next) = self {
            self = *next;
            links += 1;
        }
        links
    }
}

/// Counts links.
struct Links(u64);

impl StateMachine for Links {
    type Command = Chain;
    type Output = u64;
    type Query = Chain;
    type Answer = u64;

    fn apply(&mut self, _: &At, chain: Chain) -> u64 {
        self.0 += chain.links();
        self.0
    }

    fn query(&self, chain: Chain) -> u64 {
        self.0 + chain.links()
    }
}

#[test]
fn a_deeply_nested_command_is_refused_at_the_caller_and_every_node_goes_on() {
    let start = |mut config: Config| {
        config.request_timeout = PATIENCE;
        let node = RaftNode::with_machine(config, Links(0)).unwrap();
        node.start().unwrap().blocking()
    };
    let nodes: Vec<_> = Config::in_memory(3).unwrap().into_iter().map(start).collect();
    assert_eq!(nodes[0].apply(Chain::of(20)).unwrap().output, 20);
    let deep = Chain::of(15_000);
    let error = nodes[0].apply(&deep).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::NotRoundTrip, Outcome::NotApplied)
    );
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    // A query need not come back; the thread that decodes it refuses it.
    let error = nodes[1].query(&deep, Consistency::Linearizable).unwrap_err();
    assert_eq!(error.code(), Code::Query);
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    deep.links();
    for node in &nodes {
        assert_eq!(node.query(Chain::of(1), Consistency::Linearizable).unwrap(), 21);
    }
    for node in &nodes {
        node.shutdown().unwrap();
    }
}

#[test]
fn hash_maps_are_accepted_whatever_their_order() {
    let nodes = in_memory_with::<(HashMap<String, u32>, HashSet<u64>)>(|_| {});
    for size in 0..30u32 {
        let map: HashMap<_, _> = (0..size).map(|n| (format!("k{n}"), n)).collect();
        let set = (0..size.into()).collect();
        let entry = (map, set);
        let at = nodes[0].append(&entry).unwrap();
        let read = nodes[1]
            .read(at.first..=at.last, Consistency::Linearizable)
            .unwrap();
        assert_eq!(read.entries[0].value, entry);
    }
    shut_down(&nodes);
}

#[test]
fn entries_are_given_owned_borrowed_or_as_what_they_are_made_of() {
    let nodes = in_memory_with::<String>(|_| {});
    let owned = "owned".to_owned();
    nodes[0].append(&owned).unwrap();
    nodes[0].append(owned).unwrap();
    nodes[0].append("text").unwrap();
    shut_down(&nodes);
    let nodes = in_memory_with::<Raw>(|_| {});
    nodes[0].append("text").unwrap();
    nodes[0].append(&b"slice"[..]).unwrap();
    nodes[0].append(vec![1, 2]).unwrap();
    nodes[0].append(Raw::default()).unwrap();
    let read = nodes[0].read(1.., Consistency::Linearizable).unwrap();
    let lengths: Vec<_> = read.entries.iter().map(|entry| entry.value.0.len()).collect();
    assert_eq!(lengths, [4, 5, 2, 0]);
    shut_down(&nodes);
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Number { n: u32 },
}

#[test]
fn a_type_that_can_never_be_decoded_is_refused_before_the_node_starts() {
    let config = || Config::in_memory(1).unwrap().remove(0);
    let error = RaftNode::<LogOnly<Tagged>>::new(config()).unwrap_err();
    assert_eq!(error.code(), Code::NotRoundTrip);
    assert!(
        error.to_string().contains("Tagged") && error.to_string().contains("serde_json::Value"),
        "{error}"
    );

    struct Tags;
    impl StateMachine for Tags {
        type Command = u8;
        type Output = Option<u8>;
        type Query = ();
        type Answer = Tagged;

        fn apply(&mut self, _: &At, _: u8) -> Option<u8> {
            None
        }

        fn query(&self, (): ()) -> Tagged {
            Tagged::Number { n: 1 }
        }
    }
    let error = RaftNode::with_machine(config(), Tags).unwrap_err();
    assert_eq!(error.code(), Code::NotRoundTrip);
}

mod first {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Pair {
        pub(super) a: u8,
        pub(super) b: u8,
    }
}

/// The pair of the first schema with its fields swapped: the same bytes mean something else.
#[derive(Serialize, Deserialize)]
struct Pair {
    b: u8,
    a: u8,
}

/// Remembers what `a` was.
struct Pairs(Vec<u8>);

impl StateMachine for Pairs {
    type Command = Pair;
    type Output = ();
    type Query = ();
    type Answer = Vec<u8>;

    fn decode(&self, at: &At, bytes: &[u8]) -> Result<Pair, String> {
        match at.schema {
            0 => kontiki::decode(bytes).map(|first::Pair { a, b }| Pair { b, a }),
            1 => kontiki::decode(bytes),
            later => Err(format!("schema {later} is of a later program")),
        }
    }

    fn apply(&mut self, _: &At, pair: Pair) {
        self.0.push(pair.a);
    }

    fn query(&self, (): ()) -> Vec<u8> {
        self.0.clone()
    }
}

fn with_schema(scratch: &Scratch, schema: u32) -> Config {
    let mut config = Config::loopback(1, scratch.path()).unwrap().remove(0);
    (config.request_timeout, config.schema) = (PATIENCE, schema);
    config
}

#[test]
fn a_machine_converts_commands_of_an_earlier_schema_and_refuses_those_of_a_later_one() {
    let scratch = Scratch::new();
    let log = RaftNode::<LogOnly<first::Pair>>::new(with_schema(&scratch, 0)).unwrap();
    let log = log.start().unwrap().blocking();
    log.append(first::Pair { a: 1, b: 2 }).unwrap();
    log.shutdown().unwrap();

    let pairs = |schema| RaftNode::with_machine(with_schema(&scratch, schema), Pairs(Vec::new())).unwrap();
    let node = pairs(1).start().unwrap().blocking();
    node.apply(Pair { a: 3, b: 4 }).unwrap();
    assert_eq!(node.query((), Consistency::Linearizable).unwrap(), [1, 3]);
    node.shutdown().unwrap();

    let log = RaftNode::<LogOnly<Raw>>::new(with_schema(&scratch, 2)).unwrap();
    let log = log.start().unwrap().blocking();
    log.append(Raw(vec![5, 6].into())).unwrap();
    let read = log.read(1.., Consistency::Linearizable).unwrap();
    let schemas: Vec<_> = read.entries.iter().map(|entry| entry.schema).collect();
    assert_eq!(schemas, [0, 1, 2]);
    log.shutdown().unwrap();

    let node = pairs(1).start().unwrap().blocking();
    let error = node.query((), Consistency::Linearizable).unwrap_err();
    assert_eq!(error.code(), Code::Stopped);
    let named = |why: String| why.contains("entry 3") && why.contains("schema 2");
    eventually("the entry and its schema are named", || {
        node.status().stopped.is_some_and(named)
    });
}

#[test]
fn a_log_is_read_as_another_type_with_an_error_that_names_the_entry() {
    let scratch = Scratch::new();
    let nodes = durable::<String>(scratch.path());
    nodes[0].append("four".to_owned()).unwrap();
    shut_down(&nodes);
    let nodes = durable::<(u8, u8)>(scratch.path());
    let error = nodes[0].read(1.., Consistency::Linearizable).unwrap_err();
    assert_eq!(error.code(), Code::Decode);
    assert!(error.to_string().contains("entry 1"), "{error}");
    shut_down(&nodes);
}
