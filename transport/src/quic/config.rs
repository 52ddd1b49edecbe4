//! QUIC as this cluster uses it.
//!
//! Invariants: a dialed connection carries streams only away from the dialer; the urgent lane never waits for window space
//! that the bulk lane has used up.

use crate::{Limits, NodeCredentials, StartError, tls::tls};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use std::{sync::Arc, time::Duration};

/// Round-trip time that is assumed before it is measured: loss of the first datagrams is noticed soon.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// The largest datagram that is tried, where loopback or jumbo frames allow it. Larger ones were slower on the
/// loopback: fewer of them fit into one call to the system.
const MTU_MAX: u16 = 4096;
/// How many bytes may be on their way before the network has answered: a local network takes them.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;
/// How many datagrams need no acknowledgement of their own: on a connection that only carries one direction,
/// each would cost the receiving thread a datagram in the middle of its work. Not more: once a loss has made the sender's window
/// smaller than this, each window waits for [`ACK_DELAY_MAX`]; with 32 an overloaded cluster did not get over that for seconds.
const UNACKNOWLEDGED_MAX: u32 = 8;
/// But none waits for its acknowledgement longer than this; it bounds how late a loss is noticed, too.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Streams a dialer may open: its lanes, and room for what later versions add.
const LANES_MAX: u8 = 8;
/// How many there are: each has a window of its own, that no other can use up.
const LANES: u32 = 3;

/// How many connections may wait to be accepted, and how many bytes of each and of all are kept meanwhile. It is a moment, or the
/// turns of the handshakes before them.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES_MAX: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 1 << 20;

/// The QUIC configurations of an endpoint.
pub(crate) struct Configs {
    pub(crate) endpoint: EndpointConfig,
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

impl Configs {
    pub(crate) fn new(credentials: NodeCredentials, limits: &Limits) -> Result<Self, StartError> {
        let unusable = |error: &dyn std::fmt::Display| StartError::Credentials(error.to_string());
        let endpoint = endpoint(&credentials.reset_key).map_err(|e| unusable(&e))?;
        let (server, client) = tls(credentials).map_err(|e| unusable(&e))?;
        let server = QuicServerConfig::try_from(server).map_err(|e| unusable(&e))?;
        let client = QuicClientConfig::try_from(client).map_err(|e| unusable(&e))?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        let mut client = ClientConfig::new(Arc::new(client));
        server
            .transport_config(Arc::new(accepting(limits)?))
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
        client.transport_config(Arc::new(dialing(limits)?));
        Ok(Self {
            endpoint,
            server,
            client,
        })
    }
}

/// Connection ids and reset tokens follow from the key, so that after a restart this node can tell its peers
/// that their connections to its former life are dead; they need not wait for the idle timeout.
fn endpoint(reset_key: &[u8; 32]) -> Result<EndpointConfig, quinn::ConfigError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
    let mut cid_key = [0; 8];
    cid_key.copy_from_slice(&hmac::sign(&key, b"connection ids").as_ref()[..8]);
    let cid_key = u64::from_le_bytes(cid_key);
    let mut config = EndpointConfig::new(Arc::new(key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .max_udp_payload_size(MTU_MAX)?;
    Ok(config)
}

fn dialing(limits: &Limits) -> Result<TransportConfig, StartError> {
    let mut config = common(limits)?;
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(limits.keep_alive_interval));
    Ok(config)
}

fn accepting(limits: &Limits) -> Result<TransportConfig, StartError> {
    let mut config = common(limits)?;
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(LANES_MAX.into());
    Ok(config)
}

fn common(limits: &Limits) -> Result<TransportConfig, StartError> {
    let idle = IdleTimeout::try_from(limits.idle_timeout)
        .map_err(|_| StartError::Limits("idle_timeout is out of range"))?;
    let window = limits.window_bytes_max;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_MAX))
        .max_ack_delay(Some(ACK_DELAY_MAX));
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(window.saturating_mul(LANES).min(1 << 30)))
        .send_window(u64::from(window) * u64::from(LANES))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion));
    Ok(config)
}
