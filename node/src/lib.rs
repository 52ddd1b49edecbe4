//! One replica: the driver, its ports, proposals, reads and forwarding.

pub mod ports;
pub mod request;

pub use ports::{Input, Ports};
pub use request::{Ask, Consistency, Failure, Reply, Request, Token};
