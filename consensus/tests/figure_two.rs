//! Figure 2 of the Raft paper, one test a sentence, by name; then what the dissertation adds: pre-vote
//! (§9.6), check-quorum (§6.2), the refusal to disturb a leader (§4.2.3) and read-index (§6.4).
//!
//! `n1` is the server that is looked at; what it hears comes from hand-made messages.

mod common;

use common::{
    Cluster,
    hand_made::{
        N1, acknowledge, acknowledged, alone, append, candidate, granted, hear, id, leading,
        pre_vote_request, run, said, sleep, terms, vote, vote_request,
    },
};
use kontiki_consensus::{
    Body, Call, Configuration, Conflict, Duration, Event, Index, Message, NodeId, Output, ReadId, Role,
    Round, Run, SuspectMark, Term,
};

mod state {
    //! "State"

    use super::*;

    #[test]
    fn current_term_and_voted_for_are_updated_on_stable_storage_before_responding_to_rpcs() {
        let mut cluster = alone(3, &[]);
        cluster.server(N1).slow = true;
        assert!(hear(&mut cluster, 2, 5, vote_request(id(1, 1))).is_empty());
        cluster.persist(N1);
        assert!(granted(&said(&mut cluster)));
        assert_eq!(cluster.servers[&N1].disk.hard_state.vote, Some(NodeId(2)));
    }

    #[test]
    fn log_entries_are_updated_on_stable_storage_before_responding_to_rpcs() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        cluster.server(N1).slow = true;
        assert!(hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![run(2, 3, 1)])).is_empty());
        cluster.persist(N1);
        assert_eq!(acknowledged(&said(&mut cluster)), (Index(3), None));
    }

    #[test]
    fn current_term_and_voted_for_survive_a_restart() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 5, vote_request(id(1, 1)));
        cluster.restart(N1, true);
        assert_eq!(
            (cluster.at(1).term(), cluster.at(1).vote()),
            (Term(5), Some(NodeId(2)))
        );
        assert!(!granted(&hear(&mut cluster, 3, 5, vote_request(id(9, 4)))));
    }

    #[test]
    fn commit_index_is_initialized_to_zero_and_increases_monotonically() {
        let mut cluster = alone(3, &[1, 1]);
        assert_eq!(cluster.at(1).commit(), Index::ZERO);
        hear(&mut cluster, 2, 1, append(id(3, 1), 3, 1, vec![]));
        hear(&mut cluster, 2, 1, append(id(3, 1), 1, 1, vec![]));
        assert_eq!(cluster.at(1).commit(), Index(3));
    }

    #[test]
    fn next_index_is_initialized_to_leader_last_log_index_plus_one() {
        let mut cluster = alone(3, &[1, 1]);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        let sent = hear(&mut cluster, 2, 2, vote(false));
        let prevs = sent.iter().filter_map(|m| match &m.call {
            Call::AppendEntries { prev, .. } => Some(*prev),
            _ => None,
        });
        assert_eq!(prevs.collect::<Vec<_>>(), [id(3, 1), id(3, 1)]);
    }

    #[test]
    fn match_index_is_initialized_to_zero_and_increases_monotonically() {
        let mut cluster = candidate();
        hear(&mut cluster, 2, 2, vote(false));
        let matched = |cluster: &Cluster| cluster.at(1).matched().next();
        assert_eq!(matched(&cluster), Some((NodeId(2), Index::ZERO)));
        hear(&mut cluster, 2, 2, acknowledge(1, 2));
        hear(&mut cluster, 2, 2, acknowledge(1, 1));
        assert_eq!(matched(&cluster), Some((NodeId(2), Index(2))));
    }
}

mod append_entries_rpc {
    //! "AppendEntries RPC", "Receiver implementation"

    use super::*;

    #[test]
    fn reply_false_if_term_is_less_than_current_term() {
        let mut cluster = alone(3, &[3]);
        let answers = hear(&mut cluster, 2, 2, append(id(2, 3), 2, 1, vec![run(3, 3, 2)]));
        assert_eq!(answers[0].term, Term(3));
        assert_eq!(acknowledged(&answers), (Index::ZERO, None));
        assert_eq!((terms(&cluster), cluster.at(1).leader()), (vec![1, 3], None));
    }

    #[test]
    fn reply_false_if_log_does_not_contain_an_entry_at_prev_log_index_with_prev_log_term() {
        let mut cluster = alone(3, &[2, 2]);
        let (persisted, conflict) = acknowledged(&hear(
            &mut cluster,
            2,
            4,
            append(id(3, 4), 0, 1, vec![run(4, 4, 4)]),
        ));
        assert_eq!(persisted, Index::ZERO);
        assert_eq!(
            conflict,
            Some(Conflict {
                prev: Index(3),
                hint: id(3, 2)
            })
        );
        let (_, conflict) = acknowledged(&hear(
            &mut cluster,
            2,
            4,
            append(id(9, 4), 0, 1, vec![run(10, 10, 4)]),
        ));
        assert_eq!(
            conflict,
            Some(Conflict {
                prev: Index(9),
                hint: id(3, 2)
            })
        );
        assert_eq!(terms(&cluster), [1, 2, 2]);
    }

