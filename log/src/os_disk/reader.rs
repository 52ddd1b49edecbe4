//! One file, read in a row on whichever thread wants it: opened there, so that nobody else waits for that.

use super::directory::Directory;
use std::fs::File;
use std::io::{Error, Read, Result};

pub(super) struct Reader {
    directory: Directory,
    name: String,
    file: Option<File>,
}

impl Reader {
    pub(super) fn new(directory: Directory, name: String) -> Self {
        Self {
            directory,
            name,
            file: None,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = self.directory.path(&self.name);
                let path = path.map_err(|error| Error::new(error.kind, error.to_string()))?;
                let opened = self.directory.reserve.open(|| File::open(&path));
                self.file.insert(opened?)
            }
        };
        file.read(into)
    }
}
