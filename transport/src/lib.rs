//! QUIC between the nodes of a cluster.
