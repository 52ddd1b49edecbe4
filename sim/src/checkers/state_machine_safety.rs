//! State Machine Safety: if a server has applied a log entry at a given index to its state machine,
//! no other server will ever apply a different log entry for the same index (paper, Figure 3 and §5.4.3).
//!
//! Compared is the hash over the whole applied prefix, across restarts.

use crate::committed::Committed;
use crate::ledger::{Ledger, Record};
use crate::violation::{Verdict, Violation, ensure};
use kontiki_consensus::{Index, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "State Machine Safety";

/// `node`, whose log this is, knows everything up to `index` to be committed, as far as others know it too.
///
/// # Errors
/// If others know something else to be committed, or its log does not reach that far.
pub fn knows(node: NodeId, index: Index, ledger: &Ledger, committed: &Committed) -> Verdict {
    let common = index.min(committed.last());
    let Some(must) = committed.record(common) else {
        return Ok(());
    };
    let has = ledger.record(common);
    ensure(has.map(|r| r.chain) == Some(must.record.chain), PROPERTY, || {
        format!(
            "{node:?} takes {has:?} for committed at {common:?}, where {:?} was committed",
            must.record
        )
    })
}

/// The record at `index`, about which `node` is the first to say that it is committed.
///
/// # Errors
/// If its log does not reach that far.
pub fn first_at(node: NodeId, index: Index, ledger: &Ledger) -> Result<Record, Violation> {
    let lacks = || Violation {
        property: PROPERTY,
        what: format!(
            "{node:?} takes {index:?} for committed, but its log ends at {:?}",
            ledger.last()
        ),
    };
    ledger.record(index).copied().ok_or_else(lacks)
}
