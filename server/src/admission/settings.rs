//! The limits of HTTP as the configuration file sets them.

use rustix::process::{Resource, getrlimit};
use std::time::Duration;

/// Connections at once, unless set, if the process may have twice as many descriptors.
const CONNECTIONS_MAX: usize = 1024;
/// Fewer connections than this are never taken, however few descriptors there are.
const CONNECTIONS_MIN: usize = 8;

/// So many descriptors are kept for the log, the peers and the process itself, or half of all if that is more.
const DESCRIPTORS_KEPT_MIN: usize = 56;

/// What HTTP may hold.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    /// Connections at once, if set.
    pub(crate) connections_max: Option<usize>,
    /// Connections at once from one address, if set.
    pub(crate) connections_per_address_max: Option<usize>,
    /// How long a connection may take for the head of its next request.
    pub(crate) idle_timeout: Duration,
    /// How long a request may take to arrive, once it has begun.
    pub(crate) body_timeout: Duration,
    /// For how long a client may take nothing of what waits for it.
    pub(crate) write_timeout: Duration,
    /// Bytes of requests at once, of those above 64 KiB.
    pub(crate) requests_bytes_max: usize,
    /// Bytes of answers at once.
    pub(crate) answers_bytes_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connections_max: None,
            connections_per_address_max: None,
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            requests_bytes_max: 64 << 20,
            answers_bytes_max: 128 << 20,
        }
    }
}

impl HttpSettings {
    /// Connections at once: the log and the peers keep at least half of the descriptors, whatever is set.
    pub(crate) fn connections_max(&self) -> usize {
        let most = connections_for(descriptors());
        match self.connections_max {
            None => CONNECTIONS_MAX.min(most),
            Some(set) if set > most => {
                tracing::warn!(
                    http_connections_max = set,
                    taken = most,
                    "fewer connections are taken than the file says: half of the descriptors this process may \
                     have (ulimit -n) are for the log and the peers"
                );
                most
            }
            Some(set) => set,
        }
    }

    /// Connections at once from one address, if there are so many at all: unless set, three of four.
    pub(crate) fn per_address_max(&self, connections_max: usize) -> usize {
        let set = self.connections_per_address_max;
        set.unwrap_or(connections_max - connections_max / 4)
            .min(connections_max)
    }
}

/// The most connections that leave enough of so many descriptors.
fn connections_for(descriptors: usize) -> usize {
    let kept = DESCRIPTORS_KEPT_MIN.max(descriptors / 2);
    descriptors.saturating_sub(kept).max(CONNECTIONS_MIN)
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_and_one_address_leaves_connections() {
        let mut settings = HttpSettings::default();
        assert_eq!(
            [1024, 96, 64, 40].map(connections_for),
            [512, 40, 8, CONNECTIONS_MIN]
        );
        let most = connections_for(descriptors());
        assert_eq!(settings.connections_max(), CONNECTIONS_MAX.min(most));
        assert_eq!(
            [settings.per_address_max(1024), settings.per_address_max(1)],
            [768, 1]
        );
        settings.connections_max = Some(usize::MAX);
        assert_eq!(settings.connections_max(), most);
        settings.connections_max = Some(3);
        settings.connections_per_address_max = Some(7);
        assert_eq!(settings.connections_max(), 3);
        assert_eq!([settings.per_address_max(3), settings.per_address_max(9)], [3, 7]);
    }
}
