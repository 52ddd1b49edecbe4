//! `POST /v1/sessions`, and the headers by which an append says which of a session's it is.

use super::{
    App,
    problem::{Json, Refusal},
    query::Query,
};
use crate::api::Session;
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, StatusCode},
};
use kontiki::{Code, SessionKey};
use std::sync::Arc;

/// The header that names an append: `session:sequence`.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that names the lowest sequence whose answer is still wanted.
pub(crate) const SETTLED: HeaderName = HeaderName::from_static("kontiki-settled");

/// What to do instead of what was done.
const HINT: &str = "open a session with POST /v1/sessions, and send its name, a colon, and a number of your own from 1, \
                    another for each append: Idempotency-Key: 17:1";

pub(super) async fn open(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<Session>), Refusal> {
    let within = Query::parse(query.as_deref(), &["timeout"])?.timeout()?;
    let session = app.within(within).open_session().await?;
    let answer = Session {
        session: session.id.to_string(),
        ttl_seconds: session.ttl.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// The key of an append, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<SessionKey>, Refusal> {
    let wrong = |what: String| Refusal::new(Code::BadRequest, what).advise(HINT);
    let (given, settled) = (one(headers, &KEY)?, one(headers, &SETTLED)?);
    let Some(given) = given else {
        return match settled {
            None => Ok(None),
            Some(_) => Err(wrong(format!("`{SETTLED}` needs `{KEY}`"))),
        };
    };
    let parts = given.split_once(':');
    let parts = parts.and_then(|(session, sequence)| Some((positive(session)?, positive(sequence)?)));
    let Some((session, sequence)) = parts else {
        return Err(wrong(format!(
            "`{KEY}` is `{given}`; it must be session:sequence"
        )));
    };
    let key = SessionKey::new(session, sequence);
    let Some(settled) = settled else {
        return Ok(Some(key));
    };
    match positive(&settled).filter(|settled| *settled <= sequence) {
        Some(settled) => Ok(Some(key.settled(settled))),
        None => Err(wrong(format!(
            "`{SETTLED}` is `{settled}`; it must be a sequence, from 1 to that of this append"
        ))),
    }
}

/// The value of a header that may be given once.
fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values
        .next()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Refusal::new(Code::BadRequest, format!("`{name}` is given twice")).advise(HINT)),
    }
}

/// A number from 1, in digits and nothing else.
fn positive(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(HeaderName, &str)]) -> Option<Option<(u64, u64, u64)>> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name, value.parse().unwrap());
        }
        let key = key(&headers).ok()?;
        Some(key.map(|key| (key.session, key.sequence, key.settled)))
    }

    #[test]
    fn a_key_is_a_session_and_a_sequence_and_nothing_else() {
        assert_eq!(read(&[]), Some(None));
        assert_eq!(read(&[(KEY, "17:2")]), Some(Some((17, 2, 1))));
        assert_eq!(read(&[(KEY, "17:5000")]), Some(Some((17, 5000, 5000 - 1023))));
        for wrong in [
            "",
            "17",
            "17:",
            ":1",
            "17:0",
            "0:1",
            "17:+1",
            "17: 1",
            "17:1:1",
            "\"17:1\"",
            "a-uuid",
            "17:99999999999999999999",
        ] {
            assert_eq!(read(&[(KEY, wrong)]), None, "{wrong}");
        }
        assert_eq!(read(&[(KEY, "17:1"), (KEY, "17:1")]), None);
    }

    #[test]
    fn what_is_settled_is_at_most_the_append_itself() {
        assert_eq!(read(&[(KEY, "17:5"), (SETTLED, "3")]), Some(Some((17, 5, 3))));
        assert_eq!(read(&[(KEY, "17:5"), (SETTLED, "5")]), Some(Some((17, 5, 5))));
        for wrong in ["6", "0", "x", ""] {
            assert_eq!(read(&[(KEY, "17:5"), (SETTLED, wrong)]), None, "{wrong}");
        }
        assert_eq!(read(&[(SETTLED, "1")]), None);
    }
}
