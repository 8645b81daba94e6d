//! The resolver's interface to the host's own name service.

use std::net::IpAddr;

use async_trait::async_trait;
use onecli_model::Host;

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses of both families; empty if the name exists without one.
    pub list: Vec<IpAddr>,
    /// The TTL, in seconds.
    pub ttl: u32,
}

/// The reason why a lookup has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The name does not exist.
    NoSuchName,
    /// No server can answer at the moment.
    Unavailable,
}

/// Looks names up as the daemon does for its own connections.
#[async_trait]
pub trait HostLookup: Send + Sync + std::fmt::Debug {
    /// Looks up the addresses of `host`, including blocked ones. The answer does not make the daemon dial any of
    /// them.
    ///
    /// # Errors
    /// [`LookupError`].
    async fn addresses(&self, host: &Host) -> Result<Addresses, LookupError>;

    /// Returns whether connections to `host` go through the upstream proxy, which resolves names itself.
    fn is_proxied(&self, host: &Host) -> bool;
}
