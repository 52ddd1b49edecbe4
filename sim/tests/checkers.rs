//! Each checker, shown by hand what it must refuse: a checker that never fired proves nothing.

use kontiki_consensus::{
    Body, Call, Configuration, Duration, HardState, Index, LogId, Message, NodeId, Position, Restored, Run,
    SuspectMark, Term, TermStart, Time, Write, WriteId,
};
use kontiki_node::{Consistency, Token};
use kontiki_sim::archive::Archive;
use kontiki_sim::checkers::answers::Answers;
use kontiki_sim::checkers::appends::{Acknowledgement, Appends};
use kontiki_sim::checkers::backlog::{self, UnderWay};
use kontiki_sim::checkers::commit_order::CommitOrder;
use kontiki_sim::checkers::convergence::{self, Standing};
use kontiki_sim::checkers::election_safety::ElectionSafety;
use kontiki_sim::checkers::hard_states::HardStates;
use kontiki_sim::checkers::leader_append_only::LeaderAppendOnly;
use kontiki_sim::checkers::memory::{self, Allowance};
use kontiki_sim::checkers::quorum_contact::QuorumContact;
use kontiki_sim::checkers::reads::{self, Answer, Floor};
use kontiki_sim::checkers::replicas::Replicas;
use kontiki_sim::checkers::tails::Tail;
use kontiki_sim::checkers::transfers::{Gone, Transfers};
use kontiki_sim::checkers::{
    compare, durability, leader_completeness, log_matching, snapshots, state_machine_safety,
};
use kontiki_sim::committed::{Committed, CommittedRecord};
use kontiki_sim::entries::EntryId;
use kontiki_sim::hash::Hash;
use kontiki_sim::ledger::{Ledger, Record, records_of};
use kontiki_wire::Expect;
use std::sync::Arc;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

fn members() -> Configuration {
    Configuration::of_voters([ONE, TWO, THREE])
}

fn genesis() -> Run {
    Run::new(
        Index(1),
        Term(0),
        Position(1),
        Body::Configuration(Arc::new(members())),
    )
}

fn noop(index: u64, term: u64) -> Run {
    Run::new(Index(index), Term(term), Position(1), Body::Noop)
}

fn founded() -> Ledger {
    Ledger::founded(HardState::default(), &[genesis()])
}

#[test]
fn nodes_at_the_same_record_must_know_the_same() {
    let mut replicas = Replicas::default();
    assert!(replicas.knows(ONE, Index(5), 77).is_ok());
    assert!(replicas.knows(TWO, Index(5), 77).is_ok());
    assert!(replicas.knows(TWO, Index(6), 78).is_ok());
    assert!(replicas.knows(THREE, Index(6), 77).is_err());
    assert!(replicas.state(THREE, Index(6), 1).is_ok());
    assert!(replicas.state(ONE, Index(6), 2).is_err());
}

/// A write with this name.
fn write(id: u64, truncate: Option<u64>, runs: Vec<Run>) -> Write {
    Write {
        install: None,
        purge: None,
        id: WriteId(id),
        hard_state: None,
        truncate: truncate.map(Index),
        runs: runs.into(),
    }
}

/// A ledger with the genesis and then no-ops of these terms, all persisted.
fn ledger(terms: &[u64]) -> Ledger {
    let mut ledger = founded();
    let runs = terms
        .iter()
        .zip(2..)
        .map(|(term, index)| noop(index, *term))
        .collect();
    ledger
        .write(&write(1, None, runs))
        .expect("they follow one another");
    ledger.persisted(WriteId(1));
    ledger
}

fn committed(ledger: &Ledger, in_terms: &[u64]) -> Committed {
    let mut committed = Committed::default();
    for (record, in_term) in ledger.written().iter().zip(in_terms) {
        committed.push(
            CommittedRecord {
                record: *record,
                in_term: Term(*in_term),
            },
            &[],
        );
    }
    committed
}

fn entry(operation: u64, part: u32) -> EntryId {
    EntryId { operation, part }
}

