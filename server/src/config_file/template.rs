//! The configuration file as `kontiki init` writes it.

use std::fmt::Write;

/// What stands in a file.
pub(crate) struct Template<'a> {
    /// The node it is for.
    pub(crate) node: u64,
    /// The cluster's id.
    pub(crate) cluster: &'a str,
    /// Where HTTP is served.
    pub(crate) http: &'a str,
    /// The addresses of all nodes.
    pub(crate) peers: &'a [(u64, String)],
    /// Sizes that differ from the defaults.
    pub(crate) sizes: Sizes,
}

/// Sizes that are fixed when a cluster is made, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sizes {
    /// The largest batch, if not the default.
    pub(crate) batch_bytes_max: Option<u64>,
    /// Length of a file of the log, if not the default.
    pub(crate) segment_bytes: Option<u64>,
}

/// A line that sets a size, or shows the default of it in a comment.
fn size_line(name: &str, bytes: Option<u64>, default: &str) -> String {
    match bytes {
        Some(bytes) => format!("{name} = {bytes}"),
        None => format!("# {name} = \"{default}\""),
    }
}

/// The port of a node, as an example.
fn port_of(node: u64, peers: &[(u64, String)]) -> &str {
    let own = peers.iter().find(|(id, _)| *id == node);
    own.and_then(|(_, at)| at.rsplit(':').next()).unwrap_or("7400")
}

/// What clients may hold over HTTP, with the defaults.
const HTTP_LIMITS: &str = "\
# What clients may hold over HTTP; more about it in docs/HTTP.md. Connections at once (half of the descriptors the process may
# have, 1024 at most, unless set) and from one address (three of four); how long a connection may wait for a request, a body
# may take to come, and a client may take nothing of an answer; bytes of large requests and of answers at once.
# http_connections_max = 1024
# http_connections_per_address_max = 768
# http_idle_timeout = \"60s\"
# http_body_timeout = \"30s\"
# http_write_timeout = \"60s\"
# http_requests_bytes_max = \"64MiB\"
# http_answers_bytes_max = \"128MiB\"
";

/// Writes a file.
pub(crate) fn render(template: &Template<'_>) -> String {
    let Template {
        node,
        cluster,
        http,
        peers,
        sizes,
    } = template;
    let mut peer_lines = String::new();
    for (id, address) in *peers {
        let _ = writeln!(peer_lines, "{id} = \"{address}\"");
    }
    format!(
        r#"# Node {node} of cluster {cluster}.
# Run it: kontiki serve --config n{node}.toml
# Relative paths are relative to this file. Sizes are bytes or "64KiB", "4MiB"; durations "300ms", "10s".

node = {node}

# The key all nodes of the cluster share. Whoever holds it can join: keep it secret.
cluster_key = "cluster.key"

# This node's log. It belongs to this node alone: move it, never copy it to run twice.
data_dir = "n{node}"

# Where programs and the command line reach this node. HTTP has no TLS, so only a loopback address is taken.
http = "{http}"

# Where this node receives from the others, if not at its own address below (behind NAT, in a container).
# listen = "0.0.0.0:{port}"

# Larger for nodes that are far apart: an election timeout is many heartbeats, and a heartbeat more than a round trip.
# heartbeat_interval = "100ms"
# election_timeout_min = "300ms"
# election_timeout_max = "600ms"

# How long an append or a read may take unless the caller says so.
# request_timeout = "10s"

# How long a session of a client may be silent before what it appended is no longer remembered.
# session_ttl = "3600s"

# The largest entry, and the largest batch of entries that is appended as one. The same on every node.
# entry_bytes_max = "1MiB"
{batch}

# Length of a file of the log, for files made from now on; a node keeps two even if they are empty.
{segment}

# How much of the log is kept at least; what is older is forgotten, by either, a whole file of the log at a time. Without
# them everything is kept. The leader's setting counts: the same on every node.
# retention_bytes = "1GiB"
# retention_age = "7d"

{HTTP_LIMITS}
# Leases: a leader answers reads with `consistency=lease` alone, on the word that no clock runs faster than another by more
# than so many millionths. The same on every node, as election_timeout_min then is too; to change either, stop all nodes.
# lease_drift_ppm = 1000

# What nodes reach each other by: "tcp", or "quic", which goes over UDP. The same on every node; to change it, stop all nodes.
# carrier = "tcp"

# The address of every node, this one's too; host names too; the same on all.
[peers]
{peer_lines}"#,
        batch = size_line("batch_bytes_max", sizes.batch_bytes_max, "4MiB"),
        segment = size_line("segment_bytes", sizes.segment_bytes, "64MiB"),
        port = port_of(*node, peers),
    )
}
