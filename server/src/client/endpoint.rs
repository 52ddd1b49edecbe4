//! Where a node serves HTTP.

use hyper::Uri;
use std::{fmt, str::FromStr};

/// An `http://host:port` URL; the scheme may be left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// `host:port`, as it stands in the URL.
    pub(crate) authority: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let has_scheme = text.contains("://");
        let url = if has_scheme {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = url
            .parse()
            .map_err(|error| format!("`{text}` is neither host:port nor a URL ({error})"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("TLS is not spoken here; use http:// to a node or proxy on this machine".into());
            }
            _ => return Err(format!("`{text}` is not a URL such as http://127.0.0.1:7501")),
        }
        if uri.path().len() > 1 || uri.query().is_some() {
            return Err(format!("`{text}` has a path; give only http://host:port"));
        }
        if !has_scheme && uri.port_u16().is_none() {
            return Err(format!(
                "`{text}` has no port; give host:port, such as 127.0.0.1:7501"
            ));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(format!(
                "`{text}` has no host; give host:port, such as 127.0.0.1:7501"
            ));
        }
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses() {
        let authority = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.authority);
        assert_eq!(authority("http://127.0.0.1:7501").unwrap(), "127.0.0.1:7501");
        assert_eq!(authority("http://localhost/").unwrap(), "localhost:80");
        assert_eq!(authority("http://[::1]:7501").unwrap(), "[::1]:7501");
        assert!(authority("https://localhost:1").unwrap_err().contains("TLS"));
        assert_eq!(authority("127.0.0.1:7501").unwrap(), "127.0.0.1:7501");
        assert_eq!(authority(" localhost:7501").unwrap(), "localhost:7501");
        assert_eq!(authority("[::1]:7501").unwrap(), "[::1]:7501");
        assert!(authority("localhost").unwrap_err().contains("has no port"));
        for text in [
            "localhost:",
            "localhost:x",
            "7501",
            ":7501",
            "",
            "a:1/v1",
            "http://a:1/v1",
            "ftp://a:1",
            "http://a:1?x",
        ] {
            assert!(authority(text).is_err(), "{text:?}");
        }
    }
}
