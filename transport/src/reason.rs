//! Why connections end, in words for an operator.
//!
//! Invariant: what a peer says is shown cut short and without control characters.

use crate::dial::{How, Lost};

/// The longest reason that is told to a peer, and the longest of a peer that is shown, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 300;

/// What a refusal begins with, before what the other side says.
const REFUSES: &str = "the other side refuses this node, saying: ";

/// TLS alerts (RFC 8446, §6).
const BAD_CERTIFICATE: u8 = 42;
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const UNKNOWN_CA: u8 = 48;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Why this node closes a connection; the number goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown = 1,
    /// The other side may not talk to this one.
    Refused = 2,
    /// The other side has connected anew.
    Superseded = 3,
    /// The other side broke the protocol.
    BadPacket = 4,
    /// The other side comes in a life that is not believed.
    Life = 5,
}

impl Close {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// What this node says in short where nothing else is to be said.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Shutdown => "the node was stopped",
            Self::Refused => "this node may not connect",
            Self::Superseded => "the node has connected anew",
            Self::BadPacket => "what came is not understood",
            Self::Life => "another life of this node is known",
        }
    }
}

/// As much of a reason as is told.
pub(crate) fn cut(reason: &str) -> &[u8] {
    &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)]
}

/// The other side has closed the connection, with this number and these words.
pub(crate) fn closed(code: u64, said: &[u8]) -> Lost {
    let said = printable(said);
    let is = |close: Close| code == u64::from(close.code());
    if is(Close::Shutdown) {
        let (why, how) = ("the other side was stopped".into(), How::Farewell);
        return Lost { why, how };
    }
    if is(Close::Life) {
        let (why, how) = (format!("{REFUSES}{said}"), How::Unbelieved);
        return Lost { why, how };
    }
    if is(Close::Refused) {
        return Lost::refused(format!("{REFUSES}{said}"));
    }
    Lost::otherwise(if is(Close::Superseded) {
        "replaced by a newer connection".into()
    } else {
        format!("the other side closed the connection, saying: {said}")
    })
}

/// What the other side said when it refused this node.
pub(crate) fn said(why: &str) -> String {
    why.strip_prefix(REFUSES).unwrap_or(why).to_owned()
}

/// The other side's TLS ended the connection with this alert.
pub(crate) fn alerted(alert: u8) -> Lost {
    Lost::refused(format!("the other side refuses this node: {}", tls_alert(alert)))
}

/// This side's TLS ended the connection with this alert.
pub(crate) fn distrusted(alert: u8, said: &str) -> Lost {
    let said = printable(said.as_bytes());
    Lost::refused(format!(
        "this node refuses the other side: {} ({said})",
        tls_alert(alert)
    ))
}

/// Why one side does not believe the other's certificate.
fn tls_alert(alert: u8) -> &'static str {
    match alert {
        UNKNOWN_CA | DECRYPT_ERROR => {
            "they do not hold the same cluster.key: they belong to different clusters, \
             or one has a wrong or an old key"
        }
        BAD_CERTIFICATE => {
            "at this address is not the node that should be there, or it is of another cluster: \
             compare the addresses in the configuration"
        }
        CERTIFICATE_REQUIRED => "the dialing side showed no certificate: it does not hold the cluster.key",
        UNSUPPORTED_CERTIFICATE => "the certificate is not one of a Kontiki node",
        NO_APPLICATION_PROTOCOL => "it does not speak the protocol of Kontiki",
        _ => "the TLS handshake failed",
    }
}

/// What a peer says, made fit to be shown.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_BYTES_MAX)])
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_cut_and_cleaned() {
        assert_eq!(printable(b"a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(printable(&[b'x'; 1000]).len(), REASON_BYTES_MAX);
        assert_eq!(printable(b"\xff"), "\u{fffd}");
        assert_eq!(cut(&"x".repeat(1000)).len(), REASON_BYTES_MAX);
    }
}
