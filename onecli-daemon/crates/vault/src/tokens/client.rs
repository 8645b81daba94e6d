//! The vault's access to token endpoints and secret stores. It is a trait, because other modules handle names,
//! addresses and certificates.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use onecli_model::{AgentName, Authority, SecretName};

/// The purpose of one of the daemon's own requests, for the audit record.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'p> {
    /// The agent whose request needs a token.
    pub agent: &'p AgentName,
    /// The secret that is exchanged for the token.
    pub secret: &'p SecretName,
    /// The version of the secret.
    pub version: u32,
}

/// Sends the daemon's own requests over verified TLS, to addresses that were checked as those of agents are.
#[async_trait]
pub trait TokenEndpointClient: fmt::Debug + Send + Sync {
    /// Sends `request`, whose URI is a path and query, to `authority`. Redirects are not followed. The response is
    /// read completely, at most 1 MiB, and the whole exchange may take 15 seconds. The request and its purpose are
    /// recorded before it is sent.
    ///
    /// # Errors
    /// [`DaemonRequestError`]: there was no response, or the audit record could not be written.
    async fn send(
        &self,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, DaemonRequestError>;
}

/// The reason why there was no response. It never contains bytes sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DaemonRequestError(pub String);
