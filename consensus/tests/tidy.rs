//! Rules of the whole repository that the compiler does not know: who may know whom, what keeps the
//! deterministic crates deterministic, how long files and functions may be.

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, path::PathBuf, process::Command};

/// Each crate and the crates of ours it may name, as `docs/ARCHITECTURE.md` has it.
const MAY_KNOW: [(&str, &[&str]); 8] = [
    ("consensus", &[]),
    ("wire", &["consensus"]),
    ("log", &["wire", "consensus"]),
    ("node", &["log", "wire", "consensus"]),
    ("transport", &["wire", "consensus"]),
    ("kontiki", &["node", "transport", "log", "wire", "consensus"]),
    ("sim", &["node", "log", "wire", "consensus"]),
    ("server", &["kontiki"]),
];

/// Only these may wait for anything by way of tokio.
const MAY_USE_TOKIO: [&str; 3] = ["transport", "kontiki", "server"];

/// Crates whose runs must be repeatable, and what would make them differ.
const DETERMINISTIC: [&str; 4] = ["consensus", "wire", "log", "node"];
const CHANCE: [&str; 5] = ["Instant", "SystemTime", "thread::", "HashMap", "HashSet"];
const MAY_HAVE_THREADS: &str = "log/src/os_disk.rs";

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// A source file: where it is, and its lines with strings and comments blanked.
struct Source {
    path: String,
    text: String,
    code: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.expect("an entry of a folder").path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file of a crate, without its tests.
fn sources(krate: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    rust_files(&root().join(krate).join("src"), &mut paths);
    let is_test = |path: &PathBuf| {
        let within = path.strip_prefix(root()).unwrap_or(path).with_extension("");
        within.components().any(|part| part.as_os_str() == "tests")
    };
    paths.retain(|path| !is_test(path));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        let path = path
            .strip_prefix(root())
            .expect("within the repository")
            .display()
            .to_string();
        let code = without_tests(blanked(&text));
        Source { path, text, code }
    };
    paths.into_iter().map(read).collect()
}

fn all_sources() -> Vec<Source> {
    MAY_KNOW.iter().flat_map(|(krate, _)| sources(krate)).collect()
}

/// Up to the first `#[cfg(test)] mod`, by custom the end of the file.
fn without_tests(lines: Vec<String>) -> Vec<String> {
    let is_test = |pair: &[String]| pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod ");
    let end = lines.windows(2).position(is_test).unwrap_or(lines.len());
    lines.into_iter().take(end).collect()
}

/// The lines of a file with the content of strings, characters and comments left out.
fn blanked(text: &str) -> Vec<String> {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = literal(rest, code.chars().next_back());
        let skipped = &rest[..taken.max(first.len_utf8())];
        if taken == 0 {
            code.push(first);
        } else {
            // Line numbers stay as they were.
            code.extend(skipped.chars().filter(|c| *c == '\n'));
        }
        rest = &rest[skipped.len()..];
    }
    code.lines().map(str::to_owned).collect()
}

/// How long a string, character or comment at the start of `rest` is; zero if there is none.
fn literal(rest: &str, before: Option<char>) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |n| from + n + end.len())
    };
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if rest.starts_with('"') {
        return escaped(rest, '"');
    }
    if rest.starts_with('r') && !in_word {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), hashes + 2);
        }
    }
    let mut characters = rest.chars();
    match (characters.next(), characters.next(), characters.next()) {
        (Some('\''), Some('\\'), _) => escaped(rest, '\''),
        (Some('\''), Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// The length of a literal that ends at `quote`, escapes skipped.
fn escaped(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The functions of a file: the line each begins in, and how many lines it has.
fn functions(code: &[String]) -> Vec<(usize, usize)> {
    let mut open: Vec<(usize, i64)> = Vec::new();
    let mut awaiting: Option<usize> = None;
    let (mut braces, mut brackets, mut found) = (0_i64, 0_i64, Vec::new());
    for (n, line) in code.iter().enumerate() {
        if is_function(line) {
            awaiting = Some(n);
        }
        for c in line.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '{' => {
                    braces += 1;
                    open.extend(awaiting.take().map(|begin| (begin, braces)));
                }
                '}' => {
                    let ended = open.pop_if(|(_, at)| *at == braces);
                    found.extend(ended.map(|(begin, _)| (begin + 1, n - begin + 1)));
                    braces -= 1;
                }
                // A declaration without a body; within brackets it is the length of an array.
                ';' if brackets == 0 => awaiting = None,
                _ => {}
            }
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let qualifiers = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "const",
        "async",
        "unsafe",
        "extern",
    ];
    line.split_whitespace().find(|word| !qualifiers.contains(word)) == Some("fn")
}

/// The words of a line that are names or parts of paths.
fn mentions(line: &str, what: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(what).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + what.len()..]);
        let open = what.ends_with(':');
        !before.ends_with(is_word) && (open || !after.starts_with(is_word))
    })
}

