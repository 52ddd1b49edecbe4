//! A disk that keeps only what was synced, takes its time, and may stop between any two operations.
//!
//! [`SimDisk`] is a handle: the log owns one, the simulator another. The simulator moves its clock,
//! stalls it, cuts its power. Invariant: after a loss of power exactly what the device had made
//! durable is certain; `inode` and `names` say what may be left of the rest.

mod inode;
mod names;
mod platter;

use crate::random::{Ppm, Random};
use inode::Inode;
use kontiki_consensus::{Duration, Time};
use kontiki_log::disk::{Completion, Disk, Op, OpId};
use names::Names;
use platter::{Platter, Power};
use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

/// How a disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct DiskProfile {
    /// The mean time of a write, a read or a change of names.
    pub write: Duration,
    /// The mean time of a sync.
    pub sync: Duration,
    /// How often an operation takes as long as `hiccup`.
    pub hiccups: Ppm,
    /// How long that is, at most.
    pub hiccup: Duration,
}

impl DiskProfile {
    /// A disk in good health.
    pub const HEALTHY: Self = Self {
        write: Duration(100_000),
        sync: Duration(1_000_000),
        hiccups: Ppm(0),
        hiccup: Duration(0),
    };
}

/// What a loss of power does to what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// All of it is lost.
    LoseAll,
    /// All of it had reached the platter, by luck.
    KeepAll,
    /// Each sector and each name is kept or lost, independently.
    Torn,
}

/// What is left after a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Damage {
    /// A write was torn: a part of it is there.
    pub torn_write: bool,
    /// A file was being made.
    pub in_create: bool,
    /// A change of names was lost.
    pub lost_name: bool,
    /// Operations that were under way.
    pub in_flight: usize,
}

/// A handle on a simulated disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    platter: Rc<RefCell<Platter>>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(name: &str, random: Random, profile: DiskProfile) -> Self {
        let platter = Platter::new(name, random, profile, Names::default(), Vec::new());
        Self {
            platter: Rc::new(RefCell::new(platter)),
        }
    }

    /// What a process draws on this machine that nobody else can guess.
    #[must_use]
    pub fn draw_secret(&self) -> u64 {
        self.platter.borrow_mut().secrets.draw()
    }

    /// Moves the disk's clock and completes what ends by then.
    pub fn advance(&self, now: Time) {
        self.platter.borrow_mut().advance(now);
    }

    /// The disk's clock: later than it was set to if [`Disk::wait`] was used.
    #[must_use]
    pub fn now(&self) -> Time {
        self.platter.borrow().now
    }

    /// When the next operation completes.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        let platter = self.platter.borrow();
        let next = platter.under_way.keys().next()?.0;
        (platter.power != Power::Lost).then(|| next.max(platter.stalled_until))
    }

    /// Cuts the power once this many more operations were submitted or completed.
    pub fn fail_power_after(&self, operations: u64) {
        self.platter.borrow_mut().power = Power::FailsAfter(operations);
    }

    /// Kills the process once a name has changed in this directory, before that is synced: it looks as if the power were lost, and
    /// [`SimDisk::is_killed`] tells that it is not.
    pub fn kill_when_named(&self, directory: &'static str) {
        self.platter.borrow_mut().kills_named = Some(directory);
    }

    /// Whether the process was killed by [`SimDisk::kill_when_named`].
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.platter.borrow().killed
    }

    /// Takes back [`SimDisk::fail_power_after`] and [`SimDisk::kill_when_named`], if the power is still on.
    pub fn keep_power(&self) {
        let mut platter = self.platter.borrow_mut();
        platter.kills_named = None;
        if platter.power != Power::Lost {
            platter.power = Power::On;
        }
    }

    /// Whether the power has failed; nothing completes until [`SimDisk::crash`].
    #[must_use]
    pub fn power_is_lost(&self) -> bool {
        self.platter.borrow().power == Power::Lost
    }

    /// Completes nothing before this time.
    pub fn stall(&self, until: Time) {
        let mut platter = self.platter.borrow_mut();
        platter.stalled_until = platter.stalled_until.max(until);
    }

    /// Whether it stands still at the moment with work to do.
    #[must_use]
    pub fn is_stalled(&self, now: Time) -> bool {
        let platter = self.platter.borrow();
        platter.stalled_until > now && !platter.under_way.is_empty()
    }

    /// Makes it healthy: ends a stall, slowness and lack of room.
    pub fn heal(&self) {
        let mut platter = self.platter.borrow_mut();
        platter.stalled_until = Time::ZERO;
        platter.profile = DiskProfile::HEALTHY;
        (platter.full, platter.broken) = (false, false);
    }

    /// Lets every write fail from now on, until the next crash: the machine gets another controller.
    pub fn break_writes(&self) {
        self.platter.borrow_mut().broken = true;
    }

    /// Whether a write has failed since the last crash.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.platter.borrow().has_failed
    }

    /// Whether new files and folders are refused for lack of room, and files do not grow.
    pub fn set_full(&self, full: bool) {
        self.platter.borrow_mut().full = full;
    }

    /// The process is killed but the machine goes on: what was written stays, synced or not.
    pub fn kill(&self) -> Damage {
        self.platter.borrow_mut().kill()
    }

    /// The power fails: what is not synced is at the mercy of `severity`.
    pub fn crash(&self, severity: Severity) -> Damage {
        self.platter.borrow_mut().crash(severity)
    }

    /// A bit of some file flips, of those that are not empty; gives in which file and where.
    pub fn rot(&self, random: &mut Random) -> Option<(usize, u64)> {
        let mut platter = self.platter.borrow_mut();
        let mut files: Vec<usize> = platter.names.files().into_iter().collect();
        random.shuffle(&mut files);
        files
            .into_iter()
            .find_map(|file| Some((file, platter.inodes[file].rot(random)?)))
    }

    /// Another disk that holds what is certain to survive on this one.
    #[must_use]
    pub fn image(&self) -> Self {
        let platter = self.platter.borrow();
        let inodes = platter.inodes.iter().map(Inode::platter).collect();
        let name = format!("image of {}", platter.name);
        let image = Platter::new(
            &name,
            platter.random.clone(),
            DiskProfile::HEALTHY,
            platter.names.platter(),
            inodes,
        );
        Self {
            platter: Rc::new(RefCell::new(image)),
        }
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, op: Op) -> OpId {
        self.platter.borrow_mut().submit(op)
    }

    fn poll(&mut self) -> Option<Completion> {
        self.platter.borrow_mut().completed.pop_front()
    }

    fn wait(&mut self) -> Option<Completion> {
        self.platter.borrow_mut().wait()
    }

    fn name(&self) -> String {
        self.platter.borrow().name.clone()
    }

    /// Its bytes as a process sees them now: on another thread it would be opened now too.
    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        match self.platter.borrow().content(name) {
            Some(bytes) => Box::new(Cursor::new(bytes)),
            None => Box::new(Missing),
        }
    }
}

/// A file that is not there.
struct Missing;

impl Read for Missing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }
}
