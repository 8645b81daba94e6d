//! Why a value could not be had from the vault server. Never holds a token or a value.

use std::time::Duration;

/// What can go wrong between us and the server.
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
        /// Why.
        reason: String,
    },
    /// No connection, no TLS, or no whole answer.
    #[error("the vault server at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What failed.
        reason: String,
    },
    /// No answer in time.
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
        "the vault server is a standby that does not serve this request ({0}): name the active node in address"
    )]
    Standby(u16),
    /// 3xx. The token is never sent on.
    #[error(
        "the vault server redirects to another place (it is a standby), which is not followed with the token: name the \
         active node, or the cluster's load balancer, in address"
    )]
    Redirect,
    /// 429.
    #[error("the vault server's rate limit is reached (429)")]
    RateLimited,
    /// 412 although it was tried again.
    #[error("the vault server has not caught up with its leader yet (412)")]
    NotCaughtUp,
    /// 403 with a fresh token.
    #[error("the vault server does not permit '{path}' (403): add 'read' on it to the policy of our role")]
    Denied {
        /// What was asked for.
        path: String,
    },
    /// The login was refused.
    #[error("logging in to the vault server by {method} failed: {reason}")]
    Login {
        /// Which method.
        method: &'static str,
        /// The server's words, or ours.
        reason: String,
    },
    /// A wrapping token that was used before we used it.
    #[error(
        "the wrapping token in {path} was used already or has expired: if nobody of yours did, the secret id may have been \
         stolen; destroy it and wrap a new one"
    )]
    Unwrapped {
        /// The file that holds it.
        path: String,
    },
    /// A wrapping token made by something else than the role's secret-id endpoint.
    #[error("the wrapping token in {path} was not made by '{expected}' but by '{found}': it is not used")]
    WrappedElsewhere {
        /// The file that holds it.
        path: String,
        /// Where it should come from.
        expected: String,
        /// Where it comes from.
        found: String,
    },
    /// 404.
    #[error("the vault server has nothing at '{path}'{}", version.map(|v| format!(" in version {v}")).unwrap_or_default())]
    NoSuchPath {
        /// What was asked for.
        path: String,
        /// The pinned version.
        version: Option<u32>,
    },
    /// The secret is there, the field is not.
    #[error("'{path}' in the vault server has no field '{field}' that holds text")]
    NoSuchField {
        /// The path.
        path: String,
        /// The field.
        field: String,
    },
    /// No secret, but the server's own workings.
    #[error("'{0}' belongs to the vault server itself, and is no secret for use elsewhere")]
    Own(String),
    /// A version was pinned where there are none.
    #[error("'{0}' cannot be pinned to a version: it is not in a KV version 2 mount")]
    NoVersions(String),
    /// A value that cannot be placed in a request.
    #[error("the value of '{field}' at '{path}' cannot be used: {reason}")]
    Unusable {
        /// The path.
        path: String,
        /// The field.
        field: String,
        /// Why.
        reason: String,
    },
    /// Any other status.
    #[error("the vault server answered '{path}' with {status}: {reason}")]
    Status {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        reason: String,
    },
    /// Not the answer that the API documents.
    #[error("the vault server's answer for '{path}' cannot be understood: {reason}")]
    Answer {
        /// What was asked for.
        path: String,
        /// What is odd.
        reason: String,
    },
    /// The lease could not be noted, so it was given back.
    #[error("a lease could not be noted in the store and was given back: {0}")]
    Ledger(String),
    /// There is no `[backend.vault]`.
    #[error("no vault server is configured: add [backend.vault] to the configuration")]
    NotConfigured,
}

impl BackendError {
    /// Is it the server that fails, rather than what was asked of it? Only then may a value whose time is over be used.
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
