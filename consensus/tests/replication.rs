//! What no figure says of replication: losses, slow disks, refusals that come late, records from disk.

mod common;

use common::{
    Cluster,
    hand_made::{N1, acknowledge, alone, append, candidate, hear, id, leading, run, said, sleep, vote},
};
use kontiki_consensus::{
    Body, Call, Config, Configuration, Conflict, Event, HardState, Index, LogId, Message, NodeId, Output,
    Position, Role, Round, Run, SuspectMark, Term, Time, WriteId,
};

const N2: NodeId = NodeId(2);

/// The messages with records that n1 sends to n2 by this: the record before them, and their last.
fn records_for_n2(messages: &[Message]) -> Vec<(LogId, Index)> {
    let to_n2 = messages.iter().filter(|m| m.to == N2);
    let records = to_n2.filter_map(|m| match &m.call {
        Call::AppendEntries { prev, runs, .. } => runs.last().map(|last| (*prev, last.last())),
        _ => None,
    });
    records.collect()
}

fn answer(round: u64, persisted: u64, received: u64) -> Call {
    let (persisted, received) = (Index(persisted), Index(received));
    Call::AppendEntriesReply {
        round: Round(round),
        persisted,
        received,
        conflict: None,
        suspect: SuspectMark::ZERO,
    }
}

fn refusal(received: u64, prev: u64) -> Call {
    let received = Index(received);
    let conflict = Some(Conflict {
        prev: Index(prev),
        hint: id(received.0, 2),
    });
    Call::AppendEntriesReply {
        round: Round(1),
        persisted: received,
        received,
        conflict,
        suspect: SuspectMark::ZERO,
    }
}

#[test]
fn a_disk_that_has_been_slow_for_long_does_not_make_new_records_look_lost() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    hear(&mut cluster, 2, 2, answer(1, 2, 3));
    // i3 was received and is not on disk, for a second now.
    for round in 2..22 {
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, answer(round, 2, 3));
    }
    cluster.propose(N1, 1, 8);
    assert_eq!(records_for_n2(&said(&mut cluster)), [(id(3, 2), Index(4))]);
    cluster.flush(N1);
    cluster.timeout(N1);
    assert_eq!(records_for_n2(&said(&mut cluster)), []);
}

#[test]
fn of_the_refusals_of_a_pipeline_only_the_first_is_news() {
    let mut cluster = leading();
    for _ in 0..4 {
        cluster.propose(N1, 1, 8);
    }
    cluster.bag.clear();
    // The first of four, i3, was lost. All is sent again, once.
    let again = hear(&mut cluster, 2, 2, refusal(2, 3));
    assert_eq!(records_for_n2(&again), [(id(2, 2), Index(6))]);
    // A heartbeat is answered meanwhile: that is where the logs agree.
    assert_eq!(records_for_n2(&hear(&mut cluster, 2, 2, answer(1, 2, 2))), []);
    assert_eq!(records_for_n2(&hear(&mut cluster, 2, 2, refusal(2, 4))), []);
    assert_eq!(records_for_n2(&hear(&mut cluster, 2, 2, refusal(2, 5))), []);
}

#[test]
fn a_follower_that_lost_what_was_not_on_its_disk_is_believed() {
    let mut cluster = Cluster::new(3, 0, 1, |config| config.message_bytes_max = 8);
    cluster.elect(1);
    cluster.checker.made_up = true;
    cluster.propose(N1, 2, 8);
    hear(&mut cluster, 2, 2, answer(1, 2, 4));
    cluster.propose(N1, 1, 8);
    cluster.bag.clear();
    // It has restarted: i3 and i4 are gone, so i5 finds nothing before it.
    let again = hear(&mut cluster, 2, 2, refusal(2, 4));
    assert_eq!(records_for_n2(&again), [(id(2, 2), Index(3))]);
    // What it said of i4 before is forgotten: i4 is sent again too.
    let rest = hear(&mut cluster, 2, 2, answer(1, 2, 2));
    assert_eq!(
        records_for_n2(&rest),
        [(id(3, 2), Index(4)), (id(4, 2), Index(5))]
    );
}

#[test]
fn a_message_that_was_dropped_is_sent_again_and_a_dropped_probe_only_after_a_while() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    cluster.bag.clear();
    cluster.happen(N1, Event::SendDropped(N2));
    assert_eq!(records_for_n2(&said(&mut cluster)), [(id(2, 2), Index(3))]);
    cluster.happen(N1, Event::SendDropped(N2));
    assert_eq!(
        records_for_n2(&said(&mut cluster)),
        [],
        "a full queue is not filled again and again"
    );
    // The peer answers again: the probe that was dropped is not waited for.
    let again = hear(&mut cluster, 2, 2, answer(1, 2, 2));
    assert_eq!(records_for_n2(&again), [(id(2, 2), Index(3))]);
}

