//! Replicas compare what they have become: a difference in answers or states quarantines the minority.

mod common;

use common::World;
use kontiki_consensus::{Duration, NodeId, Position, Role};
use kontiki_node::{
    Ask, Consistency, Failure, MachineError, Reply, StateMachine, Token,
    encoding::encode,
    machine::{Applier, At, Batch, MetaDelta, MetaRows, Typed},
};
use kontiki_wire::{Codec, Compared, Expect, Payload, PeerMessage, Resync, Session};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// What goes wrong on which node: the command that it takes for another.
type Wrong = Arc<Mutex<BTreeMap<NodeId, (u64, u64)>>>;
type Disk = Arc<Mutex<(u64, MetaRows)>>;

/// Adds numbers; on some nodes wrongly. It answers nothing, so that only the state tells; or the sum, and has no digest.
struct Sum {
    node: NodeId,
    wrong: Wrong,
    answers: bool,
    disk: Disk,
    durable: bool,
}

impl StateMachine for Sum {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &At, command: u64) -> u64 {
        let mut disk = self.disk.lock().expect("whole");
        let wrong = self.wrong.lock().expect("whole").get(&self.node).copied();
        disk.0 += match wrong {
            Some((of, other)) if of == command => other,
            _ => command,
        };
        if self.answers { disk.0 } else { 0 }
    }

    fn apply_batch(
        &mut self,
        batch: Batch<'_, u64>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<u64>, MachineError> {
        let outputs: Vec<u64> = batch.map(|(at, command)| self.apply(&at, command)).collect();
        if self.durable {
            let rows = meta.rows(&outputs)?;
            self.disk.lock().expect("whole").1.merge(rows);
        }
        Ok(outputs)
    }

    fn query(&self, (): ()) -> u64 {
        self.disk.lock().expect("whole").0
    }

    fn digest(&self) -> Option<u64> {
        (!self.answers).then(|| self.query(()))
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        let rows = self.disk.lock().expect("whole").1.clone();
        Ok(self.durable.then_some(rows))
    }
}

/// What kind of machine a cluster has.
#[derive(Clone, Copy)]
struct Kind {
    answers: bool,
    durable: bool,
}

const STATES: Kind = Kind {
    answers: false,
    durable: false,
};

/// A cluster that compares every 300 ms.
fn cluster(nodes: u64, kind: Kind) -> (World, Vec<NodeId>, Wrong) {
    let wrong = Wrong::default();
    let of = wrong.clone();
    let disks: BTreeMap<NodeId, Disk> = (1..=nodes).map(|n| (NodeId(n), Disk::default())).collect();
    let makes = move |node| {
        let disk = if kind.durable {
            disks[&node].clone()
        } else {
            Disk::default()
        };
        let sum = Sum {
            node,
            wrong: of.clone(),
            answers: kind.answers,
            disk,
            durable: kind.durable,
        };
        Some(Applier::new(Typed(sum)).expect("a machine"))
    };
    let mut world = World::with_machines(nodes, 3, makes);
    world.compare = Some(Duration::from_millis(300));
    world.start_anew();
    let (world, names) = world.once_led();
    (world, names, wrong)
}

/// Two of three have stopped applying, one rightly and one wrongly, and the third is away.
fn in_dispute() -> (World, NodeId, NodeId, NodeId) {
    let (mut world, names, wrong) = cluster(3, STATES);
    let (good, bad, away) = (names[0], names[1], names[2]);
    wrong.lock().expect("whole").insert(bad, (5, 6));
    world.crash(away);
    add(&mut world, good, 5);
    world.run_until("both to stop applying", |w| quarantined(w).len() == 2);
    (world, good, bad, away)
}

fn add(world: &mut World, n: NodeId, number: u64) -> Token {
    let payload = Payload::one(encode(&number).expect("a number"), Codec::Postcard);
    let ask = Ask::Append {
        payload,
        expect: Expect::Any,
        session: Session::None,
    };
    world.ask(n, ask, 3_000)
}