    #[test]
    fn a_refusal_names_the_end_of_the_last_term_that_may_agree() {
        let mut cluster = alone(3, &[2, 2, 5, 5]);
        let (_, conflict) = acknowledged(&hear(&mut cluster, 2, 6, append(id(5, 4), 0, 1, vec![])));
        assert_eq!(
            conflict,
            Some(Conflict {
                prev: Index(5),
                hint: id(3, 2)
            })
        );
    }

    #[test]
    fn if_an_existing_entry_conflicts_with_a_new_one_delete_it_and_all_that_follow_it() {
        let mut cluster = alone(3, &[2, 2, 2]);
        hear(&mut cluster, 2, 3, append(id(2, 2), 0, 1, vec![run(3, 3, 3)]));
        assert_eq!(terms(&cluster), [1, 2, 3]);
    }

    #[test]
    fn an_existing_entry_that_does_not_conflict_is_kept_and_so_is_what_follows_it() {
        let mut cluster = alone(3, &[2, 2, 2]);
        hear(&mut cluster, 2, 2, append(id(1, 1), 0, 1, vec![run(2, 3, 2)]));
        assert_eq!(terms(&cluster), [1, 2, 2, 2]);
    }

    #[test]
    fn append_any_new_entries_not_already_in_the_log() {
        let mut cluster = alone(3, &[2, 2]);
        hear(
            &mut cluster,
            2,
            3,
            append(id(2, 2), 0, 1, vec![run(3, 3, 2), run(4, 5, 3)]),
        );
        assert_eq!(terms(&cluster), [1, 2, 2, 3, 3]);
        hear(&mut cluster, 2, 3, append(id(3, 2), 0, 1, vec![run(4, 6, 3)]));
        assert_eq!(terms(&cluster), [1, 2, 2, 3, 3, 3]);
    }

    #[test]
    fn commit_index_becomes_the_minimum_of_leader_commit_and_index_of_last_new_entry() {
        let mut cluster = alone(3, &[2, 2]);
        // i3 was not verified by this leader yet: it may still conflict.
        hear(&mut cluster, 2, 3, append(id(1, 1), 9, 1, vec![run(2, 2, 2)]));
        assert_eq!(cluster.at(1).commit(), Index(2));
        hear(&mut cluster, 2, 3, append(id(2, 2), 3, 1, vec![run(3, 4, 3)]));
        assert_eq!(cluster.at(1).commit(), Index(3));
    }

    #[test]
    fn repeated_entries_are_acknowledged_again() {
        let mut cluster = alone(3, &[]);
        let call = append(id(1, 1), 0, 1, vec![run(2, 3, 1)]);
        assert_eq!(acknowledged(&hear(&mut cluster, 2, 1, call.clone())).0, Index(3));
        assert_eq!(acknowledged(&hear(&mut cluster, 2, 1, call)).0, Index(3));
    }

    #[test]
    fn entries_under_way_to_disk_are_acknowledged_once() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        assert_eq!(
            hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![run(2, 3, 1)])).len(),
            1
        );
    }
}

mod request_vote_rpc {
    //! "RequestVote RPC", "Receiver implementation"

    use super::*;

    #[test]
    fn reply_false_if_term_is_less_than_current_term() {
        let mut cluster = alone(3, &[3]);
        let answers = hear(&mut cluster, 2, 2, vote_request(id(9, 2)));
        assert!(!granted(&answers));
        assert_eq!(answers[0].term, Term(3));
    }

    #[test]
    fn grant_vote_if_voted_for_is_null_and_the_log_is_at_least_as_up_to_date() {
        let mut cluster = alone(3, &[3]);
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(2, 3)))));
    }

    #[test]
    fn grant_vote_again_if_voted_for_is_the_candidate() {
        let mut cluster = alone(3, &[]);
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(1, 1)))));
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(1, 1)))));
    }

    #[test]
    fn refuse_if_voted_for_is_another() {
        let mut cluster = alone(3, &[]);
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(1, 1)))));
        assert!(!granted(&hear(&mut cluster, 3, 4, vote_request(id(9, 3)))));
    }

    #[test]
    fn the_log_with_the_later_last_term_is_more_up_to_date() {
        let mut cluster = alone(3, &[2, 2, 2]);
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(2, 3)))));
        let mut cluster = alone(3, &[3]);
        assert!(!granted(&hear(&mut cluster, 2, 4, vote_request(id(9, 2)))));
    }

    #[test]
    fn of_logs_that_end_with_the_same_term_the_longer_is_more_up_to_date() {
        let mut cluster = alone(3, &[2, 2]);
        assert!(!granted(&hear(&mut cluster, 2, 4, vote_request(id(2, 2)))));
        assert!(granted(&hear(&mut cluster, 2, 4, vote_request(id(4, 2)))));
    }
}

