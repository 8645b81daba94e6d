//! What the resolver asks of the host's own name service.

use std::net::IpAddr;

use async_trait::async_trait;
use onecli_model::Host;

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Of both families; none where the name exists without one.
    pub list: Vec<IpAddr>,
    /// How long they hold, in seconds.
    pub ttl: u32,
}

/// Why there is nothing to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAddress {
    /// The name does not exist.
    NoSuchName,
    /// Nobody knows at the moment.
    Unavailable,
}

/// Looks names up as the daemon does for its own connections.
#[async_trait]
pub trait Names: Send + Sync + std::fmt::Debug {
    /// The addresses of `host`, blocked ones too: the daemon dials none of them on account of the answer.
    ///
    /// # Errors
    /// [`NoAddress`].
    async fn addresses(&self, host: &Host) -> Result<Addresses, NoAddress>;

    /// Are connections to `host` made through the upstream proxy, which resolves names itself?
    fn is_proxied(&self, host: &Host) -> bool;
}
