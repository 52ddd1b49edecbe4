//! Servers that lost what they had promised: how a loss comes to light, what a suspect server may not do, and the way back.

mod common;

use common::{
    Cluster,
    hand_made::{
        N1, acknowledge, alone, append_to, granted, hear, id, leading, leading_as, pre_vote_request, run,
        said, sleep, vote_request,
    },
};
use kontiki_consensus::{
    Call, Conflict, Index, Message, NodeId, Role, Round, Standing, SuspectMark, Term, Verdict,
};

const N2: NodeId = NodeId(2);
const NONE: SuspectMark = SuspectMark::ZERO;
const MARK: SuspectMark = SuspectMark(77);
const OTHER: SuspectMark = SuspectMark(78);

/// n1 of three, with a log of these terms after the genesis and this mark on its disk.
fn suspect_with(terms: &[u64]) -> Cluster {
    let mut cluster = alone(3, terms);
    let mut disk = cluster.servers[&N1].disk.clone();
    disk.hard_state.suspect = MARK;
    cluster.replace_disk(N1, disk);
    cluster
}

/// An acknowledgement of all up to `index` with this mark.
fn acknowledge_as(suspect: SuspectMark, round: u64, index: u64) -> Call {
    answer_as(suspect, round, index, None)
}

/// The refusal of what begins behind `prev`, by a log that ends at `end` in term 2.
fn refuse_as(suspect: SuspectMark, round: u64, end: u64, prev: u64) -> Call {
    let conflict = Conflict {
        prev: Index(prev),
        hint: id(end, 2),
    };
    answer_as(suspect, round, 0, Some(conflict))
}

fn answer_as(suspect: SuspectMark, round: u64, index: u64, conflict: Option<Conflict>) -> Call {
    Call::AppendEntriesReply {
        round: Round(round),
        persisted: Index(index),
        received: Index(index),
        conflict,
        suspect,
    }
}

fn standing(matched: u64, mark: SuspectMark, verdict: Verdict) -> Standing {
    Standing {
        matched: Index(matched),
        mark,
        verdict,
    }
}

/// The marks of all answers among these.
fn marks(said: &[Message]) -> Vec<SuspectMark> {
    let mark = |m: &Message| match m.call {
        Call::AppendEntriesReply { suspect, .. } | Call::RequestVoteReply { suspect, .. } => Some(suspect),
        _ => None,
    };
    said.iter().filter_map(mark).collect()
}

/// How n2 stands, as the last AppendEntries to it says, and where that begins.
fn told_n2(said: &[Message]) -> Option<(Standing, Index)> {
    let told = |m: &Message| match &m.call {
        Call::AppendEntries { standing, prev, .. } if m.to == N2 => Some((*standing, prev.index)),
        _ => None,
    };
    said.iter().filter_map(told).next_back()
}

/// A heartbeat is due; what follows from it.
fn heartbeat(cluster: &mut Cluster) -> Vec<Message> {
    cluster.timeout(N1);
    said(cluster)
}

fn mark_of(cluster: &Cluster) -> SuspectMark {
    cluster.at(1).suspect()
}

#[test]
fn a_suspect_server_gives_no_vote_and_says_why() {
    let mut cluster = suspect_with(&[]);
    sleep(&mut cluster, 1_000);
    let refusal = hear(&mut cluster, 2, 5, vote_request(id(9, 4)));
    assert!(!granted(&refusal));
    assert_eq!(marks(&refusal), [MARK]);
    assert!(!granted(&hear(&mut cluster, 2, 6, pre_vote_request(id(9, 4)))));
    // Not even the one it gave before: whether it gave that, or another, is not to be relied on.
    let mut cluster = alone(3, &[]);
    hear(&mut cluster, 2, 5, vote_request(id(9, 4)));
    let mut disk = cluster.servers[&N1].disk.clone();
    assert_eq!(disk.hard_state.vote, Some(N2));
    disk.hard_state.suspect = MARK;
    cluster.replace_disk(N1, disk);
    assert!(!granted(&hear(&mut cluster, 2, 5, vote_request(id(9, 4)))));
}

