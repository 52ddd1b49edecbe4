//! The durable log: segments, term and vote, recovery, over a disk that is given work and later says it is done.

mod api;
pub mod disk;
mod os_disk;

pub use api::{Fetch, From, LogError, LogEvent, LogOptions, Recovered};
pub use os_disk::OsDisk;
