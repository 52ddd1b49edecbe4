//! Log compaction: paper §7 and Figure 13, one test a sentence, by name; then what no figure says of it.
//!
//! `n1` is the server that is looked at; what it hears comes from hand-made messages.

mod common;

use common::{
    Cluster,
    hand_made::{
        N1, acknowledge, acknowledged, alone, append, hear, id, install_snapshot, leading, run, said, sleep,
        staged, terms, vote, vote_request,
    },
};
use kontiki_consensus::{
    Base, Body, Call, Config, Configuration, Conflict, Consensus, Event, HardState, Index, LogId, Message,
    NodeId, Note, Output, Position, Restored, Role, Round, Run, SuspectMark, Term, TermStart, Time,
};

const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// n1 follows n2 in term 1; i1..=i4 are committed and applied.
fn following() -> Cluster {
    let mut cluster = alone(3, &[1, 1, 1]);
    hear(&mut cluster, 2, 1, append(id(4, 1), 4, 1, vec![]));
    cluster
}

/// n1 leads term 3. A snapshot covers i1..=i12, which are forgotten; its no-op at i13 is committed by n2. What
/// n3 has is not known yet: it was probed with i12 before the no-op.
fn leading_compacted() -> Cluster {
    let mut cluster = alone(3, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    hear(&mut cluster, 2, 2, append(id(12, 2), 12, 1, vec![]));
    cluster.compact(N1);
    cluster.timeout(N1);
    hear(&mut cluster, 2, 3, vote(true));
    hear(&mut cluster, 2, 3, vote(false));
    hear(&mut cluster, 2, 3, acknowledge(1, 13));
    cluster.bag.clear();
    cluster
}

/// The snapshots that n3 is told of.
fn announced(messages: &[Message]) -> Vec<LogId> {
    let to_n3 = messages.iter().filter(|m| m.to == N3);
    let calls = to_n3.filter_map(|m| match m.call {
        Call::InstallSnapshot { last, .. } => Some(last),
        _ => None,
    });
    calls.collect()
}

/// n3 does not hold the record before the no-op; this is the furthest that may agree.
fn refusal(hint: LogId) -> Call {
    let conflict = Some(Conflict {
        prev: Index(12),
        hint,
    });
    Call::AppendEntriesReply {
        round: Round(1),
        persisted: Index(1),
        received: Index(1),
        conflict,
        suspect: SuspectMark::ZERO,
    }
}

/// What n1 puts out after this, without anybody carrying it out.
fn outputs(cluster: &mut Cluster, event: Event) -> Vec<Output> {
    let now = cluster.now;
    let life = cluster.server(N1).life.as_mut().expect("it is up");
    let mut outputs = Vec::new();
    life.step(now, event);
    life.flush(now, &mut outputs);
    outputs
}

fn stops(cluster: &mut Cluster, event: Event) -> bool {
    outputs(cluster, event)
        .iter()
        .any(|o| matches!(o, Output::Fatal(_)))
}

fn told(cluster: &Cluster, what: &str) -> usize {
    cluster.trace.iter().filter(|line| line.contains(what)).count()
}

mod compaction {
    //! "Log compaction"

    use super::*;

    #[test]
    fn each_server_takes_snapshots_independently_covering_just_the_committed_entries_in_its_log() {
        let mut cluster = following();
        cluster.compact(N1);
        let n1 = cluster.at(1);
        assert_eq!(
            (n1.role(), n1.snapshot(), n1.base()),
            (Role::Follower, id(4, 1), id(4, 1))
        );
        hear(&mut cluster, 2, 1, append(id(4, 1), 4, 2, vec![run(5, 5, 1)]));
        let (last, position) = (id(5, 1), Position(4));
        assert!(stops(&mut cluster, Event::SnapshotTaken { last, position }));
    }

    #[test]
    fn a_snapshot_of_other_records_than_were_committed_stops_the_node() {
        let wrong = [
            (id(4, 2), Position(3)),
            (id(4, 1), Position(9)),
            (id(9, 1), Position(8)),
        ];
        for (last, position) in wrong {
            let mut cluster = following();
            assert!(stops(&mut cluster, Event::SnapshotTaken { last, position }));
        }
    }

    #[test]
    fn last_included_index_and_term_support_the_consistency_check_for_the_first_entry_after_the_snapshot() {
        let mut cluster = following();
        cluster.compact(N1);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        let prevs = hear(&mut cluster, 2, 2, vote(false)).into_iter();
        let prevs = prevs.filter_map(|m| match m.call {
            Call::AppendEntries { prev, runs, .. } => runs.first().map(|first| (prev, first.first())),
            _ => None,
        });
        assert_eq!(prevs.collect::<Vec<_>>(), [(id(4, 1), Index(5)); 2]);
        let mut cluster = following();
        cluster.compact(N1);
        let refused = hear(&mut cluster, 2, 2, append(id(5, 2), 4, 1, vec![]));
        assert_eq!(acknowledged(&refused).1.map(|c| c.hint), Some(id(4, 1)));
        let taken = hear(&mut cluster, 2, 2, append(id(4, 1), 4, 1, vec![run(5, 5, 2)]));
        assert_eq!(acknowledged(&taken), (Index(5), None));
    }

    #[test]
    fn the_snapshot_also_includes_the_latest_configuration_as_of_last_included_index() {
        let mut cluster = following();
        let genesis = cluster.at(1).configuration().clone();
        let change = Body::Configuration(Configuration::of_voters([N1, N2]).into());
        let change = Run::new(Index(5), Term(1), Position(4), change);
        hear(&mut cluster, 2, 1, append(id(4, 1), 5, 2, vec![change]));
        let n1 = cluster.at(1);
        assert_eq!(n1.configuration_at(Index(4)), Some(&genesis));
        assert_eq!(n1.configuration_at(Index(5)), Some(n1.configuration()));
        assert_eq!(n1.configuration_at(Index(6)), None);
        cluster.compact(N1);
        assert_eq!(cluster.at(1).configuration_at(Index(4)), None);
        assert_eq!(cluster.at(1).configuration().voters, [N1, N2]);
        cluster.restart(N1, false);
        assert_eq!(cluster.at(1).configuration().voters, [N1, N2]);
    }

    #[test]
    fn once_a_server_completes_writing_a_snapshot_it_may_delete_all_log_entries_up_through_last_included_index()
     {
        let mut cluster = following();
        let purge = |index, position| Event::Purge {
            through: Index(index),
            position: Position(position),
        };
        cluster.take_snapshot(N1);
        let outputs = outputs(&mut cluster, purge(3, 2));
        let [Output::Persist(write), Output::Note(Note::Purged { through })] = outputs.as_slice() else {
            panic!("{outputs:?}");
        };
        let base = write.purge.as_ref().expect("it is written");
        assert_eq!(
            (base.last, base.position, *through),
            (id(3, 1), Position(2), Index(3))
        );
        assert_eq!(
            cluster.at(1).tail_first(),
            Index(4),
            "what is left of a run stays"
        );
        assert!(stops(&mut following(), purge(3, 2)), "no snapshot covers it");
    }

    #[test]
    fn a_purge_of_more_than_the_snapshot_covers_stops_the_node() {
        let mut cluster = following();
        cluster.take_snapshot(N1);
        hear(&mut cluster, 2, 1, append(id(4, 1), 5, 2, vec![run(5, 5, 1)]));
        let (through, position) = (Index(5), Position(4));
        assert!(stops(&mut cluster, Event::Purge { through, position }));
    }

    #[test]
    fn a_purge_up_to_another_user_entry_stops_the_node() {
        let mut cluster = following();
        cluster.take_snapshot(N1);
        let (through, position) = (Index(4), Position(4));
        assert!(stops(&mut cluster, Event::Purge { through, position }));
    }

    #[test]
    fn what_was_forgotten_or_covered_once_stays_so() {
        let mut cluster = following();
        cluster.compact(N1);
        let (last, position) = (id(3, 1), Position(2));
        assert_eq!(outputs(&mut cluster, Event::SnapshotTaken { last, position }), []);
        let through = Index(3);
        assert_eq!(outputs(&mut cluster, Event::Purge { through, position }), []);
        assert_eq!(
            (cluster.at(1).snapshot(), cluster.at(1).base()),
            (id(4, 1), id(4, 1))
        );
    }

    #[test]
    fn what_is_forgotten_is_not_told_and_the_rest_is_as_before() {
        let mut cluster = alone(3, &[1, 1, 2, 2]);
        hear(&mut cluster, 2, 2, append(id(5, 2), 5, 1, vec![]));
        cluster.take_snapshot(N1);
        cluster.purge(N1, 2);
        let n1 = cluster.at(1);
        assert_eq!(
            [1, 2, 3, 4, 6].map(|i| n1.term_at(Index(i))),
            [None, Some(Term(1)), Some(Term(1)), Some(Term(2)), None]
        );
        assert_eq!(
            [1, 2, 3, 4, 5].map(|p| n1.term_of(Position(p))),
            [None, Some(Term(1)), Some(Term(2)), Some(Term(2)), None]
        );
        assert_eq!(
            [1, 2, 3].map(|i| n1.position_at(Index(i))),
            [None, Some(Position(1)), Some(Position(2))]
        );
        assert_eq!(
            (n1.base_position(), n1.runs(Index(2), Index(5), 99)),
            (Position(1), None)
        );
        assert!(
            n1.runs(Index(3), Index(5), 99)
                .is_some_and(|runs| runs[0].first() == Index(3))
        );
    }

    #[test]
    fn a_restart_begins_with_what_the_snapshot_covers_committed() {
        let mut cluster = following();
        cluster.take_snapshot(N1);
        cluster.purge(N1, 2);
        cluster.restart(N1, false);
        let n1 = cluster.at(1);
        assert_eq!(
            (n1.base(), n1.snapshot(), n1.commit()),
            (id(2, 1), id(4, 1), Index(4))
        );
        assert_eq!(
            (n1.last(), n1.last_position(), n1.term_at(Index(3))),
            (id(4, 1), Position(3), Some(Term(1)))
        );
    }

    #[test]
    fn a_log_that_does_not_go_on_from_the_snapshot_stops_the_node_at_its_start() {
        let restored = Restored {
            hard_state: HardState {
                term: Term(2),
                vote: None,
                ..HardState::default()
            },
            base: id(5, 1),
            base_position: Position(4),
            snapshot: Some((id(7, 2), Position(6))),
            terms: vec![TermStart {
                term: Term(1),
                index: Index(1),
                position_before: Position(0),
            }],
            last: id(6, 1),
            last_position: Position(5),
            configurations: vec![(Index(5), Configuration::of_voters([N1]))],
            tail: vec![],
        };
        let fatal = |restored| {
            let mut outputs = Vec::new();
            Consensus::new(Config::new(N1), restored, 1, Time::ZERO).flush(Time::ZERO, &mut outputs);
            outputs.iter().any(|o| matches!(o, Output::Fatal(_)))
        };
        assert!(fatal(restored.clone()));
        assert!(!fatal(Restored {
            snapshot: None,
            ..restored
        }));
    }
}

mod leader {
    //! "The leader must occasionally send snapshots to followers that lag behind."

    use super::*;

    #[test]
    fn this_happens_when_the_leader_has_already_discarded_the_next_log_entry_that_it_needs_to_send() {
        let mut cluster = leading_compacted();
        assert_eq!(
            announced(&hear(&mut cluster, 3, 3, refusal(id(1, 1)))),
            [id(12, 2)]
        );
        assert_eq!(
            cluster.at(1).snapshot_peers().collect::<Vec<_>>(),
            [(N3, id(12, 2))]
        );
    }

    #[test]
    fn a_follower_that_lacks_nothing_that_was_discarded_gets_records() {
        let mut cluster = leading_compacted();
        let sent = hear(&mut cluster, 3, 3, acknowledge(1, 12));
        assert_eq!(
            (announced(&sent), cluster.at(1).snapshot_peers().count()),
            (vec![], 0)
        );
    }

    #[test]
    fn one_whose_record_in_the_place_of_the_base_is_of_an_older_term_needs_a_snapshot() {
        let mut cluster = leading_compacted();
        let sent = hear(&mut cluster, 3, 3, refusal(id(12, 1)));
        assert_eq!(announced(&sent), [id(12, 2)]);
    }

    #[test]
    fn so_does_one_whose_next_record_is_discarded_before_it_has_answered() {
        let mut cluster = leading();
        cluster.propose(N1, 10, 8);
        hear(&mut cluster, 2, 2, acknowledge(1, 12));
        cluster.bag.clear();
        cluster.compact(N1);
        assert_eq!(announced(&said(&mut cluster)), [id(12, 2)]);
    }

    #[test]
    fn it_goes_on_hearing_that_the_leader_leads() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        cluster.timeout(N1);
        let heartbeats = said(&mut cluster).into_iter().filter_map(|m| match m.call {
            Call::AppendEntries { prev, .. } if m.to == N3 => Some(prev),
            _ => None,
        });
        assert_eq!(
            heartbeats.collect::<Vec<_>>(),
            [LogId::ZERO],
            "i1 is on its disk, but the leader no longer knows its term"
        );
    }

    #[test]
    fn it_is_told_again_when_it_has_been_silent_for_a_while() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        let mut words = Vec::new();
        for _ in 0..12 {
            cluster.timeout(N1);
            cluster.happen(N1, Event::SendDropped(N3));
            words.extend(announced(&hear(&mut cluster, 2, 3, acknowledge(9, 13))));
        }
        assert_eq!(words, [id(12, 2); 2], "600 ms, and a patience of 300");
    }

    #[test]
    fn it_is_told_of_the_same_one_however_many_are_taken_since_unless_it_is_gone() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        cluster.propose(N1, 3, 8);
        hear(&mut cluster, 2, 3, acknowledge(1, 16));
        cluster.compact(N1);
        cluster.bag.clear();
        sleep(&mut cluster, 300);
        cluster.flush(N1);
        assert_eq!(announced(&said(&mut cluster)), [id(12, 2)]);
        cluster.happen(N1, Event::SnapshotGone(id(16, 3)));
        cluster.happen(N1, Event::SnapshotGone(id(9, 2)));
        assert_eq!(announced(&said(&mut cluster)), [], "that was of others");
        cluster.happen(N1, Event::SnapshotGone(id(12, 2)));
        assert_eq!(announced(&said(&mut cluster)), [id(16, 3)]);
    }

    #[test]
    fn once_it_has_the_snapshot_it_gets_the_records_after_it() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        cluster.propose(N1, 1, 8);
        cluster.bag.clear();
        let sent = hear(&mut cluster, 3, 3, acknowledge(1, 12));
        let records = sent.iter().filter_map(|m| match &m.call {
            Call::AppendEntries { prev, runs, .. } => Some((*prev, runs.last()?.last())),
            _ => None,
        });
        assert_eq!(records.collect::<Vec<_>>(), [(id(12, 2), Index(14))]);
        assert_eq!(cluster.at(1).snapshot_peers().count(), 0);
    }

    #[test]
    fn one_that_has_an_old_snapshot_when_more_is_forgotten_is_told_of_the_newest() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        cluster.propose(N1, 3, 8);
        hear(&mut cluster, 2, 3, acknowledge(1, 16));
        cluster.compact(N1);
        cluster.bag.clear();
        assert_eq!(
            announced(&hear(&mut cluster, 3, 3, acknowledge(1, 12))),
            [id(16, 3)]
        );
    }

    #[test]
    fn one_that_got_the_records_elsewhere_is_told_of_none() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        cluster.propose(N1, 3, 8);
        hear(&mut cluster, 2, 3, acknowledge(1, 16));
        hear(&mut cluster, 3, 3, acknowledge(2, 14));
        assert_eq!(cluster.at(1).snapshot_peers().count(), 0);
    }

    #[test]
    fn a_refusal_while_it_fetches_is_an_old_story() {
        let mut cluster = leading_compacted();
        hear(&mut cluster, 3, 3, refusal(id(1, 1)));
        assert_eq!(hear(&mut cluster, 3, 3, refusal(id(1, 1))), []);
    }

    #[test]
    fn a_leader_that_hears_of_anothers_snapshot_in_its_term_stops() {
        let mut cluster = leading();
        let call = install_snapshot(id(9, 2));
        let (from, to, term) = (N2, N1, Term(2));
        assert!(stops(
            &mut cluster,
            Event::Message(Message { from, to, term, call })
        ));
    }
}