#[test]
fn a_suspect_server_never_stands() {
    let cluster = suspect_with(&[2, 2]);
    assert_eq!(cluster.due(N1), None);
    assert_eq!(cluster.role(1), Role::Follower);
}

#[test]
fn a_server_whose_leader_names_more_than_it_holds_marks_itself_before_it_answers() {
    let mut cluster = alone(3, &[2, 2]);
    cluster.server(N1).slow = true;
    let behind = append_to(standing(4, NONE, Verdict::None), id(4, 2), 0, 7, vec![]);
    assert_eq!(hear(&mut cluster, 2, 2, behind), []);
    assert_ne!(mark_of(&cluster), NONE);
    // It is fed before the mark is on disk, and still says nothing.
    let fed = append_to(
        standing(4, NONE, Verdict::None),
        id(3, 2),
        0,
        7,
        vec![run(4, 4, 2)],
    );
    let mark = mark_of(&cluster);
    assert_eq!(hear(&mut cluster, 2, 2, fed), []);
    assert_eq!(mark_of(&cluster), mark, "the same loss");
    cluster.persist(N1);
    assert_eq!(cluster.servers[&N1].disk.hard_state.suspect, mark);
    assert_eq!(marks(&said(&mut cluster)), [mark]);
}

#[test]
fn a_vote_that_waits_for_the_disk_does_not_leave_once_a_loss_is_known() {
    let mut cluster = alone(3, &[]);
    cluster.server(N1).slow = true;
    sleep(&mut cluster, 1_000);
    assert_eq!(hear(&mut cluster, 2, 5, vote_request(id(9, 4))), []);
    let lost = append_to(standing(0, NONE, Verdict::Lost), id(1, 0), 0, 1, vec![]);
    assert_eq!(hear(&mut cluster, 2, 5, lost), []);
    cluster.persist(N1);
    cluster.persist(N1);
    assert_eq!(marks(&said(&mut cluster)), [mark_of(&cluster)], "the vote stays");
}

#[test]
fn a_server_that_holds_what_its_leader_names_marks_nothing() {
    let mut cluster = alone(3, &[2, 2]);
    let call = append_to(standing(3, NONE, Verdict::None), id(3, 2), 0, 1, vec![]);
    assert_eq!(marks(&hear(&mut cluster, 2, 2, call)), [NONE]);
    // Nor one that holds more, of another term, and cuts it off.
    let mut cluster = alone(3, &[1, 1]);
    let call = append_to(
        standing(2, NONE, Verdict::None),
        id(2, 1),
        0,
        1,
        vec![run(3, 3, 2)],
    );
    assert!(marks(&hear(&mut cluster, 2, 2, call)).iter().all(|m| *m == NONE));
    assert_eq!(mark_of(&cluster), NONE);
}

#[test]
fn each_further_loss_makes_a_new_mark_and_word_of_an_earlier_one_makes_none() {
    let mut cluster = suspect_with(&[2, 2]);
    let told = |known, verdict, round| append_to(standing(0, known, verdict), id(3, 2), 0, round, vec![]);
    // The leader has not heard of the mark yet: what it knows of was before.
    hear(&mut cluster, 2, 2, told(NONE, Verdict::Lost, 1));
    hear(&mut cluster, 2, 2, told(OTHER, Verdict::Lost, 2));
    assert_eq!(mark_of(&cluster), MARK);
    let answers = hear(&mut cluster, 2, 2, told(MARK, Verdict::Lost, 3));
    assert!(![MARK, NONE].contains(&mark_of(&cluster)));
    assert_eq!(marks(&answers), [mark_of(&cluster)]);
    // The word for the first mark does not clear the second.
    hear(&mut cluster, 2, 2, told(MARK, Verdict::Cleared(Index(3)), 4));
    assert_ne!(mark_of(&cluster), NONE);
}

