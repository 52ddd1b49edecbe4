//! Directories that are made anew, put back or copied: the others refuse them, and what is acknowledged stays.

use crate::common::{PATIENCE, Scratch, durable, eventually, leader, shut_down, start};
use kontiki::{BlockingHandle, Code, Config, Consistency, LogOnly, PeerStatus, RaftNode, Role};
use std::{
    fs,
    path::{Path, PathBuf},
};

type Node = BlockingHandle<String>;

/// A cluster whose ports are bound before it starts, so that a node can be started later at the same place.
struct Cluster {
    scratch: Scratch,
    configs: Vec<Option<Config>>,
}

impl Cluster {
    /// Three nodes that have all met each other, with an entry; then all of them are shut down.
    fn new() -> Self {
        let scratch = Scratch::new();
        let nodes = durable::<String>(scratch.path());
        nodes[0].append("first".to_owned()).unwrap();
        eventually("all to meet", || nodes.iter().all(knows_all));
        shut_down(&nodes);
        let configs = Vec::new();
        Self { scratch, configs }
    }

    /// The next lives of all nodes, with ports of their own.
    fn rebind(&mut self) {
        let configs = Config::loopback(3, self.scratch.path()).unwrap();
        self.configs = configs.into_iter().map(Some).collect();
    }

    fn config(&mut self, id: usize) -> Config {
        self.configs[id - 1].take().unwrap()
    }

    fn start(&mut self, id: usize) -> Node {
        start(self.config(id))
    }

    fn dir(&self, id: usize) -> PathBuf {
        self.scratch.path().join(format!("n{id}"))
    }
}

fn knows_all(node: &Node) -> bool {
    let peers = node.status().peers;
    peers.len() == 2 && peers.iter().all(|peer| peer.connected)
}

fn values(node: &Node) -> Vec<String> {
    let read = node.read(.., Consistency::Linearizable).unwrap();
    read.entries.into_iter().map(|entry| entry.value).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn peer(node: &Node, id: u64) -> PeerStatus {
    let peers = node.status().peers;
    peers.into_iter().find(|peer| peer.id == id).unwrap()
}

/// The node stops itself; why.
fn stopped(node: &Node) -> String {
    eventually("the node to stop", || node.status().role == Role::Fatal);
    node.status().stopped.unwrap()
}

/// What starting a node says when it is refused.
fn refusal(config: Config) -> String {
    let started = RaftNode::<LogOnly<String>>::new(config).unwrap().start();
    let error = started.unwrap_err();
    assert_eq!(error.code(), Code::Directory, "{error}");
    error.to_string()
}

/// Twenty entries that nodes 1 and 2 alone hold; then nobody runs.
fn acknowledge_without_three(cluster: &mut Cluster) {
    cluster.rebind();
    let (one, two) = (cluster.start(1), cluster.start(2));
    one.wait_ready(PATIENCE).unwrap();
    for n in 0..20 {
        one.append(format!("acknowledged {n}")).unwrap();
    }
    shut_down(&[one, two]);
}

#[test]
fn a_directory_made_anew_is_refused_after_a_restart_of_the_others() {
    let mut cluster = Cluster::new();
    acknowledge_without_three(&mut cluster);
    cluster.rebind();
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    let two = cluster.config(2);
    two.bootstrap().unwrap();
    let (two, three) = (start::<String>(two), cluster.start(3));
    let why = stopped(&two);
    assert!(
        why.contains("node 3 refuses this node") && why.contains("made anew"),
        "{why}"
    );
    eventually("node 3 to say so", || {
        peer(&three, 2)
            .refused
            .is_some_and(|why| why.contains("made anew"))
    });
    let one = cluster.start(1);
    assert_eq!(values(&three).len(), 21, "nothing acknowledged is lost");
    assert_eq!(values(&one).len(), 21);
    shut_down(&[one, two, three]);
    cluster.rebind();
    let again = refusal(cluster.config(2));
    assert!(again.contains("must not be started any more"), "{again}");
}

#[test]
fn an_old_copy_that_is_put_back_is_refused_although_the_newest_holder_is_down() {
    let mut cluster = Cluster::new();
    let old = cluster.scratch.path().join("old");
    copy(&cluster.dir(2), &old);
    acknowledge_without_three(&mut cluster);
    // Node 3 has not met node 2 since; node 1 has.
    let newest = cluster.scratch.path().join("newest");
    fs::rename(cluster.dir(2), &newest).unwrap();
    copy(&old, &cluster.dir(2));
    cluster.rebind();
    let why = refusal(cluster.config(2));
    assert!(
        why.contains("is a copy of that") && why.contains("--moved"),
        "{why}"
    );
    cluster.rebind();
    let mut two = cluster.config(2);
    two.moved = true;
    let (one, two) = (cluster.start(1), start::<String>(two));
    let why = stopped(&two);
    assert!(why.contains("an old copy was put back"), "{why}");
    eventually("node 1 to say so", || peer(&one, 2).refused.is_some());
    shut_down(&[one, two]);
    // The newest one is welcome: it was moved within its file system, which is no copy.
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    fs::rename(&newest, cluster.dir(2)).unwrap();
    cluster.rebind();
    let (one, two) = (cluster.start(1), cluster.start(2));
    assert_eq!(values(&one).len(), 21);
    assert_eq!(peer(&one, 2).refused, None);
    shut_down(&[one, two]);
}

#[test]
fn a_copy_that_runs_beside_the_original_is_refused_and_takes_nothing_from_it() {
    let mut cluster = Cluster::new();
    let dir = cluster.scratch.path().join("copy");
    copy(&cluster.dir(2), &dir);
    cluster.rebind();
    let nodes: Vec<Node> = (1..=3).map(|id| cluster.start(id)).collect();
    eventually("all to meet", || nodes.iter().all(knows_all));
    let leads = leader(&nodes);
    let copy_of = |moved| {
        let mut config = Config::loopback(3, cluster.scratch.path()).unwrap().remove(1);
        for (id, at) in [(1, 0), (3, 2)] {
            let address = peer(&nodes[(at + 1) % 3], id).address;
            config.peers.insert(id, address);
        }
        (config.data_dir, config.moved) = (dir.clone(), moved);
        config
    };
    let why = refusal(copy_of(false));
    assert!(why.contains("is a copy of that"), "{why}");
    let twin = start::<String>(copy_of(true));
    let why = stopped(&twin);
    assert!(why.contains("twice"), "{why}");
    eventually("the others to name it", || {
        [0, 2].iter().any(|at| {
            peer(&nodes[*at], 2)
                .refused
                .is_some_and(|why| why.contains("twice"))
        })
    });
    assert_eq!(
        nodes[1].append("through the original".to_owned()).unwrap().first,
        2
    );
    assert!(nodes.iter().all(|node| node.status().stopped.is_none()));
    assert_eq!(leader(&nodes), leads);
    shut_down(&nodes);
    shut_down(&[twin]);
}