/// A committed log with one record of term 1 for each of these entries.
fn committed_entries(ids: &[EntryId]) -> Committed {
    let mut committed = Committed::default();
    for (id, position) in ids.iter().zip(1..) {
        let record = Record {
            term: Term(1),
            position: Position(position),
            chain: Hash(position),
        };
        committed.push(
            CommittedRecord {
                record,
                in_term: Term(1),
            },
            &[*id],
        );
    }
    committed
}

#[test]
fn election_safety_refuses_a_second_leader_of_a_term() {
    let mut checker = ElectionSafety::default();
    assert_eq!(checker.leads(Term(3), ONE), Ok(true));
    assert_eq!(checker.leads(Term(3), ONE), Ok(false));
    assert!(checker.leads(Term(3), TWO).is_err());
}

#[test]
fn leader_append_only_refuses_a_leader_that_cuts_its_log() {
    let mut checker = LeaderAppendOnly::new(3);
    assert!(checker.turned(ONE, None, Some(Index(4))).is_ok());
    assert!(
        checker.turned(ONE, Some(Term(2)), Some(Index(4))).is_ok(),
        "it was elected after it cut"
    );
    assert!(checker.turned(ONE, Some(Term(2)), Some(Index(4))).is_err());
}

#[test]
fn log_matching_refuses_one_name_for_two_records() {
    let mut archive = Archive::default();
    let (run, other) = (noop(2, 1), noop(2, 1));
    let (records, elsewhere) = (records_of(&run, Hash(1)), records_of(&other, Hash(2)));
    archive.add(&run, &records);
    assert!(log_matching::written(&archive, ONE, Index(2), &records[0]).is_ok());
    assert!(log_matching::written(&archive, TWO, Index(2), &elsewhere[0]).is_err());
}

#[test]
fn leader_completeness_refuses_a_leader_without_what_was_committed() {
    let (complete, short) = (ledger(&[1, 1]), ledger(&[1]));
    let committed = committed(&complete, &[1, 1, 1]);
    assert!(leader_completeness::elected(ONE, Term(2), &complete, &committed).is_ok());
    assert!(leader_completeness::elected(TWO, Term(2), &short, &committed).is_err());
    assert!(
        leader_completeness::elected(TWO, Term(1), &short, &committed).is_ok(),
        "it was not committed earlier"
    );
    let record = complete.record(Index(3)).expect("it is there");
    assert!(leader_completeness::commits(ONE, Term(1), Index(3), record).is_ok());
    assert!(
        leader_completeness::commits(ONE, Term(2), Index(3), record).is_err(),
        "of an earlier term"
    );
}

#[test]
fn state_machine_safety_refuses_another_record_at_a_committed_index() {
    let (first, other) = (ledger(&[1, 1]), ledger(&[1, 2]));
    let committed = committed(&first, &[1, 1, 1]);
    assert!(state_machine_safety::knows(ONE, Index(3), &first, &committed).is_ok());
    assert!(state_machine_safety::knows(TWO, Index(2), &other, &committed).is_ok());
    assert!(state_machine_safety::knows(TWO, Index(3), &other, &committed).is_err());
    assert!(
        state_machine_safety::first_at(TWO, Index(4), &other).is_err(),
        "its log does not reach that far"
    );
}

#[test]
fn durability_refuses_a_commit_that_no_quorum_has_on_disk() {
    let (has, lacks) = (ledger(&[1]), founded());
    let mut written_only = founded();
    written_only
        .write(&write(1, None, vec![noop(2, 1)]))
        .expect("it follows");
    let record = *has.record(Index(2)).expect("it is there");
    assert!(durability::committed(Index(2), &record, &[&has, &has, &lacks], &members()).is_ok());
    assert!(durability::committed(Index(2), &record, &[&has, &written_only, &lacks], &members()).is_err());
}

#[test]
fn hard_states_refuse_an_earlier_term_and_a_second_vote() {
    let mut checker = HardStates::default();
    let state = |term, vote| HardState {
        term: Term(term),
        vote,
        ..HardState::default()
    };
    assert!(checker.seen(ONE, state(4, Some(TWO))).is_ok());
    assert!(checker.seen(ONE, state(3, None)).is_err());
    assert!(checker.seen(ONE, state(4, Some(THREE))).is_err());
}

