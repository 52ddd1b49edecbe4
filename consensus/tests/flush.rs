//! What a flush gives, and when nothing more follows from what has happened.

mod common;

use common::hand_made::{
    N1, acknowledge, acknowledged, alone, append, hear, id, leading, run, said, sleep, terms,
};
use kontiki_consensus::{Event, Index, Message, NodeId, Output, Term};

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
    assert_eq!(told(after_commit), [append(id(3, 2), 3, 1, vec![])]);
    cluster.read(N1);
    assert_eq!(told(said(&mut cluster)), [append(id(3, 2), 3, 2, vec![])]);
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
