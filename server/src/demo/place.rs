//! Where a demo's cluster lies: a directory that is kept, or one that is removed at the end.

use crate::{
    cli::{BASE_PORT, DemoArgs},
    config_file::Sizes,
    failure::Failure,
    init::{Layout, config_path},
    output::say,
};
use kontiki::Code;
use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// How many nodes a demo has unless said otherwise.
const NODES: u64 = 3;

/// A demo's logs are small, so that it is quickly made.
const SIZES: Sizes = Sizes {
    batch_bytes_max: Some(1 << 20),
    segment_bytes: Some(4 << 20),
};

/// A directory with a cluster in it. A temporary one is removed when this is dropped.
pub(super) struct Place {
    /// The directory.
    pub(super) dir: PathBuf,
    /// How many nodes the cluster has.
    pub(super) nodes: u64,
    /// Whether it outlives the demo.
    pub(super) kept: bool,
    /// Whether the cluster was there before.
    pub(super) reopened: bool,
}

impl Place {
    /// Finds the cluster, or makes one.
    pub(super) fn prepare(args: &DemoArgs) -> Result<Self, Failure> {
        let place = match &args.data_dir {
            None => Self {
                dir: temporary()?,
                nodes: args.nodes.unwrap_or(NODES),
                kept: false,
                reopened: false,
            },
            Some(dir) => Self::kept(dir, args.nodes)?,
        };
        if !place.reopened {
            say!(
                "Making a cluster of {} nodes in {} ...",
                place.nodes,
                place.dir.display()
            );
            Layout::new(&place.dir, place.nodes, BASE_PORT, SIZES)?.create()?;
        }
        Ok(place)
    }

    fn kept(dir: &Path, nodes: Option<u64>) -> Result<Self, Failure> {
        let existing = (1..).take_while(|node| config_path(dir, *node).exists()).count() as u64;
        let reopened = existing > 0;
        match nodes.filter(|nodes| reopened && *nodes != existing) {
            Some(nodes) => {
                let text = format!(
                    "{} holds a cluster of {existing} nodes, not {nodes}",
                    dir.display()
                );
                Err(Failure::new(Code::Usage, text).advise("leave out --nodes, or choose another --data-dir"))
            }
            None if reopened => Ok(Self {
                dir: dir.to_owned(),
                nodes: existing,
                kept: true,
                reopened,
            }),
            None => Ok(Self {
                dir: dir.to_owned(),
                nodes: nodes.unwrap_or(NODES),
                kept: true,
                reopened,
            }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed stays in the directory for temporary files, which is cleaned by others.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Makes a new directory for temporary files that nobody else can read.
fn temporary() -> Result<PathBuf, Failure> {
    let base = std::env::temp_dir();
    let name = |attempt: u32| base.join(format!("kontiki-demo-{}-{attempt}", std::process::id()));
    for dir in (0..u32::from(u16::MAX)).map(name) {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::io("make the directory", &dir, &error)),
        }
    }
    Err(Failure::new(
        Code::Io,
        format!("{} is full of old demos; remove kontiki-demo-*", base.display()),
    ))
}
