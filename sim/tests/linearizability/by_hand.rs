//! Good and bad histories, each with a name.

use super::{DONE, NO, YES, bad, cas, did, found, good, on, unknown};
use kontiki_sim::linearizability::{Answer, History, Op, Verdict, check};

#[test]
fn nothing_at_all() {
    good([]);
    good([unknown(1, 0, Op::Get), unknown(1, 1, Op::Put(1))]);
}

#[test]
fn one_after_another() {
    good([
        did(1, 0, 1, Op::Get, Answer::found(None)),
        did(1, 2, 3, Op::Put(5), DONE),
        did(1, 4, 5, Op::Increment(2), Answer::sum(7)),
        did(1, 6, 7, cas(Some(6), 1), NO),
        did(1, 8, 9, cas(Some(7), 1), YES),
        did(1, 10, 11, Op::Get, found(1)),
        did(1, 12, 13, Op::Delete, YES),
        did(1, 14, 15, Op::Delete, NO),
        did(1, 16, 17, cas(None, 3), YES),
        did(1, 18, 19, Op::Get, found(3)),
    ]);
}

#[test]
fn increments_start_from_nothing_and_wrap_around() {
    good([
        did(1, 0, 1, Op::Increment(3), Answer::sum(3)),
        did(1, 2, 3, Op::Put(i64::MAX), DONE),
        did(1, 4, 5, Op::Increment(1), Answer::sum(i64::MIN)),
    ]);
}

#[test]
fn concurrent_and_everything_fine() {
    good([
        did(1, 0, 50, Op::Put(1), DONE),
        did(2, 5, 60, Op::Put(2), DONE),
        did(3, 10, 40, Op::Get, found(2)),
        did(4, 12, 70, cas(Some(1), 4), YES),
        did(5, 45, 65, Op::Get, found(1)),
        did(3, 61, 80, Op::Increment(1), Answer::sum(5)),
        did(2, 75, 90, Op::Get, found(5)),
    ]);
}

#[test]
fn a_stale_read() {
    let why = bad([
        did(1, 0, 1, Op::Put(1), DONE),
        did(1, 2, 3, Op::Put(2), DONE),
        did(2, 4, 5, Op::Get, found(1)),
    ]);
    assert_eq!(why.culprit, did(2, 4, 5, Op::Get, found(1)));
    assert_eq!((why.prefix.len(), why.state), (2, Some(2)));
    assert_eq!(why.window, []);
}

#[test]
fn a_stale_read_of_nothing() {
    bad([
        did(1, 0, 1, Op::Put(1), DONE),
        did(2, 2, 3, Op::Get, Answer::found(None)),
    ]);
}

#[test]
fn a_read_that_overlaps_the_write_may_see_either() {
    for seen in [Answer::found(None), found(1)] {
        good([did(1, 0, 10, Op::Put(1), DONE), did(2, 5, 6, Op::Get, seen)]);
    }
}

#[test]
fn what_touches_is_concurrent() {
    let history = |get_at| {
        [
            did(1, 0, 10, Op::Put(1), DONE),
            did(2, get_at, 20, Op::Get, Answer::found(None)),
        ]
    };
    good(history(10));
    bad(history(11));
}

#[test]
fn a_lost_update() {
    // Both read 0 and both write 1 more, as if the other had not been.
    bad([
        did(1, 0, 1, Op::Put(0), DONE),
        did(2, 2, 10, Op::Increment(1), Answer::sum(1)),
        did(3, 3, 11, Op::Increment(1), Answer::sum(1)),
    ]);
}

#[test]
fn two_successful_swaps_from_the_same_value() {
    let history = |second| {
        [
            did(1, 0, 1, Op::Put(1), DONE),
            did(2, 2, 10, cas(Some(1), 2), YES),
            did(3, 3, 11, cas(Some(1), 3), second),
        ]
    };
    bad(history(YES));
    good(history(NO));
}

#[test]
fn a_swap_that_failed_for_no_reason() {
    bad([did(1, 0, 1, Op::Put(1), DONE), did(2, 2, 3, cas(Some(1), 2), NO)]);
}

#[test]
fn a_delete_that_found_what_was_not_there() {
    bad([did(1, 0, 1, Op::Delete, YES)]);
    bad([did(1, 0, 1, Op::Put(1), DONE), did(2, 2, 3, Op::Delete, NO)]);
}

#[test]
fn an_increment_applied_twice() {
    bad([
        did(1, 0, 1, Op::Increment(1), Answer::sum(1)),
        did(2, 2, 3, Op::Get, found(2)),
    ]);
}

#[test]
fn an_unknown_increment_counts_once_at_most() {
    let history = |seen| {
        [
            did(1, 0, 1, Op::Put(0), DONE),
            unknown(2, 2, Op::Increment(1)),
            did(1, 3, 4, Op::Get, seen),
        ]
    };
    good(history(found(0)));
    good(history(found(1)));
    bad(history(found(2)));
}

#[test]
fn unknown_increments_that_ask_for_the_same_count_one_by_one() {
    let history = |seen| {
        [
            unknown(1, 0, Op::Increment(1)),
            unknown(2, 0, Op::Increment(1)),
            unknown(3, 9, Op::Increment(1)),
            did(4, 1, 2, Op::Get, seen),
            did(4, 10, 11, Op::Get, found(3)),
        ]
    };
    good(history(found(2)));
    bad(history(found(3)));
}

#[test]
fn an_unknown_put_that_took_effect_late() {
    good([
        unknown(1, 0, Op::Put(1)),
        did(2, 1, 2, Op::Put(2), DONE),
        did(2, 3, 4, Op::Get, found(2)),
        did(2, 1_000, 1_001, Op::Get, found(1)),
        did(2, 1_002, 1_003, Op::Get, found(1)),
    ]);
}

