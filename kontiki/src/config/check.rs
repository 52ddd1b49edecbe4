//! Whether settings hold together. Invariant: a mistake is refused with the field, its value and what is allowed.

use super::{BATCH_BYTES_LIMIT, Config, OVERHEAD_BYTES};
use crate::Error;
use kontiki_wire::lives::PEERS_MAX;
use std::{collections::BTreeMap, time::Duration};

/// What all sessions may remember together, in bytes, and what each takes beyond its answers.
const SESSIONS_BYTES_MAX: usize = 512 << 20;
const SESSION_BYTES: usize = 64;

/// The longest silence of a session, in seconds: a year.
const SESSION_TTL_MAX: u64 = 365 * 24 * 3600;

/// The least that can be kept of a log: less would be forgotten before anyone has read it.
const RETENTION_BYTES_MIN: u64 = 1 << 20;
const RETENTION_AGE_MIN: Duration = Duration::from_secs(1);

impl Config {
    /// Whether the settings hold together.
    ///
    /// # Errors
    /// [`Error::Config`], for the first that does not.
    pub fn check(&self) -> Result<(), Error> {
        self.check_peers()?;
        self.check_times()?;
        self.snapshots.check()?;
        self.check_sizes()?;
        self.check_sessions()
    }

    fn check_peers(&self) -> Result<(), Error> {
        if self.node == 0 {
            return Err(Error::config("node", 0, "from 1"));
        }
        if !self.peers.contains_key(&self.node) {
            let allowed = format!("a table of all nodes that names node {} too", self.node);
            return Err(Error::config("peers", format!("{:?}", self.peers), allowed));
        }
        if self.peers.len() > PEERS_MAX {
            let allowed = format!("{PEERS_MAX} nodes at most");
            return Err(Error::config(
                "peers",
                format!("{} nodes", self.peers.len()),
                allowed,
            ));
        }
        if self.memory.is_some() {
            return Ok(());
        }
        let mut seen = BTreeMap::new();
        for (id, address) in &self.peers {
            let given = || format!("{id} = {address:?}");
            let parts = address.rsplit_once(':');
            let port = parts.and_then(|(_, port)| port.parse::<u16>().ok());
            let host = parts.is_some_and(|(host, _)| !host.is_empty());
            // Its own port may be one that the system finds; the others' must be known.
            if *id == 0 || !host || port.is_none_or(|port| port == 0 && *id != self.node) {
                let allowed = "host:port by node, nodes from 1, such as 1 = \"127.0.0.1:7401\"";
                return Err(Error::config("peers", given(), allowed));
            }
            if let Some(other) = seen.insert(address, id) {
                let allowed = format!("an address of its own for each node; node {other} has this one");
                return Err(Error::config("peers", given(), allowed));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), Error> {
        let ms = Duration::from_millis;
        let heartbeat = self.heartbeat_interval;
        let ranges = [
            ("heartbeat_interval", heartbeat, ms(1), ms(10_000)),
            (
                "election_timeout_min",
                self.election_timeout_min,
                heartbeat.saturating_mul(2),
                ms(600_000),
            ),
            (
                "election_timeout_max",
                self.election_timeout_max,
                self.election_timeout_min.saturating_add(ms(1)),
                ms(600_000),
            ),
            ("request_timeout", self.request_timeout, ms(1), ms(3_600_000)),
        ];
        for (field, value, min, max) in ranges {
            if value < min || value > max {
                return Err(Error::config(
                    field,
                    format!("{value:?}"),
                    format!("{min:?} to {max:?}"),
                ));
            }
        }
        match self.lease_drift_ppm {
            Some(ppm) if !(1..1_000_000).contains(&ppm) => {
                let allowed = "1 to 999999 millionths, or left out for no leases";
                Err(Error::config("lease_drift_ppm", ppm, allowed))
            }
            _ => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let batch = self.batch_bytes_max;
        let most = usize::MAX >> 2;
        let ranges = [
            ("batch_bytes_max", batch, 1, BATCH_BYTES_LIMIT),
            ("entry_bytes_max", self.entry_bytes_max, 1, batch),
            (
                "in_flight_bytes_max",
                self.in_flight_bytes_max,
                batch.saturating_add(OVERHEAD_BYTES),
                most,
            ),
            ("read_bytes_max", self.read_bytes_max, 4 << 10, most),
            ("tail_bytes_max", self.tail_bytes_max, 64 << 10, most),
        ];
        for (field, value, min, max) in ranges {
            if value < min || value > max {
                return Err(Error::config(field, value, format!("{min} to {max} bytes")));
            }
        }
        // The batch is within its range by now.
        let (min, max) = (((2 * batch + OVERHEAD_BYTES) as u64).max(1 << 20), 1 << 30);
        if self.segment_bytes < min || self.segment_bytes > max {
            return Err(Error::config(
                "segment_bytes",
                self.segment_bytes,
                format!("{min} to {max} bytes"),
            ));
        }
        self.check_retention()
    }

    fn check_retention(&self) -> Result<(), Error> {
        let bytes = self.retention_bytes.filter(|bytes| *bytes < RETENTION_BYTES_MIN);
        let age = self.retention_age.filter(|age| *age < RETENTION_AGE_MIN);
        match (bytes, age) {
            (Some(bytes), _) => {
                let allowed = format!("{RETENTION_BYTES_MIN} bytes or more, or left out to keep everything");
                Err(Error::config("retention_bytes", bytes, allowed))
            }
            (None, Some(age)) => {
                let allowed = format!("{RETENTION_AGE_MIN:?} or more, or left out to keep everything");
                Err(Error::config("retention_age", format!("{age:?}"), allowed))
            }
            (None, None) => Ok(()),
        }
    }

    fn check_sessions(&self) -> Result<(), Error> {
        let ttl = self.session_ttl;
        if ttl.subsec_nanos() != 0 || !(1..=SESSION_TTL_MAX).contains(&ttl.as_secs()) {
            let allowed = format!("whole seconds, 1s to {SESSION_TTL_MAX}s");
            return Err(Error::config("session_ttl", format!("{ttl:?}"), allowed));
        }
        let (sessions, answers) = (self.sessions_max, self.session_answers_bytes_max);
        if !(1..=1_000_000).contains(&sessions) {
            return Err(Error::config("sessions_max", sessions, "1 to 1000000"));
        }
        if !(1 << 10..=1 << 30).contains(&answers) {
            let allowed = format!("{} to {} bytes", 1 << 10, 1 << 30);
            return Err(Error::config("session_answers_bytes_max", answers, allowed));
        }
        // All of it has room in the header of a snapshot, with what there is of each session besides.
        if sessions.saturating_mul(answers + SESSION_BYTES) > SESSIONS_BYTES_MAX {
            let allowed = format!(
                "no more than {SESSIONS_BYTES_MAX} bytes for all sessions together: `session_answers_bytes_max` is {answers}"
            );
            return Err(Error::config("sessions_max", sessions, allowed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_named_with_field_value_and_range() {
        assert_eq!(
            refused(|c| c.heartbeat_interval = Duration::from_secs(540)),
            "`heartbeat_interval` is 540s; it must be 1ms to 10s"
        );
        assert!(
            refused(|c| c.election_timeout_max = c.election_timeout_min)
                .contains("`election_timeout_max` is 300ms")
        );
        assert!(refused(|c| c.entry_bytes_max = c.batch_bytes_max + 1).contains("`entry_bytes_max`"));
        assert!(refused(|c| c.batch_bytes_max = usize::MAX).contains("`batch_bytes_max`"));
        assert!(refused(|c| c.segment_bytes = 2 << 20).contains("`segment_bytes`"));
        assert!(refused(|c| c.lease_drift_ppm = Some(1_000_000)).contains("`lease_drift_ppm` is 1000000"));
        assert!(refused(|c| c.node = 3).contains("names node 3"));
        assert_eq!(
            refused(|c| c.session_ttl = Duration::from_millis(1500)),
            "`session_ttl` is 1.5s; it must be whole seconds, 1s to 31536000s"
        );
        assert!(refused(|c| c.sessions_max = 0).contains("`sessions_max`"));
        assert!(refused(|c| c.session_answers_bytes_max = 100).contains("`session_answers_bytes_max`"));
        for wrong in ["host", ":7402", "host:", "host:0", "host:70000"] {
            let text = refused(|c| drop(c.peers.insert(2, wrong.into())));
            assert!(text.contains(&format!("2 = {wrong:?}")), "{text}");
        }
        let text = refused(|c| drop(c.peers.insert(2, "127.0.0.1:7401".into())));
        assert!(text.contains("node 1 has this one"), "{text}");
    }
}
