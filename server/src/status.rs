//! `kontiki status`: asks every endpoint how its node is.

use crate::{
    api::NodeStatus,
    cli::StatusArgs,
    client::{Call, CallError, Client, Endpoint},
    failure::Stop,
    http::JSON,
    output::{Data, say, table},
};
use kontiki::Code;
use serde::Serialize;
use std::{collections::BTreeSet, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// How long a node has to answer. One that is well does so at once.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long the others are waited for once one has answered: a node that does not should not hold up those that do.
const LAGGARD_MAX: Duration = Duration::from_secs(1);

/// One line of `--json`. A node that does not answer has the role `unreachable` and no more than that.
#[derive(Serialize)]
struct Line {
    node: Option<u64>,
    role: String,
    term: Option<u64>,
    leader: Option<u64>,
    commit: Option<u64>,
    last: Option<u64>,
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    more: Option<More>,
}

/// What only `--json` shows.
#[derive(Serialize)]
struct More {
    cluster: String,
    first: u64,
    raft_index: u64,
    raft_commit: u64,
    voters: Vec<u64>,
    peers: Vec<crate::api::PeerStatus>,
    quarantined: Option<String>,
    differing: Vec<u64>,
    suspect: Option<String>,
    damaged: Vec<String>,
    stopped: Option<String>,
    log_lines_lost: u64,
}

type Answer = (Endpoint, Result<NodeStatus, CallError>);

/// Asks and prints.
pub(crate) async fn run(args: &StatusArgs) -> Result<(), Stop> {
    let within = args.client.timeout.unwrap_or(TIMEOUT);
    let laggard_max = args.client.timeout.map_or(LAGGARD_MAX, |_| Duration::MAX);
    let answers = ask_all(&args.client.endpoints, within, laggard_max).await;
    let silent = silent_node(&answers);
    let reachable = answers.iter().any(|(_, answer)| answer.is_ok());
    let lines: Vec<Line> = answers.into_iter().map(|answer| line(answer, silent)).collect();
    let mut data = Data::new();
    if args.client.json {
        lines.iter().try_for_each(|line| data.json(line))?;
    } else {
        data.bytes(print(&lines).as_bytes())?;
    }
    data.flush()?;
    if reachable {
        Ok(())
    } else {
        Err(Stop::Said(Code::Unreachable))
    }
}

/// Asks every endpoint at once; the answers are in the order of the endpoints. Once one has answered, each other is waited for
/// no longer than `laggard_max`.
async fn ask_all(endpoints: &[Endpoint], within: Duration, laggard_max: Duration) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (at, endpoint) in endpoints.iter().cloned().enumerate() {
        asked.spawn(async move {
            let call = Call::get("/v1/status".into(), JSON);
            let answer = Client::new(std::slice::from_ref(&endpoint))
                .once_json(&call, within)
                .await;
            (at, answer)
        });
    }
    let silent = |endpoint: &Endpoint| Err(CallError::unreachable(endpoint, &"no answer in time"));
    let mut answers: Vec<Answer> = endpoints.iter().map(|at| (at.clone(), silent(at))).collect();
    let mut patience = Duration::MAX;
    while let Ok(Some(Ok((at, answer)))) = timeout(patience, asked.join_next()).await {
        if answer.is_ok() {
            patience = laggard_max;
        }
        answers[at].1 = answer;
    }
    answers
}

/// The node behind the only silent endpoint: the only voter that did not answer. Otherwise one could but guess.
fn silent_node(answers: &[Answer]) -> Option<u64> {
    let answered: Vec<&NodeStatus> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .collect();
    let voters: BTreeSet<u64> = answered
        .iter()
        .flat_map(|status| status.voters.iter().copied())
        .collect();
    let mut missing = voters
        .into_iter()
        .filter(|id| answered.iter().all(|status| status.node != *id));
    match (answers.len() - answered.len(), missing.next(), missing.next()) {
        (1, Some(node), None) => Some(node),
        _ => None,
    }
}

fn line((endpoint, answer): Answer, silent: Option<u64>) -> Line {
    let endpoint = endpoint.to_string();
    match answer {
        Ok(status) => reachable(endpoint, status),
        Err(error) => Line {
            node: silent,
            role: "unreachable".into(),
            term: None,
            leader: None,
            commit: None,
            last: None,
            endpoint,
            error: Some(error.failure.text),
            more: None,
        },
    }
}

