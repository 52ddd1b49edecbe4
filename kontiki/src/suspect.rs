//! What is said of nodes that lost what they had promised, and what is to be done.

use kontiki_consensus::{Index, Loss, NodeId};

/// What goes on without anybody's help, and when it does not.
const WAY_BACK: &str = "it gives no vote and counts for no majority until a majority of all voters without it has committed \
    a record: nothing is to be done as long as that many others are up and not suspect; look after its disk";

/// How a loss came to light, in words.
pub(crate) fn words(loss: Loss) -> String {
    match loss {
        Loss::Shorter { matched, persisted } => format!(
            "its log ends at record {persisted}, and it had acknowledged up to record {matched}: its disk was set back"
        ),
        Loss::Mark { record, persisted } => format!(
            "its leader knows that it was suspect until record {record}, and its disk, which ends at {persisted}, has lost the mark"
        ),
        Loss::Proven => "it refused what it had acknowledged: its disk was set back".to_owned(),
    }
}

/// This node was found to be suspect when it started: by what its log says of its end, or by the mark that was there already.
pub(crate) fn found(node: NodeId, damage: Option<String>) -> String {
    let why = damage.unwrap_or_else(|| "the mark of an earlier loss is on its disk".to_owned());
    tracing::error!(%node, "node {node} is suspect: {why}; {WAY_BACK}");
    why
}

/// This node has marked itself.
pub(crate) fn marked(node: NodeId, why: &str) {
    tracing::error!(%node, "node {node} is suspect, for {why}; {WAY_BACK}");
}

/// This node has dropped its mark.
pub(crate) fn unmarked(node: NodeId, record: Index) {
    tracing::warn!(%node, "node {node} is suspect no longer: it holds record {record}, which was committed without it");
}

/// This leader has proven a loss.
pub(crate) fn loss_proven(node: NodeId, peer: NodeId, matched: Index) {
    tracing::error!(
        %node, %peer,
        "node {peer} refuses what it had acknowledged up to record {matched}: its disk was set back, and it is told to mark itself"
    );
}

/// This leader has heard a mark.
pub(crate) fn peer_marked(node: NodeId, peer: NodeId, record: Index, waits: bool) {
    tracing::error!(
        %node, %peer,
        "node {peer} is suspect, for it has lost what it had promised, and is fed anew; until record {record} is committed \
         without it, {WAY_BACK}"
    );
    if waits {
        tracing::error!(
            %node,
            "the nodes that are not suspect are no majority: nothing can be committed, and the cluster waits, for an operator alone can decide what is given up"
        );
    }
}

/// This leader has cleared a node.
pub(crate) fn peer_unmarked(node: NodeId, peer: NodeId) {
    tracing::warn!(%node, %peer, "node {peer} is suspect no longer");
}
