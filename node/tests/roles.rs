//! Changes of role say why, and a node whose process did not run does not stand at once.

mod common;

use common::World;
use kontiki_consensus::Role;

#[test]
fn a_follower_that_did_not_run_hears_its_leader_before_it_stands() {
    let (mut world, names) = World::led(3, 5);
    let (leader, term) = (names[0], world.term(names[0]));
    for n in &names[1..] {
        // What the leader sends meanwhile has not reached its inbox when it runs again.
        world.isolate(*n);
        world.node(*n).paused = true;
        world.run(510);
        world.heal();
        world.node(*n).paused = false;
        for _ in 0..200 {
            world.run(1);
            assert_eq!(world.driver(*n).consensus().role(), Role::Follower, "{n} stands");
        }
    }
    assert_eq!((world.leader(), world.term(leader)), (Some(leader), term));
}

#[test]
fn a_follower_that_did_not_run_stands_when_its_leader_is_gone() {
    let (mut world, names) = World::led(3, 5);
    for n in &names[1..] {
        world.node(*n).paused = true;
    }
    world.crash(names[0]);
    world.run(2_000);
    for n in &names[1..] {
        world.node(*n).paused = false;
    }
    world.run(1_500);
    assert!(world.leader().is_some());
}

#[test]
fn a_change_of_role_says_what_this_node_was_doing() {
    let (mut world, names) = World::led(3, 6);
    let why = |world: &World, n| world.driver(n).role_change().expect("a change").to_string();
    let (leader, other) = (names[0], names[1]);
    assert_eq!(why(&world, leader), "a majority has given it their votes");
    assert_eq!(why(&world, other), format!("node {leader} leads"));
    world.isolate(leader);
    world.node(leader).paused = true;
    world.run(2_000);
    world.node(leader).paused = false;
    world.run(1);
    let why_not = why(&world, leader);
    assert!(
        why_not.starts_with("no quorum has answered for ") && why_not.contains("did not run for 1"),
        "{why_not}"
    );
    let next = world.leader().expect("another");
    world.heal();
    world.run(3_000);
    world.node(next).stuck = true;
    let token = world.append(next, "a");
    world.run(380);
    world.node(next).stuck = false;
    world.position(token);
    world.isolate(next);
    world.run_until("it to give up", |w| {
        w.driver(next).consensus().role() != Role::Leader
    });
    let why_not = why(&world, next);
    assert!(why_not.contains("a write to its disk took 3"), "{why_not}");
}
