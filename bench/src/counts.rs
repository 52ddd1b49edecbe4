//! Instructions of the hot paths, counted by valgrind's callgrind and held against those kept in `bench/counts.txt`.
//!
//! They do not depend on who else uses the machine. This program runs itself again under valgrind for each case, once
//! with a little work and once with more: the difference is what the work takes, without start and warming up.
//! Invariant: a case does the same work in each run, whatever the clock says.

use crate::{
    Failed, consensus_only,
    paths::{encoded, scanned, sealed},
};
use std::{collections::BTreeMap, fs, hint::black_box, io, process::Command};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");
/// By how much a count may differ from the one that is kept, in hundredths.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Entries done in the first run of a case; in the second as many more.
const ENTRIES: usize = 16 << 10;

/// What is counted: a path, bytes of an entry, entries at once.
const CASES: [(&str, usize, usize); 10] = [
    ("core", 16, 1),
    ("core", 16, 64),
    ("core", 16, 1024),
    ("core", 256, 1),
    ("core", 256, 64),
    ("core", 256, 1024),
    ("encode", 16, 64),
    ("encode", 256, 64),
    ("scan", 16, 64),
    ("scan", 256, 64),
];

/// Counts all cases and prints them beside those kept, or keeps them. False if one has grown beyond the tolerance.
pub(crate) fn run(keep: bool) -> Result<bool, Failed> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        if error.kind() == io::ErrorKind::NotFound {
            eprintln!("COUNTS LEFT OUT: valgrind is not installed (Debian: apt-get install valgrind)");
            return Ok(true);
        }
        return Err(error.into());
    }
    let before = kept();
    let (mut text, mut sound) = (String::new(), true);
    for (path, len, at_once) in CASES {
        let name = format!("{path}-{len}B-{at_once}");
        let few = collected(path, len, at_once, ENTRIES)?;
        let many = collected(path, len, at_once, 2 * ENTRIES)?;
        let count = many.saturating_sub(few) as f64 / ENTRIES as f64;
        let word = judge(before.get(&name).copied(), count);
        sound &= !word.starts_with("GREW");
        println!("{name:16} {count:9.1} instructions an entry   {word}");
        text.push_str(&format!("{name} {count:.1}\n"));
    }
    if keep {
        fs::write(KEPT, text)?;
    }
    Ok(sound || keep)
}

/// What is said of a count beside the one that is kept.
fn judge(before: Option<f64>, count: f64) -> String {
    let Some(before) = before else {
        return "new".into();
    };
    let percent = (count / before - 1.0) * 100.0;
    if percent > TOLERANCE_PERCENT {
        format!("GREW by {percent:.1} % from {before:.1}")
    } else if percent < -TOLERANCE_PERCENT {
        format!("fell by {:.1} % from {before:.1}: keep it with --keep", -percent)
    } else {
        format!("as before ({before:.1})")
    }
}

fn kept() -> BTreeMap<String, f64> {
    let text = fs::read_to_string(KEPT).unwrap_or_default();
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Instructions of a whole run of this program that does the work of `entries` entries.
fn collected(path: &str, len: usize, at_once: usize, entries: usize) -> Result<u64, Failed> {
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["work", path])
        .args([len, at_once, entries].map(|n| n.to_string()))
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let count = said.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    match count {
        Some(count) if done.status.success() => Ok(count),
        _ => Err(format!("valgrind: {said}").into()),
    }
}

/// The work that is counted.
pub(crate) fn work(words: &[String]) -> Result<(), Failed> {
    let [path, numbers @ ..] = words else {
        return Err("which path?".into());
    };
    let numbers: Vec<usize> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    let [len, at_once, entries] = numbers[..] else {
        return Err("how many bytes, how many at once, how many in all?".into());
    };
    let rounds = entries / at_once.max(1);
    match path.as_str() {
        "core" => consensus_only::appends(len, at_once, rounds)?,
        "encode" => (0..rounds).try_for_each(|_| encoded(len, at_once).map(|run| drop(black_box(run))))?,
        "scan" => {
            let bytes = sealed(len, at_once)?;
            (0..rounds).try_for_each(|_| scanned(&bytes).map(|runs| drop(black_box(runs))))?;
        }
        other => return Err(format!("no such path: {other}").into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_beyond_the_tolerance_has_grown() {
        assert!(judge(Some(100.0), 103.1).starts_with("GREW"));
        assert!(judge(Some(100.0), 102.9).starts_with("as before"));
        assert!(judge(Some(100.0), 96.0).starts_with("fell"));
        assert!(judge(None, 96.0).starts_with("new"));
    }

    #[test]
    fn every_case_has_a_count_that_is_kept() {
        let kept = kept();
        for (path, len, at_once) in CASES {
            assert!(kept.contains_key(&format!("{path}-{len}B-{at_once}")));
        }
    }
}