#[test]
fn a_mark_is_dropped_once_the_record_is_on_disk_and_not_before() {
    let mut cluster = suspect_with(&[1, 1]);
    cluster.server(N1).slow = true;
    let cleared = |record| standing(0, MARK, Verdict::Cleared(Index(record)));
    // It is not here at all; or one of another term is.
    hear(&mut cluster, 2, 2, append_to(cleared(4), id(3, 1), 4, 1, vec![]));
    hear(&mut cluster, 2, 2, append_to(cleared(3), id(3, 1), 4, 1, vec![]));
    cluster.persist(N1);
    assert_eq!(mark_of(&cluster), MARK);
    // It has been received, and is not on disk.
    let record = append_to(cleared(4), id(3, 1), 4, 2, vec![run(4, 4, 2)]);
    hear(&mut cluster, 2, 2, record);
    hear(&mut cluster, 2, 2, append_to(cleared(4), id(4, 2), 4, 3, vec![]));
    assert_eq!(mark_of(&cluster), MARK);
    cluster.persist(N1);
    said(&mut cluster);
    hear(&mut cluster, 2, 2, append_to(cleared(4), id(4, 2), 4, 4, vec![]));
    assert_eq!(mark_of(&cluster), NONE);
    assert_eq!(cluster.servers[&N1].disk.hard_state.suspect, MARK);
    assert_eq!(said(&mut cluster), [], "not before the disk knows");
    cluster.persist(N1);
    assert_eq!(marks(&said(&mut cluster)), [NONE]);
    assert!(cluster.due(N1).is_some(), "it may stand again");
}

#[test]
fn what_a_suspect_server_holds_is_not_committed_by_it() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    heartbeat(&mut cluster);
    // i3 is the entry, i4 the record that is due.
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 3));
    assert_eq!(cluster.at(1).last(), id(4, 2));
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 4));
    assert_eq!(cluster.at(1).commit(), Index(2));
    let suspects: Vec<_> = cluster.at(1).suspects().collect();
    assert_eq!(suspects, [(N2, MARK, Index(4))]);
    hear(&mut cluster, 3, 2, acknowledge(2, 3));
    assert_eq!(cluster.at(1).commit(), Index(3));
}

#[test]
fn an_idle_leader_clears_a_server_by_a_record_that_others_hold() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    let fed = hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    assert_eq!(cluster.at(1).last(), id(3, 2), "a record is forced");
    assert_eq!(told_n2(&fed), Some((standing(2, MARK, Verdict::None), Index(2))));
    // The suspect server holds it, and that is not enough; nor is what it held before.
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 3));
    hear(&mut cluster, 3, 2, acknowledge(2, 2));
    let told = heartbeat(&mut cluster);
    assert_eq!(told_n2(&told), Some((standing(3, MARK, Verdict::None), Index(3))));
    hear(&mut cluster, 3, 2, acknowledge(3, 3));
    let told = heartbeat(&mut cluster);
    let cleared = standing(3, MARK, Verdict::Cleared(Index(3)));
    assert_eq!(told_n2(&told), Some((cleared, Index(3))));
    // It is back, and counts.
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 4, 3));
    assert_eq!(cluster.at(1).suspects().count(), 0);
    cluster.propose(N1, 1, 8);
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 4, 4));
    assert_eq!(cluster.at(1).commit(), Index(4));
}

#[test]
fn a_further_mark_asks_for_a_further_record() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    hear(&mut cluster, 3, 2, acknowledge(2, 3));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(OTHER, 3, 2));
    assert_eq!(
        cluster.at(1).suspects().collect::<Vec<_>>(),
        [(N2, OTHER, Index(4))]
    );
    let told = heartbeat(&mut cluster);
    assert_eq!(
        told_n2(&told).map(|t| t.0),
        Some(standing(2, OTHER, Verdict::None))
    );
}

