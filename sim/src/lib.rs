//! A deterministic simulator that runs the shipped node, log and wire code.
//!
//! The driver, the log and the encoding are those of production; time, disks, network and clients are
//! simulated, and everything follows from one seed. `docs/SIMULATOR.md` says what is checked and how
//! to read a trace.

pub mod archive;
pub mod batch;
pub mod checkers;
pub mod checks;
pub mod clients;
pub mod committed;
pub mod crowds;
pub mod desk;
pub mod disk;
pub mod entries;
pub mod faults;
mod greetings;
pub mod hash;
mod hints;
mod impostors;
pub mod ledger;
pub mod linearizability;
pub mod lives;
pub mod machine;
pub mod network;
pub mod outlets;
pub mod ports;
pub mod queue;
pub mod random;
pub mod replica;
pub mod run;
pub mod session_clients;
pub mod sometimes;
pub mod swarm;
pub mod tasks;
pub mod trace;
pub mod traffic;
pub mod transitions;
pub mod violation;
pub mod world;
