//! A log that forgets its past: every node begins at the same entry, and says so.

use crate::common::{eventually, in_memory_with, shut_down};
use kontiki::{Code, Config, Consistency, Error, Raw};

fn retaining(config: &mut Config) {
    config.entry_bytes_max = 64 << 10;
    config.batch_bytes_max = 128 << 10;
    config.segment_bytes = 1 << 20;
    config.tail_bytes_max = 64 << 10;
    config.retention_bytes = Some(2 << 20);
}

#[test]
fn what_is_beyond_retention_is_forgotten_everywhere_and_reads_say_where_the_log_begins() {
    let nodes = in_memory_with::<Raw>(retaining);
    let (first, appended) = loop {
        let appended = nodes[1].append(Raw(vec![1; 60 << 10].into())).unwrap().last;
        let first = nodes[1].status().first;
        if first > 1 && appended > 100 {
            break (first, appended);
        }
        assert!(appended < 1000, "{appended} entries, and nothing is forgotten");
    };
    // Far less than was appended is kept: twice 2 MiB are some 70 entries.
    eventually("every node to forget the past", || {
        nodes.iter().all(|node| node.status().first >= first)
    });
    for node in &nodes {
        let begins = node.status().first;
        let error = node.read(1.., Consistency::Linearizable).unwrap_err();
        let Error::Compacted { first } = error else {
            panic!("{error}");
        };
        assert_eq!((error.code(), error.is_retryable()), (Code::Compacted, false));
        assert!(first >= begins);
        let gone = node.read(..first, Consistency::STALE).unwrap_err();
        assert_eq!(
            gone.code(),
            Code::Compacted,
            "a range that ends where the log begins"
        );
        // An open range begins where the log does, and so does a tail from 0.
        let read = node.read(.., Consistency::Linearizable).unwrap();
        assert!(read.entries[0].index >= first && read.last_index == appended);
        let entry = node.tail(0).next().unwrap().unwrap();
        assert!(entry.index >= first && entry.index <= appended);
    }
    shut_down(&nodes);
}

#[test]
fn too_little_to_keep_is_refused_with_what_is_allowed() {
    let mut config = Config::in_memory(1).unwrap().remove(0);
    config.retention_bytes = Some(1000);
    let text = config.check().unwrap_err().to_string();
    assert!(
        text.contains("retention_bytes") && text.contains("1048576"),
        "{text}"
    );
    config.retention_bytes = None;
    config.retention_age = Some(std::time::Duration::from_millis(5));
    let text = config.check().unwrap_err().to_string();
    assert!(text.contains("retention_age") && text.contains("1s"), "{text}");
}