mod follower {
    //! "InstallSnapshot RPC", "Receiver implementation"

    use super::*;

    #[test]
    fn reply_immediately_if_term_is_less_than_current_term() {
        let mut cluster = alone(3, &[3]);
        let answers = hear(&mut cluster, 2, 2, install_snapshot(id(9, 2)));
        assert_eq!(
            (answers[0].term, acknowledged(&answers)),
            (Term(3), (Index(0), None))
        );
        assert_eq!(told(&cluster, "fetches"), 0);
    }

    #[test]
    fn it_is_fetched_from_the_leader_that_told_of_it_once() {
        let mut cluster = following();
        for _ in 0..3 {
            assert_eq!(hear(&mut cluster, 2, 1, install_snapshot(id(9, 1))), []);
        }
        assert_eq!(cluster.servers[&N1].fetching, Some((N2, id(9, 1))));
        assert_eq!(told(&cluster, "fetches"), 1);
    }

    #[test]
    fn it_counts_as_hearing_from_the_leader() {
        let mut cluster = following();
        let due = cluster.at(1).deadline();
        sleep(&mut cluster, 200);
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        assert!(cluster.at(1).deadline() > due);
        sleep(&mut cluster, 250);
        assert_eq!(hear(&mut cluster, 3, 2, vote_request(id(9, 1))), []);
    }

