//! The configuration file of one node: read, checked, and turned into a [`Config`]; and written by `kontiki init`.
//!
//! A relative path in the file is relative to the file, so that a directory can be moved as a whole. Names of fields
//! are those of [`Config`].

mod http;
mod table;
mod template;

pub(crate) use template::{Sizes, Template, render};

use crate::{admission::HttpSettings, failure::Failure};
use kontiki::{Carrier, ClusterKey, Code, Config};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use table::Table;

/// The fields that are no tuning.
const FIELDS: [&str; 7] = [
    "node",
    "cluster_key",
    "data_dir",
    "http",
    "peers",
    "listen",
    "carrier",
];

/// A field that tunes something, and where it goes.
struct Tuning<T> {
    name: &'static str,
    put: fn(&mut Config, T),
}

/// What a file sets, and where it goes.
type Settings<T> = Vec<(fn(&mut Config, T), T)>;

const DURATIONS: [Tuning<Duration>; 6] = [
    Tuning {
        name: "heartbeat_interval",
        put: |config, value| config.heartbeat_interval = value,
    },
    Tuning {
        name: "election_timeout_min",
        put: |config, value| config.election_timeout_min = value,
    },
    Tuning {
        name: "election_timeout_max",
        put: |config, value| config.election_timeout_max = value,
    },
    Tuning {
        name: "request_timeout",
        put: |config, value| config.request_timeout = value,
    },
    Tuning {
        name: "session_ttl",
        put: |config, value| config.session_ttl = value,
    },
    Tuning {
        name: "retention_age",
        put: |config, value| config.retention_age = Some(value),
    },
];

const SIZES: [Tuning<u64>; 8] = [
    Tuning {
        name: "entry_bytes_max",
        put: |config, value| config.entry_bytes_max = clamp(value),
    },
    Tuning {
        name: "batch_bytes_max",
        put: |config, value| config.batch_bytes_max = clamp(value),
    },
    Tuning {
        name: "in_flight_bytes_max",
        put: |config, value| config.in_flight_bytes_max = clamp(value),
    },
    Tuning {
        name: "read_bytes_max",
        put: |config, value| config.read_bytes_max = clamp(value),
    },
    Tuning {
        name: "tail_bytes_max",
        put: |config, value| config.tail_bytes_max = clamp(value),
    },
    Tuning {
        name: "segment_bytes",
        put: |config, value| config.segment_bytes = value,
    },
    Tuning {
        name: "session_answers_bytes_max",
        put: |config, value| config.session_answers_bytes_max = clamp(value),
    },
    Tuning {
        name: "retention_bytes",
        put: |config, value| config.retention_bytes = Some(value),
    },
];

const COUNTS: [Tuning<u64>; 2] = [
    Tuning {
        name: "sessions_max",
        put: |config, value| config.sessions_max = clamp(value),
    },
    Tuning {
        name: "lease_drift_ppm",
        put: |config, value| config.lease_drift_ppm = Some(u32::try_from(value).unwrap_or(u32::MAX)),
    },
];

/// Sizes above the address space are as good as the largest one; [`Config::check`] refuses either.
fn clamp(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// What a configuration file says.
pub(crate) struct ConfigFile {
    path: PathBuf,
    /// The node this file is for.
    pub(crate) node: u64,
    /// Where the cluster key lies.
    pub(crate) cluster_key: PathBuf,
    /// Where the node keeps its log.
    pub(crate) data_dir: PathBuf,
    /// Where HTTP is served: `host:port`.
    pub(crate) http: String,
    /// The addresses of all nodes, this one's too.
    pub(crate) peers: BTreeMap<u64, String>,
    /// What HTTP may hold.
    pub(crate) limits: HttpSettings,
    listen: Option<SocketAddr>,
    carrier: Option<Carrier>,
    durations: Settings<Duration>,
    sizes: Settings<u64>,
    counts: Settings<u64>,
    lines: BTreeMap<&'static str, usize>,
}

impl ConfigFile {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let source = std::fs::read_to_string(path).map_err(|error| {
            Failure::io("read the configuration", path, &error)
                .advise("`kontiki init` writes one for each node")
        })?;
        Self::parse(path, &source).map_err(|mistake| Failure::new(Code::Config, mistake))
    }

    fn parse(path: &Path, source: &str) -> Result<Self, String> {
        let table = Table::parse(path, source)?;
        table.only(&known())?;
        let base = path.parent().unwrap_or(Path::new(""));
        let file = Self {
            path: path.to_owned(),
            node: table.required("node", NODE, table.number("node", NODE)?)?,
            cluster_key: base.join(text(&table, "cluster_key", "the path of the cluster key")?),
            data_dir: base.join(text(&table, "data_dir", "the path of the data directory")?),
            http: text(
                &table,
                "http",
                "host:port, on this machine, such as \"127.0.0.1:7501\"",
            )?,
            peers: table
                .required("peers", PEERS, table.by_node("peers", PEERS)?)?
                .into_iter()
                .collect(),
            limits: http::settings(&table)?,
            listen: table.parsed("listen", LISTEN)?,
            carrier: table.parsed("carrier", CARRIER)?,
            durations: settings(&DURATIONS, |name| table.duration(name))?,
            sizes: settings(&SIZES, |name| table.size(name))?,
            counts: settings(&COUNTS, |name| table.number(name, "a number, from 1"))?,
            lines: known()
                .into_iter()
                .filter_map(|name| Some((name, table.line(name)?)))
                .collect(),
        };
        match file.peers.contains_key(&file.node) {
            true => Ok(file),
            false => Err(format!(
                "{}: `peers` does not name node {} itself",
                file.place("peers"),
                file.node
            )),
        }
    }

    /// The configuration it describes, with the cluster key.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let key = ClusterKey::load(&self.cluster_key)?;
        let mut config = Config::new(self.node, &self.data_dir, key, self.peers.clone());
        config.listen = self.listen;
        config.carrier = self.carrier.unwrap_or_default();
        for (put, value) in &self.durations {
            put(&mut config, *value);
        }
        for (put, value) in self.sizes.iter().chain(&self.counts) {
            put(&mut config, *value);
        }
        config.check().map_err(|error| self.mistake(error))?;
        Ok(config)
    }

    /// Names the line of the field that a check of the configuration objects to.
    fn mistake(&self, error: kontiki::Error) -> Failure {
        let field = match &error {
            kontiki::Error::Config { field, .. } => *field,
            _ => return error.into(),
        };
        let failure = Failure::from(error);
        Failure {
            text: format!("{}: {}", self.place(field), failure.text),
            ..failure
        }
    }

    /// The file, and the line of a field if it stands there.
    fn place(&self, field: &str) -> String {
        match self.lines.get(field) {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }
}

