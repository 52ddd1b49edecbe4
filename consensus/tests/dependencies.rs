//! What may be built into Kontiki: how many packages, from where, under which licences. The lists are
//! those of `deny.toml`; this checks them wherever the tests run, with nothing but the Rust toolchain.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// Packages of others in `Cargo.lock`, for all platforms and with tests. Lower it when one goes; raising it
/// needs a reason. The last to come were rustix and its tables, for a call to the system that cannot be made without `unsafe`
/// otherwise; before them redb, for an example alone: a state machine on disk is best shown on a store that people use.
const PACKAGES_MAX: usize = 163;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The packages of the lock file: the words of each by their keys.
fn packages() -> Vec<BTreeMap<String, String>> {
    let words = |line: &str| {
        let (key, value) = line.split_once(" = ")?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    };
    let text = read("Cargo.lock");
    let entries = text.split("[[package]]").skip(1);
    entries
        .map(|entry| entry.lines().filter_map(words).collect())
        .collect()
}

/// The list under this key of `deny.toml`: the first quoted word of each of its parts.
fn listed(key: &str) -> Vec<String> {
    let text = read("deny.toml");
    let list = text.split(&format!("\n{key} = [")).nth(1).expect("the key");
    let parts = list.split(']').next().expect("an end").split([',', '\n']);
    let words = parts.filter(|part| !part.contains("reason = "));
    let words = words.filter_map(|part| part.split('"').nth(1));
    words.map(str::to_owned).collect()
}

fn complain(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn packages_are_few_and_come_from_one_place() {
    let registries = listed("allow-registry");
    let (mut others, mut strangers) = (0, Vec::new());
    for package in packages() {
        let name = package["name"].clone();
        let known = match package.get("source") {
            Some(source) => {
                others += 1;
                let registry = source.strip_prefix("registry+").unwrap_or_default();
                package.contains_key("checksum") && registries.iter().any(|r| r == registry)
            }
            None => name.starts_with("kontiki"),
        };
        strangers.extend((!known).then_some(name));
    }
    complain(
        "a package comes from elsewhere (deny.toml, [sources]):",
        &strangers,
    );
    assert!(
        (1..=PACKAGES_MAX).contains(&others),
        "Cargo.lock holds {others} packages of others, {PACKAGES_MAX} are allowed: do without, or say why"
    );
}

#[test]
fn no_banned_package_is_used() {
    let banned = listed("deny");
    assert!(banned.iter().any(|b| b == "openssl"), "{banned:?}");
    let mut used: Vec<String> = packages().iter().map(|p| p["name"].clone()).collect();
    used.retain(|name| banned.contains(name));
    complain("a banned package is used (deny.toml, [bans]):", &used);
}

/// Whether an SPDX expression leaves a choice among these. `/` is the older way to write OR; an exception makes
/// another licence of one.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace(" WITH ", "-WITH-").replace('/', " OR ");
    let spaced = spaced.replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allowed) && words.next().is_none()
}

type Words<'a, 'b> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'b>>;

fn any_of(words: Words<'_, '_>, allowed: &[String]) -> bool {
    let mut permitted = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        permitted |= all_of(words, allowed);
    }
    permitted
}

fn all_of(words: Words<'_, '_>, allowed: &[String]) -> bool {
    let mut permitted = true;
    loop {
        permitted &= match words.next() {
            Some("(") => {
                let inner = any_of(words, allowed);
                words.next() == Some(")") && inner
            }
            one => allowed.iter().any(|a| Some(a.as_str()) == one),
        };
        if words.next_if_eq(&"AND").is_none() {
            return permitted;
        }
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = listed("allow");
    // On this platform: what others would build need not have been fetched.
    let tree = Command::new(env!("CARGO"))
        .args("tree --workspace --locked --offline --all-features --prefix none --format {p}|{l}".split(' '))
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {errors}");
    let text = String::from_utf8_lossy(&tree.stdout).replace("(*)", "");
    let found: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('|')).collect();
    assert!(found.len() > 8, "cargo tree was not understood: {text}");
    let wrong = found.iter().filter(|(_, licence)| !permits(licence, &allowed));
    let wrong = wrong.map(|(package, licence)| format!("{package}: {licence:?}"));
    complain(
        "a licence is not among those of deny.toml:",
        &wrong.collect::<Vec<_>>(),
    );
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC"].map(str::to_owned);
    let good = "MIT;GPL-3.0 OR MIT;MIT/X;MIT AND ISC;(X OR MIT) AND ISC;X WITH Y OR MIT";
    let bad = ";X;MIT AND X;X OR Y AND MIT;(MIT OR ISC) AND X;MIT WITH Y;(MIT;MIT);MIT ISC";
    for yes in good.split(';') {
        assert!(permits(yes, &allowed), "{yes}");
    }
    for no in bad.split(';') {
        assert!(!permits(no, &allowed), "{no}");
    }
}
