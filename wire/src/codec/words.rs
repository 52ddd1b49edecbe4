//! The words of a body, as a reader takes them.

use super::DecodeError;
use bytes::Buf;
use kontiki_consensus::{Index, LogId, Term};

/// The words of a body, taken one by one; what is left at the end is of a later format.
pub(super) struct Words<'a> {
    pub(super) kind: u16,
    pub(super) left: &'a [u8],
}

impl Words<'_> {
    pub(super) fn next(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.left.try_get_u64_le().map_err(|_| self.impossible(field))
    }

    /// A word that holds a 32-bit number.
    pub(super) fn small(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.next(field)?).map_err(|_| self.impossible(field))
    }

    pub(super) fn log_id(&mut self, field: &'static str) -> Result<LogId, DecodeError> {
        let term = Term(self.next(field)?);
        Ok(LogId::new(term, Index(self.next(field)?)))
    }

    pub(super) fn impossible(&self, field: &'static str) -> DecodeError {
        DecodeError::Field {
            kind: self.kind,
            field,
        }
    }
}