const NODE: &str = "a node's number, from 1";
const PEERS: &str = "a table of addresses by node, such as 1 = \"127.0.0.1:7401\"";
const LISTEN: &str = "an IP address and port, such as \"0.0.0.0:7401\"";

const CARRIER: &str = "\"quic\" or \"tcp\"";

/// The names of all fields.
fn known() -> Vec<&'static str> {
    let durations = DURATIONS.iter().map(|tuning| tuning.name);
    let sizes = SIZES.iter().map(|tuning| tuning.name);
    let counts = COUNTS.iter().map(|tuning| tuning.name);
    FIELDS
        .into_iter()
        .chain(durations)
        .chain(sizes)
        .chain(counts)
        .chain(http::names())
        .collect()
}

fn text(table: &Table<'_>, name: &str, allowed: &str) -> Result<String, String> {
    table.required(name, allowed, table.text(name, allowed)?)
}

/// The fields of a kind that the file sets.
fn settings<T>(
    tunings: &[Tuning<T>],
    read: impl Fn(&str) -> Result<Option<T>, String>,
) -> Result<Settings<T>, String> {
    let set = tunings
        .iter()
        .filter_map(|tuning| Some((tuning.put, read(tuning.name).transpose()?)));
    set.map(|(put, value)| Ok((put, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "node = 2\ncluster_key = \"k\"\ndata_dir = \"/abs/n2\"\nhttp = \"localhost:7502\"\n\
                         heartbeat_interval = \"20ms\"\n[peers]\n1 = \"a:1\"\n2 = \"b:2\"\n";

    fn parse(source: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(Path::new("dir/n2.toml"), source)
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let file = parse(WHOLE).unwrap();
        assert_eq!(file.cluster_key, Path::new("dir/k"));
        assert_eq!(file.data_dir, Path::new("/abs/n2"));
        assert_eq!(file.durations.len(), 1);
        assert_eq!(file.place("heartbeat_interval"), "dir/n2.toml:5");
        assert_eq!(file.carrier, None);
        let quic = parse(&WHOLE.replace("[peers]", "carrier = \"quic\"\n[peers]")).unwrap();
        assert_eq!(quic.carrier, Some(Carrier::Quic));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |from: &str, to: &str| parse(&WHOLE.replace(from, to)).err().unwrap();
        assert!(error("node = 2\n", "").starts_with("dir/n2.toml: `node` is missing; "));
        assert!(error("node = 2", "node = 0").starts_with("dir/n2.toml:1: `node` is 0; "));
        assert!(error("node = 2", "node = 3").contains("does not name node 3 itself"));
        assert!(error("20ms", "soon").starts_with("dir/n2.toml:5: `heartbeat_interval` is \"soon\"; "));
        assert!(
            error("[peers]", "carrier = \"udp\"\n[peers]")
                .contains("`carrier` is \"udp\"; it must be \"quic\" or \"tcp\"")
        );
        assert!(error("http =", "htpp =").ends_with("unknown field `htpp`; did you mean `http`?"));
    }

    #[test]
    fn what_init_writes_is_understood() {
        let peers = [(1, "127.0.0.1:7401".to_owned()), (2, "127.0.0.1:7402".to_owned())];
        let template = Template {
            node: 2,
            cluster: "c",
            http: "127.0.0.1:7502",
            peers: &peers,
            sizes: Sizes::default(),
        };
        let source = render(&template);
        let file = parse(&source).unwrap();
        assert_eq!(
            (file.node, file.http.as_str(), file.peers.len()),
            (2, "127.0.0.1:7502", 2)
        );
        let sizes = Sizes {
            batch_bytes_max: Some(1 << 20),
            segment_bytes: Some(8 << 20),
        };
        assert_eq!(
            parse(&render(&Template { sizes, ..template }))
                .unwrap()
                .sizes
                .len(),
            2
        );
        // What is commented out must be right once the comment is taken away.
        let all = source
            .replace("\n# listen", "\nlisten")
            .lines()
            .map(uncomment)
            .collect::<Vec<_>>()
            .join("\n");
        let file = parse(&all).unwrap();
        assert_eq!(
            (file.durations.len(), file.sizes.len(), file.counts.len()),
            (6, 4, 1)
        );
        assert!(file.listen.is_some());
        let limits = format!("{:?}", file.limits);
        let shown = HttpSettings {
            connections_max: Some(1024),
            connections_per_address_max: Some(768),
            ..HttpSettings::default()
        };
        assert_eq!(limits, format!("{shown:?}"), "the defaults are shown");
    }

    fn uncomment(line: &str) -> &str {
        let bare = line
            .strip_prefix("# ")
            .filter(|bare| bare.contains(" = \"") || bare.contains("_ppm = ") || bare.contains("_max = "));
        bare.unwrap_or(line)
    }
}
