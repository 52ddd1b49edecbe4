//! The command line: what can be asked, and the help that explains it.

use crate::{client::Endpoint, range::EntryRange, units};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf, time::Duration};
use tracing_subscriber::filter::Targets;

/// The port below the first node's, unless said otherwise.
pub(crate) const BASE_PORT: u16 = 7400;

/// How long a command tries unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A replicated log: what one node acknowledges, a majority has on disk.
#[derive(Parser)]
#[command(name = "kontiki", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// What to log on standard error: a level, or levels by module such as `info,kontiki_transport=debug`
    #[arg(long, global = true, env = "KONTIKI_LOG", value_name = "FILTER")]
    pub(crate) log: Option<Targets>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run three nodes on this machine and play with them at a prompt
    Demo(DemoArgs),
    /// Make a cluster: its key, a configuration file and a data directory for each node
    Init(InitArgs),
    /// Run one node
    Serve(ServeArgs),
    /// Append entries and print their indexes
    Append(AppendArgs),
    /// Print entries, one a line
    Read(ReadArgs),
    /// Print entries as they are appended
    Tail(TailArgs),
    /// Ask every endpoint how its node is
    Status(StatusArgs),
}

/// `kontiki demo`.
#[derive(Args, Clone)]
#[command(
    after_help = "Commands are read from standard input, one a line; `help` lists them. The demo\nends with its input, \
                  or when its output is not read any more. From a pipe, the exit code\nis not zero if any command failed."
)]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: Option<u64>,
    /// Keep the cluster in this directory and open it again next time [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `kontiki init`.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: u64,
    /// Where to put the cluster; nothing in it is overwritten
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Node k gets port PORT+k and HTTP port PORT+100+k
    #[arg(long, value_name = "PORT", default_value_t = BASE_PORT)]
    pub(crate) base_port: u16,
    /// Length of a file of the log; a node keeps two even if they are empty [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = segment_bytes)]
    pub(crate) segment_bytes: Option<u64>,
}

/// A length that every other default goes with.
fn segment_bytes(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        bytes if (9 << 20..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err(format!("`{text}` is not within 9MiB to 1GiB")),
    }
}

/// `kontiki serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The data directory was moved, or its newest copy put back: start it where it is now. Never with any other copy
    #[arg(long)]
    pub(crate) moved: bool,
}

/// What every command shares that talks to a cluster.
#[derive(Args)]
pub(crate) struct ClientArgs {
    /// Where a node serves HTTP: HOST:PORT or http://HOST:PORT; may be given several times, and they are tried in turn
    #[arg(
        long = "endpoint",
        value_name = "URL",
        env = "KONTIKI_ENDPOINTS",
        value_delimiter = ','
    )]
    #[arg(default_value = "http://127.0.0.1:7501,http://127.0.0.1:7502,http://127.0.0.1:7503")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Print JSON, one object a line; an entry is in `text`, or in `base64` if it is not UTF-8
    #[arg(long)]
    pub(crate) json: bool,
    /// How long to try before giving up: seconds, or with a unit (500ms, 2m) [default: 10s; status: 3s, and 1s once a
    /// node has answered]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
}

impl ClientArgs {
    /// How long to try before giving up.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }
}

/// `kontiki append`.
#[derive(Args)]
#[command(after_help = "\
The TEXTs given together are appended together or not at all. Lines are appended
in order, in batches; a batch is appended whole or not at all. An append without
an answer is sent again, to whichever endpoint answers, and is there once; if
that does not succeed within the timeout, it is named at the end as unknown.
`append -` makes one entry of standard input, the bytes as they are; `append
--lines -` makes one of each line.

Exit codes: 0 all appended; 1 not all appended, or their indexes could not be
printed; 2 usage; 5 it is not known whether some were appended; 130 interrupted.")]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// An entry; `-` for what standard input holds
    #[arg(required_unless_present = "lines")]
    pub(crate) text: Vec<OsString>,
    /// Append each line of a file, or of standard input (-), as an entry
    #[arg(long, value_name = "FILE|-", conflicts_with = "text")]
    pub(crate) lines: Option<PathBuf>,
    /// Open no session: what certainly was not appended is tried again, what may have been is named as unknown
    #[arg(long)]
    pub(crate) no_session: bool,
    /// With --lines: tell of each batch on standard error
    #[arg(long, short, requires = "lines")]
    pub(crate) verbose: bool,
}

/// `kontiki read`.
#[derive(Args)]
#[command(after_help = "\
Unless said otherwise, reads see every append that was acknowledged before they
began. Entries are printed as the bytes they are, each followed by a newline; on
a terminal, control characters are escaped. A range that goes beyond the end of
the log gives the entries there are, and standard error says where it ends.

Exit codes: 0 all of the range that the log holds was printed, or nobody reads
any more; 1 it was not, or the log does not hold the one entry that was asked
for; 2 usage.")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Which entries: FROM..TO (TO not included), FROM..=TO, FROM.., ..TO, .. or one index; they count from 1
    #[arg(value_name = "FROM..TO")]
    pub(crate) range: EntryRange,
    /// How fresh what is read must be
    #[arg(long, value_enum, default_value = "linearizable")]
    pub(crate) consistency: ReadConsistency,
    /// By how much `--consistency stale` may be behind [default: however much]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) max_lag: Option<Duration>,
    /// The entry that `--consistency at_least` waits for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(required_if_eq("consistency", "at_least"))]
    pub(crate) index: Option<u64>,
}

/// How fresh a read must be, in the words of the HTTP interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ReadConsistency {
    /// Every append that was acknowledged before
    Linearizable,
    /// The same, on the word of the leader's clock where the cluster has leases
    Lease,
    /// What the node has at hand, which may be behind; works without a majority
    Stale,
    /// At least the entry that --index names, which the node waits for
    AtLeast,
}

/// `kontiki tail`.
#[derive(Args)]
#[command(after_help = "\
Ends when interrupted, when nobody reads any more (exit code 0), or when no
endpoint answered for the time given with --timeout (exit code 1). That nothing
is appended is no reason to end: nodes are asked for heartbeats. A node that is
silent for the time given with --timeout (3s to 180s), or knows no leader for
2s, is left for the next one.")]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The first entry to print [default: the tenth from the end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
}

/// `kontiki status`.
#[derive(Args)]
#[command(after_help = "Exit code 0 if at least one node answered.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints_have_defaults_and_can_be_given_together() {
        let endpoints = |args: &[&str]| {
            let Some(Command::Status(args)) = Cli::try_parse_from(args).unwrap().command else {
                panic!()
            };
            args.client
                .endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(endpoints(&["kontiki", "status"]).len(), 3);
        let given = [
            "kontiki",
            "status",
            "--endpoint",
            "http://a:1,http://b:2",
            "--endpoint",
            "http://c:3",
        ];
        assert_eq!(endpoints(&given), ["http://a:1", "http://b:2", "http://c:3"]);
    }
}
