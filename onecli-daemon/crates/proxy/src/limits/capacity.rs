//! Limits on what may be open at the same time, computed from the process's limit on file descriptors.

/// Descriptors that are reserved for parts that must always work: the admin socket, the database, the logs and the
/// agents' DNS. They also cover new connections that are about to be refused.
const RESERVED: u64 = 512;
/// Maximum number of descriptors that are used.
const MOST: u64 = 1 << 16;
/// Maximum numbers, whatever the limit on descriptors.
const CONNECTIONS: usize = 16_384;
const CONNECTIONS_PER_AGENT: usize = 1024;
const UNIDENTIFIED: usize = 2048;
const UNIDENTIFIED_PER_SOURCE: usize = 1024;
const EXCHANGES: usize = 16_384;
const EXCHANGES_PER_AGENT: usize = 512;
const IDLE_UPSTREAMS: usize = 2048;
/// Divisor for the number of displaced connections that get a refusal at the same time: one for each four connections
/// of unidentified clients. They are counted in addition to those.
const DISPLACED: usize = 4;

/// Limits whose sum is less than the number of file descriptors. One agent gets at most a quarter of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Connections of all agents.
    pub(crate) connections: usize,
    /// Connections of one agent.
    pub(crate) connections_per_agent: usize,
    /// Connections whose agent is not known yet.
    pub(crate) unidentified: usize,
    /// Connections of unidentified clients from one address or cgroup.
    pub(crate) unidentified_per_source: usize,
    /// Displaced connections that are getting their refusal.
    pub(crate) displaced: usize,
    /// Open requests and tunnels, each with an upstream connection.
    pub(crate) exchanges: usize,
    /// Open requests and tunnels of one agent.
    pub(crate) exchanges_per_agent: usize,
    /// Idle upstream connections that are retained for the next request.
    pub(crate) idle_upstreams: usize,
}

impl Capacity {
    /// Returns the limits that fit into `descriptors` file descriptors (`RLIMIT_NOFILE`).
    pub fn of(descriptors: u64) -> Capacity {
        let free =
            usize::try_from(descriptors.min(MOST).saturating_sub(RESERVED)).unwrap_or_default().max(64);
        let connections = (free * 3 / 8).min(CONNECTIONS);
        let exchanges = (free * 3 / 8).min(EXCHANGES);
        let unidentified = (free / 8).min(UNIDENTIFIED);
        Capacity {
            connections,
            connections_per_agent: (connections / 4).min(CONNECTIONS_PER_AGENT),
            unidentified,
            unidentified_per_source: (unidentified / 2).min(UNIDENTIFIED_PER_SOURCE),
            displaced: unidentified / DISPLACED,
            exchanges,
            exchanges_per_agent: (exchanges / 4).min(EXCHANGES_PER_AGENT),
            idle_upstreams: (free / 8).min(IDLE_UPSTREAMS),
        }
    }

    /// Connections that are accepted at the same time; further ones wait in the kernel's queue. Each limit above
    /// refuses or displaces connections before this one is reached.
    pub fn accepted(&self) -> usize {
        self.connections + self.unidentified + self.displaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{buffer, replay};
    use crate::http::decode;

    const KIB: usize = 1 << 10;
    /// Bytes for TLS records to write, one record to read, and its plain text.
    const TLS: usize = (32 + 18 + 16) * KIB;

    /// The sum in docs/security/memory.md, in bytes.
    fn memory(capacity: &Capacity) -> usize {
        let state = 16 * KIB;
        let connection = (64 + 128 + 16 + 2 * 64) * KIB + TLS + state;
        let unidentified = 2 * 64 * KIB + TLS + state;
        let exchange = (48 + 2 * 16 + 16 + 32 + 4 * 64) * KIB + replay::RETAINED + TLS + state;
        let idle = 32 * KIB + TLS + state;
        let large = buffer::HELD * 2 * buffer::MAX_SIGNED
            + buffer::FOR_APPROVAL * 64 * KIB
            + decode::DECODERS * 17 * KIB * KIB
            + 16_384 * 7 * KIB;
        capacity.connections * connection
            + (capacity.unidentified + capacity.displaced) * unidentified
            + capacity.exchanges * exchange
            + capacity.idle_upstreams * idle
            + large
    }

    #[test]
    fn unit_memory_limit_exceeds_sum_of_all_bounds() {
        let unit = include_str!("../../../../../systemd/onecli-daemon.service");
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let high: usize = value("MemoryHigh=").strip_suffix('G').unwrap().parse().unwrap();
        let sum = memory(&Capacity::of(value("LimitNOFILE=").parse().unwrap()));
        assert!(sum < high << 30, "{} MiB", sum >> 20);
        assert!(sum > high << 29, "the limit is useless if it is far above the sum: {} MiB", sum >> 20);
        assert!(memory(&Capacity::of(8192)) < 4 << 30, "{} MiB", memory(&Capacity::of(8192)) >> 20);
    }

    #[test]
    fn limits_fit_descriptors_and_one_agent_gets_at_most_a_quarter() {
        for descriptors in [1024, 4096, 65_536, 1 << 20, u64::MAX] {
            let capacity = Capacity::of(descriptors);
            let all = capacity.accepted() + capacity.exchanges + capacity.idle_upstreams;
            assert!(all as u64 + 256 <= descriptors, "{descriptors}: {capacity:?}");
            assert!(capacity.connections_per_agent * 4 <= capacity.connections, "{capacity:?}");
            assert!(capacity.exchanges_per_agent * 4 <= capacity.exchanges, "{capacity:?}");
            assert!(capacity.unidentified_per_source * 2 <= capacity.unidentified, "{capacity:?}");
        }
        assert_eq!(Capacity::of(1 << 20).connections_per_agent, 1024);
        assert_eq!(Capacity::of(1 << 20).exchanges_per_agent, 512);
        assert!(Capacity::of(0).connections_per_agent > 0, "few descriptors still allow a connection");
    }
}