#[test]
fn answers_that_were_overtaken_say_nothing_of_marks() {
    let mut cluster = leading();
    cluster.propose(N1, 1, 8);
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, refuse_as(MARK, 2, 1, 2));
    // From before the loss: it neither clears nor counts.
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 2, 3));
    assert_eq!(cluster.at(1).suspects().count(), 1);
    assert_eq!(cluster.at(1).commit(), Index(2));
    assert!(cluster.at(1).matched().any(|m| m == (N2, Index(0))));
    // It is cleared; what it said while it was suspect comes once more.
    hear(&mut cluster, 3, 2, acknowledge(2, 4));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 3, 4));
    assert_eq!(cluster.at(1).suspects().count(), 0);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 4));
    assert_eq!(cluster.at(1).suspects().count(), 0);
}

#[test]
fn a_refusal_of_what_was_acknowledged_proves_a_loss_if_it_answers_a_later_round() {
    let mut cluster = leading();
    cluster.propose(N1, 2, 8);
    hear(&mut cluster, 2, 2, acknowledge(1, 4));
    let told = hear(&mut cluster, 2, 2, refuse_as(NONE, 1, 1, 3));
    assert_eq!(told, [], "it may have been overtaken by what it refuses");
    heartbeat(&mut cluster);
    let told = hear(&mut cluster, 2, 2, refuse_as(NONE, 2, 1, 4));
    assert_eq!(told_n2(&told), Some((standing(0, NONE, Verdict::Lost), Index(1))));
    assert!(cluster.at(1).matched().any(|m| m == (N2, Index(0))));
    // Until it has marked itself nothing that it says counts, not even for the first time.
    hear(&mut cluster, 3, 2, acknowledge(2, 2));
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 2, 4));
    assert_eq!(cluster.at(1).suspects().count(), 1);
    assert!(cluster.at(1).matched().any(|m| m == (N2, Index(0))));
    // It marks itself and is fed from where it says.
    heartbeat(&mut cluster);
    let fed = hear(&mut cluster, 2, 2, acknowledge_as(MARK, 3, 2));
    assert_eq!(told_n2(&fed), Some((standing(2, MARK, Verdict::None), Index(2))));
}

#[test]
fn a_server_that_is_told_of_its_loss_marks_itself() {
    let mut cluster = alone(3, &[2, 2]);
    let lost = append_to(standing(0, NONE, Verdict::Lost), id(2, 2), 0, 3, vec![]);
    let answers = hear(&mut cluster, 2, 2, lost);
    assert_ne!(mark_of(&cluster), NONE);
    assert_eq!(marks(&answers), [mark_of(&cluster)]);
}

#[test]
fn a_mark_that_is_gone_without_a_word_of_the_leader_was_lost() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 3, 3));
    let told = heartbeat(&mut cluster);
    assert_eq!(
        told_n2(&told).map(|t| t.0),
        Some(standing(0, MARK, Verdict::Lost))
    );
    assert_eq!(cluster.at(1).commit(), Index(2));
}

#[test]
fn an_acknowledgement_given_under_a_mark_counts_for_nothing_after_the_return() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    hear(&mut cluster, 3, 2, acknowledge(2, 3));
    heartbeat(&mut cluster);
    cluster.propose(N1, 1, 8);
    // It held record 4 when it said so, lost it in a torn write, and came back with the one that clears it.
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 3, 4));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 4, 3));
    assert_eq!(cluster.at(1).suspects().count(), 0);
    assert_eq!(cluster.at(1).commit(), Index(3));
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 4, 4));
    assert_eq!(cluster.at(1).commit(), Index(4));
}