fn query(world: &mut World, n: NodeId, consistency: Consistency) -> Token {
    let query = encode(&()).expect("nothing");
    world.ask(n, Ask::Query { query, consistency }, 3_000)
}

fn is_refused(world: &mut World, token: Token) -> bool {
    matches!(world.failure(token), Failure::Quarantined(_))
}

fn quarantined(world: &World) -> Vec<NodeId> {
    let all = world.names().into_iter();
    all.filter(|n| {
        world.nodes[n]
            .driver
            .as_ref()
            .is_some_and(|d| d.quarantined().is_some())
    })
    .collect()
}

#[test]
fn replicas_that_are_equal_agree_and_compare_only_when_there_is_news() {
    for answers in [true, false] {
        let kind = Kind {
            answers,
            durable: answers,
        };
        let (mut world, names, _) = cluster(3, kind);
        for n in 1..=20 {
            add(&mut world, names[n as usize % 3], n);
            world.run(100);
        }
        world.run(2_000);
        let told = |world: &World| {
            let compared = |message: &PeerMessage| matches!(message, PeerMessage::Compared(_));
            world
                .sent
                .iter()
                .filter(|(_, _, message)| compared(message))
                .count()
        };
        let before = told(&world);
        assert!(before >= 6 * 4, "{before}");
        world.run(3_000);
        assert_eq!(told(&world), before);
        assert!(quarantined(&world).is_empty());
        for n in names {
            let counts = world.driver(n).counts();
            assert_eq!((counts.differing, counts.quarantined, counts.halted), (0, 0, 0));
        }
    }
}

#[test]
fn the_minority_answers_nothing_does_not_lead_and_goes_on_replicating() {
    for kind in [
        STATES,
        Kind {
            answers: true,
            durable: false,
        },
        Kind {
            answers: false,
            durable: true,
        },
    ] {
        let (mut world, names, wrong) = cluster(3, kind);
        let bad = names[0];
        wrong.lock().expect("whole").insert(bad, (5, 6));
        add(&mut world, names[1], 1);
        add(&mut world, names[1], 5);
        world.run_until("the leader to be quarantined", |w| quarantined(w) == [bad]);
        world.run(3_000);
        assert_ne!(world.leader(), Some(bad));
        let why = world.driver(bad).quarantined().expect("a reason").to_owned();
        assert!(why.contains("differs from a majority's at record"), "{why}");
        assert!(why.contains(&format!("node {bad} has")), "{why}");
        for consistency in [Consistency::STALE, Consistency::Linearizable] {
            let token = query(&mut world, bad, consistency);
            world.run(500);
            assert!(is_refused(&mut world, token));
        }
        let read = world.read(bad, 1, 9, Consistency::STALE);
        let token = add(&mut world, bad, 7);
        world.run(500);
        assert!(is_refused(&mut world, read) && is_refused(&mut world, token));
        let token = add(&mut world, names[1], 9);
        world.run(1_000);
        assert!(matches!(world.answer(token), Reply::Appended { .. }));
        assert_eq!(world.driver(bad).consensus().last_position(), Position(3));
        for n in &names[1..] {
            assert_eq!(world.driver(*n).counts().differing, 1);
            assert!(world.driver(*n).differing().contains(&bad));
            assert!(world.driver(*n).quarantined().is_none());
        }
        assert_eq!(world.driver(bad).counts().quarantined, 1);
        // Its vote counts as ever: with one of the others it still commits.
        let other = world.leader().expect("a leader");
        let down = names
            .iter()
            .copied()
            .find(|n| *n != bad && *n != other)
            .expect("a third");
        world.crash(down);
        let token = add(&mut world, other, 2);
        world.run(1_000);
        assert!(matches!(world.answer(token), Reply::Appended { .. }));
    }
}

