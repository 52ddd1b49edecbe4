//! Leader Completeness: if a log entry is committed in a given term, then that entry will be present
//! in the logs of the leaders for all higher-numbered terms (paper, Figure 3 and §5.4).
//!
//! It rests on a rule that is checked by itself, since what breaks it seldom shows: a leader counts
//! replicas only of records of its own term (Figure 8).

use crate::committed::Committed;
use crate::ledger::{Ledger, Record};
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Index, NodeId, Term};

/// The name of the property.
pub const PROPERTY: &str = "Leader Completeness";

/// `node` was elected in `term`, with this log.
///
/// # Errors
/// If its log lacks something that was committed in an earlier term.
pub fn elected(node: NodeId, term: Term, ledger: &Ledger, committed: &Committed) -> Verdict {
    let later = committed
        .records()
        .iter()
        .rev()
        .take_while(|r| r.in_term >= term)
        .count();
    let last = Index(committed.last().0 - later as u64);
    let Some(must) = committed.record(last) else {
        return Ok(());
    };
    let has = ledger.record(last);
    ensure(has.map(|r| r.chain) == Some(must.record.chain), PROPERTY, || {
        format!(
            "{node:?} leads {term:?} with a log that ends at {:?} and holds {has:?} at {last:?}, where {:?} was committed",
            ledger.last(),
            must
        )
    })
}

/// `node`, which leads `term`, is the first to take everything up to `record` at `index` for committed.
///
/// # Errors
/// If the record is of an earlier term.
pub fn commits(node: NodeId, term: Term, index: Index, record: &Record) -> Verdict {
    ensure(record.term == term, PROPERTY, || {
        format!(
            "{node:?}, the leader of {term:?}, has committed up to {index:?} of {:?} by counting",
            record.term
        )
    })
}
