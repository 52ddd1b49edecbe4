//! A replicated log that lives inside your program: typed, durable, encrypted, on as many machines as you like.
//!
//! Three nodes, here in one process and with directories and ports of their own; on machines of their own each begins with
//! [`Config::new`]. What is appended through one is read from another:
//!
//! ```
//! use kontiki::{Config, Consistency, Error, LogOnly, RaftNode};
//!
//! fn main() -> Result<(), Error> {
//!     let dir = std::env::temp_dir().join(format!("kontiki-{}", std::process::id()));
//!     let start = |config| Ok(RaftNode::<LogOnly<String>>::new(config)?.start()?.blocking());
//!     let nodes: Vec<_> = Config::loopback(3, &dir)?.into_iter().map(start).collect::<Result<_, Error>>()?;
//!     let at = nodes[0].append("hello from node 1".to_owned())?;
//!     let read = nodes[1].read(at.first..=at.last, Consistency::Linearizable)?;
//!     println!("node 2 reads: {}", read.entries[0].value);
//! #   assert_eq!(read.entries[0].value, "hello from node 1");
//! #   nodes.iter().try_for_each(|node| node.shutdown())?;
//! #   std::fs::remove_dir_all(dir).unwrap();
//!     Ok(())
//! }
//! ```
//!
//! A program's own state stands on the log as a [`StateMachine`]: [`RaftNode::with_machine`] applies every command on every
//! node, in the same order, and gives a [`MachineHandle`]:
//!
//! ```
//! use kontiki::{At, Config, Consistency, Error, RaftNode, StateMachine};
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Command = u64;
//!     type Output = u64;
//!     type Query = ();
//!     type Answer = u64;
//!
//!     fn apply(&mut self, _: &At, more: u64) -> u64 {
//!         self.0 += more;
//!         self.0
//!     }
//!
//!     fn query(&self, (): ()) -> u64 {
//!         self.0
//!     }
//! }
//!
//! fn main() -> Result<(), Error> {
//!     let start = |config| Ok(RaftNode::with_machine(config, Counter(0))?.start()?.blocking());
//!     let nodes: Vec<_> = Config::in_memory(3)?.into_iter().map(start).collect::<Result<_, Error>>()?;
//!     let done = nodes[0].apply(5)?;
//!     println!("entry {} made it {}", done.index, done.output);
//!     assert_eq!(nodes[1].query((), Consistency::Linearizable)?, 5);
//!     Ok(())
//! }
//! ```
//!
//! `examples/bank.rs` is a whole program. A panic in [`apply`](StateMachine::apply) stops the node, never the program:
//! [`Status::stopped`] names the entry, and log and vote stay as they are.
//!
//! - [`RaftNode::start`] gives a [`Handle`]: async on any executor, or [`blocking`](Handle::blocking).
//!   [`RaftNode::spinup`] gives two channels of the standard library instead.
//! - Every node takes every call and forwards to the leader what is for it.
//! - An append is acknowledged once a majority of the nodes has it on disk. What is acknowledged is never lost.
//! - An append or command whose answer is lost is sent again by the node, and takes effect once ([`Config::sessions`]).
//! - Each [`Error`] says whether the append may have happened ([`outcome`](Error::outcome)), whether asking again makes sense
//!   and what to do.
//! - Indexes count the entries of the log, from 1, without holes.
//!
//! **Logging.** Events go to the [`tracing`](https://docs.rs/tracing) subscriber of the program, and the node's own threads call
//! it: a subscriber that blocks, as one does that writes to a pipe nobody reads, blocks votes, heartbeats and appends with it.
//! Take one that queues a bounded number of lines and loses the rest, such as `tracing_appender::non_blocking` with its default
//! of being lossy. The same goes for a panic hook: the standard one writes to standard error on the thread that panicked.

#[cfg(doctest)]
#[doc = include_str!("../../docs/EVOLVING.md")]
mod evolving {}

mod answer;
mod asking;
mod blocking;
mod calls;
mod channels;
mod code;
mod config;
mod consistency;
mod entry;
mod error;
mod extents;
mod handle;
mod jobs;
mod key;
mod local;
mod lone;
mod machine;
mod memory;
mod network;
mod node;
mod owner;
mod pace;
mod place;
mod policy;
mod random;
mod readers;
mod reading;
mod replica;
mod request;
mod session;
mod shared;
mod status;
mod storage;
mod suspect;
mod tail;
mod turns;
mod uptime;
mod worker;

pub use blocking::{BlockingHandle, BlockingMachine, BlockingTail};
pub use channels::{Channels, ClientRequest, ClientResponse};
pub use code::Code;
pub use config::Config;
pub use consistency::Consistency;
pub use entry::{IntoEntry, LogEntry, LogOnly, Raw};
pub use error::{Error, Outcome};
pub use handle::Handle;
pub use key::ClusterKey;
pub use kontiki_node::encoding::decode;
pub use kontiki_node::machine::{Batch, MetaDelta, MetaRows, Reader, restored, snapshot_of};
pub use kontiki_node::{At, MachineError, StateMachine};
pub use kontiki_transport::{Carrier, Socket};
pub use kontiki_wire::ClusterId;
pub use machine::{Applied, Apply, ApplyAll, MachineHandle, Query};
pub use node::RaftNode;
pub use policy::SnapshotPolicy;
pub use request::{Append, Appended, Entries, Entry, Expect, Read};
pub use session::{OpenSession, Session, SessionKey};
pub use status::{PeerStatus, Role, SnapshotStatus, Status};
pub use tail::Tail;
