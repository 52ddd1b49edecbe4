//! What must hold at every moment: one file a property.
//!
//! A checker takes plain data and knows neither driver nor log, so that each can be shown by hand
//! what it must refuse: a checker that never fired proves nothing (`tests/checkers.rs`).

pub mod ages;
pub mod answers;
pub mod appends;
pub mod backlog;
pub mod commit_order;
pub mod compare;
pub mod convergence;
pub mod durability;
pub mod election_safety;
pub mod hard_states;
pub mod leader_append_only;
pub mod leader_completeness;
pub mod log_matching;
pub mod memory;
pub mod quorum_contact;
pub mod reads;
pub mod replicas;
pub mod snapshots;
pub mod state_machine_safety;
pub mod tails;
pub mod transfers;
