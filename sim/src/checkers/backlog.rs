//! Reads and queries in masses: what is under way for them is bounded, commands do not stand behind them, and nobody is kept
//! who waits no longer.

use super::memory::Allowance;
use crate::violation::{Verdict, ensure};
use kontiki_consensus::NodeId;
use kontiki_node::machine::QUERIES_AHEAD_MAX;
use kontiki_node::{QUERIES_MAX, READ_FETCHES_MAX};

/// The name of the property.
pub const PROPERTY: &str = "what is under way for reads and queries is bounded";

/// How many bytes one read asks for, at most.
pub const READ_BYTES_MAX: usize = 16 << 10;
/// How long the answer to a query is, at most.
const ANSWER_BYTES_MAX: usize = 64;

/// What is under way at a node.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay {
    /// Reads of clients that are with the log.
    pub fetches: usize,
    /// Queries that are with the machine.
    pub queries: usize,
    /// Bytes of answers that are not taken.
    pub held: usize,
    /// Reads and queries that the node has not answered.
    pub waiting: usize,
    /// Requests whose clients wait for an answer.
    pub open: usize,
}

/// So much is under way at a node.
///
/// # Errors
/// If that is more than may be.
pub fn bounded(node: NodeId, under_way: &UnderWay, allowance: &Allowance) -> Verdict {
    let UnderWay {
        fetches,
        queries,
        held,
        waiting,
        open,
    } = *under_way;
    // Each fetch may end with a record more than was asked for, and one answer goes ahead however large it is.
    let most = allowance.in_flight
        + (READ_FETCHES_MAX + 1) * allowance.append
        + READ_BYTES_MAX
        + QUERIES_MAX * ANSWER_BYTES_MAX;
    let within = fetches <= READ_FETCHES_MAX && queries <= QUERIES_MAX && held <= most && waiting <= open;
    ensure(within, PROPERTY, || {
        format!("{node:?} has {under_way:?}, and may hold {most} bytes")
    })
}

/// A machine has answered so many queries in a row while something else waited.
///
/// # Errors
/// If these are too many.
pub fn ahead(node: NodeId, queries: usize) -> Verdict {
    ensure(queries <= QUERIES_AHEAD_MAX, PROPERTY, || {
        format!("the machine of {node:?} has answered {queries} queries while a command waited")
    })
}