#[test]
fn a_query_that_is_with_the_machine_when_it_is_found_wrong_is_not_answered_from_it() {
    let (mut world, names, wrong) = cluster(3, STATES);
    let bad = names[2];
    wrong.lock().expect("whole").insert(bad, (5, 6));
    add(&mut world, names[0], 5);
    let compared = |w: &World| {
        let of_bad = |(from, _, message): &(NodeId, NodeId, PeerMessage)| {
            *from == bad && matches!(message, PeerMessage::Compared(_))
        };
        w.sent.iter().any(of_bad)
    };
    world.run_until("it to have told", compared);
    let token = query(&mut world, bad, Consistency::STALE);
    world.node(bad).machine_stuck = true;
    world.run_until("it to be quarantined", |w| quarantined(w) == [bad]);
    world.node(bad).machine_stuck = false;
    world.run(100);
    assert!(is_refused(&mut world, token));
}

#[test]
fn a_durable_machine_is_quarantined_again_when_it_starts() {
    let kind = Kind {
        answers: false,
        durable: true,
    };
    let (mut world, names, wrong) = cluster(3, kind);
    let bad = names[2];
    wrong.lock().expect("whole").insert(bad, (5, 6));
    add(&mut world, names[0], 5);
    world.run_until("it to be quarantined", |w| quarantined(w) == [bad]);
    world.run(100);
    world.crash(bad);
    world.start(bad);
    world.isolate(bad);
    let token = query(&mut world, bad, Consistency::STALE);
    world.run(100);
    assert!(is_refused(&mut world, token));
    world.run(10_000);
    assert_eq!(world.driver(bad).consensus().role(), Role::Follower);
}

#[test]
fn a_machine_in_memory_that_was_corrected_is_sound_after_a_restart() {
    let (mut world, names, wrong) = cluster(3, STATES);
    let bad = names[2];
    wrong.lock().expect("whole").insert(bad, (5, 6));
    add(&mut world, names[0], 5);
    world.run_until("it to be quarantined", |w| quarantined(w) == [bad]);
    wrong.lock().expect("whole").clear();
    world.crash(bad);
    world.start(bad);
    add(&mut world, names[0], 1);
    world.run(1_000);
    let token = query(&mut world, bad, Consistency::Linearizable);
    world.run(1_000);
    assert!(matches!(world.answer(token), Reply::Answered { .. }));
    assert!(!world.driver(names[0]).differing().contains(&bad));
}

#[test]
fn two_against_two_decide_nothing_and_applying_stops_on_all() {
    let (mut world, names, wrong) = cluster(4, STATES);
    let bad = &names[2..];
    wrong
        .lock()
        .expect("whole")
        .extend(bad.iter().map(|n| (*n, (5, 6))));
    add(&mut world, names[0], 5);
    world.run_until("all to stop applying", |w| quarantined(w).len() == 4);
    for n in &names {
        let driver = world.driver(*n);
        let why = driver.quarantined().expect("a reason");
        assert!(why.contains("no majority"), "{why}");
        assert!(
            why.contains("digest 0000000000000005") && why.contains("digest 0000000000000006"),
            "{why}"
        );
        assert_eq!((driver.counts().halted, driver.counts().quarantined), (1, 0));
    }
    let applied = world.driver(names[0]).applied();
    let token = query(&mut world, names[0], Consistency::STALE);
    let append = add(&mut world, names[1], 1);
    world.run(2_000);
    assert!(is_refused(&mut world, token) && is_refused(&mut world, append));
    assert_eq!(world.driver(names[0]).applied(), applied);
    assert!(world.leader().is_some(), "log and votes go on");
}

#[test]
fn a_third_that_was_away_decides() {
    let (mut world, good, bad, away) = in_dispute();
    world.start(away);
    world.run_until("the wrong one to be found", |w| {
        quarantined(w) == [bad] && w.driver(bad).counts().quarantined == 1
    });
    world.run(3_000);
    let token = add(&mut world, good, 1);
    world.run(1_000);
    assert!(matches!(world.answer(token), Reply::Appended { .. }));
}

#[test]
fn what_is_lost_is_asked_for_again() {
    let (mut world, names, wrong) = cluster(3, STATES);
    let bad = names[1];
    wrong.lock().expect("whole").insert(bad, (5, 6));
    // The third is heard by nobody the first time.
    let (third, mut lost) = (names[2], 0);
    world.lose(move |from, _, message| {
        let loses = from == third && lost < 2 && matches!(message, PeerMessage::Compared(_));
        lost += usize::from(loses);
        loses
    });
    add(&mut world, names[0], 5);
    world.run_until("the wrong one to be found", |w| quarantined(w) == [bad]);
    assert_eq!(world.driver(names[0]).counts().halted, 0);
}

