//! The agents' resolver uses the same name resolution as the daemon's own connections.

use std::sync::Arc;

use async_trait::async_trait;
use onecli_dns::{Addresses, HostLookup, LookupError};
use onecli_model::Host;
use onecli_net::{ResolveError, ResolveFailure, Resolver};
use onecli_proxy::UpstreamProxy;

/// The names of this host.
#[derive(Debug)]
pub(super) struct HostNames {
    pub(super) resolver: Arc<Resolver>,
    /// The proxy that upstreams are reached through, if there is one.
    pub(super) proxy: Option<UpstreamProxy>,
}

#[async_trait]
impl HostLookup for HostNames {
    async fn addresses(&self, host: &Host) -> Result<Addresses, LookupError> {
        match self.resolver.lookup(host).await {
            Ok(found) => Ok(Addresses { list: found.list, ttl: found.ttl }),
            Err(ResolveError::Failed { failure: ResolveFailure::NoAddress, .. }) => {
                Ok(Addresses { list: Vec::new(), ttl: 0 })
            }
            Err(ResolveError::Failed { failure: ResolveFailure::NoSuchName, .. }) => {
                Err(LookupError::NoSuchName)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot resolve a name for an agent");
                Err(LookupError::Unavailable)
            }
        }
    }

    fn is_proxied(&self, host: &Host) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.is_for(host))
    }
}
