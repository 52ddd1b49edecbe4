//! What is too much is refused, with the limit in the error, and harms nothing.

use crate::common::{in_memory_with, shut_down};
use kontiki::{BlockingHandle, Code, Config, Consistency, Error, Outcome, Raw};

fn entry(bytes: usize) -> Raw {
    Raw(vec![7; bytes].into())
}

fn small(config: &mut Config) {
    config.entry_bytes_max = 40 << 10;
    config.batch_bytes_max = 64 << 10;
    config.in_flight_bytes_max = 128 << 10;
    config.read_bytes_max = 8 << 10;
}

fn last(node: &BlockingHandle<Raw>) -> u64 {
    node.read(u64::MAX.., Consistency::Linearizable)
        .unwrap()
        .last_index
}

#[test]
fn what_is_too_large_is_refused_at_the_client() {
    let nodes = in_memory_with::<Raw>(small);
    let error = nodes[0].append(entry((40 << 10) + 1)).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome(), error.is_retryable()),
        (Code::TooLarge, Outcome::NotApplied, false)
    );
    assert!(
        error.to_string().contains("40960 bytes (`entry_bytes_max`)"),
        "{error}"
    );
    let error = nodes[0]
        .append_all(&[entry(32 << 10), entry(32 << 10)])
        .unwrap_err();
    assert!(
        error.to_string().contains("65536 bytes (`batch_bytes_max`)"),
        "{error}"
    );
    assert_eq!(last(&nodes[0]), 0);
    for node in &nodes {
        node.append_all(&[entry(32 << 10), entry((32 << 10) - 8)])
            .unwrap();
        node.append(entry(40 << 10)).unwrap();
    }
    assert_eq!(last(&nodes[0]), 9);
    shut_down(&nodes);
}

#[test]
fn a_read_gives_as_much_as_it_may_and_one_entry_in_any_case() {
    let nodes = in_memory_with::<Raw>(small);
    for bytes in [3 << 10, 3 << 10, 3 << 10, 20 << 10, 10] {
        nodes[0].append(entry(bytes)).unwrap();
    }
    for node in &nodes {
        let mut counts = Vec::new();
        let mut next = 1;
        while next <= 5 {
            let read = node.read(next.., Consistency::Linearizable).unwrap();
            assert_eq!(read.entries[0].index, next);
            counts.push(read.entries.len());
            next += read.entries.len() as u64;
        }
        assert_eq!(counts, [2, 1, 1, 1]);
    }
    shut_down(&nodes);
}

#[test]
fn what_is_in_flight_is_bounded_and_the_rest_refused_at_once() {
    let nodes = in_memory_with::<Raw>(small);
    let handle = nodes[0].handle();
    let appends: Vec<_> = (0..1000).map(|_| handle.append(entry(30 << 10))).collect();
    let results: Vec<_> = appends.into_iter().map(wait).collect();
    let accepted = results.iter().filter(|result| result.is_ok()).count() as u64;
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(*error, Error::Overloaded);
    }
    assert!((1..1000).contains(&accepted), "{accepted}");
    assert_eq!(last(&nodes[0]), accepted);
    // And it goes on.
    nodes[0].append(entry(10)).unwrap();
    shut_down(&nodes);
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