mod rules_for_all_servers {
    //! "Rules for Servers", "All Servers"

    use super::*;

    #[test]
    fn if_commit_index_is_above_last_applied_apply_but_only_what_is_on_this_disk() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 1, 1, vec![]));
        cluster.server(N1).slow = true;
        hear(&mut cluster, 2, 1, append(id(1, 1), 3, 1, vec![run(2, 3, 1)]));
        let applied = |c: &Cluster, to: &str| c.trace.iter().any(|l| l == &format!("n1 applies up to {to}"));
        assert!(applied(&cluster, "i1") && !applied(&cluster, "i3"));
        cluster.persist(N1);
        assert!(applied(&cluster, "i3"));
    }

    #[test]
    fn if_a_request_contains_a_later_term_take_it_and_become_follower() {
        let mut cluster = candidate();
        hear(&mut cluster, 3, 7, append(id(1, 1), 0, 1, vec![]));
        let state = (cluster.role(1), cluster.at(1).term(), cluster.at(1).vote());
        assert_eq!(state, (Role::Follower, Term(7), None));
    }

    #[test]
    fn if_a_response_contains_a_later_term_take_it_and_become_follower() {
        let mut cluster = leading();
        hear(&mut cluster, 3, 7, acknowledge(0, 0));
        assert_eq!((cluster.role(1), cluster.at(1).term()), (Role::Follower, Term(7)));
    }
}

mod rules_for_followers {
    //! "Rules for Servers", "Followers"

    use super::*;

    #[test]
    fn respond_to_rpcs_from_candidates_and_leaders() {
        let mut cluster = alone(3, &[]);
        assert_eq!(hear(&mut cluster, 2, 2, vote_request(id(1, 1))).len(), 1);
        assert_eq!(hear(&mut cluster, 2, 2, append(id(1, 1), 0, 1, vec![])).len(), 1);
    }

    #[test]
    fn if_election_timeout_elapses_without_append_entries_or_granting_a_vote_stand() {
        let mut cluster = alone(3, &[]);
        let first = cluster.at(1).deadline();
        cluster.now = kontiki_consensus::Time(first.0 - 1);
        cluster.happen(N1, Event::Timeout);
        assert_eq!(cluster.role(1), Role::Follower);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        assert!(
            cluster.at(1).deadline() > first,
            "AppendEntries restarts the timer"
        );
        cluster.timeout(N1);
        assert_eq!(cluster.role(1), Role::PreCandidate);
    }

    #[test]
    fn granting_a_vote_restarts_the_election_timer() {
        let mut cluster = alone(3, &[]);
        cluster.now = kontiki_consensus::Time(cluster.at(1).deadline().0 - 1);
        hear(&mut cluster, 2, 2, vote_request(id(1, 1)));
        let least = cluster.now.after(Duration::from_millis(300));
        assert!(cluster.at(1).deadline() >= least);
    }

    #[test]
    fn a_server_that_does_not_vote_does_not_stand() {
        let cluster = Cluster::new(3, 1, 1, |_| {});
        assert_eq!(cluster.role(4), Role::Learner);
        assert_eq!(cluster.at(4).deadline(), kontiki_consensus::Time::MAX);
    }
}

mod rules_for_candidates {
    //! "Rules for Servers", "Candidates"

    use super::*;

    #[test]
    fn on_conversion_increment_current_term_vote_for_self_and_send_request_vote_to_all() {
        let mut cluster = alone(5, &[]);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        let sent = hear(&mut cluster, 3, 2, vote(true));
        assert_eq!((cluster.at(1).term(), cluster.at(1).vote()), (Term(2), Some(N1)));
        let to: Vec<u64> = sent.iter().map(|m| m.to.0).collect();
        assert_eq!(to, [2, 3, 4, 5]);
        assert!(
            sent.iter()
                .all(|m| m.term == Term(2) && m.call == vote_request(id(1, 1)))
        );
    }

    #[test]
    fn on_conversion_reset_election_timer() {
        let cluster = candidate();
        assert!(cluster.at(1).deadline() >= cluster.now.after(Duration::from_millis(300)));
    }

