//! The crate as programs use it: real nodes, some with directories and QUIC between them, some in memory.

mod channels;
mod common;
mod durable;
mod handle;
mod limits;
mod lives;
mod machine;
mod once;
mod reads;
mod retention;
mod values;
