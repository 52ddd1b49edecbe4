//! What a checker says when a property does not hold.

use std::fmt;

/// A property that does not hold, and how that shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

impl std::error::Error for Violation {}

/// Says that `property` does not hold unless `holds`.
///
/// # Errors
/// The violation, if there is one.
pub fn ensure(holds: bool, property: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            property,
            what: what(),
        })
    }
}
