//! Reads under a lease (dissertation §6.4.1), one test a promise.

mod common;

use common::{
    Cluster,
    hand_made::{N1, acknowledge, append, granted, hear, id, pre_vote_request, sleep, vote, vote_request},
};
use kontiki_consensus::{Config, Duration, Event, Index, NodeId, Role};

/// n1 of three leads term 2, with leases for clocks that differ by a quarter: one runs for 240 of 300 ms.
/// Its first round, h1, began at the time this gives back, and n2 has answered it after `late` ms.
fn leading(late: u64) -> (Cluster, u64) {
    let mut cluster = with_leases(3, Some(250_000));
    cluster.timeout(N1);
    hear(&mut cluster, 2, 2, vote(true));
    hear(&mut cluster, 2, 2, vote(false));
    let began = cluster.now.0 / 1_000_000;
    sleep(&mut cluster, late);
    hear(&mut cluster, 2, 2, acknowledge(1, 2));
    assert_eq!(cluster.role(1), Role::Leader);
    (cluster, began)
}

fn with_leases(voters: u64, ppm: Option<u32>) -> Cluster {
    let mut cluster = Cluster::new(voters, 0, 7, |config| config.lease_drift_ppm = ppm);
    cluster.checker.made_up = true;
    for other in 2..=voters {
        cluster.crash(NodeId(other));
    }
    cluster
}

/// Whether n1 answers so many milliseconds after the beginning.
fn answers_at(cluster: &mut Cluster, millis: u64) -> bool {
    cluster.now = kontiki_consensus::Time::ZERO.after(Duration::from_millis(millis));
    cluster.lease_read(N1).is_some()
}

#[test]
fn a_leader_answers_at_its_commit_index_while_its_lease_runs() {
    let (mut cluster, _) = leading(0);
    assert_eq!(cluster.lease_read(N1), Some(Index(2)));
}

#[test]
fn it_is_measured_from_the_time_of_sending_and_never_from_the_answer() {
    let (mut cluster, began) = leading(200);
    // `now` is cut to whole milliseconds: one less is surely within, one more surely beyond.
    assert!(answers_at(&mut cluster, began + 239));
    assert!(!answers_at(&mut cluster, began + 241));
}

#[test]
fn an_answer_that_comes_later_than_the_lease_would_run_brings_none() {
    let (mut cluster, _) = leading(241);
    assert_eq!(cluster.lease_read(N1), None);
}

#[test]
fn it_is_shorter_by_what_clocks_may_differ() {
    let length = |ppm| {
        let mut cluster = with_leases(1, ppm);
        cluster.timeout(N1);
        let began = cluster.now.0 / 1_000_000;
        (1..400)
            .take_while(|n| answers_at(&mut cluster, began + n))
            .count()
    };
    assert_eq!([Some(0), Some(500_000), None].map(length), [299, 199, 0]);
}

#[test]
fn every_round_that_a_quorum_answers_extends_it() {
    let (mut cluster, _) = leading(0);
    cluster.timeout(N1);
    let began = cluster.now.0 / 1_000_000;
    hear(&mut cluster, 2, 2, acknowledge(2, 2));
    assert!(answers_at(&mut cluster, began + 239));
    assert!(!answers_at(&mut cluster, began + 241));
}

#[test]
fn the_answer_to_an_old_round_extends_nothing() {
    let (mut cluster, began) = leading(0);
    cluster.timeout(N1);
    hear(&mut cluster, 2, 2, acknowledge(1, 2));
    assert!(!answers_at(&mut cluster, began + 241));
}

#[test]
fn rounds_close_together_count_as_the_first_of_them() {
    let (mut cluster, _) = leading(0);
    cluster.timeout(N1);
    let began = cluster.now.0 / 1_000_000;
    for _ in 0..100 {
        cluster.now.0 += 40_000;
        cluster.read(N1);
    }
    hear(&mut cluster, 2, 2, acknowledge(102, 2));
    assert!(answers_at(&mut cluster, began + 239));
    assert!(!answers_at(&mut cluster, began + 245));
}

#[test]
fn before_the_first_commit_of_its_term_a_leader_answers_nothing() {
    let (mut cluster, _) = leading(0);
    let mut early = with_leases(3, Some(0));
    early.timeout(N1);
    hear(&mut early, 2, 2, vote(true));
    hear(&mut early, 2, 2, vote(false));
    hear(&mut early, 2, 2, acknowledge(1, 1));
    assert_eq!(
        (early.lease_read(N1), cluster.lease_read(N1)),
        (None, Some(Index(2)))
    );
}

#[test]
fn it_ends_with_leadership() {
    let (mut cluster, _) = leading(0);
    cluster.happen(N1, Event::DiskFull(true));
    assert_eq!(cluster.lease_read(N1), None);
    let (mut cluster, _) = leading(0);
    hear(&mut cluster, 3, 3, append(id(2, 2), 2, 1, vec![]));
    assert_eq!(cluster.lease_read(N1), None);
}

#[test]
fn a_restart_brings_no_lease_back() {
    let (mut cluster, _) = leading(0);
    cluster.restart(N1, true);
    assert_eq!(cluster.lease_read(N1), None);
}

#[test]
fn a_server_that_restarts_gives_no_vote_within_the_shortest_election_timeout() {
    for (ppm, gives) in [(Some(250_000), false), (None, true)] {
        let mut cluster = with_leases(3, ppm);
        hear(&mut cluster, 2, 2, append(id(1, 1), 1, 1, vec![]));
        sleep(&mut cluster, 10);
        cluster.restart(N1, true);
        sleep(&mut cluster, 289);
        assert_eq!(
            granted(&hear(&mut cluster, 3, 3, pre_vote_request(id(1, 1)))),
            gives
        );
        let answers = hear(&mut cluster, 3, 3, vote_request(id(1, 1)));
        assert_eq!(!answers.is_empty() && granted(&answers), gives);
        sleep(&mut cluster, 12);
        assert!(granted(&hear(&mut cluster, 3, 3, vote_request(id(1, 1)))));
    }
}

#[test]
fn a_drift_of_a_million_and_more_is_refused() {
    let mut config = Config::new(N1);
    config.lease_drift_ppm = Some(999_999);
    assert_eq!(config.check(), Ok(()));
    config.lease_drift_ppm = Some(1_000_000);
    assert!(config.check().is_err());
}
