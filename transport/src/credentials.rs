//! What a node proves itself with: a certificate made at start from the seed in the cluster key.
//!
//! From the seed follows the key of a certificate authority, the same on every node; a node draws a key of
//! its own each time it starts and signs a certificate for it, which names cluster and node. Invariants: the
//! seed stays in [`NodeCredentials::derive`]; a key of the authority is never on the wire or on disk; the
//! certificates hold for all time, for a node leaves a cluster by membership, not by date.

use kontiki_consensus::NodeId;
use kontiki_wire::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use ring::hmac;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, §7).
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The credentials could not be made.
#[derive(Debug, thiserror::Error)]
#[error("this node's certificate could not be made: {0}")]
pub struct CredentialsError(#[from] rcgen::Error);

/// The certificate a node shows, its key, and the authorities it believes.
pub struct NodeCredentials {
    /// The certificate, and those between it and an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the certificate.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose certificates are believed; more than one while keys are changed.
    pub roots: Vec<CertificateDer<'static>>,
    /// Known to this node alone and the same after a restart: lets it tell the peers that connections of
    /// its former life are dead.
    pub reset_key: [u8; 32],
}

impl NodeCredentials {
    /// The credentials of `node` in `cluster`, from the seed of the cluster's authority.
    ///
    /// # Errors
    /// If the system has no randomness for the node's own key.
    pub fn derive(cluster: ClusterId, node: NodeId, seed: &[u8; 32]) -> Result<Self, CredentialsError> {
        let authority = authority(cluster, seed)?;
        let root = authority.1.self_signed(&authority.0)?.der().clone();
        let issuer = Issuer::new(authority.1, authority.0);
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let leaf = leaf(cluster, node)?.signed_by(&key, &issuer)?;
        Ok(Self {
            chain: vec![leaf.der().clone()],
            key: pkcs8(key.serialize_der()),
            roots: vec![root],
            reset_key: expand(seed, "reset", node.0.into()),
        })
    }
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCredentials").finish_non_exhaustive()
    }
}

/// The name in the certificate of a node: it says which node of which cluster this is.
pub(crate) fn server_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{node}.{cluster}.kontiki")
}

/// Key and certificate of the cluster's authority.
fn authority(cluster: ClusterId, seed: &[u8; 32]) -> Result<(KeyPair, CertificateParams), CredentialsError> {
    let mut der = ED25519_PKCS8.to_vec();
    der.extend_from_slice(&expand(seed, "authority", cluster.0));
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?;
    let mut params = valid_always(vec![])?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Kontiki cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((key, params))
}

fn leaf(cluster: ClusterId, node: NodeId) -> Result<CertificateParams, CredentialsError> {
    let mut params = valid_always(vec![server_name(cluster, node)])?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Kontiki node {node}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn valid_always(names: Vec<String>) -> Result<CertificateParams, CredentialsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    Ok(params)
}

/// A secret for one purpose from the seed: none tells anything about the seed or another.
fn expand(seed: &[u8; 32], purpose: &str, of: u128) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"kontiki ");
    context.update(purpose.as_bytes());
    context.update(&of.to_le_bytes());
    let mut secret = [0; 32];
    secret.copy_from_slice(context.sign().as_ref());
    secret
}

fn pkcs8(der: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(cluster: u128, node: u64, seed: u8) -> NodeCredentials {
        NodeCredentials::derive(ClusterId(cluster), NodeId(node), &[seed; 32]).unwrap()
    }

    #[test]
    fn every_node_derives_the_same_authority_from_the_key() {
        assert_eq!(derive(1, 1, 7).roots, derive(1, 2, 7).roots);
        assert_ne!(derive(1, 1, 7).roots, derive(1, 1, 8).roots, "another seed");
        assert_ne!(derive(1, 1, 7).roots, derive(2, 1, 7).roots, "another cluster");
    }

    #[test]
    fn a_node_has_a_new_key_each_time_but_one_reset_key() {
        let (before, after) = (derive(1, 1, 7), derive(1, 1, 7));
        assert_ne!(before.key, after.key);
        assert_eq!(before.reset_key, after.reset_key);
        assert_ne!(before.reset_key, derive(1, 2, 7).reset_key);
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", derive(1, 1, 7)), "NodeCredentials { .. }");
    }
}