#[test]
fn a_vote_that_was_not_durable_may_be_given_again_after_a_crash() {
    let mut checker = HardStates::default();
    let state = |term, vote| HardState {
        term: Term(term),
        vote,
        ..HardState::default()
    };
    assert!(checker.seen(ONE, state(4, Some(TWO))).is_ok());
    checker.down(ONE, state(3, None));
    assert!(checker.seen(ONE, state(4, Some(THREE))).is_ok());
}

fn message(term: u64, call: Call) -> Message {
    Message {
        from: ONE,
        to: TWO,
        term: Term(term),
        call,
    }
}

#[test]
fn the_gate_refuses_what_is_not_durable() {
    let mut ledger = founded();
    let state = HardState {
        term: Term(2),
        vote: Some(THREE),
        ..HardState::default()
    };
    ledger
        .write(&Write {
            hard_state: Some(state),
            ..write(1, None, vec![noop(2, 2)])
        })
        .expect("it follows");
    let granted = Call::RequestVoteReply {
        pre: false,
        granted: true,
        suspect: SuspectMark::ZERO,
    };
    let acknowledged = |persisted| Call::AppendEntriesReply {
        round: kontiki_consensus::Round(1),
        persisted: Index(persisted),
        received: Index(2),
        conflict: None,
        suspect: SuspectMark::ZERO,
    };
    let mut checker = HardStates::default();
    assert!(
        checker.sends(&message(2, acknowledged(1)), &ledger).is_err(),
        "the term is not on disk"
    );
    ledger.persisted(WriteId(1));
    assert!(checker.sends(&message(2, acknowledged(2)), &ledger).is_ok());
    assert!(
        checker.sends(&message(2, acknowledged(3)), &ledger).is_err(),
        "the record is not on disk"
    );
    assert!(
        checker.sends(&message(2, granted), &ledger).is_err(),
        "the vote on disk is another"
    );
}

#[test]
fn commit_order_refuses_to_go_back_and_to_apply_what_is_not_on_disk() {
    let (mut checker, ledger) = (CommitOrder::new(3), ledger(&[1]));
    assert!(checker.shows(ONE, Index(2), Index(1), &ledger).is_ok());
    assert!(checker.shows(ONE, Index(1), Index(1), &ledger).is_err());
    assert!(
        checker.shows(TWO, Index(3), Index(3), &ledger).is_err(),
        "it is not on disk"
    );
    assert!(
        checker.shows(TWO, Index(1), Index(2), &ledger).is_err(),
        "it is not committed"
    );
    checker.down(ONE);
    assert!(checker.shows(ONE, Index(1), Index(1), &ledger).is_ok());
}

#[test]
fn appends_refuse_what_is_there_twice_or_refused_or_never_sent() {
    let mut checker = Appends::default();
    checker.sent(1, 2);
    checker.sent(2, 1);
    let whole = [entry(1, 0), entry(1, 1)];
    assert!(
        checker.committed(&whole[..1], Position(1)).is_err(),
        "only half of it"
    );
    let mut checker = Appends::default();
    checker.sent(1, 2);
    checker.sent(2, 1);
    assert_eq!(checker.committed(&whole, Position(1)), Ok(false));
    assert!(checker.committed(&whole, Position(3)).is_err(), "twice");
    assert!(
        checker.committed(&[entry(9, 0)], Position(3)).is_err(),
        "never sent"
    );
    assert!(checker.not_applied(2).is_ok());
    assert!(
        checker.committed(&[entry(2, 0)], Position(3)).is_err(),
        "reported as not applied"
    );
    assert!(checker.not_applied(1).is_err(), "it is committed");
}

