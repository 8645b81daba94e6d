//! Reasons to refuse an admin request, and their HTTP responses.

use http::StatusCode;
use jiff::Timestamp;
use onecli_api::{DROPS_RETAINED_VALUE, ErrorBody, ErrorDetail, VALUE_DOUBTFUL, VALUE_REQUIRED};
use onecli_model::Refusal;
use onecli_model::random::RandomError;
use onecli_store::StoreError;
use onecli_vault::VaultError;

/// Why an admin request was refused or failed. Never contains a secret value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// The peer has no permission.
    #[error("{message}")]
    NotPermitted {
        /// The reason.
        message: String,
        /// The next step for the user.
        hint: String,
    },
    /// No such agent, secret or grant.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// `agent`, `secret`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The agent has no such grant.
    #[error("agent '{agent}' has no grant for secret '{secret}'")]
    NoGrant {
        /// The agent.
        agent: String,
        /// The secret.
        secret: String,
    },
    /// A name or binding is already in use.
    #[error("{message}")]
    Exists {
        /// The name or binding, and its current owner.
        message: String,
        /// The next step for the user.
        hint: String,
    },
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The path or method names no operation.
    #[error("this daemon has no operation {method} {path}")]
    UnknownOperation {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// The body exceeds the size limit.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not arrive in time.
    #[error("the request did not arrive in time")]
    TooSlow,
    /// Too many clients follow the audit log.
    #[error("too many clients follow the audit log already")]
    TooManyFollowers,
    /// The agent cannot run in the current state.
    #[error("{message}")]
    NotReady {
        /// The obstacle.
        message: String,
        /// The next step for the user.
        hint: String,
    },
    /// The secret's row differs from the one that the daemon wrote.
    #[error("cannot replace the value of secret '{name}', because the stored value does not open: {reason}")]
    Unopened {
        /// Its name.
        name: String,
        /// The vault's error.
        reason: String,
    },
    /// A value that may not be the expected credential.
    #[error("the value of secret '{name}' does not look right: {faults}")]
    Doubtful {
        /// The secret.
        name: String,
        /// The reasons for doubt.
        faults: String,
    },
    /// A test of a secret received no response.
    #[error("cannot test secret '{name}' at {authority}: {}", .refusal.message)]
    NotTested {
        /// The secret.
        name: String,
        /// The request's destination.
        authority: String,
        /// Why there is no response.
        refusal: Box<Refusal>,
    },
    /// The change needs the secret's value.
    #[error(
        "the change lets secret '{name}' be sent where it was not allowed before ({wider}), which requires \
         its value again"
    )]
    ValueRequired {
        /// Its name.
        name: String,
        /// The properties that change.
        wider: String,
    },
    /// The change would erase a retained value.
    #[error(
        "the change would erase the value of version {version} of secret '{name}', which is retained until {until}"
    )]
    DropsRetainedValue {
        /// Its name.
        name: String,
        /// The version of the retained value.
        version: u32,
        /// The time until which it is otherwise retained.
        until: Timestamp,
        /// Whether `secret rollback` would restore it now.
        is_restorable: bool,
    },
    /// The operation conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
    /// A part of the host failed, such as cgroups or links.
    #[error("{0}")]
    Host(String),
    /// The change is stored but not active.
    #[error("the change is stored, but the running daemon could not apply it: {0}")]
    Reload(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No randomness is available for a token or id.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A bug in the daemon.
    #[error("internal error in the daemon: {0}")]
    Internal(&'static str),
}

impl AdminError {
    pub(crate) fn not_found(what: &'static str, name: &impl ToString) -> AdminError {
        AdminError::NotFound { what, name: name.to_string() }
    }

    /// Refuses an administrator an operation that would reveal stored values.
    pub(crate) fn root_only(operations: &str) -> AdminError {
        AdminError::NotPermitted {
            message: format!(
                "only root may {operations}: members of group 'onecli' never see a stored value"
            ),
            hint: "use sudo".to_owned(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            AdminError::NotPermitted { .. } => StatusCode::FORBIDDEN,
            AdminError::NotFound { .. }
            | AdminError::NoGrant { .. }
            | AdminError::UnknownOperation { .. }
            | AdminError::Store(StoreError::NotFound { .. }) => StatusCode::NOT_FOUND,
            AdminError::Exists { .. }
            | AdminError::NotReady { .. }
            | AdminError::Conflict(_)
            | AdminError::ValueRequired { .. }
            | AdminError::DropsRetainedValue { .. }
            | AdminError::Unopened { .. }
            | AdminError::Vault(VaultError::Refused(_))
            | AdminError::Store(StoreError::Taken { .. } | StoreError::Conflict { .. }) => {
                StatusCode::CONFLICT
            }
            AdminError::NotTested { refusal, .. } if refusal.code.status() < 500 => StatusCode::CONFLICT,
            AdminError::NotTested { .. } => StatusCode::BAD_GATEWAY,
            AdminError::Invalid(_) | AdminError::Doubtful { .. } => StatusCode::BAD_REQUEST,
            AdminError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            AdminError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            AdminError::TooManyFollowers => StatusCode::TOO_MANY_REQUESTS,
            AdminError::Host(_)
            | AdminError::Reload(_)
            | AdminError::Store(_)
            | AdminError::Vault(_)
            | AdminError::Random(_)
            | AdminError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            AdminError::NotPermitted { .. } => "not_permitted",
            AdminError::NotFound { .. } | AdminError::NoGrant { .. } => "not_found",
            AdminError::UnknownOperation { .. } => "unknown_operation",
            AdminError::Exists { .. } | AdminError::Store(StoreError::Taken { .. }) => "exists",
            AdminError::NotReady { .. } => "not_ready",
            AdminError::ValueRequired { .. } => VALUE_REQUIRED,
            AdminError::DropsRetainedValue { .. } => DROPS_RETAINED_VALUE,
            AdminError::Invalid(_) => "invalid",
            AdminError::Doubtful { .. } => VALUE_DOUBTFUL,
            AdminError::NotTested { refusal, .. } => refusal.code.as_str(),
            AdminError::TooLarge(_) => "too_large",
            AdminError::TooSlow => "timeout",
            AdminError::TooManyFollowers => "limit_reached",
            AdminError::Conflict(_)
            | AdminError::Unopened { .. }
            | AdminError::Store(StoreError::NotFound { .. } | StoreError::Conflict { .. })
            | AdminError::Vault(VaultError::Refused(_)) => "conflict",
            AdminError::Host(_) => "host",
            AdminError::Reload(_) => "not_in_force",
            AdminError::Store(_) => "store",
            AdminError::Vault(_) => "vault",
            AdminError::Random(_) | AdminError::Internal(_) => "internal",
        }
    }

    fn hint(&self) -> String {
        match self {
            AdminError::NotPermitted { hint, .. }
            | AdminError::Exists { hint, .. }
            | AdminError::NotReady { hint, .. } => hint.clone(),
            AdminError::NotFound { what: "runner", .. } => "'onecli agent show' lists the permitted runners".to_owned(),
            AdminError::NotFound { what, .. } => format!("'onecli {what} list' shows the existing names"),
            AdminError::NoGrant { agent, .. } => format!("'onecli agent show {agent}' shows its grants"),
            AdminError::UnknownOperation { .. } => {
                "use the same version of onecli and onecli-daemon ('onecli --version', 'onecli status')".to_owned()
            }
            AdminError::Store(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                "it was changed at the same time: check it, then try again".to_owned()
            }
            AdminError::Reload(_) => {
                "until then, the previous state applies to requests: see the daemon's log, or restart the daemon"
                    .to_owned()
            }
            AdminError::TooManyFollowers => "stop one 'onecli audit tail -f'".to_owned(),
            AdminError::NotTested { refusal, .. } => refusal.hint.to_string(),
            AdminError::Doubtful { .. } => {
                "supply only the credential, or store the value unchanged with --force".to_owned()
            }
            AdminError::Unopened { name, .. } => format!(
                "check its destinations ('onecli secret show {name}'), then remove it and add it again, or \
                 restore a backup"
            ),
            AdminError::DropsRetainedValue { name, is_restorable: true, .. } => {
                format!("roll back first ('onecli secret rollback {name}'), or use --force to erase it")
            }
            AdminError::DropsRetainedValue { .. } => {
                "no rollback restores it with the secret's current settings: use --force to erase it".to_owned()
            }
            AdminError::ValueRequired { .. } => "pass it with --value-stdin or --value-file, or use sudo".to_owned(),
            AdminError::Vault(VaultError::Refused(_)) => String::new(),
            AdminError::Store(_) | AdminError::Vault(_) | AdminError::Internal(_) => {
                "see the daemon's log".to_owned()
            }
            _ => String::new(),
        }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail { code: self.code().to_owned(), message: self.to_string(), hint: self.hint() },
        }
    }
}