#[test]
fn proposals_wait_for_the_disk_of_a_leader_that_others_have_committed_for() {
    let mut cluster = candidate();
    cluster.server(N1).slow = true;
    hear(&mut cluster, 2, 2, vote(false));
    hear(&mut cluster, 2, 2, acknowledge(1, 2));
    hear(&mut cluster, 3, 2, acknowledge(1, 2));
    assert_eq!(
        (cluster.at(1).commit(), cluster.at(1).admission()),
        (Index(2), None)
    );
    cluster.persist(N1);
    assert!(cluster.at(1).admission().is_some());
}

/// What n1 puts out after this, without anybody carrying it out.
fn outputs(cluster: &mut Cluster, event: Event) -> Vec<Output> {
    let now = cluster.now;
    let life = cluster.server(N1).life.as_mut().expect("it is up");
    let mut outputs = Vec::new();
    life.step(now, event);
    life.flush(now, &mut outputs);
    outputs
}

fn fetches(outputs: &[Output]) -> usize {
    outputs
        .iter()
        .filter(|o| matches!(o, Output::Fetch { .. }))
        .count()
}

/// n1 of three leads term 2 with i2..i4 on disk and no longer in memory; n2 has acknowledged nothing yet.
fn leading_with_little_memory() -> Cluster {
    let mut cluster = alone(3, &[1, 1, 1]);
    cluster.restart(N1, false);
    cluster.timeout(N1);
    hear(&mut cluster, 3, 2, vote(true));
    hear(&mut cluster, 3, 2, vote(false));
    cluster
}

#[test]
fn where_the_disk_gives_nothing_it_is_not_asked_again_at_once() {
    let mut cluster = leading_with_little_memory();
    let refused = Call::AppendEntriesReply {
        round: Round(1),
        persisted: Index(0),
        received: Index(0),
        conflict: Some(Conflict {
            prev: Index(4),
            hint: id(1, 1),
        }),
        suspect: SuspectMark::ZERO,
    };
    let probe = hear(&mut cluster, 2, 2, refused);
    assert_eq!(
        records_for_n2(&probe),
        [],
        "the place is looked for without records"
    );
    let found = Event::Message(Message {
        from: N2,
        to: N1,
        term: Term(2),
        call: answer(1, 1, 1),
    });
    assert_eq!(fetches(&outputs(&mut cluster, found)), 1);
    let nothing = |from| Event::Fetched {
        peer: N2,
        from: Index(from),
        runs: vec![],
    };
    assert_eq!(fetches(&outputs(&mut cluster, nothing(2))), 0);
    let heartbeat = Event::Message(Message {
        from: N2,
        to: N1,
        term: Term(2),
        call: answer(1, 1, 1),
    });
    assert_eq!(
        fetches(&outputs(&mut cluster, heartbeat)),
        1,
        "a sign of life is reason to try again"
    );
    let strange = Event::Fetched {
        peer: N2,
        from: Index(2),
        runs: vec![run(2, 4, 9)],
    };
    assert_eq!(
        fetches(&outputs(&mut cluster, strange)),
        0,
        "records of another log are not sent"
    );
}

#[test]
fn a_configuration_goes_with_the_record_it_stands_in() {
    let mut cluster = alone(3, &[]);
    let before = cluster.at(1).configuration().clone();
    let body = Body::Configuration(Configuration::of_voters([N1]).into());
    let change = Run::new(Index(2), Term(1), Position(1), body);
    hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![change]));
    assert_ne!(
        cluster.at(1).configuration(),
        &before,
        "it is used as soon as it stands in the log"
    );
    hear(&mut cluster, 3, 2, append(id(1, 1), 0, 1, vec![run(2, 2, 2)]));
    assert_eq!(cluster.at(1).configuration(), &before);
}