    #[test]
    fn if_votes_received_from_a_majority_become_leader() {
        let mut cluster = alone(5, &[]);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        hear(&mut cluster, 3, 2, vote(true));
        hear(&mut cluster, 2, 2, vote(false));
        hear(&mut cluster, 2, 2, vote(false));
        assert_eq!(cluster.role(1), Role::Candidate, "a vote counts once a server");
        hear(&mut cluster, 3, 1, vote(false));
        assert_eq!(cluster.role(1), Role::Candidate, "a vote counts in its term only");
        hear(&mut cluster, 3, 2, vote(false));
        assert_eq!(cluster.role(1), Role::Leader);
    }

    #[test]
    fn the_own_vote_counts_once_it_is_on_disk() {
        let mut cluster = Cluster::new(1, 0, 1, |_| {});
        cluster.server(N1).slow = true;
        cluster.timeout(N1);
        assert_eq!(cluster.role(1), Role::Candidate);
        cluster.persist(N1);
        assert_eq!(cluster.role(1), Role::Leader);
    }

    #[test]
    fn a_vote_of_a_server_that_has_none_does_not_count() {
        let mut cluster = candidate();
        hear(&mut cluster, 9, 2, vote(false));
        assert_eq!(cluster.role(1), Role::Candidate);
    }

    #[test]
    fn if_append_entries_received_from_new_leader_convert_to_follower() {
        let mut cluster = candidate();
        hear(&mut cluster, 3, 2, append(id(1, 1), 0, 1, vec![]));
        assert_eq!(
            (cluster.role(1), cluster.at(1).leader()),
            (Role::Follower, Some(NodeId(3)))
        );
        assert_eq!(cluster.at(1).vote(), Some(N1), "a vote lasts for its term");
    }

    #[test]
    fn if_election_timeout_elapses_start_new_election() {
        let mut cluster = candidate();
        cluster.timeout(N1);
        assert_eq!(
            (cluster.role(1), cluster.at(1).term()),
            (Role::PreCandidate, Term(2))
        );
        hear(&mut cluster, 2, 3, vote(true));
        assert_eq!(
            (cluster.role(1), cluster.at(1).term()),
            (Role::Candidate, Term(3))
        );
    }
}

mod rules_for_leaders {
    //! "Rules for Servers", "Leaders"

    use super::*;

    #[test]
    fn upon_election_send_append_entries_to_each_server() {
        let mut cluster = candidate();
        let sent = hear(&mut cluster, 2, 2, vote(false));
        let to: Vec<u64> = sent
            .iter()
            .filter(|m| matches!(m.call, Call::AppendEntries { .. }))
            .map(|m| m.to.0)
            .collect();
        assert_eq!(to, [2, 3]);
    }

    #[test]
    fn repeat_during_idle_periods_to_prevent_election_timeouts() {
        let mut cluster = leading();
        for round in 2..10 {
            cluster.timeout(N1);
            assert_eq!(said(&mut cluster).len(), 2);
            hear(&mut cluster, 2, 2, acknowledge(round, 2));
        }
    }

    #[test]
    fn if_command_received_append_entry_to_local_log_and_answer_after_it_is_committed() {
        let mut cluster = leading();
        assert!(cluster.propose(N1, 2, 8));
        assert_eq!(
            (cluster.at(1).last(), cluster.at(1).commit()),
            (id(4, 2), Index(2))
        );
        hear(&mut cluster, 2, 2, acknowledge(1, 4));
        assert_eq!(cluster.at(1).commit(), Index(4));
    }

    #[test]
    fn if_last_log_index_reaches_next_index_send_entries_starting_at_next_index() {
        let mut cluster = leading();
        cluster.propose(N1, 2, 8);
        let sent = said(&mut cluster);
        let to_n2 = sent.iter().find(|m| m.to == NodeId(2)).expect("a message");
        let Call::AppendEntries { prev, runs, .. } = &to_n2.call else {
            panic!("{to_n2:?}")
        };
        assert_eq!(
            (*prev, runs[0].first(), runs[0].last()),
            (id(2, 2), Index(3), Index(4))
        );
    }

