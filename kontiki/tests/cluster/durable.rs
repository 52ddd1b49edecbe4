//! Real directories and sockets.

use crate::common::{PATIENCE, Scratch, durable, leader, shut_down, start};
use kontiki::{BlockingHandle, Carrier, ClusterKey, Code, Config, Consistency, LogOnly, RaftNode};
use std::{
    collections::BTreeMap,
    net::{TcpListener, UdpSocket},
};

fn values(node: &BlockingHandle<String>) -> Vec<String> {
    let read = node.read(.., Consistency::Linearizable).unwrap();
    read.entries.into_iter().map(|entry| entry.value).collect()
}

/// What starting a node says when it is refused.
fn refusal(config: Config) -> (Code, String) {
    let error = RaftNode::<LogOnly<String>>::new(config)
        .unwrap()
        .start()
        .unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn what_a_follower_takes_is_read_elsewhere_and_is_there_after_a_restart() {
    let scratch = Scratch::new();
    let nodes = durable::<String>(scratch.path());
    let follower = (leader(&nodes) + 1) % 3;
    nodes[follower].append("one".to_owned()).unwrap();
    nodes[follower]
        .append_all(&["two".to_owned(), "three".to_owned()])
        .unwrap();
    assert_eq!(values(&nodes[(follower + 1) % 3]), ["one", "two", "three"]);
    let term = nodes[follower].status().term;
    shut_down(&nodes);
    drop(nodes);

    let nodes = durable::<String>(scratch.path());
    assert!(nodes[0].status().term > term);
    for node in &nodes {
        assert_eq!(values(node), ["one", "two", "three"]);
    }
    assert_eq!(nodes[0].append("four".to_owned()).unwrap().first, 4);
    shut_down(&nodes);
}

#[test]
fn the_status_of_a_node_that_has_just_started_is_what_its_log_holds() {
    let scratch = Scratch::new();
    let nodes = durable::<String>(scratch.path());
    nodes[1].append("one".to_owned()).unwrap();
    let before = nodes[1].status();
    shut_down(&nodes);
    drop(nodes);
    // Alone, so that all it knows is from its disk.
    let config = Config::loopback(3, scratch.path()).unwrap().remove(1);
    let node = start::<String>(config);
    let status = node.status();
    assert_eq!(status.voters, [1, 2, 3]);
    assert_eq!(
        status.peers.iter().map(|peer| peer.id).collect::<Vec<_>>(),
        [1, 3]
    );
    assert!(status.term >= before.term && status.last >= 1 && status.raft_index >= before.raft_index);
    node.shutdown().unwrap();
}

#[test]
fn the_leader_is_lost_and_comes_back() {
    let scratch = Scratch::new();
    let mut configs: Vec<Config> = Config::loopback(3, scratch.path()).unwrap();
    let (key, peers) = (configs[0].cluster_key.clone(), configs[0].peers.clone());
    let mut nodes: Vec<_> = configs.drain(..).map(start::<String>).collect();
    nodes[0].wait_ready(PATIENCE).unwrap();
    nodes[0].append("one".to_owned()).unwrap();
    let old = leader(&nodes);
    nodes[old].abort().unwrap();
    let other = (old + 1) % 3;
    crate::common::eventually("another leader", || {
        nodes[other]
            .status()
            .leader
            .is_some_and(|id| id != old as u64 + 1)
    });
    nodes[other].append("two".to_owned()).unwrap();
    let config = Config::new(
        old as u64 + 1,
        scratch.path().join(format!("n{}", old + 1)),
        key,
        peers,
    );
    nodes[old] = start(config);
    assert_eq!(values(&nodes[old]), ["one", "two"]);
    shut_down(&nodes);
}

#[test]
fn nodes_talk_quic_if_they_are_given_udp_sockets() {
    let scratch = Scratch::new();
    let mut configs = Config::loopback(3, scratch.path()).unwrap();
    let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let peers: BTreeMap<u64, String> = (1..)
        .zip(&sockets)
        .map(|(id, socket)| (id, socket.local_addr().unwrap().to_string()))
        .collect();
    let with_socket = |(mut config, socket): (Config, UdpSocket)| {
        config.peers = peers.clone();
        let config = config.socket(socket);
        assert_eq!(config.carrier, Carrier::Quic);
        config
    };
    let nodes: Vec<_> = configs
        .drain(..)
        .zip(sockets)
        .map(with_socket)
        .map(start::<String>)
        .collect();
    nodes[0].wait_ready(PATIENCE).unwrap();
    let follower = (leader(&nodes) + 1) % 3;
    nodes[follower].append("one".to_owned()).unwrap();
    assert_eq!(values(&nodes[(follower + 1) % 3]), ["one"]);
    shut_down(&nodes);
}

#[test]
fn a_directory_in_use_is_refused() {
    let scratch = Scratch::new();
    let nodes = durable::<String>(scratch.path());
    let second = Config::loopback(3, scratch.path()).unwrap().remove(0);
    let (code, text) = refusal(second);
    assert_eq!(code, Code::Directory, "{text}");
    assert!(text.contains("n1"), "{text}");
    shut_down(&nodes);
    start::<String>(Config::loopback(3, scratch.path()).unwrap().remove(0))
        .shutdown()
        .unwrap();
}

#[test]
fn a_directory_that_is_missing_or_of_another_is_refused_and_not_made() {
    let scratch = Scratch::new();
    let config = |node: u64| {
        Config::loopback(3, scratch.path())
            .unwrap()
            .remove(node as usize - 1)
    };
    let mut of_another = config(1);
    of_another.data_dir = scratch.path().join("n2");
    let (code, text) = refusal(of_another);
    assert_eq!(code, Code::Directory, "{text}");
    assert!(text.contains("n2") && text.contains("node 2"), "{text}");

    let mut other_cluster = config(1);
    other_cluster.cluster_key = ClusterKey::generate().unwrap();
    let (code, text) = refusal(other_cluster);
    assert_eq!(code, Code::Directory, "{text}");
    assert!(text.contains("n1") && text.contains("cluster"), "{text}");

    let mut missing = config(1);
    missing.data_dir = scratch.path().join("nowhere");
    let (code, text) = refusal(missing);
    assert_eq!(code, Code::Directory, "{text}");
    assert!(text.contains("nowhere"), "{text}");
    assert!(!scratch.path().join("nowhere").exists());
}

#[test]
fn a_directory_is_made_once() {
    let scratch = Scratch::new();
    let peers = BTreeMap::from([(1, "127.0.0.1:0".to_owned())]);
    let config = Config::new(
        1,
        scratch.path().join("n1"),
        ClusterKey::generate().unwrap(),
        peers,
    );
    config.bootstrap().unwrap();
    assert_eq!(config.bootstrap().unwrap_err().code(), Code::Directory);
    let node = start::<String>(config);
    assert_eq!(node.append("alone".to_owned()).unwrap().first, 1);
    node.shutdown().unwrap();
}

#[test]
fn a_taken_port_is_refused() {
    let scratch = Scratch::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut config = Config::loopback(1, scratch.path()).unwrap().remove(0);
    config.peers.insert(1, address.to_string());
    let config = Config::new(1, config.data_dir, config.cluster_key, config.peers);
    let (code, text) = refusal(config);
    assert_eq!(code, Code::Io);
    assert!(text.contains(&format!("{address} is in use")), "{text}");
}

#[test]
fn a_member_without_an_address_is_named() {
    let scratch = Scratch::new();
    let mut config = Config::loopback(3, scratch.path()).unwrap().remove(0);
    config.peers.remove(&3);
    let (code, text) = refusal(config);
    assert_eq!(code, Code::Config);
    assert!(text.contains("`peers`") && text.contains("node 3"), "{text}");
}