#[test]
fn appends_refuse_an_acknowledgement_of_another_place() {
    let log = committed_entries(&[entry(1, 0), entry(2, 0)]);
    let mut checker = Appends::default();
    checker.sent(2, 1);
    assert_eq!(checker.committed(&[entry(2, 0)], Position(2)), Ok(false));
    let said = |first, index| Acknowledgement {
        first: Position(first),
        last: Position(first),
        at: LogId::new(Term(1), Index(index)),
    };
    assert!(checker.acknowledged(2, said(2, 2), &log).is_ok());
    assert!(checker.acknowledged(2, said(1, 1), &log).is_err());
    assert!(checker.acknowledged(2, said(2, 3), &log).is_err());
}

#[test]
fn compare_refuses_an_append_after_something_else_and_an_untrue_end() {
    let log = committed_entries(&[entry(1, 0), entry(2, 0), entry(3, 0)]);
    let after = |position, term: u64| Expect::Last {
        position: Position(position),
        term: Some(Term(term)),
    };
    assert!(compare::hit(after(2, 1), Position(3), &log).is_ok());
    assert!(compare::hit(after(1, 1), Position(3), &log).is_err());
    assert!(compare::hit(after(2, 7), Position(3), &log).is_err());
    assert!(compare::hit(Expect::Empty, Position(1), &log).is_ok());
    assert!(compare::hit(Expect::Empty, Position(2), &log).is_err());
    let end = |last, holds| compare::End {
        last: Position(last),
        term: Term(1),
        holds,
    };
    assert!(compare::answered(after(2, 1), end(3, false), Position(1), &log).is_ok());
    assert!(
        compare::answered(after(2, 1), end(2, false), Position(1), &log).is_err(),
        "it does hold there"
    );
    assert!(
        compare::answered(after(2, 1), end(4, false), Position(1), &log).is_err(),
        "nothing is committed there"
    );
    assert!(
        compare::answered(after(2, 1), end(1, false), Position(2), &log).is_err(),
        "more was there before"
    );
}

fn answer(entries: &[(u64, EntryId)], last: u64) -> Answer {
    let entries = entries
        .iter()
        .map(|(position, id)| (Position(*position), *id))
        .collect();
    Answer {
        entries,
        last: Position(last),
    }
}

#[test]
fn reads_refuse_gaps_and_what_is_not_committed_and_what_is_old() {
    let log = committed_entries(&[entry(1, 0), entry(2, 0), entry(3, 0)]);
    let read = |answer: &Answer| reads::answered(Position(1), Position(9), answer, &log);
    assert!(read(&answer(&[(1, entry(1, 0)), (2, entry(2, 0))], 3)).is_ok());
    assert!(
        read(&answer(&[(1, entry(1, 0)), (3, entry(3, 0))], 3)).is_err(),
        "a gap"
    );
    assert!(read(&answer(&[(1, entry(2, 0))], 3)).is_err(), "another entry");
    assert!(read(&answer(&[], 4)).is_err(), "beyond what is committed");
    assert!(
        read(&answer(&[], 3)).is_err(),
        "nothing, though there is something"
    );
}

/// Whether a read asked at 100 may see no more than `last`, where entry 1 is known from 40 on, 2 from 60 and 3 from 90.
fn may_see(consistency: Consistency, last: u64, drift_ppm: i64) -> bool {
    let mut floor = Floor::default();
    for (now, position) in [(40, 1), (60, 2), (90, 3)] {
        floor.raise(Time(now * 1_000), Position(position));
    }
    let must = reads::must_see(consistency, &floor, Time(100_000), drift_ppm);
    reads::fresh(consistency, Position(last), must).is_ok()
}

#[test]
fn reads_refuse_what_is_older_than_was_asked_for() {
    for consistency in [Consistency::Linearizable, Consistency::Lease] {
        assert!(may_see(consistency, 3, 0) && !may_see(consistency, 2, 0));
    }
    let within = |lag| Consistency::Stale {
        max_lag: Some(Duration(lag)),
    };
    assert!(may_see(within(20_000), 2, 0) && !may_see(within(20_000), 1, 0));
    assert!(may_see(within(41_000), 1, 0) && !may_see(within(39_000), 1, 0));
    assert!(may_see(within(100_000), 0, 0));
    // By a clock that runs fast so much has passed earlier, by a slow one later.
    assert!(may_see(within(41_000), 1, 20_000) && !may_see(within(41_000), 1, 100_000));
    assert!(may_see(within(39_000), 1, -100_000));
    assert!(may_see(Consistency::STALE, 0, 0));
    let at_least = |n| Consistency::AtLeast(Position(n));
    assert!(may_see(at_least(2), 2, 0) && !may_see(at_least(2), 1, 0));
}

