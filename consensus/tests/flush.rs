//! What a flush gives, and when nothing more follows from what has happened.

mod common;

use common::{
    Cluster,
    hand_made::{
        N1, acknowledge, acknowledged, alone, append, append_to, hear, id, leading, leading_as, run, said,
        sleep, terms,
    },
};
use kontiki_consensus::{Call, Duration, Event, Index, Message, NodeId, Output, Standing, Term};

#[test]
fn a_second_flush_at_the_same_time_says_nothing() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    assert!(!said(&mut cluster).is_empty());
    let (now, mut outputs) = (cluster.now, Vec::<Output>::new());
    let life = cluster.server(N1).life.as_mut().expect("it is up");
    life.flush(now, &mut outputs);
    assert_eq!(outputs, []);
}

#[test]
fn a_later_flush_sees_what_time_alone_has_made_of_it() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    said(&mut cluster);
    // The shortest election timeout: what an answer is waited for.
    sleep(&mut cluster, 300);
    cluster.flush(N1);
    // The record is taken for lost and sent again.
    assert!(!said(&mut cluster).is_empty());
}

#[test]
fn a_follower_that_has_all_is_told_at_once_of_a_commit_and_of_a_round() {
    let told = |said: Vec<Message>| {
        let to_n2 = said.into_iter().filter(|m| m.to == NodeId(2));
        to_n2.map(|m| m.call).collect::<Vec<_>>()
    };
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    said(&mut cluster);
    let after_commit = hear(&mut cluster, 2, 2, acknowledge(1, 3));
    let standing = Standing {
        matched: Index(3),
        ..Standing::default()
    };
    assert_eq!(told(after_commit), [append_to(standing, id(3, 2), 3, 1, vec![])]);
    cluster.read(N1);
    assert_eq!(
        told(said(&mut cluster)),
        [append_to(standing, id(3, 2), 3, 2, vec![])]
    );
}

/// What n2 is sent: whether records, and the commit index.
fn sent_to_n2(said: Vec<Message>) -> Vec<(bool, Index)> {
    let to_n2 = said.into_iter().filter(|m| m.to == NodeId(2));
    let append = |m: Message| match m.call {
        Call::AppendEntries { runs, commit, .. } => Some((!runs.is_empty(), commit)),
        _ => None,
    };
    to_n2.filter_map(append).collect()
}

/// A leader of three that need not tell of a commit for 5 ms; it has a record on the way that nobody has answered yet.
fn leading_at_leisure() -> Cluster {
    let mut cluster = leading_as(|config| config.commit_delay = Duration::from_millis(5));
    cluster.propose(N1, 1, 8);
    assert_eq!(sent_to_n2(said(&mut cluster)), [(true, Index(2))]);
    cluster
}

#[test]
fn a_commit_that_nobody_waits_for_goes_with_the_next_records() {
    let mut cluster = leading_at_leisure();
    assert_eq!(
        sent_to_n2(hear(&mut cluster, 2, 2, acknowledge(1, 3))),
        [],
        "not alone"
    );
    cluster.propose(N1, 1, 8);
    assert_eq!(sent_to_n2(said(&mut cluster)), [(true, Index(3))]);
    sleep(&mut cluster, 10);
    cluster.flush(N1);
    assert_eq!(sent_to_n2(said(&mut cluster)), [], "it knows");
}

#[test]
fn a_commit_goes_alone_when_no_records_follow_for_a_while() {
    let mut cluster = leading_at_leisure();
    let before = cluster.now;
    hear(&mut cluster, 2, 2, acknowledge(1, 3));
    let due = cluster.server(N1).life.as_ref().expect("it is up").deadline();
    assert_eq!(due, before.after(Duration::from_millis(5)));
    sleep(&mut cluster, 4);
    cluster.flush(N1);
    assert_eq!(sent_to_n2(said(&mut cluster)), []);
    sleep(&mut cluster, 1);
    cluster.step(N1, Event::Timeout);
    cluster.flush(N1);
    assert_eq!(sent_to_n2(said(&mut cluster)), [(false, Index(3))]);
}

#[test]
fn a_commit_that_somebody_at_a_follower_waits_for_is_told_at_once() {
    let mut cluster = leading_at_leisure();
    cluster.step(N1, Event::Awaited);
    assert_eq!(
        sent_to_n2(hear(&mut cluster, 2, 2, acknowledge(1, 3))),
        [(false, Index(3))]
    );
    cluster.propose(N1, 1, 8);
    said(&mut cluster);
    assert_eq!(
        sent_to_n2(hear(&mut cluster, 2, 2, acknowledge(1, 4))),
        [],
        "nobody waits for that one"
    );
}

#[test]
fn of_runs_with_a_hole_between_them_only_those_before_it_are_taken() {
    let mut cluster = alone(3, &[]);
    let runs = vec![run(2, 3, 1), run(4, 4, 1), run(6, 7, 1), run(8, 8, 1)];
    let answers = hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, runs));
    assert_eq!(acknowledged(&answers).0, Index(4));
    assert_eq!(terms(&cluster), [1, 1, 1, 1]);
}

#[test]
fn runs_of_several_messages_go_into_one_write() {
    let mut cluster = alone(3, &[]);
    cluster.server(N1).slow = true;
    for (prev, from) in [(1, 2), (3, 4)] {
        let call = append(
            id(prev, 1),
            0,
            1,
            vec![run(from, from, 1), run(from + 1, from + 1, 1)],
        );
        let message = Message {
            from: NodeId(2),
            to: N1,
            term: Term(1),
            call,
        };
        cluster.step(N1, Event::Message(message));
    }
    cluster.flush(N1);
    let writes: Vec<usize> = cluster.servers[&N1].writes.iter().map(|w| w.runs.len()).collect();
    assert_eq!(writes, [4]);
}
