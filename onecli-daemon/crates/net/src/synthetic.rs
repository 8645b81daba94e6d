//! Synthetic addresses: each represents a name, for one agent.
//!
//! DNS answers with one if the agent may not resolve a name, or if only the upstream proxy can resolve it. The kernel
//! programs redirect every connection of an agent. A connection to a synthetic address therefore reaches the daemon,
//! and no packet leaves the host. The daemon decides by the TLS server name or `Host`. If there is neither, it uses
//! the name that the address represents.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Instant;

use ipnet::Ipv4Net;
use lru::LruCache;
use onecli_model::{AgentId, Host};
use parking_lot::{Mutex, MutexGuard};

/// The number of names that have an address for one agent. The least recently used one is replaced first. A name has
/// at most 253 bytes and is stored twice, so an agent's table is below 700 KiB.
const NAMES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// The number of last octets in use. Some programs treat .0 and .255 as a network and a broadcast address.
const LAST_OCTETS: u32 = 254;
/// Ports at which HTTP and TLS clients connect. The client speaks first there, so the daemon can read the host it
/// requests and answer with the reason of a refusal. At other ports a client may wait for the server's first bytes.
const CLIENT_SPEAKS_FIRST: [u16; 22] = [
    80, 443, 3000, 3128, 4318, 5000, 6443, 7860, 8000, 8008, 8080, 8081, 8088, 8200, 8443, 8500, 8888, 9000,
    9090, 9200, 9443, 11434,
];

/// Returns whether the client speaks first at this port.
pub fn client_speaks_first(port: u16) -> bool {
    CLIENT_SPEAKS_FIRST.contains(&port)
}

/// The synthetic addresses of all agents.
#[derive(Debug)]
pub struct SyntheticAddresses {
    range: Option<Ipv4Net>,
    tables: Mutex<HashMap<AgentId, Table>>,
}

/// The addresses of one agent.
#[derive(Debug)]
struct Table {
    by_name: LruCache<Host, Assigned>,
    by_address: HashMap<Ipv4Addr, Host>,
}

#[derive(Debug, Clone, Copy)]
struct Assigned {
    address: Ipv4Addr,
    /// The time of the last connection to it.
    connected: Option<Instant>,
}

impl Default for Table {
    fn default() -> Table {
        Table { by_name: LruCache::new(NAMES), by_address: HashMap::new() }
    }
}

impl SyntheticAddresses {
    /// `range` is a /20 or larger. Without one there are no synthetic addresses.
    pub fn new(range: Option<Ipv4Net>) -> SyntheticAddresses {
        SyntheticAddresses { range, tables: Mutex::default() }
    }

    /// Returns whether there are any synthetic addresses.
    pub fn is_enabled(&self) -> bool {
        self.range.is_some()
    }

    /// Returns whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        matches!((self.range, address.to_canonical()), (Some(range), IpAddr::V4(ip)) if range.contains(&ip))
    }

    /// Returns the address of a name for this agent. It usually stays the same, also after a restart.
    pub fn assign(&self, agent: AgentId, name: &Host) -> Option<Ipv4Addr> {
        let range = self.range?;
        Some(self.tables().entry(agent).or_default().assign(range, name))
    }

    /// Returns the name that an address represents, and notes that the agent connects to it.
    pub fn connected(&self, agent: AgentId, address: IpAddr, now: Instant) -> Option<Host> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        let mut tables = self.tables();
        let table = tables.get_mut(&agent)?;
        let name = table.by_address.get(&address)?.clone();
        table.by_name.get_mut(&name)?.connected = Some(now);
        Some(name)
    }

    /// Returns whether the agent has connected to the name's address since then.
    pub fn was_connected(&self, agent: AgentId, name: &Host, since: Instant) -> bool {
        let tables = self.tables();
        let assigned = tables.get(&agent).and_then(|table| table.by_name.peek(name));
        assigned.and_then(|assigned| assigned.connected).is_some_and(|connected| connected >= since)
    }

    /// Drops the names of all agents for which `is_known` returns false.
    pub fn retain(&self, is_known: impl Fn(AgentId) -> bool) {
        self.tables().retain(|agent, _| is_known(*agent));
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<AgentId, Table>> {
        self.tables.lock()
    }
}