#[test]
fn another_log_stops_the_node_and_names_both_values() {
    let (mut world, names, _) = cluster(3, STATES);
    add(&mut world, names[0], 5);
    world.run(1_000);
    let told = world
        .sent
        .iter()
        .rev()
        .find_map(|(from, _, message)| match message {
            PeerMessage::Compared(compared) if *from == names[1] => Some(*compared),
            _ => None,
        });
    let told = told.expect("a comparison");
    let other = Compared {
        log_hash: told.log_hash ^ 1,
        ..told
    };
    world.hand(names[1], names[0], PeerMessage::Compared(other));
    world.run(10);
    let why = world.driver(names[0]).stopped().expect("it stopped");
    assert!(why.contains("Raft is broken"), "{why}");
    for hash in [told.log_hash, other.log_hash] {
        assert!(why.contains(&format!("{hash:016x}")), "{why}");
    }
}

#[test]
fn what_is_told_of_another_record_is_compared_with_nothing() {
    let (mut world, names, _) = cluster(3, STATES);
    for n in 1..100 {
        add(&mut world, names[0], n);
        world.run(40);
    }
    let stranger = Compared {
        index: kontiki_consensus::Index(10_000),
        log_hash: 1,
        output_hash: 2,
        digest: Some(3),
        is_answer: false,
    };
    for index in 10_000..10_100 {
        let compared = Compared {
            index: kontiki_consensus::Index(index),
            ..stranger
        };
        world.hand(names[1], names[0], PeerMessage::Compared(compared));
    }
    world.run(1_000);
    assert!(world.driver(names[0]).stopped().is_none() && quarantined(&world).is_empty());
}

#[test]
fn who_looks_for_a_new_state_was_the_wrong_one() {
    let (mut world, good, bad, away) = in_dispute();
    let looks = Resync {
        index: kontiki_consensus::Index(1),
        offer: None,
    };
    world.hand(away, good, PeerMessage::Resync(looks));
    world.run(10);
    assert_eq!(quarantined(&world).len(), 2, "that one does not differ from it");
    world.hand(bad, good, PeerMessage::Resync(looks));
    world.run_until("the other to go on", |w| quarantined(w) == [bad]);
}

/// One that has made a snapshot of its wrong state at the very end of the log can only take over a later one.
#[test]
fn the_log_goes_on_for_who_waits_for_more_than_it_holds() {
    let (mut world, names, _) = cluster(3, STATES);
    add(&mut world, names[0], 5);
    world.run(2_000);
    let last = |world: &World| world.driver(names[0]).consensus().last().index;
    let end = last(&world);
    world.run(1_000);
    assert_eq!(last(&world), end, "there is no news");
    let index = end.next();
    world.hand(
        names[1],
        names[0],
        PeerMessage::Resync(Resync { index, offer: None }),
    );
    world.run_until("another record", |world| last(world) == index);
    world.run(1_000);
    assert_eq!(last(&world), index, "one is enough");
}

#[test]
fn a_durable_machine_in_dispute_stays_so_over_restarts_until_a_third_decides() {
    let kind = Kind {
        answers: false,
        durable: true,
    };
    let (mut world, names, wrong) = cluster(3, kind);
    let (good, bad, away) = (names[0], names[1], names[2]);
    wrong.lock().expect("whole").insert(bad, (5, 6));
    world.crash(away);
    add(&mut world, good, 5);
    world.run_until("both to stop applying", |w| quarantined(w).len() == 2);
    world.run(50);
    for round in 0..2 {
        for n in [good, bad] {
            world.crash(n);
            world.start(n);
            assert!(world.driver(n).is_halted(), "round {round}: {n}");
        }
        world.run(1_000);
        for n in [good, bad] {
            let token = query(&mut world, n, Consistency::STALE);
            assert!(is_refused(&mut world, token), "round {round}: {n} answers");
            let token = add(&mut world, n, 7);
            assert!(is_refused(&mut world, token), "round {round}: {n} appends");
        }
    }
    world.start(away);
    world.run_until("the third to decide", |w| quarantined(w) == [bad]);
    world.run(50);
    world.crash(good);
    world.start(good);
    assert!(
        world.driver(good).quarantined().is_none(),
        "the verdict is kept, too"
    );
}