/// The names of the dependencies in each section of a manifest.
fn dependencies(krate: &str) -> BTreeMap<String, BTreeSet<String>> {
    let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            // [dependencies.name] names one, too.
            if let Some((kind, name)) = section.clone().rsplit_once("dependencies.") {
                sections
                    .entry(format!("{kind}dependencies"))
                    .or_default()
                    .insert(name.to_owned());
            }
        } else if section.ends_with("dependencies")
            && let Some(name) = line.split(['.', '=', ' ']).next().filter(|n| !n.is_empty())
        {
            sections
                .entry(section.clone())
                .or_default()
                .insert(name.trim_matches('"').to_owned());
        }
    }
    sections
}

/// Everything the code itself depends on, also where only for some targets; not what its tests do.
fn shipped(krate: &str) -> BTreeSet<String> {
    let kinds = dependencies(krate).into_iter();
    kinds
        .filter(|(kind, _)| !kind.contains("dev-"))
        .flat_map(|(_, names)| names)
        .collect()
}

fn complain(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn dependencies_point_one_way() {
    let mut broken = Vec::new();
    for (krate, allowed) in MAY_KNOW {
        for name in shipped(krate) {
            let ours = name
                .strip_prefix("kontiki-")
                .or((name == "kontiki").then_some("kontiki"));
            if ours.is_some_and(|other| !allowed.contains(&other)) {
                broken.push(format!("{krate} depends on {name}"));
            }
            if name.contains("tokio") && !MAY_USE_TOKIO.contains(&krate) {
                broken.push(format!("{krate} depends on {name}"));
            }
        }
    }
    complain("a crate knows what it must not (docs/ARCHITECTURE.md):", &broken);
    assert_eq!(
        shipped("consensus"),
        BTreeSet::from(["bytes".into()]),
        "consensus knows bytes only"
    );
}

#[test]
fn consensus_knows_no_standard_library() {
    let files = sources("consensus");
    let head = files.iter().find(|f| f.path.ends_with("lib.rs")).expect("lib.rs");
    assert!(
        head.code.iter().any(|l| l == "#![no_std]"),
        "consensus/src/lib.rs must say #![no_std]"
    );
    let broken = lines_that(&files, |line| {
        mentions(line, "std::") || line.contains("extern crate std")
    });
    complain("consensus must do without std:", &broken);
}

#[test]
fn deterministic_crates_have_no_clock_no_thread_no_random_order() {
    let files: Vec<Source> = DETERMINISTIC.iter().flat_map(|krate| sources(krate)).collect();
    let files: Vec<Source> = files.into_iter().filter(|f| f.path != MAY_HAVE_THREADS).collect();
    let broken = lines_that(&files, |line| CHANCE.iter().any(|word| mentions(line, word)));
    complain(
        &format!("only {MAY_HAVE_THREADS} may use {CHANCE:?} here:"),
        &broken,
    );
}

fn lines_that(files: &[Source], is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        let lines = file.code.iter().enumerate().filter(|(_, line)| is_wrong(line));
        wrong.extend(lines.map(|(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim())));
    }
    wrong
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = all_sources().into_iter().filter(|f| !f.text.starts_with("//!"));
    complain(
        "a file must begin with a module doc:",
        &silent.map(|f| f.path).collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_is_too_long() {
    let long = all_sources()
        .into_iter()
        .filter(|f| f.code.len() > FILE_LINES_MAX);
    let long: Vec<String> = long
        .map(|f| format!("{}: {} lines", f.path, f.code.len()))
        .collect();
    complain(
        &format!("a file has more than {FILE_LINES_MAX} lines without its tests:"),
        &long,
    );
}

#[test]
fn no_function_is_too_long() {
    let (mut long, mut lengths) = (Vec::new(), Vec::new());
    for file in all_sources() {
        for (line, length) in functions(&file.code) {
            lengths.push(length);
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{}:{line}: {length} lines", file.path));
            }
        }
    }
    lengths.sort_unstable();
    println!(
        "{} functions, median {:?} lines",
        lengths.len(),
        lengths.get(lengths.len() / 2)
    );
    complain(
        &format!("a function has more than {FUNCTION_LINES_MAX} lines:"),
        &long,
    );
}

#[test]
fn consensus_builds_without_a_standard_library() {
    let target = "x86_64-unknown-none";
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output();
    let folder = asked
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default();
    if folder.is_empty() || !Path::new(&folder).exists() {
        eprintln!(
            "SKIPPED: target {target} is not installed; `rustup target add {target}` lets this test run"
        );
        return;
    }
    // A target folder of its own, or the build would wait for the one that runs this test.
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_std");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "-p",
            "kontiki-consensus",
            "--target",
            target,
            "--target-dir",
        ])
        .arg(own)
        .current_dir(root())
        .status()
        .expect("cargo runs");
    assert!(built.success(), "consensus does not build for {target}");
}

#[test]
fn the_counter_counts() {
    let text =
        "fn a() {\n  \"}{\"; // {\n  '{';\n}\ntrait T {\n  fn b();\n  fn c() -> [u8; 3] {\n    x\n  }\n}\n";
    let mut found = functions(&blanked(text));
    found.sort_unstable();
    assert_eq!(found, [(1, 4), (7, 3)]);
    assert!(mentions("use std::time::Instant;", "Instant") && !mentions("InstantView", "Instant"));
}
