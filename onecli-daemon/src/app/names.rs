//! The agents' resolver asks where the daemon does for its own connections.

use async_trait::async_trait;

use crate::dns::{Addresses, Names, NoAddress};
use crate::model::Host;
use crate::net::{ResolveError, ResolveFailure, Resolver};

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &Host) -> Result<Addresses, NoAddress> {
        match self.lookup(host).await {
            Ok(found) => Ok(Addresses { list: found.list, ttl: found.ttl }),
            Err(ResolveError::Failed { failure: ResolveFailure::NoAddress, .. }) => {
                Ok(Addresses { list: Vec::new(), ttl: 0 })
            }
            Err(ResolveError::Failed { failure: ResolveFailure::NoSuchName, .. }) => {
                Err(NoAddress::NoSuchName)
            }
            Err(error) => {
                tracing::debug!(%error, "an agent's query cannot be answered");
                Err(NoAddress::Unavailable)
            }
        }
    }
}
