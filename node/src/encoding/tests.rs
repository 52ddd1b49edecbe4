//! Values that come back, values that do not, and values that would take the whole stack.

#![expect(clippy::disallowed_types, reason = "hash maps are what is tried")]

use super::*;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    thread,
};

#[derive(Serialize, Deserialize, Debug)]
enum Chain {
    End,
    Link(Box<Chain>),
}

impl Chain {
    fn of(links: usize) -> Self {
        (0..links).fold(Self::End, |chain, _| Self::Link(Box::new(chain)))
    }

    /// Takes it apart without recursion, as dropping it would.
    fn unlink(mut self) {
        while let Self::Link(next) = self {
            self = *next;
        }
    }
}

/// The same in a list of lists, as JSON would have it.
#[derive(Serialize, Deserialize, Debug)]
struct Tree(Vec<Tree>);

fn chain_bytes(links: usize) -> Vec<u8> {
    let mut bytes = vec![1; links];
    bytes.push(0);
    bytes
}

#[test]
fn deep_nesting_is_refused_before_it_takes_the_stack_of_the_caller() {
    let chain = Chain::of(15_000);
    let why = round_trip(&chain).unwrap_err();
    assert!(
        why.contains("nested too deeply") && why.contains("128 KiB"),
        "{why}"
    );
    chain.unlink();
    let some = round_trip(&Chain::of(20)).unwrap();
    assert_eq!(some[..], chain_bytes(20));
}

#[test]
fn deep_bytes_are_refused_on_a_thread_with_the_smallest_stack() {
    let small = thread::Builder::new().stack_size(2 * DECODE_STACK_BYTES_MAX);
    let tried = small.spawn(|| {
        let chain = decode::<Chain>(&chain_bytes(1_000_000)).map(Chain::unlink);
        let tree = decode::<Tree>(&vec![1; 1_000_000]).map(std::mem::forget);
        (chain.unwrap_err(), tree.unwrap_err())
    });
    let (chain, tree) = tried.unwrap().join().unwrap();
    assert!(chain.contains("nested too deeply"), "{chain}");
    assert!(tree.contains("nested too deeply"), "{tree}");
}

#[test]
fn a_value_accepted_at_the_caller_is_decoded_with_stack_to_spare() {
    // The deepest one that passes.
    let accepted = (1..).take_while(|links| {
        let chain = Chain::of(*links);
        let accepted = round_trip(&chain).is_ok();
        chain.unlink();
        accepted
    });
    let deepest = accepted.last().unwrap();
    let small = thread::Builder::new().stack_size(4 * SUBMIT_STACK_BYTES_MAX);
    let decoded = small.spawn(move || decode::<Chain>(&chain_bytes(deepest)).map(Chain::unlink));
    decoded.unwrap().join().unwrap().unwrap();
}

#[test]
fn hash_maps_and_sets_always_come_back() {
    for size in 0..40u32 {
        let map: HashMap<String, u32> = (0..size).map(|n| (format!("k{n}"), n)).collect();
        let set: HashSet<u32> = map.values().copied().collect();
        let heap: BinaryHeap<u32> = map.values().copied().collect();
        round_trip(&(1u8, map, vec![set])).unwrap();
        round_trip(&heap.into_vec()).unwrap();
    }
}

#[test]
fn a_map_of_unstable_order_has_one_ordered_encoding() {
    let pairs = || (0..20u32).map(|n| (format!("key {n}"), vec![n; 3]));
    let all: HashSet<Bytes> = (0..20)
        .map(|_| encode_ordered(&Some((7u8, pairs().collect::<HashMap<_, _>>()))).unwrap())
        .collect();
    assert_eq!(all.len(), 1);
    let back: Option<(u8, BTreeMap<String, Vec<u32>>)> = decode(all.iter().next().unwrap()).unwrap();
    assert_eq!(back, Some((7, pairs().collect())));
}

#[test]
fn an_ordered_encoding_keeps_the_order_of_a_sequence() {
    let values = (vec![3, 1, 2], [9, 8], "text", Some(1.5f64), 'x', -70_000i64);
    assert_eq!(encode_ordered(&values).unwrap(), encode(&values).unwrap());
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Every {
    Unit,
    New(u128),
    Tuple(u8, String),
    Struct { a: Option<()>, b: (i8, i16, i32) },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Unit;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Pair(f32, bool);

#[test]
fn an_ordered_encoding_is_postcards_for_every_kind_of_value() {
    let every = vec![
        Every::Unit,
        Every::New(1 << 90),
        Every::Tuple(3, "three".into()),
        Every::Struct {
            a: Some(()),
            b: (-1, -300, -70_000),
        },
    ];
    let values = (
        every,
        Unit,
        Pair(0.5, true),
        BTreeMap::from([(1u8, 'a'), (2, 'b')]),
    );
    let ordered = encode_ordered(&values).unwrap();
    assert_eq!(ordered, encode(&values).unwrap());
    assert_eq!(
        decode::<(Vec<Every>, Unit, Pair, BTreeMap<u8, char>)>(&ordered).unwrap(),
        values
    );
}

#[derive(Serialize, Deserialize)]
struct Forgetful {
    #[serde(skip_deserializing)]
    kept: u32,
}

/// Written as (a, b) and read as (b, a).
#[derive(Deserialize)]
struct Swapped {
    b: u8,
    a: u8,
}

impl Serialize for Swapped {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.a, self.b).serialize(serializer)
    }
}

#[test]
fn values_that_come_back_as_others_are_refused_every_time() {
    for n in 1..50 {
        assert!(round_trip(&Forgetful { kept: n }).is_err());
        assert!(round_trip(&Swapped { a: 0, b: n as u8 }).is_err());
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    A { n: u32 },
}

#[derive(Serialize, Deserialize)]
struct Within {
    number: u32,
    inner: Option<u8>,
    tagged: Tagged,
}

#[test]
fn a_type_that_needs_a_format_that_describes_itself_is_named_before_it_is_used() {
    for refused in [
        check_type::<Tagged>(),
        check_type::<Within>(),
        check_type::<IgnoredAny>(),
    ] {
        let why = refused.unwrap_err();
        assert!(why.contains("serde_json::Value"), "{why}");
    }
    check_type::<Chain>().unwrap();
    check_type::<Tree>().unwrap();
    check_type::<(Every, std::num::NonZeroU8, HashMap<String, Vec<u8>>)>().unwrap();
}