#[test]
fn an_unknown_put_that_never_took_effect() {
    good([
        unknown(1, 0, Op::Put(1)),
        did(2, 1, 2, Op::Get, Answer::found(None)),
        did(2, 3, 4, Op::Put(2), DONE),
        did(2, 5, 6, Op::Get, found(2)),
    ]);
}

#[test]
fn an_unknown_put_that_took_effect_twice() {
    let why = bad([
        unknown(1, 0, Op::Put(1)),
        did(2, 1, 2, Op::Get, found(1)),
        did(2, 3, 4, Op::Put(2), DONE),
        did(2, 5, 6, Op::Get, found(1)),
    ]);
    assert_eq!((why.culprit.call, why.prefix.len()), (5, 3));
}

#[test]
fn an_unknown_put_before_its_call() {
    bad([did(2, 0, 1, Op::Get, found(1)), unknown(1, 2, Op::Put(1))]);
}

#[test]
fn unknown_ones_that_build_on_each_other() {
    let history = |last| {
        [
            unknown(1, 0, Op::Put(1)),
            unknown(2, 0, cas(Some(1), 5)),
            unknown(3, 0, Op::Increment(2)),
            did(4, 1, 2, Op::Put(9), DONE),
            did(4, 3, 4, Op::Get, found(7)),
            did(4, 5, 6, Op::Get, last),
        ]
    };
    good(history(found(7)));
    bad(history(found(9)));
}

#[test]
fn an_unknown_delete() {
    good([
        did(1, 0, 1, Op::Put(1), DONE),
        unknown(2, 2, Op::Delete),
        did(1, 3, 4, Op::Get, found(1)),
        did(1, 5, 6, Op::Get, Answer::found(None)),
    ]);
}

#[test]
fn a_read_of_a_value_from_the_future() {
    let why = bad([did(1, 0, 1, Op::Get, found(1)), did(2, 2, 3, Op::Put(1), DONE)]);
    assert_eq!((why.culprit.client, why.prefix.len()), (1, 0));
}

#[test]
fn a_read_of_a_value_that_nobody_wrote() {
    bad([did(1, 0, 9, Op::Put(1), DONE), did(2, 0, 9, Op::Get, found(3))]);
}

#[test]
fn reads_that_go_back_and_forth() {
    let history = |third| {
        [
            did(1, 0, 1, Op::Put(1), DONE),
            did(1, 2, 100, Op::Put(2), DONE),
            did(2, 3, 4, Op::Get, found(1)),
            did(2, 5, 6, Op::Get, found(2)),
            did(2, 7, 8, Op::Get, third),
        ]
    };
    good(history(found(2)));
    let why = bad(history(found(1)));
    assert_eq!(why.culprit.call, 7);
    assert_eq!(why.window, [did(1, 2, 100, Op::Put(2), DONE)]);
}

#[test]
fn two_readers_that_see_two_writes_in_different_order() {
    let sees = |client, first, second| {
        [
            did(client, 10, 11, Op::Get, found(first)),
            did(client, 12, 13, Op::Get, found(second)),
        ]
    };
    let puts = [did(1, 0, 100, Op::Put(1), DONE), did(2, 0, 100, Op::Put(2), DONE)];
    good(puts.clone().into_iter().chain(sees(3, 1, 2)).chain(sees(4, 1, 2)));
    bad(puts.into_iter().chain(sees(3, 1, 2)).chain(sees(4, 2, 1)));
}

#[test]
fn keys_are_judged_apart() {
    let fine = [
        on("b", did(1, 0, 1, Op::Put(1), DONE)),
        did(1, 2, 3, Op::Get, Answer::found(None)),
        on("b", did(1, 4, 5, Op::Get, found(1))),
    ];
    good(fine.clone());
    let stale = on("b", did(1, 6, 7, Op::Get, Answer::found(None)));
    assert_eq!(bad(fine.into_iter().chain([stale])).key, "b");
}

#[test]
fn a_report_names_what_cannot_be_ordered() {
    let why = bad([
        did(1, 0, 1, Op::Put(1), DONE),
        unknown(3, 2, Op::Put(3)),
        did(1, 2, 8, Op::Put(2), DONE),
        did(2, 3, 4, Op::Get, found(2)),
        did(2, 6, 7, Op::Get, found(1)),
        did(2, 9, 10, Op::Get, found(2)),
    ]);
    let expected = "key \"a\": no order of its operations explains every answer
  the shortest beginning without one ends at 7: the first 5 of its 6 operations, by call
  in this order the 3 before fit, the last of them:
    [0 .. 1] client 1: put 1 -> ok
    [2 .. 8] client 1: put 2 -> ok
    [3 .. 4] client 2: get -> 2
  the key then holds 2, and no order is left with
    [6 .. 7] client 2: get -> 1
  while these were under way:
    [2 .. 8] client 1: put 2 -> ok";
    assert_eq!(why.to_string(), expected);
}

#[test]
fn what_takes_too_long_is_undecided() {
    let operations = || (0..40).map(|n| did(n as u64, 0, 100, Op::Put(n), DONE));
    let impossible = did(40, 0, 100, Op::Get, found(-1));
    let history: History = operations().chain([impossible.clone()]).collect();
    let verdict = check(&history, 1_000);
    let key = "a".to_owned();
    assert_eq!(verdict, Verdict::Undecided { key, steps: 1_000 });
    assert!(!verdict.is_linearizable());
    // A violation elsewhere is one all the same.
    let history = operations().chain([impossible, on("b", did(1, 0, 1, Op::Delete, YES))]);
    match check(&history.collect(), 1_000) {
        Verdict::Violated(why) => assert_eq!(why.key, "b"),
        other => panic!("taken for {other}"),
    }
}
