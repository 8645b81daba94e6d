//! Resolution of names to checked addresses. The daemon resolves names itself and never uses an agent's own answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverOpts};
use onecli_model::{AddressScope, Authority, Host};

use super::address::{AddressPolicy, CheckedAddr};
use super::families::Families;
use super::hosts::HostsFile;

/// The maximum number of addresses tried for one name.
const MAX_ADDRESSES: usize = 8;
/// The number of cached DNS answers, one for each name and type. A message has at most 64 KiB (RFC 1035 section
/// 4.2.2), and its parsed records at most about 1.3 MiB (5,461 of 12 bytes); a common one has 1 KiB. The cache is
/// therefore below 170 MiB even if agents query names whose server is hostile.
const CACHED_ANSWERS: u64 = 128;

/// The reason why there is no address to dial.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Every address is in a blocked range or refused by a rule.
    #[error(
        "no address of {0} may be reached: all are in a blocked range (loopback, private, link-local, ...) or refused by a rule"
    )]
    Blocked(Host),
    /// The lookup failed.
    #[error("cannot resolve {host}: {reason}")]
    Failed {
        /// The name.
        host: Host,
        /// The kind of failure.
        failure: ResolveFailure,
        /// The resolver's reason.
        reason: String,
    },
}

/// The kind of a failed lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveFailure {
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists, but has no address.
    NoAddress,
    /// No server answered, or none has the answer.
    Unavailable,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses, at least one.
    pub list: Vec<IpAddr>,
    /// The TTL from DNS, in seconds; `u32::MAX` for configured names.
    pub ttl: u32,
}

fn configure(options: &mut ResolverOpts) {
    // The daemon reads the file itself before it queries a server.
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHED_ANSWERS;
}

/// Resolves hosts: configured names first, then the system's `/etc/hosts` and DNS servers.
pub struct Resolver {
    fixed: BTreeMap<Host, Vec<IpAddr>>,
    hosts: HostsFile,
    /// The DNS resolver. The error is the reason if `/etc/resolv.conf` is missing or invalid; configured names still
    /// work.
    dns: Result<Families, String>,
    policy: AddressPolicy,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("fixed", &self.fixed)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// `fixed` is `[resolver] hosts`. It takes precedence over `/etc/hosts`, which takes precedence over DNS.
    pub fn new(fixed: BTreeMap<Host, Vec<IpAddr>>, policy: AddressPolicy) -> Resolver {
        let dns = TokioResolver::builder_tokio()
            .and_then(|mut builder| {
                configure(builder.options_mut());
                builder.build()
            })
            .map(Families::new)
            .map_err(|error| error.to_string());
        if let Err(reason) = &dns {
            tracing::warn!(%reason, "no DNS: only names in [resolver] hosts or /etc/hosts can be reached");
        }
        Resolver { fixed, hosts: HostsFile::new("/etc/hosts"), dns, policy }
    }

    /// Returns whether a request that rules allow in `address_scope` may go to this address.
    pub fn admits(&self, address: SocketAddr, address_scope: &AddressScope) -> bool {
        self.policy.check(address, address_scope).is_some()
    }

    /// Resolves `authority` to the addresses that may be dialled for a request that rules allow in `address_scope`: at
    /// least one and at most eight.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(
        &self,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<Vec<CheckedAddr>, ResolveError> {
        let host = authority.host();
        let addresses = match host.as_ip() {
            Some(ip) => vec![ip],
            None => self.lookup(host).await?.list,
        };
        let checked: Vec<CheckedAddr> = addresses
            .into_iter()
            .filter_map(|ip| self.policy.check(SocketAddr::new(ip, authority.port()), address_scope))
            .take(MAX_ADDRESSES)
            .collect();
        if checked.is_empty() { Err(ResolveError::Blocked(host.clone())) } else { Ok(checked) }
    }

