//! Names in the data directory: which are allowed, and what is done with them.
//!
//! Invariant: no name leads out of the directory, to its lock file, or over an existing file.

use super::failed;
use super::file::Inode;
use super::reserve::Reserve;
use crate::disk::DiskError;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file whose lock stands for the whole directory.
pub(super) const LOCK: &str = "lock";

/// The data directory, as names are relative to it.
#[derive(Clone)]
pub(super) struct Directory {
    root: PathBuf,
    /// What opens here fall back on.
    pub(super) reserve: Arc<Reserve>,
}

impl Directory {
    pub(super) fn new(root: PathBuf, reserve: Arc<Reserve>) -> Self {
        Self { root, reserve }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a name lies.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, DiskError> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if name == LOCK || name.split('/').count() > 2 || !name.split('/').all(sound) {
            return Err(DiskError {
                what: format!("use the name {name:?} in {}", self.root.display()),
                kind: ErrorKind::InvalidInput,
                message: "a name is one or two parts joined by \"/\", none empty, \".\" or \"..\", and not the lock's"
                    .to_owned(),
            });
        }
        Ok(self.root.join(name))
    }

    /// Where a directory lies; `""` is the root.
    fn directory_path(&self, name: &str) -> Result<PathBuf, DiskError> {
        if name.is_empty() {
            Ok(self.root.clone())
        } else {
            self.path(name)
        }
    }

    pub(super) fn make(&self, name: &str) -> Result<(), DiskError> {
        let path = self.path(name)?;
        let made = match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        };
        made.map_err(|e| failed(format!("make directory {}", path.display()), &e))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        // All changes of existing names are made by this thread: nothing comes between the look and the rename.
        let renamed = match fs::symlink_metadata(&to) {
            Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "the new name is taken")),
            Err(e) if e.kind() == ErrorKind::NotFound => fs::rename(&from, &to),
            Err(e) => Err(e),
        };
        renamed.map_err(|e| failed(format!("rename {} to {}", from.display(), to.display()), &e))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.path(name)?;
        fs::remove_file(&path).map_err(|e| failed(format!("remove {}", path.display()), &e))
    }

    pub(super) fn open_directory(&self, name: &str) -> Result<(File, Inode), DiskError> {
        let path = self.directory_path(name)?;
        let opened = self.reserve.open(|| File::open(&path)).and_then(|file| {
            let found = file.metadata()?;
            if !found.is_dir() {
                return Err(ErrorKind::NotADirectory.into());
            }
            Ok((file, (found.dev(), found.ino())))
        });
        opened.map_err(|e| failed(format!("open directory {}", path.display()), &e))
    }

    pub(super) fn sync(&self, name: &str, directory: &File) -> Result<(), DiskError> {
        directory
            .sync_all()
            .map_err(|e| failed(self.sync_words(name), &e))
    }

    pub(super) fn sync_words(&self, name: &str) -> String {
        format!("sync directory {}", self.root.join(name).display())
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<(String, u64)>, DiskError> {
        let path = self.directory_path(name)?;
        let entries = self.reserve.open(|| fs::read_dir(&path)).and_then(|entries| {
            let mut found = Vec::new();
            for entry in entries {
                found.extend(name_and_length(&entry?)?);
            }
            Ok(found)
        });
        let mut entries = entries.map_err(|e| failed(format!("list {}", path.display()), &e))?;
        if path == *self.root {
            entries.retain(|(name, _)| name != LOCK);
        }
        entries.sort_unstable();
        Ok(entries)
    }
}

/// `None` if it has gone meanwhile, as a new file does for which there was no room.
fn name_and_length(entry: &DirEntry) -> io::Result<Option<(String, u64)>> {
    let bytes = match entry.metadata() {
        Ok(found) if found.is_dir() => 0,
        Ok(found) => found.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let name = Path::new(&entry.file_name()).display().to_string();
    Ok(Some((name, bytes)))
}
