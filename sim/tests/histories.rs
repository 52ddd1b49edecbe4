//! Histories on the command line: what a run writes is what was judged in it, and a file is judged as it stands.

use kontiki_sim::linearizability::{History, Op};
use kontiki_sim::run::run;
use kontiki_sim::trace::Detail;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A seed whose clients change keys.
fn a_seed_with_a_history() -> u64 {
    let seed = (0..100).find(|seed| run(*seed, Detail::Hash).operations > 50);
    seed.expect("half of all runs have a machine")
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn sim(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_kontiki-sim"))
        .args(arguments)
        .output();
    output.expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code and both streams of `check` on a file with these lines.
fn checked(name: &str, lines: &str) -> (Option<i32>, String) {
    let path = file(name);
    std::fs::write(&path, lines).expect("a file can be written");
    let output = sim(&["check", "--history", &path.to_string_lossy()]);
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn a_run_writes_its_history_and_a_check_finds_it_linearizable() {
    let seed = a_seed_with_a_history();
    let pattern = file("history-{seed}.jsonl");
    let seeds = format!("{seed}..{}", seed + 2);
    let output = sim(&["run", "--seeds", &seeds, "--history", &pattern.to_string_lossy()]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let written = file(&format!("history-{seed}.jsonl"));
    let bytes = std::fs::read(&written).expect("it was written");
    let history = History::read(bytes.as_slice()).expect("it is a history");
    let unknown = history.operations().filter(|o| o.returned.is_none()).count();
    assert!(history.operations().count() > 50);
    assert!(unknown < history.operations().count());
    assert!(file(&format!("history-{}.jsonl", seed + 1)).exists());
    let (code, said) = checked("history-again.jsonl", &text(&bytes));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("linearizable"), "{said}");

    // One answer that nobody can have given, and it is named.
    let victim = history
        .operations()
        .find(|o| o.op == Op::Get && o.returned.is_some());
    let victim = victim.expect("a get that returned");
    let line = text(&bytes);
    let line = line
        .lines()
        .find(|l| l.contains(&format!("\"call\":{},", victim.call)))
        .expect("its line");
    let (rest, _) = line.rsplit_once("\"out\":").expect("an answer");
    let forged = text(&bytes).replace(line, &format!("{rest}\"out\":-12345}}"));
    let (code, said) = checked("history-forged.jsonl", &forged);
    assert_eq!(code, Some(1), "{said}");
    let named = format!("key {:?}", victim.key);
    assert!(said.contains(&named) && said.contains("-12345"), "{said}");
    let cut = format!("ends at {}:", victim.end());
    assert!(said.contains(&cut), "{said}");
}

#[test]
fn a_history_that_is_not_linearizable_is_told_with_its_shortest_beginning() {
    let lines = r#"{"client":0,"op":"put","key":"a","value":1,"expect":null,"call":1,"return":2,"ok":true,"out":null}
{"client":0,"op":"put","key":"b","value":1,"expect":null,"call":3,"return":4,"ok":true,"out":null}
{"client":1,"op":"get","key":"b","value":null,"expect":null,"call":5,"return":6,"ok":true,"out":null}
{"client":1,"op":"get","key":"b","value":null,"expect":null,"call":7,"return":8,"ok":true,"out":1}
"#;
    let (code, said) = checked("bad.jsonl", lines);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("4 operations: not linearizable: key \"b\""),
        "{said}"
    );
    assert!(
        said.contains("ends at 6: the first 2 of its 3 operations"),
        "{said}"
    );
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let good = r#"{"client":0,"op":"get","key":"a","call":1,"return":2,"ok":true,"out":null}"#;
    let (code, said) = checked("line.jsonl", &format!("{good}\n{{\"client\":0}}\n"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2: missing field"), "{said}");
    let nowhere = file("no such file");
    let output = sim(&["check", "--history", &nowhere.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_written_fails_the_run() {
    let nowhere = file("no such directory/history");
    let output = sim(&["replay", "--seed", "5", "--history", &nowhere.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("what is asked for is written"));
}

#[test]
fn the_example_of_the_documentation_is_a_history() {
    let page = include_str!("../../docs/SIMULATOR.md");
    let lines: Vec<&str> = page.lines().filter(|l| l.starts_with("{\"client\"")).collect();
    let (code, said) = checked("example.jsonl", &lines.join("\n"));
    assert!(lines.len() >= 3 && code == Some(0), "{said}");
}