    /// Resolves the operator's own proxy. Its addresses may be in a blocked range, but must not be the daemon's
    /// listeners.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve_proxy(&self, proxy: &Authority) -> Result<Vec<CheckedAddr>, ResolveError> {
        let addresses = match proxy.host().as_ip() {
            Some(ip) => vec![ip],
            None => self.lookup(proxy.host()).await?.list,
        };
        let check = |ip| self.policy.check_proxy(SocketAddr::new(ip, proxy.port()));
        let checked: Vec<CheckedAddr> = addresses.into_iter().filter_map(check).take(MAX_ADDRESSES).collect();
        if checked.is_empty() { Err(ResolveError::Blocked(proxy.host().clone())) } else { Ok(checked) }
    }

    /// Checks that a proxy may receive a request for `authority`, which rules allow in `address_scope`. The proxy
    /// resolves names itself. An IP address must be one that the daemon would dial.
    ///
    /// # Errors
    /// [`ResolveError::Blocked`].
    pub fn check_for_proxy(
        &self,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<(), ResolveError> {
        let Some(ip) = authority.host().as_ip() else { return Ok(()) };
        match self.policy.check(SocketAddr::new(ip, authority.port()), address_scope) {
            Some(_) => Ok(()),
            None => Err(ResolveError::Blocked(authority.host().clone())),
        }
    }

    /// Looks up the addresses of a name, including blocked ones.
    ///
    /// # Errors
    /// [`ResolveError::Failed`].
    pub async fn lookup(&self, host: &Host) -> Result<Addresses, ResolveError> {
        if let Some(fixed) = self.fixed.get(host) {
            return Ok(Addresses { list: fixed.clone(), ttl: u32::MAX });
        }
        let hosts = self.hosts.addresses(host);
        if !hosts.is_empty() {
            return Ok(Addresses { list: hosts, ttl: u32::MAX });
        }
        let failed = |failure, reason: String| ResolveError::Failed { host: host.clone(), failure, reason };
        let dns = self.dns.as_ref().map_err(|reason| failed(ResolveFailure::Unavailable, reason.clone()))?;
        // The final dot disables search domains: the queried name is exactly the matched name.
        let (list, ttl) = dns.lookup(&format!("{host}.")).await.map_err(|error| {
            let failure = if error.is_nx_domain() {
                ResolveFailure::NoSuchName
            } else if error.is_no_records_found() {
                ResolveFailure::NoAddress
            } else {
                ResolveFailure::Unavailable
            };
            failed(failure, error.to_string())
        })?;
        if list.is_empty() {
            return Err(failed(ResolveFailure::NoAddress, "it has no address".to_owned()));
        }
        Ok(Addresses { list, ttl })
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use tokio::net::UdpSocket;

    use super::*;

    /// A DNS server on this port with three names and all names that begin with an `h`. It counts queries for the
    /// latter.
    async fn server(asked_for_h: Arc<AtomicUsize>) -> u16 {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let mut turns = 0;
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let question = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.add_query(question.clone());
                let ip = |text: &str| RData::from(text.parse::<IpAddr>().unwrap());
                let many = question.name().to_ascii().starts_with('h');
                let data = match (question.name().to_ascii().as_str(), question.query_type()) {
                    ("both.test.", RecordType::A) => Some((300, ip("192.0.2.1"))),
                    ("both.test.", RecordType::AAAA) => Some((30, ip("2001:db8::1"))),
                    ("four.test.", RecordType::A) => Some((300, ip("192.0.2.4"))),
                    (name, RecordType::AAAA) if name.ends_with("deaf.test.") => continue,
                    ("deaf.test.", RecordType::A) => Some((300, ip("192.0.2.7"))),
                    ("late.test.", RecordType::A) => Some((300, ip("192.0.2.8"))),
                    ("late.test.", RecordType::AAAA) => Some((300, ip("2001:db8::8"))),
                    (_, RecordType::A) if many => {
                        asked_for_h.fetch_add(1, Relaxed);
                        Some((300, ip("192.0.2.5")))
                    }
                    // Alternates between two addresses, with TTL 0.
                    ("rebound.test.", RecordType::A) => {
                        turns += 1;
                        Some((0, ip(if turns % 2 == 1 { "1.1.1.1" } else { "127.0.0.1" })))
                    }
                    _ => None,
                };
                answer.metadata.response_code = match question.name().to_ascii().as_str() {
                    "both.test." | "deaf.test." | "four.test." | "late.test." | "none.test."
                    | "rebound.test." => ResponseCode::NoError,
                    "broken.test." => ResponseCode::ServFail,
                    _ if many => ResponseCode::NoError,
                    _ => ResponseCode::NXDomain,
                };
                answer.add_answers(
                    data.map(|(ttl, data)| Record::from_rdata(question.name().clone(), ttl, data)),
                );
                let is_late =
                    question.name().to_ascii() == "late.test." && question.query_type() == RecordType::AAAA;
                let (socket, answer) = (Arc::clone(&socket), answer.to_vec().unwrap());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(if is_late { 300 } else { 0 })).await;
                    socket.send_to(&answer, from).await.unwrap();
                });
            }
        });
        port
    }

    async fn resolver() -> (tempfile::TempDir, Resolver) {
        counting(Arc::default()).await
    }

    async fn counting(asked_for_h: Arc<AtomicUsize>) -> (tempfile::TempDir, Resolver) {
        let mut connection = ConnectionConfig::udp();
        connection.port = server(asked_for_h).await;
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut dns = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        configure(dns.options_mut());
        let dns = dns.build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hosts"), "192.0.2.40 four.test\n192.0.2.50 fixed.test hosts.test\n")
            .unwrap();
        let resolver = Resolver {
            fixed: BTreeMap::from([("fixed.test".parse().unwrap(), vec![IpAddr::from([192, 0, 2, 60])])]),
            hosts: HostsFile::new(dir.path().join("hosts")),
            dns: Ok(Families::new(dns)),
            policy: AddressPolicy::default(),
        };
        (dir, resolver)
    }

    /// A name that resolves to a harmless address first and to the daemon's own when it is dialled. The daemon dials
    /// the address that it checked.
    #[tokio::test]
    async fn dial_uses_the_checked_address_despite_rebinding() {
        let (_dir, resolver) = resolver().await;
        let authority = Authority::parse("rebound.test:443", None).unwrap();
        let mut seen = Vec::new();
        for _ in 0..6 {
            match resolver.resolve(&authority, &AddressScope::open()).await {
                Ok(addresses) => {
                    assert!(
                        addresses.iter().all(|a| a.get().ip() == IpAddr::from([1, 1, 1, 1])),
                        "{addresses:?}"
                    );
                    seen.push(true);
                }
                Err(error) => {
                    assert!(matches!(error, ResolveError::Blocked(_)), "{error}");
                    seen.push(false);
                }
            }
        }
        assert!(seen.contains(&true) && seen.contains(&false), "the answers alternate: {seen:?}");
    }

    async fn timed(resolver: &Resolver, name: &str) -> (Result<Vec<String>, ResolveFailure>, Duration) {
        let started = tokio::time::Instant::now();
        let found = match resolver.lookup(&name.parse().unwrap()).await {
            Ok(found) => Ok(found.list.iter().map(ToString::to_string).collect()),
            Err(ResolveError::Failed { failure, .. }) => Err(failure),
            Err(error) => panic!("{name}: {error}"),
        };
        (found, started.elapsed())
    }

    /// RFC 8305 section 3. The limit is far above the delay of 50 ms and far below the seconds of a DNS timeout.
    #[tokio::test]
    async fn lookup_does_not_wait_for_a_missing_aaaa_answer() {
        let (_dir, resolver) = resolver().await;
        let limit = Duration::from_millis(1500);
        for _ in 0..3 {
            let (found, time) = timed(&resolver, "deaf.test").await;
            assert_eq!(found, Ok(vec!["192.0.2.7".to_owned()]));
            assert!(time < limit, "{time:?}");
        }
        let (found, time) = timed(&resolver, "gone.deaf.test").await;
        assert_eq!(found, Err(ResolveFailure::NoSuchName));
        assert!(time < limit, "{time:?}");
    }

    #[tokio::test]
    async fn late_aaaa_answer_is_cached() {
        let (_dir, resolver) = resolver().await;
        assert_eq!(timed(&resolver, "late.test").await.0, Ok(vec!["192.0.2.8".to_owned()]));
        let both = Ok(vec!["2001:db8::8".to_owned(), "192.0.2.8".to_owned()]);
        for _ in 0..100 {
            if timed(&resolver, "late.test").await.0 == both {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the answer was not cached");
    }

    /// An agent that may resolve `**.evil.test` fills only a small cache.
    #[tokio::test]
    async fn answer_cache_is_bounded() {
        let asked = Arc::<AtomicUsize>::default();
        let (_dir, resolver) = counting(Arc::clone(&asked)).await;
        let look = async |names: std::ops::Range<usize>| {
            for n in names {
                resolver.lookup(&format!("h{n}.test").parse().unwrap()).await.unwrap();
            }
            asked.swap(0, Relaxed)
        };
        assert_eq!((look(0..20).await, look(0..20).await), (20, 0));
        assert_eq!(look(100..600).await, 500);
        let again = look(100..600).await;
        // The cache evicts entries a little after it is full.
        assert!(again > 250, "{again} of 500 were asked for again");
    }

    #[tokio::test]
    async fn dns_failures_are_distinguished() {
        let (_dir, resolver) = resolver().await;
        let found = |ttl, addresses: &[&str]| {
            Ok((ttl, addresses.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>()))
        };
        for (name, expected) in [
            ("both.test", found(30, &["2001:db8::1", "192.0.2.1"])),
            ("none.test", Err(ResolveFailure::NoAddress)),
            ("gone.test", Err(ResolveFailure::NoSuchName)),
            ("broken.test", Err(ResolveFailure::Unavailable)),
            ("hosts.test", found(u32::MAX, &["192.0.2.50"])),
            ("four.test", found(u32::MAX, &["192.0.2.40"])),
            ("fixed.test", found(u32::MAX, &["192.0.2.60"])),
        ] {
            let outcome = match resolver.lookup(&name.parse().unwrap()).await {
                Ok(addresses) => Ok((addresses.ttl, addresses.list)),
                Err(ResolveError::Failed { failure, .. }) => Err(failure),
                Err(error) => panic!("{name}: {error}"),
            };
            assert_eq!(outcome, expected, "{name}");
        }
    }
}
