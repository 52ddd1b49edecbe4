//! Tests of the binary as a user runs it: real processes on loopback.
//!
//! Nothing here depends on how fast the machine is: every wait has a condition, and a limit that only keeps a broken
//! test from hanging.

mod append;
mod channel;
mod cluster;
mod demo;
mod endpoints;
mod http;
mod limits;
mod lives;
mod readers;
mod refusals;
mod scratch;
mod sessions;
mod suspect;
mod tail;