#[test]
fn a_server_that_lacks_the_record_has_not_dropped_its_mark_by_the_rule() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    hear(&mut cluster, 3, 2, acknowledge(2, 3));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 3, 2));
    let suspects: Vec<_> = cluster.at(1).suspects().collect();
    assert_eq!(
        suspects,
        [(N2, MARK, Index(3))],
        "it is fed, and counts for nothing"
    );
    let told = heartbeat(&mut cluster);
    let cleared = Verdict::Cleared(Index(3));
    assert_eq!(told_n2(&told).map(|t| t.0), Some(standing(2, MARK, cleared)));
    hear(&mut cluster, 2, 2, acknowledge_as(NONE, 4, 3));
    assert_eq!(cluster.at(1).suspects().count(), 0);
    // The server itself knows that it dropped no mark without the record.
    let mut cluster = alone(3, &[2, 2]);
    let call = append_to(
        standing(2, MARK, Verdict::Cleared(Index(4))),
        id(3, 2),
        4,
        7,
        vec![],
    );
    let answers = hear(&mut cluster, 2, 2, call);
    assert_ne!(mark_of(&cluster), NONE);
    assert_eq!(marks(&answers), [mark_of(&cluster)]);
    // One that dropped it by the rule holds the record, whatever comes late.
    let mut cluster = alone(3, &[2, 2]);
    let call = append_to(
        standing(2, MARK, Verdict::Cleared(Index(3))),
        id(3, 2),
        3,
        7,
        vec![],
    );
    hear(&mut cluster, 2, 2, call);
    assert_eq!(mark_of(&cluster), NONE);
}

#[test]
fn word_of_a_loss_that_comes_late_marks_nothing_again() {
    let mut cluster = alone(3, &[2, 2]);
    let told = |mark, verdict, round| append_to(standing(0, mark, verdict), id(3, 2), 0, round, vec![]);
    hear(&mut cluster, 2, 2, told(NONE, Verdict::Lost, 7));
    let mark = mark_of(&cluster);
    hear(&mut cluster, 2, 2, told(mark, Verdict::Cleared(Index(3)), 9));
    assert_eq!(mark_of(&cluster), NONE);
    hear(&mut cluster, 2, 2, told(NONE, Verdict::Lost, 8));
    assert_eq!(mark_of(&cluster), NONE);
}

#[test]
fn a_suspect_server_confirms_no_read_and_extends_no_lease() {
    let mut cluster = leading_as(|config| config.lease_drift_ppm = Some(1_000));
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    sleep(&mut cluster, 1_000);
    let read = cluster.read(N1);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 3, 2));
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 3, 3));
    assert_eq!(cluster.at(1).lease_index(cluster.now), None);
    assert_eq!(cluster.checker.reads_answered, 0, "{read:?} is not confirmed");
    hear(&mut cluster, 3, 2, acknowledge(3, 3));
    assert_eq!(cluster.checker.reads_answered, 1);
    assert_eq!(cluster.at(1).lease_index(cluster.now), Some(Index(3)));
}

#[test]
fn a_leader_with_suspect_followers_stays_and_says_that_nothing_can_be_committed() {
    let mut cluster = leading();
    heartbeat(&mut cluster);
    hear(&mut cluster, 2, 2, acknowledge_as(MARK, 2, 2));
    assert!(!cluster.at(1).lacks_sound_majority());
    hear(&mut cluster, 3, 2, acknowledge_as(OTHER, 2, 2));
    assert!(cluster.at(1).lacks_sound_majority());
    for round in 3..40 {
        heartbeat(&mut cluster);
        hear(&mut cluster, 2, 2, acknowledge_as(MARK, round, 4));
        hear(&mut cluster, 3, 2, acknowledge_as(OTHER, round, 4));
    }
    assert_eq!((cluster.role(1), cluster.at(1).term()), (Role::Leader, Term(2)));
    assert_eq!(cluster.at(1).commit(), Index(2));
    assert_eq!(cluster.at(1).last(), id(4, 2), "one record for each mark");
}

#[test]
fn a_server_set_back_under_its_leader_is_fed_and_returns() {
    let mut cluster = Cluster::new(3, 0, 1, |_| {});
    cluster.elect(1);
    let old = cluster.servers[&N2].disk.clone();
    for _ in 0..3 {
        cluster.propose(N1, 1, 8);
        cluster.settle();
    }
    cluster.checker.set_back(N2, true);
    cluster.replace_disk(N2, old);
    for _ in 0..4 {
        cluster.timeout(N1);
        cluster.settle();
    }
    assert_eq!(cluster.at(1).term(), Term(2), "under the same leader");
    assert!(cluster.agreement().is_some(), "{}", cluster.story());
    assert_eq!(cluster.at(2).suspect(), NONE);
    assert_eq!(cluster.at(1).suspects().count(), 0);
}
