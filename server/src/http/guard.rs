//! Keeps web pages out: a page that a browser on this machine shows must not write to the log behind the user's back.

use super::problem::Refusal;
use axum::{
    extract::Request,
    http::{
        HeaderMap,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use kontiki::Code;

/// Refuses a request that a browser sent for a page of another origin. Other programs send no `Origin`.
pub(super) async fn same_origin(request: Request, next: Next) -> Response {
    match foreign_origin(request.headers()) {
        None => next.run(request).await,
        Some(origin) => {
            let detail = format!("requests of pages from {origin} are refused");
            Refusal::new(Code::Forbidden, detail).into_response()
        }
    }
}

fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let origin = headers.get(ORIGIN)?.as_bytes();
    let host = headers.get(HOST).map(|host| host.as_bytes());
    let own = host.is_some() && origin.strip_prefix(b"http://") == host;
    (!own).then(|| String::from_utf8_lossy(origin).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_other_origins_are_foreign() {
        let foreign = |origin: &str| {
            let headers = [(HOST, "127.0.0.1:7501"), (ORIGIN, origin)];
            foreign_origin(
                &headers
                    .map(|(name, value)| (name, value.parse().unwrap()))
                    .into_iter()
                    .collect(),
            )
        };
        assert_eq!(foreign("http://127.0.0.1:7501"), None);
        assert!(foreign("http://evil.example").is_some());
        assert!(foreign("null").is_some());
        assert_eq!(foreign_origin(&HeaderMap::new()), None);
    }
}