    #[test]
    fn if_successful_update_next_index_and_match_index() {
        let mut cluster = leading();
        cluster.propose(N1, 1, 8);
        hear(&mut cluster, 2, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).matched().next(), Some((NodeId(2), Index(3))));
        cluster.propose(N1, 1, 8);
        let sent = said(&mut cluster);
        let Call::AppendEntries { prev, .. } = &sent[0].call else {
            panic!("{sent:?}")
        };
        assert_eq!(*prev, id(3, 2));
    }

    #[test]
    fn if_append_entries_fails_because_of_inconsistency_decrement_next_index_and_retry() {
        let mut cluster = alone(3, &[1, 1, 1]);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        hear(&mut cluster, 2, 2, vote(false));
        let conflict = Some(Conflict {
            prev: Index(4),
            hint: id(2, 1),
        });
        let zero = Index::ZERO;
        let refusal = Call::AppendEntriesReply {
            round: Round(1),
            persisted: zero,
            received: zero,
            conflict,
            suspect: SuspectMark::ZERO,
        };
        let sent = hear(&mut cluster, 3, 2, refusal.clone());
        let Call::AppendEntries { prev, runs, .. } = &sent[0].call else {
            panic!("{sent:?}")
        };
        assert_eq!((*prev, runs[0].first()), (id(2, 1), Index(3)));
        assert!(
            hear(&mut cluster, 3, 2, refusal).is_empty(),
            "the same refusal again is an old story"
        );
    }

    #[test]
    fn a_lost_message_is_sent_again_as_it_was() {
        let mut cluster = alone(3, &[1, 1, 1]);
        cluster.timeout(N1);
        hear(&mut cluster, 2, 2, vote(true));
        hear(&mut cluster, 2, 2, vote(false));
        hear(&mut cluster, 2, 2, acknowledge(1, 5));
        sleep(&mut cluster, 300);
        cluster.timeout(N1);
        let sent = said(&mut cluster);
        let to_n3 = sent.iter().find(|m| m.to == NodeId(3)).expect("a message");
        let Call::AppendEntries { prev, .. } = &to_n3.call else {
            panic!("{to_n3:?}")
        };
        assert_eq!(
            *prev,
            id(4, 1),
            "a probe that is lost says nothing about where the logs agree"
        );
    }

    #[test]
    fn commit_n_if_a_majority_of_match_index_reaches_it_and_its_term_is_current() {
        let mut cluster = alone(5, &[1]);
        cluster.timeout(N1);
        for voter in [2, 3] {
            hear(&mut cluster, voter, 2, vote(true));
        }
        for voter in [2, 3] {
            hear(&mut cluster, voter, 2, vote(false));
        }
        hear(&mut cluster, 2, 2, acknowledge(1, 2));
        hear(&mut cluster, 3, 2, acknowledge(1, 2));
        assert_eq!(cluster.at(1).commit(), Index::ZERO, "i2 is of an earlier term");
        hear(&mut cluster, 2, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).commit(), Index::ZERO, "two of five are no majority");
        hear(&mut cluster, 3, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).commit(), Index(3));
    }

    #[test]
    fn the_leader_counts_itself_only_for_what_is_on_its_disk() {
        let mut cluster = leading();
        cluster.server(N1).slow = true;
        cluster.propose(N1, 1, 8);
        hear(&mut cluster, 2, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).commit(), Index(2));
        cluster.persist(N1);
        assert_eq!(cluster.at(1).commit(), Index(3));
    }

    #[test]
    fn received_is_not_persisted_and_commits_nothing() {
        let mut cluster = leading();
        cluster.propose(N1, 1, 8);
        let reply = |persisted, received| Call::AppendEntriesReply {
            round: Round(1),
            persisted: Index(persisted),
            received: Index(received),
            conflict: None,
            suspect: SuspectMark::ZERO,
        };
        hear(&mut cluster, 2, 2, reply(2, 3));
        assert_eq!(cluster.at(1).commit(), Index(2));
    }

    #[test]
    fn proposals_wait_until_the_first_record_of_the_term_may_be_applied() {
        let mut cluster = candidate();
        hear(&mut cluster, 2, 2, vote(false));
        assert_eq!(cluster.at(1).admission(), None);
        hear(&mut cluster, 2, 2, acknowledge(1, 2));
        assert!(cluster.at(1).admission().is_some());
    }

    #[test]
    fn a_window_that_is_full_waits_for_the_disk_of_the_follower() {
        let mut cluster = Cluster::new(3, 0, 1, |config| config.window_bytes_max = 16);
        cluster.elect(1);
        cluster.checker.made_up = true;
        let sent_for = |c: &mut Cluster| {
            c.propose(N1, 1, 16);
            let to_n2 = |m: &Message| {
                m.to == NodeId(2) && matches!(&m.call, Call::AppendEntries { runs, .. } if !runs.is_empty())
            };
            said(c).iter().filter(|m| to_n2(m)).count()
        };
        assert_eq!((sent_for(&mut cluster), sent_for(&mut cluster)), (1, 0));
        let answers = hear(&mut cluster, 2, 2, acknowledge(1, 3));
        assert!(answers.iter().any(|m| m.to == NodeId(2)), "there is room again");
    }
}

mod configurations {
    //! Dissertation §4: learners do not count, and a joint decision needs both majorities.

    use super::*;

    fn joint() -> Configuration {
        Configuration {
            outgoing: vec![NodeId(1), NodeId(4), NodeId(5)],
            ..Configuration::of_voters([NodeId(1), NodeId(2), NodeId(3)])
        }
    }