#[test]
fn what_was_gathered_goes_out_as_one_write_and_one_message_a_peer() {
    let mut cluster = leading();
    hear(&mut cluster, 3, 2, acknowledge(1, 2));
    for _ in 0..3 {
        let place = cluster.at(1).admission().expect("it leads");
        let body = run(place.index.0, place.index.0, 2).body().clone();
        let proposal = Run::new(place.index, place.term, place.position, body);
        cluster.step(N1, Event::Propose(proposal));
    }
    let outputs = outputs(&mut cluster, Event::SendDropped(NodeId(9)));
    let [Output::Persist(write), Output::Send(first), Output::Send(second)] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert_eq!((write.runs.len(), first.to, second.to), (3, N2, NodeId(3)));
}

#[test]
fn a_vote_and_a_truncation_go_in_one_write_in_this_order() {
    let mut cluster = alone(3, &[1, 1]);
    let call = append(id(1, 1), 0, 1, vec![run(2, 2, 3)]);
    let message = Message {
        from: N2,
        to: N1,
        term: Term(3),
        call,
    };
    let outputs = outputs(&mut cluster, Event::Message(message));
    let Some(Output::Persist(write)) = outputs.first() else {
        panic!("{outputs:?}")
    };
    assert_eq!(write.id, WriteId(1));
    assert_eq!(
        write.hard_state,
        Some(HardState {
            term: Term(3),
            vote: None,
            ..HardState::default()
        })
    );
    assert_eq!(
        (write.truncate, write.runs[0].first()),
        (Some(Index(2)), Index(2))
    );
}

#[test]
fn memory_keeps_what_is_not_yet_on_disk_and_little_else() {
    let mut cluster = Cluster::new(3, 0, 1, |config| config.tail_bytes_max = 64);
    cluster.elect(1);
    cluster.server(N1).slow = true;
    cluster.propose(N1, 100, 8);
    assert_eq!(cluster.at(1).tail_first(), Index(3), "what is not on disk stays");
    cluster.persist(N1);
    cluster.timeout(N1);
    assert_eq!(
        (cluster.at(1).tail_bytes(), cluster.at(1).tail_first()),
        (0, Index(103))
    );
}

/// A new leader that has not yet committed in its own term tells nobody what is committed, and a follower
/// may be any amount behind.
#[test]
fn a_follower_that_catches_up_before_the_leader_has_committed_does_not_keep_it_all_in_memory() {
    let mut cluster = Cluster::new(3, 0, 7, |config| config.tail_bytes_max = 64);
    cluster.checker.made_up = true;
    for other in [2, 3] {
        cluster.crash(NodeId(other));
    }
    for first in 0..20 {
        let (from, to) = (2 + first * 32, 33 + first * 32);
        let prev = cluster.at(1).last();
        hear(&mut cluster, 2, 2, append(prev, 0, 1, vec![run(from, to, 2)]));
        assert!(cluster.at(1).tail_bytes() <= 64 + 32);
    }
    assert_eq!(
        (cluster.at(1).last().index, cluster.at(1).commit()),
        (Index(641), Index(0))
    );
}

#[test]
fn a_message_carries_no_more_than_the_window_has_room_for() {
    let mut cluster = Cluster::new(3, 0, 1, |config| config.window_bytes_max = 64);
    cluster.elect(1);
    for down in [2, 3] {
        cluster.crash(NodeId(down));
    }
    cluster.bag.clear();
    cluster.propose(N1, 100, 8);
    let sent = said(&mut cluster).into_iter().filter(|m| m.to == N2);
    let weights = sent.filter_map(|m| match m.call {
        Call::AppendEntries { runs, .. } => Some(runs.iter().map(Run::weight).sum::<usize>()),
        _ => None,
    });
    assert_eq!(weights.sum::<usize>(), 64);
}

#[test]
fn settings_that_do_not_hold_together_are_named() {
    let wrong = |change: fn(&mut Config)| {
        let mut config = Config::new(N1);
        change(&mut config);
        config.check()
    };
    assert_eq!(wrong(|_| {}), Ok(()));
    assert!(wrong(|c| c.node = NodeId::ZERO).is_err());
    assert!(wrong(|c| c.election_timeout_min = c.heartbeat_interval).is_err());
    assert!(wrong(|c| c.election_timeout_max = c.election_timeout_min).is_err());
    assert!(wrong(|c| c.window_bytes_max = 0).is_err());
    assert!(wrong(|c| c.commit_delay = c.election_timeout_min).is_err());
}

#[test]
fn time_does_not_overflow_at_its_end() {
    let mut cluster = alone(3, &[]);
    cluster.now = Time(u64::MAX - 1);
    cluster.happen(N1, Event::Timeout);
    sleep(&mut cluster, 1_000);
    assert_eq!(cluster.role(1), Role::PreCandidate);
}
