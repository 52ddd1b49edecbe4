//! Admission: all that strangers may hold of a node over HTTP, each with a limit, and how much of it is held.
//!
//! Invariants: a connection takes its place before anything is read from it, and has it until its socket is closed; the bytes of
//! a request are reserved before they are read, those of an answer before it is asked for; nothing is reserved for longer than
//! its connection goes on (`docs/HTTP.md`, Limits).

mod budget;
mod listener;
mod places;
mod settings;
mod socket;

pub(crate) use budget::{Budget, Reserved};
pub(crate) use listener::{Connections, listen};
pub(crate) use settings::HttpSettings;

use crate::api::HttpStatus;
use places::Places;
use std::{sync::Arc, time::Duration};

/// How long a request waits until others have made room for it.
pub(crate) const ADMISSION: Duration = Duration::from_secs(5);

/// What the connections of a node share.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Places>,
    /// Bytes of requests that are being read or appended.
    pub(crate) requests: Budget,
    /// Bytes of answers that are asked for or not yet written.
    pub(crate) answers: Budget,
    /// How long a connection may take for the head of its next request.
    idle_timeout: Duration,
    /// How long a request may take to arrive, once it has begun.
    pub(crate) body_timeout: Duration,
    /// For how long a client may take nothing of what waits for it.
    write_timeout: Duration,
}

impl Admission {
    /// With these limits.
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        let connections_max = settings.connections_max();
        Self {
            places: Places::new(connections_max, settings.per_address_max(connections_max)),
            requests: Budget::new(settings.requests_bytes_max),
            answers: Budget::new(settings.answers_bytes_max),
            idle_timeout: settings.idle_timeout,
            body_timeout: settings.body_timeout,
            write_timeout: settings.write_timeout,
        }
    }

    /// How much is held.
    pub(crate) fn status(&self) -> HttpStatus {
        let (connections, refused) = self.places.held();
        HttpStatus {
            connections,
            connections_max: self.places.all_max(),
            connections_refused: refused,
            requests_bytes: self.requests.held_bytes(),
            requests_bytes_max: self.requests.bytes_max(),
            answers_bytes: self.answers.held_bytes(),
            answers_bytes_max: self.answers.bytes_max(),
        }
    }
}