    #[test]
    fn a_joint_decision_needs_a_majority_of_both() {
        assert!(!joint().has_quorum(|n| [1, 2, 3].contains(&n.0)));
        assert!(!joint().has_quorum(|n| [2, 4, 5].contains(&n.0)));
        assert!(joint().has_quorum(|n| [1, 2, 4].contains(&n.0)));
        let matched = |n: NodeId| Index([0, 9, 9, 1, 5, 2][n.0 as usize]);
        assert_eq!(joint().quorum_value(matched), Index(5));
    }

    #[test]
    fn more_than_half_is_needed_of_an_even_number_and_of_many() {
        let even = Configuration::of_voters((1..=4).map(NodeId));
        assert_eq!(even.quorum_value(|n| Index(n.0)), Index(2));
        assert!(!even.has_quorum(|n| n.0 <= 2));
        let many = Configuration::of_voters((1..=15).map(NodeId));
        assert_eq!(many.quorum_value(|n| Index(n.0)), Index(8));
    }

    #[test]
    fn nobody_decides_where_there_are_no_voters() {
        let empty = Configuration::default();
        assert!(!empty.has_quorum(|_| true));
        assert_eq!(empty.quorum_value(|_| Index(9)), Index::ZERO);
    }

    #[test]
    fn a_learner_receives_the_log_and_does_not_count() {
        let mut cluster = Cluster::new(3, 1, 1, |_| {});
        cluster.elect(1);
        assert_eq!(cluster.at(4).commit(), Index(2));
        for down in [2, 3] {
            cluster.crash(NodeId(down));
        }
        cluster.propose(N1, 1, 8);
        cluster.settle();
        assert_eq!(
            (cluster.at(4).persisted(), cluster.at(1).commit()),
            (Index(3), Index(2))
        );
    }

    #[test]
    fn a_leader_that_is_no_longer_a_voter_does_not_count_itself() {
        let mut cluster = leading();
        let without = Configuration::of_voters([NodeId(2), NodeId(3)]);
        let place = cluster.at(1).admission().expect("it leads");
        let body = Body::Configuration(without.into());
        let change = Run::new(place.index, place.term, place.position, body);
        cluster.happen(N1, Event::Propose(change));
        hear(&mut cluster, 2, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).commit(), Index(2));
        hear(&mut cluster, 3, 2, acknowledge(1, 3));
        assert_eq!(cluster.at(1).commit(), Index(3));
    }

    #[test]
    fn one_server_is_a_cluster() {
        let mut cluster = Cluster::new(1, 0, 1, |_| {});
        cluster.timeout(N1);
        assert!(cluster.propose(N1, 3, 8));
        assert_eq!(cluster.at(1).commit(), Index(5));
        cluster.read(N1);
        assert_eq!(cluster.checker.reads_answered, 1);
    }
}

mod pre_vote {
    //! Dissertation §9.6

    use super::*;

    #[test]
    fn a_server_does_not_increment_its_term_to_ask() {
        let mut cluster = alone(3, &[]);
        cluster.timeout(N1);
        assert_eq!((cluster.at(1).term(), cluster.at(1).vote()), (Term(1), None));
        assert!(
            said(&mut cluster)
                .iter()
                .all(|m| m.term == Term(2) && m.call == pre_vote_request(id(1, 1)))
        );
    }

    #[test]
    fn being_asked_changes_nothing() {
        let mut cluster = alone(3, &[]);
        let deadline = cluster.at(1).deadline();
        assert!(granted(&hear(&mut cluster, 2, 9, pre_vote_request(id(1, 1)))));
        assert!(granted(&hear(&mut cluster, 3, 9, pre_vote_request(id(1, 1)))));
        assert_eq!((cluster.at(1).term(), cluster.at(1).vote()), (Term(1), None));
        assert_eq!(cluster.at(1).deadline(), deadline);
    }

    #[test]
    fn it_is_granted_only_to_a_log_that_would_win() {
        let mut cluster = alone(3, &[2, 2]);
        assert!(!granted(&hear(&mut cluster, 2, 9, pre_vote_request(id(9, 1)))));
        assert!(granted(&hear(&mut cluster, 2, 9, pre_vote_request(id(3, 2)))));
    }