#[test]
fn tails_refuse_gaps_and_disorder_but_skip_what_they_have() {
    let given = |tail: &mut Tail, positions: &[u64]| {
        tail.given(
            &positions
                .iter()
                .map(|p| (Position(*p), entry(*p, 0)))
                .collect::<Vec<_>>(),
        )
    };
    let mut tail = Tail::default();
    assert!(given(&mut tail, &[1, 2]).is_ok());
    assert!(given(&mut tail, &[2, 3]).is_ok());
    assert!(given(&mut tail, &[5]).is_err());
    assert!(given(&mut Tail::default(), &[1, 2, 2]).is_err());
}

#[test]
fn answers_refuse_a_second_answer_an_uncalled_one_and_a_late_one() {
    let mut checker = Answers::default();
    checker.asked(Token(1), ONE, Time(10));
    checker.asked(Token(2), ONE, Time(10));
    assert!(checker.answered(Token(1), ONE).is_ok());
    assert!(checker.answered(Token(1), ONE).is_err());
    assert!(checker.answered(Token(2), TWO).is_err());
    checker.asked(Token(3), ONE, Time(10));
    assert!(checker.overdue(Time(10)).is_ok());
    assert!(checker.overdue(Time(11)).is_err());
    checker.stands_still(ONE);
    assert!(checker.overdue(Time(11)).is_ok());
    checker.goes_on(ONE, Time(12));
    assert!(checker.overdue(Time(13)).is_err());
    assert_eq!(checker.down(ONE), [Token(3)]);
    assert!(checker.overdue(Time(13)).is_ok());
}

#[test]
fn answers_refuse_one_that_nobody_waits_for_once_the_node_knows() {
    let mut checker = Answers::default();
    for n in 1..=3 {
        checker.asked(Token(n), ONE, Time(10));
        checker.withdraw(Token(n));
    }
    assert_eq!(checker.open_at(ONE), 3);
    assert!(checker.overdue(Time(11)).is_ok());
    assert!(checker.answered(Token(1), TWO).is_err());
    assert!(checker.answered(Token(2), ONE).is_ok(), "it was on its way");
    checker.forgotten(Token(3));
    assert!(checker.answered(Token(3), ONE).is_err());
    assert_eq!(checker.open_at(ONE), 0);
}

#[test]
fn backlog_refuses_too_much_at_once_and_who_waits_no_longer() {
    let allowance = Allowance {
        tail: 0,
        window: 0,
        in_flight: 1000,
        append: 1,
        peers: 2,
    };
    let most = UnderWay {
        fetches: 4,
        queries: 64,
        held: 1000 + 5 + backlog::READ_BYTES_MAX + 64 * 64,
        waiting: 7,
        open: 7,
    };
    let refuses = |under_way: UnderWay| backlog::bounded(ONE, &under_way, &allowance).is_err();
    assert!(!refuses(most));
    assert!(refuses(UnderWay { fetches: 5, ..most }));
    assert!(refuses(UnderWay { queries: 65, ..most }));
    assert!(refuses(UnderWay {
        held: most.held + 1,
        ..most
    }));
    assert!(refuses(UnderWay { waiting: 8, ..most }));
    assert!(backlog::ahead(ONE, 4).is_ok() && backlog::ahead(ONE, 5).is_err());
}

