//! The media types entries travel in. Each means one thing, in either direction.

use super::problem::Refusal;
use crate::{api::Heartbeat, frames, json_lines};
use axum::http::{HeaderMap, header::ACCEPT, header::CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use kontiki::{Code, Entry, Raw};

/// Framed entries; see [`frames`].
pub(crate) const OCTETS: &str = "application/octet-stream";

/// One JSON object a line; see [`json_lines`].
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// One JSON document.
pub(crate) const JSON: &str = "application/json";

const KNOWN: &str = "text/plain (the body is one entry), application/x-ndjson (one JSON object a line) or \
                     application/octet-stream (each entry behind its length)";

/// How entries arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Given {
    /// The body is one entry.
    Single,
    /// One JSON object a line.
    Ndjson,
    /// Framed.
    Octets,
}

impl Given {
    /// What the request says about its body.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let given = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        match essence(given).as_str() {
            "text/plain" => Ok(Self::Single),
            OCTETS => Ok(Self::Octets),
            NDJSON | "application/ndjson" => Ok(Self::Ndjson),
            _ => {
                let detail = format!("content-type `{given}` is not one that carries entries");
                Err(Refusal::new(Code::UnsupportedMediaType, detail).advise(format!("send {KNOWN}")))
            }
        }
    }

    /// The entries of a body.
    pub(super) fn entries(self, body: Bytes) -> Result<Vec<Raw>, Refusal> {
        let entries = match self {
            Self::Single => Ok(vec![body]),
            Self::Ndjson => json_lines::parse(&body),
            Self::Octets => frames::split(body).map_err(|at| {
                format!("the body ends inside the entry that begins at offset {at}; each entry is a length (u32, little-endian) and so many bytes")
            }),
        };
        let entries = entries.map_err(|detail| Refusal::new(Code::BadRequest, detail))?;
        Ok(entries.into_iter().map(Raw).collect())
    }
}

/// How entries are to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// One JSON object a line.
    Ndjson,
    /// Framed.
    Octets,
}

impl Wanted {
    /// The first known type the request accepts; JSON if it does not say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("*/*");
        let known = accept.split(',').find_map(|one| match essence(one).as_str() {
            OCTETS => Some(Self::Octets),
            NDJSON | "application/ndjson" | "application/*" | "*/*" => Some(Self::Ndjson),
            _ => None,
        });
        known.ok_or_else(|| {
            let detail = format!("entries are not served as `{accept}`");
            Refusal::new(Code::BadRequest, detail).advise(format!("accept {NDJSON} or {OCTETS}"))
        })
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => NDJSON,
            Self::Octets => OCTETS,
        }
    }

    /// Encodes entries. `Err` if one cannot be carried; no entry a node accepts is that large.
    pub(super) fn encode(self, entries: &[Entry<Raw>]) -> Result<Bytes, Unencodable> {
        match self {
            Self::Ndjson => {
                let mut out = Vec::new();
                for entry in entries {
                    json_lines::put(&mut out, entry.index, entry.term, &entry.value.0)
                        .map_err(|_| Unencodable)?;
                }
                Ok(out.into())
            }
            Self::Octets => {
                let mut out = BytesMut::new();
                for entry in entries {
                    frames::put(&mut out, &entry.value.0).map_err(|_| Unencodable)?;
                }
                Ok(out.freeze())
            }
        }
    }
}

impl Wanted {
    /// Encodes a heartbeat.
    pub(super) fn heartbeat(self, heartbeat: Heartbeat) -> Result<Bytes, Unencodable> {
        match self {
            Self::Ndjson => {
                let mut out = Vec::new();
                json_lines::put_heartbeat(&mut out, heartbeat).map_err(|_| Unencodable)?;
                Ok(out.into())
            }
            Self::Octets => {
                let mut out = BytesMut::new();
                frames::put_heartbeat(&mut out, heartbeat);
                Ok(out.freeze())
            }
        }
    }
}

/// An entry that a media type cannot carry.
#[derive(Debug)]
pub(super) struct Unencodable;

/// A media type without its parameters.
fn essence(media_type: &str) -> String {
    media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn each_media_type_means_one_thing() {
        let given = |value: &str| Given::of(&headers(CONTENT_TYPE, value)).ok();
        assert_eq!(given("text/plain; charset=utf-8"), Some(Given::Single));
        assert_eq!(given("Application/Octet-Stream"), Some(Given::Octets));
        assert_eq!(given("application/x-ndjson"), Some(Given::Ndjson));
        assert_eq!(given("application/x-www-form-urlencoded"), None);
        assert!(Given::of(&HeaderMap::new()).is_err());
    }

    #[test]
    fn heartbeat_is_typed_line_in_json_and_length_of_all_ones_among_octets() {
        let heartbeat = Heartbeat {
            committed: 258,
            leader: true,
        };
        let line = Wanted::Ndjson.heartbeat(heartbeat).unwrap();
        assert_eq!(
            line,
            &b"{\"heartbeat\":{\"committed\":258,\"leader\":true}}\n"[..]
        );
        let frame = Wanted::Octets.heartbeat(heartbeat).unwrap();
        assert_eq!(frame, &b"\xff\xff\xff\xff\x02\x01\0\0\0\0\0\0\x01"[..]);
    }

    #[test]
    fn the_first_known_type_that_is_accepted_is_served() {
        let wanted = |value: &str| Wanted::of(&headers(ACCEPT, value)).ok();
        assert_eq!(wanted("*/*"), Some(Wanted::Ndjson));
        assert_eq!(
            wanted("text/html, application/octet-stream;q=0.9, */*"),
            Some(Wanted::Octets)
        );
        assert_eq!(wanted("image/png"), None);
        assert_eq!(Wanted::of(&HeaderMap::new()).ok(), Some(Wanted::Ndjson));
    }
}
