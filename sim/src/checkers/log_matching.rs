//! Log Matching: if two logs contain an entry with the same index and term, then the logs are
//! identical in all entries up through that index (paper, Figure 3 and §5.3).
//!
//! Each record carries a hash over itself and all before it, so that comparing it with the first
//! record ever written under the same index and term compares the whole prefix.

use crate::archive::Archive;
use crate::ledger::Record;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, LogId, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "Log Matching";

/// A node wrote `record` at `index`.
///
/// # Errors
/// If another record, or one with another prefix, was written under this index and term before.
pub fn written(archive: &Archive, node: NodeId, index: Index, record: &Record) -> Verdict {
    let id = LogId::new(record.term, index);
    let same = archive.get(id).is_none_or(|known| known.chain == record.chain);
    ensure(same, PROPERTY, || {
        format!(
            "{node:?} wrote {id:?}, which differs from what was written under that name before, or what lies before it does"
        )
    })
}
