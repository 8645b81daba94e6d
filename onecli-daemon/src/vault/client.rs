//! How the vault reaches token endpoints and secret stores: through a trait, because names, addresses and certificates
//! are others' business.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::model::Authority;

/// Sends requests of the daemon's own over verified TLS, to addresses that were checked as those of agents are.
#[async_trait]
pub trait Outbound: fmt::Debug + Send + Sync {
    /// Sends `request`, whose URI is a path and query, to `authority`. Redirects are not followed; the answer is read
    /// whole, at most 1 MiB, within 15 seconds altogether.
    ///
    /// # Errors
    /// [`OutboundError`]: nobody answered.
    async fn send(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError>;
}

/// Why no answer came. Never holds what was sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutboundError(pub String);
