//! One server in the hands of a test: n1 hears hand-made messages, and what it says is looked at.

use super::{
    Cluster,
    image::{Image, Snapshot},
};
use kontiki_consensus::{
    Base, Body, Call, Config, Conflict, Duration, Event, Index, LogId, Mark, Message, NodeId, Position,
    Records, Role, Round, Run, Standing, SuspectMark, Term,
};

/// The server that is looked at.
pub(crate) const N1: NodeId = NodeId(1);

/// n1 among `voters`, with a log of these terms after the genesis record; the others are not there.
pub(crate) fn alone(voters: u64, terms: &[u64]) -> Cluster {
    alone_as(voters, terms, |_| {})
}

fn alone_as(voters: u64, terms: &[u64], tune: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::new(voters, 0, 7, tune);
    cluster.checker.made_up = true;
    let genesis = cluster.servers[&N1].disk.records[0].clone();
    cluster.replace_disk(N1, Image::with_terms(&genesis, terms));
    for other in 2..=voters {
        cluster.crash(NodeId(other));
    }
    cluster
}

/// n1 hears this; gives what it says in answer.
pub(crate) fn hear(cluster: &mut Cluster, from: u64, term: u64, call: Call) -> Vec<Message> {
    let message = Message {
        from: NodeId(from),
        to: N1,
        term: Term(term),
        call,
    };
    cluster.happen(N1, Event::Message(message));
    said(cluster)
}

/// What it has said since last asked.
pub(crate) fn said(cluster: &mut Cluster) -> Vec<Message> {
    cluster.bag.drain(..).map(|(_, message)| message).collect()
}

pub(crate) fn id(index: u64, term: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

pub(crate) fn vote_request(last: LogId) -> Call {
    Call::RequestVote {
        pre: false,
        transfer: false,
        last,
    }
}

pub(crate) fn pre_vote_request(last: LogId) -> Call {
    Call::RequestVote {
        pre: true,
        transfer: false,
        last,
    }
}

pub(crate) fn vote(pre: bool) -> Call {
    Call::RequestVoteReply {
        pre,
        granted: true,
        suspect: SuspectMark::ZERO,
    }
}

pub(crate) fn append(prev: LogId, commit: u64, round: u64, runs: Vec<Run>) -> Call {
    append_to(Standing::default(), prev, commit, round, runs)
}

/// The same to a server that stands so with its leader.
pub(crate) fn append_to(standing: Standing, prev: LogId, commit: u64, round: u64, runs: Vec<Run>) -> Call {
    Call::AppendEntries {
        prev,
        commit: Index(commit),
        round: Round(round),
        standing,
        runs: runs.into(),
    }
}

pub(crate) fn acknowledge(round: u64, index: u64) -> Call {
    let (persisted, received) = (Index(index), Index(index));
    Call::AppendEntriesReply {
        round: Round(round),
        persisted,
        received,
        conflict: None,
        suspect: SuspectMark::ZERO,
    }
}

/// Records of one entry each, at these indexes; positions follow from a log of user entries after the genesis.
pub(crate) fn run(from: u64, to: u64, term: u64) -> Run {
    let records = (to + 1 - from) as u32;
    let marks = (1..=records).map(|n| Mark { end: n, entries: n }).collect();
    let bytes = vec![term as u8; records as usize];
    let body = Body::Records(Records::new(bytes.into(), marks).expect("well made"));
    Run::new(Index(from), Term(term), Position(from - 1), body)
}

/// Whether the one vote that n1 was asked for was given.
pub(crate) fn granted(answers: &[Message]) -> bool {
    match answers {
        [
            Message {
                call: Call::RequestVoteReply { granted, .. },
                ..
            },
        ] => *granted,
        other => panic!("one answer was expected: {other:?}"),
    }
}

/// (persisted, conflict) of the last acknowledgement among these.
pub(crate) fn acknowledged(answers: &[Message]) -> (Index, Option<Conflict>) {
    let mut replies = answers.iter().filter_map(|m| match m.call {
        Call::AppendEntriesReply {
            persisted, conflict, ..
        } => Some((persisted, conflict)),
        _ => None,
    });
    replies.next_back().expect("an acknowledgement")
}

/// The terms of its log.
pub(crate) fn terms(cluster: &Cluster) -> Vec<u64> {
    cluster.servers[&N1]
        .memory
        .records
        .iter()
        .map(|r| r.term().0)
        .collect()
}

/// n1 of three leads term 2; its no-op stands at i2 and is committed by n2.
pub(crate) fn leading() -> Cluster {
    leading_as(|_| {})
}

/// The same, tuned.
pub(crate) fn leading_as(tune: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = candidate_as(tune);
    hear(&mut cluster, 2, 2, vote(false));
    hear(&mut cluster, 2, 2, acknowledge(1, 2));
    assert_eq!(
        (cluster.role(1), cluster.at(1).commit()),
        (Role::Leader, Index(2))
    );
    cluster
}

/// n1 of three stands in term 2.
pub(crate) fn candidate() -> Cluster {
    candidate_as(|_| {})
}

fn candidate_as(tune: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = alone_as(3, &[], tune);
    cluster.timeout(N1);
    hear(&mut cluster, 2, 2, vote(true));
    assert_eq!(cluster.role(1), Role::Candidate);
    cluster.bag.clear();
    cluster
}

pub(crate) fn sleep(cluster: &mut Cluster, millis: u64) {
    cluster.now = cluster.now.after(Duration::from_millis(millis));
}

/// A leader tells of its snapshot up to here; all records after the genesis hold one entry.
pub(crate) fn install_snapshot(last: LogId) -> Call {
    let position = Position(last.index.0 - 1);
    Call::InstallSnapshot { last, position }
}

/// A snapshot up to here, of another server, is on n1's disk.
pub(crate) fn staged(cluster: &mut Cluster, last: LogId) {
    let base = Base {
        last,
        position: Position(last.index.0 - 1),
        configuration: cluster.at(1).configuration().clone(),
    };
    let hash = last.index.0;
    cluster.receive(N1, &Snapshot { base, hash });
}