    #[test]
    fn it_is_granted_only_if_no_leader_was_heard_for_an_election_timeout() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        assert!(!granted(&hear(&mut cluster, 3, 2, pre_vote_request(id(1, 1)))));
        sleep(&mut cluster, 300);
        assert!(granted(&hear(&mut cluster, 3, 2, pre_vote_request(id(1, 1)))));
    }

    #[test]
    fn a_refusal_from_a_later_term_teaches_that_term() {
        let mut cluster = alone(3, &[]);
        cluster.timeout(N1);
        hear(
            &mut cluster,
            2,
            8,
            Call::RequestVoteReply {
                pre: true,
                granted: false,
                suspect: SuspectMark::ZERO,
            },
        );
        assert_eq!((cluster.role(1), cluster.at(1).term()), (Role::Follower, Term(8)));
    }

    #[test]
    fn a_vote_is_not_a_pre_vote() {
        // A candidate of five gives up, and asks whether it would win the next term. A vote of the
        // last term that comes late says nothing about that.
        let mut cluster = alone(5, &[]);
        cluster.timeout(N1);
        for voter in [2, 3] {
            hear(&mut cluster, voter, 2, vote(true));
        }
        cluster.timeout(N1);
        for voter in [2, 3] {
            hear(&mut cluster, voter, 2, vote(false));
        }
        hear(&mut cluster, 4, 3, vote(true));
        assert_eq!(
            (cluster.role(1), cluster.at(1).term()),
            (Role::PreCandidate, Term(2))
        );
    }
}

mod undisturbed {
    //! Dissertation §4.2.3 and §6.2

    use super::*;

    #[test]
    fn a_request_vote_within_the_minimum_election_timeout_of_hearing_from_a_leader_is_ignored() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        assert!(hear(&mut cluster, 3, 9, vote_request(id(9, 8))).is_empty());
        assert_eq!(cluster.at(1).term(), Term(1));
        sleep(&mut cluster, 300);
        assert!(granted(&hear(&mut cluster, 3, 9, vote_request(id(9, 8)))));
    }

    #[test]
    fn an_election_that_the_leader_asked_for_is_heeded_at_once() {
        let mut cluster = alone(3, &[]);
        hear(&mut cluster, 2, 1, append(id(1, 1), 0, 1, vec![]));
        let call = Call::RequestVote {
            pre: false,
            transfer: true,
            last: id(1, 1),
        };
        assert!(granted(&hear(&mut cluster, 3, 2, call)));
    }

    #[test]
    fn a_leader_that_a_quorum_answers_is_not_deposed_by_a_request_vote() {
        let mut cluster = leading();
        assert!(hear(&mut cluster, 3, 9, vote_request(id(9, 8))).is_empty());
        assert_eq!(cluster.role(1), Role::Leader);
    }

    #[test]
    fn a_leader_steps_down_if_an_election_timeout_elapses_without_a_round_to_a_majority() {
        let mut cluster = leading();
        for _ in 0..11 {
            cluster.timeout(N1);
        }
        assert_eq!(cluster.role(1), Role::Leader);
        cluster.timeout(N1);
        assert_eq!((cluster.role(1), cluster.at(1).term()), (Role::Follower, Term(2)));
    }

    #[test]
    fn a_leader_of_a_full_disk_steps_down_and_does_not_stand() {
        let mut cluster = leading();
        cluster.happen(N1, Event::DiskFull(true));
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.at(1).deadline(), kontiki_consensus::Time::MAX);
        cluster.happen(N1, Event::DiskFull(false));
        assert!(cluster.at(1).deadline() < kontiki_consensus::Time::MAX);
        let deadline = cluster.at(1).deadline();
        sleep(&mut cluster, 100);
        cluster.happen(N1, Event::DiskFull(false));
        assert_eq!(
            cluster.at(1).deadline(),
            deadline,
            "what is no news delays no election"
        );
    }

    #[test]
    fn who_may_not_lead_steps_down_does_not_stand_and_votes() {
        let mut cluster = leading();
        cluster.happen(N1, Event::MayLead(false));
        assert_eq!(cluster.role(1), Role::Follower);
        assert_eq!(cluster.at(1).deadline(), kontiki_consensus::Time::MAX);
        cluster.happen(N1, Event::DiskFull(true));
        cluster.happen(N1, Event::DiskFull(false));
        assert_eq!(cluster.at(1).deadline(), kontiki_consensus::Time::MAX);
        sleep(&mut cluster, 1_000);
        let answers = hear(&mut cluster, 2, 9, vote_request(id(9, 9)));
        assert!(granted(&answers));
        cluster.happen(N1, Event::MayLead(true));
        assert!(cluster.at(1).deadline() < kontiki_consensus::Time::MAX);
    }
}

mod read_index {
    //! Dissertation §6.4

    use super::*;

    fn answered(cluster: &Cluster) -> usize {
        cluster.checker.reads_answered
    }

    #[test]
    fn a_leader_that_has_not_committed_in_its_term_waits_until_it_has() {
        let mut cluster = candidate();
        hear(&mut cluster, 2, 2, vote(false));
        cluster.read(N1);
        // This answers the round, but commits nothing.
        hear(&mut cluster, 2, 2, acknowledge(2, 1));
        assert_eq!(answered(&cluster), 0);
        hear(&mut cluster, 2, 2, acknowledge(2, 2));
        hear(&mut cluster, 2, 2, acknowledge(3, 2));
        assert_eq!(answered(&cluster), 1);
    }

