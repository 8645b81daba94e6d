//! Names to checked addresses. The daemon resolves for itself; an agent's own answer is never used.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;

use super::address::{AddressPolicy, CheckedAddr};
use crate::model::{Authority, Host};

/// Addresses tried for one name.
const MAX_ADDRESSES: usize = 8;

/// Why there is no address to dial.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Every address is in a blocked range.
    #[error("every address of {0} is in a blocked range (loopback, private, link-local, ...)")]
    Blocked(Host),
    /// DNS has no answer.
    #[error("cannot resolve {host}: {reason}")]
    Failed {
        /// The name.
        host: Host,
        /// The resolver's reason.
        reason: String,
    },
}

/// Resolves hosts: configured names, then the system's `/etc/hosts` and DNS servers.
pub struct Resolver {
    fixed: BTreeMap<Host, Vec<IpAddr>>,
    /// The reason, where `/etc/resolv.conf` is missing or bad: configured names still work.
    dns: Result<Box<TokioResolver>, String>,
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
    /// `fixed` is `[resolver] hosts`, which wins over DNS.
    pub fn new(fixed: BTreeMap<Host, Vec<IpAddr>>, policy: AddressPolicy) -> Resolver {
        let dns = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map(Box::new)
            .map_err(|error| error.to_string());
        if let Err(reason) = &dns {
            tracing::warn!(%reason, "no DNS: only names in [resolver] hosts and addresses can be reached");
        }
        Resolver { fixed, dns, policy }
    }

    /// The addresses of `authority` that may be dialled, at least one and at most eight.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(&self, authority: &Authority) -> Result<Vec<CheckedAddr>, ResolveError> {
        let host = authority.host();
        let addresses = match host.as_ip() {
            Some(ip) => vec![ip],
            None => self.lookup(host).await?,
        };
        let checked: Vec<CheckedAddr> = addresses
            .into_iter()
            .filter_map(|ip| self.policy.check(SocketAddr::new(ip, authority.port())))
            .take(MAX_ADDRESSES)
            .collect();
        if checked.is_empty() { Err(ResolveError::Blocked(host.clone())) } else { Ok(checked) }
    }

    /// The addresses of a name, blocked ones too.
    ///
    /// # Errors
    /// [`ResolveError::Failed`].
    pub async fn lookup(&self, host: &Host) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(fixed) = self.fixed.get(host) {
            return Ok(fixed.clone());
        }
        let failed = |reason: String| ResolveError::Failed { host: host.clone(), reason };
        let dns = self.dns.as_ref().map_err(|reason| failed(reason.clone()))?;
        // The dot at the end keeps search domains out: the name that was matched is the name that is asked for.
        let answer = dns.lookup_ip(format!("{host}.")).await.map_err(|error| failed(error.to_string()))?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
    }
}
