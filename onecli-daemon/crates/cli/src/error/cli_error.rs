//! Why a command failed, and its exit code.

use std::io;
use std::path::PathBuf;

use onecli_api::ErrorDetail;
use onecli_audit::{AuditError, Findings};

use super::env_error::EnvError;
use super::findings::describe;
use crate::client::{ClientError, SAME_VERSION};
use crate::host::trust::TrustError;
use crate::host::user::UserError;
use crate::input::confirm::ConfirmError;
use crate::input::value::ValueError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon was not available or refused the request.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line parses but is incomplete.
    #[error("{0}")]
    Usage(String),
    /// A value could not be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A step was not confirmed.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
    /// The host has no user for the agent.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file for a container could not be written.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The host's trust store could not be changed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file could not be written, or a program could not be started.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operation has started but has not finished.
    #[error("{0}")]
    Unfinished(String),
    /// The audit log was modified.
    #[error("the audit log is NOT as it was written\n{}", describe(.0))]
    NotVerified(Box<Findings>),
    /// A file of the audit log could not be read.
    #[error(transparent)]
    Audit(AuditError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// This version does not understand the daemon's response.
    #[error("cannot read the daemon's response: {0}\nhelp: {help}", help = SAME_VERSION)]
    Answer(#[from] serde_json::Error),
}

impl CliError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Client(error) => error.exit_code(),
            CliError::Confirm(error) => error.exit_code(),
            CliError::User(UserError::NotRoot) | CliError::Trust(TrustError::NotRoot) => 4,
            CliError::User(_)
            | CliError::Trust(_)
            | CliError::Env(_)
            | CliError::Value(_)
            | CliError::Output(_)
            | CliError::Answer(_)
            | CliError::File { .. }
            | CliError::Unfinished(_)
            | CliError::NotVerified(_)
            | CliError::Audit(_) => 1,
        }
    }

    /// Returns the machine-readable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::File { .. } => "file",
            CliError::Unfinished(_) => "unfinished",
            CliError::NotVerified(_) => "not_verified",
            CliError::Audit(_) => "audit",
            CliError::Output(_) => "output",
            CliError::Answer(_) => "unreadable_answer",
            CliError::Value(_) => "value",
            CliError::Confirm(_) => "not_confirmed",
            CliError::User(UserError::NotRoot) | CliError::Trust(TrustError::NotRoot) => "not_permitted",
            CliError::User(_) | CliError::Trust(_) | CliError::Env(_) | CliError::Client(_) => "failed",
        }
    }

    pub(crate) fn report(&self) -> ErrorDetail {
        match self {
            CliError::Client(error) => error.report(),
            other => ErrorDetail::new(other.code(), other),
        }
    }

    /// Returns whether the reader of the output has exited, as `head` does. That is not an error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