#[test]
fn convergence_refuses_logs_that_differ_or_are_not_applied() {
    let (one, other) = (ledger(&[1, 1]), ledger(&[1]));
    let at = |node, index, ledger| Standing {
        node,
        commit: Index(3),
        applied: Index(index),
        ledger,
    };
    assert!(convergence::must_agree(&[at(ONE, 3, &one), at(TWO, 3, &one)], "all").is_ok());
    assert!(convergence::must_agree(&[at(ONE, 3, &one), at(TWO, 2, &one)], "all").is_err());
    assert!(convergence::must_agree(&[at(ONE, 3, &one), at(TWO, 3, &other)], "all").is_err());
}

#[test]
fn memory_refuses_more_than_the_figure() {
    let allowance = Allowance {
        tail: 1000,
        window: 100,
        in_flight: 10,
        append: 1,
        peers: 2,
    };
    assert!(memory::holds(ONE, allowance.bytes(), &allowance).is_ok());
    assert!(memory::holds(ONE, allowance.bytes() + 1, &allowance).is_err());
}

/// What recovery would find of a log whose records have these terms.
fn found(terms: &[u64], hard_state: HardState) -> Restored {
    let starts = terms
        .iter()
        .zip(1..)
        .fold(Vec::<TermStart>::new(), |mut starts, (term, index)| {
            if starts.last().is_none_or(|s| s.term != Term(*term)) {
                starts.push(TermStart {
                    term: Term(*term),
                    index: Index(index),
                    position_before: Position(0),
                });
            }
            starts
        });
    let last = LogId::new(
        Term(terms.last().copied().unwrap_or(0)),
        Index(terms.len() as u64),
    );
    Restored {
        hard_state,
        terms: starts,
        last,
        ..Restored::default()
    }
}

#[test]
fn recovery_may_find_more_than_was_reported_but_not_less_nor_anything_else() {
    let none = HardState::default();
    let with_pending = || {
        let mut ledger = ledger(&[1, 1]);
        ledger
            .write(&write(2, Some(3), vec![noop(3, 2), noop(4, 2)]))
            .expect("it follows");
        ledger
    };
    for terms in [&[0, 1, 1][..], &[0, 1], &[0, 1, 2], &[0, 1, 2, 2]] {
        assert!(with_pending().reopen(&found(terms, none)).is_ok(), "{terms:?}");
    }
    for terms in [&[0][..], &[0, 1, 1, 2], &[0, 1, 3], &[0, 1, 2, 2, 2]] {
        assert!(with_pending().reopen(&found(terms, none)).is_err(), "{terms:?}");
    }
    let other = HardState {
        term: Term(9),
        vote: None,
        ..HardState::default()
    };
    assert!(
        with_pending().reopen(&found(&[0, 1, 1], other)).is_err(),
        "a term that was never written"
    );
}

#[test]
fn writes_must_follow_one_another() {
    let mut ledger = ledger(&[1]);
    assert!(
        ledger.clone().write(&write(2, None, vec![noop(4, 1)])).is_err(),
        "a gap"
    );
    assert!(
        ledger.clone().write(&write(2, Some(9), vec![])).is_err(),
        "a cut beyond the end"
    );
    ledger
        .write(&write(2, None, vec![noop(3, 1)]))
        .expect("it follows");
    assert!(
        ledger.write(&write(4, None, vec![])).is_err(),
        "a name was skipped"
    );
}

#[test]
fn memory_refuses_to_drop_what_is_not_on_disk() {
    assert!(memory::keeps(ONE, Index(8), Index(7)).is_ok());
    assert!(memory::keeps(ONE, Index(9), Index(7)).is_err());
}

#[test]
fn hard_states_refuse_a_vote_taken_back() {
    let state = |vote| HardState {
        term: Term(3),
        vote,
        ..HardState::default()
    };
    let mut states = HardStates::default();
    assert!(states.seen(ONE, state(None)).is_ok());
    assert!(states.seen(ONE, state(Some(TWO))).is_ok());
    assert!(states.seen(ONE, state(None)).is_err());
    // What a crash took was never promised.
    states.down(ONE, state(None));
    assert!(states.seen(ONE, state(None)).is_ok());
}

