//! What servers put out, in one readable line each.

use kontiki_consensus::{Call, Message, NodeId, Note, Output, Role, Run, SuspectMark, Verdict, Write};

/// The line for an output; `name` is what a message will be called.
pub(crate) fn output(node: NodeId, output: &Output, name: u64) -> Option<String> {
    Some(match output {
        Output::Persist(write) => format!("{node:?} writes {}", self::write(write)),
        Output::Send(message) => format!("m{name}: {}", self::message(message)),
        Output::Commit(index) => format!("{node:?} applies up to {index:?}"),
        Output::FetchSnapshot { from, last, .. } => {
            format!("{node:?} fetches the snapshot up to {last:?} from {from:?}")
        }
        Output::InstallSnapshot { last } => format!("{node:?} installs the snapshot up to {last:?}"),
        Output::DropSnapshot { last } => format!("{node:?} needs no snapshot up to {last:?}"),
        Output::Fetch { peer, from, to, .. } => {
            format!("{node:?} reads {from:?}..{to:?} from disk for {peer:?}")
        }
        Output::ReadReady { id, index } => format!("{node:?} answers {id:?} at {index:?}"),
        Output::ReadRefused(id) => format!("{node:?} refuses {id:?}"),
        Output::Note(note) => format!("{node:?} {}", self::note(note)?),
        Output::Fatal(reason) => format!("{node:?} stops: {reason}"),
    })
}

fn write(write: &Write) -> String {
    let mut parts = vec![format!("{:?}:", write.id)];
    if let Some(state) = write.hard_state {
        let vote = state.vote.map_or("no vote".into(), |n| format!("vote for {n:?}"));
        parts.push(format!("{:?} with {vote}", state.term));
    }
    parts.extend(write.truncate.map(|from| format!("cut from {from:?}")));
    parts.extend(
        write
            .install
            .iter()
            .map(|base| format!("all anew after {:?}", base.last)),
    );
    parts.extend(write.runs.iter().map(run));
    parts.extend(
        write
            .purge
            .iter()
            .map(|base| format!("forget up to {:?}", base.last)),
    );
    parts.join(" ")
}

fn run(run: &Run) -> String {
    if run.first() == run.last() {
        format!("[{:?} {:?}]", run.first(), run.term())
    } else {
        format!("[{:?}..{:?} {:?}]", run.first(), run.last(), run.term())
    }
}

/// A message with its road.
pub(crate) fn message(message: &Message) -> String {
    let Message { from, to, term, call } = message;
    format!("{from:?}->{to:?} {term:?} {}", self::call(call))
}

fn call(call: &Call) -> String {
    match call {
        Call::RequestVote { pre, last, .. } => format!("{}RequestVote last={last:?}", prefix(*pre)),
        Call::RequestVoteReply {
            pre,
            granted,
            suspect,
        } => {
            format!(
                "{}RequestVoteReply {}{}",
                prefix(*pre),
                if *granted { "granted" } else { "refused" },
                marked(*suspect)
            )
        }
        Call::AppendEntries {
            prev,
            commit,
            round,
            standing,
            runs,
        } => {
            let records: Vec<String> = runs.iter().map(|r| format!(" {}", run(r))).collect();
            format!(
                "AppendEntries {round:?} prev={prev:?} commit={commit:?}{}{}{}",
                records.concat(),
                marked(standing.mark),
                match standing.verdict {
                    Verdict::None => String::new(),
                    Verdict::Lost => " which has lost something".to_owned(),
                    Verdict::Cleared(record) => format!(" which is cleared once it holds {record:?}"),
                }
            )
        }
        Call::AppendEntriesReply {
            round,
            persisted,
            received,
            conflict,
            suspect,
        } => {
            let conflict =
                conflict.map(|c| format!(" refused prev={:?}, at most {:?} agrees", c.prev, c.hint));
            let conflict = conflict.unwrap_or_default();
            format!(
                "AppendEntriesReply {round:?} persisted={persisted:?} received={received:?}{conflict}{}",
                marked(*suspect)
            )
        }
        Call::InstallSnapshot { last, .. } => format!("InstallSnapshot last={last:?}"),
        Call::ReadIndex { id } => format!("ReadIndex {id:?}"),
        Call::ReadIndexReply { id, index } => match index {
            Some(index) => format!("ReadIndexReply {id:?} at {index:?}"),
            None => format!("ReadIndexReply {id:?} refused"),
        },
    }
}

fn marked(mark: SuspectMark) -> &'static str {
    if mark == SuspectMark::ZERO { "" } else { " suspect" }
}

fn prefix(pre: bool) -> &'static str {
    if pre { "Pre-" } else { "" }
}

fn note(note: &Note) -> Option<String> {
    Some(match note {
        Note::Role { term, role, leader } => match leader.filter(|_| *role != Role::Leader) {
            Some(leader) => format!("is {} of {leader:?} in {term:?}", self::role(*role)),
            None => format!("is {} in {term:?}", self::role(*role)),
        },
        // The write says it already.
        Note::Cause(_)
        | Note::Late(_)
        | Note::Voted { .. }
        | Note::Truncated { .. }
        | Note::Purged { .. } => return None,
        // So do the call and the outputs.
        Note::SnapshotOffered { .. } | Note::SnapshotAwaited { .. } | Note::SnapshotInstalled { .. } => {
            return None;
        }
        Note::SnapshotFailed { last } => format!("has lost the transfer of the snapshot up to {last:?}"),
        Note::Marked { loss, .. } => format!("marks itself: {loss:?}"),
        Note::Unmarked { record, .. } => format!("is suspect no longer, with {record:?}"),
        Note::LossProven { peer, matched } => format!("proves that {peer:?} has lost of {matched:?}"),
        Note::PeerMarked { peer, record, .. } => {
            format!("hears that {peer:?} is suspect, until {record:?} is committed without it")
        }
        Note::PeerUnmarked { peer } => format!("hears that {peer:?} is suspect no longer"),
        Note::SteppedDown(why) => format!("steps down: {why}"),
        Note::Backtracked { peer, next } => format!("goes back to {next:?} for {peer:?}"),
    })
}

/// The name of a role.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
        _ => "something new",
    }
}
