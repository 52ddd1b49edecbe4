//! Snapshots: what one covers is committed, and only what one covers is forgotten (paper §7).

use crate::committed::Committed;
use crate::ledger::{Ledger, Record};
use crate::violation::{Verdict, Violation, ensure};
use kontiki_consensus::{Base, NodeId, Position};

/// The name of the property.
pub const PROPERTY: &str = "a snapshot covers what is committed";

/// The name of the property that all nodes trim at the same place.
pub const PROPERTY_FIRST: &str = "a log holds all from its first entry on";

fn is_committed(node: NodeId, base: &Base, committed: &Committed) -> Verdict {
    let known = committed.record(base.last.index).map(|c| c.record);
    let same = known.is_some_and(|r| (r.term, r.position) == (base.last.term, base.position));
    ensure(same, PROPERTY, || {
        format!("the log of {node:?} is to begin after {base:?}, where {known:?} is committed")
    })
}

/// The first entry that a node says its log holds, and the last one that it does not hold.
///
/// # Errors
/// If it says it holds what it does not.
pub fn holds_from(node: NodeId, first: Position, forgotten: Position) -> Verdict {
    ensure(forgotten < first, PROPERTY_FIRST, || {
        format!("the log of {node:?} begins after {forgotten:?}, and it says that it holds {first:?}")
    })
}

/// A node lets its log begin anew after this: gives the records that stood before.
///
/// # Errors
/// If that is not what is committed.
pub fn covered(node: NodeId, base: &Base, committed: &Committed) -> Result<Vec<Record>, Violation> {
    is_committed(node, base, committed)?;
    let records = committed.records().iter().take(base.last.index.0 as usize);
    Ok(records.map(|c| c.record).collect())
}

/// A node forgets what is before this in its log.
///
/// # Errors
/// If that is not committed, or not on its disk.
pub fn forgets(node: NodeId, base: &Base, ledger: &Ledger, committed: &Committed) -> Verdict {
    is_committed(node, base, committed)?;
    let on_disk = ledger.durable_record(base.last.index);
    ensure(
        on_disk.is_some_and(|r| r.term == base.last.term),
        PROPERTY,
        || format!("{node:?} forgets its log up to {base:?}, where its disk holds {on_disk:?}"),
    )
}