#[test]
fn a_dispute_among_few_who_were_told_is_there_again_after_a_restart() {
    let kind = Kind {
        answers: false,
        durable: true,
    };
    let (mut world, names, wrong) = cluster(3, kind);
    let (good, bad, away) = (names[0], names[1], names[2]);
    wrong.lock().expect("whole").insert(bad, (5, 6));
    world.crash(away);
    add(&mut world, good, 5);
    let in_doubt = |w: &World| [good, bad].iter().all(|n| !w.driver(*n).is_sound());
    world.run_until("both to know that they differ", in_doubt);
    world.run(20);
    assert!(quarantined(&world).is_empty(), "they wait for the third");
    for n in [good, bad] {
        world.crash(n);
        world.start(n);
    }
    assert!(in_doubt(&world));
    world.run_until("both to stop applying", |w| quarantined(w).len() == 2);
}

#[test]
fn a_dispute_stays_open_however_many_other_records_are_told_of() {
    let (mut world, good, bad, away) = in_dispute();
    // It gets no records any more, but hears what others have become.
    world.cut(good, bad);
    for n in 0..40 {
        let compared = Compared {
            index: kontiki_consensus::Index(1000 + n),
            log_hash: 1,
            output_hash: 2,
            digest: Some(3),
            is_answer: false,
        };
        world.hand(away, bad, PeerMessage::Compared(compared));
        world.run(20);
    }
    world.run(1_000);
    let token = query(&mut world, bad, Consistency::STALE);
    assert!(is_refused(&mut world, token));
    assert!(!world.driver(bad).is_sound());
}

#[test]
fn of_five_one_that_looks_for_a_state_says_nothing_of_another() {
    let (mut world, names, wrong) = cluster(5, STATES);
    let (one, other) = (names[0], names[1]);
    // Three different states, and the three who are right are away.
    wrong
        .lock()
        .expect("whole")
        .extend([(one, (5, 6)), (other, (5, 7))]);
    world.run(50);
    names[3..].iter().for_each(|n| world.crash(*n));
    world.lose(move |from, _, message| matches!(message, PeerMessage::Compared(_)) && from == names[2]);
    add(&mut world, one, 5);
    let both = |w: &World| quarantined(w).contains(&one);
    world.run_until("it to stop applying", both);
    let ask = Resync {
        index: kontiki_consensus::Index(1),
        offer: None,
    };
    world.hand(other, one, PeerMessage::Resync(ask));
    world.run(20);
    assert!(
        world.driver(one).quarantined().is_some(),
        "a majority without it has found the other wrong, and may differ from it, too"
    );
}

#[test]
fn a_node_that_asks_for_a_forgotten_record_hears_of_a_later_one() {
    let kind = Kind {
        answers: false,
        durable: true,
    };
    let (mut world, names, wrong) = cluster(5, kind);
    let (good, bad) = (names[0], names[1]);
    wrong.lock().expect("whole").insert(bad, (5, 6));
    // The wrong one hears nothing of what the others are, but of the right one.
    world.lose(move |from, to, message| {
        matches!(message, PeerMessage::Compared(_)) && to == bad && from != good
    });
    add(&mut world, good, 5);
    world.run_until("it to stop applying", |w| w.driver(bad).is_halted());
    world.isolate(bad);
    // So many comparisons that the others have forgotten the one at which it differed.
    for n in 0..20 {
        add(&mut world, good, 100 + n);
        world.run(400);
    }
    world.heal();
    world.run(2_000);
    assert!(
        !world.driver(bad).is_halted() && world.driver(bad).quarantined().is_some(),
        "nothing is appended any more, and it was found wrong"
    );
}
