//! Committed means durable: when a record is first known to be committed, it is on the disks of a
//! quorum of the configuration, and it never leaves them (decisions 7 and 12).
//!
//! What is on a disk is what the log has reported as persisted; that the reports are true is checked
//! at each restart and at the end, by reading the disk itself ([`Ledger::reopen`]).

use crate::ledger::{Ledger, Record};
use crate::violation::{Verdict, ensure};
use kontiki_consensus::{Configuration, Index, NodeId};

/// The name of the property.
pub const PROPERTY: &str = "committed is durable on a quorum";

/// `record` is committed at `index`; these are the ledgers of all nodes, node 1 first.
///
/// # Errors
/// If no quorum has it on disk.
pub fn committed(index: Index, record: &Record, ledgers: &[&Ledger], members: &Configuration) -> Verdict {
    let holds = |node: NodeId| {
        let ledger = ledgers.get(node.0 as usize - 1);
        ledger
            .and_then(|l| l.durable_record(index))
            .is_some_and(|r| r.chain == record.chain)
    };
    ensure(members.has_quorum(holds), PROPERTY, || {
        let holders: Vec<NodeId> = members.members().into_iter().filter(|n| holds(*n)).collect();
        format!(
            "{index:?} {:?} is committed, but only {holders:?} have it on disk",
            record.term
        )
    })
}
