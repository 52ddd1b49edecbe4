//! Keeps web pages out: a page that a browser on this machine shows must neither write to the log behind the user's back
//! nor read it.
//!
//! Two ways are closed. A request for a page of another origin carries that `Origin`. And a page whose name was made to
//! lead to this machine (DNS rebinding) is of the same origin to the browser, but carries that name in `Host`; an address
//! cannot be made to lead elsewhere.

use super::{App, problem::Refusal};
use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use kontiki::Code;
use std::{net::IpAddr, sync::Arc};

/// Refuses a request that a browser sent for a page of another origin. Other programs send no `Origin`.
pub(super) async fn same_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match foreign(request.headers(), &app.http) {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    }
}

/// Why a request is refused, if it is. `http` is where the configuration says that HTTP is served.
fn foreign(headers: &HeaderMap, http: &str) -> Option<Refusal> {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = headers.get(HOST);
    if let Some(host) = host.filter(|host| !is_this_machine(host, http)) {
        let detail = format!("requests for the host `{}` are refused", shown(host));
        return Some(
            Refusal::new(Code::Forbidden, detail)
                .advise("ask for an address, for localhost, or for the name in the configuration; let a proxy set `Host` to one of these"),
        );
    }
    let origin = headers.get(ORIGIN)?;
    let own = host.is_some_and(|host| origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes()));
    (!own).then(|| {
        let detail = format!("requests of pages from {} are refused", shown(origin));
        Refusal::new(Code::Forbidden, detail)
    })
}

/// Whether a host is an address, or a name that means this machine: `localhost`, or the one in the configuration.
fn is_this_machine(host: &HeaderValue, http: &str) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let own = http.rsplit_once(':').map_or(http, |(name, _)| name);
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case(own)
        || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str, origin: Option<&str>) -> bool {
        let headers = origin.map(|origin| (ORIGIN, origin)).into_iter();
        let headers = headers.chain(std::iter::once((HOST, host)));
        let headers = headers.map(|(name, value)| (name, value.parse().unwrap()));
        foreign(&headers.collect(), "my-machine:7501").is_some()
    }

    #[test]
    fn only_pages_of_other_origins_are_foreign() {
        assert!(!refused("127.0.0.1:7501", Some("http://127.0.0.1:7501")));
        assert!(refused("127.0.0.1:7501", Some("http://127.0.0.1:80")));
        assert!(refused("127.0.0.1:7501", Some("http://evil.example")));
        assert!(refused("127.0.0.1:7501", Some("null")));
        assert!(foreign(&HeaderMap::new(), "localhost:1").is_none());
    }

    #[test]
    fn a_name_that_was_made_to_lead_here_is_foreign() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:7501",
            "localhost:7501",
            "LOCALHOST",
            "my-machine:7501",
            "[::1]:7501",
        ] {
            assert!(!refused(host, None), "{host}");
        }
        for host in [
            "evil.example:7501",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "",
        ] {
            assert!(refused(host, None), "{host}");
        }
        assert!(refused("evil.example:7501", Some("http://evil.example:7501")));
    }
}