impl Table {
    fn assign(&mut self, range: Ipv4Net, name: &Host) -> Ipv4Addr {
        if let Some(assigned) = self.by_name.get(name) {
            return assigned.address;
        }
        if self.by_name.len() >= NAMES.get()
            && let Some((_, oldest)) = self.by_name.pop_lru()
        {
            self.by_address.remove(&oldest.address);
        }
        let address = self.free_address(range, name);
        self.by_address.insert(address, name.clone());
        self.by_name.put(name.clone(), Assigned { address, connected: None });
        address
    }

    /// Returns the first free address, starting from the one that the name's hash selects. There are more than three
    /// times as many addresses as names, so one is free.
    fn free_address(&self, range: Ipv4Net, name: &Host) -> Ipv4Addr {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let addresses = (1_u32 << (24 - range.prefix_len())) * LAST_OCTETS;
        let start = u32::try_from(hasher.finish() % u64::from(addresses)).unwrap_or_default();
        let at = |step: u32| {
            let index = (start + step) % addresses;
            let (block, last) = (index / LAST_OCTETS, index % LAST_OCTETS + 1);
            Ipv4Addr::from(u32::from(range.network()) | block << 8 | last)
        };
        (0..addresses).map(at).find(|address| !self.by_address.contains_key(address)).unwrap_or_else(|| at(0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const ONE: AgentId = AgentId(Uuid::from_u128(1));
    const TWO: AgentId = AgentId(Uuid::from_u128(2));

    fn name(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn addresses(range: &str) -> SyntheticAddresses {
        SyntheticAddresses::new(Some(range.parse().unwrap()))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a reference time")]
    fn address_maps_to_its_name_for_its_agent_only() {
        let (start, all) = (Instant::now(), addresses("198.18.0.0/15"));
        let address = all.assign(ONE, &name("a.test")).unwrap();
        assert!(all.contains(address.into()) && all.contains(address.to_ipv6_mapped().into()));
        assert!(!all.contains("198.20.0.1".parse().unwrap()));
        assert_eq!(all.assign(ONE, &name("a.test")), Some(address), "it stays");
        assert_eq!(
            addresses("198.18.0.0/15").assign(TWO, &name("a.test")),
            Some(address),
            "after a restart too"
        );
        assert_ne!(all.assign(ONE, &name("b.test")), Some(address));
        assert!(!all.was_connected(ONE, &name("a.test"), start));
        assert_eq!(all.connected(TWO, address.into(), start), None, "another agent's");
        let later = start + Duration::from_secs(1);
        assert_eq!(all.connected(ONE, address.to_ipv6_mapped().into(), later), Some(name("a.test")));
        assert!(all.was_connected(ONE, &name("a.test"), later));
        assert!(!all.was_connected(ONE, &name("a.test"), later + Duration::from_secs(1)));
        assert!(!all.was_connected(ONE, &name("b.test"), start));
        all.retain(|agent| agent == TWO);
        assert_eq!(all.connected(ONE, address.into(), later), None);
        let off = SyntheticAddresses::new(None);
        assert_eq!((off.assign(ONE, &name("a.test")), off.contains(address.into())), (None, false));
    }

    /// Invariant 9: a flood of names replaces only the oldest names of the same agent.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a reference time")]
    fn table_is_bounded_and_addresses_are_distinct() {
        for range in ["198.18.0.0/15", "240.0.0.0/4", "10.9.16.0/20"] {
            let (now, all) = (Instant::now(), addresses(range));
            let kept = all.assign(TWO, &name("kept.test")).unwrap();
            for n in 0..5_000 {
                let host = name(&format!("n{n}.test"));
                let address = all.assign(ONE, &host).unwrap();
                assert!(all.contains(address.into()) && !matches!(address.octets()[3], 0 | 255), "{address}");
                assert_eq!(all.connected(ONE, address.into(), now), Some(host), "{range}");
            }
            let tables = all.tables();
            assert_eq!(tables[&ONE].by_name.len(), NAMES.get());
            assert_eq!(tables[&ONE].by_address.len(), NAMES.get());
            drop(tables);
            assert_eq!(all.connected(TWO, kept.into(), now), Some(name("kept.test")));
        }
    }
}
