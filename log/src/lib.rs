//! The durable log: segments, term and vote, recovery, over a disk that is given work and later says it is done.
//!
//! `layout` says where things stand, `create` makes a log, `recovery` opens one (`scan` reads a segment, `replay`
//! follows the stream of frames), `log` keeps it open: `batch` joins writes into frames, `room` keeps a segment
//! ahead, `reader` reads records beside the writes, `group` knows where each stands; `snapshots` keeps snapshots beside it,
//! `lives` the lives of the node and its peers. The bytes are `wire`'s
//! and drawn in `docs/FORMAT.md`, together with what is assumed of the device.

mod api;
mod batch;
mod blocking;
mod create;
pub mod disk;
mod files;
mod group;
mod layout;
mod lives;
mod log;
mod os_disk;
mod reader;
mod recovery;
mod replay;
mod room;
mod salts;
mod scan;
mod snapshots;
mod words;

pub use api::{
    DAMAGES_MAX, Fetch, From, LogError, LogEvent, LogOptions, Recovered, SegmentStart, SnapshotCommand,
    SnapshotEvent, SnapshotFile,
};
pub use create::{create, holds_log};
pub use lives::Start;
pub use log::Log;
pub use os_disk::OsDisk;

pub use reader::CHECK_BYTES_MAX;
pub use salts::Salts;

#[cfg(test)]
mod tests;