fn reachable(endpoint: String, status: NodeStatus) -> Line {
    let NodeStatus {
        cluster,
        first,
        raft_index,
        raft_commit,
        voters,
        peers,
        quarantined,
        differing,
        suspect,
        damaged,
        stopped,
        log_lines_lost,
        ..
    } = status;
    Line {
        node: Some(status.node),
        role: status.role,
        term: Some(status.term),
        leader: status.leader,
        commit: Some(status.commit),
        last: Some(status.last),
        endpoint,
        error: None,
        more: Some(More {
            cluster,
            first,
            raft_index,
            raft_commit,
            voters,
            peers,
            quarantined,
            differing,
            suspect,
            damaged,
            stopped,
            log_lines_lost,
        }),
    }
}

fn print(lines: &[Line]) -> String {
    for line in lines {
        if let Some(error) = &line.error {
            say!("kontiki: {error}");
        }
        if let Some(why) = line.more.as_ref().and_then(|more| more.quarantined.as_ref()) {
            say!("kontiki: node {} is quarantined: {why}", cell(line.node));
        }
        if let Some(why) = line.more.as_ref().and_then(|more| more.suspect.as_ref()) {
            say!(
                "kontiki: node {} is suspect and counts for no majority until the others have committed without it: {why}",
                cell(line.node)
            );
        }
        if let Some(lost) = line
            .more
            .as_ref()
            .map(|more| more.log_lines_lost)
            .filter(|lost| *lost > 0)
        {
            let node = cell(line.node);
            say!("kontiki: node {node} has lost {lost} lines of its log: nobody reads its standard error");
        }
        let peers = line.more.iter().flat_map(|more| &more.peers);
        for (peer, why) in peers
            .clone()
            .filter_map(|peer| peer.refused.as_ref().map(|why| (peer, why)))
        {
            say!(
                "kontiki: node {} refuses node {}: {why}",
                cell(line.node),
                peer.node
            );
        }
        for peer in peers.clone().filter(|peer| peer.suspect) {
            say!(
                "kontiki: node {}, the leader, knows that node {} is suspect",
                cell(line.node),
                peer.node
            );
        }
        for peer in peers.filter(|peer| !peer.connected && peer.refused.is_none()) {
            let why = peer.last_error.as_deref().unwrap_or("no connection yet");
            say!(
                "kontiki: node {} has no connection to node {}: {why}",
                cell(line.node),
                peer.node
            );
        }
    }
    let rows: Vec<[String; 7]> = lines.iter().map(row).collect();
    table(
        ["node", "role", "term", "leader", "commit", "last", "endpoint"],
        &rows,
    )
}

fn row(line: &Line) -> [String; 7] {
    let numbers = [line.term, line.leader, line.commit, line.last].map(cell);
    let [term, leader, commit, last] = numbers;
    [
        cell(line.node),
        line.role.clone(),
        term,
        leader,
        commit,
        last,
        line.endpoint.clone(),
    ]
}

/// A number, or a dash for one that is not known.
pub(crate) fn cell(number: Option<u64>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u64, voters: &[u64]) -> Answer {
        let status = NodeStatus {
            http: None,
            node,
            role: "follower".into(),
            term: 2,
            leader: None,
            first: 1,
            commit: 5,
            last: 6,
            cluster: String::new(),
            raft_index: 8,
            raft_commit: 7,
            voters: voters.to_vec(),
            peers: Vec::new(),
            quarantined: None,
            differing: Vec::new(),
            suspect: None,
            damaged: Vec::new(),
            stopped: None,
            log_lines_lost: 0,
        };
        (
            format!("http://127.0.0.1:{}", 7500 + node).parse().unwrap(),
            Ok(status),
        )
    }

    fn silence() -> Answer {
        let endpoint: Endpoint = "http://127.0.0.1:7599".parse().unwrap();
        let error = CallError::unreachable(&endpoint, &"refused");
        (endpoint, Err(error))
    }

    #[test]
    fn a_silent_node_is_named_only_if_it_can_be_no_other() {
        let voters = [1, 2, 3];
        assert_eq!(
            silent_node(&[answer(1, &voters), silence(), answer(2, &voters)]),
            Some(3)
        );
        assert_eq!(silent_node(&[answer(1, &voters), silence(), silence()]), None);
        assert_eq!(silent_node(&[answer(1, &voters), silence()]), None);
        assert_eq!(silent_node(&[silence()]), None);
        assert_eq!(silent_node(&[answer(1, &voters)]), None);
    }

    #[test]
    fn a_line_of_json_has_every_field_whether_the_node_answers_or_not() {
        let json = |answer| serde_json::to_value(line(answer, Some(3))).unwrap();
        let (well, silent) = (json(answer(1, &[1])), json(silence()));
        for field in ["node", "role", "term", "leader", "commit", "last", "endpoint"] {
            assert!(
                well.get(field).is_some() && silent.get(field).is_some(),
                "{field}"
            );
        }
        assert_eq!(well["commit"], 5);
        assert_eq!(
            (&silent["node"], &silent["role"]),
            (&3.into(), &"unreachable".into())
        );
    }
}