#[test]
fn quorum_contact_refuses_a_leader_that_goes_on_alone() {
    let (term, patience) = (Some(Term(2)), Duration(100));
    let mut contact = QuorumContact::default();
    let turned =
        |contact: &mut QuorumContact, term, now| contact.turned(ONE, term, Time(now), patience, &members());
    assert!(turned(&mut contact, term, 1000).is_ok());
    assert!(turned(&mut contact, term, 1100).is_ok());
    contact.hears(ONE, TWO, Term(2), Time(1100));
    assert!(turned(&mut contact, term, 1200).is_ok());
    contact.hears(ONE, THREE, Term(1), Time(1200));
    assert!(turned(&mut contact, term, 1201).is_err());
    assert!(turned(&mut contact, None, 1300).is_ok());
    assert!(turned(&mut contact, term, 1400).is_ok());
}

#[test]
fn a_ledger_knows_behind_what_something_later_stands() {
    let mut ledger = founded();
    assert!(ledger.settled().is_empty());
    ledger.write(&write(1, None, vec![noop(2, 1)])).unwrap();
    ledger.write(&write(2, None, vec![noop(3, 1)])).unwrap();
    ledger.persisted(WriteId(1));
    assert_eq!(ledger.settled().len(), 1);
    ledger.persisted(WriteId(2));
    assert_eq!(ledger.settled().len(), 2);
    ledger.write(&write(3, Some(2), vec![noop(2, 2)])).unwrap();
    ledger.persisted(WriteId(3));
    assert_eq!(ledger.settled().len(), 1);
}

#[test]
fn what_a_follower_is_fetching_must_stay_while_it_asks_on() {
    let last = LogId::new(Term(3), Index(40));
    let told = || vec![(TWO, last)];
    let log = Gone {
        log: Some(Index(41)),
        ..Gone::default()
    };
    let file = Gone {
        snapshots: vec![last],
        ..Gone::default()
    };
    let others = Gone {
        log: Some(Index(40)),
        snapshots: vec![LogId::new(Term(3), Index(39))],
    };
    let begun = || {
        let mut transfers = Transfers::new(Duration(100));
        assert!(transfers.turned(ONE, Time(1), told(), &Gone::default()).is_ok());
        transfers.asks(ONE, TWO, last, Time(5));
        transfers.gives(ONE, TWO, last);
        transfers.asks(ONE, TWO, last, Time(90));
        transfers
    };
    let mut refused = Transfers::new(Duration(100));
    assert!(refused.turned(ONE, Time(1), told(), &Gone::default()).is_ok());
    refused.asks(ONE, TWO, last, Time(5));
    assert!(
        refused.turned(ONE, Time(50), told(), &file).is_ok(),
        "it is given nothing"
    );
    for gone in [&log, &file] {
        assert!(begun().turned(ONE, Time(50), told(), gone).is_err());
        assert!(
            begun().turned(ONE, Time(105), told(), gone).is_ok(),
            "it asks no more"
        );
        assert!(
            begun().turned(ONE, Time(50), Vec::new(), gone).is_ok(),
            "it needs none"
        );
        assert!(
            begun().turned(THREE, Time(50), told(), gone).is_ok(),
            "of another"
        );
        let mut done = begun();
        done.answers(TWO);
        assert!(done.turned(ONE, Time(50), told(), gone).is_ok());
        let mut down = begun();
        down.down(ONE);
        assert!(down.turned(ONE, Time(50), told(), gone).is_ok());
    }
    assert!(begun().turned(ONE, Time(50), told(), &others).is_ok());
    let newer = vec![(TWO, LogId::new(Term(3), Index(50)))];
    assert!(
        begun().turned(ONE, Time(50), newer, &file).is_err(),
        "told of the next"
    );
}

#[test]
fn a_log_must_hold_the_first_entry_that_it_says_it_holds() {
    assert!(snapshots::holds_from(ONE, Position(5), Position(4)).is_ok());
    assert!(snapshots::holds_from(ONE, Position(5), Position(2)).is_ok());
    assert!(snapshots::holds_from(ONE, Position(5), Position(5)).is_err());
}
