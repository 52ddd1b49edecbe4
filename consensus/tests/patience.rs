//! How long followers wait for their leader, and what a hint that it is gone changes.

mod common;

use common::Cluster;
use kontiki_consensus::{Duration, Event, NodeId, Note, Role, Time};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// n1 of so many leads, and all have just heard it.
fn led(voters: u64, lease: Option<u32>) -> Cluster {
    let mut cluster = Cluster::new(voters, 0, 7, |config| config.lease_drift_ppm = lease);
    cluster.elect(1);
    cluster.timeout(N1);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
    cluster
}

/// In how many milliseconds a node would stand.
fn wait(cluster: &Cluster, node: u64) -> u64 {
    cluster.at(node).deadline().since(cluster.now).0 / 1_000_000
}

#[test]
fn followers_wait_in_the_order_of_their_ids() {
    let cluster = led(3, None);
    assert!((300..315).contains(&wait(&cluster, 2)), "{}", wait(&cluster, 2));
    assert!((445..530).contains(&wait(&cluster, 3)), "{}", wait(&cluster, 3));
    let cluster = led(5, None);
    let waits: Vec<u64> = (2..=5).map(|n| wait(&cluster, n)).collect();
    assert!(
        waits.is_sorted() && waits[0] >= 300 && waits[3] < 600,
        "{waits:?}"
    );
}

#[test]
fn the_next_stands_where_the_first_is_down() {
    let mut cluster = led(4, None);
    cluster.crash(N1);
    cluster.crash(N2);
    let silent_since = cluster.now;
    cluster.timeout(N3);
    cluster.settle();
    // Two of four are no majority: it goes on asking, up to five times in quick succession, then by chance.
    assert_eq!(cluster.role(3), Role::PreCandidate);
    cluster.restart(N2, true);
    for _ in 0..8 {
        cluster.timeout(N3);
        cluster.settle();
    }
    assert_eq!(cluster.role(3), Role::Leader);
    assert!(cluster.now.since(silent_since) >= Duration::from_millis(300));
}

#[test]
fn who_refuses_because_its_log_is_longer_stands_itself_at_once() {
    let mut cluster = led(3, None);
    cluster.server(N2).cut = true;
    assert!(cluster.propose(N1, 1, 10));
    cluster.settle();
    cluster.server(N2).cut = false;
    cluster.crash(N1);
    cluster.now = cluster
        .at(2)
        .deadline()
        .max(cluster.now.after(Duration::from_millis(301)));
    assert!(wait(&cluster, 3) > 100);
    cluster.timeout(N2);
    cluster.settle();
    assert_eq!(cluster.role(2), Role::PreCandidate);
    assert!(wait(&cluster, 3) <= 12, "{}", wait(&cluster, 3));
    cluster.timeout(N3);
    cluster.settle();
    assert_eq!(cluster.role(3), Role::Leader);
}

#[test]
fn told_that_their_leader_is_gone_they_elect_another_within_50_ms() {
    let mut cluster = led(3, None);
    cluster.crash(N1);
    let gone = cluster.now;
    cluster.happen(N2, Event::PeerGone(N1));
    assert_eq!(wait(&cluster, 2), 0);
    cluster.timeout(N2);
    cluster.settle();
    assert_eq!(cluster.role(2), Role::PreCandidate, "n3 has not been told yet");
    cluster.happen(N3, Event::PeerGone(N1));
    assert!((1..20).contains(&wait(&cluster, 3)), "it lets n2 go first");
    cluster.timeout(N2);
    cluster.settle();
    assert_eq!(cluster.role(2), Role::Leader);
    assert!(cluster.now.since(gone) < Duration::from_millis(50));
}

#[test]
fn the_leader_that_is_heard_after_a_hint_keeps_its_place() {
    let mut cluster = led(3, None);
    cluster.happen(N3, Event::PeerGone(N1));
    cluster.timeout(N1);
    cluster.settle();
    assert!(wait(&cluster, 3) >= 300);
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.happen(N3, Event::PeerGone(N1));
    assert!(wait(&cluster, 3) >= 300, "told again within an election timeout");
}

