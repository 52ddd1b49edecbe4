//! Files that runs are written to, for others to judge: histories, and transitions.
//!
//! Invariant: every run has a file of its own, so that a file is one history or one trace, whatever else runs.

use crate::violation::Violation;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;

/// In the name of a file, this stands for the seed.
const SEED: &str = "{seed}";

/// The property of what is asked for.
pub const PROPERTY: &str = "what is asked for is written";

/// Which files are asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outlets {
    history: Option<String>,
    trace: Option<String>,
}

/// Where a run is written to; nowhere by default.
#[derive(Default)]
pub struct Outlet {
    /// What the clients did to keys and were told ([`crate::linearizability`] says how).
    pub history: Option<Box<dyn Write>>,
    /// What every node went through ([`crate::transitions`] says how).
    pub trace: Option<Box<dyn Write>>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (history, trace) = (self.history.is_some(), self.trace.is_some());
        write!(f, "Outlet {{ history: {history}, trace: {trace} }}")
    }
}

impl Outlets {
    /// These files, for runs of these seeds. `{seed}` in a name stands for the seed.
    ///
    /// # Errors
    /// In words, if several runs would write to one file.
    pub fn new(history: Option<String>, trace: Option<String>, seeds: &Range<u64>) -> Result<Self, String> {
        let many = seeds.end.saturating_sub(seeds.start) > 1;
        let shared = [&history, &trace]
            .into_iter()
            .flatten()
            .find(|name| many && !name.contains(SEED));
        match shared {
            Some(name) => Err(format!(
                "{name:?} must contain {SEED}, for there are several runs"
            )),
            None if history.is_some() && history == trace => {
                Err("a history and a trace cannot share a file".to_owned())
            }
            None => Ok(Self { history, trace }),
        }
    }

    /// The files of one run, made anew.
    ///
    /// # Errors
    /// If one of them cannot be made.
    pub fn open(&self, seed: u64) -> Result<Outlet, Violation> {
        let open = |name: &Option<String>| name.as_ref().map(|n| made(&n.replace(SEED, &seed.to_string())));
        Ok(Outlet {
            history: open(&self.history).transpose()?,
            trace: open(&self.trace).transpose()?,
        })
    }
}

fn made(name: &str) -> Result<Box<dyn Write>, Violation> {
    let file = File::create(name).map_err(|e| unwritten(name, &e))?;
    Ok(Box::new(BufWriter::with_capacity(1 << 18, file)))
}

/// That something could not be written.
pub(crate) fn unwritten(what: &str, error: &io::Error) -> Violation {
    Violation {
        property: PROPERTY,
        what: format!("{what}: {error}"),
    }
}