    #[test]
    fn save_snapshot_file_discard_any_existing_or_partial_snapshot_with_a_smaller_index() {
        let mut cluster = following();
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        hear(&mut cluster, 3, 2, install_snapshot(id(8, 1)));
        assert_eq!(
            cluster.servers[&N1].fetching,
            Some((N2, id(9, 1))),
            "an older one is not newer state"
        );
        hear(&mut cluster, 3, 2, install_snapshot(id(12, 2)));
        assert_eq!(cluster.servers[&N1].fetching, Some((N3, id(12, 2))));
    }

    #[test]
    fn if_existing_log_entry_has_same_index_and_term_as_last_included_entry_retain_the_log_and_reply() {
        let mut cluster = alone(3, &[1, 1, 1, 1]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 1, 1, vec![]));
        staged(&mut cluster, id(3, 1));
        assert_eq!(terms(&cluster), [1, 1, 1, 1, 1]);
        assert_eq!(
            cluster.at(1).commit(),
            Index(3),
            "what is in a snapshot is committed"
        );
        assert_eq!(told(&cluster, "needs no snapshot up to i3t1"), 1);
        assert_eq!(acknowledged(&said(&mut cluster)), (Index(3), None));
    }

    #[test]
    fn word_of_a_snapshot_that_the_log_covers_is_answered_at_once() {
        let mut cluster = alone(3, &[1, 1, 1, 1]);
        let answers = hear(&mut cluster, 2, 1, install_snapshot(id(4, 1)));
        assert_eq!(acknowledged(&answers), (Index(4), None));
        assert_eq!((cluster.at(1).commit(), told(&cluster, "fetches")), (Index(4), 0));
    }

    #[test]
    fn discard_the_entire_log() {
        let mut cluster = alone(3, &[1, 1, 2, 2]);
        hear(&mut cluster, 2, 3, append(id(2, 1), 2, 1, vec![]));
        cluster.checker.expect_state(Index(4), 4);
        staged(&mut cluster, id(4, 1));
        let n1 = cluster.at(1);
        assert_eq!(
            (terms(&cluster), n1.base(), n1.last()),
            (vec![], id(4, 1), id(4, 1))
        );
        assert_eq!(
            (n1.last_position(), n1.persisted(), n1.tail_bytes()),
            (Position(3), Index(4), 0)
        );
    }

    #[test]
    fn reset_state_machine_using_snapshot_contents() {
        let mut cluster = following();
        cluster.checker.expect_state(Index(9), 9);
        staged(&mut cluster, id(9, 1));
        assert_eq!(cluster.servers[&N1].machine, (Index(9), 9));
        assert_eq!(
            (cluster.at(1).commit(), cluster.at(1).snapshot()),
            (Index(9), id(9, 1))
        );
    }

    #[test]
    fn and_load_snapshots_cluster_configuration() {
        let mut cluster = following();
        let configuration = Configuration::of_voters([N1, N2]);
        let base = Base {
            last: id(9, 1),
            position: Position(8),
            configuration: configuration.clone().into(),
        };
        outputs(&mut cluster, Event::SnapshotStaged(base));
        assert_eq!(**cluster.at(1).configuration(), configuration);
        let before = cluster.at(1).configuration().clone();
        assert_eq!(cluster.at(1).configuration_at(Index(9)), Some(&before));
    }

    #[test]
    fn the_state_is_replaced_and_the_leader_told_only_once_the_log_begins_after_it_on_disk() {
        let mut cluster = following();
        (5..=9).for_each(|n| cluster.checker.expect_state(Index(n), n));
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        cluster.server(N1).slow = true;
        staged(&mut cluster, id(9, 1));
        assert_eq!(
            (cluster.at(1).persisted(), cluster.servers[&N1].machine.0),
            (Index(4), Index(4))
        );
        assert_eq!(said(&mut cluster), []);
        // A record after it is taken, and nothing is applied yet.
        hear(&mut cluster, 2, 1, append(id(9, 1), 10, 2, vec![run(10, 10, 1)]));
        assert_eq!(
            (cluster.at(1).commit(), told(&cluster, "applies up to i10")),
            (Index(10), 0)
        );
        cluster.persist(N1);
        assert_eq!(acknowledged(&said(&mut cluster)), (Index(9), None));
        assert_eq!(cluster.servers[&N1].machine.0, Index(9));
        cluster.persist(N1);
        assert_eq!(acknowledged(&said(&mut cluster)), (Index(10), None));
    }

    #[test]
    fn a_write_from_before_does_not_make_the_snapshot_durable() {
        let mut cluster = following();
        cluster.checker.expect_state(Index(9), 9);
        cluster.server(N1).slow = true;
        hear(&mut cluster, 2, 1, append(id(4, 1), 4, 2, vec![run(5, 7, 1)]));
        staged(&mut cluster, id(9, 1));
        cluster.persist(N1);
        assert_eq!(
            (cluster.at(1).persisted(), cluster.servers[&N1].machine.0),
            (Index(4), Index(4))
        );
        cluster.persist(N1);
        assert_eq!(
            (cluster.at(1).persisted(), cluster.servers[&N1].machine.0),
            (Index(9), Index(9))
        );
    }

    #[test]
    fn an_older_snapshot_never_takes_the_place_of_newer_state() {
        let mut cluster = following();
        staged(&mut cluster, id(3, 1));
        assert_eq!(
            (terms(&cluster), told(&cluster, "needs no snapshot")),
            (vec![1, 1, 1, 1], 1)
        );
        cluster.compact(N1);
        staged(&mut cluster, id(3, 1));
        assert_eq!((cluster.at(1).base(), told(&cluster, "anew")), (id(4, 1), 0));
    }

    #[test]
    fn a_snapshot_that_contradicts_what_is_committed_stops_the_node() {
        let mut cluster = following();
        let configuration = cluster.at(1).configuration().clone();
        let base = Base {
            last: id(4, 2),
            position: Position(3),
            configuration,
        };
        assert!(stops(&mut cluster, Event::SnapshotStaged(base)));
    }

    #[test]
    fn of_two_close_together_only_the_later_is_installed_and_the_earlier_is_kept_until_then() {
        let mut cluster = following();
        cluster.checker.expect_state(Index(9), 9);
        cluster.checker.expect_state(Index(12), 12);
        cluster.server(N1).slow = true;
        staged(&mut cluster, id(9, 1));
        staged(&mut cluster, id(12, 1));
        staged(&mut cluster, id(9, 1));
        assert_eq!(
            told(&cluster, "needs no snapshot"),
            0,
            "the log on disk may come to rest on i9"
        );
        cluster.persist(N1);
        assert_eq!(
            (cluster.at(1).persisted(), cluster.servers[&N1].machine.0),
            (Index(9), Index(4))
        );
        cluster.persist(N1);
        assert_eq!(cluster.servers[&N1].machine, (Index(12), 12));
    }

    #[test]
    fn two_before_one_flush_go_as_one() {
        let mut cluster = following();
        let base = |index| Base {
            last: id(index, 1),
            position: Position(index - 1),
            configuration: Configuration::of_voters([N1, N2, N3]).into(),
        };
        cluster.step(N1, Event::SnapshotStaged(base(9)));
        let outputs = outputs(&mut cluster, Event::SnapshotStaged(base(12)));
        let installs = outputs.iter().filter_map(|o| match o {
            Output::Persist(write) => write.install.as_deref().cloned(),
            _ => None,
        });
        assert_eq!(installs.collect::<Vec<_>>(), [base(12)]);
    }

    #[test]
    fn a_snapshot_of_a_later_term_brings_that_term() {
        let mut cluster = following();
        cluster.checker.expect_state(Index(9), 9);
        staged(&mut cluster, id(9, 7));
        assert_eq!((cluster.at(1).term(), cluster.at(1).last()), (Term(7), id(9, 7)));
    }

    #[test]
    fn a_server_that_stands_installs_it_too_and_goes_on_standing() {
        let mut cluster = following();
        cluster.checker.expect_state(Index(9), 9);
        cluster.timeout(N1);
        staged(&mut cluster, id(9, 1));
        assert_eq!(
            (cluster.role(1), cluster.at(1).base()),
            (Role::PreCandidate, id(9, 1))
        );
    }

    #[test]
    fn a_leader_needs_no_snapshot() {
        let mut cluster = alone(3, &[1, 1]);
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        hear(&mut cluster, 2, 2, vote(false));
        assert_eq!(
            (cluster.role(1), told(&cluster, "needs no snapshot up to i9t1")),
            (Role::Leader, 1)
        );
        assert_eq!(cluster.servers[&N1].fetching, None);
        staged(&mut cluster, id(2, 1));
        staged(&mut cluster, id(9, 1));
        assert_eq!((cluster.at(1).commit(), told(&cluster, "anew")), (Index(0), 0));
    }

    #[test]
    fn a_transfer_that_the_log_overtakes_is_dropped() {
        let mut cluster = following();
        hear(&mut cluster, 2, 1, install_snapshot(id(6, 1)));
        hear(&mut cluster, 3, 2, append(id(4, 1), 5, 1, vec![run(5, 6, 1)]));
        assert_eq!(told(&cluster, "needs no snapshot"), 0);
        hear(&mut cluster, 3, 2, append(id(6, 1), 6, 2, vec![]));
        assert_eq!(told(&cluster, "needs no snapshot up to i6t1"), 1);
    }

    #[test]
    fn a_transfer_that_failed_is_begun_again_at_the_next_word() {
        let mut cluster = following();
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        cluster.happen(N1, Event::SnapshotFailed(id(8, 1)));
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        assert_eq!(told(&cluster, "fetches"), 1, "it was another one that failed");
        cluster.break_transfer(N1);
        assert_eq!(told(&cluster, "fetches"), 1);
        hear(&mut cluster, 2, 1, install_snapshot(id(9, 1)));
        assert_eq!(told(&cluster, "fetches"), 2);
    }

    #[test]
    fn what_comes_before_the_base_counts_as_agreeing_and_what_comes_after_it_is_taken() {
        let mut cluster = following();
        cluster.compact(N1);
        let call = append(id(2, 1), 4, 2, vec![run(3, 6, 1)]);
        assert_eq!(acknowledged(&hear(&mut cluster, 2, 1, call)), (Index(6), None));
        assert_eq!(terms(&cluster), [1, 1]);
        let call = append(id(1, 1), 4, 3, vec![run(2, 3, 1)]);
        assert_eq!(acknowledged(&hear(&mut cluster, 2, 1, call)), (Index(6), None));
        assert_eq!(
            acknowledged(&hear(&mut cluster, 2, 1, append(LogId::ZERO, 6, 4, vec![]))).1,
            None
        );
        assert_eq!(cluster.at(1).commit(), Index(6));
    }

    #[test]
    fn a_refusal_never_points_before_the_base() {
        let mut cluster = following();
        cluster.compact(N1);
        let hint = |cluster: &mut Cluster, prev| {
            let answers = hear(cluster, 2, 5, append(prev, 0, 1, vec![]));
            acknowledged(&answers).1.map(|c| c.hint)
        };
        assert_eq!(hint(&mut cluster, id(9, 5)), Some(id(4, 1)));
        assert_eq!(hint(&mut cluster, id(9, 0)), Some(id(4, 1)));
    }

    #[test]
    fn records_that_contradict_the_base_stop_the_node() {
        let mut cluster = following();
        cluster.compact(N1);
        let call = append(id(2, 1), 4, 1, vec![run(3, 6, 2)]);
        let (from, to, term) = (N2, N1, Term(2));
        assert!(stops(
            &mut cluster,
            Event::Message(Message { from, to, term, call })
        ));
    }

    #[test]
    fn a_follower_that_installs_keeps_voting() {
        let mut cluster = following();
        cluster.server(N1).slow = true;
        staged(&mut cluster, id(9, 1));
        sleep(&mut cluster, 700);
        hear(&mut cluster, 3, 2, vote_request(id(9, 1)));
        assert_eq!(cluster.at(1).vote(), Some(N3));
        hear(&mut cluster, 2, 3, vote_request(id(8, 1)));
        assert_eq!(cluster.at(1).vote(), None, "its log reaches further now");
    }
}
