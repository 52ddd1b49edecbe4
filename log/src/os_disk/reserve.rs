//! Descriptors that are kept back, so that whoever uses up those of the process does not stop the log.
//!
//! A process may have so many open files, and its clients and peers take as many as they are let. An open that finds
//! none left gives one of the reserve up and is tried again; before the next open the reserve is filled up
//! again, as far as there are any. What is still refused then counts as lack of room: it is tried again later, and nothing is
//! lost. Invariant: a descriptor is given up for an open of the log's own and for nothing else.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

/// How many descriptors are kept back: a segment that is made needs two, one that is used again, a folder that is
/// synced, a snapshot that is written, one that is received, one that is served and a read of a segment need one each.
pub(super) const RESERVE_DESCRIPTORS: usize = 8;

pub(super) struct Reserve {
    /// What they are copies of: it is of no further use.
    source: File,
    held: Mutex<Vec<File>>,
}

impl Reserve {
    /// Copies of `source`, which must be no file with a lock: a lock lasts as long as the last copy.
    pub(super) fn new(source: File) -> Self {
        let reserve = Self {
            source,
            held: Mutex::default(),
        };
        reserve.fill();
        reserve
    }

    /// Opens something, with descriptors of the reserve if there are no others.
    pub(super) fn open<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        self.fill();
        loop {
            match open() {
                Err(error) if is_out_of_descriptors(&error) => match self.take() {
                    Some(spare) => drop(spare),
                    None => return Err(error),
                },
                result => return result,
            }
        }
    }

    fn take(&self) -> Option<File> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn fill(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.len() < RESERVE_DESCRIPTORS
            && let Ok(spare) = self.source.try_clone()
        {
            held.push(spare);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Whether the process, or the system, may have no more open files.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let limits = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|number| limits.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn refused() -> io::Error {
        io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())
    }

    fn reserve() -> Reserve {
        Reserve::new(File::open(std::env::temp_dir()).expect("a directory"))
    }

    #[test]
    fn an_open_without_a_descriptor_takes_those_of_the_reserve() {
        let reserve = reserve();
        let (tried, free) = (Cell::new(0), Cell::new(0));
        let open = || {
            tried.set(tried.get() + 1);
            free.set(RESERVE_DESCRIPTORS - reserve.held());
            if free.get() >= 3 { Ok(()) } else { Err(refused()) }
        };
        reserve.open(open).expect("opened");
        assert_eq!((tried.get(), reserve.held()), (4, RESERVE_DESCRIPTORS - 3));
        reserve.open(|| Ok(())).expect("opened");
        assert_eq!(reserve.held(), RESERVE_DESCRIPTORS, "it is filled up again");
    }

    #[test]
    fn an_open_that_fails_for_all_descriptors_or_otherwise_is_told_so() {
        let reserve = reserve();
        let error = reserve.open(|| Err::<(), _>(refused())).expect_err("refused");
        assert!(is_out_of_descriptors(&error));
        let error = reserve.open(|| Err::<(), _>(io::ErrorKind::NotFound.into()));
        assert_eq!(error.expect_err("refused").kind(), io::ErrorKind::NotFound);
        assert_eq!(reserve.held(), RESERVE_DESCRIPTORS);
    }
}
