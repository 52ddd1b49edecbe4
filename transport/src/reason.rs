//! Why connections end, in words for an operator.
//!
//! Invariant: what a peer says is shown cut short and without control characters.

use quinn::{Connection, ConnectionError, VarInt};

/// The longest reason of a peer that is shown, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// TLS alerts (RFC 8446, §6) as QUIC carries them (RFC 9001, §4.8).
const BAD_CERTIFICATE: u64 = 0x100 + 42;
const UNSUPPORTED_CERTIFICATE: u64 = 0x100 + 43;
const UNKNOWN_CA: u64 = 0x100 + 48;
const DECRYPT_ERROR: u64 = 0x100 + 51;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// Why this node closes a connection; the number goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown = 1,
    /// The other side may not talk to this one.
    Refused = 2,
    /// The other side has connected anew.
    Superseded = 3,
    /// The other side broke the protocol.
    BadPacket = 4,
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Whether the other side closed the connection for this reason.
    pub(crate) fn was_said(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == self.code())
    }

    /// Closes a connection for this reason and tells the other side.
    pub(crate) fn close(self, connection: &Connection, reason: &str) {
        connection.close(
            self.code(),
            &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)],
        );
    }
}

/// Why a connection ended or was never made.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no answer: is the node running, and does UDP get through to it?".into(),
        ConnectionError::Reset => "the other side has restarted".into(),
        ConnectionError::LocallyClosed => "closed by this node".into(),
        ConnectionError::ApplicationClosed(close) => {
            let said = printable(&close.reason);
            match close.error_code {
                code if code == Close::Shutdown.code() => "the other side was stopped".into(),
                code if code == Close::Refused.code() => {
                    format!("the other side refuses this node, saying: {said}")
                }
                code if code == Close::Superseded.code() => "replaced by a newer connection".into(),
                _ => format!("the other side closed the connection, saying: {said}"),
            }
        }
        ConnectionError::ConnectionClosed(close) => tls_alert(close.error_code.into()).map_or_else(
            || {
                format!(
                    "the other side ended the connection: {}",
                    printable(&close.reason)
                )
            },
            |why| format!("the other side refuses this node: {why}"),
        ),
        ConnectionError::TransportError(error) => {
            let said = printable(error.reason.as_bytes());
            tls_alert(error.code.into()).map_or_else(
                || format!("the connection failed: {said}"),
                |why| format!("this node refuses the other side: {why} ({said})"),
            )
        }
        other => other.to_string(),
    }
}

/// Why one side does not believe the other's certificate.
fn tls_alert(code: u64) -> Option<&'static str> {
    Some(match code {
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
        0x100..=0x1ff => "the TLS handshake failed",
        _ => return None,
    })
}

/// What a peer says, made fit to be shown.
fn printable(bytes: &[u8]) -> String {
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
    }
}
