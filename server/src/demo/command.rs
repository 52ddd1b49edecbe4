//! What can be typed at the prompt.

use crate::{nearest::nearest, range::EntryRange};
use std::path::PathBuf;

/// What `help` prints.
pub(super) const HELP: &str = "\
append TEXT       append TEXT as one entry
append-file PATH  append each line of a file as an entry
read A..B [N]     print entries A up to B (either end may be left out), from node N or any
tail              print entries as they are appended; again to stop
status            how every node is
kill N            stop node N at once, as a crash would
pause N           freeze node N: it neither sends nor receives
start N           start node N again from its directory, or unfreeze it
help              this
quit              end the demo";

const VERBS: [&str; 10] = [
    "append",
    "append-file",
    "read",
    "tail",
    "status",
    "kill",
    "pause",
    "start",
    "help",
    "quit",
];

/// A line of input, understood.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// An empty line.
    Nothing,
    /// Append one entry.
    Append(Vec<u8>),
    /// Append each line of a file.
    AppendFile(PathBuf),
    /// Print a range, from one node or any.
    Read(EntryRange, Option<u64>),
    /// Begin or stop printing entries as they are appended.
    Tail,
    /// Print how the nodes are.
    Status,
    /// Stop a node abruptly.
    Kill(u64),
    /// Freeze a node.
    Pause(u64),
    /// Start or unfreeze a node.
    Start(u64),
    /// Print the commands.
    Help,
    /// End the demo.
    Quit,
}

/// Understands a line, given without its end. What follows `append ` is the entry, byte for byte.
pub(super) fn parse(line: &[u8]) -> Result<Command, String> {
    if let Some(text) = line.strip_prefix(b"append ") {
        return Ok(Command::Append(text.to_vec()));
    }
    let line = std::str::from_utf8(line)
        .map_err(|_| "only the text of `append` may be other than UTF-8")?
        .trim();
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match (verb, rest.is_empty()) {
        ("", _) => Ok(Command::Nothing),
        ("append", _) => Err("append what? `append TEXT`".into()),
        ("append-file", false) => Ok(Command::AppendFile(rest.into())),
        ("append-file", true) => Err("append which file? `append-file PATH`".into()),
        ("read", _) => read(rest),
        ("kill", _) => node(rest).map(Command::Kill),
        ("pause", _) => node(rest).map(Command::Pause),
        ("start", _) => node(rest).map(Command::Start),
        ("tail", true) => Ok(Command::Tail),
        ("status", true) => Ok(Command::Status),
        ("help", _) => Ok(Command::Help),
        ("quit" | "exit", true) => Ok(Command::Quit),
        ("tail" | "status" | "quit" | "exit", false) => Err(format!("`{verb}` takes nothing more")),
        _ => Err(unknown(verb)),
    }
}

fn read(rest: &str) -> Result<Command, String> {
    let (range, at) = match rest.split_once(char::is_whitespace) {
        Some((range, at)) => (range, Some(node(at.trim())?)),
        None => (if rest.is_empty() { ".." } else { rest }, None),
    };
    Ok(Command::Read(range.parse()?, at))
}

fn node(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| match text {
        "" => "which node? Give its number".to_owned(),
        _ => format!("`{text}` is not the number of a node"),
    })
}

fn unknown(verb: &str) -> String {
    match nearest(verb, VERBS) {
        Some(near) => format!("unknown command `{verb}`; did you mean `{near}`?"),
        None => format!("unknown command `{verb}`; `help` lists what there is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(line: &str) -> Command {
        parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(
            ok("append  two  spaces "),
            Command::Append(b" two  spaces ".to_vec())
        );
        assert_eq!(parse(b"append \xff\r"), Ok(Command::Append(b"\xff\r".to_vec())));
        assert_eq!(ok("append-file a b.txt"), Command::AppendFile("a b.txt".into()));
        assert_eq!(
            ok("read 2..4"),
            Command::Read(
                EntryRange {
                    from: Some(2),
                    to: Some(4)
                },
                None
            )
        );
        assert_eq!(
            ok(" read  ..  3 "),
            Command::Read(EntryRange { from: None, to: None }, Some(3))
        );
        assert_eq!(
            ok("read"),
            Command::Read(EntryRange { from: None, to: None }, None)
        );
        assert_eq!(ok("kill 2\r"), Command::Kill(2));
        assert_eq!(ok("  "), Command::Nothing);
        assert_eq!(ok("exit"), Command::Quit);
    }

    #[test]
    fn what_is_not_understood_is_explained() {
        let error = |line: &str| parse(line.as_bytes()).unwrap_err();
        assert_eq!(error("stat"), "unknown command `stat`; did you mean `start`?");
        assert_eq!(
            error("frobnicate"),
            "unknown command `frobnicate`; `help` lists what there is"
        );
        assert_eq!(error("kill"), "which node? Give its number");
        assert_eq!(error("kill two"), "`two` is not the number of a node");
        assert_eq!(error("append"), "append what? `append TEXT`");
        assert_eq!(error("status now"), "`status` takes nothing more");
    }

    #[test]
    fn help_tells_of_every_command() {
        assert!(
            VERBS
                .iter()
                .all(|verb| HELP.lines().any(|line| line.starts_with(verb)))
        );
    }
}
