//! Tests of the whole log, on a disk in memory that can be torn, stopped and damaged.

mod compaction;
mod crash;
mod damage;
mod disk;
mod forged;
mod golden;
mod lives;
mod model;
mod no_room;
mod parts;
mod places;
mod reads;
mod recycle;
mod room;
mod snapshots;
mod wrong;
