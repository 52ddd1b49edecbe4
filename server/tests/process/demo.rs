//! The demo, driven by a script.

use crate::scratch::{Scratch, kontiki, printed, run_with, said};

#[test]
fn a_script_drives_the_demo() {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    std::fs::write(&file, "two\nthree\r\n\n").unwrap();
    let script = format!(
        "append one\nappend-file {}\nread 1..3\nkill 1\nappend five\nread .. 2\nstart 1\nread 5 1\npause 2\nappend six\nstart 2\nread 6 2\n",
        file.display()
    );
    let output = run_with(
        kontiki().arg("demo").env("TMPDIR", scratch.path("")),
        script.as_bytes(),
    );
    assert!(output.status.success(), "{}", said(&output));
    let expected = "1\tone\n2\ttwo\n\
                    1\tone\n2\ttwo\n3\tthree\\r\n4\t\n5\tfive\n\
                    5\tfive\n\
                    6\tsix\n";
    assert_eq!(printed(&output), expected, "{}", said(&output));
    assert!(
        said(&output).contains("3 entries acknowledged, first index 2, last index 4"),
        "{}",
        said(&output)
    );
    let left = std::fs::read_dir(scratch.path("")).unwrap().count();
    assert_eq!(left, 1, "a temporary cluster was left behind");
}

#[test]
fn tail_prints_what_is_appended_before_the_demo_ends() {
    let output = run_with(
        kontiki().arg("demo"),
        b"append one\ntail\nappend two\nappend three\nquit\n",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(printed(&output), "1\tone\n2\ttwo\n3\tthree\n");
}

#[test]
fn a_command_that_fails_shows_in_the_exit_code() {
    let output = run_with(kontiki().arg("demo"), b"apend x\nappend y\nread ..\nread 5\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("did you mean `append`?"),
        "{}",
        said(&output)
    );
    assert_eq!(printed(&output), "1\ty\n");
    assert!(said(&output).contains("1 entry, from node"), "{}", said(&output));
    assert!(
        said(&output).contains("The log ends at entry 1."),
        "{}",
        said(&output)
    );
}

#[test]
fn a_kept_demo_can_be_opened_again() {
    let scratch = Scratch::new();
    let dir = scratch.path("kept");
    let demo = |args: &[&str], script: &[u8]| {
        run_with(
            kontiki().args(["demo", "--data-dir"]).arg(&dir).args(args),
            script,
        )
    };
    let output = demo(&["--nodes", "1"], b"append one\n");
    assert!(output.status.success(), "{}", said(&output));
    let output = demo(&[], b"append two\nread ..\nstatus\n");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        printed(&output).starts_with("1\tone\n2\ttwo\nnode  role"),
        "{}",
        printed(&output)
    );
    let output = demo(&["--nodes", "3"], b"");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
