//! TLS as this cluster uses it, whatever carries it.
//!
//! Invariants: TLS 1.3 only, both ends authenticate against the same authorities, nothing is resumed and nothing is sent
//! before the handshake is done (no 0-RTT).

use crate::NodeCredentials;
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring as ring_provider},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use std::sync::Arc;

/// What the two sides call their protocol.
const ALPN: &[u8] = b"kontiki";

/// How a node accepts connections, and how it dials.
pub(crate) fn tls(
    credentials: NodeCredentials,
) -> Result<(rustls::ServerConfig, rustls::ClientConfig), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in credentials.roots {
        roots.add(root)?;
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(provider()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(credentials.chain, credentials.key)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok((server, client))
}

/// The cheapest suite first: it is the one every processor has instructions for.
fn provider() -> CryptoProvider {
    use ring_provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring_provider::default_provider()
    }
}