#[test]
fn one_false_hint_deposes_nobody() {
    let mut cluster = led(3, None);
    let term = cluster.at(1).term();
    cluster.happen(N2, Event::PeerGone(N1));
    cluster.timeout(N2);
    cluster.settle();
    assert_eq!(
        (cluster.role(1), cluster.role(2)),
        (Role::Leader, Role::PreCandidate)
    );
    cluster.timeout(N1);
    cluster.settle();
    assert_eq!((cluster.role(2), cluster.at(1).term()), (Role::Follower, term));
}

#[test]
fn a_hint_about_another_than_the_leader_changes_nothing() {
    let mut cluster = led(3, None);
    cluster.happen(N2, Event::PeerGone(N3));
    assert!(wait(&cluster, 2) >= 300);
}

#[test]
fn where_leases_are_on_no_hint_is_obeyed() {
    let mut cluster = led(3, Some(250_000));
    let before: Vec<Time> = (2..=3).map(|n| cluster.at(n).deadline()).collect();
    for node in [N2, N3] {
        cluster.happen(node, Event::PeerGone(N1));
    }
    let after: Vec<Time> = (2..=3).map(|n| cluster.at(n).deadline()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_follower_whose_process_was_late_waits_once_more_and_hears_its_leader() {
    let mut cluster = led(3, None);
    let term = cluster.at(1).term();
    // Neither its timer nor its network ran. The leader goes on with the other.
    cluster.server(N2).cut = true;
    cluster.now = cluster.now.after(Duration::from_millis(510));
    cluster.happen(N2, Event::Late(Duration::from_millis(200)));
    cluster.happen(N2, Event::Timeout);
    assert_eq!(cluster.role(2), Role::Follower, "it does not stand at once");
    assert!((300..315).contains(&wait(&cluster, 2)));
    cluster.server(N2).cut = false;
    cluster.timeout(N1);
    cluster.settle();
    assert_eq!((cluster.role(1), cluster.at(2).term()), (Role::Leader, term));
}

#[test]
fn a_follower_that_is_late_each_time_stands_all_the_same() {
    let mut cluster = led(3, None);
    cluster.crash(N1);
    for late in [true, true] {
        cluster.now = cluster.at(2).deadline().after(Duration::from_millis(200));
        assert_eq!((cluster.role(2), late), (Role::Follower, true));
        cluster.happen(N2, Event::Late(Duration::from_millis(200)));
        cluster.happen(N2, Event::Timeout);
    }
    cluster.settle();
    assert_eq!(cluster.role(2), Role::Leader, "the second time it does not wait");
}

#[test]
fn each_change_of_role_is_told_with_its_cause() {
    let mut cluster = led(3, None);
    let told = |cluster: &mut Cluster, node| -> Vec<String> {
        let notes = std::mem::take(&mut cluster.server(node).notes);
        let causes = notes.into_iter().filter_map(|note| match note {
            Note::Cause(cause) => Some(cause.to_string()),
            _ => None,
        });
        causes.collect()
    };
    told(&mut cluster, N2);
    told(&mut cluster, N3);
    cluster.crash(N1);
    cluster.now = cluster.now.after(Duration::from_millis(412));
    cluster.happen(N2, Event::Timeout);
    cluster.settle();
    assert_eq!(
        told(&mut cluster, N2),
        [
            "no heartbeat of node 1 for 412 ms",
            "a majority would give it their votes",
            "a majority has given it their votes"
        ]
    );
    assert_eq!(
        told(&mut cluster, N3),
        ["node 2 is in a later term", "node 2 leads"]
    );
    cluster.server(N3).cut = true;
    while cluster.role(2) == Role::Leader {
        cluster.timeout(N2);
        cluster.settle();
    }
    let why = told(&mut cluster, N2);
    assert!(
        why[0].starts_with("no quorum has answered for ") && why[0].ends_with(" ms"),
        "{why:?}"
    );
}
