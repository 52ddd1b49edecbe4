//! What cannot work is refused, explained, and shows in the exit code.

use crate::{
    cluster::Cluster,
    scratch::{Scratch, kontiki, run_with, said},
};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

/// A cluster on disk that does not run.
struct Laid {
    scratch: Scratch,
}

impl Laid {
    fn new() -> Self {
        let laid = Self {
            scratch: Scratch::new(),
        };
        laid.init("a");
        // Another program may have the ports that `init` gives.
        laid.edit("http = \"127.0.0.1:7501\"", "http = \"127.0.0.1:0\"");
        laid.edit("1 = \"127.0.0.1:7401\"", "1 = \"127.0.0.1:0\"");
        laid
    }

    fn init(&self, name: &str) -> PathBuf {
        let dir = self.scratch.path(name);
        let output = run_with(
            kontiki()
                .args(["init", "--segment-bytes", "9MiB", "--dir"])
                .arg(&dir),
            b"",
        );
        assert!(output.status.success(), "{}", said(&output));
        dir
    }

    fn config(&self) -> PathBuf {
        self.scratch.path("a/n1.toml")
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    /// What `serve` says when it refuses.
    fn refusal(&self) -> String {
        refusal(&self.config())
    }
}

fn refusal(config: &Path) -> String {
    let output = run_with(kontiki().args(["serve", "--config"]).arg(config), b"");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(output.stdout.is_empty());
    said(&output)
}

/// Every word must be there.
fn tells(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
}

#[test]
fn init_overwrites_nothing() {
    let laid = Laid::new();
    let key = fs::read(laid.scratch.path("a/cluster.key")).unwrap();
    fs::remove_dir_all(laid.scratch.path("a/n2")).unwrap();
    let output = run_with(kontiki().args(["init", "--dir"]).arg(laid.scratch.path("a")), b"");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    tells(
        &said(&output),
        &["already there", "cluster.key", "n3.toml", "nothing was changed"],
    );
    assert_eq!(fs::read(laid.scratch.path("a/cluster.key")).unwrap(), key);
    assert!(!laid.scratch.path("a/n2").exists());
}

#[test]
fn what_init_writes_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let laid = Laid::new();
    let mode = |name: &str| {
        fs::metadata(laid.scratch.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("a"), mode("a/cluster.key"), mode("a/n1")),
        (0o700, 0o600, 0o700)
    );
}

#[test]
fn the_directory_of_another_node_is_refused() {
    let laid = Laid::new();
    laid.edit("data_dir = \"n1\"", "data_dir = \"n2\"");
    tells(&laid.refusal(), &["a/n2", "node 2"]);
}

#[test]
fn the_directory_of_another_cluster_is_refused() {
    let laid = Laid::new();
    let other = laid.init("b");
    fs::copy(other.join("cluster.key"), laid.scratch.path("a/cluster.key")).unwrap();
    tells(&laid.refusal(), &["a/n1", "cluster"]);
}

#[test]
fn a_missing_or_empty_directory_is_refused_and_not_made() {
    let laid = Laid::new();
    fs::remove_dir_all(laid.scratch.path("a/n1")).unwrap();
    tells(&laid.refusal(), &["a/n1"]);
    assert!(!laid.scratch.path("a/n1").exists());
    fs::create_dir(laid.scratch.path("a/n1")).unwrap();
    tells(&laid.refusal(), &["a/n1"]);
}

#[test]
fn a_missing_key_is_refused() {
    let laid = Laid::new();
    fs::remove_file(laid.scratch.path("a/cluster.key")).unwrap();
    tells(&laid.refusal(), &["a/cluster.key"]);
}

#[test]
fn a_taken_port_is_refused() {
    let laid = Laid::new();
    let http = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let taken = TcpListener::bind(&http).unwrap();
    laid.edit("http = \"127.0.0.1:0\"", &format!("http = \"{http}\""));
    tells(&laid.refusal(), &[&http, "in use"]);
    drop(taken);
    laid.edit(&format!("http = \"{http}\""), "http = \"127.0.0.1:0\"");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = taken.local_addr().unwrap().to_string();
    laid.edit("1 = \"127.0.0.1:0\"", &format!("1 = \"{peer}\""));
    tells(&laid.refusal(), &[&peer, "in use"]);
}

#[test]
fn http_for_others_is_refused() {
    let laid = Laid::new();
    laid.edit("http = \"127.0.0.1:0\"", "http = \"0.0.0.0:7501\"");
    tells(&laid.refusal(), &["n1.toml", "`http`", "0.0.0.0:7501", "TLS"]);
}

#[test]
fn a_mistake_in_the_file_is_named_by_line() {
    let laid = Laid::new();
    laid.edit("http = ", "htpp = ");
    tells(
        &laid.refusal(),
        &["n1.toml:14: unknown field `htpp`; did you mean `http`?"],
    );
    laid.edit("htpp = ", "http = ");
    laid.edit(
        "# heartbeat_interval = \"100ms\"",
        "heartbeat_interval = \"50 days\"",
    );
    tells(
        &laid.refusal(),
        &["n1.toml:20: `heartbeat_interval`", "50 days", "300ms"],
    );
    laid.edit("50 days", "9m");
    tells(&laid.refusal(), &["n1.toml:20: ", "heartbeat_interval"]);
}

#[test]
fn a_node_that_runs_already_is_not_started_twice() {
    let mut cluster = Cluster::start();
    tells(
        &refusal(&cluster.config(1)),
        &[&cluster.http_port(1).to_string(), "in use"],
    );
    // With ports of its own, it is the lock on the directory that refuses.
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let taken = [cluster.http_port(1), cluster.peer_port(1)];
    let text = taken
        .into_iter()
        .fold(text, |text, port| without_port(&text, port));
    let config = cluster.dir().join("second.toml");
    fs::write(&config, text).unwrap();
    tells(&refusal(&config), &["n1"]);
    assert_eq!(cluster.stop(1, "INT"), 0);
}

/// The text with a port taken from it that no program has.
fn without_port(text: &str, port: u16) -> String {
    text.replace(&format!("\"127.0.0.1:{port}\""), "\"127.0.0.1:0\"")
}

#[test]
fn usage_mistakes_exit_with_2() {
    let code = |args: &[&str]| run_with(kontiki().args(args), b"").status.code();
    for args in [
        &["append"][..],
        &["read", "x..y"],
        &["read"],
        &["tail", "--from", "0"],
        &["nonsense"],
        &["init"],
    ] {
        assert_eq!(code(args), Some(2), "{args:?}");
    }
    assert_eq!(code(&[]), Some(0));
}

#[test]
fn nobody_to_ask_is_an_error() {
    let output = run_with(
        kontiki().args([
            "read",
            "..",
            "--endpoint",
            "http://127.0.0.1:9",
            "--timeout",
            "200ms",
        ]),
        b"",
    );
    assert_eq!(output.status.code(), Some(1));
    tells(&said(&output), &["cannot reach http://127.0.0.1:9"]);
    let output = run_with(
        kontiki().args(["status", "--json", "--endpoint", "http://127.0.0.1:9"]),
        b"",
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"role\":\"unreachable\""));
}
