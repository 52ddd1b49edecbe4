//! Histories as they are recorded, written and read back.

use super::random::Random;
use super::{DONE, cas, found};
use kontiki_sim::linearizability::{Answer, History, Op};

#[test]
fn what_is_recorded_is_read_back() {
    let mut history = History::default();
    let put = history.call(1, "a \"key\"", Op::Put(-1), 5);
    let get = history.call(2, "b", Op::Get, 5);
    let swap = history.call(3, "b", cas(None, 4), 5);
    history.returned(put, DONE, 5);
    history.call(1, "b", Op::Delete, 5);
    history.returned(get, Answer::found(None), 20);
    history.failed(swap);
    let times: Vec<_> = history.operations().map(|o| (o.call, o.end())).collect();
    assert_eq!(times, [(5, 8), (6, 20), (9, u64::MAX)]);

    let mut file = Vec::new();
    history.write(&mut file).expect("memory can be written");
    let expected = r#"{"client":1,"op":"put","key":"a \"key\"","value":-1,"expect":null,"call":5,"return":8,"ok":true,"out":null}
{"client":2,"op":"get","key":"b","value":null,"expect":null,"call":6,"return":20,"ok":true,"out":null}
{"client":1,"op":"delete","key":"b","value":null,"expect":null,"call":9}
"#;
    assert_eq!(String::from_utf8(file.clone()).as_deref(), Ok(expected));
    let read = History::read(file.as_slice()).expect("what was written can be read");
    assert!(read.operations().eq(history.operations()));
}

#[test]
fn random_histories_are_read_back() {
    let mut random = Random(9);
    let history: History = (0..500).map(|_| random.operation(1_000)).collect();
    let mut file = Vec::new();
    history.write(&mut file).expect("memory can be written");
    assert_eq!(History::read(file.as_slice()), Ok(history));
}

#[test]
fn a_line_that_is_no_operation_is_named() {
    let good = r#"{"client":1,"op":"get","key":"a","call":5,"return":8,"ok":true,"out":3}"#;
    let lines = [
        "{",
        r#"{"client":1,"op":"get","key":"a","call":5,"retrun":8}"#,
        r#"{"client":1,"op":"swap","key":"a","call":5}"#,
        r#"{"client":1,"op":"put","key":"a","call":5}"#,
        r#"{"client":1,"op":"get","key":"a","value":1,"call":5}"#,
        r#"{"client":1,"op":"get","key":"a","call":5,"return":4,"ok":true,"out":1}"#,
        r#"{"client":1,"op":"get","key":"a","call":5,"return":8,"out":1}"#,
        r#"{"client":1,"op":"get","key":"a","call":5,"out":1}"#,
        r#"{"client":1,"op":"get","key":"a","call":5,"ok":true}"#,
        r#"{"client":1,"op":"put","key":"a","value":1,"call":5,"return":8,"ok":false,"out":null}"#,
        r#"{"client":1,"op":"increment","key":"a","value":1,"call":5,"return":8,"ok":true,"out":null}"#,
        r#"{"client":1,"op":"delete","key":"a","call":5,"return":8,"ok":true,"out":1}"#,
    ];
    for line in lines {
        let file = format!("{good}\n\n{line}\n{good}\n");
        let error = History::read(file.as_bytes()).expect_err(line);
        assert_eq!(error.line, 3, "{line}: {error}");
    }
}

#[test]
#[should_panic(expected = "recorded once")]
fn a_call_has_one_outcome() {
    let mut history = History::default();
    let get = history.call(1, "a", Op::Get, 0);
    history.returned(get, found(1), 1);
    history.returned(get, found(1), 2);
}
