//! Processes and their directories, seen from outside: what a long run has to keep an eye on.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, ExitStatus},
};

/// A child that is killed when nobody holds it any more.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// SIGKILL: it ends as if the power went, except that what it gave to the system is still written.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }

    /// Resident memory in bytes; 0 where the system does not say.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// Bytes that the files below a directory take on disk, by the name of the directory they lie in. What vanishes meanwhile
/// counts nothing.
pub(crate) fn disk_bytes(dir: &Path) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => *sum.entry(name.clone()).or_default() += meta.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    sum
}

/// In MiB, rounded.
pub(crate) fn mib(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}
