//! How the vault reaches token endpoints and secret stores: through a trait, because names, addresses and certificates
//! are others' business.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use onecli_model::{AgentName, Authority, SecretName};

/// Whose request of the daemon's own it is, for the record.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'p> {
    /// The agent whose request needs a token.
    pub agent: &'p AgentName,
    /// The secret that the token is bought with.
    pub secret: &'p SecretName,
    /// Its version.
    pub version: u32,
}

/// Sends requests of the daemon's own over verified TLS, to addresses that were checked as those of agents are.
#[async_trait]
pub trait Outbound: fmt::Debug + Send + Sync {
    /// Sends `request`, whose URI is a path and query, to `authority`. Redirects are not followed; the answer is read
    /// whole, at most 1 MiB, within 15 seconds altogether. That it is sent, and what for, is on record before.
    ///
    /// # Errors
    /// [`OutboundError`]: nobody answered, or there could be no record.
    async fn send(
        &self,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError>;
}

/// Why no answer came. Never holds what was sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutboundError(pub String);
