//! Leader Completeness: if a log entry is committed in a given term, then that entry will be present
//! in the logs of the leaders for all higher-numbered terms (paper, Figure 3 and §5.4).

use crate::committed::Committed;
use crate::ledger::Ledger;
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
