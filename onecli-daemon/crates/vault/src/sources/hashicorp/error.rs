//! Errors of the vault server's client. They never contain a token or a value.

use std::time::Duration;

/// Errors between the daemon and the server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The address does not parse, or would send the token in the clear.
    #[error("[backend.vault] address: {0}")]
    Address(String),
    /// A file that the settings name cannot be read.
    #[error("cannot read {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// No connection, no TLS, or no complete response.
    #[error("the vault server at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The failure.
        reason: String,
    },
    /// No response in time.
    #[error("the vault server at {address} did not answer within {within:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// The configured bound.
        within: Duration,
    },
    /// 503: sealed, or in maintenance.
    #[error("the vault server is sealed or in maintenance (503): unseal it")]
    Sealed,
    /// 472 or 473: a replica that does not serve this request.
    #[error(
        "the vault server is a standby that does not serve this request ({0}): set address to the active node"
    )]
    Standby(u16),
    /// 3xx. The client never sends the token to another server.
    #[error(
        "the vault server redirects to another server (it is a standby), which is not followed, because the \
         token would be sent there: set address to the active node, or to the cluster's load balancer"
    )]
    Redirect,
    /// 429.
    #[error("the vault server's rate limit is reached (429)")]
    RateLimited,
    /// 412 on all tries.
    #[error("the vault server has not caught up with its leader yet (412)")]
    NotCaughtUp,
    /// 403 with a fresh token.
    #[error(
        "the vault server does not permit '{path}' (403): add 'read' on it to the policy of the daemon's role"
    )]
    Denied {
        /// The requested path.
        path: String,
    },
    /// The login was refused.
    #[error("logging in to the vault server by {method} failed: {reason}")]
    Login {
        /// The login method.
        method: &'static str,
        /// The message of the server, or of this client.
        reason: String,
    },
    /// A wrapping token that was used before the daemon used it.
    #[error(
        "the wrapping token in {path} was already used or has expired: if no administrator used it, the \
         secret id may have been stolen; destroy it and wrap a new one"
    )]
    Unwrapped {
        /// The file with the token.
        path: String,
    },
    /// A wrapping token that another endpoint than the role's secret-id endpoint created.
    #[error("the wrapping token in {path} was not created by '{expected}' but by '{found}': it is not used")]
    WrappedElsewhere {
        /// The file with the token.
        path: String,
        /// The expected creation path.
        expected: String,
        /// The actual creation path.
        found: String,
    },
    /// 404.
    #[error("the vault server has nothing at '{path}'{}", version.map(|v| format!(" in version {v}")).unwrap_or_default())]
    NoSuchPath {
        /// The requested path.
        path: String,
        /// The pinned version.
        version: Option<u32>,
    },
    /// The secret exists, the field does not.
    #[error("'{path}' in the vault server has no field '{field}' that holds text")]
    NoSuchField {
        /// The path.
        path: String,
        /// The field.
        field: String,
    },
    /// The path contains data of the vault server itself, not a secret.
    #[error("'{0}' belongs to the vault server itself, and is not a secret for use elsewhere")]
    Own(String),
    /// A version was pinned at a path without versions.
    #[error("'{0}' cannot be pinned to a version: it is not in a KV version 2 mount")]
    NoVersions(String),
    /// A value that cannot be placed in a request.
    #[error("the value of '{field}' at '{path}' cannot be used: {reason}")]
    Unusable {
        /// The path.
        path: String,
        /// The field.
        field: String,
        /// The reason.
        reason: String,
    },
    /// Any other status.
    #[error("the vault server responded to '{path}' with {status}: {reason}")]
    Status {
        /// The requested path.
        path: String,
        /// HTTP status.
        status: u16,
        /// The server's message.
        reason: String,
    },
    /// A response that the API does not document.
    #[error("the vault server's response to '{path}' cannot be parsed: {reason}")]
    Answer {
        /// The requested path.
        path: String,
        /// The problem.
        reason: String,
    },
    /// The lease could not be stored, so it was revoked.
    #[error("a lease could not be stored and was revoked: {0}")]
    LeaseStore(String),
    /// There is no `[backend.vault]`.
    #[error("no vault server is configured: add [backend.vault] to the configuration")]
    NotConfigured,
}

impl BackendError {
    /// Reports whether the server failed, rather than the request. Only then may an expired value be used.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            BackendError::Unreachable { .. }
                | BackendError::TimedOut { .. }
                | BackendError::Sealed
                | BackendError::Standby(_)
                | BackendError::Redirect
                | BackendError::RateLimited
                | BackendError::NotCaughtUp
        ) || matches!(self, BackendError::Status { status, .. } if *status >= 500)
    }
}
