//! The fields that bound what strangers may hold over HTTP.

use super::{clamp, table::Table};
use crate::admission::HttpSettings;
use std::time::Duration;

/// A field, and where it goes.
type Field<T> = (&'static str, fn(&mut HttpSettings, T));

const COUNTS: [Field<u64>; 2] = [
    ("http_connections_max", |settings, value| {
        settings.connections_max = Some(clamp(value));
    }),
    ("http_connections_per_address_max", |settings, value| {
        settings.connections_per_address_max = Some(clamp(value));
    }),
];

const DURATIONS: [Field<Duration>; 3] = [
    ("http_idle_timeout", |settings, value| {
        settings.idle_timeout = value
    }),
    ("http_body_timeout", |settings, value| {
        settings.body_timeout = value
    }),
    ("http_write_timeout", |settings, value| {
        settings.write_timeout = value
    }),
];

const SIZES: [Field<u64>; 2] = [
    ("http_requests_bytes_max", |settings, value| {
        settings.requests_bytes_max = clamp(value);
    }),
    ("http_answers_bytes_max", |settings, value| {
        settings.answers_bytes_max = clamp(value);
    }),
];

/// The names of these fields.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let counts = COUNTS.iter().map(|(name, _)| *name);
    let durations = DURATIONS.iter().map(|(name, _)| *name);
    let sizes = SIZES.iter().map(|(name, _)| *name);
    counts.chain(durations).chain(sizes)
}

/// What the file says of them; the defaults of what it does not name.
pub(super) fn settings(table: &Table<'_>) -> Result<HttpSettings, String> {
    let mut settings = HttpSettings::default();
    for (name, put) in COUNTS {
        if let Some(value) = table.number(name, "a number, from 1")? {
            put(&mut settings, value);
        }
    }
    for (name, put) in DURATIONS {
        if let Some(value) = table.duration(name)? {
            put(&mut settings, value);
        }
    }
    for (name, put) in SIZES {
        if let Some(value) = table.size(name)? {
            put(&mut settings, value);
        }
    }
    Ok(settings)
}