    #[test]
    fn a_round_that_began_before_the_read_does_not_confirm_it() {
        let mut cluster = leading();
        cluster.timeout(N1);
        cluster.read(N1);
        hear(&mut cluster, 2, 2, acknowledge(2, 2));
        assert_eq!(answered(&cluster), 0);
        hear(&mut cluster, 2, 2, acknowledge(3, 2));
        assert_eq!(answered(&cluster), 1);
    }

    #[test]
    fn one_round_confirms_all_reads_that_wait() {
        let mut cluster = leading();
        for id in 100..200 {
            cluster.checker.read_begins(ReadId(id));
            cluster.step(N1, Event::Read(ReadId(id)));
        }
        cluster.flush(N1);
        assert_eq!(said(&mut cluster).len(), 2);
        hear(&mut cluster, 3, 2, acknowledge(2, 0));
        assert_eq!(answered(&cluster), 100);
    }

    #[test]
    fn a_majority_must_answer_the_round() {
        let mut cluster = alone(5, &[]);
        cluster.timeout(N1);
        for pre in [true, false] {
            for voter in [2, 3] {
                hear(&mut cluster, voter, 2, vote(pre));
            }
        }
        for voter in [2, 3] {
            hear(&mut cluster, voter, 2, acknowledge(1, 2));
        }
        cluster.read(N1);
        hear(&mut cluster, 2, 2, acknowledge(2, 2));
        assert_eq!(answered(&cluster), 0);
        hear(&mut cluster, 4, 2, acknowledge(2, 0));
        assert_eq!(answered(&cluster), 1);
    }

    #[test]
    fn a_follower_asks_the_leader_and_answers_itself() {
        let mut cluster = Cluster::new(3, 0, 1, |_| {});
        cluster.elect(1);
        cluster.read(NodeId(3));
        cluster.settle();
        assert!(
            cluster.trace.iter().any(|l| l == "n3 answers r1 at i2"),
            "{}",
            cluster.story()
        );
    }

    #[test]
    fn a_server_that_knows_no_leader_refuses() {
        let mut cluster = alone(3, &[]);
        cluster.read(N1);
        assert!(cluster.trace.iter().any(|l| l == "n1 refuses r1"));
        let answers = hear(&mut cluster, 2, 1, Call::ReadIndex { id: ReadId(7) });
        assert_eq!(
            answers[0].call,
            Call::ReadIndexReply {
                id: ReadId(7),
                index: None
            }
        );
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_not_answered() {
        let mut cluster = leading();
        let id = cluster.read(N1);
        cluster.happen(N1, Event::CancelRead(id));
        hear(&mut cluster, 2, 2, acknowledge(2, 2));
        assert_eq!(answered(&cluster), 0);
    }

    #[test]
    fn a_leader_that_is_a_quorum_by_itself_needs_no_answer_of_a_learner() {
        let mut cluster = Cluster::new(1, 1, 1, |_| {});
        cluster.crash(NodeId(2));
        cluster.timeout(N1);
        cluster.read(N1);
        assert_eq!(answered(&cluster), 1);
    }
}

mod broken_promises {
    //! What can only happen if a promise was broken stops the server, and not its host.

    use super::*;

    fn stops(cluster: &mut Cluster, event: Event) -> bool {
        let now = cluster.now;
        let life = cluster.server(N1).life.as_mut().expect("it is up");
        let mut outputs = Vec::new();
        life.step(now, event);
        life.flush(now, &mut outputs);
        matches!(outputs.as_slice(), [Output::Fatal(_)])
    }

    fn from_n2(term: u64, call: Call) -> Event {
        Event::Message(Message {
            from: NodeId(2),
            to: N1,
            term: Term(term),
            call,
        })
    }

    #[test]
    fn another_leader_of_the_same_term() {
        let event = from_n2(2, append(id(1, 1), 0, 1, vec![]));
        assert!(stops(&mut leading(), event));
    }

    #[test]
    fn a_conflict_with_what_is_committed() {
        let mut cluster = alone(3, &[1, 1]);
        hear(&mut cluster, 2, 1, append(id(3, 1), 3, 1, vec![]));
        assert!(stops(
            &mut cluster,
            from_n2(2, append(id(1, 1), 0, 1, vec![run(2, 2, 2)]))
        ));
    }

    #[test]
    fn an_acknowledgement_of_records_that_do_not_exist() {
        assert!(stops(&mut leading(), from_n2(2, acknowledge(1, 99))));
    }

    #[test]
    fn a_write_that_was_never_given_out() {
        assert!(stops(
            &mut leading(),
            Event::Persisted(kontiki_consensus::WriteId(99))
        ));
    }
}
